//! What the agent costs its host, beside other ways of watching containers: `make bench`.
//!
//! At each number of containers, each of which logs a line a second, it measures an idle engine, then the agent with
//! one client at the default intervals, as root and as the package installs it ([`installed`]), then an idle engine again;
//! at some numbers also what the other ways cost that the engine offers ([`ways`]), other agents ([`peers`]), the agent at 100 ms intervals, its system calls ([`calls`]), its terminal
//! view ([`view`]), a scrape by Prometheus ([`scrape`])
//! and one agent that runs on meanwhile ([`soak`]). Before all that, what a reading of the host takes ([`host`]). CPU is in seconds per minute, as medians of windows; what is
//! induced in the engine (dockerd, containerd and the shims) is over the mean of the idle windows before and after.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_SECONDS` | `60` | the length of a window |
//! | `BENCH_WINDOWS` | `3` | windows per row, whose median is printed |
//! | `BENCH_CONTAINERS` | `0,10,50,100,300` | numbers of containers |
//! | `BENCH_WAYS_AT` | `100` | the numbers at which more than the agent is measured; `all`: at every one |
//! | `BENCH_WAYS` | `all` | the rows: `agent`, `installed` and names of [`ways`] |
//! | `BENCH_PEERS` | `1` | `0` leaves other agents out |
//! | `BENCH_SOAK` | `0` | seconds that one agent runs on while others are measured, `1800` for the bar |
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

mod agent;
mod calls;
mod containers;
mod floor;
mod host;
mod installed;
mod peers;
mod plan;
mod row;
mod scrape;
mod soak;
mod view;
mod ways;

use std::fs;
use std::time::Duration;

use agent::{Agent, Heard};
use calls::Calls;
use common::bars::Bars;
use common::engine::docker;
use common::load::median;
use common::{load, process};
use containers::Containers;
use plan::Plan;
use row::{Idle, Row};
use soak::Soak;

/// Starts of the agent whose median is the time to the first complete snapshot.
const STARTS: usize = 3;
/// For how long an agent runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Processes of their own, so that their CPU and memory are theirs alone.
        ["way", name, label] => ways::run(name, label),
        ["floor"] => floor::run(),
        ["host"] => host::run(),
        _ => {
            let ways = ways::ALL.iter().map(|way| way.name).collect();
            bench(&Plan::from_env(ways, peers::COUNT));
        }
    }
}

fn bench(plan: &Plan) {
    process::clean_up_at_signals();
    print_host();
    println!("{plan}");
    let mut bars = Bars::default();
    // What the agent's own work takes without containers, for the calls that each of them adds.
    let bare = plan.more_than_agent().then(|| Calls::of_agent(plan, 0));
    host::print(&mut bars);
    for &count in &plan.containers {
        measure(plan, count, bare.as_ref(), &mut bars);
    }
    bars.print();
    if plan.strict && bars.missed() {
        std::process::exit(1);
    }
}

/// Everything at one number of containers.
fn measure(plan: &Plan, count: usize, bare: Option<&Calls>, bars: &mut Bars) {
    println!("\n## {count} containers\n");
    let containers = Containers::start(count);
    containers.settle();
    let since = containers::unix_seconds() + 1;

    let before = Idle::measure(plan);
    let agent = plan.has("agent").then(|| measure_agent(plan, count));
    let as_installed = plan
        .has("installed")
        .then(|| installed::measure(plan, count));
    let between = Idle::measure(plan);
    println!("engine idle, s/min: before the agent {before}; after it {between}\n");
    let mut rows = Vec::new();
    let (row, heard) = agent.unzip();
    if let Some(row) = row {
        let row = row.over(&before, &between);
        row.check(count, bars);
        rows.push(row);
    }
    if let Some(row) = as_installed {
        let row = row.over(&before, &between);
        row.check_engine("as installed", count, bars);
        rows.push(row);
    }
    if !rows.is_empty() {
        row::print(&rows);
    }
    if count > 0 && plan.has("installed") {
        installed::compare(plan, count, bars);
    }
    if let Some(heard) = heard {
        print_ages(count, &heard, bars);
        print_starts(plan, count, bars);
    }
    if count > 0 {
        floor::print(bars);
    }
    if plan.measures_more_at(count) {
        if let Some(bare) = bare.filter(|_| count > 0) {
            calls::print(bare, &Calls::of_agent(plan, count), count);
        }
        print_fast(plan, count, bars);
        view::print(plan, count, bars);
        scrape::print(plan, count, bars);
        let soak = plan.soaks_at(count).then(|| Soak::start(plan, count));
        let mut others = ways::measure(plan, &containers);
        others.extend(peers::measure(plan));
        if let Some(soak) = soak {
            soak.print(bars);
        }
        let after = Idle::measure(plan);
        println!("\nengine idle, s/min: before the others {between}; after them {after}\n");
        rows.extend(others.into_iter().map(|row| row.over(&between, &after)));
        row::print(&rows);
    }
    if containers::started_since(since) {
        println!("\nDISTURBED: others started containers on this engine meanwhile, measure again");
    }
}

