//! Reads NVIDIA GPUs with the library of their driver (NVML). The agent loads the library at run time.
//!
//! A GPU with runtime power management sleeps while no program uses it. The library wakes every GPU that the library opens, and
//! the GPU stays awake until the library is closed. So the agent first asks the kernel which GPUs sleep. If a GPU can sleep, the
//! agent opens only the GPUs that are awake, and closes the library after each reading.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::device::Device;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use tracing::debug;

use crate::collect::blocking::Blocking;
use crate::model::{Gpu, figure};

const MIB: f64 = 1_048_576.0;
/// Timeout for the driver. A driver needs less time than this to wake a GPU.
const DEADLINE: Duration = Duration::from_secs(1);

/// NVIDIA's PCI vendor number, as in the file `vendor`.
const NVIDIA: &str = "0x10de";
/// The start of the file `class` of a display controller.
const DISPLAY: &str = "0x03";

/// The GPUs of a host that has the driver.
pub(super) struct NvidiaGpus {
    /// The driver. None if the library could not be loaded. If the driver is installed later, the agent must be restarted.
    driver: Option<Blocking<Driver, GpuAnswer>>,
}

/// The answer of the driver. An error means that no working library was found.
type GpuAnswer = Result<Option<Vec<Gpu>>, NvmlError>;

/// The driver's library, and the data that is stored between readings.
struct Driver {
    /// The folder in which the kernel lists PCI devices: `/sys/bus/pci/devices`.
    devices: PathBuf,
    /// The open library. It stays open only if no GPU can sleep.
    library: Option<Nvml>,
    /// The model names of GPUs by PCI address, on a host where a GPU can sleep.
    models: HashMap<String, String>,
}

/// The kernel's data about a GPU.
#[derive(Debug, PartialEq, Eq)]
struct PciGpu {
    /// The PCI address, for example `0000:01:00.0`.
    address: String,
    /// Whether the kernel suspends the GPU while nothing uses it.
    can_sleep: bool,
    sleeps: bool,
}

impl NvidiaGpus {
    /// Creates the reader, and does not load the library yet. `devices` is the folder in which the kernel lists PCI devices.
    pub(super) fn new(devices: &Path) -> Self {
        let driver = Driver {
            devices: devices.to_owned(),
            library: None,
            models: HashMap::new(),
        };
        Self {
            driver: Some(Blocking::new("GPUs", driver).within(DEADLINE)),
        }
    }

    /// Reads all GPUs, in the order of their numbers. Returns none if there is no driver, and while the driver does not answer.
    pub(super) async fn read(&mut self) -> Option<Vec<Gpu>> {
        match self.driver.as_mut()?.read(Driver::read).await {
            Ok(Ok(gpus)) => gpus,
            Ok(Err(error)) => {
                debug!(%error, "no GPU figures: no working driver");
                self.driver = None;
                None
            }
            Err(late) => {
                debug!(late, "no GPU figures: no answer from the driver");
                None
            }
        }
    }
}

impl Driver {
    /// Reads all GPUs. Blocks the thread until the driver answers.
    fn read(&mut self) -> GpuAnswer {
        let listed = pci_gpus(&self.devices);
        if listed.iter().any(|gpu| gpu.can_sleep) {
            self.library = None;
            return self.read_awake(&listed).map(Some);
        }
        let library = match self.library.take() {
            Some(library) => library,
            None => Nvml::init()?,
        };
        Ok(gpus(self.library.insert(library)))
    }

    /// Asks the library for the GPUs that are awake. Does not load the library if all GPUs sleep.
    fn read_awake(&mut self, listed: &[PciGpu]) -> Result<Vec<Gpu>, NvmlError> {
        self.models
            .retain(|address, _| listed.iter().any(|gpu| gpu.address == *address));
        // The library is closed at the end of this function. With NO_ATTACH, the library opens only the GPUs that this function
        // asks for.
        let library = if listed.iter().all(|gpu| gpu.sleeps) {
            None
        } else {
            Some(Nvml::init_with_flags(InitFlags::NO_ATTACH)?)
        };
        // The driver numbers its GPUs in the order of their addresses.
        Ok((0..)
            .zip(listed)
            .filter_map(
                |(
                    index,
                    PciGpu {
                        address, sleeps, ..
                    },
                )| {
                    if *sleeps {
                        return Some(Gpu {
                            index,
                            name: self.models.get(address).cloned().unwrap_or_default(),
                            asleep: Some(true),
                            ..Gpu::default()
                        });
                    }
                    let device = library.as_ref()?.device_by_pci_bus_id(address.as_str());
                    let gpu = gpu(index, &device.ok()?);
                    self.models.insert(address.clone(), gpu.name.clone());
                    Some(gpu)
                },
            )
            .collect())
    }
}

