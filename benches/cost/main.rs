//! The cost of the agent for its host, compared with other ways to measure containers: `make bench`.
//!
//! First the benchmark measures the host's part of a round (module [`host`]). After that it starts containers, and measures the
//! idle engine, the agent with one client at the default intervals, and the idle engine again. The benchmark does this for each
//! number of containers. The agent runs as root and as the package installs it ([`installed`]). Each container logs one line per
//! second, or as `BENCH_LOG_SECONDS` says.
//!
//! At some numbers of containers the benchmark also measures calls to the engine ([`ways`]), other agents ([`peers`]), the agent
//! at 100 ms intervals, the agent's system calls ([`calls`]), the terminal view ([`view`]), scrapes beside node_exporter and cAdvisor
//! ([`scrapes`]), and one agent that runs for a long time ([`soak`]).
//!
//! At each number the benchmark also runs the agent beside a floor program and Beszel's agent ([`beside`]), and counts and measures
//! the calls of the installed agent to the engine ([`engine_calls`]).
//!
//! CPU time is in seconds per minute, and is the median of the windows. The engine is dockerd, containerd and the shims. The CPU
//! time that an agent causes in the engine is the engine's CPU time in a window, minus the engine's mean CPU time while it is
//! idle.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_PARTS` | `costs,scrapes,figures` | `scrapes`: scrapes beside node_exporter and cAdvisor; `figures`: the figures of containers beside those of cAdvisor; `costs`: everything else |
//! | `BENCH_SECONDS` | `60` | length of a window |
//! | `BENCH_WINDOWS` | `3` | windows for each row of the tables; the row shows the median of the windows |
//! | `BENCH_CONTAINERS` | `0,10,50,100,300` | numbers of containers |
//! | `BENCH_LOG_SECONDS` | `1` | seconds between two log lines of a container; with 1,000 containers on two cores, use `10` |
//! | `BENCH_WAYS_AT` | `100` | numbers of containers at which everything is measured; `all`: every number |
//! | `BENCH_WAYS` | `all` | the rows to measure: `agent`, `installed`, `engine-calls`, `beside` and the names in [`ways`] |
//! | `BENCH_PEERS` | `1` | `0` leaves out other agents |
//! | `BENCH_NODE_EXPORTER` | `prometheus-node-exporter` | the program node_exporter |
//! | `BENCH_CADVISOR` | `cadvisor` | the program cAdvisor; without it the part `figures` is left out, and `scrapes` has no row of cAdvisor |
//! | `BENCH_TELEGRAF` | `telegraf` | the program Telegraf |
//! | `BENCH_DOZZLE` | `dozzle` | the program Dozzle |
//! | `BENCH_BESZEL` | | the program Beszel's agent; without it the agent runs only beside the floor, and the other agents lack this one |
//! | `BENCH_SOAK` | `0` | seconds that one agent runs while other agents are measured; the bar needs `1800` |
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

mod agent;
mod beside;
mod calls;
mod containers;
mod engine_calls;
mod floor;
mod host;
mod installed;
mod peers;
mod plan;
mod row;
mod scrapes;
mod soak;
mod view;
mod ways;

use std::fs;
use std::time::Duration;

use agent::{Agent, Noted};
use calls::Calls;
use common::bars::Bars;
use common::engine::docker;
use common::load::median;
use common::{load, process};
use containers::Containers;
use plan::Plan;
use row::{Idle, Row};
use soak::Soak;

/// The number of starts. The result is their median time to the first complete snapshot.
const STARTS: usize = 3;
/// The time that an agent runs before the first window.
const WARM_UP: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Each of these functions runs in a process of its own, so that its CPU time and memory can be measured separately.
        ["way", name, label] => ways::run(name, label),
        ["floor"] => floor::run(),
        ["reading", agent] => beside::run(agent),
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
    // Counts the system calls without containers. The difference to this count shows the system calls for the containers.
    let costs = plan.has_part("costs");
    let bare = (costs && plan.more_than_agent()).then(|| Calls::of_agent(plan, 0));
    if costs {
        host::print(&mut bars);
    }
    if plan.has_part("figures") {
        scrapes::figures::compare(plan, &mut bars);
    }
    let is_needed =
        |count: &&usize| costs || (plan.has_part("scrapes") && plan.measures_more_at(**count));
    for &count in plan.containers.iter().filter(is_needed) {
        measure(plan, count, bare.as_ref(), &mut bars);
    }
    bars.print();
    if plan.strict && bars.missed() {
        std::process::exit(1);
    }
}

/// All measurements at one number of containers.
fn measure(plan: &Plan, count: usize, bare: Option<&Calls>, bars: &mut Bars) {
    println!("\n## {count} containers\n");
    let containers = Containers::start(count, plan.log_seconds);
    containers.settle();
    let since = containers::unix_seconds() + 1;
    if plan.has_part("costs") {
        measure_costs(plan, &containers, count, bare, bars);
    }
    if plan.has_part("scrapes") && plan.measures_more_at(count) {
        scrapes::print(plan, count, bars);
    }
    if containers::started_since(since) {
        println!(
            "\nDISTURBED: another program started containers on this engine during the measurement, measure again"
        );
    }
}

