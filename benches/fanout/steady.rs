//! Measures the highest number of clients for some minutes. Each snapshot must be on time for each client.

use crate::common::bars::Bars;
use crate::crowd::ON_TIME;
use crate::loaded::Loaded;
use crate::plan::Plan;
use crate::server::Server;
use crate::snapshots::Kind;
use crate::way::Way;

pub(crate) fn measure(plan: &Plan, kind: &Kind, bars: &mut Bars) {
    let clients = plan.most();
    let minutes = plan.steady.as_secs_f64() / 60.0;
    println!("\n## {clients} clients for {minutes:.1} minutes\n");
    let (late, skipped) = late_and_skipped(plan, kind).unwrap_or_else(|why| {
        println!("NOT MEASURED: {why}");
        (f64::NAN, f64::NAN)
    });
    let what = format!(
        "deliveries later than {} ms, {clients} clients for {minutes:.1} min",
        ON_TIME.as_millis()
    );
    bars.at_most(&what, late, 0.0, "snapshots");
    bars.at_most(
        &format!("skipped, {clients} clients for {minutes:.1} min"),
        skipped,
        0.0,
        "snapshots",
    );
}

fn late_and_skipped(plan: &Plan, kind: &Kind) -> Result<(f64, f64), String> {
    let server = Server::agent(plan, kind, Way::Plain, plan.interval, &[]);
    let crowd = server.clients(plan.most());
    let mut loaded = Loaded::gather(server, crowd, plan.interval)?;
    let intervals = plan.steady.div_duration_f64(plan.interval).ceil().max(2.0) as u32;
    let window = loaded.window(intervals);
    let report = &window.report;
    println!(
        "{} of {} deliveries on time, {} snapshots, one every {} s; the last client had its snapshot at most {:.0} ms \
         after the tick; {} skipped, {} clients lost; {:.2} CPU seconds per minute",
        report.on_time(),
        window.expected,
        report.snapshots.len(),
        plan.interval.as_secs(),
        report.longest_delay().as_secs_f64() * 1000.0,
        report.skipped,
        report.lost,
        window.cpu * 60.0 / (plan.interval * intervals).as_secs_f64(),
    );
    Ok((window.late() as f64, report.skipped as f64))
}
