//! Tests of health checks that connect and immediately close the connection. The agent counts such health checks and logs few
//! messages.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use serial_test::parallel;
use socket2::SockRef;

use crate::support::prometheus::{get, metrics_of};
use crate::support::{Agent, Authority, Client, DEADLINE, Launch, OpenSsl, wait};

const CLOSED: &str = "connections closed by their peers before anything was sent";

/// Connects and closes normally.
fn closes(address: SocketAddr) {
    drop(Client::connect(address));
}

/// Connects and resets.
fn resets(address: SocketAddr) {
    Client::connect(address).reset();
}

/// Connects, closes the sending side and reads to the end.
fn half_closes(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.half_close();
    client.rest();
}

fn launch(launch: Launch) -> Agent {
    let launch = launch
        .var("METRICS_PORT", "0")
        .var("PUBLISH_INTERVAL", "200ms");
    launch.start()
}

/// Waits until the agent has counted `count` connections. Fails the test if it counts more.
fn wait_for_count(count: u64, mut snapshot: impl FnMut() -> Value) {
    let mut last = None;
    let enough = || {
        last = snapshot()["agent"]["connections_closed_early"].as_u64();
        (last >= Some(count)).then_some(())
    };
    assert!(
        wait::within(DEADLINE, enough).is_some(),
        "{count}: {last:?}"
    );
    assert_eq!(last, Some(count));
}

/// Asserts that only the first connection is logged (the next message comes after a minute) and that no connection is logged as
/// refused.
fn assert_logged_once(agent: &Agent) {
    let logged = agent.events(CLOSED);
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert_eq!(logged[0].level(), "INFO");
    assert_eq!(logged[0].number("connections"), 1);
    assert!(logged[0].text("last_peer").starts_with("127.0.0.1:"));
    assert!(agent.events("client refused").is_empty());
}

#[test]
#[parallel]
fn health_checks_are_counted_and_logged_together() {
    let agent = launch(Launch::new());
    let metrics = metrics_of(&agent);
    let mut client = agent.login();
    for _ in 0..50 {
        closes(agent.address());
        resets(agent.address());
        half_closes(agent.address());
        closes(metrics);
        resets(metrics);
    }
    wait_for_count(250, || client.snapshot());
    assert_logged_once(&agent);
    let figures = get(metrics, "/metrics", &[]).body;
    assert!(
        figures.contains("\nsystem_agent_connections_closed_early_total 250"),
        "{figures}"
    );
    // A peer that sends a wrong key or an incomplete line is refused. Such a peer is not counted as a health check.
    let mut wrong = agent.connect();
    wrong.send("key\n");
    assert_eq!(wrong.line().as_deref(), Some("Unauthorized"));
    assert_eq!(agent.event("client refused").text("reason"), "wrong key");
    let mut cut = agent.connect();
    cut.send("half a k");
    cut.half_close();
    assert_eq!(cut.line().as_deref(), Some("Unauthorized"));
    agent.event_where("client refused", |event| {
        event.text("reason") == "no complete line"
    });
    wait_for_count(250, || client.snapshot());
}

#[test]
#[parallel]
fn health_checks_of_a_tls_port_are_counted_before_and_after_the_handshake() {
    let authority = Authority::new();
    let agent = launch(authority.issue("agent").launch());
    let metrics = metrics_of(&agent);
    let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
    client.send(format!("{}\n", crate::support::KEY));
    for _ in 0..20 {
        for address in [agent.address(), metrics] {
            closes(address);
            resets(address);
            half_closes(address);
        }
    }
    // Some monitoring tools read the certificate and close the connection.
    for address in [agent.address(), metrics] {
        let looks = OpenSsl::connect(address, &["-no_ign_eof"]);
        looks.says("CONNECTION ESTABLISHED");
        looks.end();
    }
    wait_for_count(122, || client.snapshot());
    assert_logged_once(&agent);
    // An incomplete ClientHello is refused.
    let mut cut = agent.connect();
    cut.send(b"\x16\x03\x01\x00\xc0\x01");
    cut.half_close();
    cut.rest();
    let refused = agent.event("client refused");
    assert!(refused.text("reason").contains("TLS"), "{refused:?}");
}

#[test]
#[parallel]
fn a_health_check_that_waits_before_it_closes_is_counted() {
    let agent = launch(Launch::new());
    let mut client = agent.login();
    let silent: Vec<Client> = (0..10).map(|_| agent.connect()).collect();
    // When this snapshot arrives, the agent has accepted the connections.
    client.snapshot_within(Duration::from_secs(5));
    client.snapshot_within(Duration::from_secs(5));
    drop(silent);
    wait_for_count(10, || client.snapshot());
    assert_logged_once(&agent);
}

#[test]
#[parallel]
fn a_connection_that_is_reset_before_it_is_accepted_is_harmless() {
    let agent = launch(Launch::new());
    let mut client = agent.login();
    for _ in 0..200 {
        // HAProxy's health check resets the connection instead of the third packet of the TCP handshake, or immediately after the
        // handshake.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&agent.address().into());
        SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    client.snapshot();
    client.snapshot();
    assert!(agent.events("client refused").is_empty());
    assert!(agent.events(CLOSED).len() <= 1);
}
