//! The host's CPUs.

use std::fs::File;
use std::io::{self, Read};

/// What is kept of the CPUs between two readings.
#[derive(Default)]
pub(super) struct Cpus {
    before: Option<Times>,
    /// Room for the file, which is long where there are many CPUs and interrupts.
    text: String,
}

/// One reading of all CPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// Time that they were busy, and all that they had, idle included, in ticks since boot.
    busy: u64,
    all: u64,
    /// How many there are.
    pub(super) cpus: u32,
}

/// The outcome of a reading.
pub(super) struct Load {
    /// All CPUs together, 0–100, since the reading before; 0 at the first.
    pub(super) percent: f64,
    pub(super) cpus: u32,
}

impl Cpus {
    /// Reads the CPUs and compares them with the reading before. Source: `/proc/stat`.
    pub(super) fn read(&mut self) -> io::Result<Load> {
        self.text.clear();
        File::open("/proc/stat")?.read_to_string(&mut self.text)?;
        let now = parse(&self.text).ok_or(io::ErrorKind::InvalidData)?;
        let before = self.before.replace(now);
        Ok(Load {
            percent: before.map_or(0.0, |before| percent(before, now)),
            cpus: now.cpus,
        })
    }
}

/// Of the time between two readings, the share that was busy: 0 where a counter went backwards, as
/// that of iowait may.
fn percent(before: Times, now: Times) -> f64 {
    let busy = now.busy.saturating_sub(before.busy);
    match now.all.checked_sub(before.all) {
        Some(all) if all > 0 => (busy as f64 / all as f64 * 100.0).min(100.0),
        _ => 0.0,
    }
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, then a line per CPU. The
/// time of guests is in that of users.
fn parse(stat: &str) -> Option<Times> {
    let mut lines = stat.lines();
    let mut times = [0_u64; 8];
    let mut fields = lines.next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    for time in &mut times {
        *time = fields.next()?.parse().ok()?;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] = times;
    let busy = user + nice + system + irq + softirq + steal;
    let cpus = lines.take_while(|line| line.starts_with("cpu")).count();
    Some(Times {
        busy,
        all: busy + idle + iowait,
        cpus: u32::try_from(cpus).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Times, parse, percent};

    const STAT: &str = "\
cpu  100 20 30 1000 50 1 2 3 40 5
cpu0 50 10 15 500 25 1 1 2 20 2
cpu1 50 10 15 500 25 0 1 1 20 3
intr 123 0 1
ctxt 1
btime 1700000000
";

    #[test]
    fn idle_and_iowait_are_not_busy_and_guests_count_once() {
        let times = parse(STAT).unwrap();
        let expected = Times {
            busy: 156,
            all: 1206,
            cpus: 2,
        };
        assert_eq!(times, expected);
    }

    #[test]
    fn a_share_is_of_the_time_between() {
        let of = |busy, all| Times { busy, all, cpus: 2 };
        assert_eq!(percent(of(100, 1000), of(150, 1200)), 25.0);
        assert_eq!(percent(of(100, 1000), of(100, 1000)), 0.0);
        // iowait may go backwards.
        assert_eq!(percent(of(100, 1000), of(110, 1005)), 100.0);
        assert_eq!(percent(of(100, 1000), of(110, 999)), 0.0);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu  1 2 3 x", "intr 1"] {
            assert_eq!(parse(text), None);
        }
    }
}
