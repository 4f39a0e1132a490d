//! Tests of the whitelist: listed addresses can connect, and other addresses get no byte.

use serial_test::parallel;

use crate::support::{Agent, Authority, Client, KEY, Launch, client_hello};

/// Asserts that a client at this source address gets snapshots.
fn assert_allowed(agent: &Agent, source: &str) {
    let mut client = Client::connect_from(source, agent.address());
    client.send(format!("{KEY}\n"));
    client.snapshot();
}

/// Asserts that a client at this source address gets no byte after it sends `sent`, and that the refusal is logged.
fn assert_refused(agent: &Agent, source: &str, sent: &[u8]) {
    let mut client = Client::connect_from(source, agent.address());
    let peer = client.local_address().to_string();
    // Sending fails if the agent has already closed the connection.
    let _ = client.try_send(sent);
    let (answer, _) = client.rest();
    assert_eq!(answer, b"", "{source} received {}", answer.escape_ascii());
    let event = agent.event_where("client refused", |event| event.text("peer") == peer);
    let reason = event.text("reason").to_lowercase();
    assert!(reason.contains("whitelist"), "{event:?}");
}

fn key() -> Vec<u8> {
    format!("{KEY}\n").into_bytes()
}

#[test]
#[parallel]
fn an_empty_list_allows_all_addresses() {
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
fn a_refused_client_gets_no_byte_whatever_it_sends() {
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
    // An agent that listens on all addresses has one socket for IPv4 and IPv6. On this socket, IPv4 clients have addresses such
    // as ::ffff:127.0.0.1.
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
    // IPv6 clients are served too, with their own address.
    let loopback = ([0_u16, 0, 0, 0, 0, 0, 0, 1], agent.port()).into();
    let mut client = Client::connect(loopback);
    assert_eq!(client.rest().0, b"");
    let agent = on_all("::1");
    assert_refused(&agent, "127.0.0.1", &key());
}

#[test]
#[parallel]
fn with_tls_a_refused_client_gets_no_handshake() {
    let authority = Authority::new();
    let launch = authority.issue("agent").launch();
    let agent = launch.var("WHITELISTED_CLIENTS", "127.0.0.2").start();
    assert_refused(&agent, "127.0.0.1", &client_hello());
    // A listed client that sends the same bytes gets a TLS answer.
    let mut client = Client::connect_from("127.0.0.2", agent.address());
    client.send(client_hello());
    client.receive_bytes(100);
}

#[test]
#[parallel]
fn an_invalid_entry_is_an_error_at_the_start() {
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
        // An empty list allows all addresses. This value is not empty, so it must be refused.
        ",",
    ];
    for list in lists {
        let finished = Launch::new().var("WHITELISTED_CLIENTS", list).run();
        assert_eq!(finished.code(), 78, "{list:?}: {finished:?}");
        let [line] = finished.stderr.as_slice() else {
            panic!("{list:?}: not exactly one line: {finished:?}");
        };
        assert!(line.contains("WHITELISTED_CLIENTS"), "{list:?}: {line}");
    }
}
