//! Reads the frequency of each core.
//!
//! A reading must not disturb the cores. With Linux 5.19 and later, the kernel answers from the figures of the core's newest timer
//! interrupt. On x86 with older kernels, each reading interrupts the core, which wakes an idle core, and can wait for 10 to 20 ms. With 64
//! idle cores, a round would take more than half a second. So the agent does not read the frequency there. Source: the kernel's
//! `arch/x86/kernel/cpu/aperfmperf.c`. On other processors, the kernel answers from its memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::system::uname;

use super::family::{MetricFamily, Round};
use super::kept_files::max_kept_files;
use super::lookup::{self, Lookup};

/// Maximum number of cores.
const MAX_CORES: usize = 4096;
/// On x86, the agent reads frequencies only with this kernel or a newer one: Linux 5.19.
const FIRST_X86_KERNEL: (u32, u32) = (5, 19);

/// The metric family. Source: `/sys/devices/system/cpu/cpu*/cpufreq`. The files are described in the kernel's
/// `Documentation/admin-guide/pm/cpufreq.rst`.
pub(super) struct CpuFrequencies {
    folder: PathBuf,
    policies: Lookup<Policy>,
}

/// Cores that share one frequency.
struct Policy {
    cores: Vec<u32>,
    path: PathBuf,
    /// The open file. None if there are too many files to keep open.
    file: Option<File>,
}

impl MetricFamily for CpuFrequencies {
    const NAME: &'static str = "cpu_frequencies";

    /// The number of each core and its frequency in Hz, sorted by number.
    type Figures = Vec<(u32, u64)>;
    /// The family never fails: it leaves out a core that cannot be read. A core that is switched off cannot be read.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<(u32, u64)>, Infallible> {
        let Self { folder, policies } = self;
        let mut cores = Vec::new();
        for policy in policies.found(|| find(folder)) {
            if let Some(hertz) = policy.hertz() {
                cores.extend(policy.cores.iter().map(|core| (*core, hertz)));
            }
        }
        cores.sort_unstable();
        Ok(cores)
    }

    fn publish(&mut self, cores: Vec<(u32, u64)>, round: &mut Round<'_>) {
        let metrics = &mut round.metrics;
        let listed = metrics.exact.cpu_seconds.iter().map(|core| core.core);
        if listed.eq(cores.iter().map(|(core, _)| *core)) {
            metrics.cpu_mhz = cores
                .iter()
                .map(|(_, hertz)| (*hertz as f64 / 1e6).round())
                .collect();
        }
        metrics.exact.cpu_hertz = cores;
    }
}

impl CpuFrequencies {
    /// Creates the family. `folder` is `/sys/devices/system/cpu`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            policies: Lookup::default(),
        }
    }
}

impl Policy {
    fn hertz(&self) -> Option<u64> {
        let khz = match &self.file {
            Some(file) => {
                let mut buffer = [0; 32];
                let length = file.read_at(&mut buffer, 0).ok()?;
                std::str::from_utf8(&buffer[..length])
                    .ok()?
                    .trim()
                    .parse()
                    .ok()?
            }
            None => lookup::number::<u64>(&self.path)?,
        };
        khz.checked_mul(1000)
    }
}

/// Opens the file of each policy. The folder of each core has a link to the folder of its policy.
fn find(folder: &Path) -> Vec<Policy> {
    if cfg!(target_arch = "x86_64") && !answers_at_once(&uname().release().to_string_lossy()) {
        return Vec::new();
    }
    let is_cpu = |name: &str| lookup::is_numbered(name, "cpu");
    let mut policies = BTreeMap::<PathBuf, Vec<u32>>::new();
    for cpu in lookup::entries(folder, MAX_CORES, is_cpu) {
        let number = lookup::name_of(&cpu).trim_start_matches("cpu").parse();
        if let (Ok(number), Ok(policy)) = (number, fs::canonicalize(cpu.join("cpufreq"))) {
            policies.entry(policy).or_default().push(number);
        }
    }
    let mut may_keep = max_kept_files();
    let policies = policies.into_iter().map(|(policy, cores)| {
        let path = policy.join("scaling_cur_freq");
        let file = (may_keep > 0).then(|| File::open(&path).ok()).flatten();
        may_keep = may_keep.saturating_sub(1);
        Policy { cores, path, file }
    });
    policies.collect()
}

