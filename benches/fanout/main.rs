//! The delivery of snapshots to ten thousand clients: `make bench-fanout`.
//!
//! The benchmark compares the agent with the [`floor`], a bare server that writes the same bytes to the same number of clients. A
//! separate process runs the clients of each server and notes when each snapshot arrives ([`crowd`]). The benchmark has these
//! parts:
//!
//! | part | |
//! |---|---|
//! | `rows` | CPU, spread and memory for snapshots of 20 KB and, with an engine, of 500 KB (up to 1,000 clients); plain, zstd,
//! TLS (up to 2,000 clients) |
//! | `herd` | the highest number of clients connect at the same time |
//! | `sleepers` | a tenth of the highest number of clients stop reading for a while |
//! | `steady` | the highest number of clients read for some minutes; each snapshot must be on time |
//! | `bytes` | bytes on the wire for each combination of options, with an engine |
//! | `logs` | `logs: new` while files rotate and clients are slow or reconnect, with an engine |
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_PARTS` | `all` | the parts to run |
//! | `BENCH_CLIENTS` | `100,1000,10000` | numbers of clients |
//! | `BENCH_SECONDS` | `20` | length of a row's window in seconds; the window is longer if it would have fewer than 8 snapshots |
//! | `BENCH_INTERVAL` | `5` | seconds between snapshots, except in rows for which one second suffices |
//! | `BENCH_MINUTES` | `5` | duration of `steady` |
//! | `BENCH_ASLEEP` | `60` | seconds during which the `sleepers` do not read |
//! | `BENCH_LOGS_MINUTES` | `10` | duration of `logs`; `0` leaves it out |
//! | `BENCH_CONTAINERS` | `50` | containers in large snapshots, with 100 log lines each |
//! | `BENCH_ENGINE` | `1` | `0` leaves out the parts that need containers |
//! | `BENCH_STRICT` | `0` | `1`: the run fails if a bar is missed |
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

mod bytes;
mod crowd;
mod floor;
mod herd;
mod identity;
mod line;
mod loaded;
mod logs;
mod plan;
mod rows;
mod server;
mod sleepers;
mod snapshots;
mod steady;
mod way;

use std::fs;

use common::bars::Bars;
use common::{load, process};
use plan::Plan;
use snapshots::Kind;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Each of these functions runs in a process of its own, so that its CPU time and memory can be measured separately.
        ["crowd", spec] => crowd::run(spec),
        ["floor", spec] => floor::run(spec),
        _ => bench(),
    }
}

fn bench() {
    process::clean_up_at_signals();
    print_host();
    let plan = Plan::from_env();
    println!("{plan}");
    let mut bars = Bars::default();
    if ["rows", "herd", "sleepers", "steady"]
        .iter()
        .any(|part| plan.has(part))
    {
        let kind = Kind::small(&plan);
        with_small(&plan, &kind, &mut bars);
    }
    if plan.engine && (plan.has("rows") || plan.has("bytes")) {
        let kind = Kind::large(&plan);
        if plan.has("rows") {
            rows::measure(&plan, &kind, true, &mut bars);
        }
        if plan.has("bytes") {
            bytes::measure(&plan, &kind);
        }
    }
    if plan.has("logs") {
        logs::measure(&plan, &mut bars);
    }
    bars.print();
    if plan.strict && bars.missed() {
        std::process::exit(1);
    }
}

/// Runs the parts with small snapshots.
fn with_small(plan: &Plan, kind: &Kind, bars: &mut Bars) {
    if plan.has("rows") {
        rows::measure(plan, kind, false, bars);
    }
    if plan.has("herd") {
        herd::measure(plan, kind, bars);
    }
    if plan.has("sleepers") {
        sleepers::measure(plan, kind, bars);
    }
    if plan.has("steady") {
        steady::measure(plan, kind, bars);
    }
}

fn print_host() {
    let cores = std::thread::available_parallelism().expect("cannot find the number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "# System Agent {}: fan-out\n\n{cores} cores, Linux {}; clients in 127.0.0.0/8",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    );
}
