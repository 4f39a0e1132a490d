//! Tests of events and log lines that the agent publishes to a real nats-server. Each event and log line is stored once and in
//! order, or is counted as dropped. This is also true when the server hangs, is killed or refuses messages.
//! This file is long: its tests share a stream and containers that write numbered lines.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::Config;
use nix::sys::signal::Signal;
use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::{Container, unique_name};
use super::engine::PrivateEngine;
use super::launch;
use crate::nats_examples::Fleet;
use crate::support::nats::{NatsClient, NatsServer, Stored, dropped, host, token};
use crate::support::{DEADLINE, KEY, Launch, wait};

/// Writes numbered lines with a pause after every ten lines. After a restart of the container the numbers start again with 1.
const WRITER: &str = "i=0; while true; do i=$((i + 1)); echo \"line $i $filler\"; case $i in *0) sleep $pause;; esac; done";

/// A container that runs [`WRITER`] with lines of about `filler` bytes. Waits for the first log line.
fn writer(topic: &str, filler: usize, pause: &str) -> Container<'static> {
    let variables = format!("filler={}; pause={pause};", "x".repeat(filler));
    let container = Container::run(topic, &[], &format!("{variables} {WRITER}"));
    container.wait_for_line_with("line 1 ");
    container
}

/// An agent that reads logs and publishes five times a second.
fn publishing(url: &str) -> Launch {
    launch()
        .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
        .vars(&[("LOG_LINES", "10000"), ("NATS_URL", url)])
}

fn logs_of(container: &str) -> String {
    format!("agents.{}.logs.{}", host(), token(container))
}

/// The number in `TIMESTAMP line NUMBER …`.
fn number(line: &str) -> u64 {
    let (timestamp, text) = line.split_once(' ').expect("expected a timestamp");
    humantime::parse_rfc3339(timestamp).expect("expected a timestamp");
    let number = text
        .strip_prefix("line ")
        .and_then(|text| text.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number: {line:?}"))
}

/// Totals of a container's numbered log lines in the JetStream stream.
#[derive(Debug, Default)]
struct Account {
    first: u64,
    last: u64,
    lines: u64,
    dropped: u64,
    messages: u64,
    longest: usize,
}

impl Account {
    /// Adds up the container's messages. Fails if log lines between two messages are missing and not counted as dropped.
    /// Fails also if two messages have the same id.
    fn of(stored: &[Stored], container: &str) -> Self {
        let mut account = Self::default();
        let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
        let subject = logs_of(container);
        for message in stored.iter().filter(|message| message.subject == subject) {
            let id = message.id.as_deref().expect("expected an id");
            *ids.entry(id).or_default() += 1;
            assert_eq!(ids[id], 1, "two messages have the id {id}");
            account.take_in(&message.text, message.dropped);
        }
        account
    }

    fn take_in(&mut self, text: &str, dropped: u64) {
        assert!(text.ends_with('\n'), "{text:?}");
        self.dropped += dropped;
        self.messages += 1;
        self.longest = self.longest.max(text.len());
        let mut due = self.last + 1 + dropped;
        for line in text.lines() {
            let number = number(line);
            if self.lines == 0 {
                (self.first, due) = (number, number);
            }
            assert_eq!(number, due, "{dropped} dropped, {self:?}");
            (self.last, due) = (number, number + 1);
            self.lines += 1;
        }
    }
}

/// Waits until the stream holds this log line of the container.
fn wait_for_stored(client: &NatsClient, container: &str, line: u64) {
    wait::until(
        &format!("line {line} to be in the stream"),
        DEADLINE * 2,
        || {
            thread::sleep(Duration::from_millis(200));
            (Account::of(&client.stored("AGENTS"), container).last >= line).then_some(())
        },
    );
}

/// The number of the container's newest log line.
fn written(container: &Container<'_>) -> u64 {
    number(container.logs().last().expect("lines"))
}

#[test]
#[serial]
fn each_log_line_is_stored_once_when_the_server_is_killed_and_restarted() {
    let container = writer("nats-killed", 50, "0.01");
    let mut server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url()).start();
    wait_for_stored(&server.client(), container.name(), 1);
    for round in 0..5 {
        let connected = || (agent.events("NATS: connected").len() > round).then_some(());
        wait::until("the agent to be connected", DEADLINE, connected);
        thread::sleep(Duration::from_millis(700 + round as u64 * 150));
        // The stopped server never reads the messages that the agent sends from now on.
        server.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(500));
        server.kill();
        thread::sleep(Duration::from_secs(round as u64 % 3));
        server.run();
    }
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    let client = server.client();
    wait_for_stored(&client, container.name(), last);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.last, account.dropped), (last, 0));
    assert_eq!(account.lines, last - account.first + 1);
    assert!(account.lines > 2000, "{account:?}");
    assert_eq!(agent.events("NATS: connection lost").len(), 5);
    assert_eq!(agent.events("NATS: connected").len(), 6);
}

