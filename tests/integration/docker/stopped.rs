//! Stopped containers: each figure as `docker inspect` shows it, and the calls to the engine that they cost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use serial_test::{parallel, serial};
use tempfile::TempDir;

use super::container::Container;
use super::engine::{Engine, IMAGE, PrivateEngine};
use super::launch;
use super::snapshots::Snapshots;
use super::stand_in::{Answer, StandIn};
use crate::support::DEADLINE;

const EVERY: Duration = Duration::from_secs(1);

fn stopped<'s>(snapshot: &'s Value, container: &Container<'_>) -> Option<&'s Value> {
    let stopped = snapshot["stopped"].as_array().expect("no stopped");
    stopped.iter().find(|one| one["id"] == container.short_id())
}

fn is_running(snapshot: &Value, container: &Container<'_>) -> bool {
    let meta = snapshot["docker_meta"].as_array().expect("no docker_meta");
    meta.iter().any(|one| one["id"] == container.short_id())
}

/// The stopped container as `docker inspect` shows it.
fn expected(container: &Container<'_>) -> Value {
    let inspection = container.inspect();
    let state = &inspection["State"];
    let mut expected = json!({
        "id": container.short_id(), "name": inspection["Name"], "image": inspection["Config"]["Image"],
        "state": state["Status"], "oom_killed": state["OOMKilled"],
    });
    let policy = inspection["HostConfig"]["RestartPolicy"]["Name"].as_str();
    expected["restart_policy"] = policy
        .filter(|name| !name.is_empty())
        .unwrap_or("no")
        .into();
    let has_started = state["StartedAt"] != "0001-01-01T00:00:00Z";
    let has_failed = state["Error"] != "";
    if has_started || has_failed {
        expected["exit_code"] = state["ExitCode"].clone();
    }
    if has_failed {
        expected["error"] = state["Error"].clone();
    }
    for (ours, theirs) in [("started_at", "StartedAt"), ("finished_at", "FinishedAt")] {
        let time = state[theirs].as_str().unwrap();
        if !time.starts_with("0001") {
            // Docker shows nanoseconds without zeros at the end, and a snapshot has milliseconds.
            let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap();
            expected[ours] = format!("{seconds}.{:0<3.3}Z", fraction).into();
        }
    }
    if let Some(health) = state["Health"]["Status"].as_str() {
        expected["health"] = health.into();
    }
    let labels = &inspection["Config"]["Labels"];
    if let Some(project) = labels["com.docker.compose.project"].as_str() {
        expected["compose"] =
            json!({"project": project, "service": labels["com.docker.compose.service"]});
    }
    expected
}

#[test]
#[parallel]
fn a_stopped_container_is_shown_as_docker_inspect_shows_it() {
    // One container stops before the agent starts. The others stop while the agent runs.
    let early = Container::run("stopped-early", &[], "exit 0");
    early.wait_for_end();
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    snapshots.until("the first stopped container", DEADLINE, |snapshot| {
        stopped(snapshot, &early).is_some()
    });

    let compose = [
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=db",
        "--restart",
        "on-failure:1",
    ];
    let failed = Container::run("stopped-failed", &compose, "sleep 1; exit 3");
    let memory = ["--memory", "16m", "--memory-swap", "16m"];
    // The container ends one second after the kill. If it ended at once, Docker could miss that there was no memory.
    let script = "sleep 1; tail /dev/zero; status=$?; sleep 1; exit $status";
    let oom = Container::run("stopped-oom", &memory, script);
    let health = [
        "--health-cmd",
        "false",
        "--health-interval",
        "300ms",
        "--health-retries",
        "1",
    ];
    let killed = Container::run("stopped-killed", &health, "exec sleep 1000");
    let created = Container::create("stopped-created");
    let wrong = Container::create("stopped-wrong");
    // The engine cannot start this container, because it does not have the program.
    let broken = Container::create_with(
        "stopped-broken",
        &["--entrypoint", "/missing", "--restart", "always"],
    );
    assert!(!broken.try_start());
    wrong.docker("start", &[]);
    snapshots.until("the running container", DEADLINE, |snapshot| {
        is_running(snapshot, &wrong) && stopped(snapshot, &wrong).is_none()
    });
    wrong.docker("stop", &["--time", "0"]);
    let is_unhealthy = || killed.inspect()["State"]["Health"]["Status"] == "unhealthy";
    while !is_unhealthy() {
        thread::sleep(Duration::from_millis(100));
    }
    killed.docker("kill", &[]);
    for one in [&failed, &oom, &killed] {
        one.wait_for_end();
    }
    let all = [&early, &failed, &oom, &killed, &created, &wrong, &broken];
    let snapshot = snapshots.until("all stopped containers", DEADLINE, |snapshot| {
        let is_as_inspected = |one: &&Container<'_>| stopped(snapshot, one) == Some(&expected(one));
        all.iter().all(is_as_inspected)
    });
    for one in all {
        assert!(!is_running(&snapshot, one));
    }
    let value = |one, field| stopped(&snapshot, one).unwrap()[field].clone();
    assert_eq!(value(&failed, "exit_code"), 3);
    assert_eq!(value(&oom, "oom_killed"), true);
    assert_eq!(value(&killed, "exit_code"), 137);
    assert_eq!(value(&killed, "health"), "unhealthy");
    assert_eq!(value(&created, "exit_code"), Value::Null);
    assert!(value(&broken, "error").is_string());
    // The container that stopped last is the first.
    let times = snapshot["stopped"].as_array().unwrap().iter();
    let times: Vec<_> = times
        .filter_map(|one| one["finished_at"].as_str())
        .collect();
    assert!(times.is_sorted_by(|one, next| one >= next), "{times:?}");
}

