//! The hosts: one process that publishes for all of them, and says what it has done for each line that it is sent.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use crate::common::process::Process;
use crate::simulator::{Counts, Host, Template};

/// How many connect at once.
const AT_ONCE: usize = 50;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) server: String,
    pub(crate) hosts: usize,
    pub(crate) interval: Duration,
    pub(crate) zstd: bool,
    /// The file of a snapshot.
    pub(crate) snapshot: PathBuf,
}

/// What they have done since the start.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
    pub(crate) late: u64,
}

/// What `run` runs in.
pub(crate) struct Worker {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// This program, told to be something else.
    pub(crate) fn start(what: &str, spec: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([what, spec])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).expect("this program starts");
        let orders = process.0.stdin.take().unwrap();
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        Self {
            process,
            orders,
            answers,
        }
    }

    /// What it says when it is asked.
    pub(crate) fn report<T: DeserializeOwned>(&mut self) -> T {
        writeln!(self.orders).expect("it runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("it has ended: {answer}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Answers each line on stdin, until there are no more.
pub(crate) fn answer<T: Serialize>(mut report: impl FnMut() -> T) {
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", serde_json::to_string(&report()).unwrap());
    }
}

pub(crate) fn run(spec: &str) {
    let spec: Spec = serde_json::from_str(spec).unwrap();
    let line = std::fs::read_to_string(&spec.snapshot).unwrap();
    let template = Arc::new(Template::new(&line));
    let counts = Arc::new(Counts::default());
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let started = Arc::clone(&counts);
    runtime.spawn(async move {
        for number in 0..spec.hosts {
            let host = Host {
                server: spec.server.clone(),
                name: format!("host-{number:05}"),
                template: Arc::clone(&template),
                interval: spec.interval,
                // Spread over an interval, as agents that were started at any time are.
                after: spec.interval.mul_f64(fastrand::f64()),
                zstd: spec.zstd,
            };
            tokio::spawn(host.publish(Arc::clone(&started)));
            while number as u64 > started.connected.load(Relaxed) + AT_ONCE as u64 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    answer(|| Report {
        connected: counts.connected.load(Relaxed),
        sent: counts.sent.load(Relaxed),
        bytes: counts.bytes.load(Relaxed),
        late: counts.late.load(Relaxed),
    });
}
