//! Guessing keys: who sends wrong ones is not listened to for a while, each time for twice as long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::origin::Origin;

/// So many wrong keys within so long are one too many.
const WRONG_KEYS: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// How long an origin is closed for the first time, and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// After so long without a wrong key it is forgotten that there were any.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// The most origins that are remembered.
const MOST: usize = 4096;

/// What is remembered of wrong keys, by where they came from.
#[derive(Debug, Default)]
pub(in crate::publish) struct Throttle {
    origins: HashMap<Origin, Record>,
}

#[derive(Debug)]
struct Record {
    /// When the last wrong keys came, in a ring; `next` is where the oldest stands.
    wrong: [Option<Instant>; WRONG_KEYS],
    next: usize,
    last: Instant,
    /// How often it has been closed.
    closed: u32,
    closed_until: Option<Instant>,
}

impl Throttle {
    /// Whether connections from there are closed unheard.
    pub(in crate::publish) fn is_closed(&self, origin: Origin, now: Instant) -> bool {
        let record = self.origins.get(&origin);
        record.is_some_and(|record| record.is_closed(now))
    }

    /// Takes note of a wrong key. Yields for how long its origin is closed from now on, where it is.
    pub(in crate::publish) fn wrong_key(
        &mut self,
        origin: Origin,
        now: Instant,
    ) -> Option<Duration> {
        if !self.origins.contains_key(&origin) {
            self.make_room(now);
        }
        let record = self.origins.entry(origin).or_insert(Record {
            wrong: [None; WRONG_KEYS],
            next: 0,
            last: now,
            closed: 0,
            closed_until: None,
        });
        record.wrong_key(now)
    }

    /// Forgives an origin: somebody there has the key.
    pub(in crate::publish) fn right_key(&mut self, origin: Origin) {
        self.origins.remove(&origin);
    }

    fn make_room(&mut self, now: Instant) {
        if self.origins.len() < MOST {
            return;
        }
        self.origins.retain(|_, record| !record.is_over(now));
        if self.origins.len() < MOST {
            return;
        }
        // The one that has been quiet for longest, and is listened to: one that is closed is quiet for that.
        let quiet = |record: &Record| (record.is_closed(now), record.last);
        let oldest = self.origins.iter().min_by_key(|(_, record)| quiet(record));
        if let Some((&oldest, _)) = oldest {
            self.origins.remove(&oldest);
        }
    }
}

impl Record {
    fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last) > FORGOTTEN
    }

    fn wrong_key(&mut self, now: Instant) -> Option<Duration> {
        if self.is_over(now) {
            self.closed = 0;
        }
        self.last = now;
        // Of connections that were open already: one closing is enough for all of them.
        if self.is_closed(now) {
            return None;
        }
        self.wrong[self.next] = Some(now);
        self.next = (self.next + 1) % WRONG_KEYS;
        let oldest = self.wrong[self.next];
        let too_many = oldest.is_some_and(|oldest| now.duration_since(oldest) < WITHIN);
        // Who was closed before has no more guesses free.
        if !too_many && self.closed == 0 {
            return None;
        }
        let closed_for = SHORTEST
            .saturating_mul(1 << self.closed.min(16))
            .min(LONGEST);
        self.closed += 1;
        self.closed_until = Some(now + closed_for);
        Some(closed_for)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::{MOST, Throttle};
    use crate::publish::socket::origin::Origin;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn origin(number: u32) -> Origin {
        Origin::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn the_fifth_wrong_key_within_a_minute_closes() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        for number in 0..4 {
            assert_eq!(throttle.wrong_key(origin(1), start + seconds(number)), None);
        }
        let now = start + seconds(59);
        assert!(!throttle.is_closed(origin(1), now));
        assert_eq!(throttle.wrong_key(origin(1), now), Some(seconds(1)));
        assert!(throttle.is_closed(origin(1), now));
        assert!(!throttle.is_closed(origin(2), now));
        assert!(!throttle.is_closed(origin(1), now + seconds(1)));
    }

    #[test]
    fn wrong_keys_that_are_far_apart_close_nothing() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        for number in 0..100 {
            let now = start + seconds(number * 15);
            assert_eq!(throttle.wrong_key(origin(1), now), None);
        }
    }

    #[test]
    fn each_closing_is_twice_as_long_as_the_one_before_up_to_five_minutes() {
        let mut throttle = Throttle::default();
        let mut now = Instant::now();
        let mut closings = Vec::new();
        while closings.len() < 12 {
            if let Some(closed_for) = throttle.wrong_key(origin(1), now) {
                closings.push(closed_for.as_secs());
                // What comes meanwhile, on connections that were open, changes nothing.
                assert_eq!(throttle.wrong_key(origin(1), now), None);
                now += closed_for;
            }
        }
        assert_eq!(closings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        // After ten quiet minutes all begins anew.
        now += seconds(601);
        for _ in 0..4 {
            assert_eq!(throttle.wrong_key(origin(1), now), None);
        }
        assert_eq!(throttle.wrong_key(origin(1), now), Some(seconds(1)));
    }

    #[test]
    fn the_right_key_forgives() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..5 {
            throttle.wrong_key(origin(1), now);
        }
        throttle.right_key(origin(1));
        assert!(!throttle.is_closed(origin(1), now));
        assert_eq!(throttle.wrong_key(origin(1), now), None);
    }

    #[test]
    fn few_origins_are_remembered_those_that_guess_now() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        for number in 0..3 * MOST as u32 {
            let now = start + Duration::from_millis(u64::from(number));
            // One goes on guessing.
            throttle.wrong_key(origin(0), now);
            throttle.wrong_key(origin(number + 1), now);
            assert!(throttle.origins.len() <= MOST);
        }
        assert!(throttle.origins[&origin(0)].closed > 0);
    }
}
