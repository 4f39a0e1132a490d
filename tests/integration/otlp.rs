//! Tests of metrics that the agent sends to a receiver of OpenTelemetry, and of requests that the receiver does not accept.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use serial_test::parallel;

use crate::support::otlp::{Point, Receiver, Reply};
use crate::support::{Agent, Authority, DEADLINE, Launch, wait};

/// An agent that sends metrics twice a second.
fn sending(receiver: &Receiver) -> Launch {
    Launch::new().vars(&[
        ("PUBLISH_INTERVAL", "500ms"),
        ("SYSTEM_INTERVAL", "500ms"),
        ("OTLP_SIGNALS", "metrics"),
        ("OTLP_TIMEOUT", "1s"),
        ("OTLP_ENDPOINT", &receiver.url()),
    ])
}

fn health(agent: &Agent) -> Value {
    agent.login().snapshot()["outputs"]["otlp"].clone()
}

fn wait_for_points(receiver: &Receiver) -> Vec<Point> {
    wait::until("metrics", DEADLINE, || {
        Some(receiver.points()).filter(|points| !points.is_empty())
    })
}

fn find<'p>(points: &'p [Point], name: &str) -> &'p Point {
    let found = points.iter().find(|point| point.name == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
#[parallel]
fn the_receiver_gets_the_figures_of_the_snapshot() {
    let receiver = Receiver::start();
    let agent = sending(&receiver)
        .vars(&[
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test",
            ),
            ("OTLP_COMPRESSION", "zstd"),
        ])
        .start();
    let points = wait_for_points(&receiver);
    let snapshot = agent.login().snapshot();
    let limit = find(&points, "system.memory.limit");
    let total = snapshot["system"]["memory_total"].as_f64().unwrap();
    assert!(
        (limit.value / 1_048_576.0 - total).abs() < 1.0,
        "{limit:?} {total}"
    );
    assert_eq!(limit.resource["host.name"], snapshot["host"]["hostname"]);
    assert_eq!(limit.resource["deployment.environment.name"], "test");
    assert_eq!(limit.resource["service.name"], "system-agent");
    let cpus = snapshot["host"]["cpus"].as_f64().unwrap();
    assert_eq!(find(&points, "system.cpu.logical.count").value, cpus);
    let io = points
        .iter()
        .find(|point| point.name == "system.network.io");
    let io = io.expect("no network");
    let boot = snapshot["host"]["boot_time"].as_u64().unwrap();
    assert_eq!(io.start, boot * 1_000_000_000);
    assert!(io.time > io.start);
    assert!(receiver.headers().contains("content-encoding: zstd"));
    assert!(receiver.headers().contains("user-agent: system-agent/"));
    let modes: Vec<_> = points
        .iter()
        .filter(|point| point.name == "system.cpu.time")
        .collect();
    assert!(
        modes
            .iter()
            .any(|point| point.attributes["cpu.mode"] == "iowait"),
        "{modes:?}"
    );
}

#[test]
#[parallel]
fn metrics_come_at_their_own_interval_with_the_names_of_the_receivers() {
    let receiver = Receiver::start();
    let _agent = sending(&receiver)
        .vars(&[("OTLP_INTERVAL", "2s"), ("OTLP_NAMES", "receivers")])
        .start();
    let points = wait_for_points(&receiver);
    let load = find(&points, "system.cpu.load_average.1m");
    assert!(load.value >= 0.0);
    let cpu = points
        .iter()
        .find(|point| point.name == "system.cpu.time")
        .unwrap();
    assert!(cpu.attributes["cpu"].starts_with("cpu"), "{cpu:?}");
    let times = wait::until("three exports", DEADLINE, || {
        Some(receiver.requests("/v1/metrics")).filter(|times| times.len() >= 3)
    });
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] > Duration::from_millis(1200), "{times:?}");
    }
}

#[test]
#[parallel]
fn without_a_receiver_snapshots_have_no_outputs() {
    let agent = Agent::start(&[]);
    assert_eq!(agent.login().snapshot().get("outputs"), None);
}

