//! Which hosts are heard of, and which have fallen silent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::watch::brief::Brief;

/// The most hosts that are listed.
const MOST: usize = 10_000;
/// How many of its intervals a host may be silent, and how long at least.
const INTERVALS: u32 = 3;
const LEAST: Duration = Duration::from_secs(15);
/// After how long a host that is silent is no longer listed.
const VANISHES: Duration = Duration::from_secs(600);
/// How often snapshots are taken to come until two have: so is an agent set at first.
const AT_FIRST: Duration = Duration::from_secs(5);
/// The longest time between two snapshots that an agent can be set to.
const LONGEST: Duration = Duration::from_secs(3600);
/// How much of the hosts' newest snapshots is kept, in bytes: what is opened is shown at once where its is.
const KEPT: usize = 64 * 1024 * 1024;

/// The hosts, by the tokens that they are called by in subjects.
#[derive(Default)]
pub(super) struct Roll {
    hosts: HashMap<Box<str>, Entry>,
    tokens: HashMap<usize, Box<str>>,
    /// The number of the next new one.
    next: usize,
    kept: usize,
}

struct Entry {
    number: usize,
    at: Instant,
    interval: Duration,
    silent: bool,
    /// The time and number of the newest snapshot.
    last: Option<(std::time::SystemTime, u64)>,
    /// Its line, where there is room.
    line: Box<[u8]>,
}

/// A host that has been heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) number: usize,
    /// For the first time.
    pub(super) new: bool,
}

/// What has become of a host that is not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Silent(usize),
    Vanished(usize),
}

impl Roll {
    /// Takes note of a snapshot; none where there are too many hosts already.
    pub(super) fn heard(
        &mut self,
        token: &str,
        brief: &Brief,
        line: &[u8],
        now: Instant,
    ) -> Option<Heard> {
        let new = !self.hosts.contains_key(token);
        if new {
            if self.hosts.len() >= MOST {
                return None;
            }
            let entry = Entry {
                number: self.next,
                at: now,
                interval: brief
                    .read_every
                    .unwrap_or_default()
                    .clamp(AT_FIRST, LONGEST),
                silent: false,
                last: None,
                line: Box::default(),
            };
            self.tokens.insert(self.next, token.into());
            self.hosts.insert(token.into(), entry);
            self.next += 1;
        }
        let entry = self.hosts.get_mut(token)?;
        (entry.at, entry.silent) = (now, false);
        let this = (brief.timestamp.0, brief.seq);
        // By the agent's own clock and count: neither what was missed nor what came late at once changes it.
        if let Some((before, seq)) = entry.last.replace(this)
            && let Ok(passed) = this.0.duration_since(before)
            && let Ok(count) = u32::try_from(this.1.saturating_sub(seq))
            && let Some(interval) = passed.checked_div(count)
        {
            entry.interval = interval.min(LONGEST);
        }
        self.kept -= entry.line.len();
        entry.line = match self.kept + line.len() <= KEPT {
            true => line.into(),
            false => Box::default(),
        };
        self.kept += entry.line.len();
        Some(Heard {
            number: entry.number,
            new,
        })
    }

    /// The number of a host that is known.
    pub(super) fn number(&self, token: &str) -> Option<usize> {
        self.hosts.get(token).map(|entry| entry.number)
    }

    /// The token of a host.
    pub(super) fn token(&self, number: usize) -> Option<&str> {
        self.tokens.get(&number).map(|token| &**token)
    }

    /// A host's newest snapshot, if it is kept.
    pub(super) fn line(&self, number: usize) -> Option<&[u8]> {
        let entry = self.hosts.get(self.token(number)?)?;
        (!entry.line.is_empty()).then_some(&entry.line)
    }

    /// They could not be heard of until now.
    pub(super) fn resume(&mut self, now: Instant) {
        self.hosts.values_mut().for_each(|entry| entry.at = now);
    }

