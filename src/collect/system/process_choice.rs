//! Decides which processes a pass reads. Most processes of a host do little most of the time, and reading them costs more than all
//! other figures of the host together. So most passes read only the processes that were active. A full pass comes at least every 15 s.
//! Of the processes that have used no CPU time for a minute, it reads one in four, and it reads all others. If the passes are close, it leaves
//! the processes that it finds for the first time to the next pass. A pass reads all processes
//! without exception when processes that it did not read have used more CPU time than before. The CPU time of the whole host in
//! `/proc/stat` shows this.

use std::time::Duration;

/// Maximum time between two full passes.
const MAX_AGE: Duration = Duration::from_secs(15);
/// A process that has used no CPU time for this long is dormant.
const DORMANT_AFTER: Duration = Duration::from_mins(1);
/// Maximum age of the reading of a dormant process.
const MAX_DORMANT_AGE: Duration = Duration::from_mins(1);
/// A full pass reads one of this many dormant processes, so that all full passes cost the same.
const DORMANT_TURNS: u32 = 4;
/// Passes are not exactly one interval apart.
const TOLERANCE: Duration = Duration::from_millis(500);
/// The CPU time that processes can use without being read, in cores. It is higher than the error of the kernel's ticks.
const MAX_UNSEEN: f64 = 0.05;

/// A process that used less than this before its newest reading does not count as active, in percent of one core.
pub(super) const MAX_QUIET_PERCENT: f64 = 0.5;

/// The data that the choice needs from earlier passes.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The newest full pass. None before the first one.
    full: Option<PassTimes>,
    /// The number of full passes. It can wrap.
    full_passes: u32,
    /// The newest pass.
    newest: Option<PassTimes>,
    /// CPU time of the processes that were read since `full`, in seconds.
    seen: f64,
    /// The host's CPU time that belongs to no process which was read, in cores: that of processes that ended before a pass could read
    /// them, and of processes that `/proc` hides. Only a pass that reads all processes can raise this value.
    unseen: f64,
    /// The host's CPU time that belongs to no process which was read, in seconds. Each pass adds the time since the previous pass.
    unseen_total: f64,
}

/// When a pass was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct PassTimes {
    /// Time since boot.
    pub(super) at: Duration,
    /// CPU time that all processes of the host have used since boot, in seconds. None if it could not be read.
    pub(super) busy: Option<f64>,
}

impl Choice {
    /// Returns whether the pass must be a full one, because the newest full pass was too long ago.
    pub(super) fn is_full_due(&self, now: PassTimes) -> bool {
        let (Some(full), Some(newest)) = (self.full, self.newest) else {
            return true;
        };
        // The next pass would be too late.
        let until_next = now.at.saturating_sub(newest.at);
        now.at.saturating_sub(full.at) + until_next > MAX_AGE + TOLERANCE
    }

    /// Returns whether this pass comes at most half of [`MAX_AGE`] after the previous one. The next pass then probably comes as soon.
    pub(super) fn next_is_soon(&self, now: PassTimes) -> bool {
        (self.newest).is_some_and(|newest| now.at.saturating_sub(newest.at) <= MAX_AGE / 2)
    }

    /// Returns whether a full pass must read the process `pid`. The process was read at `read_at`, and has used no CPU time since
    /// `idle_since`. Both are times since boot.
    pub(super) fn is_due_in_full_pass(
        &self,
        now: PassTimes,
        pid: u32,
        read_at: Duration,
        idle_since: Duration,
    ) -> bool {
        if now.at.saturating_sub(idle_since) < DORMANT_AFTER {
            return true;
        }
        let until_next = self
            .full
            .map_or(MAX_AGE, |full| now.at.saturating_sub(full.at));
        let is_too_old_soon =
            now.at.saturating_sub(read_at) + until_next > MAX_DORMANT_AGE + TOLERANCE;
        is_too_old_soon || self.full_passes % DORMANT_TURNS == pid % DORMANT_TURNS
    }

