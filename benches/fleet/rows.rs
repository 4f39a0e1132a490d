//! The tables of the report.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::load::{Load, rss_mib};
use crate::consumer;
use crate::hosts::{self, Spec, Worker};
use crate::plan::Plan;
use crate::server::Server;
use crate::view::View;

/// Timeout to connect, per host.
const CONNECTS_WITHIN: Duration = Duration::from_millis(20);
/// Limit of late snapshots, in percent.
const MAX_LATE: f64 = 1.0;

/// A server, and a fleet that publishes to it.
struct Fleet {
    // This is the first field, because fields are dropped in order. The hosts must end before the server.
    hosts: Worker,
    server: Server,
}

impl Fleet {
    /// Starts a fleet. All hosts are connected and have published once.
    fn start(plan: &Plan, snapshot: &Path, count: usize, zstd: bool) -> Self {
        let server = Server::start(plan);
        let spec = Spec {
            server: server.url(),
            hosts: count,
            interval: plan.interval,
            zstd,
            snapshot: snapshot.to_owned(),
        };
        let mut hosts = Worker::start("hosts", &serde_json::to_string(&spec).unwrap());
        let started = Instant::now();
        let timeout = Duration::from_secs(10) + CONNECTS_WITHIN * count as u32;
        while hosts.report::<hosts::Report>().connected < count as u64 {
            assert!(
                started.elapsed() < timeout,
                "not all hosts could connect in time"
            );
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(plan.interval);
        Self { hosts, server }
    }
}

/// The use of processes in a window: CPU in percent of a core, memory in MiB.
#[derive(Clone, Copy)]
struct Used {
    cpu: f64,
    rss: f64,
}

/// The results of a fleet with a consumer.
struct Measured {
    server: Used,
    hosts: Used,
    consumer: Used,
    report: consumer::Report,
    /// Snapshots that the hosts published late.
    late: u64,
    seconds: f64,
}

fn measure(fleet: &mut Fleet, window: Duration) -> Measured {
    let mut consumer = Worker::start("consumer", &fleet.server.url());
    thread::sleep(Duration::from_secs(2));
    let pids = [fleet.server.pid(), fleet.hosts.pid(), consumer.pid()];
    let before: hosts::Report = fleet.hosts.report();
    let _: consumer::Report = consumer.report();
    let loads = pids.map(|pid| Load::now(&[pid]));
    let started = Instant::now();
    thread::sleep(window);
    let after = pids.map(|pid| Load::now(&[pid]));
    let report: consumer::Report = consumer.report();
    let seconds = started.elapsed();
    let now: hosts::Report = fleet.hosts.report();
    let used = |place: usize| Used {
        cpu: after[place].since(&loads[place]).per_minute(seconds) / 60.0 * 100.0,
        rss: rss_mib(&[pids[place]]),
    };
    Measured {
        server: used(0),
        hosts: used(1),
        consumer: used(2),
        report,
        late: now.late - before.late,
        seconds: seconds.as_secs_f64(),
    }
}

impl Measured {
    fn print(&self, count: usize, name: &str) {
        let Self {
            report, seconds, ..
        } = self;
        println!(
            "| {count} | {name} | {:.0} | {:.2} | {:.1} | {:.0} | {:.1} | {:.0} | {:.1} | {} / {} | {} / {} / {} |",
            report.messages as f64 / seconds,
            report.bytes as f64 / seconds / 1e6,
            self.server.cpu,
            self.server.rss,
            self.consumer.cpu,
            self.consumer.rss,
            self.hosts.cpu,
            report.percentile(50),
            report.percentile(99),
            self.late,
            report.late,
            report.missed
        );
    }

    /// Whether the server uses a whole core or too many snapshots are late or missing.
    fn is_full(&self) -> bool {
        let late = (self.report.late + self.late + self.report.missed) as f64;
        self.server.cpu >= 100.0 || late > self.report.messages as f64 * MAX_LATE / 100.0
    }
}

fn head() {
    println!(
        "| hosts | | snapshots/s | MB/s | server CPU % | MiB | consumer CPU % | MiB | hosts' CPU % | delay ms, median / 99 % | late: \
         sent / read / missed |\n|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
}

const WAYS: [(&str, bool); 2] = [("json", false), ("zstd", true)];

/// Measures the server, a consumer and the view with the planned number of hosts.
pub(crate) fn fleet(plan: &Plan, snapshot: &Path) {
    println!("\n## {} hosts\n", plan.hosts);
    head();
    let mut views = Vec::new();
    for (name, zstd) in WAYS {
        let mut fleet = Fleet::start(plan, snapshot, plan.hosts, zstd);
        measure(&mut fleet, plan.window).print(plan.hosts, name);
        if View::is_possible() {
            views.push((name, view(plan, &fleet)));
        }
    }
    if views.is_empty() {
        println!("\nNOTE: the terminal view is not measured, because tmux is not installed");
        return;
    }
    println!(
        "\n`watch --nats`, 200 × 50, CPU in percent of a core, memory in MiB:\n\n| | the fleet | MiB | one host | MiB |\n|---|--:|--:|--:|--:|"
    );
    for (name, [all, one]) in views {
        println!(
            "| {name} | {:.2} | {:.1} | {:.2} | {:.1} |",
            all.cpu, all.rss, one.cpu, one.rss
        );
    }
}

/// Measures the view of all hosts, then the view of one host.
fn view(plan: &Plan, fleet: &Fleet) -> [Used; 2] {
    let view = View::start(plan, &fleet.server.url());
    view.shows(&format!("{} hosts", plan.hosts));
    let pid = view.pid();
    let used = || {
        let load = Load::over(plan.window, || vec![pid]);
        Used {
            cpu: load.per_minute(plan.window) / 60.0 * 100.0,
            rss: rss_mib(&[pid]),
        }
    };
    let all = used();
    view.press("Enter");
    view.shows("s old");
    [all, used()]
}

/// Raises the number of hosts until the server uses a whole core or snapshots are late.
pub(crate) fn steps(plan: &Plan, snapshot: &Path) {
    if plan.steps.is_empty() {
        return;
    }
    println!("\n## Number of hosts that a server on this machine can serve\n");
    head();
    for (name, zstd) in WAYS {
        for &count in &plan.steps {
            if !plan.has_time() {
                println!("\nNOTE: no time is left for {count} hosts, {name} (see BENCH_MINUTES)");
                return;
            }
            let mut fleet = Fleet::start(plan, snapshot, count, zstd);
            let measured = measure(&mut fleet, plan.step_window);
            measured.print(count, name);
            if measured.is_full() {
                break;
            }
        }
    }
}
