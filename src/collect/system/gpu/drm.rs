//! Reads GPUs of AMD and Intel from the files of their drivers (`amdgpu`, `i915` and `xe`).
//!
//! A GPU with runtime power management sleeps while no program uses it. Reading a file of the driver restarts the timer after which the
//! GPU sleeps. On some kernels it also wakes the GPU. Therefore, the agent first asks the kernel whether the GPU sleeps. If a GPU can
//! sleep, the agent waits for the timer to expire between two readings. Source: `drivers/gpu/drm/amd/pm/amdgpu_pm.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::collect::blocking::Blocking;
use crate::collect::system::lookup::{self, Lookup, number, text};
use crate::model::{Gpu, figure};

const MIB: f64 = 1_048_576.0;
/// Maximum number of GPUs.
const MAX_GPUS: usize = 32;
/// Timeout for the drivers.
const DEADLINE: Duration = Duration::from_secs(1);
/// Time that a GPU gets to fall asleep after the delay has passed.
const FALLS_ASLEEP: Duration = Duration::from_secs(2);
/// Plausible temperatures, in degrees Celsius.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 0.0..=250.0;

/// The GPUs with a driver that has files.
pub(super) struct DrmGpus {
    cards: Blocking<Cards, Vec<Gpu>>,
    /// When the host was found to have no GPUs. None while it has some.
    without_since: Option<Instant>,
}

struct Cards {
    /// The folder in which the kernel lists GPUs: `/sys/class/drm`.
    class: PathBuf,
    found: Lookup<Card>,
}

/// One GPU, with its files and the data that is stored between readings.
struct Card {
    folder: PathBuf,
    device: PathBuf,
    driver: Driver,
    /// The sensors of the GPU. None if there are none.
    hwmon: Option<PathBuf>,
    /// The values that do not change.
    gpu: Gpu,
    /// The newest figures, and the time of their reading.
    newest: Option<(Gpu, Instant)>,
    /// The time in RC6 in milliseconds, and the time of its reading.
    rc6: Option<(u64, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Amd,
    I915,
    Xe,
}

impl DrmGpus {
    /// Creates the reader, and reads nothing yet. `class` is `/sys/class/drm`.
    pub(super) fn new(class: &Path) -> Self {
        let cards = Cards {
            class: class.to_owned(),
            found: Lookup::default(),
        };
        Self {
            cards: Blocking::new("GPUs", cards).within(DEADLINE),
            without_since: None,
        }
    }

    /// Reads all GPUs, in the order of their numbers. Returns an empty list while a driver does not answer.
    pub(super) async fn read(&mut self) -> Vec<Gpu> {
        if self
            .without_since
            .is_some_and(|since| since.elapsed() < lookup::RESCAN_INTERVAL)
        {
            return Vec::new();
        }
        match self.cards.read(|cards| cards.read(Instant::now())).await {
            Ok(gpus) => {
                self.without_since = gpus.is_empty().then(Instant::now);
                gpus
            }
            Err(late) => {
                debug!(late, "no GPU figures: no answer from the driver");
                Vec::new()
            }
        }
    }
}

impl Cards {
    fn read(&mut self, now: Instant) -> Vec<Gpu> {
        let Self { class, found } = self;
        let cards = found.found_and_kept(|| find(class), Card::is_same);
        cards.iter_mut().map(|card| card.read(now)).collect()
    }
}

/// Finds the GPUs with a known driver. A folder such as `card0-DP-1` belongs to a connector of a GPU.
fn find(class: &Path) -> Vec<Card> {
    let is_card = |name: &str| lookup::is_numbered(name, "card");
    let cards = lookup::entries(class, MAX_GPUS, is_card);
    cards.into_iter().filter_map(Card::new).collect()
}

impl Card {
    fn new(folder: PathBuf) -> Option<Self> {
        let device = folder.join("device");
        let driver = fs::read_link(device.join("driver")).ok()?;
        let driver = match driver.file_name()?.to_str()? {
            "amdgpu" => Driver::Amd,
            "i915" => Driver::I915,
            "xe" => Driver::Xe,
            _ => return None,
        };
        let hwmon = lookup::entries(&device.join("hwmon"), 1, |name| {
            lookup::is_numbered(name, "hwmon")
        });
        let card = lookup::name_of(&folder);
        let gpu = Gpu {
            index: card.trim_start_matches("card").parse().ok()?,
            name: name(&device, driver),
            card: Some(card),
            ..Gpu::default()
        };
        Some(Self {
            hwmon: hwmon.into_iter().next(),
            folder,
            device,
            driver,
            gpu,
            newest: None,
            rc6: None,
        })
    }

