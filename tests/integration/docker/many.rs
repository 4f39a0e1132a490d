//! Tests an agent with many containers at the same time.

use std::thread;
use std::time::Duration;

use serial_test::serial;

use super::container::Container;
use super::snapshots::{Snapshots, collected_at, healthy, lines, shows};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

const CONTAINERS: usize = 50;
/// The interval for figures and logs of containers. Snapshots come twice as often.
const ROUND: Duration = Duration::from_secs(2);

#[test]
#[serial]
fn fifty_containers_delay_no_snapshot() {
    let script = "i=0; while :; do i=$((i + 1)); echo line $i; sleep 1; done";
    let containers = run_many(script);
    // This container logs as fast as it can. It must not delay the log lines of the other containers. The size limit of the log
    // protects the disk.
    let chatty = Container::run(
        "chatty",
        &[
            "--network",
            "none",
            "--cpus",
            "0.2",
            "--log-opt",
            "max-size=10m",
        ],
        "yes 'a line of some length, again and again'",
    );
    let agent = launch()
        .vars(&[("DOCKER_INTERVAL", "2s"), ("LOG_INTERVAL", "2s")])
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let names: Vec<_> = containers.iter().map(Container::name).collect();
    let complete = |s: &_| {
        let all = names.iter().all(|name| shows(s, name));
        all && shows(s, chatty.name())
    };
    snapshots.until("every container", DEADLINE, complete);

    for snapshot in snapshots.take(10) {
        assert!(
            complete(&snapshot),
            "a container is not in the snapshot: {snapshot:#}"
        );
        assert!(healthy(&snapshot), "{:#}", snapshot["sources"]);
        for name in &names {
            let lines = lines(&snapshot, name).unwrap();
            assert!(!lines.is_empty(), "no lines of {name}");
        }
        // The figures are fresh, too: at most two rounds old.
        let at = collected_at(&snapshot, "docker").unwrap();
        let composed = humantime::parse_rfc3339(snapshot["timestamp"].as_str().unwrap()).unwrap();
        let age = composed.duration_since(at).unwrap_or_default();
        assert!(age <= 2 * ROUND, "the figures are {age:?} old");
    }
}

/// Starts the containers with five threads.
fn run_many(script: &str) -> Vec<Container<'static>> {
    let some = |count| {
        move || -> Vec<_> {
            let run = |_| Container::run("many", &["--network", "none"], script);
            (0..count).map(run).collect()
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..5).map(|_| scope.spawn(some(CONTAINERS / 5))).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    })
}
