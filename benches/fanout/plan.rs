//! The plan of a run, from environment variables. `main.rs` lists the variables.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::engine;
use crate::common::limits::{backlog, raise_file_limit};
use crate::common::variables::{number, numbers, text};
use crate::identity::Identity;
use crate::way::Way;

pub(crate) const PARTS: [&str; 6] = ["rows", "herd", "sleepers", "steady", "bytes", "logs"];
/// Maximum numbers of clients with TLS and with large snapshots.
const MAX_TLS: usize = 2000;
const MAX_LARGE: usize = 1000;
/// Approximate time for a row in addition to its window, in seconds: two servers and their clients.
const SECONDS_PER_ROW: f64 = 6.0;
/// Approximate time to start and remove the containers and to wait until they are no longer young, in seconds.
const SECONDS_OF_CONTAINERS: f64 = 120.0;
/// Number of files that a server opens in addition to the connections of its clients.
const FILES_BESIDE_CLIENTS: u64 = 1700;
/// Minimum number of snapshots in a window.
const MIN_SNAPSHOTS: u32 = 8;
/// Limit on the bytes of one snapshot for all clients at an interval of one second. Any machine can send this number of bytes
/// within half a second.
const BYTES_PER_SECOND: usize = 100_000_000;

pub(crate) struct Plan {
    /// The agent's binary.
    pub(crate) agent: PathBuf,
    parts: Vec<String>,
    clients: Vec<usize>,
    window: Duration,
    /// The interval of the parts other than `rows`, and of rows for which one second is too short.
    pub(crate) interval: Duration,
    pub(crate) steady: Duration,
    pub(crate) asleep: Duration,
    pub(crate) logs: Duration,
    /// The number of containers in large snapshots.
    pub(crate) containers: usize,
    /// Whether an engine answers. Large snapshots and logs need it.
    pub(crate) engine: bool,
    pub(crate) strict: bool,
    pub(crate) identity: Identity,
    /// A directory for temporary files.
    pub(crate) directory: TempDir,
}

