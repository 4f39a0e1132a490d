//! A private engine that starts late, hangs, stops and starts again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use serial_test::parallel;

use super::container::Container;
use super::engine::{Engine, IMAGE, PrivateEngine};
use super::snapshots::{
    Snapshots, docker_and_logs_are_failing, docker_is_failing, healthy, is_fresh, mentions,
    metadata, shows,
};
use super::stand_in::{Answer, StandIn};
use super::{INTERVAL, RECOVERY, launch};
use crate::support::{DEADLINE, wait};

/// Snapshots must show within this time that the engine is gone.
const NOTICE: Duration = Duration::from_secs(10);

/// The list must be exact within this time after the engine returns or after its event stream breaks.
const EXACT: Duration = Duration::from_secs(5);

/// A private engine has no bridge network.
const NO_NETWORK: &[&str] = &["--network", "none"];

#[test]
#[parallel]
fn an_engine_that_comes_late_is_found() {
    let mut private = PrivateEngine::prepare();
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the engine's absence", NOTICE, docker_and_logs_are_failing);
    for snapshot in snapshots.take(5) {
        assert!(docker_and_logs_are_failing(&snapshot), "{snapshot:#}");
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
        // The containers stop with the engine.
        private.stop();
        let gone = |s: &_| docker_is_failing(s) && !mentions(s, &container);
        snapshots.until("the engine's absence", NOTICE, gone);
        for snapshot in snapshots.take(4) {
            // The snapshot must not show old figures as current figures.
            assert!(gone(&snapshot), "{snapshot:#}");
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
    snapshots.until("the hung engine", NOTICE, docker_is_failing);
    for snapshot in snapshots.take(6) {
        assert!(docker_is_failing(&snapshot), "{snapshot:#}");
        for source in ["docker", "logs"] {
            assert!(is_fresh(&snapshot, source, INTERVAL), "{snapshot:#}");
        }
        assert!(shows(&snapshot, container.name()), "{snapshot:#}");
    }
    drop(hang);
    snapshots.until("the engine to answer again", RECOVERY, up);
}

/// Starts containers all the time while the engine answers. Removes the oldest container when there are more than [`Self::MAX`]
/// containers.
struct Churn {
    stopping: Arc<AtomicBool>,
    made: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Churn {
    /// Maximum number of containers at the same time.
    const MAX: usize = 3;

    fn start(engine: &Engine) -> Self {
        let (stopping, made) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = thread::spawn({
            let (engine, stopping, made) =
                (engine.clone(), Arc::clone(&stopping), Arc::clone(&made));
            move || churn(&engine, &stopping, &made)
        });
        Self {
            stopping,
            made,
            thread,
        }
    }

    /// Waits until another container has started.
    fn wait_for_another(&self) {
        let made = || self.made.load(Ordering::SeqCst);
        let before = made();
        let another = || (made() > before).then_some(());
        wait::until("another container", DEADLINE, another);
    }

    /// Stops the thread. The containers that exist at that moment stay.
    fn end(self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .expect("the thread that starts containers has panicked");
    }
}

fn churn(engine: &Engine, stopping: &AtomicBool, made: &AtomicU32) {
    let mut ids: Vec<String> = Vec::new();
    while !stopping.load(Ordering::SeqCst) {
        let options = ["run", "--detach", "--network", "none"];
        let run = engine.try_docker([&options[..], &[IMAGE, "sleep", "1000"]].concat());
        if run.status.success() {
            ids.push(String::from_utf8_lossy(&run.stdout).trim().to_owned());
            made.fetch_add(1, Ordering::SeqCst);
        }
        if ids.len() > Churn::MAX {
            engine.try_docker(["rm", "--force", &ids.remove(0)]);
        }
    }
}

/// The names of the containers in the metadata of a snapshot, sorted.
fn listed(snapshot: &Value) -> Vec<String> {
    let containers = snapshot["docker_meta"].as_array().unwrap().iter();
    let name = |container: &Value| container["names"][0].as_str().unwrap()[1..].to_owned();
    let mut names: Vec<_> = containers.map(name).collect();
    names.sort();
    names
}

/// Whether a snapshot has these containers and no others in all sections.
fn has_exactly(snapshot: &Value, names: &[String]) -> bool {
    let count = |section: &str| snapshot[section].as_array().map(Vec::len);
    healthy(snapshot)
        && listed(snapshot) == names
        && names.iter().all(|name| shows(snapshot, name))
        && count("containers") == Some(names.len())
        && snapshot["logs"].as_object().map(serde_json::Map::len) == Some(names.len())
}

#[test]
#[parallel]
fn the_list_is_exact_soon_after_the_engine_restarts_while_containers_start_and_stop() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let options = [NO_NETWORK, &["--restart", "always"]].concat();
    let stays = Container::run_on(private.engine(), "stays", &options, "sleep 1000").keep();
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    for _ in 0..2 {
        let churn = Churn::start(private.engine());
        churn.wait_for_another();
        snapshots.until("some of the containers", DEADLINE, |s| listed(s).len() > 1);
        private.stop();
        snapshots.until("the engine's absence", NOTICE, docker_is_failing);
        // The engine is away for so long that the agent reaches its longest pause between two attempts.
        snapshots.take(9);
        private.start();
        let returned = Instant::now();
        churn.wait_for_another();
        churn.end();
        let running = private.engine().running();
        assert!(running.contains(&stays) && running.len() > 1, "{running:?}");
        let left = EXACT.saturating_sub(returned.elapsed());
        let exact = |s: &Value| has_exactly(s, &running);
        snapshots.until(&format!("{running:?}"), left, exact);
        for snapshot in snapshots.take(3) {
            assert!(exact(&snapshot), "not {running:?}: {snapshot:#}");
        }
    }
}

#[test]
#[parallel]
fn the_list_is_exact_soon_after_the_event_stream_breaks_while_containers_start_and_stop() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let engine = private.engine();
    let [ends, stays] =
        ["ends", "stays"].map(|topic| Container::run_on(engine, topic, NO_NETWORK, "sleep 1000"));
    let socket = private.place("stand-in.sock");
    let stand_in = StandIn::before(&private.socket(), &socket, |_| Answer::Engine);
    let host = format!("unix://{}", socket.display());
    let agent = launch().var("DOCKER_HOST", host).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);

    // While a container is younger than a minute, the agent requests the list every second, because the status shows seconds.
    // After that, the agent requests the list when an event arrives and when the event stream has ended.
    let old = |s: &Value| {
        [&ends, &stays].iter().all(|container| {
            let status = metadata(s, container.name()).map(|one| one["status"].to_string());
            status.is_some_and(|status| status.contains("minute"))
        })
    };
    snapshots.until(
        "containers older than a minute",
        Duration::from_secs(90),
        old,
    );
    let mut is_exact = |what: &str| {
        let running = engine.running();
        let exact = |s: &Value| has_exactly(s, &running);
        snapshots.until(what, EXACT, exact);
        for snapshot in snapshots.take(2) {
            assert!(exact(&snapshot), "not {running:?}: {snapshot:#}");
        }
    };
    assert_eq!(stand_in.cut("/events"), 1);
    drop(ends);
    is_exact("the list without the removed container");
    assert_eq!(stand_in.cut("/events"), 1);
    let begins = Container::run_on(engine, "begins", NO_NETWORK, "sleep 1000");
    is_exact("the list with the new container");
    drop(begins);

    let churn = Churn::start(engine);
    for _ in 0..3 {
        churn.wait_for_another();
        stand_in.cut("/events");
    }
    churn.end();
    is_exact("the remaining containers");
}
