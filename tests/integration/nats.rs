//! Tests of snapshots that the agent publishes to a real NATS server: authentication, TLS, content and outages.
//! The tests of events and log lines are in `docker::nats`.
//! This file is long: its tests share the helpers for an agent that publishes to NATS.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::stream;
use nix::sys::signal::Signal;
use nkeys::KeyPair;
use serde_json::{Value, json};
use serial_test::parallel;

use crate::support::nats::{Accounts, NatsServer, Subscription, host, tls};
use crate::support::{Agent, Authority, DEADLINE, Event, KEY, Launch, schema, unpack, wait};

const PASSWORD: &str = "pW7x-Q2vLkd93hZbM4";

/// An agent that publishes to this server five times a second.
fn publishing(url: &str) -> Launch {
    Launch::new()
        .var("NATS_URL", url)
        .var("PUBLISH_INTERVAL", "200ms")
}

fn snapshots_of_host() -> String {
    format!("agents.{}.snapshot", host())
}

/// Reads the next snapshot and validates it.
fn snapshot(subscription: &mut Subscription<'_>) -> Value {
    let message = subscription.next();
    assert_eq!(message.subject.as_str(), snapshots_of_host());
    let line = std::str::from_utf8(&message.payload).expect("the snapshot is not UTF-8");
    valid(
        line.strip_suffix('\n')
            .expect("the snapshot does not end with a newline"),
    )
}

/// Parses and validates a snapshot. Sections that were not requested can be absent.
fn valid(line: &str) -> Value {
    let snapshot: Value = serde_json::from_str(line).expect("the snapshot is not JSON");
    let mut filled = json!({"system": null, "containers": [], "docker_meta": [], "stopped": [], "logs": {}, "events": []});
    let fields = snapshot
        .as_object()
        .expect("the snapshot is not an object")
        .clone();
    filled.as_object_mut().unwrap().extend(fields);
    assert_eq!(schema::violations(&filled), Vec::<String>::new());
    snapshot
}

fn seq(snapshot: &Value) -> u64 {
    snapshot["agent"]["seq"].as_u64().unwrap()
}

/// The log events about a failed connection.
fn complaints(agent: &Agent) -> Vec<Event> {
    agent.events("NATS: not connected")
}

#[test]
#[parallel]
fn each_snapshot_is_published_exactly_as_clients_get_it() {
    let server = NatsServer::start("");
    let client = server.client();
    let mut all = client.subscribe("agents.>");
    let agent = publishing(&server.url()).start();
    let mut own = agent.connect();
    own.send(format!(
        "{KEY} {{\"sections\":[\"system\",\"containers\",\"docker_meta\"]}}\n"
    ));
    let first = seq(&snapshot(&mut all));
    for expected in first + 1..first + 10 {
        let next = snapshot(&mut all);
        assert_eq!(seq(&next), expected);
        assert_eq!(next["agent"]["skipped"], 0);
        assert!(
            next["agent"]["clients"].as_u64().unwrap() <= 1,
            "{}",
            next["agent"]
        );
        for section in ["logs", "events", "logs_dropped"] {
            assert!(next.get(section).is_none(), "{section}");
        }
    }
    // A client gets the same bytes. The publisher does not count as a client.
    let line = all.next().payload;
    let published: Value = serde_json::from_slice(&line).unwrap();
    let same = loop {
        let line = own.line().expect("no snapshot: the stream has ended");
        if seq(&serde_json::from_str(&line).unwrap()) == seq(&published) {
            break line;
        }
    };
    assert_eq!(format!("{same}\n"), String::from_utf8_lossy(&line));
    assert_eq!(published["agent"]["clients"], 1);
}

