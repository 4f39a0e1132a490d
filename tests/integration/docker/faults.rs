//! Tests of faults that a real engine cannot be made to have. A fake engine has these faults.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::container::Container;
use super::snapshots::{
    Snapshots, collected_at, docker_and_logs_are_failing, docker_is_failing, healthy, is_fresh,
    lines, shows,
};
use super::stand_in::{Answer, StandIn};
use super::{INTERVAL, RECOVERY, launch};
use crate::support::{Agent, DEADLINE};

/// Snapshots must show a fault within this time. The time covers the deadline of a call to the engine (5 s) and a round.
const NOTICE: Duration = Duration::from_secs(10);

/// Limit of the agent's memory in bytes, for all answers of an engine.
const MEMORY: u64 = 100 * 1024 * 1024;

/// A temporary folder with the path of a socket.
struct Place {
    _folder: TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().expect("cannot make a temporary folder");
        let socket = folder.path().join("docker.sock");
        let _folder = folder;
        Self { _folder, socket }
    }

    fn agent(&self) -> Agent {
        launch().var("DOCKER_HOST", self.host()).start()
    }

    /// Returns the value of `DOCKER_HOST`.
    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// Fails unless the agent survives a fault of an engine. The engine works, then gives this answer to each request, and then works
/// again.
fn assert_survives(answer: Answer) {
    let place = Place::new();
    let script = "while :; do echo line; sleep 0.1; done";
    let container = Container::run("fault", &["--network", "none"], script);
    let well = StandIn::at(&place.socket, |_| Answer::Engine);
    // Other tests have containers whose logs only the engine can read. The agent waits for these calls.
    let agent = launch()
        .var("DOCKER_HOST", place.host())
        .var("CONTAINERS_INCLUDE", container.name())
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &Value| healthy(s) && shows(s, container.name());
    snapshots.until("the container", DEADLINE, up);

    drop(well);
    let unwell = StandIn::at(&place.socket, move |_| answer.clone());
    snapshots.until("the fault", NOTICE, docker_is_failing);
    let mut newest = Vec::new();
    for snapshot in snapshots.take(4) {
        assert!(docker_is_failing(&snapshot), "{snapshot:#}");
        // The kernel's figures stay available.
        assert!(shows(&snapshot, container.name()), "{snapshot:#}");
        for source in ["docker", "logs"] {
            assert!(is_fresh(&snapshot, source, INTERVAL), "{snapshot:#}");
        }
        newest.push(lines(&snapshot, container.name()).and_then(|mut lines| lines.pop()));
    }
    assert!(newest.last() > newest.first(), "{newest:?}");

    drop(unwell);
    let _well = StandIn::at(&place.socket, |_| Answer::Engine);
    snapshots.until("the recovery", RECOVERY, up);
    // The agent logs each change once, not each attempt.
    let logged = |message: &str| {
        let events = agent.events(message);
        let docker = events
            .iter()
            .filter(|event| event.text("source") == "docker");
        docker.count()
    };
    assert_eq!(logged("source failing"), 1);
    assert_eq!(logged("source recovered"), 1);
    let peak = agent.peak_rss();
    assert!(peak < MEMORY, "the agent's memory reached {peak} bytes");
}

#[test]
#[parallel]
fn the_agent_survives_an_engine_that_never_answers() {
    assert_survives(Answer::Silence);
}

#[test]
#[parallel]
fn the_agent_survives_an_engine_that_answers_garbage() {
    assert_survives(Answer::Bytes(
        b"\x16\x03\x01\x00\xff\xfe garbage \x00\x80\r\n\r\n\xff\xff",
    ));
}

#[test]
#[parallel]
fn the_agent_survives_an_engine_that_closes_every_connection() {
    assert_survives(Answer::Bytes(b""));
}

#[test]
#[parallel]
fn the_agent_survives_an_engine_that_answers_with_errors() {
    assert_survives(Answer::Json(
        "500 Internal Server Error",
        r#"{"message":"out of order"}"#,
    ));
}

#[test]
#[parallel]
fn the_agent_survives_an_engine_that_answers_with_other_json() {
    assert_survives(Answer::Json(
        "200 OK",
        r#"{"message":"not what was asked for"}"#,
    ));
}

#[test]
#[parallel]
fn the_agent_survives_an_answer_without_end() {
    assert_survives(Answer::Endless);
}

#[test]
#[parallel]
fn the_message_of_the_engine_is_in_the_error_of_the_source() {
    let place = Place::new();
    let answer = Answer::Json(
        "500 Internal Server Error",
        r#"{"message":"disk is on fire"}"#,
    );
    let _stand_in = StandIn::at(&place.socket, move |_| answer.clone());
    let agent = place.agent();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let snapshot = snapshots.until("the fault", NOTICE, docker_and_logs_are_failing);
    for source in ["docker", "logs"] {
        let reason = snapshot["sources"][source]["error"].as_str().unwrap();
        assert!(reason.contains("disk is on fire"), "{source}: {reason}");
    }
}

#[test]
#[parallel]
fn the_agent_survives_a_list_of_odd_containers() {
    const ODD: &str = r#"[{}, {"Id": "", "Names": []}, {"Id": "abc", "Names": null, "Ports": null, "Created": -1},
        {"Id": "0123456789abcdef", "Names": ["no slash"], "Image": null, "State": "running", "Status": "",
         "Ports": [{}, {"PrivatePort": 70000, "Type": "quic"}]}]"#;
    let place = Place::new();
    let odd = |path: &str| {
        if path.contains("/containers/json") {
            Answer::Json("200 OK", ODD)
        } else {
            Answer::Engine
        }
    };
    let stand_in = StandIn::at(&place.socket, odd);
    let agent = place.agent();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    // `take` checks that each snapshot is valid and on time. The test does not check which of these containers the agent shows.
    snapshots.take(4);

    drop(stand_in);
    let _well = StandIn::at(&place.socket, |_| Answer::Engine);
    let container = Container::run("after-odd", &["--network", "none"], "echo up; sleep 1000");
    let up = |s: &Value| healthy(s) && shows(s, container.name());
    snapshots.until("the recovery", RECOVERY, up);
}

#[test]
#[parallel]
fn a_hung_container_does_not_delay_the_others() {
    let hung = Container::run("hung", &["--network", "none"], "echo hung; sleep 1000");
    let other = Container::run("other", &["--network", "none"], "echo other; sleep 1000");
    let place = Place::new();
    let id = hung.short_id().to_owned();
    let rule = move |path: &str| {
        let its_own = path.contains(&id);
        if its_own {
            Answer::Silence
        } else {
            Answer::Engine
        }
    };
    let _stand_in = StandIn::at(&place.socket, rule);
    let agent = place.agent();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let logged = |s: &Value| docker_and_logs_are_failing(s) && shows(s, other.name());
    let snapshot = snapshots.until("the other container and the fault", DEADLINE, logged);
    let first = collected_at(&snapshot, "docker");
    snapshots.until("newer figures of the other container", DEADLINE, |s| {
        shows(s, other.name()) && collected_at(s, "docker") > first
    });
}
