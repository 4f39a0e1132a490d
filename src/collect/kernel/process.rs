//! Reads the agent's own use of CPU, memory and files, under the names that clients of Prometheus use.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Sources: `/proc/self` and `getrlimit(2)`.
pub(super) struct Process {
    roots: Roots,
    /// The start time in Unix seconds, so that it stays the same when the clock is corrected. None before the first reading.
    started: Option<f64>,
}

impl Process {
    pub(super) fn new(roots: Roots) -> Self {
        Self {
            roots,
            started: None,
        }
    }
}

impl Family for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.roots.proc.join("self");
        let path = folder.join("stat");
        let text = read_file(&path)?;
        let stat = Stat::parse(&text).ok_or_else(|| FamilyError::parse(&path))?;
        let path = folder.join("statm");
        let text = read_file(&path)?;
        let [size, resident] = memory(&text).ok_or_else(|| FamilyError::parse(&path))?;
        let row = rows.add([]);
        row.figure("cpu", stat.used);
        row.figure("resident", resident);
        row.figure("virtual", size);
        let limit = |resource| getrlimit(resource).current;
        // As other clients of Prometheus, gives no limit as the largest number.
        row.figure(
            "virtual_max",
            limit(Resource::As).unwrap_or(u64::MAX) as f64,
        );
        row.figure(
            "max_fds",
            limit(Resource::Nofile).unwrap_or(u64::MAX) as f64,
        );
        if let Some(open) = open_files(&folder.join("fd")) {
            row.figure("open_fds", open as f64);
        }
        let started = self.started.get_or_insert_with(|| boot() + stat.started);
        row.figure("start_time", *started);
        Ok(())
    }
}

/// The fields of `/proc/self/stat` that the family uses, in seconds.
#[derive(Debug, PartialEq)]
struct Stat {
    used: f64,
    /// The start, since boot.
    started: f64,
}

impl Stat {
    /// Parses `/proc/self/stat`. The second field is the name in parentheses, which can contain spaces.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        // The first field here is the third field of the file.
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut number = |skipped: usize| fields.nth(skipped)?.parse::<f64>().ok();
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            used: (number(0)? + number(0)?) / ticks,
            started: number(6)? / ticks,
        })
    }
}

/// Returns the size and the resident memory in `statm`, in bytes. These figures are exact. The figure in `stat` can be wrong by 1 MiB.
fn memory(statm: &str) -> Option<[f64; 2]> {
    let mut pages = statm.split_ascii_whitespace().map(str::parse::<f64>);
    let mut bytes = || Some(pages.next()?.ok()? * page_size() as f64);
    Some([bytes()?, bytes()?])
}

/// Counts the agent's open files. Kernels since 6.2 give the number as the size of the directory.
fn open_files(folder: &Path) -> Option<u64> {
    match fs::metadata(folder).ok()?.len() {
        // The directory is open while it is read.
        0 => Some((fs::read_dir(folder).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

/// Returns the time of the boot, in Unix seconds.
fn boot() -> f64 {
    let since_boot = clock_gettime(ClockId::Boottime);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_boot = since_boot.tv_sec as f64 + since_boot.tv_nsec as f64 / 1e9;
    now.unwrap_or_default().as_secs_f64() - since_boot
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::family::tests::lines_of;
    use super::{Process, Roots, Stat, memory, page_size};

    #[test]
    fn the_name_can_contain_spaces() {
        let text = "1234 (a) b (c) S 1 1234 1234 0 -1 4194304 2731 0 10 0 57 31 5 6 20 0 3 0 987654 225280000 4096 18446744073709551615 1";
        let expected = Stat {
            used: 0.88,
            started: 9876.54,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("1 (a) S 1 2"), None);
        let page = page_size() as f64;
        assert_eq!(
            memory("55 40 9 1 0 2 0\n"),
            Some([55.0 * page, 40.0 * page])
        );
        assert_eq!(memory("55"), None);
    }

    #[test]
    fn this_process_is_read() {
        let mut process = Process::new(Roots::default());
        let lines = lines_of(&mut process);
        let figure = |name: &str| -> f64 {
            let line = lines.iter().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {lines:?}"))
                .trim()
                .parse()
                .unwrap()
        };
        assert!(figure("virtual ") >= figure("resident "));
        assert!((1.0..=figure("max_fds ")).contains(&figure("open_fds ")));
        assert!(figure("virtual_max ") >= figure("virtual "));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - figure("start_time ");
        assert!((-1.0..86_400.0).contains(&age), "{age}");
    }
}
