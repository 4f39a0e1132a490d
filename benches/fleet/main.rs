//! A fleet with one NATS server: `make bench-fleet`.
//!
//! Simulated hosts publish copies of a real snapshot to a real nats-server, as JSON and as zstd. Each host has its own
//! connection. The benchmark measures the server, a consumer that decodes all snapshots, and `system-agent watch --nats` in a
//! terminal. After that, the benchmark raises the number of hosts until the server uses a whole core or snapshots are late.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_HOSTS` | `500` | number of hosts |
//! | `BENCH_INTERVAL` | `5` | seconds between two snapshots of a host |
//! | `BENCH_SECONDS` | `20` | length of a window |
//! | `BENCH_CONTAINERS` | `10` | containers in a snapshot, if there is an engine |
//! | `BENCH_STEPS` | `1000,2000,5000,10000` | numbers of hosts in the second part; empty: no second part |
//! | `BENCH_STEP_SECONDS` | `10` | length of a window in the second part |
//! | `BENCH_MINUTES` | `8` | no further step begins after this time |
//! | `BENCH_AGENT` | | the agent's release binary, from a plain `cargo build --release` |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its results and panics on failure"
)]

#[allow(dead_code, reason = "each benchmark uses only a part")]
#[path = "../common/mod.rs"]
mod common;

mod consumer;
mod hosts;
mod plan;
mod rows;
mod server;
mod simulator;
mod snapshot;
mod view;

use std::fs;

use common::process;
use plan::Plan;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Each of these functions runs in a process of its own, so that its CPU time and memory can be measured separately.
        ["hosts", spec] => hosts::run(spec),
        ["consumer", server] => consumer::run(server),
        _ => bench(),
    }
}

fn bench() {
    process::clean_up_at_signals();
    let cores = std::thread::available_parallelism().expect("cannot find the number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "# System Agent {}: a fleet\n\n{cores} cores, Linux {}, {}; all processes on this machine, over 127.0.0.1",
        env!("CARGO_PKG_VERSION"),
        kernel.trim(),
        server::version()
    );
    let plan = Plan::from_env();
    println!("{plan}");
    let line = snapshot::record(&plan);
    rows::fleet(&plan, &line);
    rows::steps(&plan, &line);
}
