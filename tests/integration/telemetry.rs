//! Tests of the agent's own log: events, fields, formats and levels.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use serial_test::parallel;

use crate::configuration::GOOD;
use crate::support::{Agent, Client, DEADLINE, Event, KEY, Launch, net};

#[test]
#[parallel]
fn the_start_event_has_the_effective_configuration() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1500ms"), ("LOG_LINES", "7")]);
    let event = agent.event("agent started");
    assert_eq!(event.level(), "INFO");
    assert_eq!(event.text("version"), env!("CARGO_PKG_VERSION"));
    // Both configured values and defaults are logged.
    assert_eq!(event.text("publish_interval"), "1.5s");
    assert_eq!(event.text("system_interval"), "5s");
    assert_eq!(event.text("history"), "600s");
    assert_eq!(event.number("log_lines"), 7);
    assert_eq!(event.number("max_clients"), 10_000);
    assert_eq!(event.text("api_key"), "[redacted]");
    assert_eq!(event.text("whitelisted_clients"), "all");
    for setting in GOOD.iter().map(|(variable, _)| variable.to_lowercase()) {
        // Docker, NATS, OpenTelemetry and a directory of text files are not configured in this test.
        let without = [
            "docker_host",
            "nats_encoding",
            "nats_sections",
            "nats_buffer",
            "textfile_dir",
        ];
        let is_other = without.contains(&setting.as_str())
            || setting.starts_with("otlp_") && setting != "otlp_endpoint";
        let logged = event.0.get(&setting).is_some() || is_other;
        assert!(logged, "no {setting} in {}", event.0);
    }
}

#[test]
#[parallel]
fn a_connection_is_logged_at_its_beginning_and_at_its_end() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    let mut clients = [agent.login(), agent.login()];
    let mut numbers = Vec::new();
    for client in &mut clients {
        client.snapshot();
        let peer = client.local_address().to_string();
        let connected = agent.event_where("client connected", |event| event.text("peer") == peer);
        assert_eq!(connected.level(), "INFO");
        numbers.push(connected.number("client"));
    }
    assert_ne!(numbers[0], numbers[1]);
    for (client, number) in clients.into_iter().zip(numbers) {
        assert_logged(&agent, client, number);
    }
}

/// Asserts that the disconnection is logged with the client's number, its snapshots and its duration.
fn assert_logged(agent: &Agent, mut client: Client, number: u64) {
    for _ in 0..5 {
        client.snapshot();
    }
    let peer = client.local_address().to_string();
    drop(client);
    let left = agent.event_where("client disconnected", |event| event.text("peer") == peer);
    assert_eq!(left.level(), "INFO");
    assert_eq!(left.number("client"), number);
    assert!(left.number("snapshots") >= 6, "{left:?}");
    assert_eq!(left.number("skipped"), 0);
    assert!(
        (400..20_000).contains(&left.number("duration_ms")),
        "{left:?}"
    );
    assert!(!left.text("reason").is_empty());
}

#[test]
#[parallel]
fn a_refusal_is_logged_with_its_reason() {
    let agent = Agent::start(&[("AUTH_TIMEOUT", "500ms")]);
    let mut reasons = Vec::new();
    for sent in ["wrong-key-of-some-length\n", "", &"k".repeat(5000)] {
        let mut client = agent.connect();
        let peer = client.local_address().to_string();
        client.send(sent);
        client.rest();
        let event = agent.event_where("client refused", |event| event.text("peer") == peer);
        reasons.push(event.text("reason").to_owned());
    }
    let mut unique = reasons.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(
        unique.len(),
        reasons.len(),
        "different refusals have the same reason: {reasons:?}"
    );
    assert!(agent.events("client connected").is_empty());
}

#[test]
#[parallel]
fn every_line_of_the_log_is_an_event() {
    let mut agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    agent.login().snapshot();
    agent.connect().reset();
    agent.signal(Signal::SIGTERM);
    agent.exit(DEADLINE);
    assert!(agent.log().ended(DEADLINE));
    for line in agent.log().all() {
        let event = Event::parse(&line).unwrap_or_else(|| panic!("not an event: {line:?}"));
        assert!(
            humantime::parse_rfc3339(event.text("timestamp")).is_ok(),
            "{line}"
        );
        assert!(!event.message().is_empty(), "{line}");
        assert!(event.text("target").starts_with("system_agent"), "{line}");
        event.level();
    }
    assert!(
        agent.stdout().is_empty(),
        "the log must go to standard error"
    );
}