#[test]
#[parallel]
fn snapshots_have_the_configured_sections_and_encoding() {
    let server = NatsServer::start("");
    let client = server.client();
    let mut all = client.subscribe(&snapshots_of_host());
    let _agent = publishing(&server.url())
        .vars(&[("NATS_ENCODING", "zstd"), ("NATS_SECTIONS", "system,logs")])
        .start();
    let mut stream = Vec::new();
    for _ in 0..5 {
        let message = all.next();
        let headers = message.headers.expect("the message has no headers");
        assert_eq!(headers.get("Content-Encoding").unwrap().as_str(), "zstd");
        // Each message is a complete zstd frame.
        assert_eq!(unpack(&message.payload).len(), 1);
        stream.extend_from_slice(&message.payload);
    }
    let lines = unpack(&stream);
    assert_eq!(lines.len(), 5);
    for line in lines {
        let snapshot = valid(&line);
        for (section, there) in [("system", true), ("logs", true), ("containers", false)] {
            assert_eq!(snapshot.get(section).is_some(), there, "{section}");
        }
    }
}

#[test]
#[parallel]
fn every_authentication_method_works() {
    let key = KeyPair::new_user();
    let seed = key.seed().unwrap();
    let accounts = Accounts::new();
    let tokens = format!("authorization {{ token: \"{PASSWORD}\" }}\n");
    let users =
        format!("authorization {{ users: [ {{ user: agent, password: \"{PASSWORD}\" }} ] }}\n");
    let nkeys = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}\n",
        key.public_key()
    );
    let password = ConnectOptions::with_user_and_password("agent".to_owned(), PASSWORD.to_owned());
    let credentials = ConnectOptions::with_credentials(&accounts.credentials).unwrap();
    let ways = [
        (
            tokens,
            "NATS_TOKEN_FILE",
            PASSWORD,
            PASSWORD,
            ConnectOptions::with_token(PASSWORD.to_owned()),
        ),
        (users, "NATS_PASSWORD_FILE", PASSWORD, PASSWORD, password),
        (
            nkeys,
            "NATS_NKEY_FILE",
            &seed,
            &seed,
            ConnectOptions::with_nkey(seed.clone()),
        ),
        (
            accounts.configuration.clone(),
            "NATS_CREDENTIALS_FILE",
            &accounts.credentials,
            &accounts.seed,
            credentials,
        ),
    ];
    for (configuration, variable, content, secret, options) in ways {
        let server = NatsServer::start(&configuration);
        let client = server.client_with(options);
        let mut all = client.subscribe("agents.>");
        // Even at level `trace` the secret must not be in the log. The harness searches the log for it.
        let mut launch = publishing(&server.url())
            .var(variable, server.file("secret", &format!("{content}\n")))
            .var("RUST_LOG", "trace")
            .secret(secret);
        if variable == "NATS_PASSWORD_FILE" {
            launch = launch.var("NATS_USER", "agent");
        }
        let agent = launch.start();
        snapshot(&mut all);
        agent.event("NATS: connected");
        assert!(complaints(&agent).is_empty(), "{variable}");
        for line in agent.log().all() {
            let event = Event::parse(&line).expect("the line is not an event");
            assert!(event.text("target").starts_with("system_agent"), "{line}");
        }
        let logged = agent.event("NATS: publishing");
        assert!(
            logged.text(&variable.to_lowercase()).ends_with("/secret"),
            "{logged:?}"
        );
    }
}

#[test]
#[parallel]
fn a_refused_agent_logs_it_once_and_retries_with_the_current_file() {
    let configuration = format!("authorization {{ token: \"{PASSWORD}\" }}\n");
    let server = NatsServer::start(&configuration);
    let wrong = server.file("token", "wRoNg-8vK2mXq7\n");
    let agent = publishing(&server.url())
        .var("NATS_TOKEN_FILE", &wrong)
        .secret("wRoNg-8vK2mXq7")
        .secret(PASSWORD)
        .start();
    let mut own = agent.login();
    own.snapshot();
    let refused = agent.event("NATS: not connected");
    assert_eq!(refused.level(), "WARN");
    assert!(
        refused.text("reason").contains("authorization violation"),
        "{refused:?}"
    );
    assert!(
        server.url().ends_with(refused.text("server")),
        "{refused:?}"
    );
    // The agent retries and logs the failure once. During this time it serves its clients.
    let log = server.log();
    let tries = || {
        log.all()
            .iter()
            .filter(|line| line.contains("authentication error"))
            .count()
    };
    wait::until("three tries", DEADLINE, || (tries() >= 3).then_some(()));
    assert_eq!(complaints(&agent).len(), 1);
    own.snapshot();
    // An unusable file is logged too.
    server.file("token", "");
    let unusable = agent.event_where("NATS: not connected", |event| {
        event
            .text("reason")
            .contains("NATS_TOKEN_FILE: the file is empty")
    });
    assert_eq!(unusable.level(), "WARN");
    server.file("token", PASSWORD);
    let client = server.client_with(ConnectOptions::with_token(PASSWORD.to_owned()));
    snapshot(&mut client.subscribe("agents.>"));
    agent.event("NATS: connected");
}

