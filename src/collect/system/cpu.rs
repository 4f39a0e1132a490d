//! Reads the CPU time of the host and of each core.

use std::io;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

use super::family::{MetricFamily, Round};
use super::guest::GuestCpu;
use crate::collect::kernel_file::KernelFile;
use crate::model::{CpuSeconds, CpuTimes, figure};

/// Maximum decrease of a core's idle time between two readings, in ticks. If the idle time falls by more, the core was switched
/// off and on again. node_exporter uses the same limit.
const MAX_IDLE_DECREASE: u64 = 300;

/// The metric family, with the data that it stores between readings.
pub(super) struct Cpus {
    file: KernelFile,
    before: Option<CpuTimesReading>,
    /// The previous reading of the guest. None if the agent does not measure a guest.
    guest_before: Option<GuestCpu>,
    /// The published times of each core since boot. They never decrease, except after the core was switched off and on again.
    highest: Vec<(u32, Times)>,
    /// The previous published figure: how busy all CPUs together were, in percent.
    last: f64,
}

impl Default for Cpus {
    fn default() -> Self {
        Self {
            file: KernelFile::new("/proc/stat"),
            before: None,
            guest_before: None,
            highest: Vec::new(),
            last: 0.0,
        }
    }
}

/// One reading of `/proc/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CpuTimesReading {
    /// The times of all CPUs together.
    all: Times,
    /// The times of each core that is switched on, with the number of the core.
    cores: Vec<(u32, Times)>,
}

/// Times since boot, in ticks, in this order: user, nice, system, idle, iowait, irq, softirq, steal. The time of virtual
/// machines is part of user and nice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Times([u64; 8]);

/// The result of a reading.
pub(super) struct CpuFigures {
    /// The use of the CPUs since the previous reading. None at the first reading.
    since: Option<CpuChange>,
    /// The time of each core since boot.
    seconds: Vec<CpuSeconds>,
    /// The number of cores that are switched on.
    cpus: u32,
    /// The time when the host booted, in Unix seconds, by the current setting of the clock. None if the file does not have it.
    boot_time: Option<u64>,
    /// CPU time that all processes of the host have used since boot, in seconds.
    busy: f64,
}

/// The use of the CPUs between two readings.
#[derive(Debug, Default, PartialEq)]
struct CpuChange {
    /// How busy all CPUs together were, in percent, 0–100.
    percent: f64,
    /// How busy each core was, in percent, 0–100.
    cores: Vec<f64>,
    /// How all CPUs together used their time.
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

    /// Reads `/proc/stat`. In a guest, replaces the figures that are those of the host.
    fn read(&mut self, round: &Round<'_>) -> Result<CpuFigures, CpuError> {
        let text = std::str::from_utf8(self.file.read()?).map_err(|_| CpuError::Parse)?;
        let now = CpuTimesReading::parse(text).ok_or(CpuError::Parse)?;
        self.highest = now.at_least(&self.highest);
        let mut figures = CpuFigures {
            since: self.before.as_ref().map(|before| now.since(before)),
            seconds: seconds(&self.highest, clock_ticks_per_second() as f64),
            cpus: u32::try_from(now.cores.len()).unwrap_or(u32::MAX),
            boot_time: number(text, "btime"),
            busy: now.all.of_processes() as f64 / clock_ticks_per_second() as f64,
        };
        let guest = round.guest.as_ref().and_then(|guest| guest.cpu.clone());
        if let Some(guest) = &guest {
            figures.limit(&now, guest, self.guest_before.as_ref());
        }
        self.guest_before = guest;
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
        round.busy = Some(figures.busy);
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.cpu_percent = [self.last];
    }
}

impl CpuFigures {
    /// Replaces the figures of the host by those of a guest. `now` is the reading of the host's cores.
    fn limit(&mut self, now: &CpuTimesReading, guest: &GuestCpu, before: Option<&GuestCpu>) {
        let is_own = |core: u32| {
            let own = guest.cores.as_ref();
            own.is_some_and(|own| own.contains(core))
        };
        self.cpus = guest.cpus();
        self.seconds.retain(|seconds| is_own(seconds.core));
        let mut cores = now.cores.iter().map(|(core, _)| is_own(*core));
        self.since = self.since.take().zip(before).map(|(mut host, before)| {
            host.cores.retain(|_| cores.next() == Some(true));
            CpuChange {
                cores: host.cores,
                ..CpuChange::of_guest(guest, before)
            }
        });
    }
}