/// Measures the cost of the agent, of other ways and of other agents.
fn measure_costs(
    plan: &Plan,
    containers: &Containers,
    count: usize,
    bare: Option<&Calls>,
    bars: &mut Bars,
) {
    let measure_idle = || plan.measures_engine_at(count).then(|| Idle::measure(plan));
    let before = measure_idle();
    let agent = plan.has("agent").then(|| measure_agent(plan, count));
    let as_installed = plan
        .has("installed")
        .then(|| installed::measure(plan, count));
    let between = measure_idle();
    let mut rows = Vec::new();
    let (row, noted) = agent.unzip();
    if let (Some(before), Some(between)) = (&before, &between) {
        println!("idle engine, s/min: before the agent {before}; after the agent {between}\n");
        if let Some(row) = row {
            let row = row.over(before, between);
            row.check(count, bars);
            rows.push(row);
        }
        if let Some(row) = as_installed {
            let row = row.over(before, between);
            row.check_engine("as installed", count, bars);
            rows.push(row);
        }
        if !rows.is_empty() {
            row::print(&rows);
        }
    }
    if count > 0 && plan.has("installed") {
        installed::compare(plan, count, bars);
    }
    if count > 0 && plan.has("engine-calls") {
        engine_calls::measure(plan, count, bars);
    }
    if let Some(noted) = noted {
        print_ages(count, &noted, bars);
        print_starts(plan, count, bars);
    }
    if plan.has("beside") {
        beside::compare(plan, count, bars);
    }
    if count > 0 {
        floor::print(bars);
    }
    if let Some(between) = between.filter(|_| plan.measures_more_at(count)) {
        if let Some(bare) = bare.filter(|_| count > 0) {
            calls::print(bare, &Calls::of_agent(plan, count), count);
        }
        print_fast(plan, count, bars);
        view::print(plan, count, bars);
        let soak = plan.soaks_at(count).then(|| Soak::start(plan, count));
        let mut others = ways::measure(plan, containers);
        others.extend(peers::measure(plan));
        if let Some(soak) = soak {
            soak.print(bars);
        }
        let after = Idle::measure(plan);
        println!("\nidle engine, s/min: before the other ways {between}; after them {after}\n");
        rows.extend(others.into_iter().map(|row| row.over(&between, &after)));
        row::print(&rows);
    }
}

/// Measures the agent at its default intervals, with one client.
fn measure_agent(plan: &Plan, count: usize) -> (Row, Vec<Noted>) {
    let agent = Agent::start(plan, count, &[]);
    std::thread::sleep(WARM_UP);
    agent.forget();
    let row = Row::measure("System Agent", plan, || vec![agent.pid()]);
    (row, agent.noted())
}

/// Prints the age of the figures in snapshots.
fn print_ages(count: usize, noted: &[Noted], bars: &mut Bars) {
    println!("\n| age in a snapshot, ms | median | max |\n|---|---:|---:|");
    for source in ["system", "docker", "logs"] {
        let ages: Vec<f64> = noted.iter().filter_map(|one| one.age_ms(source)).collect();
        let most = ages.iter().copied().fold(0.0, f64::max);
        println!("| {source} | {:.0} | {most:.0} |", median(&ages));
        if source == "docker" && count > 0 {
            let what = format!("age of containers' figures, {count} containers");
            bars.at_most(&what, most / 1000.0, 1.0, "s");
        }
    }
}

/// Prints the time from the agent's start to a client's first snapshot with all containers in all sections.
fn print_starts(plan: &Plan, count: usize, bars: &mut Bars) {
    let starts = [(); STARTS].map(|()| Agent::start(plan, count, &[]).took.as_secs_f64());
    let took = median(&starts);
    println!("\nexec to first complete snapshot: {took:.2} s (median of {STARTS} starts)");
    if count <= 100 {
        let what = format!("exec to first complete snapshot, {count} containers");
        bars.at_most(&what, took, 0.4, "s");
    }
}

/// Measures the agent with all intervals at 100 ms.
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
    let noted = agent.noted();
    let expected = plan.window.div_duration_f64(interval);
    // Figures that are up to two intervals old count as fresh. With a limit of one interval, figures that are read just after a
    // tick would sometimes count as late.
    let most_ms = 2.0 * interval.as_secs_f64() * 1000.0;
    let ages = noted.iter().filter_map(|one| one.age_ms("docker"));
    let fresh = ages.filter(|&age| age <= most_ms).count();
    let percent = row.own / 60.0 * 100.0;
    println!(
        "\nat 100 ms intervals: {percent:.1} % of a core; {expected:.0} snapshots expected, {} received, {fresh} with figures of \
         the last two intervals, {} rounds of container figures, {} skipped",
        noted.len(),
        agent::docker_rounds(&noted),
        agent::skipped(&noted),
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
    let cores = std::thread::available_parallelism().expect("cannot find the number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let engine = docker(&["version", "--format", "{{.Server.Version}}"]);
    let cgroup = docker(&["info", "--format", "{{.CgroupVersion}}"]);
    println!(
        "# System Agent {}: cost\n\n{cores} cores, Linux {}, Docker {engine}, cgroup v{cgroup}; \
         containers on the engine's default network",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    );
}