#[test]
#[serial]
fn each_log_line_of_a_site_is_stored_once_when_the_hub_is_killed_and_restarted() {
    let container = writer("nats-site", 50, "0.05");
    let mut fleet = Fleet::with_host_at_leaf(&host());
    let seed = fleet.secret("agent", &fleet.db);
    wait::until("the leaf node to be connected", DEADLINE, || {
        let connected = fleet.leaf.log().contains("Leafnode connection created");
        connected.then_some(())
    });
    let agent = publishing(&fleet.leaf.url())
        .var("NATS_NKEY_FILE", &seed)
        .start();
    let restart = Container::run("nats-site-event", &[], "exit 7");
    for _ in 0..2 {
        let before = written(&container);
        wait_for_stored(&fleet.auditor(), container.name(), before);
        fleet.hub.kill();
        restart.docker("start", &[]);
        wait::until("log lines while the hub is down", DEADLINE, || {
            thread::sleep(Duration::from_millis(200));
            (written(&container) > before + 500).then_some(())
        });
        fleet.hub.run();
    }
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    let auditor = fleet.auditor();
    wait_for_stored(&auditor, container.name(), last);
    let stored = auditor.stored("AGENTS");
    let account = Account::of(&stored, container.name());
    assert_eq!((account.last, account.dropped), (last, 0));
    assert_eq!(account.lines, last - account.first + 1);
    let starts = stored.iter().filter(|message| {
        message.subject == format!("agents.{}.events", host())
            && message.text.contains(restart.short_id())
            && message.text.contains("\"start\"")
    });
    assert!(starts.count() >= 2);
    // The agent is connected to the leaf node, which ran all the time.
    assert_eq!(agent.events("NATS: connected").len(), 1);
}

#[test]
#[serial]
fn a_hung_server_delays_no_snapshot_and_gets_each_log_line_once() {
    let container = writer("nats-hangs", 200, "0.005");
    let server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url()).start();
    wait_for_stored(&server.client(), container.name(), 1);
    let mut own = agent.connect();
    own.send(format!("{KEY} {{\"sections\":[\"system\"]}}\n"));
    let seq = |line: Option<String>| {
        let snapshot: Value =
            serde_json::from_str(&line.expect("no snapshot: the stream has ended")).unwrap();
        snapshot["agent"]["seq"].as_u64().unwrap()
    };
    let mut last = seq(own.line());
    let before = agent.peak_rss();
    server.signal(Signal::SIGSTOP);
    // Longer than the timeout of an acknowledgement and the timeout of a silent connection.
    let end = Instant::now() + Duration::from_secs(35);
    let mut latest = Duration::ZERO;
    while Instant::now() < end {
        let asked = Instant::now();
        last += 1;
        assert_eq!(seq(own.line()), last);
        latest = latest.max(asked.elapsed());
    }
    server.signal(Signal::SIGCONT);
    assert!(
        latest < Duration::from_millis(800),
        "a snapshot took {latest:?}"
    );
    // The limit covers the memory for the buffer and for the messages on their way.
    let growth = agent.peak_rss() - before;
    assert!(
        growth < 24 << 20,
        "the agent's memory grew by {growth} bytes"
    );
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    let client = server.client();
    wait_for_stored(&client, container.name(), last);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.last, account.dropped), (last, 0));
    assert_eq!(account.lines, last - account.first + 1);
}

