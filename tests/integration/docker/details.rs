//! Tests of the details of a container that `docker inspect` shows, except the figures. Other tests here are about the processes
//! and network interfaces of the host that belong to a container.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use serial_test::parallel;

use super::INTERVAL;
use super::container::Container;
use super::launch;
use super::snapshots::{Snapshots, figures, shows};
use crate::support::{Agent, DEADLINE};

fn snapshots(agent: &Agent) -> Snapshots {
    Snapshots::of(agent, INTERVAL)
}

/// Waits for a snapshot in which `fits` accepts the container's entry. Returns this entry.
fn entry(snapshots: &mut Snapshots, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let shown = |snapshot: &Value| figures(snapshot, name).is_some_and(&fits);
    let snapshot = snapshots.until("the container", DEADLINE, shown);
    figures(&snapshot, name).unwrap().clone()
}

#[test]
#[parallel]
fn limits_and_origin_match_docker_inspect() {
    let agent = launch()
        .var("CONTAINER_LABELS", "com.example.*, tier")
        .start();
    let mut snapshots = snapshots(&agent);
    let container = Container::run(
        "details",
        &[
            "--cpus",
            "1.5",
            "--pids-limit",
            "77",
            "--memory",
            "64m",
            "--label",
            "com.example.team=ops",
            "--label",
            "tier=",
            "--label",
            "secret=hunter2",
            "--label",
            "com.docker.compose.project=shop",
            "--label",
            "com.docker.compose.service=web",
        ],
        "sleep 1000",
    );
    let begun = SystemTime::now();
    let shown = entry(&mut snapshots, container.name(), |_| true);
    let inspected = container.inspect();
    assert_eq!(shown["cpu_limit"], 1.5);
    assert_eq!(shown["pids_limit"], 77);
    assert_eq!(shown["image_digest"], inspected["Image"]);
    assert_eq!(shown["restart_count"], 0);
    assert_eq!(
        shown["compose"],
        json!({"project": "shop", "service": "web"})
    );
    assert_eq!(
        shown["labels"],
        json!({"com.example.team": "ops", "tier": ""})
    );
    let time = |text: &Value| humantime::parse_rfc3339(text.as_str().unwrap()).unwrap();
    let started = time(&inspected["State"]["StartedAt"]);
    let off = started.duration_since(time(&shown["started_at"])).unwrap();
    assert!(off < Duration::from_millis(1), "{off:?}");
    let up_at = |moment: SystemTime| moment.duration_since(started).unwrap_or_default().as_secs();
    // The snapshot can be 3 s older than the request for it.
    let up = up_at(begun).saturating_sub(3)..=up_at(SystemTime::now());
    assert!(up.contains(&shown["uptime"].as_u64().unwrap()), "{up:?}");
    for absent in ["health", "network_of"] {
        assert!(shown.get(absent).is_none(), "{absent}");
    }
    // The agent notices changed limits.
    container.docker("update", &["--cpus", "0.25", "--pids-limit", "9"]);
    entry(&mut snapshots, container.name(), |shown| {
        shown["cpu_limit"] == 0.25 && shown["pids_limit"] == 9
    });
}

#[test]
#[parallel]
fn a_container_without_limits_shows_no_limits() {
    let agent = launch().start();
    let mut snapshots = snapshots(&agent);
    let options = [
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--label",
        "tier=one",
    ];
    let quota = Container::run("details-quota", &options, "sleep 1000");
    let free = Container::run("details-free", &[], "sleep 1000");
    assert_eq!(
        entry(&mut snapshots, quota.name(), |_| true)["cpu_limit"],
        0.5
    );
    let shown = entry(&mut snapshots, free.name(), |_| true);
    for absent in ["cpu_limit", "pids_limit", "compose", "labels"] {
        assert!(shown.get(absent).is_none(), "{absent}");
    }
}

