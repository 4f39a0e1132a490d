//! Tests of the figures of containers for Prometheus, and of the dashboard that shows these figures.

use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::Container;
use super::snapshots::{Snapshots, figure, shows};
use super::{INTERVAL, launch};
use crate::support::prometheus::{Prometheus, complaints, get, metrics_of};
use crate::support::{Agent, DEADLINE, wait};

fn body(agent: &Agent) -> String {
    get(metrics_of(agent), "/metrics", &[]).body
}

/// The queries of a dashboard panel, for one host.
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
fn each_panel_of_the_dashboard_shows_the_figures_of_the_snapshot() {
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
    snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let prometheus = Prometheus::scraping(metrics_of(&agent), &[]);
    prometheus.scraped(8.0);

    for panel in panels {
        for query in queries(panel) {
            let shown = prometheus.query(&query);
            assert!(!shown.is_empty(), "{}: {query}", panel["title"]);
            assert!(shown.iter().all(|(_, value)| value.is_finite()), "{query}");
        }
    }

    // The values of Prometheus and of the snapshot are from about the same seconds.
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
            "{title}: {shown}, but the snapshot has {figure}"
        );
    };
    let sum = |title: &str, nth: usize, of: &dyn Fn(&Value) -> bool| -> f64 {
        let panel = panels.iter().find(|panel| panel["title"] == title);
        let series = prometheus.query(&queries(panel.unwrap())[nth]);
        let fitting = series.iter().filter(|(labels, _)| of(labels));
        fitting.map(|(_, value)| value).sum()
    };
    let all = |_: &Value| true;
    let rates = |list: &Value, field: &str| -> f64 {
        let list = list.as_array().unwrap().iter();
        let list = list.filter(|one| one["kind"] != "veth");
        list.map(|one| number(&one[field])).sum()
    };
    let mib = 1024.0 * 1024.0;
    let cpu = number(&system["cpu_percent"][0]);
    near("CPU", prometheus.value(&query("CPU")), cpu, 15.0);
    near(
        "Memory in use",
        prometheus.value(&query("Memory in use")) / mib,
        number(&system["memory_used"]),
        number(&system["memory_total"]) * 0.01,
    );
    let load = number(&system["load_avg"]["1m"]);
    near("Load", prometheus.value(&query("Load")), load, 0.5);
    let root = |labels: &Value| labels["mountpoint"] == "/";
    let used = number(&system["disk_used"]) / number(&system["disk_total"]) * 100.0;
    near(
        "File systems in use",
        sum("File systems in use", 0, &root),
        used,
        1.0,
    );
    // Prometheus computes rates over four seconds. The agent computes rates over one second. Only the order of magnitude is
    // comparable.
    for (title, list, fields) in [
        (
            "Disks: bytes per second",
            "disk_io",
            ["read_bytes_per_second", "write_bytes_per_second"],
        ),
        (
            "Network: bytes per second",
            "network",
            ["bytes_recv_per_second", "bytes_sent_per_second"],
        ),
    ] {
        for (nth, field) in fields.into_iter().enumerate() {
            let figure = rates(&system[list], field);
            near(
                title,
                sum(title, nth, &all),
                figure,
                figure * 10.0 + 50.0 * mib,
            );
        }
    }
    let title = "Pressure: share of time in which work waited";
    for (nth, resource) in ["cpu", "memory", "io"].into_iter().enumerate() {
        let average = number(&system["pressure"][resource]["some"]["avg10"]) / 100.0;
        near(title, sum(title, nth, &all), average, 0.4);
    }
    // The quota's period of 100 ms makes the figure vary.
    let title = "Containers: CPU (100 = one core)";
    near(title, of_ours(title), 50.0, 5.0);
    let title = "Containers: memory";
    let memory = figure(&snapshot, name, "memory_usage");
    near(title, of_ours(title), memory, memory * 0.1 + mib);
    near(
        "network",
        of_ours("Containers: network, bytes per second"),
        0.0,
        2000.0,
    );
    let title = "Containers: restarts by the restart policy";
    near(title, of_ours(title), 0.0, 0.0);
    // The three sources `system`, `docker` and `logs` are ok.
    near(
        "sources",
        sum("Sources: 1 = ok, 0 = failing", 0, &all),
        3.0,
        0.0,
    );
    let own = number(&snapshot["agent"]["cpu_percent"]) / 100.0;
    let title = "The agent's own CPU";
    near(title, prometheus.value(&query(title)), own, 0.2);
    let title = "The agent's own memory";
    let memory = number(&snapshot["agent"]["memory_rss"]);
    near(title, prometheus.value(&query(title)), memory, memory * 0.1);
    let title = "Age of the newest snapshot";
    near(title, prometheus.value(&query(title)), 1.0, 2.0);
    let limit = format!("container_spec_memory_limit_bytes{{name=\"{name}\"}}");
    assert_eq!(prometheus.value(&limit), 64.0 * mib);
    let quota = format!(
        "container_spec_cpu_quota{{name=\"{name}\"}} / container_spec_cpu_period{{name=\"{name}\"}}"
    );
    assert_eq!(prometheus.value(&quota), 0.5);
}

#[test]
#[parallel]
fn the_metrics_of_a_removed_container_end_with_the_next_snapshot() {
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
    wait::until("the healthy container", DEADLINE, || {
        body(&agent).contains(&healthy).then_some(())
    });
    snapshots.until("the container", DEADLINE, |s| shows(s, &name));
    let text = body(&agent);
    assert_eq!(complaints(&text), [""; 0]);
    let info = text
        .lines()
        .find(|line| line.starts_with("system_agent_container_info{") && line.contains(&name))
        .expect("there is no info metric of the container");
    assert!(info.contains("compose_project=\"shop\""), "{info}");
    assert!(
        info.contains("container_label_com_example_tier=\"back \\\"end\\\"\""),
        "{info}"
    );
    // As in cAdvisor, 0 means that there is no limit.
    let limit = text.lines().find(|line| {
        line.starts_with("container_spec_memory_limit_bytes{") && line.contains(&name)
    });
    assert!(limit.unwrap().ends_with(" 0.0"), "{limit:?}");

    drop(container);
    snapshots.until(
        "a snapshot without the removed container",
        DEADLINE,
        |snapshot| {
            ["containers", "docker_meta"]
                .iter()
                .all(|section| !snapshot[section].to_string().contains(&name))
        },
    );
    assert!(!body(&agent).contains(&name));
}

/// A container in a crash loop runs too briefly to have figures. The metric of the container's state must show the crash loop.
#[test]
#[parallel]
fn the_state_of_a_container_shows_a_crash_loop() {
    let container = Container::run("loops", &["--restart", "always"], "exit 1");
    let agent = launch().var("METRICS_PORT", "0").start();
    let line = format!("name=\"{}\",state=\"restarting\"}} 1", container.name());
    wait::until("the state `restarting`", DEADLINE, || {
        body(&agent).contains(&line).then_some(())
    });
}