    /// Those that have become silent, and those that are listed no longer; one that is looked at stays.
    pub(super) fn changes(&mut self, now: Instant, looked_at: Option<usize>) -> Vec<Change> {
        let mut changes = Vec::new();
        let (tokens, kept) = (&mut self.tokens, &mut self.kept);
        self.hosts.retain(|_, entry| {
            let number = entry.number;
            let silent_for = now.saturating_duration_since(entry.at);
            if silent_for > VANISHES && looked_at != Some(number) && entry.silent {
                changes.push(Change::Vanished(number));
                tokens.remove(&number);
                *kept -= entry.line.len();
                return false;
            }
            if !entry.silent && silent_for > (entry.interval * INTERVALS).max(LEAST) {
                entry.silent = true;
                changes.push(Change::Silent(number));
            }
            true
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::{Change, Heard, KEPT, MOST, Roll};
    use crate::model::Timestamp;
    use crate::watch::brief::Brief;

    fn brief(seconds: u64, seq: u64) -> Brief {
        Brief {
            hostname: "web-1".to_owned(),
            timestamp: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            seq,
            collected_at: None,
            read_every: None,
            cpu: 0.0,
            memory: 0.0,
            disk: 0.0,
            load: 0.0,
            containers: 0,
            problems: Vec::new(),
        }
    }

    fn after(seconds: u64, of: Instant) -> Instant {
        of + Duration::from_secs(seconds)
    }

    #[test]
    fn hosts_keep_their_numbers() {
        let (mut roll, now) = (Roll::default(), Instant::now());
        let heard = |roll: &mut Roll, token| roll.heard(token, &brief(0, 1), b"{}", now);
        assert_eq!(
            heard(&mut roll, "a"),
            Some(Heard {
                number: 0,
                new: true
            })
        );
        assert_eq!(
            heard(&mut roll, "b"),
            Some(Heard {
                number: 1,
                new: true
            })
        );
        assert_eq!(
            heard(&mut roll, "a"),
            Some(Heard {
                number: 0,
                new: false
            })
        );
        assert_eq!(
            (roll.token(1), roll.number("b"), roll.number("c")),
            (Some("b"), Some(1), None)
        );
        assert_eq!(roll.line(0), Some(&b"{}"[..]));
    }

    #[test]
    fn a_host_that_is_not_heard_of_is_silent_and_then_gone() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.heard("a", &brief(0, 1), b"", start);
        roll.heard("b", &brief(0, 1), b"", start);
        assert_eq!(roll.changes(after(15, start), None), []);
        assert_eq!(roll.changes(after(16, start), None).len(), 2);
        assert_eq!(roll.changes(after(17, start), None), [], "told once");
        // Back again, under the same number.
        let back = roll.heard("b", &brief(16, 4), b"", after(18, start));
        assert_eq!(
            back,
            Some(Heard {
                number: 1,
                new: false
            })
        );
        assert_eq!(
            roll.changes(after(601, start), Some(0)),
            [Change::Silent(1)]
        );
        assert_eq!(roll.changes(after(601, start), None), [Change::Vanished(0)]);
        // Who comes back after that is another.
        let anew = roll.heard("a", &brief(0, 1), b"", after(602, start));
        assert_eq!(
            anew,
            Some(Heard {
                number: 2,
                new: true
            })
        );
        assert_eq!(roll.token(0), None);
    }

    #[test]
    fn how_long_silence_is_a_hosts_own_matter() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        // Every 20 s, of which one was missed.
        for (seconds, seq) in [(0, 7), (20, 8), (60, 10)] {
            roll.heard("a", &brief(seconds, seq), b"", after(seconds, start));
        }
        assert_eq!(roll.changes(after(120, start), None), []);
        assert_eq!(roll.changes(after(121, start), None), [Change::Silent(0)]);
        // An agent that was restarted counts anew, and a clock may go back: the interval stays.
        roll.heard("a", &brief(10, 1), b"", after(130, start));
        assert_eq!(roll.changes(after(190, start), None), []);
        assert_eq!(roll.changes(after(191, start), None), [Change::Silent(0)]);
    }

    #[test]
    fn nobody_is_silent_for_having_not_been_listened_to() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.heard("a", &brief(0, 1), b"", start);
        roll.resume(after(300, start));
        assert_eq!(roll.changes(after(315, start), None), []);
        assert_eq!(roll.changes(after(316, start), None), [Change::Silent(0)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        let half = vec![b' '; KEPT / 2];
        for token in ["a", "b", "c"] {
            roll.heard(token, &brief(0, 1), &half, start);
        }
        assert!(roll.line(1).is_some() && roll.line(2).is_none());
        // What is replaced, and what is gone, makes room.
        roll.heard("a", &brief(1, 2), b"{}", start);
        roll.heard("c", &brief(1, 2), &half[1..], start);
        assert!(roll.line(2).is_none());
        roll.heard("c", &brief(1, 2), &half[2..], start);
        assert!(roll.line(2).is_some());
        roll.changes(after(601, start), None);
        roll.changes(after(602, start), None);
        assert_eq!((roll.kept, roll.hosts.len(), roll.tokens.len()), (0, 0, 0));

        for number in 0..MOST {
            assert!(
                roll.heard(&number.to_string(), &brief(0, 1), b"", start)
                    .is_some()
            );
        }
        assert_eq!(roll.heard("one more", &brief(0, 1), b"", start), None);
        assert!(roll.heard("7", &brief(0, 1), b"", start).is_some());
    }
}
