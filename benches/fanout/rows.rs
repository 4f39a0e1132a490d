//! Agent and floor in comparison: a row for each way and number of clients.

use std::thread;

use crate::common::bars::Bars;
use crate::load::median;
use crate::loaded::{Loaded, Window};
use crate::plan::Plan;
use crate::server::Server;
use crate::snapshots::Kind;
use crate::way::Way;

/// Limit of the agent's CPU time and spread, as a multiple of the floor's values. The spread is [`Figures::spread_ms`].
const MAX_OVER_FLOOR: f64 = 1.3;
/// Limits of the agent's memory per client, in KiB.
const MAX_KIB: f64 = 6.0;
const MAX_KIB_TLS: f64 = 40.0;
/// With at least this number of clients, the memory per client is exact enough for its bar.
const MEMORY_BAR_FROM: usize = 1000;

/// The cost of one delivered snapshot and of one client.
struct Figures {
    /// CPU microseconds per delivered snapshot.
    cpu_us: f64,
    /// The time from the arrival of a snapshot at the first client to its arrival at the last client, in milliseconds. Median of
    /// all snapshots.
    spread_ms: f64,
    kib_per_client: f64,
}

pub(crate) fn measure(plan: &Plan, kind: &Kind, large: bool, bars: &mut Bars) {
    println!("\n## Snapshots of {}: agent / floor\n", kind.name());
    println!(
        "| way | clients | interval s | CPU µs per snapshot | ratio | first to last client ms | ratio | on time % | skipped | KiB per client |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (way, clients) in plan.rows(large) {
        if let Err(why) = row(plan, kind, way, clients, bars) {
            println!("| {} | {clients} | NOT MEASURED: {why} |", way.name());
            bars.at_most(
                &format!("{}, {}, {clients} clients", kind.name(), way.name()),
                f64::NAN,
                MAX_OVER_FLOOR,
                "×",
            );
        }
    }
}

fn row(plan: &Plan, kind: &Kind, way: Way, clients: usize, bars: &mut Bars) -> Result<(), String> {
    eprintln!("{} {}, {clients} clients", kind.name(), way.name());
    let interval = plan.interval_of_row(kind.bytes, clients);
    let server = Server::agent(plan, kind, way, interval, &[]);
    let crowd = server.clients(clients);
    let mut agent = Loaded::gather(server, crowd, interval)?;
    let first_tick = agent.between_ticks();
    let server = Server::floor(plan, kind, way, interval, first_tick);
    let crowd = server.clients(clients);
    let mut floor = Loaded::gather(server, crowd, interval)?.ticking_at(first_tick);

    let intervals = plan.snapshots_in_window(interval);
    let agent_before = agent.begin();
    let floor_before = floor.begin();
    thread::sleep(interval * (intervals - 1));
    let agents = agent.end(agent_before, intervals);
    let floors = floor.end(floor_before, intervals);

    let (over, under) = (Figures::of(&agent, &agents), Figures::of(&floor, &floors));
    let (cpu, spread) = (over.cpu_us / under.cpu_us, over.spread_ms / under.spread_ms);
    println!(
        "| {} | {clients} | {} | {:.1} / {:.1} | {cpu:.2} | {:.1} / {:.1} | {spread:.2} | {:.2} | {} | {:.1} / {:.1} |",
        way.name(),
        interval.as_secs(),
        over.cpu_us,
        under.cpu_us,
        over.spread_ms,
        under.spread_ms,
        100.0 * (1.0 - agents.late() as f64 / agents.expected as f64),
        agents.report.skipped,
        over.kib_per_client,
        under.kib_per_client,
    );
    let missing = floors.expected.saturating_sub(floors.report.deliveries());
    if missing > 0 {
        println!(
            "\nNOTE: {missing} of the floor's snapshots came too late or not at all, so measure with a longer BENCH_INTERVAL\n"
        );
    }
    let of = format!("{}, {}, {clients} clients", kind.name(), way.name());
    bars.at_most(
        &format!("CPU per snapshot over the floor's, {of}"),
        cpu,
        MAX_OVER_FLOOR,
        "×",
    );
    bars.at_most(
        &format!("first to last client over the floor's, {of}"),
        spread,
        MAX_OVER_FLOOR,
        "×",
    );
    if clients >= MEMORY_BAR_FROM {
        let most = if way == Way::Tls {
            MAX_KIB_TLS
        } else {
            MAX_KIB
        };
        bars.at_most(
            &format!("memory per client, {of}"),
            over.kib_per_client,
            most,
            "KiB",
        );
    }
    Ok(())
}

impl Figures {
    fn of(loaded: &Loaded, window: &Window) -> Self {
        let report = &window.report;
        let spreads: Vec<f64> = report
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.count == loaded.crowd.readers())
            .map(|snapshot| snapshot.spread.as_secs_f64() * 1000.0)
            .collect();
        Self {
            cpu_us: window.cpu * 1e6 / report.deliveries() as f64,
            spread_ms: median(&spreads),
            kib_per_client: loaded.kib_per_client(),
        }
    }
}
