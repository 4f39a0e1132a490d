//! The metadata of a container, compared with `docker ps` and `docker inspect`.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serial_test::parallel;

use super::container::Container;
use super::engine::{Engine, IMAGE};
use super::snapshots::{Snapshots, figures, mentions, metadata, shows};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

#[test]
#[parallel]
fn metadata_matches_docker_inspect() {
    let container = Container::run(
        "metadata",
        &[
            "--publish",
            "127.0.0.1::80",
            "--publish",
            "::53/udp",
            "--expose",
            "81",
        ],
        "sleep 1000",
    );
    let name = container.name();
    let before = seconds_up(&listed_status(&container));
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let snapshot = snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let after = seconds_up(&listed_status(&container));

    let meta = metadata(&snapshot, name).unwrap();
    let inspected = container.inspect();
    assert_eq!(meta["id"], container.short_id());
    assert_eq!(meta["names"], serde_json::json!([inspected["Name"]]));
    assert_eq!(meta["image"], inspected["Config"]["Image"]);
    assert_eq!(meta["image"], IMAGE);
    assert_eq!(meta["state"], inspected["State"]["Status"]);
    let created = humantime::parse_rfc3339(inspected["Created"].as_str().unwrap()).unwrap();
    let created = created.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(meta["created"], created);
    let published = inspected_ports(&inspected["NetworkSettings"]["Ports"]);
    assert_eq!(listed_ports(&meta["ports"]), published);
    assert!(
        published.len() >= 3,
        "expected the ports 80, 81 and 53: {published:?}"
    );
    let up = seconds_up(meta["status"].as_str().unwrap());
    assert!(
        (before..=after).contains(&up),
        "the snapshot has {up} s, docker ps had {before} s before and {after} s after it"
    );

    let container = figures(&snapshot, name).unwrap();
    assert_eq!(container["id"], meta["id"]);
    assert_eq!(container["name"], meta["names"][0]);
    assert_eq!(container["image"], meta["image"]);
    assert_eq!(container["status"], "running");
}

#[test]
#[parallel]
fn health_is_part_of_the_status() {
    let container = Container::run(
        "health",
        &["--health-cmd", "true", "--health-interval", "1s"],
        "sleep 1000",
    );
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the health in the status", DEADLINE, |snapshot| {
        let status = metadata(snapshot, name).and_then(|meta| meta["status"].as_str());
        status.is_some_and(|status| status.starts_with("Up ") && status.ends_with(" (healthy)"))
    });
}

#[test]
#[parallel]
fn only_running_containers_are_shown() {
    let created = Container::create("created");
    let ended = Container::run("ended", &[], "echo done");
    ended.wait_for_end();
    let running = Container::run("running", &[], "sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let snapshot = snapshots.until("the running container", DEADLINE, |s| {
        shows(s, running.name())
    });
    for container in [created, ended] {
        assert!(!mentions(&snapshot, container.name()), "{snapshot:#}");
    }
}

/// The status in `docker ps`.
fn listed_status(container: &Container<'_>) -> String {
    let filter = format!("id={}", container.short_id());
    Engine::local().docker(["ps", "--filter", &filter, "--format", "{{.Status}}"])
}

/// The seconds in `Up Less than a second`, `Up 1 second`, `Up 5 seconds`.
fn seconds_up(status: &str) -> u32 {
    let rest = status
        .strip_prefix("Up ")
        .expect("the container does not run");
    if rest == "Less than a second" {
        return 0;
    }
    let (number, unit) = rest.split_once(' ').expect("expected a number and a unit");
    assert!(unit.starts_with("second"), "{status:?}");
    number.parse().expect("expected a number")
}

/// Ports in the form `address private public protocol`, from `docker inspect`.
fn inspected_ports(ports: &Value) -> BTreeSet<String> {
    let ports = ports.as_object().expect("expected an object by port");
    let of_port = |(port, bindings): (&String, &Value)| -> Vec<String> {
        let (private, protocol) = port.split_once('/').expect("80/tcp");
        let Some(bindings) = bindings.as_array() else {
            return vec![format!("- {private} - {protocol}")];
        };
        let of_binding = |binding: &Value| {
            let text = |field: &str| binding[field].as_str().expect("expected a text").to_owned();
            format!(
                "{} {private} {} {protocol}",
                text("HostIp"),
                text("HostPort")
            )
        };
        bindings.iter().map(of_binding).collect()
    };
    ports.iter().flat_map(of_port).collect()
}

/// Ports from a snapshot, in the form of [`inspected_ports`].
fn listed_ports(ports: &Value) -> BTreeSet<String> {
    let of_port = |port: &Value| {
        let ip = port["IP"].as_str().unwrap_or("-");
        let public = port["PublicPort"].as_u64();
        let public = public.map_or_else(|| "-".to_owned(), |port| port.to_string());
        let protocol = port["Type"].as_str().expect("expected a protocol");
        format!("{ip} {} {public} {protocol}", port["PrivatePort"])
    };
    ports
        .as_array()
        .expect("expected a list")
        .iter()
        .map(of_port)
        .collect()
}
