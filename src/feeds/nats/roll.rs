//! The list of all hosts of a fleet (the roll). It stores the arrival time of each host's newest snapshot, and finds the hosts
//! that have become silent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::feeds::brief::Brief;

/// Maximum number of hosts.
const MAX_HOSTS: usize = 10_000;
/// Number of intervals without a snapshot after which a host is silent. The interval is the time between two snapshots of the
/// host. A host is never silent earlier than after `MIN_SILENCE`.
const INTERVALS: u32 = 3;
/// Minimum time without a snapshot after which a host is silent.
const MIN_SILENCE: Duration = Duration::from_secs(15);
/// Time without a snapshot after which a host is removed from the list.
const VANISHES_AFTER: Duration = Duration::from_secs(600);
/// Minimum of the interval that is assumed for a host with only one snapshot. It is the default interval of an agent.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum interval that an agent accepts.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// Limit on the memory for the hosts' newest snapshots, in bytes. If a host's snapshot is stored, the screen can show the host
/// immediately when the user opens it.
const MAX_STORED: usize = 64 * 1024 * 1024;

/// The list of hosts. The token of a host is the host's name in subjects.
#[derive(Default)]
pub(super) struct Roll {
    /// The hosts, by token.
    hosts: HashMap<Box<str>, Entry>,
    /// The token of each host, by the host's number.
    tokens: HashMap<usize, Box<str>>,
    /// The number of the next new host.
    next: usize,
    /// The size of all stored snapshots, in bytes.
    kept: usize,
}

/// A host.
struct Entry {
    number: usize,
    /// The time at which the newest snapshot arrived.
    at: Instant,
    interval: Duration,
    silent: bool,
    /// The time and the number of the newest snapshot.
    last: Option<(std::time::SystemTime, u64)>,
    /// The JSON line of the newest snapshot. Empty if the limit on memory was reached.
    line: Box<[u8]>,
}

/// The host of a snapshot that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) number: usize,
    /// Whether this snapshot was the host's first snapshot.
    pub(super) new: bool,
}

/// A change of a host that sends no snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Silent(usize),
    Vanished(usize),
}

