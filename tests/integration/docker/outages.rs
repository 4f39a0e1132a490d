//! An engine that is not there yet, hangs, goes and comes back. It is a real one, of the test's own.

use std::time::{Duration, SystemTime};

use serial_test::parallel;

use super::container::Container;
use super::engine::PrivateEngine;
use super::snapshots::{Snapshots, collected_at, docker_is_failing, healthy, shows};
use super::{INTERVAL, RECOVERY, launch};

/// How soon an engine's absence must show.
const NOTICE: Duration = Duration::from_secs(10);

/// A call's deadline.
const DEADLINE: Duration = Duration::from_secs(5);

/// Bridges are switched off in a private engine.
const NO_NETWORK: &[&str] = &["--network", "none"];

#[test]
#[parallel]
fn an_engine_that_comes_late_is_found() {
    let mut private = PrivateEngine::prepare();
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the engine's absence", NOTICE, docker_is_failing);
    for snapshot in snapshots.take(5) {
        assert!(docker_is_failing(&snapshot), "{snapshot:#}");
        assert_eq!(snapshot["containers"], serde_json::json!([]));
    }

    private.start_with_image();
    let container = Container::run_on(private.engine(), "late", NO_NETWORK, "echo up; sleep 1000");
    let up = |s: &_| healthy(s) && shows(s, container.name());
    snapshots.until("the engine and its container", RECOVERY, up);
}

#[test]
#[parallel]
fn an_engine_that_stops_and_returns_is_found_again() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let options = [NO_NETWORK, &["--restart", "always"]].concat();
    let script = "echo up; sleep 1000";
    let container = Container::run_on(private.engine(), "outage", &options, script).keep();
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &_| healthy(s) && shows(s, &container);
    snapshots.until("the container", RECOVERY, up);

    for _ in 0..2 {
        private.stop();
        let stopped = SystemTime::now();
        snapshots.until("the engine's absence", NOTICE, docker_is_failing);
        for snapshot in snapshots.take(4) {
            assert!(docker_is_failing(&snapshot), "{snapshot:#}");
            // Old figures are not passed off as new ones.
            let collected = collected_at(&snapshot, "docker").expect("there were figures");
            assert!(
                collected <= stopped,
                "collected {collected:?}, stopped {stopped:?}"
            );
        }
        private.start();
        snapshots.until("the engine's return", RECOVERY, up);
    }
}

#[test]
#[parallel]
fn an_engine_that_hangs_and_wakes_is_found_again() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let container = Container::run_on(private.engine(), "hang", NO_NETWORK, "echo up; sleep 1000");
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &_| healthy(s) && shows(s, container.name());
    snapshots.until("the container", RECOVERY, up);

    let hang = private.freeze();
    // A round that had begun may end with a part of the figures, at a call's deadline.
    let newest = SystemTime::now() + DEADLINE + INTERVAL;
    snapshots.until("the hung engine", NOTICE, docker_is_failing);
    for snapshot in snapshots.take(6) {
        assert!(docker_is_failing(&snapshot), "{snapshot:#}");
        let collected = collected_at(&snapshot, "docker").expect("there were figures");
        assert!(collected <= newest, "collected at {collected:?}");
    }
    drop(hang);
    snapshots.until("the engine awake", RECOVERY, up);
}
