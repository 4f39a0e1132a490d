//! The containers that are watched, and the engine's own client.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::load::{Load, engine_processes};

const IMAGE: &str = "system-agent-test";
/// The label by which the tests, too, know what a killed run has left behind.
const LABEL: &str = "system-agent-test";
/// The engine starts one in a third of a second.
const STARTS_AT_ONCE: usize = 4;
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

/// The label of this run's containers.
pub(crate) fn label() -> String {
    format!("{LABEL}={}", std::process::id())
}

impl Containers {
    pub(crate) fn start(count: usize) -> Self {
        eprintln!("{count} containers: starting them");
        let label = label();
        let script = "while :; do echo a line of the benchmark; sleep 1; done";
        let run = [
            "run", "--detach", "--label", &label, IMAGE, "sh", "-c", script,
        ];
        let left = Mutex::new(count);
        let take_one = || {
            let mut left = left.lock().unwrap();
            *left = left.checked_sub(1)?;
            Some(())
        };
        // Before the first of them, so that they are removed should one not start.
        let mut containers = Self {
            count,
            started: Instant::now(),
        };
        thread::scope(|scope| {
            for _ in 0..STARTS_AT_ONCE {
                scope.spawn(|| std::iter::from_fn(take_one).for_each(|()| drop(docker(&run))));
            }
        });
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
            remove_all();
        }
    }
}

/// Removes this run's containers, whichever of them there are.
pub(crate) fn remove_all() {
    let filter = format!("label={}", label());
    let ids = docker(&["ps", "--all", "--quiet", "--filter", &filter]);
    let ids: Vec<&str> = ids.lines().collect();
    if !ids.is_empty() {
        docker(&[&["rm", "--force"], &ids[..]].concat());
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

/// Runs Docker's client with the machine's own engine, and yields what it printed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .env_remove("DOCKER_CONTEXT")
        .env("DOCKER_HOST", "unix:///var/run/docker.sock")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("Docker's client starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
