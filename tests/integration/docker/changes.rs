//! Containers that come, go and change while the agent streams.

use std::time::Duration;

use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::Container;
use super::snapshots::{Snapshots, figure, figures, mentions, metadata, shows};
use super::{INTERVAL, launch};
use crate::support::PATIENCE;

#[test]
#[parallel]
fn containers_come_stop_come_back_and_go() {
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.next();

    let container = Container::run("coming", &[], "echo here; sleep 1000");
    let name = container.name();
    snapshots.until("the started container", PATIENCE, |s| shows(s, name));

    container.docker("stop", &["--time", "0"]);
    snapshots.until("its absence when stopped", PATIENCE, |s| !mentions(s, name));

    container.docker("start", &[]);
    snapshots.until("its return", PATIENCE, |s| shows(s, name));

    container.docker("rm", &["--force"]);
    snapshots.until("its absence when removed", PATIENCE, |s| !mentions(s, name));
    // Gone for good, everywhere.
    assert!(!snapshots.take(3).iter().any(|s| mentions(s, name)));
}

#[test]
#[parallel]
fn a_renamed_container_has_its_new_name_everywhere() {
    let mut container = Container::run("before", &[], "echo line; sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let old = container.name().to_owned();
    snapshots.until("the container", PATIENCE, |s| shows(s, &old));

    container.rename("after");
    let new = container.name();
    let renamed = |s: &Value| shows(s, new) && !mentions(s, &old);
    let snapshot = snapshots.until("the new name, and not the old", PATIENCE, renamed);
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
    snapshots.until("the busy container", PATIENCE, busy);

    container.docker("pause", &[]);
    let idle = |s: &Value| {
        let meta = metadata(s, name).expect("docker ps lists paused containers too");
        let status = meta["status"].as_str().unwrap();
        let paused = meta["state"] == "paused" && status.ends_with("(Paused)");
        paused && figures(s, name).is_some() && figure(s, name, "cpu_percent") < 1.0
    };
    let snapshot = snapshots.until("the paused container", PATIENCE, idle);
    assert_eq!(snapshot["status"], "ok");

    container.docker("unpause", &[]);
    snapshots.until("the busy container again", PATIENCE, |s| {
        busy(s) && metadata(s, name).unwrap()["state"] == "running"
    });
}

#[test]
#[serial]
fn a_restart_never_yields_a_huge_figure() {
    let container = Container::run("restarted", &[], "while :; do :; done");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let first = snapshots.until("the container", PATIENCE, |s| shows(s, name));
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
    snapshots.until("true figures after it", PATIENCE, busy);
}

#[test]
#[parallel]
fn many_short_lived_containers_disturb_nothing() {
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    for _ in 0..10 {
        drop(Container::run(
            "short",
            &["--network", "none"],
            "echo short",
        ));
    }
    // What vanishes between the list and its figures is no fault of the engine.
    let settled = |s: &Value| super::snapshots::healthy(s);
    snapshots.until("healthy sources", Duration::from_secs(10), settled);
    for snapshot in snapshots.take(3) {
        assert!(settled(&snapshot), "{:#}", snapshot["sources"]);
    }
}