#[test]
#[parallel]
fn log_lines_wait_in_the_log_files_while_the_buffer_is_full() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let script = format!("filler={}; pause=0.05; {WRITER}", "x".repeat(100));
    let offline = ["--network", "none"];
    let container = Container::run_on(private.engine(), "nats-files", &offline, &script);
    container.wait_for_line_with("line 1 ");
    let mut server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url())
        .vars(&[("DOCKER_HOST", private.engine().host())])
        .vars(&[("NATS_BUFFER", "64KiB"), ("LOG_LINES", "10")])
        .start();
    wait_for_stored(&server.client(), container.name(), 1);
    server.kill();
    let at_first = written(&container);
    wait::until("more lines than the buffer holds", DEADLINE, || {
        (written(&container) > at_first + 2000).then_some(())
    });
    server.run();
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    let client = server.client();
    wait_for_stored(&client, container.name(), last);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.last, account.dropped), (last, 0));
    assert_eq!(account.lines, last - account.first + 1);
    assert!(
        agent
            .events("NATS: the buffer is full: the oldest log lines and events are dropped")
            .is_empty()
    );
}

#[test]
#[parallel]
fn a_full_buffer_drops_and_counts_its_oldest_entries() {
    // The test uses a private engine, so that no other container fills the buffer.
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let script = format!("filler={}; pause=0.05; {WRITER}", "x".repeat(100));
    // The agent reads this log by calls to the engine, so its lines cannot wait in log files.
    let offline = ["--network", "none"];
    let container = Container::run_on(private.engine(), "nats-small", &offline, &script);
    container.wait_for_line_with("line 1 ");
    let mut server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url())
        .vars(&[("DOCKER_HOST", private.engine().host())])
        .vars(&[("NATS_BUFFER", "64KiB"), ("LOG_LINES", "300")])
        .var("CONTAINER_STATS", "engine")
        .start();
    wait_for_stored(&server.client(), container.name(), 1);
    server.kill();
    let full = agent.event("NATS: the buffer is full: the oldest log lines and events are dropped");
    assert_eq!(full.level(), "WARN");
    let at_first = written(&container);
    wait::until("more to be lost", DEADLINE, || {
        (written(&container) > at_first + 300).then_some(())
    });
    server.run();
    let out =
        agent.event("NATS: the buffer is empty again, after log lines and events were dropped");
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    let client = server.client();
    wait_for_stored(&client, container.name(), last);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!(account.last, last);
    assert_eq!(account.lines + account.dropped, last - account.first + 1);
    assert!(account.dropped > 200, "{account:?}");
    // The agent logs the loss once and states the number of lost log lines.
    assert_eq!(account.dropped, out.number("lost"));
    for message in [full.message(), out.message()] {
        assert_eq!(agent.events(message).len(), 1);
    }
}

#[test]
#[serial]
fn a_restart_of_the_agent_repeats_and_loses_no_log_line() {
    let container = writer("nats-again", 50, "0.05");
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    let mut seen = 0;
    for end in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        let mut agent = publishing(&server.url()).start();
        wait::until("new lines to be stored", DEADLINE, || {
            thread::sleep(Duration::from_millis(200));
            let last = Account::of(&client.stored("AGENTS"), container.name()).last;
            (last > seen + 300).then_some(())
        });
        agent.signal(end);
        agent.exit(DEADLINE);
        thread::sleep(Duration::from_secs(1));
        seen = Account::of(&client.stored("AGENTS"), container.name()).last;
    }
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!(account.dropped, 0);
    assert_eq!(account.lines, account.last - account.first + 1);
    assert!(account.lines > 900, "{account:?}");
}

