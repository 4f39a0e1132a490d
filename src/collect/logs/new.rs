//! How much of a log is new when it is read for the first time.

use std::time::{Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::EncodedLines;

/// How much of a log is new when it is read first: counts for clients that were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum New {
    Nothing,
    /// What was written since then.
    Since(SystemTime),
    All,
}

/// When the first containers were met, by both clocks: what those that are met later have written since is new.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    wall: SystemTime,
    at: Instant,
}

impl Began {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            at: Instant::now(),
        }
    }

    /// How much is new of the log of a container that was created then, in Unix time.
    pub(super) fn new_of(self, created: i64) -> New {
        let now = SystemTime::now();
        self.new_at(
            created,
            now.checked_sub(self.at.elapsed()).unwrap_or(self.wall),
        )
    }

    /// The same where `began` is what the clock would have shown at the beginning, had it been set right then: it may have been
    /// set back since.
    fn new_at(self, created: i64, began: SystemTime) -> New {
        let since = self.wall.min(began);
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
    /// How many of a log's newest finished lines are new.
    pub(super) fn of(self, lines: &EncodedLines) -> usize {
        let finished = lines.iter().len() - lines.open();
        let Self::Since(since) = self else {
            return finished;
        };
        let is_old = |line: &&str| moment(line).is_some_and(|moment| moment < since);
        finished - lines.iter().take(finished).filter(is_old).count()
    }
}

/// When a line was written, which is a JSON string.
fn moment(line: &str) -> Option<SystemTime> {
    let (timestamp, _) = line.get(1..)?.split_once(' ')?;
    OffsetDateTime::parse(timestamp, &Rfc3339)
        .ok()
        .map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Began, New};
    use crate::model::EncodedLines;

    const NOON: &str = "2024-01-01T12:00:00Z";

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn lines_are_new_by_their_time_in_whatever_zone() {
        let lines = [
            "2024-01-01T11:59:59.999Z a",
            "2024-01-01T12:30:00+01:00 b",
            "2024-01-01T12:00:00Z c",
            "2024-01-01T13:00:01+01:00 d",
            "no time",
        ];
        let lines = EncodedLines::following(&EncodedLines::default(), 0..0, &lines, 0);
        assert_eq!(New::Since(at(NOON)).of(&lines), 3);
        assert_eq!(New::All.of(&lines), 5);
        assert_eq!(New::Nothing.of(&lines), 5);
    }

    #[test]
    fn a_container_that_starts_after_the_clock_was_set_back_is_new() {
        let mut began = Began::now();
        began.wall = at(NOON);
        let noon = 1_704_110_400;
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(began.new_at(noon + 60, began.wall), New::All);
        assert_eq!(began.new_at(noon - 60, began.wall), New::Since(began.wall));
        // Two hours back, then a container is created.
        let shifted = began.wall - hours(2);
        assert_eq!(began.new_at(noon - 7000, shifted), New::All);
        assert_eq!(began.new_at(noon - 7300, shifted), New::Since(shifted));
        // Set forward: what was written before that is new all the same.
        let shifted = began.wall + hours(2);
        assert_eq!(began.new_at(noon - 60, shifted), New::Since(began.wall));
    }
}
