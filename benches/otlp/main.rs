//! Measures what OpenTelemetry costs: the CPU time of an export of metrics, the bytes of a request, and the CPU time per megabyte of log
//! lines beside a client of the socket.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_PARTS` | `metrics,logs` | the parts to run |
//! | `BENCH_CONTAINERS` | `100` | containers |
//! | `BENCH_SECONDS` | `30` | length of a window in seconds |
//! | `BENCH_WINDOWS` | `3` | windows of each row; the row shows the median |
//! | `BENCH_RATE` | `100` | log lines a second of each container in the part `logs` |
//! | `BENCH_STRICT` | `0` | `1`: the run fails if a bar is missed |
//! | `BENCH_AGENT` | | the agent's release binary |

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its results, and ends at the first error"
)]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of the common code")]
mod common;
mod receiver;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::engine::{answers, remove_containers, start_containers};
use common::load::{cpu_seconds, median};
use common::process::{Process, clean_up_at_signals};
use common::{agent, variables};
use receiver::Receiver;

/// Time in which the agent becomes steady. After a minute it no longer looks at new containers once a second.
const WARM_UP: Duration = Duration::from_secs(75);
/// Limit on the CPU time of an export of metrics, in milliseconds.
const EXPORT_BAR: f64 = 3.0;
/// The length of the text of each log line, in bytes.
const LINE: usize = 100;
const MB: f64 = 1e6;

struct Plan {
    agent: PathBuf,
    containers: usize,
    window: Duration,
    windows: u64,
    rate: u64,
}

/// The containers of a part. Removed on drop.
struct Containers;

impl Drop for Containers {
    fn drop(&mut self) {
        remove_containers();
    }
}

impl Plan {
    fn start(&self, settings: &[(&str, &str)]) -> (Process, TcpStream) {
        let all = [
            ("PUBLISH_INTERVAL", "1s"),
            ("MALLOC_ARENA_MAX", "1"),
            ("LOG_FORMAT", "text"),
        ];
        agent::start(&self.agent, &[&all[..], settings].concat())
    }

    /// Returns the median of the CPU time that a process uses in a window, in seconds.
    fn cpu(&self, process: &Process) -> f64 {
        let windows: Vec<f64> = (0..self.windows)
            .map(|_| {
                let before = cpu_seconds(process.pid());
                thread::sleep(self.window);
                cpu_seconds(process.pid()) - before
            })
            .collect();
        median(&windows)
    }
}

/// The CPU time of an export of metrics: the difference between an agent that exports and an agent that does not.
fn metrics(plan: &Plan) -> bool {
    let _containers = Containers;
    start_containers(plan.containers, &[], "while :; do sleep 1000; done");
    println!("| compression | CPU ms an export | bytes a request |\n|---|---:|---:|");
    let mut default = f64::INFINITY;
    for compression in ["gzip", "zstd", "none"] {
        let receiver = Receiver::start();
        let (plain, _plain) = plan.start(&[]);
        let (sending, _sending) = plan.start(&[
            ("OTLP_ENDPOINT", &receiver.url()),
            ("OTLP_SIGNALS", "metrics"),
            ("OTLP_COMPRESSION", compression),
        ]);
        thread::sleep(WARM_UP);
        let before = receiver.counts();
        // Both run at the same time, so that the load of the machine is the same.
        let (without, with) = thread::scope(|scope| {
            let with = scope.spawn(|| plan.cpu(&sending));
            (plan.cpu(&plain), with.join().unwrap())
        });
        let after = receiver.counts();
        let requests = (after.requests - before.requests) as f64;
        let exports = requests / plan.windows as f64;
        let cost = (with - without) * 1000.0 / exports;
        if compression == "gzip" {
            default = cost;
        }
        let bytes = (after.bytes - before.bytes) as f64 / requests;
        println!("| {compression} | {cost:.2} | {bytes:.0} |");
    }
    default <= EXPORT_BAR
}

/// The CPU time per megabyte of log lines, to a receiver and to a client of the socket.
fn logs(plan: &Plan) {
    let _containers = Containers;
    let text = "x".repeat(LINE);
    let script = format!(
        "while :; do i=0; while [ $i -lt {} ]; do echo {text}; i=$((i + 1)); done; sleep 1; done",
        plan.rate
    );
    start_containers(plan.containers, &[], &script);
    println!("| way | CPU ms a megabyte | megabytes a second |\n|---|---:|---:|");
    let receiver = Receiver::start();
    let (sending, _connection) = plan.start(&[
        ("OTLP_ENDPOINT", &receiver.url()),
        ("OTLP_SIGNALS", "logs"),
        ("OTLP_COMPRESSION", "none"),
    ]);
    thread::sleep(WARM_UP);
    let before = receiver.counts().bytes;
    row(plan, "OTLP", &sending, || receiver.counts().bytes - before);
    drop(sending);
    let (serving, mut connection) = plan.start(&[]);
    let read = Arc::new(AtomicU64::new(0));
    let hello = format!(
        "{} {{\"logs\":\"new\",\"sections\":[\"logs\"]}}\n",
        agent::KEY
    );
    connection.write_all(hello.as_bytes()).unwrap();
    let counter = Arc::clone(&read);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = connection.read(&mut buffer) {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    thread::sleep(WARM_UP);
    let before = read.load(Ordering::Relaxed);
    row(plan, "socket", &serving, || {
        read.load(Ordering::Relaxed) - before
    });
}

fn row(plan: &Plan, way: &str, process: &Process, bytes: impl Fn() -> u64) {
    let cpu = plan.cpu(process) * plan.windows as f64;
    let megabytes = bytes() as f64 / MB;
    let seconds = plan.window.as_secs_f64() * plan.windows as f64;
    println!(
        "| {way} | {:.1} | {:.2} |",
        cpu * 1000.0 / megabytes,
        megabytes / seconds
    );
}

fn main() -> ExitCode {
    clean_up_at_signals();
    let agent = variables::text("BENCH_AGENT", "");
    assert!(
        Path::new(&agent).exists(),
        "BENCH_AGENT must name the agent's binary"
    );
    assert!(answers(), "the benchmark needs a Docker engine");
    let plan = Plan {
        agent: agent.into(),
        containers: variables::number("BENCH_CONTAINERS", "100") as usize,
        window: Duration::from_secs(variables::number("BENCH_SECONDS", "30")),
        windows: variables::number("BENCH_WINDOWS", "3"),
        rate: variables::number("BENCH_RATE", "100"),
    };
    let parts = variables::text("BENCH_PARTS", "metrics,logs");
    let mut is_within = true;
    for part in parts.split(',') {
        match part.trim() {
            "metrics" => is_within &= metrics(&plan),
            "logs" => logs(&plan),
            other => panic!("unknown part: {other}"),
        }
    }
    if !is_within {
        println!("MISSED: an export of metrics takes more than {EXPORT_BAR} ms");
        if variables::number("BENCH_STRICT", "0") > 0 {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
