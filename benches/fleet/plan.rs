//! What is to be measured, from the environment; `main.rs` lists the variables.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::common::engine;
use crate::common::variables::{number, numbers, text};

/// Open files of a server beside its hosts' connections.
const FILES_BESIDE_HOSTS: u64 = 200;

pub(crate) struct Plan {
    /// The agent's binary.
    pub(crate) agent: PathBuf,
    pub(crate) hosts: usize,
    pub(crate) interval: Duration,
    pub(crate) window: Duration,
    /// How many containers snapshots show; none without an engine.
    pub(crate) containers: usize,
    pub(crate) steps: Vec<usize>,
    pub(crate) step_window: Duration,
    until: Instant,
    /// For files that are needed meanwhile.
    pub(crate) directory: TempDir,
}

impl Plan {
    pub(crate) fn from_env() -> Self {
        let count = |name, default| usize::try_from(number(name, default)).unwrap();
        let seconds = |name, default| Duration::from_secs(number(name, default).max(1));
        let most = most_hosts();
        let steps = match text("BENCH_STEPS", "1000,2000,5000,10000").as_str() {
            "" => Vec::new(),
            steps => numbers("BENCH_STEPS", steps),
        };
        Self {
            agent: PathBuf::from(text("BENCH_AGENT", "target/release/system-agent")),
            hosts: count("BENCH_HOSTS", "500").min(most),
            interval: seconds("BENCH_INTERVAL", "5"),
            window: seconds("BENCH_SECONDS", "20"),
            containers: match engine::answers() {
                true => count("BENCH_CONTAINERS", "10"),
                false => 0,
            },
            steps: steps.into_iter().filter(|step| *step <= most).collect(),
            step_window: seconds("BENCH_STEP_SECONDS", "10"),
            until: Instant::now()
                + 60 * Duration::from_secs(number("BENCH_MINUTES", "8"))
                    .min(Duration::from_secs(3600)),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Whether there is time for another step.
    pub(crate) fn has_time(&self) -> bool {
        Instant::now() < self.until
    }
}

/// As many as a process may have connections of; the processes that are started may have as many.
fn most_hosts() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let files = limit.maximum.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(FILES_BESIDE_HOSTS)).unwrap_or(usize::MAX)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = self.interval.as_secs();
        write!(
            f,
            "{} hosts, a snapshot every {interval} s, windows of {} s; up to {:?} hosts, windows of {} s; the hosts' own CPU is \
             that of one process that simulates them all, each with a connection, and compresses for them",
            self.hosts,
            self.window.as_secs(),
            self.steps,
            self.step_window.as_secs()
        )
    }
}
