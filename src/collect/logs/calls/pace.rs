//! Decides how many messages the next call requests, and from which start time. `called_log.rs` makes the calls.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Time after which an answer counts as slow. A slow engine probably unpacks rotated files first. A start time in the request
/// avoids this work.
const SLOW: Duration = Duration::from_millis(100);
/// Time after which a request has no start time. If a clock was set back and the agent did not notice, a start time would hide
/// new messages.
pub(super) const FULL_READ_INTERVAL: Duration = Duration::from_secs(60);
/// If the wall clock is this much behind the monotonic clock, it counts as set back.
const SET_BACK: Duration = Duration::from_secs(1);

/// The size and the start time of the next request.
pub(super) struct ReadPace {
    /// Number of messages to request.
    pub(super) messages: usize,
    /// The start time for slow engines: one second before the newest message, in Unix seconds.
    since: Option<i32>,
    /// Whether the engine is slow when a request has no start time.
    slow: bool,
    /// The time of the newest answer to a request without a start time.
    pub(super) full_read_at: Instant,
    /// The time of the previous answer, on the monotonic clock and on the wall clock.
    pub(super) answered: (Instant, SystemTime),
}

impl ReadPace {
    /// Prepares the first request. It is for `messages` messages and has no start time.
    pub(super) fn new(messages: usize) -> Self {
        let now = Instant::now();
        Self {
            messages,
            since: None,
            slow: false,
            full_read_at: now,
            answered: (now, SystemTime::now()),
        }
    }

    /// Records the time of the newest message, in Unix seconds.
    pub(super) fn since_before(&mut self, second: i32) {
        self.since = Some(second.saturating_sub(1));
    }

    /// Returns the start time of the next request, in Unix seconds. None if the engine answers fast, if the wall clock was set
    /// back, or after [`FULL_READ_INTERVAL`].
    pub(super) fn since(&self) -> Option<i32> {
        let (then, wall) = self.answered;
        let expected = wall + then.elapsed();
        let set_back = SystemTime::now() + SET_BACK < expected;
        let serves = self.slow && !set_back && self.full_read_at.elapsed() < FULL_READ_INTERVAL;
        self.since.filter(|_| serves)
    }

    /// Records the time of an answer. `began` is the time when the request began. `since` is the start time in the request.
    pub(super) fn note(&mut self, began: Instant, since: Option<i32>) {
        if since.is_none() {
            self.slow = began.elapsed() > SLOW;
            self.full_read_at = Instant::now();
        }
        self.answered = (Instant::now(), SystemTime::now());
    }
}
