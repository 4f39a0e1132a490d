//! Rate limit for log messages that peers can cause.

use std::time::{Duration, Instant};

/// Number of messages that are logged in each second. Further messages are only counted, so that many peers cannot fill the disk.
const PER_SECOND: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// The log messages of one kind in the current second.
#[derive(Debug, Default)]
pub(in crate::publish) struct LogLimit {
    /// Start of the current second. None before the first message.
    since: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Returns whether to log the next message, and a number of suppressed messages. For the first message of a second, this is
    /// the number of messages that were suppressed earlier. For every other message, it is 0.
    pub(in crate::publish) fn next(&mut self, now: Instant) -> (bool, u64) {
        let mut suppressed = 0;
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= SECOND)
        {
            suppressed = std::mem::take(self).suppressed;
            self.since = Some(now);
        }
        let is_logged = self.logged < PER_SECOND;
        if is_logged {
            self.logged += 1;
        } else {
            self.suppressed += 1;
        }
        (is_logged, suppressed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{LogLimit, PER_SECOND, SECOND};

    #[test]
    fn the_first_messages_of_each_second_are_logged_and_further_messages_are_counted() {
        let mut limit = LogLimit::default();
        let now = Instant::now();
        for _ in 0..PER_SECOND {
            assert_eq!(limit.next(now), (true, 0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.next(now), (false, 0));
        }
        assert_eq!(limit.next(now + SECOND), (true, 1000));
        assert_eq!(limit.next(now + SECOND), (true, 0));
        assert_eq!(limit.next(now + 5 * SECOND), (true, 0));
    }
}
