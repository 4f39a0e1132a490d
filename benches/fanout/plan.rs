//! What is to be measured, from the environment; `main.rs` lists the variables.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::engine;
use crate::common::variables::{number, numbers, text};
use crate::identity::Identity;
use crate::limits::{backlog, raise_file_limit};
use crate::way::Way;

pub(crate) const PARTS: [&str; 6] = ["rows", "herd", "sleepers", "steady", "bytes", "logs"];
/// The most clients with TLS, and with large snapshots.
const MOST_TLS: usize = 2000;
const MOST_LARGE: usize = 1000;
/// About what a row takes beside its window, in seconds: two servers, two crowds.
const SECONDS_PER_ROW: f64 = 6.0;
/// About what it takes to start and remove the containers, and until they are no longer young.
const SECONDS_OF_CONTAINERS: f64 = 120.0;
/// Open files of a server beside its clients.
const FILES_BESIDE_CLIENTS: u64 = 1700;
/// The least snapshots in a window.
const FEWEST: u32 = 8;
/// As many bytes are sent within half a second on any machine.
const BYTES_PER_SECOND: usize = 100_000_000;

pub(crate) struct Plan {
    /// The agent's binary.
    pub(crate) agent: PathBuf,
    parts: Vec<String>,
    clients: Vec<usize>,
    window: Duration,
    /// The time between snapshots of the parts that are not rows, and of rows that a second is too short for.
    pub(crate) interval: Duration,
    pub(crate) steady: Duration,
    pub(crate) asleep: Duration,
    pub(crate) logs: Duration,
    /// How many containers large snapshots show.
    pub(crate) containers: usize,
    /// Whether there are such snapshots, and logs.
    pub(crate) engine: bool,
    pub(crate) strict: bool,
    pub(crate) identity: Identity,
    /// For files that are needed meanwhile.
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
                "BENCH_PARTS: there is no {part}"
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

    /// The most clients.
    pub(crate) fn most(&self) -> usize {
        self.clients.iter().copied().max().unwrap_or_default()
    }

    /// The rows of small snapshots, or of large ones.
    pub(crate) fn rows(&self, large: bool) -> Vec<(Way, usize)> {
        let most = |way| match way {
            _ if large => MOST_LARGE,
            Way::Tls => MOST_TLS,
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

    /// The time between two snapshots of so many bytes for so many: long enough to be done within half of it.
    pub(crate) fn interval_of_row(&self, bytes: usize, clients: usize) -> Duration {
        if bytes * clients > BYTES_PER_SECOND {
            self.interval
        } else {
            Duration::from_secs(1)
        }
    }

    /// How many snapshots a row's window has.
    pub(crate) fn snapshots_in_window(&self, interval: Duration) -> u32 {
        let fit = self.window.as_secs_f64() / interval.as_secs_f64();
        (fit as u32).max(FEWEST)
    }

    /// About how long it takes, in minutes.
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

/// The numbers of clients, as far as a process may open files for them.
fn clients_within(files: u64) -> Vec<usize> {
    let most = usize::try_from(files.saturating_sub(FILES_BESIDE_CLIENTS)).unwrap_or(usize::MAX);
    let wanted = numbers("BENCH_CLIENTS", "100,1000,10000");
    if wanted.iter().any(|&clients| clients > most) {
        println!(
            "NOTE: no more than {files} open files a process are allowed here, which is enough for {most} clients"
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
            "parts {}; {:?} clients; windows of {} s; steady for {:.1} min, asleep for {} s, logs for {:.1} min: about {:.0} \
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
                "NOTE: without an engine there are no large snapshots, no bytes of containers and no logs"
            )?;
        }
        if backlog() < 4096 {
            writeln!(
                f,
                "NOTE: net.core.somaxconn is {}: many that connect at once have to try again",
                backlog()
            )?;
        }
        write!(
            f,
            "agent and floor tick by turns, half an interval apart, each with a crowd of its own; the crowds' CPU is not counted, \
             but they share these cores with the servers, and a snapshot has arrived when the crowd has read it"
        )
    }
}
