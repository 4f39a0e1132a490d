//! Measures how the agent delivers log lines: completeness, CPU time and memory. `docker logs --follow` and rsyslog read the same
//! logs in the same run, for comparison.
//!
//! | variable | default | |
//! |---|---|---|
//! | `BENCH_PARTS` | `many,fast,slow,live,quiet,short,crowd,kills` | the parts to run |
//! | `BENCH_CONTAINERS` | `100` | containers of the parts `many`, `live`, `quiet` and `crowd` |
//! | `BENCH_SECONDS` | `60` | length of a window in seconds |
//! | `BENCH_SLOW_SECONDS` | `300` | duration of `slow` |
//! | `BENCH_SHORT` | `1000` | containers of `short` |
//! | `BENCH_CLIENTS` | `1000` | clients of `crowd`, of the agent and of the bare server each |
//! | `BENCH_RATE` | `30` | log lines a second of each container of `crowd` |
//! | `BENCH_KILLS` | `20` | disturbances of `kills` |
//! | `BENCH_CUT_SECONDS` | `30` | length of a network cut of `kills` |
//! | `BENCH_STRICT` | `0` | `1`: the run fails if a bar is missed |
//! | `BENCH_AGENT` | | the agent's release binary |

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its results, and ends at the first error"
)]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of the common code")]
mod common;
mod crowd;
mod kills;
mod private;
mod reader;
mod relay;
mod rsyslog;
mod shipper;

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::bars::Bars;
use common::engine::{answers, docker, label, remove_containers, start_containers};
use common::load::{Load, anonymous_mib, cpu_seconds, engine_processes, median, tree};
use common::process::{Process, clean_up_at_signals};
use common::{agent, variables};
use reader::{Reader, Speed, Tally};
use rsyslog::Rsyslog;

/// The length of the text of each log line, in bytes.
const LINE: usize = 100;
/// Time in which the agent and the engine become steady.
const WARM_UP: Duration = Duration::from_secs(15);
/// Time after the end of the writing in which the last log lines must arrive.
const DRAIN: Duration = Duration::from_secs(20);

struct Plan {
    agent: PathBuf,
    containers: usize,
    window: Duration,
    slow: Duration,
    /// The number of clients in the part `crowd`, and the log lines a second of each of its containers.
    clients: usize,
    rate: u64,
    /// The number of disturbances in the part `kills`, and the length of each network cut.
    kills: usize,
    cut: Duration,
}

/// The containers of one part. Removed on drop.
struct Writers;

impl Writers {
    fn start(count: usize, options: &[&str], script: &str) -> Self {
        let writers = Self;
        start_containers(count, options, script);
        writers
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        remove_containers();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Each of these functions runs in a process of its own, so that its CPU time can be measured separately.
        ["bare", agent] => crowd::run_bare(agent),
        ["readers", address, clients] => crowd::run_readers(address, clients),
        _ => return bench(),
    }
    ExitCode::SUCCESS
}

