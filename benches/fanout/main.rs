//! How snapshots reach ten thousand clients: `make bench-fanout`.
//!
//! The agent beside the [`floor`], a bare server that writes the same bytes to as many clients. Each has a [`crowd`] of
//! clients, a process of its own that takes notes of what arrives. Its parts:
//!
//! | part | |
//! |---|---|
//! | `rows` | CPU, spread and memory, for snapshots of 20 KB and, with an engine, 500 KB (to 1,000 clients); plain, zstd, TLS (to 2,000) |
//! | `herd` | the most clients connect at once |
//! | `sleepers` | a tenth of the most clients stop reading for a while |
//! | `steady` | the most clients for minutes: all on time? |
//! | `bytes` | what options save, with an engine |
//! | `logs` | `logs: new` while files rotate and clients are slow or cut off, with an engine |
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_PARTS` | `all` | which parts |
//! | `BENCH_CLIENTS` | `100,1000,10000` | numbers of clients |
//! | `BENCH_SECONDS` | `20` | the length of a row's window, at least 8 snapshots |
//! | `BENCH_INTERVAL` | `5` | seconds between snapshots where one is too short, and in the other parts |
//! | `BENCH_MINUTES` | `5` | for how long `steady` lasts |
//! | `BENCH_ASLEEP` | `60` | for how many seconds `sleepers` do not read |
//! | `BENCH_LOGS_MINUTES` | `10` | for how long `logs` lasts; `0` leaves it out |
//! | `BENCH_CONTAINERS` | `50` | how many containers large snapshots show, 100 lines of each |
//! | `BENCH_ENGINE` | `1` | `0` leaves out what needs containers |
//! | `BENCH_STRICT` | `0` | `1`: a bar that is missed fails the run |
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

mod bytes;
mod crowd;
mod floor;
mod herd;
mod identity;
mod limits;
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
        // Processes of their own, so that their CPU and memory are theirs alone.
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

/// What is measured with small snapshots.
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
    let cores = std::thread::available_parallelism().expect("a number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "# System Agent {}: how it fans out\n\n{cores} cores, Linux {}; clients in 127.0.0.0/8",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    );
}