#[test]
#[parallel]
fn the_servers_certificate_is_verified_and_a_client_certificate_sent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (of_server, of_agent) = (authority.issue("server"), authority.issue("agent"));
    let ca = &authority.certificate;
    let server = NatsServer::start(&tls(ca, &of_server.certificate, &of_server.key, true));
    let options = || {
        let options = ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(ca.clone());
        options.add_client_certificate(of_agent.certificate.clone(), of_agent.key.clone())
    };
    let client = server.client_with(options());
    let mut all = client.subscribe("agents.>");
    let launch = |url: &str, ca: &Path| publishing(url).var("NATS_CA_FILE", ca);
    let agent = launch(&server.tls_url(), ca)
        .var("NATS_CERT_FILE", &of_agent.certificate)
        .var("NATS_KEY_FILE", &of_agent.key)
        .start();
    snapshot(&mut all);
    drop(agent);
    while all.next_within(Duration::from_millis(500)).is_some() {}
    // Without `NATS_CA_FILE` the agent uses the authorities of the system.
    let agent = publishing(&server.tls_url())
        .var("SSL_CERT_FILE", ca)
        .var("NATS_CERT_FILE", &of_agent.certificate)
        .var("NATS_KEY_FILE", &of_agent.key)
        .start();
    snapshot(&mut all);
    drop(agent);
    while all.next_within(Duration::from_millis(500)).is_some() {}
    // Nothing is published if the server's certificate is unknown, or if the agent has no certificate.
    let of_stranger = launch(&server.tls_url(), &stranger.certificate)
        .var("NATS_CERT_FILE", &of_agent.certificate)
        .var("NATS_KEY_FILE", &of_agent.key)
        .start();
    let unknown = of_stranger.event("NATS: not connected");
    assert!(
        unknown
            .text("reason")
            .starts_with("invalid peer certificate"),
        "{unknown:?}"
    );
    let without = launch(&server.url(), ca).start();
    let refused = without.event("NATS: not connected");
    assert!(!refused.text("reason").is_empty());
    for agent in [of_stranger, without] {
        let mut own = agent.login();
        for _ in 0..5 {
            own.snapshot();
        }
        assert!(agent.events("NATS: connected").is_empty());
        assert_eq!(complaints(&agent).len(), 1, "{:?}", complaints(&agent));
    }
    assert!(all.next_within(Duration::ZERO).is_none());
    // The agent does not connect without TLS if `NATS_CA_FILE` is set.
    let plain = NatsServer::start("");
    let agent = launch(&plain.url(), ca).start();
    agent.event("NATS: not connected");
    assert!(agent.events("NATS: connected").is_empty());
}

