//! The whitelist: who may connect, and that the others see nothing at all.

use std::sync::Arc;

use serial_test::parallel;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::{Agent, Authority, Client, KEY, Launch};

/// The client at this source address gets snapshots.
fn assert_allowed(agent: &Agent, source: &str) {
    let mut client = Client::connect_from(source, agent.address());
    client.send(format!("{KEY}\n"));
    client.snapshot();
}

/// The client at this source address sees no byte, whatever it sends, and the log names it.
fn assert_refused(agent: &Agent, source: &str, sent: &[u8]) {
    let mut client = Client::connect_from(source, agent.address());
    let peer = client.local_address().to_string();
    // The connection may be closed already.
    let _ = client.try_send(sent);
    let (answer, _) = client.rest();
    assert_eq!(answer, b"", "{source} sees {}", answer.escape_ascii());
    let event = agent.event_where("client refused", |event| event.text("peer") == peer);
    let reason = event.text("reason").to_lowercase();
    assert!(reason.contains("whitelist"), "{event:?}");
}

fn key() -> Vec<u8> {
    format!("{KEY}\n").into_bytes()
}

#[test]
#[parallel]
fn an_empty_list_lets_all_in() {
    for list in [None, Some("")] {
        let launch = list.into_iter().fold(Launch::new(), |launch, list| {
            launch.var("WHITELISTED_CLIENTS", list)
        });
        let agent = launch.start();
        assert_allowed(&agent, "127.0.0.1");
        assert_allowed(&agent, "127.9.9.9");
    }
}

#[test]
#[parallel]
fn ipv4_addresses_and_blocks_match() {
    let agent = Agent::start(&[("WHITELISTED_CLIENTS", "127.0.0.2, 127.1.0.0/16,203.0.113.7")]);
    for source in ["127.0.0.2", "127.1.0.1", "127.1.255.254"] {
        assert_allowed(&agent, source);
    }
    for source in [
        "127.0.0.1",
        "127.0.0.3",
        "127.0.0.22",
        "127.2.0.1",
        "127.0.1.1",
    ] {
        assert_refused(&agent, source, &key());
    }
}

#[test]
#[parallel]
fn a_refused_client_sees_nothing_even_if_it_is_silent() {
    let agent = Agent::start(&[
        ("WHITELISTED_CLIENTS", "203.0.113.7"),
        ("AUTH_TIMEOUT", "1m"),
    ]);
    assert_refused(&agent, "127.0.0.1", b"");
    assert_refused(&agent, "127.0.0.1", b"wrong\n");
    assert_refused(&agent, "127.0.0.1", &key());
}

#[test]
#[parallel]
fn ipv6_addresses_and_blocks_match() {
    let on_ipv6 =
        |list: &str| Agent::start(&[("SOCKET_ADDRESS", "::1"), ("WHITELISTED_CLIENTS", list)]);
    for list in ["::1", "0:0:0:0:0:0:0:1", "::/126", "2001:db8::/32,::1/128"] {
        assert_allowed(&on_ipv6(list), "::1");
    }
    for list in [
        "2001:db8::1",
        "2001:db8::/32",
        "::2",
        "127.0.0.1",
        "0.0.0.0/0",
    ] {
        assert_refused(&on_ipv6(list), "::1", &key());
    }
}

#[test]
#[parallel]
fn a_mapped_address_matches_its_ipv4_entry() {
    // Bound to all addresses there is one socket for both: IPv4 clients appear on it as ::ffff:127.0.0.1.
    let on_all = |list: &str| {
        let launch = Launch::new().without("SOCKET_ADDRESS");
        launch.var("WHITELISTED_CLIENTS", list).start()
    };
    for list in ["127.0.0.1", "127.0.0.0/30", "::ffff:127.0.0.1"] {
        let agent = on_all(list);
        assert_allowed(&agent, "127.0.0.1");
        assert_refused(&agent, "127.0.0.9", &key());
    }
    let agent = on_all("127.0.0.2");
    assert_allowed(&agent, "127.0.0.2");
    assert_refused(&agent, "127.0.0.1", &key());
    // The other family is served too, under its own address.
    let loopback = ([0_u16, 0, 0, 0, 0, 0, 0, 1], agent.port()).into();
    let mut client = Client::connect(loopback);
    assert_eq!(client.rest().0, b"");
    let agent = on_all("::1");
    assert_refused(&agent, "127.0.0.1", &key());
}

#[test]
#[parallel]
fn with_tls_a_refused_client_sees_no_handshake() {
    let authority = Authority::new();
    let launch = authority.issue("agent").launch();
    let agent = launch.var("WHITELISTED_CLIENTS", "127.0.0.2").start();
    assert_refused(&agent, "127.0.0.1", &client_hello());
    // The same bytes from a client on the list are answered by a handshake.
    let mut client = Client::connect_from("127.0.0.2", agent.address());
    client.send(client_hello());
    client.receive_bytes(100);
}

/// The first message of a real TLS client.
fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
#[parallel]
fn a_malformed_entry_stops_the_start() {
    let lists = [
        "localhost",
        "127.0.0.1;127.0.0.2",
        "127.0.0.1 127.0.0.2",
        "127.0.0.256",
        "127.0.0",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/x",
        "::1/129",
        ":::1",
        "127.0.0.1:9000",
        "127.0.0.1,10.0.0.0/8,nonsense",
        // Meant to be a list, and so never to let all in.
        ",",
    ];
    for list in lists {
        let finished = Launch::new().var("WHITELISTED_CLIENTS", list).run();
        assert_eq!(finished.code(), 78, "{list:?}: {finished:?}");
        let [line] = finished.stderr.as_slice() else {
            panic!("{list:?}: not one line: {finished:?}");
        };
        assert!(line.contains("WHITELISTED_CLIENTS"), "{list:?}: {line}");
    }
}
