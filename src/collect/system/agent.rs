//! The agent's own use of the host.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use super::proc_stat::{parse, since_boot};
use crate::messages::AgentUsage;
use crate::model::figure;

/// The shortest time that CPU is over, as for all processes.
const SHORTEST: Duration = Duration::from_millis(400);

/// The agent's own use of the host, which does not depend on what it sees of other processes.
#[derive(Default)]
pub(super) struct OwnUsage {
    /// CPU time used so far, in ticks, and when that was read.
    before: Option<(u64, Duration)>,
    /// What came of the last reading.
    last: AgentUsage,
}

/// Why the agent's own usage cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("invalid data")]
    Parse,
}

impl OwnUsage {
    /// Reads it and compares it with the reading before. Source: `/proc/self/stat` and `/proc/self/statm`.
    pub(super) fn read(&mut self) -> Result<AgentUsage, AgentError> {
        let now = since_boot();
        let elapsed = self.before.map(|(_, at)| now.saturating_sub(at));
        if elapsed.is_some_and(|elapsed| elapsed < SHORTEST) {
            return Ok(self.last);
        }
        let text = fs::read("/proc/self/stat")?;
        let stat = parse(&text).ok_or(AgentError::Parse)?;
        let percent = match (self.before, elapsed) {
            (Some((used, _)), Some(elapsed)) => {
                let ticks = stat.used.saturating_sub(used) as f64;
                ticks / clock_ticks_per_second() as f64 / elapsed.as_secs_f64() * 100.0
            }
            _ => 0.0,
        };
        self.before = Some((stat.used, now));
        let pages = own_pages();
        self.last = AgentUsage {
            cpu_percent: figure(percent, 2),
            engine_cpu_percent: None,
            memory_rss: pages.map_or(stat.resident, |pages| pages.resident) * page_size() as u64,
            memory_anon: pages.map(|pages| pages.anonymous * page_size() as u64),
        };
        Ok(self.last)
    }
}

/// The agent's own resident memory, in pages.
#[derive(Debug, Clone, Copy, PartialEq)]
struct OwnPages {
    resident: u64,
    /// Anonymous pages: those that are not of a file.
    anonymous: u64,
}

/// The agent's own resident memory, to the page. In `stat` it is what each CPU has added up for itself, which may be a MiB
/// away: that will do for a list of the largest, and not for the agent's account of itself.
fn own_pages() -> Option<OwnPages> {
    parse_statm(&fs::read_to_string("/proc/self/statm").ok()?)
}

/// `statm` has, in pages: size, resident, shared, and others. What it calls shared are pages of files and of shared memory.
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
    use super::{OwnPages, own_pages, parse_statm};

    #[test]
    fn of_resident_memory_what_is_not_shared_is_anonymous() {
        let pages = parse_statm("58231 6125 4411 2700 0 8123 0\n");
        let expected = OwnPages {
            resident: 6125,
            anonymous: 1714,
        };
        assert_eq!(pages, Some(expected));
        for odd in ["", "1", "1 2", "1 a 3"] {
            assert_eq!(parse_statm(odd), None, "{odd}");
        }
        let own = own_pages().unwrap();
        assert!(own.anonymous > 0 && own.anonymous < own.resident, "{own:?}");
    }
}