#[test]
#[parallel]
fn a_missing_server_is_logged_once_and_later_gets_the_newest_snapshot() {
    let mut server = NatsServer::prepare("");
    let agent = publishing(&server.url()).start();
    let away = agent.event("NATS: not connected");
    assert!(away.text("reason").contains("refused"), "{away:?}");
    let mut own = agent.login();
    let missed = seq(&own.snapshot_where("ten snapshots", DEADLINE, |s| seq(s) >= 10));
    assert_eq!(complaints(&agent).len(), 1);
    server.run();
    let client = server.client();
    let mut all = client.subscribe("agents.>");
    let first = snapshot(&mut all);
    assert!(seq(&first) >= missed, "{} was queued", seq(&first));
    agent.event("NATS: connected");
    // This server has no JetStream to store events and log lines. The agent logs this.
    let logged = agent.event("NATS: no usable stream for events and log lines");
    assert!(logged.text("reason").contains("no JetStream"), "{logged:?}");
    for _ in 0..2 {
        server.kill();
        agent.event("NATS: connection lost");
        // Read the number of the newest snapshot with a new client, because `own` can have unread snapshots.
        let before = seq(&agent.login().snapshot());
        own.snapshot_where("five more", DEADLINE, |s| seq(s) >= before + 5);
        server.run();
        let client = server.client();
        let mut again = client.subscribe("agents.>");
        let next = snapshot(&mut again);
        assert!(seq(&next) >= before + 5, "{} was queued", seq(&next));
        // The missed snapshots are counted as skipped.
        assert!(
            next["agent"]["skipped"].as_u64().unwrap() >= 4,
            "{}",
            next["agent"]
        );
    }
}

#[test]
#[parallel]
fn the_agent_uses_any_of_several_servers() {
    let (mut one, mut other) = (NatsServer::prepare(""), NatsServer::prepare(""));
    let _agent = publishing(&format!("{},{}", one.url(), other.url())).start();
    for _ in 0..2 {
        other.run();
        let client = other.client();
        snapshot(&mut client.subscribe("agents.>"));
        other.kill();
        std::mem::swap(&mut one, &mut other);
    }
}

#[test]
#[parallel]
fn a_server_that_hangs_delays_no_client_and_later_gets_the_newest_snapshot() {
    let server = NatsServer::start("");
    let client = server.client();
    let mut all = client.subscribe("agents.>");
    let agent = publishing(&server.url())
        .vars(&[("PUBLISH_INTERVAL", "100ms"), ("TOP_PROCESSES", "1000")])
        .start();
    let mut last = seq(&snapshot(&mut all));
    let mut own = agent.login();
    let mut expected = seq(&own.snapshot());
    let before = agent.peak_rss();
    server.signal(Signal::SIGSTOP);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let asked = Instant::now();
        expected += 1;
        assert_eq!(seq(&own.snapshot()), expected);
        assert!(asked.elapsed() < Duration::from_millis(800), "late");
    }
    server.signal(Signal::SIGCONT);
    let growth = agent.peak_rss() - before;
    assert!(growth < 4 << 20, "grew by {growth} bytes");
    // First the snapshots in transit arrive, and then the newest one. All other snapshots are skipped and counted.
    let mut late = 0;
    while last < expected {
        let next = snapshot(&mut all);
        late += u64::from(seq(&next) < expected);
        last = seq(&next);
    }
    assert!(late <= 10, "{late} snapshots were queued");
    let skipped = snapshot(&mut all)["agent"]["skipped"].as_u64().unwrap();
    assert!(skipped >= 30, "only {skipped} were left out");
}

#[test]
#[parallel]
fn the_agent_stops_in_time_whatever_the_server_does() {
    let server = NatsServer::start("");
    let away = NatsServer::prepare("");
    let hangs = NatsServer::start("");
    for (server, hang) in [(&server, false), (&away, false), (&hangs, true)] {
        let mut agent = publishing(&server.url())
            .var("SHUTDOWN_TIMEOUT", "2s")
            .start();
        agent.login().snapshot();
        if hang {
            agent.event("NATS: connected");
            hangs.signal(Signal::SIGSTOP);
        }
        let asked = Instant::now();
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.exit(DEADLINE).code(), Some(0));
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "{:?}",
            asked.elapsed()
        );
        agent.event("stopped");
        assert_eq!(
            agent
                .events("NATS: stopped, and no log lines or events are left in the buffer")
                .len(),
            1
        );
    }
    hangs.signal(Signal::SIGCONT);
}

