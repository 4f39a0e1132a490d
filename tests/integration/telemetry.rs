//! The agent's own log: one event for each thing that happens, with fields, and no secrets.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use serial_test::parallel;

use crate::configuration::GOOD;
use crate::support::{Agent, Client, Event, KEY, Launch, PATIENCE, net};

#[test]
#[parallel]
fn the_start_tells_the_effective_configuration() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1500ms"), ("LOG_LINES", "7")]);
    let event = agent.event("agent started");
    assert_eq!(event.level(), "INFO");
    assert_eq!(event.text("version"), env!("CARGO_PKG_VERSION"));
    // What was set, and what was not.
    assert_eq!(event.text("publish_interval"), "1.5s");
    assert_eq!(event.text("system_interval"), "5s");
    assert_eq!(event.number("log_lines"), 7);
    assert_eq!(event.number("max_clients"), 10_000);
    assert_eq!(event.text("api_key"), "[redacted]");
    assert_eq!(event.text("whitelisted_clients"), "all");
    for setting in GOOD.iter().map(|(variable, _)| variable.to_lowercase()) {
        // There is no engine to name, and nothing is published.
        let without = [
            "docker_host",
            "nats_encoding",
            "nats_sections",
            "nats_buffer",
        ];
        let told = event.0.get(&setting).is_some() || without.contains(&setting.as_str());
        assert!(told, "no {setting} in {}", event.0);
    }
}

#[test]
#[parallel]
fn a_connection_is_told_from_its_beginning_to_its_end() {
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
        assert_told(&agent, client, number);
    }
}

/// The end of this connection is told, with an account of it that agrees with what the client saw.
fn assert_told(agent: &Agent, mut client: Client, number: u64) {
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
fn a_refusal_is_told_with_its_reason() {
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
        "the same for different things: {reasons:?}"
    );
    assert!(agent.events("client connected").is_empty());
}

#[test]
#[parallel]
fn every_line_is_an_event() {
    let mut agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    agent.login().snapshot();
    agent.connect().reset();
    agent.signal(Signal::SIGTERM);
    agent.exit(PATIENCE);
    assert!(agent.log().ended(PATIENCE));
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
        "the log belongs on standard error"
    );
}

#[test]
#[parallel]
fn text_is_for_people() {
    let port = net::free_port();
    let agent = Launch::new().var("LOG_FORMAT", "text").start_on(port);
    let has = |words: &'static str| move |line: &str| line.contains(words).then(|| line.to_owned());
    let started = agent.log().find(0, PATIENCE, has("agent started"));
    let started = started.expect("an event");
    assert!(Event::parse(&started).is_none(), "JSON: {started}");
    assert!(started.contains("INFO"), "{started}");
    assert!(
        !started.contains('\u{1b}'),
        "colours in a file: {started:?}"
    );
    let mut client = agent.connect();
    client.send("wrong-key-of-some-length\n");
    client.rest();
    let refused = agent.log().find(0, PATIENCE, has("client refused"));
    let refused = refused.expect("an event");
    let peer = format!("peer={}", client.local_address());
    assert!(refused.contains(&peer), "no {peer} in {refused}");
}

#[test]
#[parallel]
fn rust_log_filters_by_level() {
    let port = net::free_port();
    // A short key is something to warn of; a client that connects is not.
    let short = "aB3$xY9+";
    let launch = Launch::new().var("RUST_LOG", "warn").var("API_KEY", short);
    let agent = launch.start_on(port);
    let mut client = agent.connect();
    client.send(format!("{short}\n"));
    client.snapshot();
    let lines = agent.log().all();
    let [line] = lines.as_slice() else {
        panic!("not one event: {lines:#?}");
    };
    assert_eq!(Event::parse(line).expect("an event").level(), "WARN");
    let port = net::free_port();
    let mut agent = Launch::new().var("RUST_LOG", "off").start_on(port);
    agent.login().snapshot();
    agent.signal(Signal::SIGTERM);
    agent.exit(PATIENCE);
    assert!(agent.log().ended(PATIENCE));
    assert_eq!(agent.log().all(), Vec::<String>::new());
}

#[test]
#[parallel]
fn a_short_key_is_warned_of() {
    let short = "aB3$xY9+";
    let agent = Agent::start(&[("API_KEY", short)]);
    let warns = |line: &str| {
        let event = Event::parse(line).filter(|event| event.level() == "WARN")?;
        event.message().to_lowercase().contains("key").then_some(())
    };
    assert!(agent.log().find(0, PATIENCE, warns).is_some());
    let agent = Agent::start(&[("API_KEY", KEY)]);
    agent.login().snapshot();
    assert!(agent.log().all().iter().all(|line| warns(line).is_none()));
}

#[test]
#[parallel]
fn a_source_that_fails_is_told_once_not_once_per_try() {
    // It accepts and hangs up: an engine that is unwell.
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
        let told = agent.events("source failing");
        let told: Vec<&Event> = told.iter().filter(|e| e.text("source") == source).collect();
        let [event] = told.as_slice() else {
            panic!("not once: {told:#?}");
        };
        assert_eq!(event.level(), "WARN");
        assert!(!event.text("error").is_empty());
    }
    assert!(agent.events("source recovered").is_empty());
}
