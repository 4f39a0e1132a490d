//! The plan of a run, from environment variables. `main.rs` lists the variables.

use std::fmt;
use std::path::{self, PathBuf};
use std::time::Duration;

use crate::common::variables::{number, numbers, text};

/// Approximate time to start and remove a container, in seconds.
const SECONDS_PER_CONTAINER: f64 = 0.6;
/// Approximate time for each number of containers in addition to its windows, in seconds. In this time the benchmark waits for
/// the idle engine, measures the starts, and runs the floor.
const SECONDS_PER_COUNT: f64 = 120.0;
/// Approximate time for a row in addition to its windows, in seconds.
const SECONDS_PER_ROW: f64 = 10.0;

/// Approximate time of the part `scrapes` in addition to its windows, in seconds. Most of it are the timed scrapes.
const SECONDS_OF_SCRAPES: f64 = 300.0;
/// Windows of the part `scrapes` that measure the engine.
const ENGINE_WINDOWS: f64 = 5.0;
/// Approximate time of the part `figures`, in seconds.
const SECONDS_OF_FIGURES: f64 = 120.0;

/// Approximate time to count and measure the calls to the engine, in seconds.
const SECONDS_OF_CALLS: f64 = 200.0;

/// The parts of a run.
const PARTS: [&str; 3] = ["costs", "scrapes", "figures"];

pub(crate) struct Plan {
    parts: Vec<String>,
    /// The programs of the parts `scrapes` and `figures`, and of the rows of other agents.
    pub(crate) node_exporter: PathBuf,
    pub(crate) cadvisor: PathBuf,
    pub(crate) telegraf: PathBuf,
    pub(crate) dozzle: PathBuf,
    /// Beszel's agent, if it is compared.
    pub(crate) beszel: Option<PathBuf>,
    /// The agent's binary.
    pub(crate) agent: PathBuf,
    pub(crate) window: Duration,
    pub(crate) windows: usize,
    pub(crate) containers: Vec<usize>,
    /// The time between two log lines of a container, in seconds.
    pub(crate) log_seconds: u64,
    /// The numbers of containers at which the benchmark measures more than the agent.
    more_at: Vec<usize>,
    /// The wanted rows by name. `None` means all rows.
    rows: Option<Vec<String>>,
    pub(crate) peers: bool,
    peers_known: usize,
    ways: Vec<&'static str>,
    pub(crate) soak: Duration,
    pub(crate) strict: bool,
}

impl Plan {
    /// Reads the plan from the environment. `ways` are the names of all ways to read containers. `peers_known` is the number of
    /// other agents.
    pub(crate) fn from_env(ways: Vec<&'static str>, peers_known: usize) -> Self {
        let containers = numbers("BENCH_CONTAINERS", "0,10,50,100,300");
        let more_at = match text("BENCH_WAYS_AT", "100").as_str() {
            "all" => containers.clone(),
            _ => numbers("BENCH_WAYS_AT", "100"),
        };
        let rows: Option<Vec<String>> = match text("BENCH_WAYS", "all").as_str() {
            "all" => None,
            some => Some(some.split(',').map(|name| name.trim().to_owned()).collect()),
        };
        for name in rows.iter().flatten() {
            let known = matches!(
                name.as_str(),
                "agent" | "installed" | "engine-calls" | "beside"
            ) || ways.iter().any(|way| way == name);
            assert!(known, "BENCH_WAYS: unknown name {name}");
        }
        let parts = text("BENCH_PARTS", &PARTS.join(","));
        let parts: Vec<String> = parts
            .split(',')
            .map(|part| part.trim().to_owned())
            .collect();
        for part in &parts {
            let known = PARTS.contains(&part.as_str());
            assert!(known, "BENCH_PARTS: unknown name {part}");
        }
        let windows = number("BENCH_WINDOWS", "3");
        assert!(windows > 0, "BENCH_WINDOWS must be at least 1");
        Self {
            parts,
            node_exporter: program("BENCH_NODE_EXPORTER", "prometheus-node-exporter"),
            cadvisor: program("BENCH_CADVISOR", "cadvisor"),
            telegraf: program("BENCH_TELEGRAF", "telegraf"),
            dozzle: program("BENCH_DOZZLE", "dozzle"),
            beszel: Some(text("BENCH_BESZEL", ""))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            agent: PathBuf::from(text("BENCH_AGENT", "target/release/system-agent")),
            window: Duration::from_secs(number("BENCH_SECONDS", "60").max(1)),
            windows: usize::try_from(windows).unwrap(),
            more_at: more_at
                .into_iter()
                .filter(|count| containers.contains(count))
                .collect(),
            containers,
            log_seconds: number("BENCH_LOG_SECONDS", "1").max(1),
            rows,
            peers: number("BENCH_PEERS", "1") > 0,
            peers_known,
            ways,
            soak: Duration::from_secs(number("BENCH_SOAK", "0")),
            strict: number("BENCH_STRICT", "0") > 0,
        }
    }

