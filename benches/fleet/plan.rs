//! The plan of a run, from environment variables. `main.rs` lists the variables.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::common::engine;
use crate::common::variables::{number, numbers, text};

/// Number of files that a server opens in addition to the connections of its hosts.
const FILES_BESIDE_HOSTS: u64 = 200;

pub(crate) struct Plan {
    /// The agent's binary.
    pub(crate) agent: PathBuf,
    pub(crate) hosts: usize,
    pub(crate) interval: Duration,
    pub(crate) window: Duration,
    /// The number of containers in snapshots. 0 without an engine.
    pub(crate) containers: usize,
    pub(crate) steps: Vec<usize>,
    pub(crate) step_window: Duration,
    until: Instant,
    /// A directory for temporary files.
    pub(crate) directory: TempDir,
}

impl Plan {
    pub(crate) fn from_env() -> Self {
        let count = |name, default| usize::try_from(number(name, default)).unwrap();
        let seconds = |name, default| Duration::from_secs(number(name, default).max(1));
        let max = max_hosts();
        let steps = match text("BENCH_STEPS", "1000,2000,5000,10000").as_str() {
            "" => Vec::new(),
            steps => numbers("BENCH_STEPS", steps),
        };
        Self {
            agent: PathBuf::from(text("BENCH_AGENT", "target/release/system-agent")),
            hosts: count("BENCH_HOSTS", "500").min(max),
            interval: seconds("BENCH_INTERVAL", "5"),
            window: seconds("BENCH_SECONDS", "20"),
            containers: match engine::answers() {
                true => count("BENCH_CONTAINERS", "10"),
                false => 0,
            },
            steps: steps.into_iter().filter(|step| *step <= max).collect(),
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

/// Raises the limit on open files, also for child processes. Returns the maximum number of hosts. Each host needs one open file
/// for its connection.
fn max_hosts() -> usize {
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
            "{} hosts, a snapshot every {interval} s, windows of {} s; then {:?} hosts, windows of {} s; the hosts' own CPU is \
             the CPU of one process that simulates all hosts, with a connection for each, and compresses for them",
            self.hosts,
            self.window.as_secs(),
            self.steps,
            self.step_window.as_secs()
        )
    }
}
