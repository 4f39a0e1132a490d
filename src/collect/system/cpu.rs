//! The host's CPUs.

use std::fs::File;
use std::io::{self, Read};

use rustix::param::clock_ticks_per_second;

use super::family::{MetricFamily, Round};
use crate::model::{CpuSeconds, CpuTimes, figure};

/// So much less idle time than before, in ticks, is that of a core that was switched on anew: what node_exporter takes for it.
const ANEW: u64 = 300;

/// What is kept of the CPUs between two readings.
#[derive(Default)]
pub(super) struct Cpus {
    before: Option<CpuTimesReading>,
    /// What each core has done since boot, none of which becomes less.
    highest: Vec<(u32, Times)>,
    /// All CPUs together, busy percent, as it was published last.
    last: f64,
    /// Room for the file, which is long where there are many CPUs and interrupts.
    text: String,
}

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CpuTimesReading {
    /// All CPUs together.
    all: Times,
    /// Each by its number, those that are switched on.
    cores: Vec<(u32, Times)>,
}

/// Time since boot, in ticks: user, nice, system, idle, iowait, irq, softirq, steal. That of guests is
/// in those of users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Times([u64; 8]);

/// The outcome of a reading.
pub(super) struct CpuFigures {
    /// What they did since the reading before; none at the first, which is compared with nothing.
    since: Option<CpuBaseline>,
    /// Each of them since boot.
    seconds: Vec<CpuSeconds>,
    /// How many there are.
    cpus: u32,
    /// When the host booted, in Unix seconds by the clock as it is set now; none where the file does not tell.
    boot_time: Option<u64>,
}

/// What the CPUs did between two readings.
#[derive(Debug, Default, PartialEq)]
struct CpuBaseline {
    /// All CPUs together, busy percent, 0–100.
    percent: f64,
    /// Each of them.
    cores: Vec<f64>,
    /// All together.
    times: CpuTimes,
}

/// Why the CPUs cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CpuError {
    #[error("cannot read /proc/stat")]
    Read(#[from] io::Error),
    #[error("cannot read /proc/stat: invalid data")]
    Parse,
}

impl MetricFamily for Cpus {
    const NAME: &'static str = "cpu";
    const COMPARES: bool = true;

    type Figures = CpuFigures;
    type Error = CpuError;

    /// Source: `/proc/stat`.
    fn read(&mut self, _round: &Round<'_>) -> Result<CpuFigures, CpuError> {
        self.text.clear();
        File::open("/proc/stat")?.read_to_string(&mut self.text)?;
        let now = CpuTimesReading::parse(&self.text).ok_or(CpuError::Parse)?;
        self.highest = now.at_least(&self.highest);
        let figures = CpuFigures {
            since: self.before.as_ref().map(|before| now.since(before)),
            seconds: seconds(&self.highest, clock_ticks_per_second() as f64),
            cpus: u32::try_from(now.cores.len()).unwrap_or(u32::MAX),
            boot_time: boot_time(&self.text),
        };
        self.before = Some(now);
        Ok(figures)
    }

    fn publish(&mut self, figures: CpuFigures, round: &mut Round<'_>) {
        if let Some(since) = figures.since {
            self.last = since.percent;
            round.metrics.cpu_cores = since.cores;
            round.metrics.cpu_times = Some(since.times);
        }
        self.publish_last(round);
        round.metrics.exact.cpu_seconds = figures.seconds;
        round.cpus = Some(figures.cpus);
        round.boot_time = figures.boot_time;
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.cpu_percent = [self.last];
    }
}

impl CpuTimesReading {
    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, then a line per CPU.
    fn parse(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let all = Times::parse(lines.next()?.strip_prefix("cpu ")?)?;
        let core = |line: &str| {
            let (number, times) = line.strip_prefix("cpu")?.split_once(' ')?;
            Some((number.parse().ok()?, Times::parse(times)?))
        };
        Some(Self {
            all,
            cores: lines.map_while(core).collect(),
        })
    }

