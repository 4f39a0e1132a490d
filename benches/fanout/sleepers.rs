//! A tenth of the clients stop reading for a while: what do the others notice, and the memory?

use std::thread;
use std::time::Duration;

use crate::common::bars::Bars;
use crate::crowd::Spec;
use crate::loaded::{Loaded, Window};
use crate::plan::Plan;
use crate::server::Server;
use crate::snapshots::Kind;
use crate::way::Way;

/// They stay connected, so that what they do not read could pile up.
const NO_TIMEOUT: (&str, &str) = ("WRITE_TIMEOUT", "1h");
/// How many intervals are measured before and after.
const AROUND: u32 = 4;
/// How often memory is looked at meanwhile.
const GLANCE: Duration = Duration::from_secs(1);
/// How far memory may stray, in percent.
const FLAT: f64 = 5.0;

pub(crate) fn measure(plan: &Plan, kind: &Kind, bars: &mut Bars) {
    let clients = plan.most();
    let sleepers = clients / 10;
    println!(
        "\n## {sleepers} of {clients} clients stop reading for {} s\n",
        plan.asleep.as_secs()
    );
    let (late, strayed) = late_and_strayed(plan, kind, sleepers).unwrap_or_else(|why| {
        println!("NOT MEASURED: {why}");
        (f64::NAN, f64::NAN)
    });
    let what = format!("late deliveries to the {} that read", clients - sleepers);
    bars.at_most(&what, late, 0.0, "snapshots");
    bars.at_most(
        &format!("memory strays while {sleepers} do not read, and after"),
        strayed,
        FLAT,
        "%",
    );
}

fn late_and_strayed(plan: &Plan, kind: &Kind, sleepers: usize) -> Result<(f64, f64), String> {
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
    let glances = plan
        .interval
        .mul_f64(f64::from(intervals) - 0.5)
        .div_duration_f64(GLANCE) as usize;
    let meanwhile: Vec<f64> = (0..glances)
        .map(|_| {
            thread::sleep(GLANCE);
            loaded.server.rss_kib()
        })
        .collect();
    let during = loaded.end(cpu, intervals);

    loaded.crowd.wake();
    let after = loaded.window(AROUND);
    let in_the_end = loaded.server.rss_kib();

    let least = meanwhile.iter().copied().fold(in_the_end, f64::min);
    let most = meanwhile.iter().copied().fold(in_the_end, f64::max);
    let late = [
        ("before", &before),
        ("meanwhile", &during),
        ("after", &after),
    ]
    .map(|(when, window)| late(when, window));
    println!(
        "memory, MiB: {:.1} before, {:.1} to {:.1} meanwhile, {:.1} after; those who slept missed {} snapshots, {} clients were lost",
        memory / 1024.0,
        least / 1024.0,
        most / 1024.0,
        in_the_end / 1024.0,
        after.report.skipped_by_sleepers,
        after.report.lost
    );
    if after.report.skipped_by_sleepers == 0 {
        println!("\nNOTE: nobody fell behind: measure with a longer BENCH_ASLEEP");
    }
    let strayed = 100.0 * (most - memory).max(memory - least) / memory;
    Ok((late.iter().sum::<usize>() as f64, strayed))
}

fn late(when: &str, window: &Window) -> usize {
    println!(
        "{when}: {} of {} deliveries on time, {} skipped, at worst {:.0} ms after the tick\n",
        window.report.on_time(),
        window.expected,
        window.report.skipped,
        window.report.longest_delay().as_secs_f64() * 1000.0
    );
    window.late()
}
