//! Reads the limits of the processors' frequencies, and the governors.
//!
//! The current frequency `scaling_cur_freq` is in the snapshot. The file `cpuinfo_cur_freq` is not read, because a reading wakes an idle
//! core.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::devices::{Cached, filled, number, numbered};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of cores.
const MAX_CORES: usize = 4096;
/// Maximum number of governors of a policy.
const MAX_GOVERNORS: usize = 16;
/// The limits of the hardware, which do not change.
const OF_HARDWARE: [&str; 2] = ["cpuinfo_max_freq", "cpuinfo_min_freq"];
/// The limits that a user or the kernel changes, and the average frequency, which exists since Linux 6.14.
const CHANGING: [&str; 3] = ["scaling_max_freq", "scaling_min_freq", "cpuinfo_avg_freq"];

/// The family. Source: `/sys/devices/system/cpu/cpu*/cpufreq`. The files are described in the kernel's
/// `Documentation/admin-guide/pm/cpufreq.rst`.
pub(super) struct Cpufreq {
    folder: PathBuf,
    policies: Cached<Policy>,
}

/// Cores that share one frequency.
struct Policy {
    folder: PathBuf,
    cores: Vec<String>,
    governors: Vec<String>,
    of_hardware: Vec<(&'static str, f64)>,
    /// The names and paths of the files with changing values.
    changing: Vec<(&'static str, PathBuf)>,
}

impl Cpufreq {
    pub(super) fn new(roots: &Roots) -> Self {
        Self {
            folder: roots.sys.join("devices/system/cpu"),
            policies: Cached::default(),
        }
    }
}

impl Family for Cpufreq {
    fn name(&self) -> &'static str {
        "cpufreq"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let Self { folder, policies } = self;
        let policies = policies.found(|| find(folder));
        for policy in policies {
            policy.read(rows);
        }
        Ok(())
    }
}

impl Policy {
    fn read(&self, rows: &mut Rows) {
        let changing = self.changing.iter();
        let changing = changing.filter_map(|(name, path)| Some((*name, hertz(path)?)));
        let figures: Vec<_> = changing.chain(self.of_hardware.iter().copied()).collect();
        let governor = filled(&self.folder.join("scaling_governor"));
        for core in &self.cores {
            if !figures.is_empty() {
                let row = rows.add([("cpu", core)]);
                for (name, hertz) in &figures {
                    row.figure(*name, *hertz);
                }
            }
            let Some(current) = &governor else {
                continue;
            };
            for governor in &self.governors {
                let is_current = f64::from(u8::from(governor == current));
                rows.add([("cpu", core), ("governor", governor)])
                    .figure("scaling_governor", is_current);
            }
        }
    }
}

/// Finds the policies. The folder of each core has a link to the folder of its policy.
fn find(folder: &Path) -> Vec<Policy> {
    let mut policies = BTreeMap::<PathBuf, Vec<String>>::new();
    let names = names_in(folder).unwrap_or_default();
    let cores = names.iter().filter_map(|name| numbered(name, "cpu"));
    for core in cores.take(MAX_CORES) {
        if let Ok(policy) = fs::canonicalize(folder.join(format!("cpu{core}/cpufreq"))) {
            policies.entry(policy).or_default().push(core.to_owned());
        }
    }
    let policies = policies.into_iter().map(|(folder, cores)| {
        let governors = filled(&folder.join("scaling_available_governors")).unwrap_or_default();
        let governors = governors.split_ascii_whitespace().take(MAX_GOVERNORS);
        let of_hardware = OF_HARDWARE.iter();
        let changing = CHANGING.iter().map(|name| (*name, folder.join(name)));
        Policy {
            cores,
            governors: governors.map(str::to_owned).collect(),
            of_hardware: of_hardware
                .filter_map(|name| Some((*name, hertz(&folder.join(name))?)))
                .collect(),
            changing: changing.filter(|(_, path)| path.exists()).collect(),
            folder,
        }
    });
    policies.collect()
}

/// Reads a frequency. The kernel's unit is kHz.
fn hertz(path: &Path) -> Option<f64> {
    Some(number(path)? * 1000.0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Cpufreq, Roots};

    #[test]
    fn each_core_has_the_limits_of_its_policy() {
        let folder = TempDir::new().unwrap();
        let cpus = "devices/system/cpu";
        let file = |name: &str| format!("{cpus}/cpufreq/policy0/{name}");
        write_files(
            folder.path(),
            &[
                (&file("cpuinfo_min_freq"), "800000\n"),
                (&file("cpuinfo_cur_freq"), "1200195\n"),
                (&file("scaling_max_freq"), "2400000\n"),
                (&file("scaling_min_freq"), "<unknown>\n"),
                (&file("scaling_governor"), "powersave\n"),
                (
                    &file("scaling_available_governors"),
                    "performance powersave \n",
                ),
                (&format!("{cpus}/cpu0/online"), "1\n"),
                (&format!("{cpus}/cpu1/online"), "1\n"),
                (&format!("{cpus}/cpu2/online"), "0\n"),
            ],
        );
        for core in ["cpu0", "cpu1"] {
            let link = folder.path().join(cpus).join(core).join("cpufreq");
            symlink(folder.path().join(cpus).join("cpufreq/policy0"), link).unwrap();
        }
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let lines = lines_of(&mut Cpufreq::new(&roots));
        let expected = |core: u32| {
            [
                format!("cpu={core} scaling_max_freq 2400000000"),
                format!("cpu={core} cpuinfo_min_freq 800000000"),
                format!("cpu={core} governor=performance scaling_governor 0"),
                format!("cpu={core} governor=powersave scaling_governor 1"),
            ]
        };
        assert_eq!(lines, [expected(0), expected(1)].concat());
    }
}