    /// Whether a part of the run is wanted.
    pub(crate) fn has_part(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part == name)
    }

    /// Whether a row is wanted.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.rows
            .as_ref()
            .is_none_or(|rows| rows.iter().any(|row| row == name))
    }

    /// Whether the benchmark measures more than the agent at any number of containers.
    pub(crate) fn more_than_agent(&self) -> bool {
        !self.more_at.is_empty()
    }

    pub(crate) fn measures_more_at(&self, count: usize) -> bool {
        self.more_at.contains(&count)
    }

    /// Whether a row is measured that shows the CPU time of the engine.
    pub(crate) fn measures_engine_at(&self, count: usize) -> bool {
        self.has("agent") || self.has("installed") || self.measures_more_at(count)
    }

    /// Whether the soak runs at this number of containers. It runs at 100, because the bar is for 100 containers. If 100 is not
    /// planned, it runs at the highest number.
    pub(crate) fn soaks_at(&self, count: usize) -> bool {
        let at = self
            .more_at
            .iter()
            .find(|&&at| at == 100)
            .or(self.more_at.iter().max());
        !self.soak.is_zero() && at == Some(&count)
    }

    /// Number of windows in which the idle engine is measured before a row, and again after the row. Both together are at least
    /// the number of windows of a row.
    pub(crate) fn idle_windows(&self) -> usize {
        self.windows.div_ceil(2)
    }

    /// The approximate time of the run, in minutes.
    fn minutes(&self) -> f64 {
        let window = self.window.as_secs_f64();
        let row = window * self.windows as f64 + SECONDS_PER_ROW;
        let idle = window * self.idle_windows() as f64;
        let peers = if self.peers { self.peers_known } else { 0 };
        let others = self.ways.iter().filter(|way| self.has(way)).count() + peers;
        let at = |&count: &usize| {
            let mut seconds = count as f64 * SECONDS_PER_CONTAINER + SECONDS_PER_COUNT;
            if self.has_part("scrapes") && self.measures_more_at(count) {
                seconds += SECONDS_OF_SCRAPES + window * (self.windows as f64 + ENGINE_WINDOWS);
            }
            if !self.has_part("costs") {
                return seconds;
            }
            if self.measures_engine_at(count) {
                seconds += idle * 2.0 + row;
            }
            if self.has("beside") {
                seconds += row + SECONDS_PER_ROW;
            }
            if self.has("installed") {
                seconds += row * if count > 0 { 3.0 } else { 1.0 };
            }
            if count > 0 && self.has("engine-calls") {
                seconds += SECONDS_OF_CALLS.max(window * self.windows as f64);
            }
            if self.measures_more_at(count) {
                let soak = if self.soaks_at(count) {
                    self.soak.as_secs_f64()
                } else {
                    0.0
                };
                // The calls without logs, the calls with logs, the 100 ms intervals and the view take one window each.
                seconds +=
                    (row * others as f64).max(soak) + idle + 4.0 * (window + SECONDS_PER_ROW);
            }
            seconds
        };
        let figures = if self.has_part("figures") {
            SECONDS_OF_FIGURES
        } else {
            0.0
        };
        (self.containers.iter().map(at).sum::<f64>() + figures) / 60.0
    }
}

/// A program: a name that is searched in PATH, or a path. A path becomes absolute, because other agents start in a directory of
/// their own.
fn program(variable: &str, default: &str) -> PathBuf {
    let program = text(variable, default);
    if program.contains('/') {
        path::absolute(program).expect("cannot find the current directory")
    } else {
        PathBuf::from(program)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "parts {:?}; windows of {} s, {} per row; {:?} containers; other ways{} at {:?} containers{}; about {:.0} minutes",
            self.parts,
            self.window.as_secs(),
            self.windows,
            self.containers,
            if self.peers { " and other agents" } else { "" },
            self.more_at,
            match self.soak.as_secs() {
                0 => String::new(),
                seconds => format!("; one agent runs for {seconds} s at the same time"),
            },
            self.minutes()
        )
    }
}
