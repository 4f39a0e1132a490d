//! A thread that collects the lines of a child process while the test continues.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// A growing list of lines. Clones share the same list.
#[derive(Clone)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    closed: bool,
}

impl Lines {
    /// Collects lines from `source` until its end. Replaces bytes that are not UTF-8.
    pub(crate) fn collect(source: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let lines = Self {
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                line.clear();
                shared.state.lock().unwrap().lines.push(text);
                shared.changed.notify_all();
            }
            shared.state.lock().unwrap().closed = true;
            shared.changed.notify_all();
        });
        lines
    }

    /// All lines so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Waits for the first line for which `pick` returns a value, and returns that value. Ignores lines before number `from`.
    /// Returns `None` if the deadline passes or the source ends without such a line.
    pub(crate) fn find<T>(
        &self,
        from: usize,
        deadline: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + deadline;
        let mut next = from;
        let mut state = self.lock();
        loop {
            while next < state.lines.len() {
                if let Some(value) = pick(&state.lines[next]) {
                    return Some(value);
                }
                next += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for the end of the source. Returns false if the deadline passes first.
    pub(crate) fn ended(&self, deadline: Duration) -> bool {
        let state = self.lock();
        let open = |state: &mut State| !state.closed;
        let (_state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, deadline, open)
            .unwrap();
        !timeout.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}
