//! The containers that are watched.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::engine::{docker, remove_containers, start_containers};
use crate::load::{Load, engine_processes};

/// Until then the engine words the age of the youngest container anew each second, and the agent asks each second.
const YOUNG: Duration = Duration::from_secs(70);
/// The engine is idle when two glances in a row show about the same.
const GLANCE: Duration = Duration::from_secs(5);
const MOST_GLANCES: usize = 12;

/// Containers that log a line a second. Removed on drop.
pub(crate) struct Containers {
    count: usize,
    started: Instant,
}

impl Containers {
    pub(crate) fn start(count: usize) -> Self {
        eprintln!("{count} containers: starting them");
        // Before the first of them, so that they are removed should one not start.
        let mut containers = Self {
            count,
            started: Instant::now(),
        };
        let script = "while :; do echo a line of the benchmark; sleep 1; done";
        start_containers(count, &[], script);
        containers.started = Instant::now();
        containers
    }

    /// Waits until the engine has got over their start.
    pub(crate) fn settle(&self) {
        eprintln!(
            "{} containers: waiting for the engine to settle",
            self.count
        );
        if self.count > 0 {
            thread::sleep(YOUNG.saturating_sub(self.started.elapsed()));
        }
        let mut before = f64::INFINITY;
        for _ in 0..MOST_GLANCES {
            let now = Load::over(GLANCE, engine_processes).per_minute(GLANCE);
            if (before - now).abs() <= 0.1 * now + 0.2 {
                return;
            }
            before = now;
        }
        eprintln!("the engine has not settled");
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if self.count > 0 {
            remove_containers();
        }
    }
}

/// Whether any container was started since then: not by this benchmark, which starts its own before it measures.
pub(crate) fn started_since(since: u64) -> bool {
    let (since, until) = (since.to_string(), unix_seconds().to_string());
    let window = ["events", "--since", &since, "--until", &until];
    let only = ["--filter", "event=start", "--format", "{{.ID}}"];
    !docker(&[&window[..], &only].concat()).is_empty()
}

pub(crate) fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_secs()
}