#[test]
#[parallel]
fn a_failed_start_is_shown_although_it_has_no_event() {
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    let missing = ["--entrypoint", "/missing"];
    let known = Container::create_with("stopped-known", &missing);
    // No event is needed for this: a container that stops has the agent read the list of all containers.
    let end = Container::run("stopped-other", &[], "exit 0");
    snapshots.until("the created container", DEADLINE, |snapshot| {
        stopped(snapshot, &known).is_some() && stopped(snapshot, &end).is_some()
    });
    for expected in ["the first failure", "the second failure"] {
        assert!(!known.try_start());
        let new = Container::create_with("stopped-new", &missing);
        assert!(!new.try_start());
        snapshots.until(expected, Duration::from_secs(5), |snapshot| {
            let has_error = |one| {
                stopped(snapshot, one).is_some_and(|one| {
                    one["error"]
                        .as_str()
                        .is_some_and(|error| error.contains("/missing"))
                })
            };
            has_error(&known) && has_error(&new)
        });
    }
}

#[test]
#[parallel]
fn a_stopped_container_is_renamed_restarted_and_removed() {
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    let mut container = Container::run("stopped-changes", &[], "exec sleep 1000");
    container.docker("stop", &["--time", "0"]);
    snapshots.until("the stop", DEADLINE, |snapshot| {
        stopped(snapshot, &container).is_some()
    });
    container.rename("stopped-renamed");
    let name = format!("/{}", container.name());
    snapshots.until("the new name", DEADLINE, |snapshot| {
        stopped(snapshot, &container).is_some_and(|one| one["name"] == name)
    });
    container.docker("start", &[]);
    snapshots.until("the start", DEADLINE, |snapshot| {
        stopped(snapshot, &container).is_none() && is_running(snapshot, &container)
    });
    container.docker("kill", &[]);
    snapshots.until("the second stop", DEADLINE, |snapshot| {
        stopped(snapshot, &container).is_some_and(|one| one["exit_code"] == 137)
    });
    container.docker("rm", &[]);
    snapshots.until("the removal", DEADLINE, |snapshot| {
        stopped(snapshot, &container).is_none() && !is_running(snapshot, &container)
    });
}

#[test]
#[parallel]
fn a_container_in_a_crash_loop_is_never_lost() {
    let agent = launch()
        .var("PUBLISH_INTERVAL", "200ms")
        .var("DOCKER_INTERVAL", "200ms")
        .start();
    // Docker counts a container between two restarts as running. So the test starts it itself.
    let container = Container::run("stopped-loop", &[], "sleep 0.3; exit 1");
    let mut snapshots = Snapshots::of(&agent, Duration::from_millis(200));
    let is_shown = |snapshot: &Value| {
        is_running(snapshot, &container) || stopped(snapshot, &container).is_some()
    };
    snapshots.until("the container", DEADLINE, |snapshot| is_shown(snapshot));
    let ended = AtomicBool::new(false);
    let (mut stopped_shown, mut running_shown) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                container.wait_for_end();
                thread::sleep(Duration::from_millis(500));
                container.docker("start", &[]);
            }
            ended.store(true, Ordering::SeqCst);
        });
        while !ended.load(Ordering::SeqCst) {
            let snapshot = snapshots.next();
            let (stopped, running) = (
                stopped(&snapshot, &container).is_some(),
                is_running(&snapshot, &container),
            );
            assert!(stopped != running, "{stopped} {running}: {snapshot:#}");
            stopped_shown += u32::from(stopped);
            running_shown += u32::from(running);
        }
    });
    assert!(
        stopped_shown > 4 && running_shown > 4,
        "{stopped_shown} {running_shown}"
    );
}