    /// Returns whether processes that the pass has not read have used more CPU time since the previous pass than expected. `used` is
    /// the CPU time of the processes that it has read, in seconds. `quiet` is the CPU use of the others at their newest reading, in
    /// cores.
    pub(super) fn is_more_used(&self, now: PassTimes, used: f64, quiet: f64) -> bool {
        let unseen = self.newest.and_then(|newest| cores(newest, now, used));
        unseen.is_none_or(|unseen| unseen - quiet > self.unseen + MAX_UNSEEN)
    }

    /// Records a full pass. `has_read_all` says whether it has read all processes.
    pub(super) fn note_full(&mut self, now: PassTimes, used: f64, has_read_all: bool) {
        let seen = self.seen + used;
        let unseen = self.full.and_then(|before| cores(before, now, seen));
        let unseen = unseen.unwrap_or(0.0);
        *self = Self {
            full: Some(now),
            newest: Some(now),
            full_passes: self.full_passes.wrapping_add(1),
            seen: 0.0,
            unseen: match has_read_all {
                true => unseen,
                false => unseen.min(self.unseen),
            },
            unseen_total: self.unseen_total + self.unseen_since_newest(now, used),
        };
    }

    /// Returns the host's CPU time that belongs to no process which was read, until the previous pass, in seconds. A process that was
    /// not read between two passes has used at most the difference of their two values.
    pub(super) fn unseen_total(&self) -> f64 {
        self.unseen_total
    }

    /// Makes all passes longer ago.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        for pass in [&mut self.full, &mut self.newest].into_iter().flatten() {
            pass.at = pass.at.saturating_sub(by);
        }
    }

    /// Makes the newest full pass longer ago, and not the newest pass.
    #[cfg(test)]
    pub(super) fn age_full(&mut self, by: Duration) {
        if let Some(full) = &mut self.full {
            full.at = full.at.saturating_sub(by);
        }
    }

    /// Returns the CPU time of the host since the newest pass, without `used`, in seconds.
    fn unseen_since_newest(&self, now: PassTimes, used: f64) -> f64 {
        let busy = self
            .newest
            .and_then(|newest| Some(now.busy? - newest.busy?));
        busy.map_or(0.0, |busy| (busy - used).max(0.0))
    }

    /// Records a pass that has read only the processes that were active. See [`Self::is_more_used`].
    pub(super) fn note_partial(&mut self, now: PassTimes, used: f64, quiet: f64) {
        let unseen = self.newest.and_then(|newest| cores(newest, now, used));
        let unseen = unseen.map(|unseen| (unseen - quiet).max(0.0));
        self.unseen = unseen.map_or(self.unseen, |unseen| unseen.min(self.unseen));
        self.unseen_total += self.unseen_since_newest(now, used);
        self.seen += used;
        self.newest = Some(now);
    }
}

/// Returns the CPU use of a process in cores. It has used `used` seconds of CPU time in the last `elapsed` seconds, and `recent` is the
/// part of this time since the previous pass, in seconds. `unseen` is the CPU time of all unread processes together in the passes since the
/// previous reading, in seconds ([`Choice::unseen_total`]).
///
/// The passes since the previous reading have shown that the processes that they did not read used hardly more than before, by
/// [`MAX_UNSEEN`] together. So most of the CPU time of a process that has suddenly become active is from the time since the previous
/// pass. This is wrong only if other processes became idle at the same time.
pub(super) fn use_of(used: f64, elapsed: f64, recent: f64, unseen: f64) -> f64 {
    if elapsed <= 0.0 {
        // The first reading has nothing to compare with.
        return 0.0;
    }
    let average = used / elapsed;
    if recent <= 0.0 || recent >= elapsed {
        return average;
    }
    let hidden = unseen.min(MAX_UNSEEN * (elapsed - recent));
    average.max((used - hidden) / recent)
}

