//! Tests of authentication: which first lines the agent accepts and which it refuses.

use std::time::{Duration, Instant};

use serial_test::parallel;

use crate::support::{Agent, Client, Ending, KEY, Launch};

/// The whole answer to a wrong key.
const REFUSAL: &str = "Unauthorized\n";

/// Asserts that the agent answers with [`REFUSAL`] and closes the connection normally.
fn assert_refused(client: &mut Client, sent: &str) {
    let (answer, ending) = client.rest();
    assert_eq!(String::from_utf8_lossy(&answer), REFUSAL, "{sent:?}");
    assert_eq!(ending, Ending::Eof, "{sent:?}");
}

#[test]
#[parallel]
fn the_right_key_is_answered_with_snapshots_only() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    for end in ["\n", "\r\n"] {
        let mut client = agent.connect();
        client.send(format!("{KEY}{end}"));
        let first = client.snapshot()["agent"]["seq"].as_u64().unwrap();
        let second = client.snapshot()["agent"]["seq"].as_u64().unwrap();
        assert_eq!(second, first + 1);
    }
}

#[test]
#[parallel]
fn the_key_can_arrive_byte_by_byte() {
    let agent = Agent::start(&[]);
    let mut client = agent.connect();
    for byte in format!("{KEY}\r\n").into_bytes() {
        client.send([byte]);
        client.wait_until_read();
    }
    client.snapshot();
}

#[test]
#[parallel]
fn the_longest_key_fits_the_longest_line() {
    let longest = "k".repeat(4096);
    let agent = Agent::start(&[("API_KEY", &longest)]);
    let mut client = agent.connect();
    client.send(format!("{longest}\n"));
    client.snapshot();
}

#[test]
#[parallel]
fn any_other_line_is_refused() {
    let agent = Agent::start(&[]);
    let lower = KEY.to_lowercase();
    let (first, last) = (&KEY[1..], &KEY[..KEY.len() - 1]);
    let lines = [
        // Empty lines, other keys, keys of another length, and keys with one wrong character.
        String::new(),
        "\r".to_owned(),
        "wrong-key-of-some-length".to_owned(),
        lower,
        format!("x{first}"),
        format!("{last}x"),
        first.to_owned(),
        last.to_owned(),
        format!("{KEY}x"),
        format!("{KEY}{KEY}"),
        // The key with an invisible character.
        format!(" {KEY}"),
        format!("{KEY}\t"),
        format!("{KEY}\0"),
        format!("{KEY}\r\r"),
        // Another protocol.
        "GET / HTTP/1.1\r".to_owned(),
    ];
    // Each connection has another source address, because five wrong keys block an address.
    let mut hosts = 10..;
    let mut connect = || {
        let host = hosts.next().unwrap();
        Client::connect_from(&format!("127.0.0.{host}"), agent.address())
    };
    for line in lines {
        let mut client = connect();
        client.send(format!("{line}\n"));
        assert_refused(&mut client, &line);
    }
    // Bytes that are not text.
    let mut client = connect();
    client.send(b"\xff\xfe\x00\x01\n");
    assert_refused(&mut client, "bytes");
    // The key on the second line is too late.
    let mut client = connect();
    client.send(format!("\n{KEY}\n"));
    let (answer, _) = client.rest();
    assert_eq!(String::from_utf8_lossy(&answer), REFUSAL);
    // The right key is still accepted.
    agent.login().snapshot();
}

#[test]
#[parallel]
fn a_key_without_newline_is_refused() {
    let agent = Agent::start(&[("AUTH_TIMEOUT", "1s")]);
    let mut client = agent.connect();
    client.send(KEY);
    client.half_close();
    assert_refused(&mut client, "the key, half-closed");
    let mut client = agent.connect();
    client.send(KEY);
    assert_refused(&mut client, "the key, then silence");
    let mut client = agent.connect();
    client.half_close();
    assert_refused(&mut client, "nothing, half-closed");
}

#[test]
#[parallel]
fn a_line_over_4_kib_is_refused_immediately() {
    let agent = Agent::start(&[("AUTH_TIMEOUT", "1m")]);
    let started = Instant::now();
    let mut client = agent.connect();
    client.send("k".repeat(5 * 1024));
    assert_refused(&mut client, "5 KiB");
    let mut client = agent.connect();
    client.send(format!("{}{KEY}\n", "k".repeat(5 * 1024)));
    assert_refused(&mut client, "5 KiB and the key");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
#[parallel]
fn a_flood_without_newline_needs_no_memory() {
    let agent = Agent::start(&[]);
    agent.login().snapshot();
    let before = agent.peak_rss();
    for host in 10..18 {
        let mut client = Client::connect_from(&format!("127.0.0.{host}"), agent.address());
        let chunk = vec![b'k'; 1024 * 1024];
        // Sending fails after the agent has closed the connection.
        for _ in 0..16 {
            if client.try_send(&chunk).is_err() {
                break;
            }
        }
        client
            .ends_within(Duration::from_secs(20))
            .expect("the connection is still open");
    }
    let growth = agent.peak_rss() - before;
    assert!(growth < 4 << 20, "grew by {growth} bytes");
    agent.login().snapshot();
}

#[test]
#[parallel]
fn a_silent_peer_is_refused_after_the_timeout() {
    let agent = Agent::start(&[("AUTH_TIMEOUT", "700ms")]);
    let started = Instant::now();
    assert_refused(&mut agent.connect(), "silence");
    let silence = started.elapsed();
    assert!(silence >= Duration::from_millis(690), "after {silence:?}");
    assert!(silence < Duration::from_secs(3), "after {silence:?}");
}

#[test]
#[parallel]
fn a_peer_that_sends_slowly_gets_no_extra_time() {
    let agent = Agent::start(&[("AUTH_TIMEOUT", "700ms")]);
    let started = Instant::now();
    let mut client = agent.connect();
    while client.ends_within(Duration::from_millis(50)).is_none() {
        assert!(started.elapsed() < Duration::from_secs(5), "still open");
        // Sending fails if the agent has just closed the connection.
        let _ = client.try_send("k");
    }
    let (answer, _) = client.rest();
    assert_eq!(String::from_utf8_lossy(&answer), REFUSAL);
}

#[test]
#[parallel]
fn after_the_key_the_timeout_does_not_apply() {
    let agent = Agent::start(&[("AUTH_TIMEOUT", "200ms"), ("PUBLISH_INTERVAL", "100ms")]);
    let mut client = agent.login();
    for _ in 0..10 {
        client.snapshot();
    }
}

#[test]
#[parallel]
fn a_peer_that_disconnects_before_its_key_disturbs_no_client() {
    let agent = Launch::new().var("PUBLISH_INTERVAL", "100ms").start();
    let mut other = agent.login();
    let mut seq = other.snapshot()["agent"]["seq"].as_u64().unwrap();
    for sent in ["", "k", &KEY[..10], KEY] {
        let mut client = agent.connect();
        client.send(sent);
        client.reset();
        let mut client = agent.connect();
        client.send(sent);
        drop(client);
        seq += 1;
        assert_eq!(other.snapshot()["agent"]["seq"], seq);
    }
}
