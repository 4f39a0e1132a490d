//! Measures scrapes of the agent, beside node_exporter and cAdvisor. All three programs run at the same time, and a scraper asks each
//! of them every 15 s, as Prometheus does. Two more agents run without a scraper: one with `METRICS_PORT`, one without.
//!
//! The module [`figures`] compares the figures of the agent and of cAdvisor.

pub(crate) mod figures;
mod http;
mod prometheus;
mod targets;

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use targets::Target;

use crate::common::bars::Bars;
use crate::common::load::{Load, engine_processes, median, percentile};
use crate::plan::Plan;

/// The time between two scrapes of a program.
const INTERVAL: Duration = Duration::from_secs(15);
/// Number of scrapes of each program that are timed.
const SCRAPES: u64 = 150;
/// The least time between two timed scrapes. The agent returns the same text to scrapers that ask within one second.
const PAUSE: Duration = Duration::from_millis(1050);
/// The time that all programs run before the first window.
const WARM_UP: Duration = Duration::from_secs(30);

/// Limit for the agent's CPU time, compared with that of node_exporter and cAdvisor together.
const MAX_SHARE: f64 = 0.25;
/// Limit for the 99th percentile of the time of a scrape, in milliseconds.
const MAX_MS: f64 = 20.0;
/// Limit for the size of the agent's metrics with gzip, in KB.
const MAX_KB: f64 = 60.0;
/// Limit for the CPU time of an agent with `METRICS_PORT` and without a scraper, compared with an agent without `METRICS_PORT`.
const MAX_UNASKED: f64 = 1.1;

/// The measurements of one program.
struct Measured {
    target: Target,
    is_scraped: bool,
    /// One value for each window. CPU time is in seconds per minute.
    own: Vec<f64>,
    rss_mib: Vec<f64>,
    anonymous_mib: Vec<f64>,
    /// The time and the CPU time of each timed scrape, in milliseconds.
    took: Vec<f64>,
    took_cpu: Vec<f64>,
    /// The size of the metrics in bytes: plain, with gzip, with zstd. `None` if the program does not have the compression.
    sizes: [Option<f64>; 3],
}

impl Measured {
    fn new(target: Target, is_scraped: bool) -> Self {
        Self {
            target,
            is_scraped,
            own: Vec::new(),
            rss_mib: Vec::new(),
            anonymous_mib: Vec::new(),
            took: Vec::new(),
            took_cpu: Vec::new(),
            sizes: [None; 3],
        }
    }
}

pub(crate) fn print(plan: &Plan, count: usize, bars: &mut Bars) {
    eprintln!("{count} containers: measuring scrapes");
    let window = plan.window.max(INTERVAL);
    println!(
        "\nscrapes: each program scraped every {} s, {} windows of {} s; {SCRAPES} scrapes timed, more than {:.2} s apart\n",
        INTERVAL.as_secs(),
        plan.windows,
        window.as_secs(),
        PAUSE.as_secs_f64()
    );
    let mut all = Vec::new();
    let agent = |name| Target::agent(plan, name, count, &[]);
    all.push(Measured::new(agent("System Agent"), true));
    for (name, peer) in [
        ("node_exporter", Target::node_exporter(plan)),
        ("cAdvisor", Target::cadvisor(plan, count, &[])),
    ] {
        match peer {
            Ok(peer) => all.push(Measured::new(peer, true)),
            Err(reason) => println!("NOTE: {name} is left out: {reason}\n"),
        }
    }
    let has_peers = all.len() == 3;
    let unasked = agent("System Agent, METRICS_PORT, nobody asks");
    all.push(Measured::new(unasked, false));
    let without = Target::agent_without_metrics(plan, "System Agent without METRICS_PORT");
    all.push(Measured::new(without, false));

    measure_windows(plan, window, &mut all);
    time_scrapes(&mut all);
    print_rows(&all);
    check(count, &all, has_peers, bars);
    drop(all);
    print_engine(plan, window, count);
}

/// Measures all programs at the same time, while a scraper asks for their metrics.
fn measure_windows(plan: &Plan, window: Duration, all: &mut [Measured]) {
    let (end, ended) = channel::<()>();
    thread::scope(|scope| {
        let scraped = all.iter().filter(|one| one.is_scraped);
        let scrapers: Vec<_> = scraped.map(|one| one.target.scraper()).collect();
        scope.spawn(move || scrape_until(&scrapers, &ended));
        thread::sleep(WARM_UP);
        for number in 1..=plan.windows {
            eprintln!("measuring: scrapes, window {number}");
            let before: Vec<f64> = all.iter().map(|one| one.target.cpu()).collect();
            thread::sleep(window);
            for (one, before) in all.iter_mut().zip(before) {
                let used = one.target.cpu() - before;
                one.own.push(used * 60.0 / window.as_secs_f64());
                one.rss_mib.push(one.target.rss_mib());
                one.anonymous_mib.push(one.target.anonymous_mib());
            }
        }
        drop(end);
    });
}