#[test]
#[parallel]
fn no_log_line_is_repeated_when_the_engine_starts_after_the_agent() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    // The container writes its log lines once, not at each start.
    let script =
        "[ -e /said ] || for i in $(seq 1 100); do echo line $i; done; touch /said; sleep 1000";
    let options = ["--network", "none", "--restart", "always"];
    let engine = private.engine().clone();
    let container = Container::run_on(&engine, "nats-late", &options, script);
    container.wait_for_line_with("line 100");
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    let launch = || publishing(&server.url()).vars(&[("DOCKER_HOST", engine.host())]);
    let mut agent = launch().start();
    wait_for_stored(&client, container.name(), 100);
    agent.signal(Signal::SIGTERM);
    agent.exit(DEADLINE);
    private.stop();
    let agent = launch().start();
    // The agent publishes snapshots without logs now.
    let mut snapshots = client.subscribe("agents.*.snapshot");
    for _ in 0..3 {
        snapshots.next();
    }
    private.start();
    wait::until("the container to run again", DEADLINE, || {
        (container.inspect()["State"]["Running"] == true).then_some(())
    });
    container.exec("echo line 101 > /proc/1/fd/1");
    wait_for_stored(&client, container.name(), 101);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.first, account.lines, account.dropped), (1, 101, 0));
    drop(agent);
}

/// Tests both ways of reading logs: from files, and through the engine's API.
#[test]
#[parallel]
fn no_log_line_is_repeated_when_a_container_starts_after_the_agent() {
    let script =
        "[ -e /said ] || for i in $(seq 1 100); do echo line $i; done; touch /said; sleep 1000";
    for way in ["kernel", "engine"] {
        let container = Container::run("nats-later", &["--network", "none"], script);
        container.wait_for_line_with("line 100");
        let server = NatsServer::with_jetstream("");
        let client = server.client();
        let launch = || publishing(&server.url()).var("CONTAINER_STATS", way);
        let mut agent = launch().start();
        wait_for_stored(&client, container.name(), 100);
        container.docker("stop", &["--time", "0"]);
        agent.signal(Signal::SIGTERM);
        agent.exit(DEADLINE);
        let agent = launch().start();
        let mut snapshots = client.subscribe("agents.*.snapshot");
        for _ in 0..5 {
            snapshots.next();
        }
        container.docker("start", &[]);
        container.exec("echo line 101 > /proc/1/fd/1");
        wait_for_stored(&client, container.name(), 101);
        let account = Account::of(&client.stored("AGENTS"), container.name());
        let expected = (1, 101, 0);
        assert_eq!(
            (account.first, account.lines, account.dropped),
            expected,
            "{way}"
        );
        drop(agent);
    }
}

/// When an agent starts, it receives recent events from the engine. The previous agent received the same events.
#[test]
#[parallel]
fn an_event_that_two_agents_publish_is_stored_once() {
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    let stored = |container: &Container<'_>| {
        let all = client.stored("AGENTS").into_iter();
        let own = all.filter(|message| {
            message.subject.ends_with(".events") && message.text.contains(container.short_id())
        });
        own.collect::<Vec<_>>()
    };
    let has = |container: &Container<'_>, events: usize| {
        wait::until("an event to be stored", DEADLINE, || {
            (stored(container).len() >= events).then_some(())
        });
    };
    // If the second agent starts too late, the engine no longer sends the event to that agent. In that case the loop tries again.
    let end = Instant::now() + DEADLINE;
    let (agent, container) = loop {
        assert!(
            Instant::now() < end,
            "no agent received an event from before its start"
        );
        let mut agent = publishing(&server.url()).start();
        agent.login().snapshot();
        let container = Container::run("nats-events", &["--network", "none"], "exit 7");
        has(&container, 2);
        agent.signal(Signal::SIGKILL);
        agent.exit(DEADLINE);
        let agent = publishing(&server.url()).start();
        let mut own = agent.connect();
        own.send(format!("{KEY} {{\"sections\":[\"events\"]}}\n"));
        if own
            .line()
            .expect("no snapshot: the stream has ended")
            .contains(container.short_id())
        {
            break (agent, container);
        }
    };
    // The agent publishes in order. After these events are stored, all earlier events are stored, too.
    let later = Container::run("nats-events", &["--network", "none"], "exit 7");
    has(&later, 2);
    assert_eq!(stored(&container).len(), 2);
    drop(agent);
}