/// Returns the CPU time of the host between two passes without `used`, in cores. None if it is not known.
fn cores(before: PassTimes, now: PassTimes, used: f64) -> Option<f64> {
    let busy = now.busy? - before.busy?;
    let elapsed = now.at.checked_sub(before.at)?.as_secs_f64();
    (elapsed > 0.0).then(|| ((busy - used) / elapsed).max(0.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Choice, PassTimes, use_of};

    fn at(seconds: f64, busy: f64) -> PassTimes {
        PassTimes {
            at: Duration::from_secs_f64(seconds),
            busy: Some(busy),
        }
    }

    /// Makes passes at these times on an idle host. Returns the times of the full passes.
    fn full(times: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut choice = Choice::default();
        times
            .filter(|time| {
                let now = at(*time, 0.0);
                let is_due = choice.is_full_due(now) || choice.is_more_used(now, 0.0, 0.0);
                match is_due {
                    true => choice.note_full(now, 0.0, true),
                    false => choice.note_partial(now, 0.0, 0.0),
                }
                is_due
            })
            .collect()
    }

    #[test]
    fn no_process_of_an_idle_host_is_older_than_15_seconds() {
        let every = |seconds: f64| (0..).map(move |pass| f64::from(pass) * seconds);
        assert_eq!(full(every(5.0).take(8)), [0.0, 15.0, 30.0]);
        assert_eq!(full(every(5.125).take(8)), [0.0, 15.375, 30.75]);
        assert_eq!(full(every(1.0).take(32)), [0.0, 15.0, 30.0]);
        assert_eq!(full(every(10.0).take(4)), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(full(every(60.0).take(3)), [0.0, 60.0, 120.0]);
    }

    #[test]
    fn a_dormant_process_is_read_once_a_minute_and_not_all_in_the_same_pass() {
        for every in [1.0, 5.0, 15.0, 20.0, 60.0, 100.0] {
            let mut choice = Choice::default();
            let mut read_at = [0.0; 8];
            let mut busiest = 0;
            for pass in 0..200 {
                let time = f64::from(pass) * every;
                let now = at(time, 0.0);
                if !choice.is_full_due(now) {
                    choice.note_partial(now, 0.0, 0.0);
                    continue;
                }
                let mut read = 0;
                for (pid, read_at) in (0_u32..).zip(&mut read_at) {
                    let before = Duration::from_secs_f64(*read_at);
                    if choice.is_due_in_full_pass(now, pid, before, Duration::ZERO) {
                        let most = f64::max(60.0, every) + 1.0;
                        assert!(time - *read_at <= most, "{every}: {pid} at {time}");
                        *read_at = time;
                        read += 1;
                    }
                }
                choice.note_full(now, 0.0, true);
                let oldest = read_at.iter().copied().fold(time, f64::min);
                assert!(
                    time - oldest < 60.0_f64.max(every),
                    "{every}: {oldest} at {time}"
                );
                if time >= 120.0 {
                    busiest = read.max(busiest);
                }
            }
            if every <= 15.0 {
                assert_eq!(busiest, 2, "{every}: so many of 8 in one pass");
            }
        }
    }

    #[test]
    fn a_full_pass_reads_a_process_that_was_active_in_the_last_minute() {
        let mut choice = Choice::default();
        choice.note_full(at(100.0, 0.0), 0.0, true);
        let read_at = Duration::from_secs(100);
        let is_due = |pid, idle_since| {
            let idle_since = Duration::from_secs(idle_since);
            choice.is_due_in_full_pass(at(115.0, 0.0), pid, read_at, idle_since)
        };
        assert!((0..8).all(|pid| is_due(pid, 60)));
        assert_eq!((0..8).filter(|pid| is_due(*pid, 50)).count(), 2);
    }

    #[test]
    fn all_processes_are_read_when_others_have_used_cpu_time() {
        let mut choice = Choice::default();
        choice.note_full(at(0.0, 100.0), 0.0, true);
        // 0.2 s in 5 s are 4 % of a core.
        assert!(!choice.is_more_used(at(5.0, 100.2), 0.0, 0.0));
        assert!(choice.is_more_used(at(5.0, 100.3), 0.0, 0.0));
        assert!(!choice.is_more_used(at(5.0, 102.0), 1.9, 0.0));
        choice.note_partial(at(5.0, 102.0), 1.9, 0.0);
        assert!(choice.is_more_used(at(10.0, 103.0), 0.0, 0.0));
    }

    #[test]
    fn the_expected_time_of_quiet_processes_is_not_searched() {
        let mut choice = Choice::default();
        choice.note_full(at(0.0, 0.0), 0.0, true);
        // 100 processes with 0.3 % of a core each.
        assert!(!choice.is_more_used(at(5.0, 1.5), 0.0, 0.3));
        choice.note_partial(at(5.0, 1.5), 0.0, 0.3);
        assert!(choice.is_more_used(at(10.0, 3.3), 0.0, 0.3));
        assert!(choice.is_more_used(at(10.0, 3.0), 0.0, 0.2));
    }

    #[test]
    fn the_time_of_processes_that_cannot_be_read_is_not_searched_again() {
        let mut choice = Choice::default();
        choice.note_full(at(0.0, 0.0), 0.0, true);
        // Half a core is used by processes that no pass finds.
        assert!(choice.is_more_used(at(5.0, 2.5), 0.0, 0.0));
        choice.note_full(at(5.0, 2.5), 0.0, true);
        assert!(!choice.is_more_used(at(10.0, 5.0), 0.0, 0.0));
        choice.note_partial(at(10.0, 5.0), 0.0, 0.0);
        assert!(choice.is_more_used(at(15.0, 8.0), 0.0, 0.0));
        // They end. Afterwards, less is needed to search.
        assert!(!choice.is_more_used(at(15.0, 5.1), 0.0, 0.0));
        choice.note_partial(at(15.0, 5.1), 0.0, 0.0);
        assert!(choice.is_more_used(at(20.0, 5.5), 0.0, 0.0));
    }

    #[test]
    fn time_of_all_passes_since_the_full_one_counts() {
        let mut choice = Choice::default();
        choice.note_full(at(0.0, 0.0), 0.0, true);
        choice.note_partial(at(5.0, 1.0), 1.0, 0.0);
        choice.note_partial(at(10.0, 2.0), 1.0, 0.0);
        choice.note_full(at(15.0, 3.0), 1.0, true);
        assert!(choice.unseen.abs() < 1e-9);
    }

    #[test]
    fn a_process_that_becomes_active_does_not_seem_idle_because_of_the_time_before() {
        let is = |figure: f64, expected: f64| (figure - expected).abs() < 1e-9;
        // It was idle for 10 s, and then it used a whole core for 5 s. Other processes that were not read used much.
        assert!(is(use_of(5.0, 15.0, 5.0, 9.0), 0.9));
        // It used 4 % of a core all the time.
        assert!(is(use_of(0.6, 15.0, 5.0, 9.0), 0.04));
        assert!(is(use_of(5.0, 5.0, 5.0, 0.0), 1.0));
        assert!(is(use_of(5.0, 5.0, 7.0, 0.0), 1.0));
        assert_eq!(use_of(5.0, 0.0, 0.0, 0.0), 0.0);
        // It was dormant for 55 s, or it used 4 % of a core all the time, and nothing else was active.
        assert!(is(use_of(5.0, 60.0, 5.0, 0.0), 1.0));
        assert!(is(use_of(2.4, 60.0, 5.0, 2.2), 0.04));
    }

    #[test]
    fn the_time_of_dormant_processes_is_not_expected_of_other_processes() {
        let mut choice = Choice::default();
        choice.note_full(at(0.0, 0.0), 0.0, true);
        // A dormant process uses 4 % of a core now, and full passes do not read it.
        for pass in 1..5 {
            let now = at(15.0 * f64::from(pass), 0.6 * f64::from(pass));
            assert!(!choice.is_more_used(now, 0.0, 0.0));
            choice.note_full(now, 0.0, false);
        }
        assert!((choice.unseen_total() - 2.4).abs() < 1e-9);
        assert!(choice.is_more_used(at(65.0, 2.8), 0.0, 0.0));
    }

    #[test]
    fn all_processes_are_read_if_the_time_of_the_host_is_not_known() {
        let unknown = |seconds| PassTimes {
            busy: None,
            ..at(seconds, 0.0)
        };
        let mut choice = Choice::default();
        choice.note_full(at(0.0, 0.0), 0.0, true);
        assert!(choice.is_more_used(unknown(5.0), 0.0, 0.0));
        choice.note_full(unknown(5.0), 0.0, true);
        assert!(choice.is_more_used(at(10.0, 0.0), 0.0, 0.0));
    }
}