impl Plan {
    pub(crate) fn from_env() -> Self {
        let parts = match text("BENCH_PARTS", "all").as_str() {
            "all" => PARTS.map(str::to_owned).to_vec(),
            some => some.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        for part in &parts {
            assert!(
                PARTS.contains(&part.as_str()),
                "BENCH_PARTS: unknown part {part}"
            );
        }
        let minutes = |name, default| {
            Duration::from_secs_f64(60.0 * text(name, default).parse::<f64>().expect(name))
        };
        let directory = tempfile::tempdir().unwrap();
        Self {
            agent: PathBuf::from(text("BENCH_AGENT", "target/release/system-agent")),
            parts,
            clients: clients_within(raise_file_limit()),
            window: Duration::from_secs(number("BENCH_SECONDS", "20")),
            interval: Duration::from_secs(number("BENCH_INTERVAL", "5").max(1)),
            steady: minutes("BENCH_MINUTES", "5"),
            asleep: Duration::from_secs(number("BENCH_ASLEEP", "60")),
            logs: minutes("BENCH_LOGS_MINUTES", "10"),
            containers: usize::try_from(number("BENCH_CONTAINERS", "50")).unwrap(),
            engine: number("BENCH_ENGINE", "1") > 0 && engine::answers(),
            strict: number("BENCH_STRICT", "0") > 0,
            identity: Identity::make(directory.path()),
            directory,
        }
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        let needs_engine = ["bytes", "logs"].contains(&part);
        self.parts.iter().any(|one| one == part)
            && (self.engine || !needs_engine)
            && !(part == "logs" && self.logs.is_zero())
    }

    /// The highest number of clients.
    pub(crate) fn most(&self) -> usize {
        self.clients.iter().copied().max().unwrap_or_default()
    }

    /// The rows for small or for large snapshots.
    pub(crate) fn rows(&self, large: bool) -> Vec<(Way, usize)> {
        let most = |way| match way {
            _ if large => MAX_LARGE,
            Way::Tls => MAX_TLS,
            _ => usize::MAX,
        };
        let of_way = |way: Way| {
            let mut clients: Vec<usize> = self
                .clients
                .iter()
                .map(|&clients| clients.min(most(way)))
                .collect();
            clients.sort_unstable();
            clients.dedup();
            clients.into_iter().map(move |clients| (way, clients))
        };
        Way::ALL.into_iter().flat_map(of_way).collect()
    }

    /// The interval for snapshots of this size and this number of clients. A snapshot reaches all clients within half of this
    /// interval.
    pub(crate) fn interval_of_row(&self, bytes: usize, clients: usize) -> Duration {
        if bytes * clients > BYTES_PER_SECOND {
            self.interval
        } else {
            Duration::from_secs(1)
        }
    }

    /// The number of snapshots in a row's window.
    pub(crate) fn snapshots_in_window(&self, interval: Duration) -> u32 {
        let fit = self.window.as_secs_f64() / interval.as_secs_f64();
        (fit as u32).max(MIN_SNAPSHOTS)
    }

    /// The approximate time of the run, in minutes.
    fn minutes(&self) -> f64 {
        let row = |bytes: usize, (_, clients): &(Way, usize)| {
            let interval = self.interval_of_row(bytes, *clients);
            (interval * (self.snapshots_in_window(interval) + 4)).as_secs_f64() + SECONDS_PER_ROW
        };
        let mut seconds = 0.0;
        if self.has("rows") {
            seconds += self
                .rows(false)
                .iter()
                .map(|one| row(20_000, one))
                .sum::<f64>();
            if self.engine {
                seconds += self
                    .rows(true)
                    .iter()
                    .map(|one| row(500_000, one))
                    .sum::<f64>();
            }
        }
        if self.engine && (self.has("rows") || self.has("bytes")) {
            seconds += SECONDS_OF_CONTAINERS;
        }
        let others = [
            ("herd", 4.0 * SECONDS_PER_ROW),
            (
                "sleepers",
                self.asleep.as_secs_f64() + 10.0 * self.interval.as_secs_f64() + SECONDS_PER_ROW,
            ),
            ("steady", self.steady.as_secs_f64() + SECONDS_PER_ROW),
            ("bytes", SECONDS_PER_ROW),
            ("logs", self.logs.as_secs_f64() + SECONDS_PER_ROW),
        ];
        seconds += others
            .iter()
            .filter(|(part, _)| self.has(part))
            .map(|(_, takes)| takes)
            .sum::<f64>();
        seconds / 60.0
    }
}

/// The wanted numbers of clients, limited by the number of files that a process can open.
fn clients_within(files: u64) -> Vec<usize> {
    let most = usize::try_from(files.saturating_sub(FILES_BESIDE_CLIENTS)).unwrap_or(usize::MAX);
    let wanted = numbers("BENCH_CLIENTS", "100,1000,10000");
    if wanted.iter().any(|&clients| clients > most) {
        println!(
            "NOTE: a process can open only {files} files on this host, which is enough for {most} clients"
        );
    }
    wanted
        .into_iter()
        .map(|clients| clients.min(most))
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = PARTS.into_iter().filter(|part| self.has(part)).collect();
        writeln!(
            f,
            "parts {}; {:?} clients; windows of {} s; steady for {:.1} min, asleep for {} s, logs for {:.1} min; about {:.0} \
             minutes",
            parts.join(", "),
            self.clients,
            self.window.as_secs(),
            self.steady.as_secs_f64() / 60.0,
            self.asleep.as_secs(),
            self.logs.as_secs_f64() / 60.0,
            self.minutes()
        )?;
        if !self.engine {
            writeln!(
                f,
                "NOTE: there is no engine, so large snapshots and the parts bytes and logs are left out"
            )?;
        }
        if backlog() < 4096 {
            writeln!(
                f,
                "NOTE: net.core.somaxconn is {}, so many clients that connect at the same time must retry",
                backlog()
            )?;
        }
        write!(
            f,
            "agent and floor publish in turns, half an interval apart, each with its own client process; \
             the CPU time of the clients is not counted, but the clients share the cores with the servers; a snapshot counts as arrived when the client has read it"
        )
    }
}
