//! The load generator: a crowd of clients in a process of its own, told by lines what to do.

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

/// Who the clients are, and whose.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) address: SocketAddr,
    pub(crate) clients: usize,
    /// How many of them stop reading when they are told to, whose arrivals are not noted.
    pub(crate) sleepers: usize,
    /// What each of them sends.
    pub(crate) login: String,
    /// Whether they are sent zstd frames.
    pub(crate) zstd: bool,
    /// The server's certificate, with TLS.
    pub(crate) certificate: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Reads snapshots as a whole, for when they were composed.
    Witness,
    Reader,
    /// Reads until it is told to stop.
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

/// What a crowd is told.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Order {
    /// Forget what has come until now.
    Forget,
    /// Say what has come since.
    Report,
    Sleep,
    Wake,
}

/// How a crowd was received.
#[derive(Serialize, Deserialize)]
struct Welcome {
    /// From the first connection to the last client's first snapshot; or why there was none.
    took: Result<Duration, String>,
    /// When the newest snapshot was composed.
    tick: Option<SystemTime>,
}

/// Clients that are connected, each of which has had a snapshot. They leave on drop.
pub(crate) struct Crowd {
    _process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) spec: Spec,
    /// From the first connection to the last client's first snapshot.
    pub(crate) took: Duration,
    /// When the newest snapshot then was composed.
    pub(crate) tick: SystemTime,
}

impl Crowd {
    pub(crate) fn gather(spec: Spec) -> Result<Self, String> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["crowd", &serde_json::to_string(&spec).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).expect("this program starts");
        let orders = process.0.stdin.take().unwrap();
        let mut answers = BufReader::new(process.0.stdout.take().unwrap());
        let welcome: Welcome = read(&mut answers)?;
        Ok(Self {
            _process: process,
            orders,
            answers,
            spec,
            took: welcome.took?,
            tick: welcome.tick.expect("a witness has had a snapshot"),
        })
    }

    /// How many there are whose snapshots are noted.
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
        read(&mut self.answers).expect("the crowd is there")
    }

    fn order(&mut self, order: Order) {
        let order = serde_json::to_string(&order).unwrap();
        writeln!(self.orders, "{order}").expect("the crowd is there");
    }
}

fn read<T: DeserializeOwned>(answers: &mut impl BufRead) -> Result<T, String> {
    let mut answer = String::new();
    answers
        .read_line(&mut answer)
        .map_err(|error| error.to_string())?;
    serde_json::from_str(&answer).map_err(|_| format!("the crowd has broken up: {answer}"))
}
