//! Reads `/proc/stat` once for the families `stat` and `cpu`. The file is long on a host with many CPUs and interrupts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::family::{Family, FamilyError, Roots, Rows, read_file, read_text};

/// Two families that are read within this time get the same text.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Maximum number of a CPU. Larger numbers in a list of CPUs are left out.
const MAX_CPU: usize = 8192;

/// The text of `/proc/stat`. Clones share the text.
#[derive(Debug, Clone, Default)]
struct Text(Arc<Mutex<Option<Newest>>>);

/// The newest text, and the time of its reading.
type Newest = (Instant, Arc<str>);

impl Text {
    fn read(&self, roots: &Roots) -> Result<Arc<str>, FamilyError> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Each text is used twice at most: it is removed here.
        if let Some((at, text)) = newest.take()
            && at.elapsed() < MAX_AGE
        {
            return Ok(text);
        }
        let text: Arc<str> = read_file(&roots.proc.join("stat"))?.into();
        *newest = Some((Instant::now(), Arc::clone(&text)));
        Ok(text)
    }
}

/// Returns the families that read `/proc/stat`.
pub(super) fn families(roots: &Roots) -> [Box<dyn Family>; 2] {
    let text = Text::default();
    [
        Box::new(Stat(roots.clone(), text.clone())),
        Box::new(Cpu(roots.clone(), text)),
    ]
}

/// The family of interrupts, context switches and processes. Source: `/proc/stat`.
struct Stat(Roots, Text);

impl Family for Stat {
    fn name(&self) -> &'static str {
        "stat"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let Self(roots, text) = self;
        let text = text.read(roots)?;
        let row = rows.add([]);
        for line in text.lines() {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            let name = match name {
                "intr" => "intr",
                "ctxt" => "ctxt",
                "processes" => "processes",
                "procs_running" => "procs_running",
                "procs_blocked" => "procs_blocked",
                _ => continue,
            };
            // The sum of all interrupts comes first, then the count of each interrupt.
            let sum = rest.split(' ').next().and_then(|word| word.parse().ok());
            let sum = sum.ok_or_else(|| FamilyError::parse(&roots.proc.join("stat")))?;
            row.figure(name, sum);
        }
        Ok(())
    }
}

/// The family of the CPUs, without the times that a snapshot has. Sources: `/proc/stat` and `/sys/devices/system/cpu`.
struct Cpu(Roots, Text);

impl Family for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let Self(roots, text) = self;
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        for line in text.read(roots)?.lines() {
            // The lines of the cores follow the line `cpu ` with the sums.
            let Some(line) = line.strip_prefix("cpu") else {
                break;
            };
            let mut words = line.split_ascii_whitespace();
            if line.starts_with(' ') {
                continue;
            }
            let Some(cpu) = words.next() else { continue };
            // Before the guest's times are eight other times. Kernels older than 2.6.33 do not have the last time.
            for (mode, ticks) in ["user", "nice"].iter().zip(words.skip(8)) {
                let ticks: f64 = ticks
                    .parse()
                    .map_err(|_| FamilyError::parse(&roots.proc.join("stat")))?;
                rows.add([("cpu", cpu), ("mode", mode)])
                    .figure("guest", ticks / ticks_per_second);
            }
        }
        let folder = roots.sys.join("devices/system/cpu");
        let isolated = read_text(&folder.join("isolated")).unwrap_or_default();
        for cpu in cpus(&isolated) {
            rows.add([("cpu", &cpu.to_string())])
                .figure("isolated", 1.0);
        }
        // Without this file, the CPUs cannot be switched off.
        if folder.join("cpu0/online").exists() {
            let online = read_text(&folder.join("online")).unwrap_or_default();
            let online = cpus(&online);
            let present = read_text(&folder.join("present")).unwrap_or_default();
            for cpu in cpus(&present) {
                let is_online = online.binary_search(&cpu).is_ok();
                rows.add([("cpu", &cpu.to_string())])
                    .figure("online", f64::from(u8::from(is_online)));
            }
        }
        Ok(())
    }
}

/// Returns the numbers in a list such as `0-3,8`, in ascending order. Skips invalid parts.
pub(super) fn cpus(list: &str) -> Vec<usize> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let last: usize = last.parse().ok()?;
        Some(first.parse().ok()?..last.min(MAX_CPU) + 1)
    };
    let mut numbers: Vec<usize> = list.split(',').filter_map(part).flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, cpus, families};

    const STAT: &str = "\
cpu  301854 612 111922 8979004 3552 2 3944 0 44 36
cpu0 44490 19 21045 1087069 220 1 3410 0 2 1
cpu1 47869 23 16474 1110787 591 0 46 0 3 2
intr 8885917 17 0 0 0
ctxt 38014093
btime 1418183276
processes 26442
procs_running 2
procs_blocked 0
softirq 5057579 250191 1481983
";

    #[test]
    fn counters_and_the_time_of_guests_are_read() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("stat", STAT),
                ("devices/system/cpu/isolated", "1\n"),
                ("devices/system/cpu/present", "0-1\n"),
                ("devices/system/cpu/online", "0\n"),
                ("devices/system/cpu/cpu0/online", "1\n"),
            ],
        );
        let [mut stat, mut cpu] = families(&Roots {
            proc: folder.path().into(),
            sys: folder.path().into(),
        });
        for _ in 0..2 {
            assert_eq!(
                lines_of(&mut *stat),
                [
                    "intr 8885917",
                    "ctxt 38014093",
                    "processes 26442",
                    "procs_running 2",
                    "procs_blocked 0"
                ]
            );
            assert_eq!(
                lines_of(&mut *cpu),
                [
                    "cpu=0 mode=user guest 0.02",
                    "cpu=0 mode=nice guest 0.01",
                    "cpu=1 mode=user guest 0.03",
                    "cpu=1 mode=nice guest 0.02",
                    "cpu=1 isolated 1",
                    "cpu=0 online 1",
                    "cpu=1 online 0"
                ]
            );
        }
    }

    #[test]
    fn a_list_of_cpus_has_numbers_and_ranges() {
        assert_eq!(cpus("0-2,5\n".trim()), [0, 1, 2, 5]);
        assert_eq!(cpus("7"), [7]);
        assert!(cpus("").is_empty() && cpus("a-b").is_empty());
        assert_eq!(cpus("8190-99999999999").len(), 3);
    }
}