#[test]
#[parallel]
fn buffered_log_lines_are_published_before_the_agent_exits() {
    let container = writer("nats-end", 50, "0.1");
    let server = NatsServer::with_jetstream("");
    let mut agent = publishing(&server.url())
        .var("SHUTDOWN_TIMEOUT", "20s")
        .start();
    let client = server.client();
    wait_for_stored(&client, container.name(), 1);
    server.signal(Signal::SIGSTOP);
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    // When a client has the final log line, the publisher also has this log line.
    let mut own = agent.connect();
    own.send(format!(
        "{KEY} {{\"sections\":[\"logs\"],\"logs\":\"new\"}}\n"
    ));
    let has_last = |line: &str| line.contains(&format!("line {last} "));
    while !has_last(&own.line().expect("no snapshot: the stream has ended")) {}
    own.line().expect("expected the next snapshot");
    agent.signal(Signal::SIGTERM);
    agent.event("stopping");
    thread::sleep(Duration::from_secs(1));
    assert!(
        agent.is_running(),
        "the agent exited without waiting for the server"
    );
    server.signal(Signal::SIGCONT);
    assert_eq!(agent.exit(DEADLINE).code(), Some(0));
    agent.event("NATS: stopped, and no log lines or events are left in the buffer");
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.last, account.dropped), (last, 0));
}

#[test]
#[parallel]
fn messages_keep_the_size_limits_of_server_and_stream() {
    let script = "for i in $(seq 1 400); do echo \"line $i $filler\"; done; sleep 1000";
    let script = format!("filler={}; {script}", "x".repeat(1000));
    let container = Container::run("nats-long", &[], &script);
    container.wait_for_line_with("line 400 ");
    // The three cases are no limit, a limit of the server, and a limit of a stream that another client created.
    for (configuration, of_stream, longest, messages) in [
        ("", None, 512 * 1024, 1),
        ("max_payload: 32KB\n", None, 31 * 1024, 14),
        ("", Some(32 * 1024), 31 * 1024, 14),
    ] {
        let server = NatsServer::with_jetstream(configuration);
        if let Some(max_message_size) = of_stream {
            let subjects = ["agents.*.events", "agents.*.logs.>"].map(str::to_owned);
            server.client().create_stream(Config {
                name: "AGENTS".to_owned(),
                subjects: subjects.to_vec(),
                max_message_size,
                ..Config::default()
            });
        }
        let agent = publishing(&server.url())
            .var("NATS_SECTIONS", "system")
            .start();
        let client = server.client();
        wait_for_stored(&client, container.name(), 400);
        let account = Account::of(&client.stored("AGENTS"), container.name());
        assert_eq!((account.first, account.lines, account.dropped), (1, 400, 0));
        assert!(account.longest <= longest, "{account:?}");
        assert_eq!(account.messages, messages, "{account:?}");
        assert!(agent.events("NATS: message not published").is_empty());
    }
}

#[test]
#[parallel]
fn log_lines_too_long_for_the_stream_are_left_out_and_counted() {
    // Every tenth log line is too long for the stream.
    let script = "i=0; while :; do i=$((i + 1)); case $i in *0) echo line $i $filler;; *) echo line $i;; esac
        case $i in *00) sleep 1;; esac; done";
    let script = format!("filler={}; {script}", "x".repeat(1000));
    let container = Container::run("nats-small", &[], &script);
    container.wait_for_line_with("line 99");
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    let subjects = ["agents.*.events", "agents.*.logs.>"].map(str::to_owned);
    let stream = |max_message_size| Config {
        name: "AGENTS".to_owned(),
        subjects: subjects.to_vec(),
        max_message_size,
        ..Config::default()
    };
    client.create_stream(stream(900));
    let agent = publishing(&server.url())
        .var("NATS_SECTIONS", "system")
        .start();
    let reported = agent.event("NATS: the stream is not as expected");
    assert!(
        reported.text("reason").contains("900 bytes"),
        "{reported:?}"
    );
    wait_for_stored(&client, container.name(), 199);
    // The limit of the stream changes while the agent uses it. The agent splits the waiting messages again.
    client.update_stream(stream(400));
    wait_for_stored(&client, container.name(), 599);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert!(account.first == 1 && account.longest < 900, "{account:?}");
    assert_eq!(account.dropped, account.last / 10, "{account:?}");
    let reported = agent.events(
        "NATS: log lines or events that are too long for a message are dropped and counted",
    );
    assert!((1..=2).contains(&reported.len()), "{reported:?}");
}

