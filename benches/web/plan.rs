//! The plan of a run, from environment variables. `main.rs` lists the variables.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::variables::{number, text};

pub(crate) struct Plan {
    /// The release binary.
    pub(crate) binary: PathBuf,
    pub(crate) agents: usize,
    /// The number of agents in the second part.
    pub(crate) few: usize,
    /// The number of containers in a snapshot.
    pub(crate) containers: usize,
    pub(crate) interval: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) queries: usize,
    /// The ranges of the queries, with their names.
    pub(crate) ranges: Vec<(String, Duration)>,
    pub(crate) strict: bool,
    /// A directory for temporary files.
    pub(crate) directory: TempDir,
}

impl Plan {
    pub(crate) fn from_env() -> Self {
        let count = |name, default| usize::try_from(number(name, default)).unwrap();
        let seconds = |name, default| Duration::from_secs(number(name, default).max(1));
        let range = |range: &str| {
            let length = humantime::parse_duration(range.trim());
            let length = length.expect("BENCH_RANGES must be a list of durations, such as 1h,30d");
            (range.trim().to_owned(), length)
        };
        Self {
            binary: PathBuf::from(text("BENCH_AGENT", "target/release/system-agent")),
            agents: count("BENCH_AGENTS", "100").max(1),
            few: count("BENCH_FEW_AGENTS", "10").max(1),
            containers: count("BENCH_CONTAINERS", "20").max(1),
            interval: seconds("BENCH_INTERVAL", "5"),
            warm_up: seconds("BENCH_WARM_UP", "30"),
            window: seconds("BENCH_SECONDS", "60"),
            queries: count("BENCH_QUERIES", "50").max(1),
            ranges: text("BENCH_RANGES", "1h,30d,1y")
                .split(',')
                .map(range)
                .collect(),
            strict: number("BENCH_STRICT", "0") > 0,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// The warm-up of the part with few agents. That part has no figures that depend on the length of the history.
    pub(crate) fn short_warm_up(&self) -> Duration {
        self.warm_up.min(self.window)
    }

    /// The approximate time of the run, in seconds: two warm-ups, and a window for each of the four rows.
    fn seconds(&self) -> u64 {
        (self.warm_up + self.short_warm_up() + 4 * self.window).as_secs() + 180
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} agents, then {}, a snapshot every {} s with {} containers; a warm-up of {} s, windows of {} s; about {} s",
            self.agents,
            self.few,
            self.interval.as_secs(),
            self.containers,
            self.warm_up.as_secs(),
            self.window.as_secs(),
            self.seconds()
        )
    }
}