#[test]
#[parallel]
fn the_agent_waits_as_long_as_the_receiver_asks_and_warns_once() {
    let receiver = Receiver::start();
    receiver.reply(Reply::Refuse(429, Some(3)));
    let agent = sending(&receiver).start();
    let times = wait::until("three requests", DEADLINE, || {
        Some(receiver.requests("/v1/metrics")).filter(|times| times.len() >= 3)
    });
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_secs(3), "{times:?}");
    }
    let repeated = "OTLP: request not accepted, it is repeated";
    let warnings = agent.events(repeated);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let reason = warnings[0].text("reason");
    assert!(
        reason.starts_with("429 ") && reason.ends_with("refused by the test"),
        "{reason}"
    );
    assert_eq!(health(&agent)["status"], "failing");
    receiver.reply(Reply::Accept);
    agent.event("OTLP: the receiver accepts requests again");
    wait::until("the health", DEADLINE, || {
        (health(&agent)["status"] == "ok").then_some(())
    });
    wait_for_points(&receiver);
}

#[test]
#[parallel]
fn a_receiver_that_hangs_or_is_away_delays_nobody() {
    let mut receiver = Receiver::start();
    let mut agent = sending(&receiver).start();
    wait_for_points(&receiver);
    receiver.reply(Reply::Hang);
    let warned = agent.event("OTLP: request not accepted, it is repeated");
    assert_eq!(warned.text("reason"), "no answer within 1s");
    let mut client = agent.login();
    let begin = Instant::now();
    for _ in 0..6 {
        client.snapshot();
    }
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    receiver.go_away();
    receiver.reply(Reply::Accept);
    agent.event_where("OTLP: request not accepted, it is repeated", |event| {
        event.text("reason").contains("refused") || event.text("reason").contains("reset")
    });
    receiver.come_back();
    agent.event("OTLP: the receiver accepts requests again");
    receiver.reply(Reply::Hang);
    thread::sleep(Duration::from_millis(600));
    agent.signal(Signal::SIGTERM);
    let begin = Instant::now();
    assert!(agent.exit(DEADLINE).success());
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
#[parallel]
fn a_receiver_that_refuses_the_agent_is_not_asked_again_at_once() {
    let receiver = Receiver::start();
    receiver.reply(Reply::Refuse(401, None));
    let agent = sending(&receiver).start();
    let refused = agent.event("OTLP: the receiver refuses the agent or the URL");
    assert!(refused.text("reason").starts_with("401 "), "{refused:?}");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(receiver.requests("/v1/metrics").len(), 1);
}

#[test]
#[parallel]
fn the_headers_of_a_file_are_sent_and_never_logged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    fs::write(
        &file,
        "Authorization: Bearer mR4vX9-secret\nX-Scope-OrgID: team\n",
    )
    .unwrap();
    let receiver = Receiver::start();
    let agent = sending(&receiver)
        .var("OTLP_HEADERS_FILE", &file)
        .secret("mR4vX9-secret")
        .start();
    wait_for_points(&receiver);
    assert!(
        receiver
            .headers()
            .contains("authorization: bearer mr4vx9-secret")
    );
    // The file is read again for each request.
    fs::write(&file, "X-Scope-OrgID: other\n").unwrap();
    wait::until("the new header", DEADLINE, || {
        receiver
            .headers()
            .contains("x-scope-orgid: other")
            .then_some(())
    });
    assert_eq!(
        agent.event("OTLP: sending").text("otlp_headers_file"),
        file.to_str().unwrap()
    );
}

#[test]
#[parallel]
fn the_certificate_of_the_receiver_is_verified() {
    let (authority, other) = (Authority::new(), Authority::new());
    let receiver = Receiver::with_tls(&authority.issue("receiver"));
    let wrong = sending(&receiver)
        .var("OTLP_CA_FILE", &other.certificate)
        .start();
    let refused = wrong.event("OTLP: request not accepted, it is repeated");
    assert!(
        refused.text("reason").contains("certificate"),
        "{refused:?}"
    );
    assert!(receiver.points().is_empty());
    let _right = sending(&receiver)
        .var("OTLP_CA_FILE", &authority.certificate)
        .start();
    wait_for_points(&receiver);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(
        wrong
            .events("OTLP: request not accepted, it is repeated")
            .len(),
        1
    );
}