impl CpuChange {
    /// Returns the use of the CPUs between two readings of a guest, without the cores. The kernel does not count the other kinds
    /// of time for a control group.
    fn of_guest(now: &GuestCpu, before: &GuestCpu) -> Self {
        let elapsed = now.read_at.saturating_duration_since(before.read_at);
        let all = elapsed.as_secs_f64() * now.usable;
        let share = |now: Duration, before: Duration| {
            figure(now.saturating_sub(before).as_secs_f64() / all * 100.0, 2).min(100.0)
        };
        Self {
            percent: share(now.used, before.used),
            cores: Vec::new(),
            times: CpuTimes {
                user: share(now.user, before.user),
                system: share(now.system, before.system),
                ..CpuTimes::default()
            },
        }
    }
}

impl CpuTimesReading {
    /// Parses the line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, and the similar line of each
    /// core.
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

    fn since(&self, before: &Self) -> CpuChange {
        let all = self.all.since(before.all);
        // A core that was switched on after the previous reading has nothing to compare with. Its use is 0.
        let core = |(number, now): &(u32, Times)| {
            let before = before.cores.iter().find(|(one, _)| one == number);
            before.map_or(0.0, |(_, before)| now.since(*before).busy_percent())
        };
        CpuChange {
            percent: all.busy_percent(),
            cores: self.cores.iter().map(core).collect(),
            times: all.shares(),
        }
    }

    /// Returns the times of each core. If a time is lower than in `before`, returns the time in `before` instead.
    ///
    /// The kernel's iowait can decrease. A program that calculates rates would treat a decrease as a restart of the counter. A
    /// core that was switched off and on again has much less idle time than in `before`. For such a core, returns the new times.
    fn at_least(&self, before: &[(u32, Times)]) -> Vec<(u32, Times)> {
        let core = |&(number, now): &(u32, Times)| {
            let before = before.iter().find(|(one, _)| *one == number);
            let kept = before.filter(|(_, before)| now.idle() + MAX_IDLE_DECREASE >= before.idle());
            (
                number,
                kept.map_or(now, |(_, before)| now.at_least(*before)),
            )
        };
        self.cores.iter().map(core).collect()
    }
}

/// Parses a line such as `btime 1795818000`. Searches from the end, because the line of interrupts, which comes earlier, is long.
fn number(stat: &str, name: &str) -> Option<u64> {
    let mut lines = stat.rsplit('\n');
    let number = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    number.trim().parse().ok()
}

