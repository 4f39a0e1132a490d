//! Health checks, which connect and close: they are counted, and do not fill the log.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use serial_test::parallel;
use socket2::SockRef;

use crate::support::prometheus::get;
use crate::support::{Agent, Authority, Client, Launch, OpenSsl, PATIENCE, wait};

const CLOSED: &str = "connections closed by their peers before anything was sent";

/// Connects and closes in good order.
fn closes(address: SocketAddr) {
    drop(Client::connect(address));
}

/// Connects and resets.
fn resets(address: SocketAddr) {
    Client::connect(address).reset();
}

/// Closes its sending side, and reads what there is to the end.
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

fn metrics_at(agent: &Agent) -> SocketAddr {
    let event = agent.event("metrics at /metrics");
    event.text("address").parse().unwrap()
}

/// Waits until so many have been counted, and no more.
fn counted(count: u64, mut snapshot: impl FnMut() -> Value) {
    let mut last = None;
    let enough = || {
        last = snapshot()["agent"]["connections_closed_early"].as_u64();
        (last >= Some(count)).then_some(())
    };
    assert!(
        wait::within(PATIENCE, enough).is_some(),
        "{count}: {last:?}"
    );
    assert_eq!(last, Some(count));
}

/// The first at once, and of the others nothing within a minute. Nobody is refused.
fn told_of(agent: &Agent) {
    let told = agent.events(CLOSED);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].level(), "INFO");
    assert_eq!(told[0].number("connections"), 1);
    assert!(told[0].text("last_peer").starts_with("127.0.0.1:"));
    assert!(agent.events("client refused").is_empty());
}

#[test]
#[parallel]
fn they_are_counted_and_told_of_together() {
    let agent = launch(Launch::new());
    let metrics = metrics_at(&agent);
    let mut client = agent.login();
    for _ in 0..50 {
        closes(agent.address());
        resets(agent.address());
        half_closes(agent.address());
        closes(metrics);
        resets(metrics);
    }
    counted(250, || client.snapshot());
    told_of(&agent);
    let figures = get(metrics, "/metrics", &[]).body;
    assert!(
        figures.contains("\nsystem_agent_connections_closed_early_total 250"),
        "{figures}"
    );
    // Whoever says something wrong is refused, as before, and one that scraped has done nothing wrong.
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
    counted(250, || client.snapshot());
}

#[test]
#[parallel]
fn so_are_those_of_a_tls_port_before_and_after_the_handshake() {
    let authority = Authority::new();
    let agent = launch(authority.issue("agent").launch());
    let metrics = metrics_at(&agent);
    let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
    client.send(format!("{}\n", crate::support::KEY));
    for _ in 0..20 {
        for address in [agent.address(), metrics] {
            closes(address);
            resets(address);
            half_closes(address);
        }
    }
    // As monitoring does that looks at the certificate.
    for address in [agent.address(), metrics] {
        let looks = OpenSsl::connect(address, &["-no_ign_eof"]);
        looks.says("CONNECTION ESTABLISHED");
        looks.end();
    }
    counted(122, || client.snapshot());
    told_of(&agent);
    // Half a hello is none.
    let mut cut = agent.connect();
    cut.send(b"\x16\x03\x01\x00\xc0\x01");
    cut.half_close();
    cut.rest();
    let refused = agent.event("client refused");
    assert!(refused.text("reason").contains("TLS"), "{refused:?}");
}

#[test]
#[parallel]
fn one_that_waits_before_it_closes_counts_as_well() {
    let agent = launch(Launch::new());
    let mut client = agent.login();
    let silent: Vec<Client> = (0..10).map(|_| agent.connect()).collect();
    // They have been accepted by now.
    client.snapshot_within(Duration::from_secs(5));
    client.snapshot_within(Duration::from_secs(5));
    drop(silent);
    counted(10, || client.snapshot());
    told_of(&agent);
}

#[test]
#[parallel]
fn a_peer_that_has_gone_before_it_was_accepted_does_no_harm() {
    let agent = launch(Launch::new());
    let mut client = agent.login();
    for _ in 0..200 {
        // As HAProxy does: a reset in place of the third packet of the handshake, or right after it.
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
