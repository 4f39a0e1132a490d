//! Tests of the figures of containers for Prometheus.

use serial_test::parallel;

use super::container::Container;
use super::snapshots::{Snapshots, shows};
use super::{INTERVAL, launch};
use crate::support::prometheus::{complaints, get, metrics_of};
use crate::support::{Agent, DEADLINE, wait};

fn body(agent: &Agent) -> String {
    get(metrics_of(agent), "/metrics", &[]).body
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
    let text = body(&agent);
    let left: Vec<_> = text.lines().filter(|line| line.contains(&name)).collect();
    // Alerts see by this metric that the container has ended.
    assert!(
        matches!(left[..], [last] if last.starts_with("container_last_seen{")),
        "{left:?}"
    );
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
