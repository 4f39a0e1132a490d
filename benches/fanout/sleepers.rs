//! A tenth of the clients, the sleepers, stop reading for a while. The other clients and the agent's memory must not be affected.

use std::thread;
use std::time::Duration;

use crate::common::bars::Bars;
use crate::crowd::Spec;
use crate::loaded::{Loaded, Window};
use crate::plan::Plan;
use crate::server::Server;
use crate::snapshots::Kind;
use crate::way::Way;

/// The write timeout is so long that the agent does not disconnect the sleepers. If the agent stored unread snapshots, its memory
/// would grow.
const NO_TIMEOUT: (&str, &str) = ("WRITE_TIMEOUT", "1h");
/// The number of intervals in the window before the pause, and in the window after the pause.
const AROUND: u32 = 4;
/// The interval of the memory readings.
const READING_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the deviation of the agent's memory, in percent.
const MAX_DEVIATION: f64 = 5.0;

pub(crate) fn measure(plan: &Plan, kind: &Kind, bars: &mut Bars) {
    let clients = plan.most();
    let sleepers = clients / 10;
    println!(
        "\n## {sleepers} of {clients} clients stop reading for {} s\n",
        plan.asleep.as_secs()
    );
    let (late, deviation) = late_and_deviation(plan, kind, sleepers).unwrap_or_else(|why| {
        println!("NOT MEASURED: {why}");
        (f64::NAN, f64::NAN)
    });
    let what = format!(
        "late deliveries to the {} clients that read",
        clients - sleepers
    );
    bars.at_most(&what, late, 0.0, "snapshots");
    bars.at_most(
        &format!("deviation of memory while {sleepers} clients do not read, and after"),
        deviation,
        MAX_DEVIATION,
        "%",
    );
}

fn late_and_deviation(plan: &Plan, kind: &Kind, sleepers: usize) -> Result<(f64, f64), String> {
    let server = Server::agent(plan, kind, Way::Plain, plan.interval, &[NO_TIMEOUT]);
    let crowd = Spec {
        sleepers,
        ..server.clients(plan.most())
    };
    let mut loaded = Loaded::gather(server, crowd, plan.interval)?;
    let before = loaded.window(AROUND);
    let memory = loaded.server.rss_kib();

    let intervals = plan.asleep.div_duration_f64(plan.interval).ceil().max(2.0) as u32;
    let cpu = loaded.begin();
    loaded.crowd.sleep();
    let readings = plan
        .interval
        .mul_f64(f64::from(intervals) - 0.5)
        .div_duration_f64(READING_INTERVAL) as usize;
    let readings_during: Vec<f64> = (0..readings)
        .map(|_| {
            thread::sleep(READING_INTERVAL);
            loaded.server.rss_kib()
        })
        .collect();
    let during = loaded.end(cpu, intervals);

    loaded.crowd.wake();
    let after = loaded.window(AROUND);
    let memory_after = loaded.server.rss_kib();

    let least = readings_during.iter().copied().fold(memory_after, f64::min);
    let most = readings_during.iter().copied().fold(memory_after, f64::max);
    let late = [("before", &before), ("during", &during), ("after", &after)]
        .map(|(when, window)| late(when, window));
    println!(
        "memory, MiB: {:.1} before, {:.1} to {:.1} during, {:.1} after; the sleepers missed {} snapshots, {} clients lost",
        memory / 1024.0,
        least / 1024.0,
        most / 1024.0,
        memory_after / 1024.0,
        after.report.skipped_by_sleepers,
        after.report.lost
    );
    if after.report.skipped_by_sleepers == 0 {
        println!("\nNOTE: no sleeper missed a snapshot, so measure with a longer BENCH_ASLEEP");
    }
    let deviation = 100.0 * (most - memory).max(memory - least) / memory;
    Ok((late.iter().sum::<usize>() as f64, deviation))
}

fn late(when: &str, window: &Window) -> usize {
    println!(
        "{when}: {} of {} deliveries on time, {} skipped, the last at most {:.0} ms after the tick\n",
        window.report.on_time(),
        window.expected,
        window.report.skipped,
        window.report.longest_delay().as_secs_f64() * 1000.0
    );
    window.late()
}
