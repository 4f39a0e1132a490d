//! The containers that the agent measures.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::engine::{docker, remove_containers, start_containers};
use crate::load::{Load, engine_processes};

/// Minimum age of a container that is measured. The status of a container younger than a minute shows seconds, so the agent
/// requests the container list every second.
const YOUNG: Duration = Duration::from_secs(70);
/// Length of a window. The engine counts as idle when it uses about the same CPU time in two successive windows.
const WINDOW: Duration = Duration::from_secs(5);
const MAX_WINDOWS: usize = 12;

/// Containers that each log a line at regular times. Removed on drop.
pub(crate) struct Containers {
    count: usize,
    started: Instant,
}

impl Containers {
    /// Starts containers that each log a line every `log_seconds` seconds.
    pub(crate) fn start(count: usize, log_seconds: u64) -> Self {
        eprintln!("{count} containers: starting them");
        // The value exists before the first start, so that its drop removes the containers also when a start fails.
        let mut containers = Self {
            count,
            started: Instant::now(),
        };
        let script = format!("while :; do echo a line of the benchmark; sleep {log_seconds}; done");
        start_containers(count, &[], &script);
        containers.started = Instant::now();
        containers
    }

    /// Waits until the engine is idle again after the starts.
    pub(crate) fn settle(&self) {
        eprintln!(
            "{} containers: waiting until the engine is idle",
            self.count
        );
        if self.count > 0 {
            thread::sleep(YOUNG.saturating_sub(self.started.elapsed()));
        }
        let mut before = f64::INFINITY;
        for _ in 0..MAX_WINDOWS {
            let now = Load::over(WINDOW, engine_processes).per_minute(WINDOW);
            if (before - now).abs() <= 0.1 * now + 0.2 {
                return;
            }
            before = now;
        }
        eprintln!("the engine did not become idle");
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if self.count > 0 {
            remove_containers();
        }
    }
}

/// Whether a container was started after the time `since`. The benchmark's own containers were started earlier, so another
/// program started that container.
pub(crate) fn started_since(since: u64) -> bool {
    let (since, until) = (since.to_string(), unix_seconds().to_string());
    let window = ["events", "--since", &since, "--until", &until];
    let only = ["--filter", "event=start", "--format", "{{.ID}}"];
    !docker(&[&window[..], &only].concat()).is_empty()
}

pub(crate) fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is before 1970").as_secs()
}
