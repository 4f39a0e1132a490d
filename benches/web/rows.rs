//! The CPU time and the memory of the server.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::agents::Agents;
use crate::browser::EventStream;
use crate::common::bars::Bars;
use crate::common::load::{anonymous_mib, cpu_seconds, rss_mib};
use crate::plan::Plan;
use crate::server::Server;
use crate::{past, queries, view};

/// The highest CPU time with the first number of agents, in percent of a core.
const MAX_CPU: f64 = 10.0;
/// The highest CPU time with the second number of agents, in percent of a core.
const MAX_CPU_OF_FEW: f64 = 1.0;
/// The largest resident memory, in MiB.
const MAX_RSS: f64 = 150.0;

/// The result of a window.
struct Measured {
    /// In percent of a core.
    cpu: f64,
    rss: f64,
    anonymous: f64,
    /// The number of snapshots per second that the agents sent.
    snapshots: f64,
    /// The bytes per second that browsers read.
    bytes: f64,
}

impl Measured {
    /// Measures a window. `streams` are the browsers.
    fn now(plan: &Plan, server: &Server, agents: &Agents, streams: &[EventStream]) -> Self {
        let bytes = || streams.iter().map(EventStream::bytes).sum::<u64>();
        let before = (cpu_seconds(server.pid()), agents.counts.sent(), bytes());
        let started = Instant::now();
        thread::sleep(plan.window);
        let seconds = started.elapsed().as_secs_f64();
        let cpu = cpu_seconds(server.pid()) - before.0;
        server.assert_live();
        Self {
            cpu: cpu / seconds * 100.0,
            rss: rss_mib(&[server.pid()]),
            anonymous: anonymous_mib(&[server.pid()]),
            snapshots: (agents.counts.sent() - before.1) as f64 / seconds,
            bytes: (bytes() - before.2) as f64 / seconds,
        }
    }

    fn print(&self, agents: usize, browsers: &str) {
        println!(
            "| {agents} | {browsers} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} |",
            self.cpu,
            self.rss,
            self.anonymous,
            self.snapshots,
            self.bytes / 1000.0
        );
    }
}

/// Measures the server with few agents, and then with many.
pub(crate) fn measure(plan: &Plan, recorded: &Arc<Value>, bars: &mut Bars) {
    println!(
        "\n## The server\n\nCPU in percent of a core, memory in MiB.\n\n\
         | agents | browsers | CPU | RSS | anonymous | snapshots/s | to browsers, KB/s |\n|--:|---|--:|--:|--:|--:|--:|"
    );
    let few_agents = Agents::start(plan, recorded, plan.few);
    let few = of_few(plan, &few_agents);
    few.print(plan.few, "none");

    let agents = Agents::start(plan, recorded, plan.agents);
    let folder = past::folder(plan.directory.path(), "history");
    let old = agents.addresses[0].to_string();
    past::write_year(&folder, &old, recorded);
    let server = Server::start(plan, &agents, &folder);
    thread::sleep(plan.warm_up);
    let row = |browsers: &str, streams: &[EventStream]| {
        let measured = Measured::now(plan, &server, &agents, streams);
        measured.print(plan.agents, browsers);
        measured
    };
    let nobody = row("none", &[]);
    let of_table = EventStream::open(server.address, "/api/v1/stream");
    let mut streams = vec![of_table];
    row("one: the table", &streams);
    let of_host = format!("/api/v1/stream?host={}", server.hosts[0]);
    streams.push(EventStream::open(server.address, &of_host));
    row("two: the table, a host", &streams);
    drop(streams);

    queries::measure(plan, &server, &old, bars);
    view::measure(&server);
    drop(server);
    let with_logs = [&few_agents, &agents].map(print_asked).iter().sum::<u64>();

    let what = |agents: usize| format!("{agents} agents, no browser");
    bars.at_most(&what(plan.agents), nobody.cpu, MAX_CPU, "% of a core");
    bars.at_most(&what(plan.agents), nobody.rss, MAX_RSS, "MiB");
    bars.at_most(&what(plan.few), few.cpu, MAX_CPU_OF_FEW, "% of a core");
    let asked = "connections that ask for log lines";
    bars.at_most(asked, with_logs as f64, 0.0, "connections");
}

/// Measures a server of its own for few agents.
fn of_few(plan: &Plan, agents: &Agents) -> Measured {
    let folder = past::folder(plan.directory.path(), "history of few");
    let server = Server::start(plan, agents, &folder);
    thread::sleep(plan.short_warm_up());
    Measured::now(plan, &server, agents, &[])
}

/// Prints what the clients of the agents asked for. Returns the number of connections that asked for log lines.
fn print_asked(agents: &Agents) -> u64 {
    let counts = &agents.counts;
    let with_logs = counts.connections_with_logs();
    println!(
        "\n{} agents had {} connections, and {with_logs} of them asked for log lines. The options were {}",
        agents.addresses.len(),
        counts.connections(),
        counts.options().join(" and ")
    );
    with_logs
}
