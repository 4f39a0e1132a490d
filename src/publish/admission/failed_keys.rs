//! Rate limit for wrong keys. If an address prefix sends too many wrong keys, the agent blocks the prefix: it refuses connections
//! from the prefix for some time. Each further block is twice as long as the previous block, up to a limit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::address_prefix::AddressPrefix;

/// Number of wrong keys within [`WINDOW`] after which an address prefix is blocked.
const MAX_FAILURES: usize = 5;
/// Time within which [`MAX_FAILURES`] wrong keys block an address prefix.
const WINDOW: Duration = Duration::from_secs(60);
/// Length of the first block.
const MIN_BLOCK: Duration = Duration::from_secs(1);
/// Limit on the length of a block.
const MAX_BLOCK: Duration = Duration::from_secs(300);
/// After this time without a wrong key, the earlier wrong keys and blocks of a prefix no longer count.
const EXPIRY: Duration = Duration::from_secs(600);
/// Limit on the number of prefixes in the table.
const MAX_PREFIXES: usize = 4096;

/// The wrong keys of each address prefix.
#[derive(Debug, Default)]
pub(in crate::publish) struct FailedKeys {
    prefixes: HashMap<AddressPrefix, Failures>,
}

#[derive(Debug)]
struct Failures {
    /// Times of the newest wrong keys, oldest first. Wrong keys during a block are not included.
    recent: [Option<Instant>; MAX_FAILURES],
    /// Time of the newest wrong key. Wrong keys during a block are included.
    last: Instant,
    /// Number of blocks so far.
    blocks: u32,
    blocked_until: Instant,
}

impl FailedKeys {
    /// Whether connections from this prefix are refused.
    pub(in crate::publish) fn is_blocked(&self, prefix: AddressPrefix, now: Instant) -> bool {
        let failures = self.prefixes.get(&prefix);
        failures.is_some_and(|failures| failures.is_blocked(now))
    }

    /// Counts a wrong key. Returns the length of the block if this key causes a block.
    pub(in crate::publish) fn record(
        &mut self,
        prefix: AddressPrefix,
        now: Instant,
    ) -> Option<Duration> {
        if !self.prefixes.contains_key(&prefix) {
            self.make_room(now);
        }
        let failures = self.prefixes.entry(prefix).or_insert(Failures {
            recent: [None; MAX_FAILURES],
            last: now,
            blocks: 0,
            blocked_until: now,
        });
        failures.record(now)
    }

    /// Clears the wrong keys of a prefix after the prefix has sent a right key.
    pub(in crate::publish) fn clear(&mut self, prefix: AddressPrefix) {
        self.prefixes.remove(&prefix);
    }

    fn make_room(&mut self, now: Instant) {
        if self.prefixes.len() < MAX_PREFIXES {
            return;
        }
        self.prefixes
            .retain(|_, failures| !failures.is_expired(now));
        if self.prefixes.len() < MAX_PREFIXES {
            return;
        }
        // A blocked prefix cannot send keys, so its newest wrong key can be old. Therefore, prefixes that are not blocked are
        // removed first.
        let age = |failures: &Failures| (failures.is_blocked(now), failures.last);
        let oldest = self
            .prefixes
            .iter()
            .min_by_key(|(_, failures)| age(failures));
        if let Some((&oldest, _)) = oldest {
            self.prefixes.remove(&oldest);
        }
    }
}

impl Failures {
    fn is_blocked(&self, now: Instant) -> bool {
        now < self.blocked_until
    }

    fn is_expired(&self, now: Instant) -> bool {
        now.duration_since(self.last) > EXPIRY
    }

    fn record(&mut self, now: Instant) -> Option<Duration> {
        if self.is_expired(now) {
            self.blocks = 0;
        }
        self.last = now;
        // A connection that is older than the block can still send a wrong key. That key does not prolong the block.
        if self.is_blocked(now) {
            return None;
        }
        self.recent.rotate_left(1);
        self.recent[MAX_FAILURES - 1] = Some(now);
        let too_many = self.recent[0].is_some_and(|oldest| now.duration_since(oldest) < WINDOW);
        // After the first block, every wrong key causes another block.
        if !too_many && self.blocks == 0 {
            return None;
        }
        let block = MIN_BLOCK
            .saturating_mul(1 << self.blocks.min(16))
            .min(MAX_BLOCK);
        self.blocks += 1;
        self.blocked_until = now + block;
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::{FailedKeys, MAX_PREFIXES};
    use crate::publish::admission::address_prefix::AddressPrefix;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn prefix(number: u32) -> AddressPrefix {
        AddressPrefix::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn the_fifth_wrong_key_within_a_minute_blocks_the_prefix() {
        let mut keys = FailedKeys::default();
        let start = Instant::now();
        for number in 0..4 {
            assert_eq!(keys.record(prefix(1), start + seconds(number)), None);
        }
        let now = start + seconds(59);
        assert!(!keys.is_blocked(prefix(1), now));
        assert_eq!(keys.record(prefix(1), now), Some(seconds(1)));
        assert!(keys.is_blocked(prefix(1), now));
        assert!(!keys.is_blocked(prefix(2), now));
        assert!(!keys.is_blocked(prefix(1), now + seconds(1)));
    }

    #[test]
    fn wrong_keys_that_are_far_apart_do_not_block_the_prefix() {
        let mut keys = FailedKeys::default();
        let start = Instant::now();
        for number in 0..100 {
            let now = start + seconds(number * 15);
            assert_eq!(keys.record(prefix(1), now), None);
        }
    }

    #[test]
    fn each_block_is_twice_as_long_as_the_previous_block_up_to_five_minutes() {
        let mut keys = FailedKeys::default();
        let mut now = Instant::now();
        let mut blocks = Vec::new();
        while blocks.len() < 12 {
            if let Some(block) = keys.record(prefix(1), now) {
                blocks.push(block.as_secs());
                // A wrong key during a block changes nothing.
                assert_eq!(keys.record(prefix(1), now), None);
                now += block;
            }
        }
        assert_eq!(blocks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        // After ten minutes without wrong keys, the earlier wrong keys and blocks no longer count.
        now += seconds(601);
        for _ in 0..4 {
            assert_eq!(keys.record(prefix(1), now), None);
        }
        assert_eq!(keys.record(prefix(1), now), Some(seconds(1)));
    }

    #[test]
    fn a_right_key_clears_the_wrong_keys_of_its_prefix() {
        let mut keys = FailedKeys::default();
        let now = Instant::now();
        for _ in 0..5 {
            keys.record(prefix(1), now);
        }
        keys.clear(prefix(1));
        assert!(!keys.is_blocked(prefix(1), now));
        assert_eq!(keys.record(prefix(1), now), None);
    }

    #[test]
    fn the_table_is_limited_and_a_prefix_that_still_sends_wrong_keys_stays_in_it() {
        let mut keys = FailedKeys::default();
        let start = Instant::now();
        for number in 0..3 * MAX_PREFIXES as u32 {
            let now = start + Duration::from_millis(u64::from(number));
            // Prefix 0 sends wrong keys all the time.
            keys.record(prefix(0), now);
            keys.record(prefix(number + 1), now);
            assert!(keys.prefixes.len() <= MAX_PREFIXES);
        }
        assert!(keys.prefixes[&prefix(0)].blocks > 0);
    }
}