    fn since(&self, before: &Self) -> CpuBaseline {
        let all = self.all.since(before.all);
        // One that was switched on in between has nothing to be compared with.
        let core = |(number, now): &(u32, Times)| {
            let before = before.cores.iter().find(|(one, _)| one == number);
            before.map_or(0.0, |(_, before)| now.since(*before).busy_percent())
        };
        CpuBaseline {
            percent: all.busy_percent(),
            cores: self.cores.iter().map(core).collect(),
            times: all.shares(),
        }
    }

    /// The cores, each time of theirs no less than it was before: iowait may go backwards, and whoever takes differences of
    /// a counter takes that for a restart. One that was switched off and on again begins anew, as its idle time tells.
    fn at_least(&self, before: &[(u32, Times)]) -> Vec<(u32, Times)> {
        let core = |&(number, now): &(u32, Times)| {
            let before = before.iter().find(|(one, _)| *one == number);
            let kept = before.filter(|(_, before)| now.idle() + ANEW >= before.idle());
            (
                number,
                kept.map_or(now, |(_, before)| now.at_least(*before)),
            )
        };
        self.cores.iter().map(core).collect()
    }
}

/// `btime 1795818000`, behind the interrupts, of which there are many.
fn boot_time(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once("\nbtime ")?;
    after.lines().next()?.trim().parse().ok()
}

/// CpuBaseline boot.
fn seconds(cores: &[(u32, Times)], ticks_per_second: f64) -> Vec<CpuSeconds> {
    let core = |&(core, Times(ticks)): &(u32, Times)| CpuSeconds {
        core,
        modes: ticks.map(|ticks| ticks as f64 / ticks_per_second),
    };
    cores.iter().map(core).collect()
}

impl Times {
    fn idle(self) -> u64 {
        self.0[3]
    }

    fn at_least(self, before: Self) -> Self {
        let mut times = self.0;
        for (time, before) in times.iter_mut().zip(before.0) {
            *time = before.max(*time);
        }
        Self(times)
    }

    fn parse(fields: &str) -> Option<Self> {
        let mut times = [0; 8];
        let mut fields = fields.split_ascii_whitespace();
        for time in &mut times {
            *time = fields.next()?.parse().ok()?;
        }
        Some(Self(times))
    }

    /// The difference; none of what went backwards, as iowait may.
    fn since(self, before: Self) -> Self {
        let mut times = self.0;
        for (time, before) in times.iter_mut().zip(before.0) {
            *time = time.saturating_sub(before);
        }
        Self(times)
    }

    /// Percent of all time that these have; 0 where there was none.
    fn share(self, parts: &[u64]) -> f64 {
        let sum = |parts: &[u64]| parts.iter().map(|&part| part as f64).sum::<f64>();
        figure(sum(parts) / sum(&self.0) * 100.0, 2).min(100.0)
    }

    /// Idle and iowait are not busy.
    fn busy_percent(self) -> f64 {
        let [user, nice, system, _, _, irq, softirq, steal] = self.0;
        self.share(&[user, nice, system, irq, softirq, steal])
    }

