//! Events and log lines, published to a real nats-server: each of them once and in order, or counted, whatever the server does.
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
use crate::support::{Agent, KEY, Launch, PATIENCE, wait};

/// Counts on where it was when it is started again, with a pause after every ten lines.
const WRITER: &str = "i=0; while true; do i=$((i + 1)); echo \"line $i $filler\"; case $i in *0) sleep $pause;; esac; done";

/// A container that numbers its lines, of about so many bytes each.
fn writer(topic: &str, filler: usize, pause: &str) -> Container<'static> {
    let variables = format!("filler={}; pause={pause};", "x".repeat(filler));
    let container = Container::run(topic, &[], &format!("{variables} {WRITER}"));
    container.wait_for_line_with("line 1 ");
    container
}

/// An agent that reads and publishes five times a second.
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
    let (timestamp, text) = line.split_once(' ').expect("a timestamp");
    humantime::parse_rfc3339(timestamp).expect("a timestamp");
    let number = text
        .strip_prefix("line ")
        .and_then(|text| text.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number: {line:?}"))
}

/// An account of a container's numbered lines, as they were stored.
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
    /// Each message follows on the one before, but for as many lines as it says are lost; each has an id of its own.
    fn of(stored: &[Stored], container: &str) -> Self {
        let mut account = Self::default();
        let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
        let subject = logs_of(container);
        for message in stored.iter().filter(|message| message.subject == subject) {
            let id = message.id.as_deref().expect("an id");
            *ids.entry(id).or_default() += 1;
            assert_eq!(ids[id], 1, "{id} twice");
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

/// Waits until the stream has this line of the container.
fn wait_for_stored(client: &NatsClient, container: &str, line: u64) {
    wait::until(&format!("line {line} to be stored"), PATIENCE * 2, || {
        thread::sleep(Duration::from_millis(200));
        (Account::of(&client.stored("AGENTS"), container).last >= line).then_some(())
    });
}

/// The last line that the container has written.
fn written(container: &Container<'_>) -> u64 {
    number(container.logs().last().expect("lines"))
}

#[test]
#[serial]
fn each_line_is_stored_once_while_the_server_is_killed_and_started_again() {
    let container = writer("nats-killed", 50, "0.01");
    let mut server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url()).start();
    wait_for_stored(&server.client(), container.name(), 1);
    for round in 0..5 {
        let connected = || (agent.events("NATS: connected").len() > round).then_some(());
        wait::until("the agent to be connected", PATIENCE, connected);
        thread::sleep(Duration::from_millis(700 + round as u64 * 150));
        // What it is sent from now on it will never have read.
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
fn each_line_of_a_site_is_stored_once_while_the_hub_is_killed_and_started_again() {
    let container = writer("nats-site", 50, "0.05");
    let mut fleet = Fleet::with_host_at_leaf(&host());
    let seed = fleet.secret("agent", &fleet.db);
    wait::until("the leaf node to be connected", PATIENCE, || {
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
        wait::until("lines while it is away", PATIENCE, || {
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
    // Its own server was there all the time.
    assert_eq!(agent.events("NATS: connected").len(), 1);
}

#[test]
#[serial]
fn a_server_that_hangs_delays_nobody_and_has_each_line_once_afterwards() {
    let container = writer("nats-hangs", 200, "0.005");
    let server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url()).start();
    wait_for_stored(&server.client(), container.name(), 1);
    let mut own = agent.connect();
    own.send(format!("{KEY} {{\"sections\":[\"system\"]}}\n"));
    let seq = |line: Option<String>| {
        let snapshot: Value = serde_json::from_str(&line.expect("a snapshot")).unwrap();
        snapshot["agent"]["seq"].as_u64().unwrap()
    };
    let mut last = seq(own.line());
    let before = agent.peak_rss();
    server.signal(Signal::SIGSTOP);
    // Longer than an acknowledgement may take, and than a connection may be silent.
    let end = Instant::now() + Duration::from_secs(35);
    let mut latest = Duration::ZERO;
    while Instant::now() < end {
        let asked = Instant::now();
        last += 1;
        assert_eq!(seq(own.line()), last);
        latest = latest.max(asked.elapsed());
    }
    server.signal(Signal::SIGCONT);
    assert!(latest < Duration::from_millis(800), "{latest:?} late");
    // The buffer, and what the messages under way take besides.
    let growth = agent.peak_rss() - before;
    assert!(growth < 24 << 20, "grew by {growth} bytes");
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
fn of_more_than_the_buffer_holds_the_oldest_go_and_are_counted() {
    // On an engine of its own, where no other container fills the buffer.
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let script = format!("filler={}; pause=0.05; {WRITER}", "x".repeat(100));
    let offline = ["--network", "none"];
    let container = Container::run_on(private.engine(), "nats-small", &offline, &script);
    container.wait_for_line_with("line 1 ");
    let mut server = NatsServer::with_jetstream("");
    let agent = publishing(&server.url())
        .vars(&[("DOCKER_HOST", private.engine().host())])
        .vars(&[("NATS_BUFFER", "64KiB"), ("LOG_LINES", "300")])
        .start();
    wait_for_stored(&server.client(), container.name(), 1);
    server.kill();
    let full = agent.event("NATS: the buffer is full: the oldest log lines and events go");
    assert_eq!(full.level(), "WARN");
    let at_first = written(&container);
    wait::until("more to be lost", PATIENCE, || {
        (written(&container) > at_first + 300).then_some(())
    });
    server.run();
    let out = agent.event("NATS: all that was kept is out; log lines and events that had to go");
    container.docker("stop", &["--time", "0"]);
    let last = written(&container);
    let client = server.client();
    wait_for_stored(&client, container.name(), last);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!(account.last, last);
    assert_eq!(account.lines + account.dropped, last - account.first + 1);
    assert!(account.dropped > 200, "{account:?}");
    // Told once, with their number.
    assert_eq!(account.dropped, out.number("lost"));
    for message in [full.message(), out.message()] {
        assert_eq!(agent.events(message).len(), 1);
    }
}

#[test]
#[serial]
fn after_a_restart_of_the_agent_no_line_comes_again_and_none_is_missing() {
    let container = writer("nats-again", 50, "0.05");
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    let mut seen = 0;
    for end in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        let mut agent = publishing(&server.url()).start();
        wait::until("new lines to be stored", PATIENCE, || {
            thread::sleep(Duration::from_millis(200));
            let last = Account::of(&client.stored("AGENTS"), container.name()).last;
            (last > seen + 300).then_some(())
        });
        agent.signal(end);
        agent.exit(PATIENCE);
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
fn no_line_comes_again_where_the_engine_is_started_after_the_agent() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    // It says something once, not each time that it is started.
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
    agent.exit(PATIENCE);
    private.stop();
    let agent = launch().start();
    // Snapshots are published without logs.
    let mut snapshots = client.subscribe("agents.*.snapshot");
    for _ in 0..3 {
        snapshots.next();
    }
    private.start();
    wait::until("the container to run again", PATIENCE, || {
        (container.inspect()["State"]["Running"] == true).then_some(())
    });
    container.exec("echo line 101 > /proc/1/fd/1");
    wait_for_stored(&client, container.name(), 101);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.first, account.lines, account.dropped), (1, 101, 0));
    drop(agent);
}

/// Whether logs are read from files or by calls.
#[test]
#[parallel]
fn no_line_comes_again_where_a_container_is_started_after_the_agent() {
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
        agent.exit(PATIENCE);
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

/// An agent that starts is told of what has just happened, and so was the one before it.
#[test]
#[parallel]
fn an_event_of_which_two_agents_are_told_is_stored_once() {
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
        wait::until("an event to be stored", PATIENCE, || {
            (stored(container).len() >= events).then_some(())
        });
    };
    // By the time that the second one runs it may be too long ago.
    let end = Instant::now() + PATIENCE;
    let (agent, container) = loop {
        assert!(
            Instant::now() < end,
            "no agent was told of what was before it"
        );
        let mut agent = publishing(&server.url()).start();
        agent.login().snapshot();
        let container = Container::run("nats-events", &["--network", "none"], "exit 7");
        has(&container, 2);
        agent.signal(Signal::SIGKILL);
        agent.exit(PATIENCE);
        let agent = publishing(&server.url()).start();
        let mut own = agent.connect();
        own.send(format!("{KEY} {{\"sections\":[\"events\"]}}\n"));
        if own
            .line()
            .expect("a snapshot")
            .contains(container.short_id())
        {
            break (agent, container);
        }
    };
    // All that was to be published before is, once this one is.
    let later = Container::run("nats-events", &["--network", "none"], "exit 7");
    has(&later, 2);
    assert_eq!(stored(&container).len(), 2);
    drop(agent);
}

#[test]
#[parallel]
fn what_waits_is_published_before_the_agent_ends() {
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
    // Once another client has the last line, the publisher has it, too.
    let mut own = agent.connect();
    own.send(format!(
        "{KEY} {{\"sections\":[\"logs\"],\"logs\":\"new\"}}\n"
    ));
    let has_last = |line: &str| line.contains(&format!("line {last} "));
    while !has_last(&own.line().expect("a snapshot")) {}
    own.line().expect("the next snapshot");
    agent.signal(Signal::SIGTERM);
    agent.event("stopping");
    thread::sleep(Duration::from_secs(1));
    assert!(agent.is_running(), "it has not waited for the server");
    server.signal(Signal::SIGCONT);
    assert_eq!(agent.exit(PATIENCE).code(), Some(0));
    agent.event("NATS: all is published");
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert_eq!((account.last, account.dropped), (last, 0));
}

#[test]
#[parallel]
fn messages_are_as_long_as_the_server_takes_them() {
    let script = "for i in $(seq 1 400); do echo \"line $i $filler\"; done; sleep 1000";
    let script = format!("filler={}; {script}", "x".repeat(1000));
    let container = Container::run("nats-long", &[], &script);
    container.wait_for_line_with("line 400 ");
    // By the server, and by a stream that was made by somebody else.
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
        assert!(agent.events("NATS: not published").is_empty());
    }
}

#[test]
#[parallel]
fn a_small_stream_has_what_fits_and_the_rest_is_told_once_and_counted() {
    // Every tenth line is long.
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
    let told = agent.event("NATS: the stream is not as expected");
    assert!(told.text("reason").contains("900 bytes"), "{told:?}");
    wait_for_stored(&client, container.name(), 199);
    // Made smaller while it is used: what was cut for it before is cut anew.
    client.update_stream(stream(400));
    wait_for_stored(&client, container.name(), 599);
    let account = Account::of(&client.stored("AGENTS"), container.name());
    assert!(account.first == 1 && account.longest < 900, "{account:?}");
    assert_eq!(account.dropped, account.last / 10, "{account:?}");
    let told = agent.events(
        "NATS: log lines or events that are too long for a message are left out and counted",
    );
    assert!((1..=2).contains(&told.len()), "{told:?}");
}

#[test]
#[parallel]
fn the_first_lines_of_a_silent_container_are_published_by_calls_as_well() {
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
    own.snapshot_where("its log, with nothing in it", PATIENCE, |snapshot| {
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
fn a_stream_is_made_and_one_that_is_there_stays_as_it_is() {
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
                    .contains("agents.>, and so every snapshot"),
                "{odd:?}"
            );
        } else {
            let none = agent.event("NATS: no stream: events and log lines are not stored");
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
fn the_permissions_that_are_named_suffice() {
    let container = writer("nats-allowed", 10, "0.5");
    let publish = [
        format!("agents.{}.>", host()),
        "$JS.API.STREAM.INFO.AGENTS".to_owned(),
        format!("$JS.API.DIRECT.GET.AGENTS.agents.{}.>", host()),
        "$JS.API.STREAM.CREATE.AGENTS".to_owned(),
    ];
    // With all of them; without the last, of a stream that is there; without looking into the stream, too.
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
        let told = agent.events("NATS: no stream: events and log lines are not stored");
        assert!(told.is_empty(), "{told:?}");
        // What is not allowed is told.
        let complaints = agent.events("NATS: the server says");
        assert_eq!(complaints.is_empty(), allowed > 2, "{complaints:?}");
    }
    // And without the second there is no stream to be found, which is told.
    let (server, _client) = server(1);
    let agent = publishing(&server.url())
        .var("NATS_USER", "agent")
        .var("NATS_PASSWORD_FILE", server.file("password", "password"))
        .start();
    let told = agent.event("NATS: no stream: events and log lines are not stored");
    assert_eq!(told.text("reason"), "no permission");
}

#[test]
#[parallel]
fn without_a_stream_events_and_lines_are_published_all_the_same() {
    // A dot in a name is none in a subject.
    let name = unique_name("nats.dots_");
    let server = NatsServer::start("");
    let client = server.client();
    let mut events = client.subscribe("agents.*.events");
    let mut logs = client.subscribe(&logs_of(&name));
    let agent = publishing(&server.url()).start();
    let mut own = agent.connect();
    own.send(format!("{KEY} {{\"sections\":[\"events\"]}}\n"));
    own.line().expect("a snapshot");
    agent.event("NATS: no stream: events and log lines are not stored");
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
    // As clients are told of it.
    let told: Vec<Value> = told_of(&agent, &mut own, container.short_id());
    for expected in &told {
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
    let actions: Vec<_> = told
        .iter()
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["start", "die"]);
    assert_eq!(told[1]["exit_code"], 7);
}

/// The first two events of a container, as a client is told of them.
fn told_of(_agent: &Agent, client: &mut crate::support::Client, id: &str) -> Vec<Value> {
    let end = Instant::now() + PATIENCE;
    let mut told = Vec::new();
    while told.len() < 2 {
        assert!(Instant::now() < end, "{told:?}");
        let snapshot: Value = serde_json::from_str(&client.line().expect("a snapshot")).unwrap();
        let events = snapshot["events"].as_array().expect("events").iter();
        told.extend(events.filter(|event| event["id"] == id).cloned());
    }
    told
}
