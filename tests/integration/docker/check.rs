//! The commands `check` and `snapshot` with Docker.

use serial_test::parallel;
use tempfile::TempDir;

use super::container::Container;
use super::engine::Engine;
use super::launch;
use super::snapshots::{healthy, shows};
use super::stand_in::{Answer, StandIn};
use crate::support::{Finished, schema};

/// The output line of a component, `VERDICT component: details`. Fails unless there is exactly one such line.
fn line<'f>(finished: &'f Finished, component: &str) -> &'f str {
    let of_component = |line: &&String| {
        let (_verdict, rest) = line.split_once(' ').unwrap_or_default();
        let rest = rest.strip_prefix(component);
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    let lines: Vec<_> = finished.stdout.iter().filter(of_component).collect();
    assert_eq!(lines.len(), 1, "lines about {component}: {finished:#?}");
    lines[0]
}

/// Fails unless the component has this verdict.
fn assert_verdict(finished: &Finished, component: &str, verdict: &str) {
    let line = line(finished, component);
    assert!(
        line.starts_with(verdict),
        "{component} is not {verdict}: {finished:#?}"
    );
}

#[test]
#[parallel]
fn check_passes_on_a_healthy_host() {
    let _container = Container::run("checked", &[], "echo line; sleep 1000");
    let finished = launch().args(["check"]).run();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    for component in [
        "configuration",
        "system metrics",
        "Docker",
        "container stats",
        "container logs",
    ] {
        assert_verdict(&finished, component, "PASS");
    }
    assert!(!finished.stdout.iter().any(|line| line.starts_with("FAIL")));
}

#[test]
#[parallel]
fn check_says_that_there_is_no_engine() {
    let socket = "/nonexistent/docker.sock";
    let host = format!("unix://{socket}");
    let finished = launch().var("DOCKER_HOST", host).args(["check"]).run();
    assert_eq!(finished.code(), 1, "{finished:#?}");
    assert_verdict(&finished, "system metrics", "PASS");
    let docker = line(&finished, "Docker");
    assert!(docker.starts_with("FAIL"), "{docker}");
    assert!(docker.contains(socket), "the socket is not named: {docker}");
}

#[test]
#[parallel]
fn check_says_that_the_engine_never_answers() {
    let finished = check_with(|_| Answer::Silence);
    assert_eq!(finished.code(), 1, "{finished:#?}");
    assert_verdict(&finished, "Docker", "FAIL");
}

#[test]
#[parallel]
fn check_says_what_is_wrong_with_the_figures() {
    let _container = Container::run("checked-stats", &[], "echo line; sleep 1000");
    let finished = check_with(|path| breaking("/stats", path));
    assert_eq!(finished.code(), 1, "{finished:#?}");
    assert_verdict(&finished, "Docker", "PASS");
    assert_verdict(&finished, "container logs", "PASS");
    assert_verdict(&finished, "container stats", "FAIL");
    assert!(
        line(&finished, "container stats").contains("out of order"),
        "{finished:#?}"
    );
}

#[test]
#[parallel]
fn check_says_what_is_wrong_with_the_logs() {
    let _container = Container::run("checked-logs", &[], "echo line; sleep 1000");
    let finished = check_with(|path| breaking("/logs", path));
    assert_eq!(finished.code(), 1, "{finished:#?}");
    assert_verdict(&finished, "Docker", "PASS");
    assert_verdict(&finished, "container stats", "PASS");
    assert_verdict(&finished, "container logs", "FAIL");
    assert!(
        line(&finished, "container logs").contains("out of order"),
        "{finished:#?}"
    );
}

#[test]
#[parallel]
fn check_skips_disabled_sources() {
    let finished = launch()
        .var("DOCKER_ENABLED", "false")
        .args(["check"])
        .run();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    for component in ["Docker", "container stats", "container logs"] {
        assert_verdict(&finished, component, "SKIP");
    }
}

#[test]
#[parallel]
fn snapshot_prints_a_snapshot_with_the_containers() {
    let container = Container::run("printed", &[], "echo line; sleep 1000");
    container.wait_for_line("line");
    let finished = launch().args(["snapshot"]).run();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_eq!(finished.stdout.len(), 1, "{finished:#?}");
    let snapshot = schema::snapshot(&finished.stdout[0]);
    assert!(healthy(&snapshot), "{:#}", snapshot["sources"]);
    assert!(shows(&snapshot, container.name()), "{snapshot:#}");

    let finished = launch().args(["snapshot", "--pretty"]).run();
    assert!(finished.stdout.len() > 1, "{finished:#?}");
    let snapshot = schema::snapshot(&finished.stdout.join("\n"));
    assert!(shows(&snapshot, container.name()), "{snapshot:#}");
}

/// Runs `check` against a fake engine. `rule` returns the answer to each request.
fn check_with(rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Finished {
    // Makes the test image now, because the timeouts of `check` are too short for this work.
    Engine::local();
    let folder = TempDir::new().expect("cannot make a temporary folder");
    let socket = folder.path().join("docker.sock");
    let _stand_in = StandIn::at(&socket, rule);
    let host = format!("unix://{}", socket.display());
    // The agent reads figures only through the engine's API. If it read the kernel's files, it would not send the requests that
    // `rule` refuses.
    launch()
        .vars(&[("DOCKER_HOST", &host), ("CONTAINER_STATS", "engine")])
        .args(["check"])
        .run()
}

/// Refuses requests whose path contains `part`. Forwards all other requests to the real engine.
fn breaking(part: &str, path: &str) -> Answer {
    if path.contains(part) {
        Answer::Json("500 Internal Server Error", r#"{"message":"out of order"}"#)
    } else {
        Answer::Engine
    }
}
