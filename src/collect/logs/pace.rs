//! How much of a log the engine is asked for next.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// An engine that takes longer than this unpacks rotated files first, most likely. With a time since when it need not.
const SLOW: Duration = Duration::from_millis(100);
/// How long it is asked with a time: a clock that was set back without the agent's noticing would hide what follows.
pub(super) const ANEW: Duration = Duration::from_secs(60);
/// The agent's clock was set back where it is this much slower than time passes.
const SET_BACK: Duration = Duration::from_secs(1);

/// How much is asked for next, and since when.
pub(super) struct ReadPace {
    /// How many messages.
    pub(super) messages: usize,
    /// The second before that of the last message.
    since: Option<i32>,
    /// The engine is slow without a time.
    slow: bool,
    /// When it was last asked without a time.
    pub(super) all_asked: Instant,
    /// The time of the last answer, by both clocks.
    pub(super) answered: (Instant, SystemTime),
}

impl ReadPace {
    /// Nothing has been asked yet: the first request is for this many messages, of any time.
    pub(super) fn new(messages: usize) -> Self {
        let now = Instant::now();
        Self {
            messages,
            since: None,
            slow: false,
            all_asked: now,
            answered: (now, SystemTime::now()),
        }
    }

    /// Notes the second of the last message, in Unix time.
    pub(super) fn since_before(&mut self, second: i32) {
        self.since = Some(second.saturating_sub(1));
    }

    /// Since when the engine is to be asked: not at all where it answers fast, or where a clock may have been set back.
    pub(super) fn since(&self) -> Option<i32> {
        let (then, wall) = self.answered;
        let expected = wall + then.elapsed();
        let set_back = SystemTime::now() + SET_BACK < expected;
        let serves = self.slow && !set_back && self.all_asked.elapsed() < ANEW;
        self.since.filter(|_| serves)
    }

    /// Notes when the last answer came, and how long it took.
    pub(super) fn note(&mut self, began: Instant, since: Option<i32>) {
        if since.is_none() {
            self.slow = began.elapsed() > SLOW;
            self.all_asked = Instant::now();
        }
        self.answered = (Instant::now(), SystemTime::now());
    }
}
