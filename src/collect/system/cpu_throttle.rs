//! Reads how often processors and cores were so hot that they had to slow down.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{self, Lookup, number};
use crate::model::{CoreThrottles, CpuThrottles};

/// Maximum number of logical CPUs.
const MAX_CPUS: usize = 4096;
/// Maximum number of published cores.
const MAX_CORES: usize = 1024;

/// The metric family. Source: `thermal_throttle` and `topology` of `/sys/devices/system/cpu/cpu*`. Only Intel processors have the counts.
/// The files are in the kernel's `drivers/thermal/intel/therm_throt.c`. The kernel answers from its memory.
pub(super) struct Throttles {
    folder: PathBuf,
    counters: Lookup<Counter>,
}

/// A file with a count.
struct Counter {
    package: u32,
    /// The number of the core. None for the count of the whole processor.
    core: Option<u32>,
    file: PathBuf,
}

impl MetricFamily for Throttles {
    const NAME: &'static str = "cpu_throttles";

    type Figures = (Vec<CpuThrottles>, Vec<CoreThrottles>);
    /// The family never fails: it leaves out a count that cannot be read. A core that is switched off has no count.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Self::Figures, Infallible> {
        let Self { folder, counters } = self;
        let mut packages = BTreeMap::<u32, CpuThrottles>::new();
        let mut cores = Vec::new();
        for counter in counters.found(|| find(folder)) {
            let Some(throttles) = number::<u64>(&counter.file) else {
                continue;
            };
            let package = packages.entry(counter.package).or_default();
            package.package = counter.package;
            match counter.core {
                None => package.throttles = Some(throttles),
                Some(core) => {
                    let sum = package.core_throttles.get_or_insert(0);
                    *sum = sum.saturating_add(throttles);
                    cores.push(CoreThrottles {
                        package: counter.package,
                        core,
                        throttles,
                    });
                }
            }
        }
        Ok((packages.into_values().collect(), cores))
    }

    fn publish(&mut self, (packages, cores): Self::Figures, round: &mut Round<'_>) {
        round.metrics.cpu_throttles = packages;
        round.metrics.exact.core_throttles = cores;
    }
}

impl Throttles {
    /// Creates the family. `folder` is `/sys/devices/system/cpu`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            counters: Lookup::default(),
        }
    }
}

/// Returns one file for each processor and one file for each core, sorted. The logical CPUs of a core have the same count, so the first of
/// them is read, as node_exporter does.
fn find(folder: &Path) -> Vec<Counter> {
    let mut files = BTreeMap::<(u32, Option<u32>), PathBuf>::new();
    let is_cpu = |name: &str| lookup::is_numbered(name, "cpu");
    for cpu in lookup::entries(folder, MAX_CPUS, is_cpu) {
        let throttle = cpu.join("thermal_throttle");
        if !throttle.exists() {
            continue;
        }
        // A virtual machine can have a processor with the number -1.
        let package = number(&cpu.join("topology/physical_package_id"));
        let core = number(&cpu.join("topology/core_id"));
        let (Some(package), Some(core)) = (package, core) else {
            continue;
        };
        for (core, file) in [
            (None, "package_throttle_count"),
            (Some(core), "core_throttle_count"),
        ] {
            let file = throttle.join(file);
            // Some processors count only for their cores.
            if file.exists() {
                files.entry((package, core)).or_insert(file);
            }
        }
    }
    let counters = files.into_iter().map(|((package, core), file)| Counter {
        package,
        core,
        file,
    });
    counters.take(MAX_CORES).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Throttles;
    use crate::collect::system::family::read_once;
    use crate::model::{CoreThrottles, CpuThrottles};

    /// The files are those of node_exporter's fixtures, and a processor that counts only for its cores.
    #[test]
    fn counts_are_read_once_for_each_core_and_processor() {
        let folder = tempfile::tempdir().unwrap();
        for (cpu, package, core, core_count, package_count) in [
            (0, "0", "0", "5", Some("30")),
            (1, "0", "1", "0", Some("30")),
            (2, "1", "0", "0", Some("6")),
            (3, "1", "1", "9", Some("6")),
            // The second thread of a core.
            (4, "0", "0", "5", Some("30")),
            (5, "2", "0", "7", None),
            (6, "-1", "0", "8", Some("8")),
            (7, "3", "0", "odd", Some("")),
        ] {
            let cpu = folder.path().join(format!("cpu{cpu}"));
            let files = [
                ("topology/physical_package_id", Some(package)),
                ("topology/core_id", Some(core)),
                ("thermal_throttle/core_throttle_count", Some(core_count)),
                ("thermal_throttle/package_throttle_count", package_count),
            ];
            for (file, content) in files {
                let file = cpu.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                if let Some(content) = content {
                    fs::write(file, format!("{content}\n")).unwrap();
                }
            }
        }
        fs::create_dir(folder.path().join("cpu8")).unwrap();
        fs::create_dir(folder.path().join("cpufreq")).unwrap();
        let package = |package, throttles, core_throttles| CpuThrottles {
            package,
            throttles,
            core_throttles: Some(core_throttles),
        };
        let core = |package, core, throttles| CoreThrottles {
            package,
            core,
            throttles,
        };
        let expected = (
            vec![
                package(0, Some(30), 5),
                package(1, Some(6), 9),
                package(2, None, 7),
            ],
            vec![
                core(0, 0, 5),
                core(0, 1, 0),
                core(1, 0, 0),
                core(1, 1, 9),
                core(2, 0, 7),
            ],
        );
        let mut family = Throttles::new(folder.path());
        assert_eq!(read_once(&mut family), expected);
    }
}