    /// Whether nothing has changed since the GPU was found. If a driver is loaded again, the sensors can get another folder.
    fn is_same(&self, new: &Self) -> bool {
        let all = |card: &Self| (card.folder.clone(), card.driver, card.hwmon.clone());
        all(self) == all(new)
    }

    /// Returns the figures at this moment, or the newest figures if a reading would keep the GPU awake.
    fn read(&mut self, now: Instant) -> Gpu {
        let power = self.device.join("power");
        let status = text(&power.join("runtime_status"));
        if matches!(status.as_deref(), Some("suspended" | "suspending")) {
            (self.newest, self.rc6) = (None, None);
            return Gpu {
                asleep: Some(true),
                ..self.gpu.clone()
            };
        }
        let can_sleep = text(&power.join("control")).as_deref() == Some("auto");
        if let Some((gpu, at)) = self.newest.as_ref().filter(|_| can_sleep) {
            // A negative delay means that the GPU does not fall asleep by itself.
            let delay = number(&power.join("autosuspend_delay_ms")).unwrap_or_default();
            if now - *at < Duration::from_millis(delay) + FALLS_ASLEEP {
                return gpu.clone();
            }
        }
        let gpu = match self.driver {
            Driver::Amd => self.amd(),
            Driver::I915 | Driver::Xe => self.intel(now),
        };
        self.newest = Some((gpu.clone(), now));
        gpu
    }

    /// The files are described in the kernel's `Documentation/gpu/amdgpu/driver-misc.rst` and `thermal.rst`.
    fn amd(&self) -> Gpu {
        let bytes = |file| number::<u64>(&self.device.join(file));
        let (used, total) = (bytes("mem_info_vram_used"), bytes("mem_info_vram_total"));
        let mib = |bytes: Option<u64>| Some(figure(bytes? as f64 / MIB, 2));
        let busy = number::<f64>(&self.device.join("gpu_busy_percent"));
        Gpu {
            busy_percent: busy.filter(|busy| (0.0..=100.0).contains(busy)),
            memory_used: mib(used),
            memory_total: mib(total),
            exact_memory: [used, total],
            ..self.with_sensors()
        }
    }

    /// The files are described in the kernel's `Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon`, and in the comments of
    /// `drivers/gpu/drm/i915/i915_sysfs.c` and `drivers/gpu/drm/xe/xe_gt_freq.c`.
    fn intel(&mut self, now: Instant) -> Gpu {
        // The paths for newer and older kernels. A GPU with several parts is shown by its first part.
        let (frequency, rc6): ([_; 2], [_; 2]) = match self.driver {
            Driver::Xe => {
                let gt = self.device.join("tile0/gt0");
                (
                    [gt.join("freq0/act_freq"), gt.join("freq/act_freq")],
                    [gt.join("gtidle/idle_residency_ms"), PathBuf::new()],
                )
            }
            _ => (
                [
                    self.folder.join("gt/gt0/rps_act_freq_mhz"),
                    self.folder.join("gt_act_freq_mhz"),
                ],
                [
                    self.folder.join("gt/gt0/rc6_residency_ms"),
                    self.folder.join("power/rc6_residency_ms"),
                ],
            ),
        };
        let frequency: Option<f64> = frequency.iter().find_map(|file| number(file));
        let rc6: Option<u64> = rc6.iter().find_map(|file| number(file));
        let before = std::mem::replace(&mut self.rc6, rc6.map(|rc6| (rc6, now)));
        let share = rc6.zip(before).and_then(|(rc6, (before, at))| {
            let passed = (now - at).as_secs_f64() * 1000.0;
            let in_rc6 = rc6.checked_sub(before)? as f64;
            (passed > 0.0).then(|| figure((in_rc6 / passed * 100.0).min(100.0), 2))
        });
        Gpu {
            frequency_mhz: frequency.map(|mhz| figure(mhz, 0)),
            rc6_percent: share,
            ..self.with_sensors()
        }
    }