/// Lists the host's NVIDIA GPUs, sorted by PCI address. Leaves out a GPU with another driver. Source: `driver`, `vendor`,
/// `class`, `power/control` and `power/runtime_status` of each PCI device. Reading these files does not wake the GPU.
fn pci_gpus(devices: &Path) -> Vec<PciGpu> {
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut gpus: Vec<PciGpu> = entries
        .filter_map(|entry| {
            let folder = entry.path();
            let says = |file| fs::read_to_string(folder.join(file)).unwrap_or_default();
            let others = fs::read_link(folder.join("driver"))
                .is_ok_and(|driver| !driver.ends_with("nvidia"));
            if others || says("vendor").trim_end() != NVIDIA || !says("class").starts_with(DISPLAY)
            {
                return None;
            }
            let status = says("power/runtime_status");
            let sleeps = matches!(status.trim_end(), "suspended" | "suspending");
            Some(PciGpu {
                address: entry.file_name().into_string().ok()?,
                can_sleep: sleeps || says("power/control").trim_end() == "auto",
                sleeps,
            })
        })
        .collect();
    gpus.sort_unstable_by(|a, b| a.address.cmp(&b.address));
    gpus
}

fn gpus(nvml: &Nvml) -> Option<Vec<Gpu>> {
    let count = nvml.device_count().ok()?;
    let devices = (0..count).filter_map(|index| Some((index, nvml.device_by_index(index).ok()?)));
    Some(devices.map(|(index, device)| gpu(index, &device)).collect())
}

/// Reads the figures of one GPU. A figure that the GPU does not have is none.
fn gpu(index: u32, device: &Device<'_>) -> Gpu {
    let utilization = device.utilization_rates().ok();
    let memory = device.memory_info().ok();
    let mib = |bytes: u64| figure(bytes as f64 / MIB, 2);
    let power = device.power_usage().ok();
    Gpu {
        index,
        name: device.name().unwrap_or_default(),
        busy_percent: utilization.map(|share| f64::from(share.gpu)),
        memory_used: memory.as_ref().map(|memory| mib(memory.used)),
        memory_total: memory.as_ref().map(|memory| mib(memory.total)),
        celsius: device
            .temperature(TemperatureSensor::Gpu)
            .ok()
            .map(f64::from),
        watts: power.map(|milliwatts| figure(f64::from(milliwatts) / 1000.0, 2)),
        ..Gpu::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{PciGpu, pci_gpus};

    #[test]
    fn sleeping_gpus_are_found_without_the_library() {
        let devices = tempfile::tempdir().unwrap();
        let gpu = ["0x10de\n", "0x030200\n"];
        for (address, [vendor, class], control, status) in [
            ("0000:c1:00.0", gpu, "on\n", "active\n"),
            ("0000:01:00.0", gpu, "auto\n", "suspended\n"),
            (
                "0000:02:00.0",
                ["0x10de\n", "0x030000\n"],
                "auto\n",
                "active\n",
            ),
            ("0000:03:00.0", gpu, "auto\n", "suspending\n"),
            ("0000:04:00.0", gpu, "auto\n", "resuming\n"),
            // The sound device of a GPU, a display of another vendor, and a device with invalid files.
            (
                "0000:01:00.1",
                ["0x10de\n", "0x040300\n"],
                "auto\n",
                "suspended\n",
            ),
            (
                "0000:05:00.0",
                ["0x1002\n", "0x030000\n"],
                "auto\n",
                "suspended\n",
            ),
            ("0000:06:00.0", ["", "\u{1}"], "", ""),
        ] {
            let folder = devices.path().join(address);
            fs::create_dir_all(folder.join("power")).unwrap();
            fs::write(folder.join("vendor"), vendor).unwrap();
            fs::write(folder.join("class"), class).unwrap();
            fs::write(folder.join("power/control"), control).unwrap();
            fs::write(folder.join("power/runtime_status"), status).unwrap();
        }
        // A GPU that a virtual machine uses, and a GPU with NVIDIA's driver.
        let driver = |address: &str, driver: &str| {
            let link = devices.path().join(address).join("driver");
            std::os::unix::fs::symlink(format!("../../bus/pci/drivers/{driver}"), link).unwrap();
        };
        fs::create_dir(devices.path().join("0000:08:00.0")).unwrap();
        for file in ["vendor", "class"] {
            let [from, to] = ["0000:c1:00.0", "0000:08:00.0"];
            let path = |address: &str| devices.path().join(address).join(file);
            fs::copy(path(from), path(to)).unwrap();
        }
        driver("0000:08:00.0", "vfio-pci");
        driver("0000:c1:00.0", "nvidia");
        // A kernel without power management.
        let bare = devices.path().join("0000:07:00.0");
        fs::create_dir(&bare).unwrap();
        fs::write(bare.join("vendor"), gpu[0]).unwrap();
        fs::write(bare.join("class"), gpu[1]).unwrap();
        let expected = [
            ("0000:01:00.0", true, true),
            ("0000:02:00.0", true, false),
            ("0000:03:00.0", true, true),
            ("0000:04:00.0", true, false),
            ("0000:07:00.0", false, false),
            ("0000:c1:00.0", false, false),
        ];
        let expected = expected.map(|(address, can_sleep, sleeps)| PciGpu {
            address: address.to_owned(),
            can_sleep,
            sleeps,
        });
        assert_eq!(pci_gpus(devices.path()), expected);
        assert!(pci_gpus(&devices.path().join("absent")).is_empty());
    }
}
