//! The simulated hosts. One process publishes the snapshots of all hosts, and answers each line on its input with a report.

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

/// Maximum number of hosts that connect at the same time.
const AT_ONCE: usize = 50;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) server: String,
    pub(crate) hosts: usize,
    pub(crate) interval: Duration,
    pub(crate) zstd: bool,
    /// The file with a recorded snapshot.
    pub(crate) snapshot: PathBuf,
}

/// The totals of all hosts since the start.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
    pub(crate) late: u64,
}

/// A child process that runs the hosts or the consumer.
pub(crate) struct Worker {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts this program again with arguments that make it a worker.
    pub(crate) fn start(what: &str, spec: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([what, spec])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).expect("cannot start this program");
        let orders = process.0.stdin.take().unwrap();
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        Self {
            process,
            orders,
            answers,
        }
    }

    /// Requests a report and returns it.
    pub(crate) fn report<T: DeserializeOwned>(&mut self) -> T {
        writeln!(self.orders).expect("the worker has ended");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("the worker has ended: {answer}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Answers each line on stdin with a report, until the input ends.
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
                // Each host waits for a random part of an interval, because real agents do not start at the same moment.
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
