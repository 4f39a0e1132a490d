//! The metrics of the host beside those of Debian's node_exporter, as a Prometheus server has both: the same names, types, series and values.

use std::collections::BTreeMap;

use serde_json::Value;
use serial_test::serial;

use crate::support::Launch;
use crate::support::node_exporter::NodeExporter;
use crate::support::prometheus::{Job, Prometheus, get, metrics_of, unchunked};

/// Queries as dashboards and alert rules have them, one in each line. A line that begins with `#` is a comment.
const QUERIES: &str = include_str!("../fixtures/prometheus-queries.txt");

/// The series of a query's result by their labels, without those that name the target.
fn by_labels(result: Vec<(Value, f64)>) -> BTreeMap<String, f64> {
    let own = ["instance", "job"];
    let labels = |metric: Value| {
        let labels = metric.as_object().unwrap().iter();
        let labels = labels.filter(|(name, _)| !own.contains(&name.as_str()));
        labels
            .map(|(name, value)| format!("{name}={value} "))
            .collect()
    };
    result
        .into_iter()
        .map(|(metric, value)| (labels(metric), value))
        .collect()
}

/// Queries whose values move between two readings: rates and numbers of tasks, sockets and packets.
fn moves(query: &str) -> bool {
    let moving = [
        "increase(",
        "rate(",
        "procs_",
        "processes_",
        "interrupts",
        "tcp_connection",
        "sockstat",
        "netstat",
        "entropy",
        "filefd",
    ];
    moving.iter().any(|part| query.contains(part))
}

/// Whether two values agree. Both programs read at different moments, so figures that move can differ.
fn agree(query: &str, ours: f64, theirs: f64) -> bool {
    let (relative, absolute) = match moves(query) {
        true => (0.3, 10.0),
        false => (0.05, 1e-6),
    };
    let scale = ours.abs().max(theirs.abs());
    (ours - theirs).abs() <= f64::max(scale * relative, absolute)
        || (ours.is_nan() && theirs.is_nan())
}

/// The types of the metrics in a scrape.
fn types(scrape: &str) -> BTreeMap<&str, &str> {
    let types = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split_once(' ')).collect()
}

#[test]
#[serial]
fn dashboards_for_node_exporter_show_the_same_figures() {
    let theirs = NodeExporter::start();
    let agent = Launch::new()
        .vars(&[
            ("METRICS_PORT", "0"),
            ("PUBLISH_INTERVAL", "1s"),
            ("SYSTEM_INTERVAL", "1s"),
            ("DOCKER_ENABLED", "false"),
            ("METRICS_COLLECTORS", "interrupts,processes,tcpstat"),
        ])
        .start();
    let ours = metrics_of(&agent);
    let job = |name, target| Job {
        name,
        target,
        how: &[],
    };
    let prometheus = Prometheus::with_jobs(&[job("ours", ours), job("theirs", theirs.address)]);
    prometheus.until("min(sum_over_time(up[1h]))", |up| {
        up.iter().any(|(_, count)| *count >= 12.0)
    });
    let (mut answered, mut missing, mut different) = (0, Vec::new(), Vec::new());
    for query in QUERIES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let of = |job: &str| by_labels(prometheus.query(&query.replace("$job", job)));
        let (ours, theirs) = (of("ours"), of("theirs"));
        if theirs.is_empty() {
            continue;
        }
        answered += 1;
        let lacks: Vec<_> = theirs
            .keys()
            .filter(|labels| !ours.contains_key(*labels))
            .collect();
        let more: Vec<_> = ours
            .keys()
            .filter(|labels| !theirs.contains_key(*labels))
            .collect();
        if !lacks.is_empty() || !more.is_empty() {
            missing.push(format!("{query}: without {lacks:?}, more {more:?}"));
            continue;
        }
        let off = theirs
            .iter()
            .find(|(labels, value)| !agree(query, ours[*labels], **value));
        if let Some((labels, value)) = off {
            different.push(format!(
                "{query}: {labels} {} instead of {value}",
                ours[labels]
            ));
        }
    }
    println!(
        "{answered} queries that node_exporter answers: {} have other series, {} have other values",
        missing.len(),
        different.len()
    );
    let all = format!("{missing:#?}\n{different:#?}");
    assert!(
        answered >= 150,
        "node_exporter answers only {answered} queries"
    );
    assert!(missing.len() + different.len() <= answered / 50, "{all}");

    // The types are equal, too.
    let (ours, theirs) = (
        get(ours, "/metrics", &[]),
        get(theirs.address, "/metrics", &[]),
    );
    let (ours, theirs) = (unchunked(&ours), unchunked(&theirs));
    let (ours, theirs) = (types(&ours), types(&theirs));
    let wrong: Vec<_> = ours
        .iter()
        .filter(|(name, kind)| theirs.get(*name).is_some_and(|theirs| theirs != *kind))
        .collect();
    assert_eq!(wrong, Vec::<(&&str, &&str)>::new());
}