#[test]
#[parallel]
fn an_agent_that_may_only_publish_publishes_snapshots() {
    // Without permission for an inbox and JetStream, snapshots are still published. The agent logs that no stream is usable.
    let permissions = format!(
        "permissions: {{ publish: \"agents.{}.>\", subscribe: {{ deny: \">\" }} }}",
        host()
    );
    let server = NatsServer::with_jetstream(&format!(
        "authorization {{ users: [ {{ user: agent, password: \"{PASSWORD}\", {permissions} }}, {{ user: reader, password: reader }} ] }}\n"
    ));
    let reader = ConnectOptions::with_user_and_password("reader".to_owned(), "reader".to_owned());
    let client = server.client_with(reader);
    let mut all = client.subscribe("agents.>");
    let agent = publishing(&server.url())
        .var("NATS_USER", "agent")
        .var("NATS_PASSWORD_FILE", server.file("password", PASSWORD))
        .secret(PASSWORD)
        .start();
    let mut last = seq(&snapshot(&mut all));
    for _ in 0..10 {
        let next = snapshot(&mut all);
        assert!(seq(&next) > last);
        last = seq(&next);
    }
    let logged = agent.event("NATS: no usable stream for events and log lines");
    assert_eq!(
        logged.text("reason"),
        "no permission to publish requests to JetStream, or to subscribe to the answers (_INBOX.>)"
    );
}

#[test]
#[parallel]
fn the_documented_permissions_are_sufficient() {
    let host = host();
    let mut server = NatsServer::with_jetstream(&format!(
        "authorization {{ users: [ {{ user: agent, password: \"{PASSWORD}\", permissions: {{ publish: [ \"agents.{host}.>\", \
         \"$JS.API.STREAM.INFO.AGENTS\", \"$JS.API.STREAM.CREATE.AGENTS\", \"$JS.API.DIRECT.GET.AGENTS.agents.{host}.>\" ], \
         subscribe: \"_INBOX.>\" }} }}, {{ user: reader, password: reader }} ] }}\n"
    ));
    let reader =
        || ConnectOptions::with_user_and_password("reader".to_owned(), "reader".to_owned());
    let client = server.client_with(reader());
    let mut all = client.subscribe("agents.*.snapshot");
    let agent = publishing(&server.url())
        .var("NATS_USER", "agent")
        .var("NATS_PASSWORD_FILE", server.file("password", PASSWORD))
        .secret(PASSWORD)
        .start();
    let first = seq(&snapshot(&mut all));
    for expected in first + 1..first + 10 {
        let next = snapshot(&mut all);
        assert_eq!(seq(&next), expected);
        assert_eq!(next["agent"]["skipped"], 0);
    }
    server.kill();
    agent.event("NATS: connection lost");
    server.run();
    let client = server.client_with(reader());
    let mut all = client.subscribe("agents.*.snapshot");
    for _ in 0..5 {
        snapshot(&mut all);
    }
    assert!(agent.events("NATS: the server reports an error").is_empty());
}

/// While a consumer is too slow, the server slows down the publishers. In the end the server disconnects that consumer. During
/// this time the agent skips snapshots and counts them. Afterwards it publishes every snapshot again.
#[test]
#[parallel]
fn snapshots_skipped_because_of_a_slow_consumer_are_counted() {
    let server = NatsServer::start("max_pending: 1MB\nwrite_deadline: \"2s\"\n");
    let client = server.client();
    let mut own = client.subscribe(&snapshots_of_host());
    let agent = publishing(&server.url()).start();
    let first = seq(&snapshot(&mut own));
    let url = server.url();
    let connect = || {
        let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        stream
            .write_all(b"CONNECT {\"verbose\":false}\r\n")
            .unwrap();
        stream
    };
    let (mut slow, mut other) = (connect(), connect());
    slow.write_all(b"SUB agents.> 1\r\n").unwrap();
    let text = "x".repeat(100_000);
    let message = format!("PUB agents.other.snapshot {}\r\n{text}\r\n", text.len());
    for received in 1..10 {
        for _ in 0..20 {
            other.write_all(message.as_bytes()).unwrap();
        }
        let next = snapshot(&mut own);
        assert_eq!(next["agent"]["skipped"], seq(&next) - first - received);
    }
    let logged = |line: &str| line.contains("Slow Consumer").then_some(());
    assert!(server.log().find(0, DEADLINE, logged).is_some());
    // Some older snapshots can still be in transit.
    let mut last = seq(&snapshot(&mut own));
    wait::until("every snapshot again", DEADLINE, || {
        let before = std::mem::replace(&mut last, seq(&snapshot(&mut own)));
        (last == before + 1).then_some(())
    });
    assert!(agent.events("NATS: connection lost").is_empty());
}