/// An engine that notes the calls to it.
struct Noted {
    _engine: StandIn,
    folder: TempDir,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Noted {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&calls);
        let engine = StandIn::at(&folder.path().join("docker.sock"), move |path| {
            noted.lock().unwrap().push(path.to_owned());
            Answer::Engine
        });
        Self {
            folder,
            calls,
            _engine: engine,
        }
    }

    fn host(&self) -> String {
        format!(
            "unix://{}",
            self.folder.path().join("docker.sock").display()
        )
    }

    /// The calls since the previous request for them.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

#[test]
#[serial]
fn a_stop_costs_one_inspection_and_silence_costs_none() {
    let container = Container::run("stopped-calls", &[], "exec sleep 1000");
    let engine = Noted::start();
    let agent = launch().var("DOCKER_HOST", engine.host()).start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    snapshots.until("the container", DEADLINE, |snapshot| {
        is_running(snapshot, &container)
    });
    // While a container is young, the list of running containers is read once a second.
    thread::sleep(Duration::from_secs(3));
    engine.take();
    container.docker("stop", &["--time", "0"]);
    snapshots.until("the stop", DEADLINE, |snapshot| {
        stopped(snapshot, &container).is_some()
    });
    thread::sleep(Duration::from_secs(3));
    let calls = engine.take();
    let inspections = calls
        .iter()
        .filter(|path| path.contains(container.short_id()));
    assert!(inspections.clone().count() == 1, "{calls:?}");
    let lists = calls
        .iter()
        .filter(|path| path.contains("all=true"))
        .count();
    assert!((1..=3).contains(&lists), "{calls:?}");

    thread::sleep(Duration::from_secs(5));
    let calls = engine.take();
    let is_ping = |path: &String| path.contains("_ping");
    assert!(calls.iter().all(is_ping), "{calls:?}");
}

#[test]
#[parallel]
fn of_300_stopped_containers_the_newest_256_are_shown() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let engine: &Engine = private.engine();
    let script = format!(
        "for i in $(seq 1 300); do docker --host {} create --name stopped-$i {IMAGE} sh -c 'exit 5' >/dev/null || exit 1; done",
        engine.host(),
    );
    let created = std::process::Command::new("sh")
        .args(["-c", &script])
        .status();
    assert!(created.unwrap().success());
    let agent = launch().var("DOCKER_HOST", engine.host()).start();
    let mut snapshots = Snapshots::of(&agent, EVERY);
    let snapshot = snapshots.until("the stopped containers", DEADLINE, |snapshot| {
        snapshot["stopped_dropped"] == 44
    });
    assert_eq!(snapshot["stopped"].as_array().unwrap().len(), 256);
    for number in 1..=10 {
        engine.docker(["start", &format!("stopped-{number}")]);
    }
    let snapshot = snapshots.until("the ten that stopped last", DEADLINE, |snapshot| {
        let stopped = snapshot["stopped"].as_array().unwrap();
        stopped.iter().filter(|one| one["exit_code"] == 5).count() == 10
    });
    let stopped = snapshot["stopped"].as_array().unwrap();
    assert_eq!(
        (stopped.len(), &snapshot["stopped_dropped"]),
        (256, &json!(44))
    );
    let names: HashMap<&str, usize> = stopped
        .iter()
        .enumerate()
        .map(|(place, one)| (one["name"].as_str().unwrap(), place))
        .collect();
    assert_eq!(names.len(), 256);
    for number in 1..=10 {
        assert!(names[&*format!("/stopped-{number}")] < 10);
    }
    // If containers are removed, others take their places.
    let removed: Vec<_> = (200..=300)
        .map(|number| format!("stopped-{number}"))
        .collect();
    let arguments = ["rm"].into_iter().chain(removed.iter().map(String::as_str));
    engine.docker(arguments);
    let snapshot = snapshots.until("the removal", DEADLINE, |snapshot| {
        snapshot["stopped"].as_array().unwrap().len() == 199
    });
    assert_eq!(snapshot.get("stopped_dropped"), None);
}