/// The agent at its default intervals, with one client.
fn measure_agent(plan: &Plan, count: usize) -> (Row, Vec<Heard>) {
    let agent = Agent::start(plan, count, &[]);
    std::thread::sleep(WARM_UP);
    agent.forget();
    let row = Row::measure("System Agent", plan, || vec![agent.pid()]);
    (row, agent.heard())
}

/// How old figures are when they leave.
fn print_ages(count: usize, heard: &[Heard], bars: &mut Bars) {
    println!("\n| age in a snapshot, ms | median | most |\n|---|---:|---:|");
    for source in ["system", "docker", "logs"] {
        let ages: Vec<f64> = heard.iter().filter_map(|one| one.age_ms(source)).collect();
        let most = ages.iter().copied().fold(0.0, f64::max);
        println!("| {source} | {:.0} | {most:.0} |", median(&ages));
        if source == "docker" && count > 0 {
            let what = format!("age of containers' figures, {count} containers");
            bars.at_most(&what, most / 1000.0, 1.0, "s");
        }
    }
}

/// How soon after its start a client has a snapshot with every container in every section.
fn print_starts(plan: &Plan, count: usize, bars: &mut Bars) {
    let starts = [(); STARTS].map(|()| Agent::start(plan, count, &[]).took.as_secs_f64());
    let took = median(&starts);
    println!("\nexec to first complete snapshot: {took:.2} s, the median of {STARTS} starts");
    if count <= 100 {
        let what = format!("exec to first complete snapshot, {count} containers");
        bars.at_most(&what, took, 1.5, "s");
    }
}

/// The agent with all intervals at 100 ms.
fn print_fast(plan: &Plan, count: usize, bars: &mut Bars) {
    let interval = Duration::from_millis(100);
    let all = [
        "PUBLISH_INTERVAL",
        "SYSTEM_INTERVAL",
        "DOCKER_INTERVAL",
        "LOG_INTERVAL",
    ];
    let agent = Agent::start(plan, count, &all.map(|name| (name, "100ms")));
    std::thread::sleep(WARM_UP);
    agent.forget();
    let row = Row::of_window(plan.window, || vec![agent.pid()]);
    let heard = agent.heard();
    let expected = plan.window.div_duration_f64(interval);
    // Two intervals: at one, figures that come just after a tick would count as late by turns.
    let most_ms = 2.0 * interval.as_secs_f64() * 1000.0;
    let ages = heard.iter().filter_map(|one| one.age_ms("docker"));
    let fresh = ages.filter(|&age| age <= most_ms).count();
    let percent = row.own / 60.0 * 100.0;
    println!(
        "\nat 100 ms intervals: {percent:.1} % of a core; of {expected:.0} snapshots {} came, {fresh} with figures of \
         the last two intervals, with {} rounds of containers' figures; {} skipped",
        heard.len(),
        agent::docker_rounds(&heard),
        agent::skipped(&heard),
    );
    if count <= 100 {
        let what = format!("own CPU at 100 ms, {count} containers");
        bars.at_most(&what, percent, 12.0, "% of a core");
        let what = format!("intervals missed at 100 ms, {count} containers");
        bars.at_most(
            &what,
            (1.0 - fresh as f64 / expected).max(0.0) * 100.0,
            2.0,
            "%",
        );
    }
}

fn print_host() {
    let cores = std::thread::available_parallelism().expect("a number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let engine = docker(&["version", "--format", "{{.Server.Version}}"]);
    let cgroup = docker(&["info", "--format", "{{.CgroupVersion}}"]);
    println!(
        "# System Agent {}: what it costs\n\n{cores} cores, Linux {}, Docker {engine}, cgroup v{cgroup}; \
         containers on the engine's default network, each logging a line a second",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    );
}
