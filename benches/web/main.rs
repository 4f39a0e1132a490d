//! The cost of the page's server, `system-agent web`: `make bench-web`.
//!
//! This program simulates agents. Each agent listens on a TCP port of its own and sends a snapshot with changing figures at each
//! interval. The snapshot is a recorded snapshot of this host with containers. The benchmark measures the server while no browser is
//! open, and with two browsers. It also measures queries of the history and the bytes of the first view.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_AGENTS` | `100` | number of agents |
//! | `BENCH_FEW_AGENTS` | `10` | number of agents in the second part |
//! | `BENCH_CONTAINERS` | `20` | containers in a snapshot |
//! | `BENCH_INTERVAL` | `5` | seconds between two snapshots of an agent |
//! | `BENCH_WARM_UP` | `30` | seconds before the first window, after all agents are connected |
//! | `BENCH_SECONDS` | `60` | length of a window |
//! | `BENCH_QUERIES` | `50` | number of queries of the history, for each range |
//! | `BENCH_RANGES` | `1h,30d,1y` | ranges of the queries, such as `1h,30d,1y` |
//! | `BENCH_STRICT` | `0` | `1`: the run fails if a bar is missed |
//! | `BENCH_AGENT` | | the release binary, from a plain `cargo build --release` |
//!
//! One of the hosts has a history of a year, which the benchmark writes before it starts the server. The server keeps the samples of the
//! last ten minutes in memory. So the memory is that of the longest case only after `BENCH_WARM_UP=600`.
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

mod agents;
mod browser;
mod figures;
mod past;
mod plan;
mod queries;
mod rows;
mod server;
mod view;

use std::fs;

use common::bars::Bars;
use common::{engine, limits, process};
use plan::Plan;

fn main() {
    assert!(engine::answers(), "no Docker engine answers");
    process::clean_up_at_signals();
    limits::raise_file_limit();
    let cores = std::thread::available_parallelism().expect("cannot find the number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "# System Agent {}: the server of the page\n\n{cores} cores, Linux {}; all processes on this machine, over 127.0.0.1",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    );
    let plan = Plan::from_env();
    println!("{plan}");
    let recorded = figures::record(&plan);
    let mut bars = Bars::default();
    rows::measure(&plan, &recorded, &mut bars);
    bars.print();
    if plan.strict && bars.missed() {
        std::process::exit(1);
    }
}