fn bench() -> ExitCode {
    assert!(answers(), "no Docker engine answers");
    clean_up_at_signals();
    let plan = Plan {
        agent: variables::text("BENCH_AGENT", "target/release/system-agent").into(),
        containers: variables::number("BENCH_CONTAINERS", "100") as usize,
        window: Duration::from_secs(variables::number("BENCH_SECONDS", "60")),
        slow: Duration::from_secs(variables::number("BENCH_SLOW_SECONDS", "300")),
        clients: variables::number("BENCH_CLIENTS", "1000") as usize,
        rate: variables::number("BENCH_RATE", "30"),
        kills: variables::number("BENCH_KILLS", "20") as usize,
        cut: Duration::from_secs(variables::number("BENCH_CUT_SECONDS", "30")),
    };
    let parts = variables::text("BENCH_PARTS", "many,fast,slow,live,quiet,short,crowd,kills");
    let mut bars = Bars::default();
    for part in parts.split(',') {
        match part {
            "many" => many(&plan, &mut bars),
            "fast" => fast(&plan, &mut bars),
            "slow" => slow(&plan, &mut bars),
            "live" => live(&plan, &mut bars),
            "quiet" => quiet(&plan, &mut bars),
            "short" => short(&plan, &mut bars),
            "crowd" => crowd::measure(&plan, &mut bars),
            "kills" => kills::measure(&plan, &mut bars),
            other => panic!("BENCH_PARTS: unknown part {other}"),
        }
    }
    bars.print();
    let strict = variables::text("BENCH_STRICT", "0") == "1";
    if strict && bars.missed() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The containers of this run: ids without the rest.
fn ids() -> Vec<String> {
    let filter = format!("label={}", label());
    let ids = docker(&["ps", "--quiet", "--no-trunc", "--filter", &filter]);
    ids.lines().map(str::to_owned).collect()
}

/// Starts the agent. Returns its address.
fn start(plan: &Plan) -> (Process, SocketAddr) {
    let (process, first) = agent::start(&plan.agent, &[]);
    (process, first.peer_addr().unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("the agent does not listen")
}

/// Many containers that write 100 log lines a second, in bursts.
fn many(plan: &Plan, bars: &mut Bars) {
    let count = plan.containers;
    println!("\n## {count} containers with 100 lines a second of {LINE} bytes\n");
    let filler = "x".repeat(LINE - 8);
    let script = format!(
        "i=0; while :; do n=100; while [ $n -gt 0 ]; do echo \"$i {filler}\"; i=$((i+1)); n=$((n-1)); done; sleep 1; done"
    );
    let _writers = Writers::start(count, &["--network", "none"], &script);
    thread::sleep(WARM_UP);
    let idle = Load::over(plan.window, engine_processes).per_minute(plan.window);

    let agents = [
        ("as root", Command::new(&plan.agent)),
        ("as installed", agent::as_installed(&plan.agent)),
    ];
    let of_agents = agents.map(|(how, agent)| (how, Delivery::measure(plan, agent, idle)));

    let followers: Vec<Process> = ids().iter().map(|id| follow(id)).collect();
    thread::sleep(WARM_UP);
    let clients = || {
        followers
            .iter()
            .flat_map(|one| tree(one.pid()))
            .collect::<Vec<_>>()
    };
    let clients_before = Load::now(&clients());
    let engine_before = Load::now(&engine_processes());
    thread::sleep(plan.window);
    let of_clients = Load::now(&clients())
        .since(&clients_before)
        .per_minute(plan.window);
    let of_engine = Load::now(&engine_processes())
        .since(&engine_before)
        .per_minute(plan.window)
        - idle;
    drop(followers);
    let line_megabytes = of_agents[0].1.line_megabytes;
    let of_rsyslog = with_rsyslog(plan, idle, line_megabytes);

    println!("| reader | own CPU, s/min | engine CPU added, s/min | ms of CPU per MB |");
    println!("|---|---:|---:|---:|");
    for (how, agent) in &of_agents {
        let per_mb = agent.cpu() / agent.megabytes * 1000.0;
        let Delivery { own, engine, .. } = agent;
        println!("| System Agent {how} | {own:.2} | {engine:.2} | {per_mb:.1} |");
    }
    let per_mb = (of_clients + of_engine) / of_agents[0].1.megabytes * 1000.0;
    println!("| `docker logs --follow` | {of_clients:.2} | {of_engine:.2} | {per_mb:.1} |");
    println!("| rsyslog with imfile | {of_rsyslog} |\n");
    println!("engine without readers: {idle:.2} s/min");
    for (how, agent) in &of_agents {
        agent.judge(how, of_clients + of_engine, bars);
    }
}

/// What an agent delivered to one client, and at what cost.
struct Delivery {
    tally: Tally,
    /// CPU time of the agent and additional CPU time of the engine, in seconds for each minute.
    own: f64,
    engine: f64,
    /// Log lines received in each minute.
    megabytes: f64,
    /// The mean size of a received line.
    line_megabytes: f64,
    /// Anonymous memory without a client, and the greatest value with one, in MiB.
    memory: (f64, f64),
}

impl Delivery {
    /// Measures an agent. `idle` is the CPU time of the engine without readers, in seconds for each minute.
    fn measure(plan: &Plan, agent: Command, idle: f64) -> Self {
        let (process, first) = agent::start_by(agent, &[]);
        let address = first.peer_addr().unwrap();
        drop(first);
        thread::sleep(WARM_UP);
        let memory_before = anonymous_mib(&[process.pid()]);
        let reader = Reader::start(connect(address), Speed::Full);
        thread::sleep(WARM_UP);
        let own_before = Load::now(&[process.pid()]);
        let engine_before = Load::now(&engine_processes());
        let bytes_before = reader.bytes();
        let mut memory = memory_before;
        let began = Instant::now();
        while began.elapsed() < plan.window {
            thread::sleep(Duration::from_millis(200));
            memory = anonymous_mib(&[process.pid()]).max(memory);
        }
        let window = began.elapsed();
        let own = Load::now(&[process.pid()]).since(&own_before);
        let engine = Load::now(&engine_processes()).since(&engine_before);
        let delivered = (reader.bytes() - bytes_before) as f64 / 1e6;
        let megabytes = reader.bytes() as f64 / 1e6;
        let tally = reader.finish();
        Self {
            own: own.per_minute(window),
            engine: engine.per_minute(window) - idle,
            megabytes: delivered * 60.0 / window.as_secs_f64(),
            line_megabytes: megabytes / tally.lines as f64,
            memory: (memory_before, memory),
            tally,
        }
    }

    fn cpu(&self) -> f64 {
        self.own + self.engine.max(0.0)
    }

    /// Prints what was delivered, and notes the bars. `of_followers` is the CPU time of `docker logs --follow` and the engine.
    fn judge(&self, how: &str, of_followers: f64, bars: &mut Bars) {
        let Tally {
            lines,
            lost,
            repeated,
            dropped,
            ..
        } = &self.tally;
        let (before, most) = self.memory;
        println!(
            "{how}: {lines} lines, {lost} lost, {repeated} repeated, {dropped} counted as dropped; anonymous memory {before:.1} to {most:.1} MiB"
        );
        let mut at_most = |what: &str, value: f64, bar, unit| {
            bars.at_most(&format!("many, {how}: {what}"), value, bar, unit);
        };
        let wrong = (lost + repeated + dropped) as f64;
        at_most("lost or repeated", wrong, 0.0, "lines");
        let share = self.own / 60.0 * 100.0;
        at_most("CPU of the agent", share, 5.0, "% of a core");
        at_most("anonymous memory added", most - before, 8.0, "MiB");
        let ratio = self.cpu() / of_followers;
        at_most("CPU over `docker logs --follow`", ratio, 0.25, "×");
    }
}

/// Reads the log files with rsyslog. Returns the row of the table without its first cell. `megabytes` is the size of a line as the
/// agent delivers it.
fn with_rsyslog(plan: &Plan, idle: f64, megabytes: f64) -> String {
    let Some(rsyslog) = Rsyslog::start() else {
        return "NOT MEASURED: rsyslogd is not installed | | ".to_owned();
    };
    thread::sleep(WARM_UP);
    let own = || Load::now(&tree(rsyslog.process.pid()));
    let (lines_before, own_before) = (rsyslog.lines(), own());
    let engine_before = Load::now(&engine_processes());
    thread::sleep(plan.window);
    let own = own().since(&own_before).per_minute(plan.window);
    let engine = Load::now(&engine_processes())
        .since(&engine_before)
        .per_minute(plan.window)
        - idle;
    let lines = (rsyslog.lines() - lines_before) as f64 * 60.0 / plan.window.as_secs_f64();
    let per_mb = (own + engine.max(0.0)) / (lines * megabytes) * 1000.0;
    format!("{own:.2} | {engine:.2} | {per_mb:.1}")
}

/// Follows a log with Docker's client. Reads no earlier lines.
fn follow(id: &str) -> Process {
    let mut client = Command::new("docker");
    client.args(["logs", "--follow", "--tail", "0", id]);
    client.stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(&mut client).expect("cannot start Docker's client")
}

/// A container that writes as fast as the engine takes it, for 10 s.
fn fast(plan: &Plan, bars: &mut Bars) {
    println!("\n## One container that writes as fast as it can for 10 s\n");
    let (process, first) = agent::start(&plan.agent, &[]);
    let reader = Reader::start(first, Speed::Full);
    thread::sleep(Duration::from_secs(6));
    let options = [
        "--network",
        "none",
        "--log-opt",
        "max-size=100m",
        "--log-opt",
        "max-file=3",
    ];
    // `awk` writes whole buffers, and ends by itself so that its last line is complete.
    let script = format!(
        "sleep 1; awk 'BEGIN {{ end = systime() + 10; for (i = 0; i % 1000 || systime() < end; i++) print i \" {}\" }}'; sleep 1000",
        "x".repeat(LINE - 8)
    );
    let _writers = Writers::start(1, &options, &script);
    thread::sleep(Duration::from_secs(12) + DRAIN);
    let written = docker(&["logs", "--tail", "1", &ids()[0]]);
    let newest: u64 = written
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a number");
    let memory = anonymous_mib(&[process.pid()]);
    let tally = reader.finish();
    let missing = (newest + 1).abs_diff(tally.lines + tally.dropped);
    println!(
        "{} lines written, {} received, {} counted as dropped, {} repeated, {missing} neither received nor counted; anonymous memory at the end {memory:.1} MiB",
        newest + 1,
        tally.lines,
        tally.dropped,
        tally.repeated
    );
    bars.at_most(
        "fast: neither received nor counted",
        missing as f64,
        0.0,
        "lines",
    );
    bars.at_most("fast: repeated", tally.repeated as f64, 0.0, "lines");
}

/// A live client of many containers that write 10 log lines a second.
fn live(plan: &Plan, bars: &mut Bars) {
    let count = plan.containers;
    println!("\n## A live client of {count} containers with 10 lines a second\n");
    let script = format!(
        "i=0; while :; do echo \"$i {}\"; i=$((i+1)); usleep 100000; done",
        "x".repeat(LINE - 8)
    );
    let _writers = Writers::start(count, &["--network", "none"], &script);
    let (process, address) = start(plan);
    thread::sleep(WARM_UP);
    let reader = Reader::start_live(connect(address));
    thread::sleep(WARM_UP);
    let before = Load::now(&[process.pid()]);
    // Lines from before the client connected come at its start, so they do not count.
    let begin = Instant::now();
    thread::sleep(plan.window);
    let own = Load::now(&[process.pid()]).since(&before);
    let own = own.per_minute(plan.window);
    let tally = reader.finish();
    let received = tally.delays.iter();
    let mut delays: Vec<_> = received
        .filter(|(at, _)| *at >= begin)
        .map(|(_, delay)| *delay)
        .collect();
    delays.sort_unstable();
    let part = |share: f64| {
        let place = (delays.len() as f64 * share) as usize;
        delays[place].as_secs_f64() * 1000.0
    };
    let (median, tail) = (part(0.5), part(0.99));
    println!(
        "{} lines, {} lost, {} repeated, {} dropped; {} of them between two snapshots",
        tally.lines,
        tally.lost,
        tally.repeated,
        tally.dropped,
        tally.delays.len()
    );
    println!("from the engine's timestamp to the receipt: p50 {median:.1} ms, p99 {tail:.1} ms");
    println!("CPU of the agent: {own:.2} s/min");
    bars.at_most("live: p50", median, 30.0, "ms");
    bars.at_most("live: p99", tail, 100.0, "ms");
    let wrong = tally.lost + tally.repeated + tally.dropped;
    bars.at_most("live: lost or repeated", wrong as f64, 0.0, "lines");
}

/// A live client and another client of many containers that write nothing, one after the other, twice.
fn quiet(plan: &Plan, bars: &mut Bars) {
    let count = plan.containers;
    println!("\n## A live client of {count} containers that write nothing\n");
    let _writers = Writers::start(count, &["--network", "none"], "sleep 100000");
    let (process, address) = start(plan);
    thread::sleep(WARM_UP);
    let mut used = [0.0; 2];
    for round in 0..4 {
        let is_live = round % 2;
        let reader = match is_live {
            0 => Reader::start(connect(address), Speed::Full),
            _ => Reader::start_live(connect(address)),
        };
        thread::sleep(Duration::from_secs(3));
        let before = cpu_seconds(process.pid());
        thread::sleep(plan.window / 2);
        let own = cpu_seconds(process.pid()) - before;
        used[is_live] += own * 60.0 / plan.window.as_secs_f64();
        reader.finish();
    }
    let [without, with] = used;
    println!("CPU of the agent: {without:.3} s/min without `live`, {with:.3} s/min with it");
    bars.at_most(
        "quiet: CPU with live over without",
        with / without,
        1.05,
        "×",
    );
}

/// Containers that run for 300 ms. The engine removes half of them when they end.
fn short(plan: &Plan, bars: &mut Bars) {
    let count = variables::number("BENCH_SHORT", "1000") as usize;
    println!("\n## {count} containers of 300 ms, half with `--rm`\n");
    let (process, first) = agent::start(&plan.agent, &[]);
    let reader = Reader::start(first, Speed::Full);
    thread::sleep(Duration::from_secs(6));
    let script = "for i in 0 1 2 3 4; do echo $i; done; sleep 0.3; echo 5";
    let began = Instant::now();
    for _ in 0..count.div_ceil(20) {
        let _writers = Writers::start(10, &["--network", "none"], script);
        start_containers(10, &["--network", "none", "--rm"], script);
        thread::sleep(Duration::from_millis(500));
    }
    thread::sleep(DRAIN);
    let took = began.elapsed() - DRAIN;
    drop(process);
    let tally = reader.finish();
    let whole = tally.next.values().filter(|next| **next == 6).count();
    println!(
        "{} containers in {:.0} s; {whole} with all six lines; {} lines, {} dropped and counted, {} repeated",
        count.div_ceil(20) * 20,
        took.as_secs_f64(),
        tally.lines,
        tally.dropped,
        tally.repeated
    );
    let all = count.div_ceil(20) as u64 * 20 * 6;
    let missing = all.abs_diff(tally.lines + tally.dropped);
    bars.at_most(
        "short: neither received nor counted",
        missing as f64,
        0.0,
        "lines",
    );
}

/// A client that reads 10 KB/s beside a fast one. The container writes 5 MB/s.
fn slow(plan: &Plan, bars: &mut Bars) {
    println!(
        "\n## A client that reads 10 KB/s beside a fast client, for {} s\n",
        plan.slow.as_secs()
    );
    let options = [
        "--network",
        "none",
        // The files must hold the lines of an interval. Otherwise Docker deletes lines before any client can get them.
        "--log-opt",
        "max-size=50m",
        "--log-opt",
        "max-file=3",
    ];
    let script = format!(
        "n=0; while :; do awk \"BEGIN {{ for (i = $n; i < $n + 5000; i++) print i \\\" {}\\\" }}\"; n=$((n+5000)); usleep 80000; done",
        "x".repeat(LINE - 8)
    );
    let (process, first) = agent::start(&plan.agent, &[]);
    let address = first.peer_addr().unwrap();
    let _writers = Writers::start(1, &options, &script);
    let fast = Reader::start(first, Speed::Full);
    let slow = Reader::start(reader::narrow(address), Speed::BytesPerSecond(10_000));
    let begin = Instant::now();
    thread::sleep(plan.slow / 5);
    let mut memory = Vec::new();
    while begin.elapsed() < plan.slow {
        memory.push(anonymous_mib(&[process.pid()]));
        thread::sleep(Duration::from_millis(500));
    }
    let (slow, fast) = (slow.finish(), fast.finish());
    println!("| client | lines | dropped | lost | repeated |");
    println!("|---|---:|---:|---:|---:|");
    for (name, tally) in [("fast", &fast), ("slow", &slow)] {
        println!(
            "| {name} | {} | {} | {} | {} |",
            tally.lines, tally.dropped, tally.lost, tally.repeated
        );
    }
    // Single figures vary, because the agent reads in pieces and returns free memory to the kernel once a minute.
    let (first, second) = memory.split_at(memory.len() / 2);
    let [before, after] = [first, second].map(median);
    let most = memory.iter().copied().fold(0.0, f64::max);
    println!(
        "\nanonymous memory: medians of the two halves {before:.2} and {after:.2}, at most {most:.2} MiB"
    );
    bars.at_most(
        "slow: lines that the fast client lost",
        (fast.lost + fast.dropped) as f64,
        0.0,
        "lines",
    );
    bars.at_most(
        "slow: lines not counted exactly",
        slow.lost as f64,
        0.0,
        "lines",
    );
    bars.at_most(
        "slow: change of the agent's memory",
        (after - before).abs() / before * 100.0,
        5.0,
        "%",
    );
}
