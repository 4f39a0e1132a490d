//! Waits for conditions with a deadline, so that tests need no fixed pauses.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The usual deadline. The deadline is long, because only a failing test waits until it passes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The pause between two checks of a condition.
const STEP: Duration = Duration::from_millis(10);

/// Polls until `condition` returns a value. Fails the test with `what` if the deadline passes.
pub(crate) fn until<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    within(deadline, condition)
        .unwrap_or_else(|| panic!("waited {deadline:?} without success for {what}"))
}

/// Waits until a server accepts connections on this Unix socket. The file of a socket exists before its server listens.
pub(crate) fn for_server(what: &str, socket: &Path) {
    until(what, DEADLINE, || UnixStream::connect(socket).ok());
}

/// Polls until `condition` returns a value. `None` if the deadline passes.
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
