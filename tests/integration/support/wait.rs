//! Waiting for conditions. No test sleeps for a time and hopes.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should happen at once: generous, because it is spent only on failures.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Polls until `condition` yields a value; fails the test, naming `what`, once `deadline` has passed.
pub(crate) fn until<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    within(deadline, condition).unwrap_or_else(|| panic!("waited {deadline:?} in vain for {what}"))
}

/// Polls until `condition` yields a value; `None` once `deadline` has passed.
pub(crate) fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(STEP);
    }
}
