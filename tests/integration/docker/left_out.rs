//! What the settings leave out: containers by name, image and label, file systems and network interfaces.

use std::time::Duration;

use serde_json::{Value, json};
use serial_test::parallel;

use super::container::Container;
use super::launch;
use super::snapshots::Snapshots;
use crate::support::{DEADLINE, KEY, wait};

const EVERY: Duration = Duration::from_secs(1);

/// The sections that mention a container.
fn sections(snapshot: &Value, container: &Container<'_>) -> Vec<&'static str> {
    let has_id = |section: &str| {
        let all = snapshot[section].as_array().unwrap().iter();
        all.filter(|one| one["id"] == container.short_id()).count() > 0
    };
    let mut sections = vec!["containers", "docker_meta", "stopped", "events"];
    sections.retain(|section| has_id(section));
    if snapshot["logs"].get(container.name()).is_some() {
        sections.push("logs");
    }
    sections
}

#[test]
#[parallel]
fn containers_are_left_out_by_name_and_label() {
    let script = "echo line; exec sleep 1000";
    let early = Container::run("left-out-early", &[], script);
    let agent = launch()
        .var("CONTAINERS_EXCLUDE", "*-left-out-*,label=job=nightly*")
        .start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    let by_name = Container::run("left-out-late", &[], script);
    let by_label = Container::run("excluded-job", &["--label", "job=nightly-5"], script);
    let marked = ["--label", "system-agent.exclude=true"];
    let by_mark = Container::run("excluded-mark", &marked, script);
    let shown = Container::run("excluded-not", &["--label", "job=hourly"], script);
    let left_out = [&early, &by_name, &by_label, &by_mark];
    let check = |snapshot: &Value| {
        for one in left_out {
            assert_eq!(sections(snapshot, one), [""; 0], "{}", one.name());
        }
    };
    let snapshot = snapshots.until("the container", DEADLINE, |snapshot| {
        check(snapshot);
        let sections = sections(snapshot, &shown);
        sections.contains(&"containers") && sections.contains(&"logs")
    });
    // No other test has containers with these names and labels.
    assert_eq!(snapshot["sources"]["docker"]["excluded"], 4);
    assert!(snapshot["sources"]["logs"].get("excluded").is_none());
    by_label.docker("kill", &[]);
    shown.docker("kill", &[]);
    snapshots.until("the end", DEADLINE, |snapshot| {
        check(snapshot);
        sections(snapshot, &shown) == ["stopped"]
    });
}

#[test]
#[parallel]
fn a_container_is_left_out_from_its_rename_on() {
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    let mut container = Container::run("rename-shown", &[], script);
    let agent = launch()
        .var("CONTAINERS_EXCLUDE", "*-rename-hidden")
        .start();
    let mut client = agent.connect();
    client.send(format!("{KEY} {{\"logs\":\"new\"}}\n"));
    let mut next = move || -> Value {
        let line = client.line().expect("the stream has ended");
        serde_json::from_str(&line).unwrap()
    };
    let shown = container.name().to_owned();
    wait::until("the log", DEADLINE, || {
        next()["logs"][&shown].is_array().then_some(())
    });
    container.rename("rename-hidden");
    let hidden = container.name().to_owned();
    let excluded = |snapshot: &Value| snapshot["sources"]["docker"]["excluded"] == 1;
    wait::until("the new name", DEADLINE, || excluded(&next()).then_some(()));
    // The agent has a round in which it closes the log.
    next();
    for _ in 0..4 {
        let snapshot = next();
        for name in [&shown, &hidden] {
            let lines = snapshot["logs"][name].as_array().map_or(0, Vec::len);
            assert_eq!(lines, 0, "{name}: {snapshot:#}");
        }
        assert_eq!(sections(&snapshot, &container), [""; 0]);
    }
    // The event of the second rename has the name that is left out.
    container.rename("rename-again");
    wait::until("the last name", DEADLINE, || {
        let snapshot = next();
        assert!(
            !snapshot["events"].to_string().contains(&hidden),
            "{snapshot:#}"
        );
        sections(&snapshot, &container)
            .contains(&"containers")
            .then_some(())
    });
}

#[test]
#[parallel]
fn only_the_included_containers_are_measured() {
    let included = Container::run("included", &["--label", "monitored=yes"], "exec sleep 1000");
    let other = Container::run("not-included", &[], "exec sleep 1000");
    let agent = launch()
        .var("CONTAINERS_INCLUDE", "label=monitored=yes")
        .start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    let snapshot = snapshots.until("the container", DEADLINE, |snapshot| {
        sections(snapshot, &included).contains(&"containers")
    });
    assert_eq!(sections(&snapshot, &other), [""; 0]);
    let named: Vec<_> = snapshot["containers"].as_array().unwrap().iter().collect();
    assert_eq!(named.len(), 1, "{named:?}");
}

#[test]
#[parallel]
fn file_systems_devices_and_interfaces_are_left_out() {
    let read = |variables: &[(&str, &str)]| {
        let agent = launch().vars(variables).start();
        Snapshots::of(&agent, EVERY).next()
    };
    let all = read(&[]);
    let names = |snapshot: &Value, section: &str, field: &str| -> Vec<String> {
        // An empty list is absent.
        let all = snapshot["system"][section].as_array().into_iter().flatten();
        all.map(|one| one[field].as_str().unwrap().to_owned())
            .collect()
    };
    let device = names(&all, "disk_io", "device")
        .into_iter()
        .next()
        .expect("no device");
    assert!(names(&all, "disks", "mount").contains(&"/".to_owned()));
    let some = read(&[
        ("DISKS_EXCLUDE", &format!("/,{device}")),
        ("NETWORKS_EXCLUDE", "l?"),
    ]);
    assert!(!names(&some, "disks", "mount").contains(&"/".to_owned()));
    assert!(!names(&some, "disk_io", "device").contains(&device));
    assert!(!names(&some, "network", "name").contains(&"lo".to_owned()));
    assert!(some["sources"]["system"]["excluded"].as_u64().unwrap() >= 3);
    assert_eq!(all["sources"]["system"].get("excluded"), None);
    let root = |snapshot: &Value| snapshot["system"]["disk_total"].clone();
    assert_eq!(root(&some), root(&all));
    assert_ne!(root(&some), json!(0.0));
}
