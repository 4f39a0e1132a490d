//! Decides which log lines are new when a log is read for the first time.

use std::time::{Instant, SystemTime};

use crate::model::{EncodedLines, FileOffset, FilePlace, time_of};

/// Which lines are new when a log is read for the first time. A client that got no lines of this container gets the new lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum New {
    /// The lines that are found. The container was in the agent's first list, so older lines do not count as lost.
    OnlyKept,
    /// The lines that were written after this time.
    Since(SystemTime),
    /// All lines, because the container was created after the agent started.
    All,
}

/// The time when the agent started, on the wall clock and on the monotonic clock. If a container is not in the agent's first list,
/// the lines that it wrote after this time are new. A time after the first list would be too late: the container can start while
/// the engine sends the list, and write lines at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct AgentStart {
    wall: SystemTime,
    at: Instant,
}

impl AgentStart {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            at: Instant::now(),
        }
    }

    /// Whether the agent started before `time`.
    pub(super) fn is_before(self, time: SystemTime) -> bool {
        self.wall.min(self.by_clock_now()) < time
    }

    /// Returns when the agent started, calculated back from the current wall clock.
    fn by_clock_now(self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_sub(self.at.elapsed()).unwrap_or(self.wall)
    }

    /// Decides which lines are new, of a container that was not in the first list. `created` is the time when the container was created, in Unix seconds.
    pub(super) fn new_of(self, created: i64) -> New {
        self.new_at(created, self.by_clock_now())
    }

    /// Works like [`Self::new_of`]. `start` is the time when the agent started, calculated back from the current wall clock. If the
    /// clock was set after that, `start` differs from `wall`. The earlier of these two times counts.
    fn new_at(self, created: i64, start: SystemTime) -> New {
        let since = self.wall.min(start);
        let seconds = since.duration_since(SystemTime::UNIX_EPOCH);
        let created = u64::try_from(created).unwrap_or_default();
        if created > seconds.unwrap_or_default().as_secs() {
            New::All
        } else {
            New::Since(since)
        }
    }
}

impl New {
    /// Returns where the new lines begin. `line` is the number of the newest line before them. None if all lines that are found are
    /// new.
    pub(super) fn start(self, line: u64) -> Option<FilePlace> {
        let at = match self {
            Self::All => FileOffset::default(),
            Self::Since(time) => FileOffset::of_time(time, 0),
            Self::OnlyKept => return None,
        };
        Some(FilePlace { at, line })
    }

    /// Returns how many of the finished lines are new.
    pub(super) fn of(self, lines: &EncodedLines) -> usize {
        let finished = lines.iter().len() - lines.open();
        let Self::Since(since) = self else {
            return finished;
        };
        let is_old = |line: &&str| moment(line).is_some_and(|moment| moment < since);
        finished - lines.iter().take(finished).filter(is_old).count()
    }
}

/// Returns when a line was written. `line` is a JSON string.
pub(super) fn moment(line: &str) -> Option<SystemTime> {
    let (timestamp, _) = line.get(1..)?.split_once(' ')?;
    time_of(timestamp)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{AgentStart, New};
    use crate::model::{EncodedLines, StderrLines};

    const NOON: &str = "2024-01-01T12:00:00Z";

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn the_time_of_a_line_is_compared_in_any_time_zone() {
        let lines = [
            "2024-01-01T11:59:59.999Z a",
            "2024-01-01T12:30:00+01:00 b",
            "2024-01-01T12:00:00Z c",
            "2024-01-01T13:00:01+01:00 d",
            "no time",
        ];
        let lines = EncodedLines::following(
            &EncodedLines::default(),
            0..0,
            &lines,
            &StderrLines::default(),
            0,
        );
        assert_eq!(New::Since(at(NOON)).of(&lines), 3);
        assert_eq!(New::All.of(&lines), 5);
        assert_eq!(New::OnlyKept.of(&lines), 5);
    }

    #[test]
    fn a_container_created_after_the_clock_was_set_back_is_new() {
        let mut start = AgentStart::now();
        start.wall += Duration::from_secs(3600);
        assert!(start.is_before(SystemTime::now()));
        assert!(!start.is_before(SystemTime::now() - Duration::from_secs(60)));
        start.wall = at(NOON);
        let noon = 1_704_110_400;
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(start.new_at(noon + 60, start.wall), New::All);
        assert_eq!(start.new_at(noon - 60, start.wall), New::Since(start.wall));
        // The clock is set back by two hours. After that, a container is created.
        let shifted = start.wall - hours(2);
        assert_eq!(start.new_at(noon - 7000, shifted), New::All);
        assert_eq!(start.new_at(noon - 7300, shifted), New::Since(shifted));
        // The clock is set forward. Lines from before that moment are still new.
        let shifted = start.wall + hours(2);
        assert_eq!(start.new_at(noon - 60, shifted), New::Since(start.wall));
    }
}