impl Roll {
    /// Records a snapshot. Returns none if the host is new and the list is full.
    pub(super) fn record(
        &mut self,
        token: &str,
        brief: &Brief,
        line: &[u8],
        now: Instant,
    ) -> Option<Recorded> {
        let new = !self.hosts.contains_key(token);
        if new {
            if self.hosts.len() >= MAX_HOSTS {
                return None;
            }
            let entry = Entry {
                number: self.next,
                at: now,
                interval: brief
                    .read_every
                    .unwrap_or_default()
                    .clamp(FIRST_INTERVAL, MAX_INTERVAL),
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
        // The interval is calculated from the times and numbers in the snapshots. So lost and late messages do not change it.
        if let Some((before, seq)) = entry.last.replace(this)
            && let Ok(passed) = this.0.duration_since(before)
            && let Ok(count) = u32::try_from(this.1.saturating_sub(seq))
            && let Some(interval) = passed.checked_div(count)
        {
            entry.interval = interval.min(MAX_INTERVAL);
        }
        self.kept -= entry.line.len();
        entry.line = match self.kept + line.len() <= MAX_STORED {
            true => line.into(),
            false => Box::default(),
        };
        self.kept += entry.line.len();
        Some(Recorded {
            number: entry.number,
            new,
        })
    }

    /// The number of the host with this token.
    pub(super) fn number(&self, token: &str) -> Option<usize> {
        self.hosts.get(token).map(|entry| entry.number)
    }

    /// The token of the host with this number.
    pub(super) fn token(&self, number: usize) -> Option<&str> {
        self.tokens.get(&number).map(|token| &**token)
    }

    /// The JSON line of a host's newest snapshot, if it is stored.
    pub(super) fn line(&self, number: usize) -> Option<&[u8]> {
        let entry = self.hosts.get(self.token(number)?)?;
        (!entry.line.is_empty()).then_some(&entry.line)
    }

    /// Starts the time of silence again for all hosts. The feed calls this after it has connected, because no snapshot could
    /// arrive without a connection.
    pub(super) fn resume(&mut self, now: Instant) {
        self.hosts.values_mut().for_each(|entry| entry.at = now);
    }

    /// Removes hosts that have been silent for too long. Returns the removed hosts, and the hosts that have become silent. Never
    /// removes the open host, `looked_at`.
    pub(super) fn changes(&mut self, now: Instant, looked_at: Option<usize>) -> Vec<Change> {
        let mut changes = Vec::new();
        let (tokens, kept) = (&mut self.tokens, &mut self.kept);
        self.hosts.retain(|_, entry| {
            let number = entry.number;
            let silent_for = now.saturating_duration_since(entry.at);
            if silent_for > VANISHES_AFTER && looked_at != Some(number) && entry.silent {
                changes.push(Change::Vanished(number));
                tokens.remove(&number);
                *kept -= entry.line.len();
                return false;
            }
            if !entry.silent && silent_for > (entry.interval * INTERVALS).max(MIN_SILENCE) {
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

    use super::{Change, MAX_HOSTS, MAX_STORED, Recorded, Roll};
    use crate::feeds::brief::Brief;
    use crate::model::Timestamp;

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
        let record = |roll: &mut Roll, token| roll.record(token, &brief(0, 1), b"{}", now);
        assert_eq!(
            record(&mut roll, "a"),
            Some(Recorded {
                number: 0,
                new: true
            })
        );
        assert_eq!(
            record(&mut roll, "b"),
            Some(Recorded {
                number: 1,
                new: true
            })
        );
        assert_eq!(
            record(&mut roll, "a"),
            Some(Recorded {
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
    fn a_host_without_snapshots_becomes_silent_and_is_removed_later() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.record("a", &brief(0, 1), b"", start);
        roll.record("b", &brief(0, 1), b"", start);
        assert_eq!(roll.changes(after(15, start), None), []);
        assert_eq!(roll.changes(after(16, start), None).len(), 2);
        assert_eq!(
            roll.changes(after(17, start), None),
            [],
            "the change is returned once"
        );
        // The host sends again and keeps its number.
        let back = roll.record("b", &brief(16, 4), b"", after(18, start));
        assert_eq!(
            back,
            Some(Recorded {
                number: 1,
                new: false
            })
        );
        assert_eq!(
            roll.changes(after(601, start), Some(0)),
            [Change::Silent(1)]
        );
        assert_eq!(roll.changes(after(601, start), None), [Change::Vanished(0)]);
        // A host that returns after it was removed gets a new number.
        let anew = roll.record("a", &brief(0, 1), b"", after(602, start));
        assert_eq!(
            anew,
            Some(Recorded {
                number: 2,
                new: true
            })
        );
        assert_eq!(roll.token(0), None);
    }

    #[test]
    fn the_time_of_silence_depends_on_the_hosts_interval() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        // A snapshot every 20 s. One snapshot is missing.
        for (seconds, seq) in [(0, 7), (20, 8), (60, 10)] {
            roll.record("a", &brief(seconds, seq), b"", after(seconds, start));
        }
        assert_eq!(roll.changes(after(120, start), None), []);
        assert_eq!(roll.changes(after(121, start), None), [Change::Silent(0)]);
        // After a restart the agent's numbers start again, and a clock can go back. The interval does not change.
        roll.record("a", &brief(10, 1), b"", after(130, start));
        assert_eq!(roll.changes(after(190, start), None), []);
        assert_eq!(roll.changes(after(191, start), None), [Change::Silent(0)]);
    }

    #[test]
    fn time_without_a_connection_does_not_count_as_silence() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        roll.record("a", &brief(0, 1), b"", start);
        roll.resume(after(300, start));
        assert_eq!(roll.changes(after(315, start), None), []);
        assert_eq!(roll.changes(after(316, start), None), [Change::Silent(0)]);
    }

    #[test]
    fn the_memory_and_the_number_of_hosts_are_limited() {
        let (mut roll, start) = (Roll::default(), Instant::now());
        let half = vec![b' '; MAX_STORED / 2];
        for token in ["a", "b", "c"] {
            roll.record(token, &brief(0, 1), &half, start);
        }
        assert!(roll.line(1).is_some() && roll.line(2).is_none());
        // A replaced snapshot and a removed host free memory.
        roll.record("a", &brief(1, 2), b"{}", start);
        roll.record("c", &brief(1, 2), &half[1..], start);
        assert!(roll.line(2).is_none());
        roll.record("c", &brief(1, 2), &half[2..], start);
        assert!(roll.line(2).is_some());
        roll.changes(after(601, start), None);
        roll.changes(after(602, start), None);
        assert_eq!((roll.kept, roll.hosts.len(), roll.tokens.len()), (0, 0, 0));

        for number in 0..MAX_HOSTS {
            assert!(
                roll.record(&number.to_string(), &brief(0, 1), b"", start)
                    .is_some()
            );
        }
        assert_eq!(roll.record("one more", &brief(0, 1), b"", start), None);
        assert!(roll.record("7", &brief(0, 1), b"", start).is_some());
    }
}