#[test]
#[parallel]
fn the_text_format_is_not_json() {
    let port = net::free_port();
    let agent = Launch::new().var("LOG_FORMAT", "text").start_on(port);
    let has = |words: &'static str| move |line: &str| line.contains(words).then(|| line.to_owned());
    let started = agent.log().find(0, DEADLINE, has("agent started"));
    let started = started.expect("no event");
    assert!(Event::parse(&started).is_none(), "JSON: {started}");
    assert!(started.contains("INFO"), "{started}");
    assert!(
        !started.contains('\u{1b}'),
        "there are colours although the output is not a terminal: {started:?}"
    );
    let mut client = agent.connect();
    client.send("wrong-key-of-some-length\n");
    client.rest();
    let refused = agent.log().find(0, DEADLINE, has("client refused"));
    let refused = refused.expect("no event");
    let peer = format!("peer={}", client.local_address());
    assert!(refused.contains(&peer), "no {peer} in {refused}");
}

#[test]
#[parallel]
fn rust_log_filters_by_level() {
    let port = net::free_port();
    // A short key causes a warning. A client that connects causes only an info event.
    let short = "aB3$xY9+";
    let launch = Launch::new().var("RUST_LOG", "warn").var("API_KEY", short);
    let agent = launch.start_on(port);
    let mut client = agent.connect();
    client.send(format!("{short}\n"));
    client.snapshot();
    let lines = agent.log().all();
    let [line] = lines.as_slice() else {
        panic!("not exactly one event: {lines:#?}");
    };
    assert_eq!(Event::parse(line).expect("no event").level(), "WARN");
    let port = net::free_port();
    let mut agent = Launch::new().var("RUST_LOG", "off").start_on(port);
    agent.login().snapshot();
    agent.signal(Signal::SIGTERM);
    agent.exit(DEADLINE);
    assert!(agent.log().ended(DEADLINE));
    assert_eq!(agent.log().all(), Vec::<String>::new());
}

#[test]
#[parallel]
fn a_short_key_causes_a_warning() {
    let short = "aB3$xY9+";
    let agent = Agent::start(&[("API_KEY", short)]);
    let warns = |line: &str| {
        let event = Event::parse(line).filter(|event| event.level() == "WARN")?;
        event.message().to_lowercase().contains("key").then_some(())
    };
    assert!(agent.log().find(0, DEADLINE, warns).is_some());
    let agent = Agent::start(&[("API_KEY", KEY)]);
    agent.login().snapshot();
    assert!(agent.log().all().iter().all(|line| warns(line).is_none()));
}

#[test]
#[parallel]
fn a_failing_source_is_logged_once_and_not_at_each_retry() {
    // A faulty engine that accepts each connection and immediately closes it.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let engine = UnixListener::bind(&path).unwrap();
    let agent = Launch::new()
        .var("DOCKER_ENABLED", "true")
        .var("DOCKER_HOST", format!("unix://{}", path.display()))
        .var("PUBLISH_INTERVAL", "100ms")
        .vars(&[("DOCKER_INTERVAL", "100ms"), ("LOG_INTERVAL", "100ms")])
        .start();
    let mut client = agent.login();
    for _ in 0..8 {
        drop(engine.accept().unwrap());
    }
    for source in ["docker", "logs"] {
        let snapshot = client.snapshot();
        assert_eq!(snapshot["status"], "degraded");
        assert_eq!(snapshot["sources"][source]["status"], "failing");
        let logged = agent.events("source failing");
        let logged: Vec<&Event> = logged
            .iter()
            .filter(|e| e.text("source") == source)
            .collect();
        let [event] = logged.as_slice() else {
            panic!("not exactly one event: {logged:#?}");
        };
        assert_eq!(event.level(), "WARN");
        assert!(!event.text("error").is_empty());
    }
    assert!(agent.events("source recovered").is_empty());
}
