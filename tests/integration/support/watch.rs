//! A figure watched all the while a test runs: what the agent read at some moment in between must be in there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// A thread that reads a figure every few milliseconds.
pub(crate) struct Watch<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(SystemTime, T)>>,
}

impl<T: Send + 'static> Watch<T> {
    /// Starts with a first reading.
    pub(crate) fn start(read: impl Fn() -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut readings = vec![(SystemTime::now(), read())];
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
                readings.push((SystemTime::now(), read()));
            }
            readings
        });
        Self { stop, thread }
    }

    /// Ends with a last reading; all of them, oldest first.
    pub(crate) fn finish(self) -> Vec<(SystemTime, T)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the readings succeed")
    }
}
