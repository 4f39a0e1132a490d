//! Tests of containers that start, stop, change or are removed while the agent runs.

use std::time::Duration;

use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::Container;
use super::snapshots::{Snapshots, figure, figures, mentions, metadata, shows};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

#[test]
#[parallel]
fn started_stopped_and_removed_containers_are_followed() {
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.next();

    let container = Container::run("coming", &[], "echo here; sleep 1000");
    let name = container.name();
    snapshots.until("the started container", DEADLINE, |s| shows(s, name));

    container.docker("stop", &["--time", "0"]);
    snapshots.until("a snapshot without the stopped container", DEADLINE, |s| {
        !mentions(s, name)
    });

    container.docker("start", &[]);
    snapshots.until("the restarted container", DEADLINE, |s| shows(s, name));

    container.docker("rm", &["--force"]);
    snapshots.until("a snapshot without the removed container", DEADLINE, |s| {
        !mentions(s, name)
    });
    // The following snapshots do not show the container in any section.
    assert!(!snapshots.take(3).iter().any(|s| mentions(s, name)));
}

#[test]
#[parallel]
fn a_renamed_container_has_its_new_name_everywhere() {
    let mut container = Container::run("before", &[], "echo line; sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let old = container.name().to_owned();
    snapshots.until("the container", DEADLINE, |s| shows(s, &old));

    container.rename("after");
    let new = container.name();
    let renamed = |s: &Value| shows(s, new) && !mentions(s, &old);
    let snapshot = snapshots.until(
        "a snapshot with the new name and without the old name",
        DEADLINE,
        renamed,
    );
    assert_eq!(
        metadata(&snapshot, new).unwrap()["id"],
        container.short_id()
    );
    assert!(!snapshots.take(3).iter().any(|s| mentions(s, &old)));
}

#[test]
#[serial]
fn a_paused_container_is_shown_paused_and_idle() {
    let container = Container::run("paused", &[], "while :; do :; done");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let busy = |s: &Value| figures(s, name).is_some_and(|c| c["cpu_percent"].as_f64() > Some(50.0));
    snapshots.until("the busy container", DEADLINE, busy);

    container.docker("pause", &[]);
    let idle = |s: &Value| {
        let meta = metadata(s, name).expect("the snapshot has no metadata of the paused container");
        let status = meta["status"].as_str().unwrap();
        let paused = meta["state"] == "paused" && status.ends_with("(Paused)");
        paused && figures(s, name).is_some() && figure(s, name, "cpu_percent") < 1.0
    };
    let snapshot = snapshots.until("the paused container", DEADLINE, idle);
    assert_eq!(snapshot["status"], "ok");

    container.docker("unpause", &[]);
    snapshots.until("the busy container again", DEADLINE, |s| {
        busy(s) && metadata(s, name).unwrap()["state"] == "running"
    });
}

#[test]
#[serial]
fn a_restart_never_causes_a_huge_figure() {
    let container = Container::run("restarted", &[], "while :; do :; done");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let first = snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let cpus = first["host"]["cpus"].as_f64().unwrap();
    for _ in 0..3 {
        container.docker("restart", &["--time", "0"]);
        for snapshot in snapshots.take(2) {
            if let Some(container) = figures(&snapshot, name) {
                let percent = container["cpu_percent"].as_f64().unwrap();
                assert!(percent <= cpus * 100.0 * 1.1, "{percent} % of {cpus} cores");
            }
        }
    }
    let busy = |s: &Value| figures(s, name).is_some_and(|c| c["cpu_percent"].as_f64() > Some(50.0));
    snapshots.until("plausible figures after the restarts", DEADLINE, busy);
}

#[test]
#[parallel]
fn many_short_lived_containers_cause_no_failure() {
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    for _ in 0..10 {
        drop(Container::run(
            "short",
            &["--network", "none"],
            "echo short",
        ));
    }
    // A container can end after the agent has read the container list and before the agent reads its figures. The source must not
    // fail then.
    let settled = |s: &Value| super::snapshots::healthy(s);
    snapshots.until("healthy sources", Duration::from_secs(10), settled);
    for snapshot in snapshots.take(3) {
        assert!(settled(&snapshot), "{:#}", snapshot["sources"]);
    }
}
