//! The load generator: a process that runs many clients. The benchmark sends orders to this process. Each order is a JSON line.

mod client;
mod frames;
mod generator;
mod notes;

pub(crate) use generator::run;
pub(crate) use notes::{ON_TIME, Report};

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Describes the clients and their server.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) address: SocketAddr,
    pub(crate) clients: usize,
    /// The number of clients that stop reading on the order `Sleep`. Arrivals at these clients are not noted.
    pub(crate) sleepers: usize,
    /// The line that each client sends first.
    pub(crate) login: String,
    /// Whether the server sends zstd frames.
    pub(crate) zstd: bool,
    /// The server's certificate. `None` without TLS.
    pub(crate) certificate: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Reads whole snapshots, to note when each snapshot was composed.
    Witness,
    Reader,
    /// Stops reading on the order `Sleep`.
    Sleeper,
}

impl Spec {
    fn role(&self, index: usize) -> Role {
        match index {
            0 => Role::Witness,
            _ if index + self.sleepers >= self.clients => Role::Sleeper,
            _ => Role::Reader,
        }
    }
}

/// An order to the load generator.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Order {
    /// Discard the notes of all arrivals until now.
    Forget,
    /// Print a report of all arrivals since the previous `Forget`.
    Report,
    Sleep,
    Wake,
}

/// The result of connecting the clients.
#[derive(Serialize, Deserialize)]
struct Start {
    /// The time from the first connection to the last client's first snapshot, or an error.
    took: Result<Duration, String>,
    /// The time at which the newest snapshot was composed.
    tick: Option<SystemTime>,
}

/// Connected clients that have all received a snapshot. The clients disconnect on drop.
pub(crate) struct Crowd {
    _process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) spec: Spec,
    /// The time from the first connection to the last client's first snapshot.
    pub(crate) took: Duration,
    /// The time at which the newest snapshot was composed, when every client had a snapshot.
    pub(crate) tick: SystemTime,
}

impl Crowd {
    pub(crate) fn gather(spec: Spec) -> Result<Self, String> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["crowd", &serde_json::to_string(&spec).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).expect("cannot start this program");
        let orders = process.0.stdin.take().unwrap();
        let mut answers = BufReader::new(process.0.stdout.take().unwrap());
        let start: Start = read(&mut answers)?;
        Ok(Self {
            _process: process,
            orders,
            answers,
            spec,
            took: start.took?,
            tick: start.tick.expect("the witness has received no snapshot"),
        })
    }

    /// The number of clients whose arrivals are noted.
    pub(crate) fn readers(&self) -> usize {
        self.spec.clients - self.spec.sleepers
    }

    pub(crate) fn forget(&mut self) {
        self.order(Order::Forget);
    }

    pub(crate) fn sleep(&mut self) {
        self.order(Order::Sleep);
    }

    pub(crate) fn wake(&mut self) {
        self.order(Order::Wake);
    }

    pub(crate) fn report(&mut self) -> Report {
        self.order(Order::Report);
        read(&mut self.answers).expect("the load generator has ended")
    }

    fn order(&mut self, order: Order) {
        let order = serde_json::to_string(&order).unwrap();
        writeln!(self.orders, "{order}").expect("the load generator has ended");
    }
}

fn read<T: DeserializeOwned>(answers: &mut impl BufRead) -> Result<T, String> {
    let mut answer = String::new();
    answers
        .read_line(&mut answer)
        .map_err(|error| error.to_string())?;
    serde_json::from_str(&answer).map_err(|_| format!("the load generator has ended: {answer}"))
}
