//! Reads a figure of the kernel repeatedly during a test. A value that the agent publishes must be near one of the readings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// A thread that reads a figure every 20 ms.
pub(crate) struct Watch<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(SystemTime, T)>>,
}

impl<T: Send + 'static> Watch<T> {
    /// Takes a first reading and starts the thread.
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

    /// Takes a final reading and ends the thread. Returns all readings, oldest first.
    pub(crate) fn finish(self) -> Vec<(SystemTime, T)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a reading failed")
    }
}