/// Whether an x86 kernel with this release answers without an interrupt of the core.
fn answers_at_once(release: &str) -> bool {
    let mut numbers = release.split(|one: char| !one.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    let version: Option<(u32, u32)> = next().zip(next());
    version.is_some_and(|version| version >= FIRST_X86_KERNEL)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::{CpuFrequencies, answers_at_once};
    use crate::collect::system::containers::ContainerNames;
    use crate::collect::system::family::{MetricFamily as _, Round, read_once};
    use crate::model::{CpuSeconds, SystemMetrics};

    #[test]
    fn all_cores_of_a_policy_have_its_frequency() {
        let folder = tempfile::tempdir().unwrap();
        for (policy, khz) in [
            ("policy0", "1699981\n"),
            ("policy2", "<unknown>\n"),
            ("policy10", "8000\n"),
        ] {
            let policy = folder.path().join("cpufreq").join(policy);
            fs::create_dir_all(&policy).unwrap();
            fs::write(policy.join("scaling_cur_freq"), khz).unwrap();
        }
        for (core, policy) in [(0, 0), (1, 0), (2, 2), (10, 10)] {
            let core = folder.path().join(format!("cpu{core}"));
            fs::create_dir(&core).unwrap();
            let policy = format!("../cpufreq/policy{policy}");
            std::os::unix::fs::symlink(policy, core.join("cpufreq")).unwrap();
        }
        // A core that is switched off has no policy.
        fs::create_dir(folder.path().join("cpu3")).unwrap();
        let mut family = CpuFrequencies::new(folder.path());
        let expected = [(0, 1_699_981_000), (1, 1_699_981_000), (10, 8_000_000)];
        assert_eq!(read_once(&mut family), expected);
        // The files stay open. The kernel writes the new value to the same file.
        let file = folder.path().join("cpufreq/policy10/scaling_cur_freq");
        fs::write(file, "800013\n").unwrap();
        let now = read_once(&mut family);
        assert_eq!(now[2], (10, 800_013_000));

        let publish = |family: &mut CpuFrequencies, numbers: &[u32]| {
            let (names, last) = (ContainerNames::default(), SystemMetrics::default());
            let mut round = Round::new(&names, &last, Duration::ZERO);
            let core = |core: &u32| CpuSeconds {
                core: *core,
                modes: [0.0; 8],
            };
            round.metrics.exact.cpu_seconds = numbers.iter().map(core).collect();
            family.publish(now.clone(), &mut round);
            assert_eq!(round.metrics.exact.cpu_hertz, now);
            round.metrics.cpu_mhz
        };
        assert_eq!(publish(&mut family, &[0, 1, 10]), [1700.0, 1700.0, 800.0]);
        assert!(publish(&mut family, &[0, 1, 2, 10]).is_empty());
    }

    #[test]
    fn old_kernels_interrupt_the_cores() {
        for (release, expected) in [
            ("6.18.44-fc-v769", true),
            ("5.19.0", true),
            ("5.15.0-91-generic", false),
            ("4.18.0-513.el8", false),
            ("10.0", true),
            ("odd", false),
            ("6", false),
        ] {
            assert_eq!(answers_at_once(release), expected, "{release}");
        }
    }

    #[test]
    fn fuzz_cpu_frequency() {
        crate::fuzzing::run("cpu_frequency", &[b"5.19.0-1"], |bytes| {
            let _ = answers_at_once(&String::from_utf8_lossy(bytes));
        });
    }
}
