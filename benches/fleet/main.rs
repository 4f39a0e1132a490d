//! A fleet by one NATS server: `make bench-fleet`.
//!
//! Hosts that are simulated from a real snapshot of this one, each with a connection of its own, publish to a real nats-server,
//! plain and as zstd. Beside the server, a consumer that decodes everything, and `system-agent watch --nats` in a terminal are
//! measured; then how many hosts it takes until the server has used up a core, or snapshots are late.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_HOSTS` | `500` | hosts |
//! | `BENCH_INTERVAL` | `5` | seconds between two snapshots of a host |
//! | `BENCH_SECONDS` | `20` | the length of a window |
//! | `BENCH_CONTAINERS` | `10` | containers that a snapshot shows, where there is an engine |
//! | `BENCH_STEPS` | `1000,2000,5000,10000` | numbers of hosts to go up to; empty: none |
//! | `BENCH_STEP_SECONDS` | `10` | the length of their windows |
//! | `BENCH_MINUTES` | `8` | after so long no further step is begun |
//! | `BENCH_AGENT` | | the agent's release binary, from a plain `cargo build --release` |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and fails by panicking"
)]

#[allow(dead_code, reason = "each benchmark uses its part")]
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
        // Processes of their own, so that their CPU and memory are theirs alone.
        ["hosts", spec] => hosts::run(spec),
        ["consumer", server] => consumer::run(server),
        _ => bench(),
    }
}

fn bench() {
    process::clean_up_at_signals();
    let cores = std::thread::available_parallelism().expect("a number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "# System Agent {}: a fleet\n\n{cores} cores, Linux {}, {}; everything on this machine, by 127.0.0.1",
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