    /// Returns the temperature and the power of the GPU.
    fn with_sensors(&self) -> Gpu {
        let sensor = |file: &str| number::<f64>(&self.hwmon.as_ref()?.join(file));
        // Some GPUs have only an average, and others only the power at this moment.
        let watts = sensor("power1_average").or_else(|| sensor("power1_input"));
        let celsius = sensor("temp1_input").map(|thousandths| thousandths / 1000.0);
        Gpu {
            celsius: celsius.filter(|celsius| PLAUSIBLE.contains(celsius)),
            watts: watts.map(|millionths| figure(millionths / 1e6, 2)),
            ..self.gpu.clone()
        }
    }
}

/// Returns the model, if the driver knows it. Else returns the manufacturer and the PCI numbers, such as `AMD GPU 1002:687f`.
fn name(device: &Path, driver: Driver) -> String {
    if let Some(name) = text(&device.join("product_name")) {
        return name;
    }
    let maker = match driver {
        Driver::Amd => "AMD",
        Driver::I915 | Driver::Xe => "Intel",
    };
    let id = |file: &str| {
        let id = text(&device.join(file))?;
        Some(id.trim_start_matches("0x").to_owned())
    };
    match (id("vendor"), id("device")) {
        (Some(vendor), Some(device)) => format!("{maker} GPU {vendor}:{device}"),
        _ => format!("{maker} GPU"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::{Cards, DrmGpus, Lookup};
    use crate::model::Gpu;

    /// A copy of the part of `/sys` that describes GPUs.
    struct Sys(TempDir);

    impl Sys {
        fn new() -> Self {
            let sys = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(sys.class()).unwrap();
            sys
        }

        fn class(&self) -> std::path::PathBuf {
            self.0.path().join("class/drm")
        }

        fn write(&self, files: &[(&str, &str)]) {
            for (file, content) in files {
                let file = self.class().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{content}\n")).unwrap();
            }
        }

        fn driver(&self, card: &str, driver: &str) {
            let device = self.class().join(card).join("device");
            fs::create_dir_all(&device).unwrap();
            symlink(
                Path::new("../../bus/pci/drivers").join(driver),
                device.join("driver"),
            )
            .unwrap();
        }

        fn cards(&self) -> Cards {
            Cards {
                class: self.class(),
                found: Lookup::default(),
            }
        }
    }

    /// The files of a GPU of AMD in the fixtures of Prometheus' library procfs, and the sensors as in the kernel's description.
    #[test]
    fn figures_of_amd() {
        let sys = Sys::new();
        sys.driver("card0", "amdgpu");
        sys.driver("card1", "nvidia");
        sys.driver("card0-DP-1", "amdgpu");
        sys.write(&[
            ("card0/device/vendor", "0x1002"),
            ("card0/device/device", "0x687f"),
            ("card0/device/gpu_busy_percent", "4"),
            ("card0/device/mem_info_vram_total", "8573157376"),
            ("card0/device/mem_info_vram_used", "1490378752"),
            ("card0/device/hwmon/hwmon3/power1_average", "61250000"),
            ("card0/device/hwmon/hwmon3/power1_input", "1"),
            ("card0/device/hwmon/hwmon3/temp1_input", "41000"),
            ("card0/device/power/runtime_status", "active"),
            ("card0/device/power/control", "on"),
        ]);
        let mut expected = Gpu {
            index: 0,
            name: "AMD GPU 1002:687f".to_owned(),
            busy_percent: Some(4.0),
            memory_used: Some(1421.34),
            memory_total: Some(8176.0),
            celsius: Some(41.0),
            watts: Some(61.25),
            card: Some("card0".to_owned()),
            exact_memory: [Some(1_490_378_752), Some(8_573_157_376)],
            ..Gpu::default()
        };
        let (mut cards, now) = (sys.cards(), Instant::now());
        assert_eq!(cards.read(now), [expected.clone()]);
        // Other GPUs have only one of the two powers. Invalid values are no figures.
        fs::remove_file(sys.class().join("card0/device/hwmon/hwmon3/power1_average")).unwrap();
        sys.write(&[
            ("card0/device/hwmon/hwmon3/power1_input", "7000000"),
            ("card0/device/hwmon/hwmon3/temp1_input", "-300000"),
            ("card0/device/gpu_busy_percent", "NaN"),
            ("card0/device/mem_info_vram_used", "-1"),
        ]);
        expected.watts = Some(7.0);
        (expected.celsius, expected.busy_percent) = (None, None);
        expected.memory_used = None;
        expected.exact_memory[0] = None;
        assert_eq!(cards.read(now), [expected]);
    }

    #[test]
    fn figures_of_intel_with_new_and_old_kernels_and_both_drivers() {
        let sys = Sys::new();
        for (card, driver, frequency, rc6) in [
            ("card0", "i915", "gt_act_freq_mhz", "power/rc6_residency_ms"),
            (
                "card1",
                "i915",
                "gt/gt0/rps_act_freq_mhz",
                "gt/gt0/rc6_residency_ms",
            ),
            (
                "card2",
                "xe",
                "device/tile0/gt0/freq0/act_freq",
                "device/tile0/gt0/gtidle/idle_residency_ms",
            ),
        ] {
            sys.driver(card, driver);
            let (frequency, rc6) = (format!("{card}/{frequency}"), format!("{card}/{rc6}"));
            sys.write(&[(&frequency, "1100"), (&rc6, "5000")]);
        }
        let (mut cards, start) = (sys.cards(), Instant::now());
        let figures = |gpus: &[Gpu]| -> Vec<_> {
            gpus.iter()
                .map(|gpu| (gpu.index, gpu.frequency_mhz, gpu.rc6_percent))
                .collect()
        };
        let first = cards.read(start);
        let frequency = Some(1100.0);
        assert_eq!(
            figures(&first),
            [0, 1, 2].map(|index| (index, frequency, None))
        );
        assert_eq!(
            (&*first[2].name, first[2].busy_percent),
            ("Intel GPU", None)
        );
        sys.write(&[
            ("card0/power/rc6_residency_ms", "6500"),
            // The counter began again.
            ("card1/gt/gt0/rc6_residency_ms", "1"),
            ("card2/device/tile0/gt0/gtidle/idle_residency_ms", "9999999"),
        ]);
        let second = cards.read(start + Duration::from_secs(2));
        let expected = [
            (0, frequency, Some(75.0)),
            (1, frequency, None),
            (2, frequency, Some(100.0)),
        ];
        assert_eq!(figures(&second), expected);
    }

    #[test]
    fn a_gpu_can_fall_asleep_and_is_not_woken() {
        let sys = Sys::new();
        sys.driver("card0", "amdgpu");
        let busy = |busy: &str| sys.write(&[("card0/device/gpu_busy_percent", busy)]);
        let status = |status: &str| sys.write(&[("card0/device/power/runtime_status", status)]);
        sys.write(&[
            ("card0/device/power/control", "auto"),
            ("card0/device/power/autosuspend_delay_ms", "5000"),
        ]);
        let (mut cards, start) = (sys.cards(), Instant::now());
        let mut read = |seconds: u64| {
            let gpu = cards.read(start + Duration::from_secs(seconds)).remove(0);
            (gpu.busy_percent, gpu.asleep)
        };
        busy("10");
        status("active");
        assert_eq!(read(0), (Some(10.0), None));
        // A reading now would delay the moment at which the GPU begins to sleep.
        busy("20");
        assert_eq!(read(6), (Some(10.0), None));
        assert_eq!(read(8), (Some(20.0), None));
        busy("30");
        for asleep in ["suspending", "suspended"] {
            status(asleep);
            assert_eq!(read(20), (None, Some(true)));
        }
        // After the sleep, the old figures do not count.
        status("active");
        assert_eq!(read(21), (Some(30.0), None));
    }

    #[tokio::test]
    async fn a_host_without_gpus_is_read_once_a_minute() {
        let sys = Sys::new();
        let mut gpus = DrmGpus::new(&sys.class());
        assert!(gpus.read().await.is_empty());
        sys.driver("card0", "amdgpu");
        assert!(gpus.read().await.is_empty());
        assert_eq!(DrmGpus::new(&sys.class()).read().await.len(), 1);
    }
}
