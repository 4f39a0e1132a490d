//! NVIDIA's GPUs, by way of the driver's own library (NVML), which is looked for when the agent runs.
//!
//! A GPU with runtime power management sleeps while nothing uses it. The library wakes every GPU that it opens, and keeps it awake
//! until it closes it. So the kernel is asked first which GPUs sleep. The library is then loaded for the others only, and closed after
//! each reading.

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
/// How long the driver may take: longer than it does to wake a GPU.
const DEADLINE: Duration = Duration::from_secs(1);

/// NVIDIA's number among the makers of PCI devices, as the file `vendor` has it.
const NVIDIA: &str = "0x10de";
/// How the file `class` of a display controller begins.
const DISPLAY: &str = "0x03";

/// The GPUs of a host that has the driver.
pub(super) struct Gpus {
    /// None once the library has been looked for in vain: a driver comes with a restart.
    driver: Option<Blocking<Driver, GpuAnswer>>,
}

/// An error where there is no library that works.
type GpuAnswer = Result<Option<Vec<Gpu>>, NvmlError>;

/// The driver's library, and what is kept between readings.
struct Driver {
    /// Where the kernel lists PCI devices: `/sys/bus/pci/devices`.
    devices: PathBuf,
    /// Kept open where no GPU can sleep.
    library: Option<Nvml>,
    /// The models of the GPUs that can sleep, by PCI address. One entry a GPU of the host.
    models: HashMap<String, String>,
}

/// What the kernel tells of a GPU.
#[derive(Debug, PartialEq, Eq)]
struct PciGpu {
    /// Such as `0000:01:00.0`.
    address: String,
    /// Whether the kernel suspends it while nothing uses it.
    can_sleep: bool,
    sleeps: bool,
}

impl Gpus {
    /// Nothing is looked for yet. The kernel lists PCI devices in the folder `devices`.
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

    /// All GPUs, by their numbers; none where there is no driver, and while it does not answer.
    pub(super) async fn read(&mut self) -> Option<Vec<Gpu>> {
        match self.driver.as_mut()?.read(Driver::read).await {
            Ok(Ok(gpus)) => gpus,
            Ok(Err(error)) => {
                debug!(%error, "no GPU figures: no driver");
                self.driver = None;
                None
            }
            Err(late) => {
                debug!(late, "no GPU figures");
                None
            }
        }
    }
}

impl Driver {
    /// Blocks.
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

    /// Asks the library for the GPUs that are awake, and for nothing where none is.
    fn read_awake(&mut self, listed: &[PciGpu]) -> Result<Vec<Gpu>, NvmlError> {
        self.models
            .retain(|address, _| listed.iter().any(|gpu| gpu.address == *address));
        // Closed at the end of this function. It opens no GPU of its own accord.
        let library = if listed.iter().all(|gpu| gpu.sleeps) {
            None
        } else {
            Some(Nvml::init_with_flags(InitFlags::NO_ATTACH)?)
        };
        // The driver numbers its GPUs by their addresses.
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

/// The host's GPUs of NVIDIA's make, by PCI address, without those that another driver serves. Source: `driver`, `vendor`, `class`, `power/control` and `power/runtime_status` of each
/// PCI device, none of which wakes it.
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

/// What a GPU says; some do not know all of it.
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
        asleep: None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{PciGpu, pci_gpus};

    #[test]
    fn the_kernel_tells_which_gpus_sleep() {
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
            // Its sound, another maker's display, and a device whose files are odd.
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
        // One that a virtual machine has, and one that NVIDIA's driver serves.
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