    fn shares(self) -> CpuTimes {
        let [user, nice, system, _, iowait, irq, softirq, steal] = self.0;
        CpuTimes {
            user: self.share(&[user, nice]),
            system: self.share(&[system]),
            iowait: self.share(&[iowait]),
            steal: self.share(&[steal]),
            irq: self.share(&[irq, softirq]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CpuBaseline, CpuTimes, CpuTimesReading, Times, seconds};

    const STAT: &str = "\
cpu  100 20 30 1000 50 1 2 3 40 5
cpu0 50 10 15 500 25 1 1 2 20 2
cpu1 50 10 15 500 25 0 1 1 20 3
intr 123 0 1
ctxt 1
btime 1700000000
";

    #[test]
    fn every_core_is_read_and_guests_count_once() {
        let reading = CpuTimesReading::parse(STAT).unwrap();
        assert_eq!(reading.all, Times([100, 20, 30, 1000, 50, 1, 2, 3]));
        let cores = [
            (0, Times([50, 10, 15, 500, 25, 1, 1, 2])),
            (1, Times([50, 10, 15, 500, 25, 0, 1, 1])),
        ];
        assert_eq!(reading.cores, cores);
    }

    #[test]
    fn shares_are_of_the_time_between() {
        let before =
            CpuTimesReading::parse("cpu  0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\n").unwrap();
        let now = CpuTimesReading::parse(
            "cpu  10 20 5 40 15 2 3 5\ncpu0 10 20 5 40 15 2 3 5\ncpu3 1 1 1 1 1 1 1 1\n",
        );
        let now = now.unwrap();
        let expected = CpuBaseline {
            percent: 45.0,
            // The second was not there before.
            cores: vec![45.0, 0.0],
            times: CpuTimes {
                user: 30.0,
                system: 5.0,
                iowait: 15.0,
                steal: 5.0,
                irq: 5.0,
            },
        };
        assert_eq!(now.since(&before), expected);
    }

    #[test]
    fn time_since_boot_is_in_seconds() {
        let seconds = seconds(&CpuTimesReading::parse(STAT).unwrap().cores, 100.0);
        assert_eq!(seconds[1].core, 1);
        assert_eq!(
            seconds[1].modes,
            [0.5, 0.1, 0.15, 5.0, 0.25, 0.0, 0.01, 0.01]
        );
    }

    #[test]
    fn time_since_boot_does_not_go_backwards_but_begins_anew() {
        let of = |times| CpuTimesReading {
            all: Times::default(),
            cores: vec![(0, Times(times))],
        };
        let first = of([100, 0, 0, 1000, 50, 0, 0, 0]).at_least(&[]);
        // iowait, and idle a little.
        let later = of([110, 0, 0, 990, 40, 0, 0, 0]).at_least(&first);
        assert_eq!(later, [(0, Times([110, 0, 0, 1000, 50, 0, 0, 0]))]);
        let anew = of([1, 0, 0, 5, 0, 0, 0, 0]);
        assert_eq!(anew.at_least(&later), anew.cores);
        // One that is gone is forgotten.
        let none = CpuTimesReading {
            all: Times::default(),
            cores: Vec::new(),
        };
        assert!(none.at_least(&later).is_empty());
    }

    #[test]
    fn what_goes_backwards_counts_for_nothing() {
        let of = |times| CpuTimesReading {
            all: Times(times),
            cores: Vec::new(),
        };
        let before = of([100, 0, 0, 100, 50, 0, 0, 0]);
        let now = of([110, 0, 0, 110, 40, 0, 0, 0]);
        assert_eq!(now.since(&before).percent, 50.0);
        assert_eq!(now.since(&now), CpuBaseline::default());
    }

    /// What a host with 128 cores says, two of which are switched off.
    #[test]
    fn many_cores_some_of_them_off() {
        let text = include_str!("../../../tests/fixtures/proc-stat-128-cores.txt");
        let reading = CpuTimesReading::parse(text).unwrap();
        assert_eq!(reading.cores.len(), 126);
        let numbers: Vec<u32> = reading.cores.iter().map(|(number, _)| *number).collect();
        assert!(!numbers.contains(&5) && numbers.contains(&127));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu  1 2 3 x", "intr 1"] {
            assert_eq!(CpuTimesReading::parse(text), None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = CpuTimesReading::parse(&text);
        }

        #[test]
        fn no_times_yield_odd_figures(before: [u64; 8], now: [u64; 8]) {
            let of = |times| CpuTimesReading { all: Times(times), cores: vec![(0, Times(times))] };
            let since = of(now).since(&of(before));
            let CpuTimes { user, system, iowait, steal, irq } = since.times;
            for figure in [since.percent, since.cores[0], user, system, iowait, steal, irq] {
                prop_assert!((0.0..=100.0).contains(&figure), "{figure}");
            }
        }
    }

    #[test]
    fn fuzz_stat() {
        let seeds = [
            STAT.as_bytes(),
            include_bytes!("../../../tests/fixtures/proc-stat-128-cores.txt"),
        ];
        crate::fuzzing::run("stat", &seeds, |bytes| {
            let _ = CpuTimesReading::parse(&String::from_utf8_lossy(bytes));
        });
    }
}