#[test]
#[parallel]
fn the_first_log_lines_of_a_silent_container_are_published_through_the_api() {
    let server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url())
        .vars(&[("CONTAINER_STATS", "engine"), ("LOG_LINES", "50")])
        .start();
    agent.event("NATS: connected");
    let script = "wait_for() { while [ ! -e /$1 ]; do sleep 0.1; done; }
        wait_for first; for i in 1 2 3; do echo line $i; done
        wait_for second; for i in 4 5 6; do echo line $i; done; sleep 1000";
    let container = Container::run("nats-silent", &[], script);
    let mut own = agent.login();
    own.snapshot_where("the empty log of the container", DEADLINE, |snapshot| {
        snapshot["logs"][container.name()].is_array()
    });
    let client = server.client();
    for (file, last) in [("first", 3), ("second", 6)] {
        container.exec(&format!("touch /{file}"));
        wait_for_stored(&client, container.name(), last);
    }
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.first, account.last, account.dropped), (1, 6, 0));
}

#[test]
#[parallel]
fn a_missing_stream_is_created_and_an_existing_stream_is_not_changed() {
    let container = writer("nats-stream", 10, "0.5");
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    let agent = publishing(&server.url()).start();
    wait_for_stored(&client, container.name(), 1);
    let config = client.stream("AGENTS").cached_info().config.clone();
    assert_eq!(config.subjects, ["agents.*.events", "agents.*.logs.>"]);
    assert_eq!(config.max_age, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(config.max_bytes, 1 << 30);
    assert_eq!(config.duplicate_window, Duration::from_secs(600));
    drop(agent);
    for (subjects, kept) in [(&["agents.>"][..], true), (&["agents.*.events"], false)] {
        let server = NatsServer::with_jetstream("");
        let client = server.client();
        let subjects: Vec<_> = subjects.iter().map(|&subject| subject.to_owned()).collect();
        client.create_stream(Config {
            name: "AGENTS".to_owned(),
            subjects: subjects.clone(),
            ..Config::default()
        });
        let agent = publishing(&server.url()).start();
        if kept {
            let odd = agent.event("NATS: the stream is not as expected");
            assert!(
                odd.text("reason")
                    .contains("agents.>, so it also keeps every snapshot"),
                "{odd:?}"
            );
        } else {
            let none = agent.event("NATS: no usable stream for events and log lines");
            assert!(
                none.text("reason")
                    .contains("not agents.*.events, agents.*.logs.>"),
                "{none:?}"
            );
        }
        assert_eq!(
            client.stream("AGENTS").cached_info().config.subjects,
            subjects
        );
    }
}

#[test]
#[parallel]
fn the_documented_permissions_are_sufficient() {
    let container = writer("nats-allowed", 10, "0.5");
    let publish = [
        format!("agents.{}.>", host()),
        "$JS.API.STREAM.INFO.AGENTS".to_owned(),
        format!("$JS.API.DIRECT.GET.AGENTS.agents.{}.>", host()),
        "$JS.API.STREAM.CREATE.AGENTS".to_owned(),
    ];
    // The first agent has all permissions. The second agent may not create the stream, which exists already. The third agent may
    // also not read the newest messages of the stream.
    let server = |allowed: usize| {
        let publish = publish[..allowed]
            .iter()
            .map(|subject| format!("\"{subject}\""));
        let publish = publish.collect::<Vec<_>>().join(", ");
        let server = NatsServer::with_jetstream(&format!(
            "authorization {{ users: [ {{ user: agent, password: password, permissions: {{ publish: [ {publish} ], \
             subscribe: \"_INBOX.>\" }} }}, {{ user: reader, password: reader }} ] }}\n"
        ));
        let reader = ("reader".to_owned(), "reader".to_owned());
        let client = server.client_with(ConnectOptions::with_user_and_password(reader.0, reader.1));
        (server, client)
    };
    for allowed in [4, 3, 2] {
        let (server, client) = server(allowed);
        if allowed < 4 {
            let subjects = ["agents.*.events", "agents.*.logs.>"].map(str::to_owned);
            client.create_stream(Config {
                name: "AGENTS".to_owned(),
                subjects: subjects.to_vec(),
                allow_direct: true,
                ..Config::default()
            });
        }
        let mut snapshots = client.subscribe("agents.*.snapshot");
        let agent = publishing(&server.url())
            .var("NATS_USER", "agent")
            .var("NATS_PASSWORD_FILE", server.file("password", "password"))
            .start();
        for _ in 0..5 {
            snapshots.next();
        }
        let now = written(&container);
        wait_for_stored(&client, container.name(), now + 10);
        let account = Account::of(&client.stored("AGENTS"), container.name());
        assert_eq!((account.first, account.dropped), (1, 0), "{allowed}");
        let reported = agent.events("NATS: no usable stream for events and log lines");
        assert!(reported.is_empty(), "{reported:?}");
        // The agent logs each denied request.
        let complaints = agent.events("NATS: the server reports an error");
        assert_eq!(complaints.is_empty(), allowed > 2, "{complaints:?}");
    }
    // Without permission for the stream's information, the agent finds no stream and logs that.
    let (server, _client) = server(1);
    let agent = publishing(&server.url())
        .var("NATS_USER", "agent")
        .var("NATS_PASSWORD_FILE", server.file("password", "password"))
        .start();
    let reported = agent.event("NATS: no usable stream for events and log lines");
    assert_eq!(
        reported.text("reason"),
        "no permission to publish requests to JetStream, or to subscribe to the answers (_INBOX.>)"
    );
}

#[test]
#[parallel]
fn events_and_log_lines_are_published_without_a_stream() {
    // A dot in a container's name must not become a dot in the subject.
    let name = unique_name("nats.dots_");
    let server = NatsServer::start("");
    let client = server.client();
    let mut events = client.subscribe("agents.*.events");
    let mut logs = client.subscribe(&logs_of(&name));
    let agent = publishing(&server.url()).start();
    let mut own = agent.connect();
    own.send(format!("{KEY} {{\"sections\":[\"events\"]}}\n"));
    own.line().expect("no snapshot: the stream has ended");
    agent.event("NATS: no usable stream for events and log lines");
    let container = Container::run_as(
        &name,
        "for i in 1 2 3; do echo line $i; sleep 0.5; done; exit 7",
    );
    let mut account = Account::default();
    while account.last < 3 {
        let message = logs.next();
        let text = std::str::from_utf8(&message.payload).unwrap();
        account.take_in(text, message.headers.as_ref().map_or(0, dropped));
    }
    assert_eq!((account.first, account.dropped), (1, 0));
    let lines = container.logs();
    assert_eq!(lines.len(), 3);
    // The published events are the same as the events in snapshots.
    let reported: Vec<Value> = first_events(&mut own, container.short_id());
    for expected in &reported {
        let published = loop {
            let message = events.next();
            assert_eq!(
                message.subject.as_str(),
                format!("agents.{}.events", host())
            );
            assert!(
                message
                    .headers
                    .expect("headers")
                    .get("Nats-Msg-Id")
                    .is_some()
            );
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            if event["id"] == container.short_id() {
                break event;
            }
        };
        assert_eq!(&published, expected);
    }
    let actions: Vec<_> = reported
        .iter()
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["start", "die"]);
    assert_eq!(reported[1]["exit_code"], 7);
}

/// The first two events of a container, from a client's snapshots.
fn first_events(client: &mut crate::support::Client, id: &str) -> Vec<Value> {
    let end = Instant::now() + DEADLINE;
    let mut reported = Vec::new();
    while reported.len() < 2 {
        assert!(Instant::now() < end, "{reported:?}");
        let snapshot: Value =
            serde_json::from_str(&client.line().expect("no snapshot: the stream has ended"))
                .unwrap();
        let events = snapshot["events"].as_array().expect("events").iter();
        reported.extend(events.filter(|event| event["id"] == id).cloned());
    }
    reported
}