#[test]
#[parallel]
fn a_snapshot_that_the_server_refuses_is_logged() {
    let server = NatsServer::start("max_payload: 1024\n");
    let agent = publishing(&server.url()).start();
    let logged = agent.event("NATS: snapshot not published");
    assert!(logged.text("reason").contains("max_payload"), "{logged:?}");
    let mut own = agent.login();
    own.snapshot_where("ten snapshots", DEADLINE, |s| seq(s) >= 10);
    assert_eq!(agent.events("NATS: snapshot not published").len(), 1);
}

#[test]
#[parallel]
fn the_start_warns_of_readable_secrets_and_unencrypted_connections() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = NatsServer::start("");
    let file = server.file("token", PASSWORD);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let agent = publishing("nats://192.0.2.1:4222")
        .var("NATS_TOKEN_FILE", &file)
        .secret(PASSWORD)
        .start();
    let of_token = |line: &str| {
        let event = Event::parse(line).filter(|event| event.0["variable"] == "NATS_TOKEN_FILE")?;
        event
            .message()
            .contains("every user of this host can read the file")
            .then_some(())
    };
    assert!(agent.log().find(0, DEADLINE, of_token).is_some());
    let in_the_clear = |line: &str| {
        let event = Event::parse(line)?;
        (event.level() == "WARN" && event.message().contains("use tls:// in NATS_URL"))
            .then_some(())
    };
    assert!(agent.log().find(0, DEADLINE, in_the_clear).is_some());
    let agent = publishing(&server.url()).start();
    agent.event("NATS: connected");
    assert!(
        agent
            .log()
            .all()
            .iter()
            .all(|line| in_the_clear(line).is_none())
    );
}

#[test]
#[parallel]
fn a_stream_that_another_user_creates_is_used_soon() {
    let server = NatsServer::with_jetstream(&format!(
        "authorization {{ users: [ {{ user: agent, password: \"{PASSWORD}\", permissions: {{ publish: [ \"agents.{}.>\", \
         \"$JS.API.STREAM.INFO.AGENTS\" ], subscribe: \"_INBOX.>\" }} }}, {{ user: maker, password: maker }} ] }}\n",
        host()
    ));
    let agent = publishing(&server.url())
        .vars(&[("NATS_USER", "agent"), ("RUST_LOG", "debug")])
        .var("NATS_PASSWORD_FILE", server.file("password", PASSWORD))
        .secret(PASSWORD)
        .start();
    let logged = agent.event("NATS: no usable stream for events and log lines");
    assert_eq!(
        logged.text("reason"),
        "no permission to publish requests to JetStream, or to subscribe to the answers (_INBOX.>)"
    );
    let maker = ConnectOptions::with_user_and_password("maker".to_owned(), "maker".to_owned());
    server
        .client_with(maker)
        .create_stream(stream_of(&["agents.*.events", "agents.*.logs.>"]));
    assert_found_soon(&agent);
}

fn stream_of(subjects: &[&str]) -> stream::Config {
    stream::Config {
        name: "AGENTS".to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        ..stream::Config::default()
    }
}

/// Asserts that the agent finds its stream within a minute over the same connection. The agent looks for the stream once a
/// minute.
fn assert_found_soon(agent: &Agent) {
    let found = |line: &str| {
        let event = Event::parse(line)?;
        (event.message() == "NATS: the stream stores events and log lines").then_some(())
    };
    let soon = Duration::from_secs(60) + DEADLINE;
    assert!(agent.log().find(0, soon, found).is_some());
    assert_eq!(agent.events("NATS: connected").len(), 1);
}