/// Scrapes these programs in turn, each every [`INTERVAL`], until the sender is dropped.
fn scrape_until(programs: &[targets::Scraper], end: &Receiver<()>) {
    let step = INTERVAL / u32::try_from(programs.len()).expect("there are few programs");
    let mut next = Instant::now();
    for program in programs.iter().cycle() {
        next += step;
        let pause = next.saturating_duration_since(Instant::now());
        if end.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        program.scrape();
    }
}

/// Measures the time and CPU time of scrapes, and the size of the metrics.
fn time_scrapes(all: &mut [Measured]) {
    eprintln!("measuring: the time of a scrape");
    for number in 0..SCRAPES {
        // The pause varies, so that the scrapes meet all phases of the programs' own rounds.
        thread::sleep(PAUSE + Duration::from_millis(number * 37 % 200));
        for one in all.iter_mut().filter(|one| one.is_scraped) {
            let before = one.target.cpu();
            one.took.push(one.target.scraper().scrape());
            one.took_cpu.push((one.target.cpu() - before) * 1000.0);
        }
    }
    for one in all.iter_mut().filter(|one| one.is_scraped) {
        one.sizes = ["", "gzip", "zstd"].map(|encoding| one.target.scraper().size(encoding));
    }
}

fn print_rows(all: &[Measured]) {
    println!(
        "| program | own CPU s/min | RSS MiB | anonymous MiB | scrape ms, median | 99 % | worst | CPU ms per scrape | KB | gzip | zstd |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for one in all {
        let cell = |value: f64, digits: usize| match value.is_nan() {
            true => String::new(),
            false => format!("{value:.digits$}"),
        };
        let sizes = one.sizes.map(|size| cell(kb(size), 0)).join(" | ");
        println!(
            "| {} | {:.3} | {:.1} | {:.1} | {} | {} | {} | {} | {sizes} |",
            one.target.name,
            median(&one.own),
            median(&one.rss_mib),
            median(&one.anonymous_mib),
            cell(median(&one.took), 1),
            cell(percentile(&one.took, 0.99), 1),
            cell(percentile(&one.took, 1.0), 1),
            cell(median(&one.took_cpu), 1),
        );
    }
}

/// Bytes in KB, or NaN without a value.
fn kb(bytes: Option<f64>) -> f64 {
    bytes.map_or(f64::NAN, |bytes| bytes / 1000.0)
}

fn check(count: usize, all: &[Measured], has_peers: bool, bars: &mut Bars) {
    let own = |index: usize| median(&all[index].own);
    let agent = &all[0];
    if has_peers {
        let what = format!("own CPU, scraped, over node_exporter and cAdvisor, {count} containers");
        bars.at_most(&what, own(0) / (own(1) + own(2)), MAX_SHARE, "×");
    }
    let what = format!("99 % of scrapes, {count} containers");
    bars.at_most(&what, percentile(&agent.took, 0.99), MAX_MS, "ms");
    let what = format!("size of the metrics with gzip, {count} containers");
    bars.at_most(&what, kb(agent.sizes[1]), MAX_KB, "KB");
    let what =
        format!("own CPU with METRICS_PORT and no scraper, over without, {count} containers");
    let (unasked, without) = (all.len() - 2, all.len() - 1);
    bars.at_most(&what, own(unasked) / own(without), MAX_UNASKED, "×");
}

/// Measures what each program alone adds to the engine's CPU time.
fn print_engine(plan: &Plan, window: Duration, count: usize) {
    let engine = || Load::over(window, engine_processes).per_minute(window);
    let alone = |target: Result<Target, String>| {
        let target = target.ok()?;
        eprintln!("measuring: the engine, with {}", target.name);
        let (end, ended) = channel::<()>();
        let scraper = target.scraper();
        let scraping = thread::spawn(move || scrape_until(&[scraper], &ended));
        thread::sleep(INTERVAL);
        let used = engine();
        drop(end);
        scraping.join().expect("a scrape has failed");
        Some((target.name, used))
    };
    let before = engine();
    let used = [
        alone(Ok(Target::agent(plan, "System Agent", count, &[]))),
        alone(Target::node_exporter(plan)),
        alone(Target::cadvisor(plan, count, &[])),
    ];
    let after = engine();
    let idle = f64::midpoint(before, after);
    let added = used.into_iter().flatten();
    let added: Vec<String> = added
        .map(|(name, used)| format!("{name} {:.2}", used - idle))
        .collect();
    println!(
        "\nengine CPU added by each program alone, s/min: {}; idle engine {before:.2} before, {after:.2} after",
        added.join(", ")
    );
}
