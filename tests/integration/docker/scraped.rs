//! Containers as Prometheus sees them, and the dashboard that is made of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::Container;
use super::launch;
use super::snapshots::{Snapshots, figure, shows};
use crate::support::prometheus::{Prometheus, get, promtool};
use crate::support::{Agent, PATIENCE, wait};

const INTERVAL: Duration = super::INTERVAL;

fn metrics_of(agent: &Agent) -> SocketAddr {
    let event = agent.event("metrics at /metrics");
    event.text("address").parse().expect("an address")
}

fn body(agent: &Agent) -> String {
    get(metrics_of(agent), "/metrics", &[]).body
}

/// The queries of a panel of the dashboard, for one host.
fn queries(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().unwrap();
    let expression = |target: &Value| {
        let text = target["expr"].as_str().unwrap();
        text.replace("$instance", "here")
            .replace("$__rate_interval", "4s")
    };
    targets.iter().map(expression).collect()
}

#[test]
#[serial]
fn each_panel_of_the_dashboard_shows_the_snapshots_figures() {
    let text = include_str!("../../../config/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let container = Container::run(
        "scraped",
        &["--cpus", "0.5", "--memory", "64m"],
        "while :; do :; done",
    );
    let agent = launch().var("METRICS_PORT", "0").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", PATIENCE, |s| shows(s, name));
    let prometheus = Prometheus::scraping(metrics_of(&agent), &[]);
    prometheus.scraped(8.0);

    for panel in panels {
        for query in queries(panel) {
            let shown = prometheus.query(&query);
            assert!(!shown.is_empty(), "{}: {query}", panel["title"]);
            assert!(shown.iter().all(|(_, value)| value.is_finite()), "{query}");
        }
    }

    // The same seconds, more or less.
    let snapshot = snapshots.fresh();
    let system = &snapshot["system"];
    let number = |value: &Value| value.as_f64().unwrap();
    let query = |title: &str| {
        let panel = panels.iter().find(|panel| panel["title"] == title);
        queries(panel.unwrap_or_else(|| panic!("no panel {title}"))).remove(0)
    };
    let of_ours = |title: &str| {
        let series = prometheus.query(&query(title));
        let ours = series.iter().find(|(labels, _)| labels["name"] == *name);
        ours.unwrap_or_else(|| panic!("{title}: {series:?}")).1
    };
    let near = |title: &str, shown: f64, figure: f64, tolerance: f64| {
        let off = (shown - figure).abs();
        assert!(
            off <= tolerance,
            "{title}: {shown}, the snapshot has {figure}"
        );
    };
    let mib = 1024.0 * 1024.0;
    near(
        "CPU",
        prometheus.value(&query("CPU")),
        number(&system["cpu_percent"][0]),
        30.0,
    );
    near(
        "Memory in use",
        prometheus.value(&query("Memory in use")) / mib,
        number(&system["memory_used"]),
        number(&system["memory_total"]) * 0.02,
    );
    let root = format!("{} == 0 or {0}", query("File systems in use"));
    let root = prometheus
        .query(&root)
        .into_iter()
        .find(|(labels, _)| labels["mountpoint"] == "/")
        .unwrap()
        .1;
    let used = number(&system["disk_used"]) / number(&system["disk_total"]) * 100.0;
    near("File systems in use", root, used, 1.0);
    // A quota's period of 100 ms makes it waver.
    let title = "Containers: CPU (100 = one core)";
    near(title, of_ours(title), 50.0, 5.0);
    let title = "Containers: memory";
    let memory = figure(&snapshot, name, "memory_usage");
    near(title, of_ours(title), memory, memory * 0.1 + mib);
    near(
        "restarts",
        of_ours("Containers: restarts, as their policy has it"),
        0.0,
        0.0,
    );
    let limit = format!("container_spec_memory_limit_bytes{{name=\"{name}\"}}");
    assert_eq!(prometheus.value(&limit), 64.0 * mib);
    let quota = format!(
        "container_spec_cpu_quota{{name=\"{name}\"}} / container_spec_cpu_period{{name=\"{name}\"}}"
    );
    assert_eq!(prometheus.value(&quota), 0.5);
}

#[test]
#[parallel]
fn a_container_that_is_gone_leaves_the_figures_at_once() {
    let container = Container::run(
        "leaves",
        &[
            "--label",
            "com.example.tier=back \"end\"",
            "--label",
            "com.docker.compose.project=shop",
            "--health-cmd",
            "true",
            "--health-interval",
            "1s",
        ],
        "sleep 1000",
    );
    let agent = launch()
        .var("METRICS_PORT", "0")
        .var("CONTAINER_LABELS", "com.example.*")
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name().to_owned();
    let healthy = format!("name=\"{name}\",status=\"healthy\"}} 1");
    wait::until("health", PATIENCE, || {
        body(&agent).contains(&healthy).then_some(())
    });
    snapshots.until("the container", PATIENCE, |s| shows(s, &name));
    let text = body(&agent);
    let checked = promtool(&["check", "metrics"], &text);
    let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
    let ours = |line: &&str| !line.starts_with("node_memory_");
    assert_eq!(complaints.lines().find(ours), None, "{checked:?}");
    let info = text
        .lines()
        .find(|line| line.starts_with("system_agent_container_info{") && line.contains(&name))
        .expect("its info");
    assert!(info.contains("compose_project=\"shop\""), "{info}");
    assert!(
        info.contains("container_label_com_example_tier=\"back \\\"end\\\"\""),
        "{info}"
    );
    // No limit is 0, as cAdvisor has it.
    let limit = text.lines().find(|line| {
        line.starts_with("container_spec_memory_limit_bytes{") && line.contains(&name)
    });
    assert!(limit.unwrap().ends_with(" 0.0"), "{limit:?}");

    drop(container);
    snapshots.until("a snapshot without it", PATIENCE, |s| !shows(s, &name));
    assert!(!body(&agent).contains(&name));
}