#[test]
#[parallel]
fn health_and_restarts_are_followed() {
    let agent = launch().start();
    let mut snapshots = snapshots(&agent);
    let options = [
        "--health-cmd",
        "cat /well",
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
        "--restart",
        "always",
    ];
    let script = "trap 'exit 3' USR1; touch /well; while :; do sleep 0.1; done";
    let container = Container::run("details-health", &options, script);
    let name = container.name();
    let health = |snapshots: &mut Snapshots, health: &str| {
        entry(snapshots, name, |shown| shown["health"] == health)
    };
    let well = health(&mut snapshots, "healthy");
    assert!(well.get("health_output").is_none(), "{well:#}");
    container.exec("rm /well");
    let ill = health(&mut snapshots, "unhealthy");
    assert_eq!(
        ill["health_output"],
        "cat: can't open '/well': No such file or directory"
    );
    let before = entry(&mut snapshots, name, |_| true);
    // The main process exits by itself, and the engine restarts the container.
    container.exec("kill -USR1 1");
    let after = entry(&mut snapshots, name, |shown| shown["restart_count"] == 1);
    assert_ne!(after["started_at"], before["started_at"]);
    assert!(after["uptime"].as_u64() <= before["uptime"].as_u64());
    health(&mut snapshots, "healthy");
}

#[test]
#[parallel]
fn the_owner_of_a_shared_network_has_the_counters() {
    let agent = launch().start();
    let mut snapshots = snapshots(&agent);
    let owner = Container::run("details-owner", &[], "sleep 1000");
    let mode = format!("container:{}", owner.name());
    let sharer = Container::run("details-sharer", &["--network", &mode], "sleep 1000");
    let shown = entry(&mut snapshots, sharer.name(), |_| true);
    assert_eq!(
        (&shown["network_of"], &shown["network"]),
        (&json!(owner.name()), &json!({}))
    );
    let shown = entry(&mut snapshots, owner.name(), |_| true);
    assert!(shown.get("network_of").is_none());
    assert!(shown["network"]["eth0"].is_object());
    // Stops the owner. The network exists as long as another container uses it.
    owner.docker("stop", &["--time", "0"]);
    let alone = entry(&mut snapshots, sharer.name(), |shown| {
        shown.get("network_of").is_none()
    });
    assert!(alone["network"].is_object());
}

/// The agent shows the container's name with the container's processes and with the host's end of its veth.
#[test]
#[parallel]
fn processes_and_veths_have_the_name_of_their_container() {
    let agent = launch().vars(&[("TOP_PROCESSES", "3")]).start();
    let mut snapshots = snapshots(&agent);
    let busy = Container::run("details-busy", &[], "while :; do :; done");
    let name = busy.name();
    let is_busy = |process: &Value| process["container"] == name && process["name"] == "sh";
    let snapshot = snapshots.until("the busy process", DEADLINE, |s| {
        let processes = s["system"]["top_processes"].as_array().unwrap();
        shows(s, name) && processes.iter().any(is_busy)
    });
    let pid = busy.inspect()["State"]["Pid"].clone();
    let mut processes = snapshot["system"]["top_processes"]
        .as_array()
        .unwrap()
        .iter();
    assert!(processes.any(|process| process["pid"] == pid && is_busy(process)));

    let veth = |snapshot: &Value| {
        let mut network = snapshot["system"]["network"].as_array().unwrap().iter();
        network
            .find(|interface| interface["container"] == name)
            .cloned()
    };
    let snapshot = snapshots.until("its veth", DEADLINE, |s| veth(s).is_some());
    let veth = veth(&snapshot).unwrap();
    assert_eq!((&veth["kind"], &veth["up"]), (&json!("veth"), &json!(true)));
    // `iflink` in the container is the interface number of the host's end.
    let link = busy.exec("cat /sys/class/net/eth0/iflink");
    let host = veth["name"].as_str().unwrap();
    let index = std::fs::read_to_string(format!("/sys/class/net/{host}/ifindex")).unwrap();
    assert_eq!(link.trim(), index.trim());
    let processes = snapshot["system"]["top_processes"].as_array().unwrap();
    let agents = processes
        .iter()
        .find(|process| process["pid"] == agent.pid());
    assert!(agents.is_none_or(|agent| agent.get("container").is_none()));
}
