//! Measures the agent's own use of CPU and memory.

use std::io;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use super::family::MIN_CPU_INTERVAL;
use super::proc_stat::{parse, since_boot};
use crate::collect::kernel_file::KernelFile;
use crate::messages::AgentUsage;
use crate::model::figure;

/// Reads the agent's own use of CPU and memory, even if the agent cannot see other processes.
pub(super) struct OwnUsage {
    stat: KernelFile,
    statm: KernelFile,
    /// The CPU time at the previous reading, in ticks, and the time of that reading.
    before: Option<(u64, Duration)>,
    /// The result of the previous reading.
    last: AgentUsage,
}

impl Default for OwnUsage {
    fn default() -> Self {
        Self {
            stat: KernelFile::new("/proc/self/stat"),
            statm: KernelFile::new("/proc/self/statm"),
            before: None,
            last: AgentUsage::default(),
        }
    }
}

/// Why the agent's own usage cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("cannot read /proc/self/stat: invalid data")]
    Parse,
}

impl OwnUsage {
    /// Reads the usage and compares it with the previous reading. If the previous reading is younger than [`MIN_CPU_INTERVAL`], returns the
    /// previous result. Source: `/proc/self/stat` and `/proc/self/statm`.
    pub(super) fn read(&mut self) -> Result<AgentUsage, AgentError> {
        let now = since_boot();
        let elapsed = self.before.map(|(_, at)| now.saturating_sub(at));
        if elapsed.is_some_and(|elapsed| elapsed < MIN_CPU_INTERVAL) {
            return Ok(self.last);
        }
        let pages = self.own_pages();
        let stat = parse(self.stat.read()?).ok_or(AgentError::Parse)?;
        let percent = match (self.before, elapsed) {
            (Some((used, _)), Some(elapsed)) => {
                let ticks = stat.used.saturating_sub(used) as f64;
                ticks / clock_ticks_per_second() as f64 / elapsed.as_secs_f64() * 100.0
            }
            _ => 0.0,
        };
        self.before = Some((stat.used, now));
        self.last = AgentUsage {
            cpu_percent: figure(percent, 2),
            engine_cpu_percent: None,
            memory_rss: pages.map_or(stat.resident, |pages| pages.resident) * page_size() as u64,
            memory_anon: pages.map(|pages| pages.anonymous * page_size() as u64),
        };
        Ok(self.last)
    }

    /// Reads the agent's own resident memory, exact to the page. The figure in `stat` is a sum of counters for each CPU and can be
    /// wrong by 1 MiB. Such an error does not matter for a list of the largest processes, but it matters for the agent, which uses
    /// little memory.
    fn own_pages(&mut self) -> Option<OwnPages> {
        parse_statm(std::str::from_utf8(self.statm.read().ok()?).ok()?)
    }
}

/// The agent's own resident memory, in pages.
#[derive(Debug, Clone, Copy, PartialEq)]
struct OwnPages {
    resident: u64,
    /// Pages that do not belong to a file or to shared memory.
    anonymous: u64,
}

/// Parses `statm`. Its first three fields are numbers of pages: the size, the resident memory, and the part of the resident
/// memory that belongs to files or is shared.
fn parse_statm(text: &str) -> Option<OwnPages> {
    let mut fields = text.split_ascii_whitespace().skip(1);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (resident, shared) = (next()?, next()?);
    Some(OwnPages {
        resident,
        anonymous: resident.saturating_sub(shared),
    })
}

#[cfg(test)]
mod tests {
    use super::{OwnPages, OwnUsage, parse_statm};

    #[test]
    fn anonymous_memory_is_resident_memory_without_shared_memory() {
        let pages = parse_statm("58231 6125 4411 2700 0 8123 0\n");
        let expected = OwnPages {
            resident: 6125,
            anonymous: 1714,
        };
        assert_eq!(pages, Some(expected));
        for odd in ["", "1", "1 2", "1 a 3"] {
            assert_eq!(parse_statm(odd), None, "{odd}");
        }
        let own = OwnUsage::default().own_pages().unwrap();
        assert!(own.anonymous > 0 && own.anonymous < own.resident, "{own:?}");
    }
}
