//! The time that queries of the history take, as a browser sees it: with its connection, and with gzip.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::browser;
use crate::common::bars::Bars;
use crate::common::load::median;
use crate::past;
use crate::plan::Plan;
use crate::server::Server;

/// The series that the page asks for to show one host.
pub(crate) const HOST_SERIES: &str = "cpu,cpu.user,cpu.system,cpu.iowait,cpu.steal,memory.used,memory.cached,swap.used,\
    disk.read,disk.write,net.in,net.out,pressure.cpu,pressure.memory,pressure.io,temperature";
/// The number of points that the page asks for.
const POINTS: u32 = 600;

/// The path of a query of this length, which ends now.
pub(crate) fn path(host: &str, series: &str, seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (to, length) = (now.as_millis(), u128::from(seconds) * 1000);
    let from = to.saturating_sub(length);
    format!("/api/v1/hosts/{host}/history?series={series}&from={from}&to={to}&points={POINTS}")
}

/// The longest time of a query of 30 days, in milliseconds.
const MAX_MEDIAN: f64 = 100.0;

/// Measures queries of each range. Queries of the last hour are each about another host. Only the host `old` has a longer history.
pub(crate) fn measure(plan: &Plan, server: &Server, old: &String, bars: &mut Bars) {
    println!(
        "\n## Queries of the history\n\nThe series of the page of a host, {POINTS} points, with gzip.\n\n\
         | range | queries | points in an answer | median, ms | worst, ms |\n|---|--:|--:|--:|--:|"
    );
    for (name, range) in &plan.ranges {
        let mut times = Vec::new();
        let hosts = match past::is_long(*range) {
            true => std::slice::from_ref(old),
            false => &server.hosts[..],
        };
        let host = &hosts[0];
        let hosts = hosts.iter().cycle().take(plan.queries);
        for host in hosts {
            let path = path(host, HOST_SERIES, range.as_secs());
            let asked = Instant::now();
            browser::get(server.address, &path, true);
            times.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
        let path = path(host, HOST_SERIES, range.as_secs());
        let answer = browser::get(server.address, &path, false);
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let points = answer["times"].as_array().map_or(0, Vec::len);
        assert!(points > 0, "{path}: no figures");
        let worst = times.iter().copied().fold(0.0, f64::max);
        println!(
            "| {name} | {} | {points} | {:.1} | {worst:.1} |",
            times.len(),
            median(&times)
        );
        let what = format!("median of a query of {name}");
        bars.at_most(&what, median(&times), MAX_MEDIAN, "ms");
    }
}