/// Converts the times of each core to seconds.
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

    /// Returns the time that the kernel counts for processes: user, nice and system.
    fn of_processes(self) -> u64 {
        let [user, nice, system, ..] = self.0;
        user.saturating_add(nice).saturating_add(system)
    }

    /// Returns the larger time of each kind.
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

    /// Returns the time of each kind since `before`. If a time has decreased, which happens with iowait, returns 0 for that
    /// kind.
    fn since(self, before: Self) -> Self {
        let mut times = self.0;
        for (time, before) in times.iter_mut().zip(before.0) {
            *time = time.saturating_sub(before);
        }
        Self(times)
    }

    /// Returns the share of `parts` in all time, in percent. Returns 0 if no time has passed.
    fn share(self, parts: &[u64]) -> f64 {
        let sum = |parts: &[u64]| parts.iter().map(|&part| part as f64).sum::<f64>();
        figure(sum(parts) / sum(&self.0) * 100.0, 2).min(100.0)
    }

    /// Returns the share of all time except idle and iowait, in percent.
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

    use std::time::{Duration, Instant};

    use super::{CpuChange, CpuFigures, CpuTimes, CpuTimesReading, GuestCpu, Times, seconds};
    use crate::collect::system::guest::Cores;

    const STAT: &str = "\
cpu  100 20 30 1000 50 1 2 3 40 5
cpu0 50 10 15 500 25 1 1 2 20 2
cpu1 50 10 15 500 25 0 1 1 20 3
intr 123 0 1
ctxt 1
btime 1700000000
";

    #[test]
    fn every_core_is_read_and_the_time_of_virtual_machines_counts_once() {
        let reading = CpuTimesReading::parse(STAT).unwrap();
        assert_eq!(reading.all, Times([100, 20, 30, 1000, 50, 1, 2, 3]));
        let cores = [
            (0, Times([50, 10, 15, 500, 25, 1, 1, 2])),
            (1, Times([50, 10, 15, 500, 25, 0, 1, 1])),
        ];
        assert_eq!(reading.cores, cores);
    }

    #[test]
    fn shares_cover_the_time_between_two_readings() {
        let before =
            CpuTimesReading::parse("cpu  0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\n").unwrap();
        let now = CpuTimesReading::parse(
            "cpu  10 20 5 40 15 2 3 5\ncpu0 10 20 5 40 15 2 3 5\ncpu3 1 1 1 1 1 1 1 1\n",
        );
        let now = now.unwrap();
        let expected = CpuChange {
            percent: 45.0,
            // The second core was not in the previous reading.
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
    fn time_since_boot_decreases_only_when_a_core_is_switched_on_again() {
        let of = |times| CpuTimesReading {
            all: Times::default(),
            cores: vec![(0, Times(times))],
        };
        let first = of([100, 0, 0, 1000, 50, 0, 0, 0]).at_least(&[]);
        // iowait and idle decrease a little.
        let later = of([110, 0, 0, 990, 40, 0, 0, 0]).at_least(&first);
        assert_eq!(later, [(0, Times([110, 0, 0, 1000, 50, 0, 0, 0]))]);
        let anew = of([1, 0, 0, 5, 0, 0, 0, 0]);
        assert_eq!(anew.at_least(&later), anew.cores);
        // A core that is switched off is removed.
        let none = CpuTimesReading {
            all: Times::default(),
            cores: Vec::new(),
        };
        assert!(none.at_least(&later).is_empty());
    }

    #[test]
    fn a_guest_has_the_use_of_its_own_cpus() {
        let host = CpuTimesReading::parse(STAT).unwrap();
        let figures = || CpuFigures {
            since: Some(CpuChange {
                percent: 90.0,
                cores: vec![80.0, 100.0],
                times: CpuTimes::default(),
            }),
            seconds: seconds(&host.cores, 100.0),
            cpus: 2,
            boot_time: Some(1),
            busy: 0.0,
        };
        let read_at = Instant::now();
        let millis = Duration::from_millis;
        let before = GuestCpu {
            read_at,
            used: millis(1000),
            user: millis(700),
            system: millis(300),
            usable: 0.5,
            cores: None,
        };
        // In two seconds the guest can use one second.
        let now = GuestCpu {
            read_at: read_at + millis(2000),
            used: millis(1250),
            user: millis(900),
            system: millis(350),
            ..before.clone()
        };
        let mut limited = figures();
        limited.limit(&host, &now, Some(&before));
        let expected = CpuChange {
            percent: 25.0,
            cores: Vec::new(),
            times: CpuTimes {
                user: 20.0,
                system: 5.0,
                ..CpuTimes::default()
            },
        };
        assert_eq!(limited.since, Some(expected));
        assert_eq!((limited.cpus, limited.seconds.len()), (1, 0));
        assert_eq!(limited.boot_time, Some(1));
        // The guest has one core of its own.
        let own = GuestCpu {
            usable: 1.0,
            cores: Cores::parse("1"),
            ..now.clone()
        };
        let mut limited = figures();
        limited.limit(&host, &own, Some(&before));
        let since = limited.since.unwrap();
        assert_eq!((since.percent, since.cores), (12.5, vec![100.0]));
        assert_eq!(limited.seconds.len(), 1);
        assert_eq!(limited.seconds[0].core, 1);
        // Nothing to compare with, no time between two readings, and a counter that decreases.
        let mut first = figures();
        first.limit(&host, &now, None);
        assert_eq!(first.since, None);
        assert_eq!(CpuChange::of_guest(&now, &now), CpuChange::default());
        let later = GuestCpu {
            read_at: now.read_at + millis(1000),
            ..before.clone()
        };
        assert_eq!(CpuChange::of_guest(&later, &now), CpuChange::default());
    }

    #[test]
    fn a_time_that_decreases_counts_as_zero() {
        let of = |times| CpuTimesReading {
            all: Times(times),
            cores: Vec::new(),
        };
        let before = of([100, 0, 0, 100, 50, 0, 0, 0]);
        let now = of([110, 0, 0, 110, 40, 0, 0, 0]);
        assert_eq!(now.since(&before).percent, 50.0);
        assert_eq!(now.since(&now), CpuChange::default());
    }

    /// The text is from a host with 128 cores. Two of them are switched off.
    #[test]
    fn cores_that_are_switched_off_are_left_out() {
        let text = include_str!("../../../tests/fixtures/proc-stat-128-cores.txt");
        let reading = CpuTimesReading::parse(text).unwrap();
        assert_eq!(reading.cores.len(), 126);
        let numbers: Vec<u32> = reading.cores.iter().map(|(number, _)| *number).collect();
        assert!(!numbers.contains(&5) && numbers.contains(&127));
    }

    #[test]
    fn invalid_text_is_refused() {
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
        fn figures_of_any_times_are_between_0_and_100(before: [u64; 8], now: [u64; 8]) {
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