#[test]
#[parallel]
fn a_stream_that_is_corrected_is_used_soon() {
    let server = NatsServer::with_jetstream("");
    let client = server.client();
    client.create_stream(stream_of(&["agents.*.events"]));
    let agent = publishing(&server.url()).var("RUST_LOG", "debug").start();
    agent.event("NATS: no usable stream for events and log lines");
    client.update_stream(stream_of(&["agents.*.events", "agents.*.logs.>"]));
    assert_found_soon(&agent);
}

/// Asserts that the agent did not start and printed one line with these words.
fn assert_refused(launch: Launch, words: &[&str]) {
    let finished = launch.run();
    assert_eq!(finished.code(), 78, "{finished:?}");
    let [line] = finished.stderr.as_slice() else {
        panic!("not exactly one line: {finished:?}");
    };
    for word in words {
        assert!(
            line.contains(word),
            "the line does not contain {word}: {line}"
        );
    }
}

#[test]
#[parallel]
fn an_invalid_configuration_is_reported_in_one_line() {
    let server = NatsServer::prepare("");
    let file = server.file("secret", &format!("{PASSWORD}\n"));
    let with = |variable: &str, value: &Path| publishing("nats://127.0.0.1").var(variable, value);
    let token = with("NATS_TOKEN_FILE", &file).secret(PASSWORD);
    for url in ["nats://agent:sEcReT@127.0.0.1", "nats://sEcReT@127.0.0.1"] {
        let launch = Launch::new().var("NATS_URL", url).secret("sEcReT");
        assert_refused(
            launch,
            &[
                "NATS_URL: server 1: credentials in the URL",
                "NATS_PASSWORD_FILE",
            ],
        );
    }
    for variable in ["NATS_TOKEN_FILE", "NATS_CA_FILE", "NATS_BUFFER"] {
        let launch = Launch::new().var(variable, "1MiB");
        assert_refused(launch, &[variable, "NATS_URL is not", "accepted"]);
    }
    let both = token
        .clone()
        .var("NATS_USER", "agent")
        .var("NATS_PASSWORD_FILE", &file);
    assert_refused(both, &["NATS_PASSWORD_FILE: set together", "one of"]);
    assert_refused(
        token.var("NATS_USER", "agent"),
        &["NATS_PASSWORD_FILE: not set"],
    );
    let nobody = with("NATS_PASSWORD_FILE", &file).secret(PASSWORD);
    assert_refused(nobody, &["NATS_USER: not set"]);
    let nothing = with("NATS_TOKEN_FILE", Path::new("/nonexistent"));
    assert_refused(
        nothing,
        &["NATS_TOKEN_FILE: the file cannot be read", "accepted"],
    );
    let no_seed = with("NATS_NKEY_FILE", &file).secret(PASSWORD);
    assert_refused(no_seed, &["NATS_NKEY_FILE", "accepted"]);
    let no_user = server.file("account", &KeyPair::new_account().seed().unwrap());
    assert_refused(
        with("NATS_NKEY_FILE", &no_user),
        &["NATS_NKEY_FILE", "not a user's"],
    );
    let no_jwt = with("NATS_CREDENTIALS_FILE", &file).secret(PASSWORD);
    assert_refused(no_jwt, &["NATS_CREDENTIALS_FILE", "no NATS USER JWT"]);
    let no_pem = with("NATS_CA_FILE", &file).secret(PASSWORD);
    assert_refused(no_pem, &["NATS_CA_FILE: the file contains no certificate"]);
    let authority = Authority::new();
    let (one, other) = (authority.issue("one"), authority.issue("other"));
    let alone = with("NATS_CERT_FILE", &one.certificate);
    assert_refused(alone.clone(), &["NATS_KEY_FILE: not set"]);
    assert_refused(
        alone.var("NATS_KEY_FILE", &other.key),
        &["NATS_KEY_FILE: does not match"],
    );
}
