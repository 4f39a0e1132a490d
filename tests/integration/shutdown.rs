//! Tests of the shutdown: clients get whole lines, the agent stops in time, and a second signal stops it immediately.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serial_test::{parallel, serial};

use crate::support::{Agent, Client, DEADLINE, Ending, Idle, KEY, net, schema, wait};

/// Asserts that a stream has only whole, valid JSON lines and ended normally.
fn assert_whole(stream: (Vec<u8>, Ending)) {
    let (received, ending) = stream;
    assert_eq!(ending, Ending::Eof);
    assert_eq!(
        received.last(),
        Some(&b'\n'),
        "the last line is not complete"
    );
    let text = String::from_utf8(received).unwrap();
    let mut last = None;
    for line in text.lines() {
        let seq = schema::snapshot(line)["agent"]["seq"].as_u64().unwrap();
        assert!(last.is_none_or(|last| seq > last));
        last = Some(seq);
    }
}

/// Sends a signal and waits until the agent exits. Returns the exit status and the duration.
fn stop(agent: &mut Agent, signal: Signal) -> (Option<i32>, Duration) {
    let asked = Instant::now();
    agent.signal(signal);
    let status = agent.exit(DEADLINE);
    (status.code(), asked.elapsed())
}

#[test]
#[serial]
fn fifty_clients_get_whole_lines_before_the_stream_ends() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms"), ("TOP_PROCESSES", "1000")]);
        let mut clients: Vec<Client> = (0..50).map(|_| agent.login()).collect();
        for client in &mut clients {
            client.snapshot();
        }
        // The clients continue to read while the agent stops.
        let readers: Vec<_> = clients
            .into_iter()
            .map(|mut client| thread::spawn(move || client.rest()))
            .collect();
        let mut other = agent.login();
        for _ in 0..3 {
            other.snapshot();
        }
        let (code, took) = stop(&mut agent, signal);
        assert_eq!(code, Some(0), "{signal}");
        assert!(took < Duration::from_secs(2), "{signal}: {took:?}");
        for reader in readers {
            assert_whole(reader.join().unwrap());
        }
        assert_eq!(other.rest().1, Ending::Eof);
        assert!(!net::listens(agent.port()), "the port still listens");
    }
}

#[test]
#[parallel]
fn pending_connections_do_not_delay_the_shutdown() {
    let mut agent = Agent::start(&[("AUTH_TIMEOUT", "1m")]);
    let mut silent = agent.connect();
    let mut half = agent.connect();
    half.send(&KEY[..5]);
    half.wait_until_read();
    let (code, took) = stop(&mut agent, Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
    for client in [&mut silent, &mut half] {
        let (received, _) = client.rest();
        assert!(received.is_empty() || received == b"Unauthorized\n");
    }
}

/// Starts an agent with one client that reads nothing, so that the agent cannot finish a JSON line to this client. Returns the
/// agent and the client.
fn with_a_stalled_client(timeout: &str) -> (Agent, Client) {
    let _idle = Idle::start(100);
    let settings = [
        ("TOP_PROCESSES", "1000"),
        ("PUBLISH_INTERVAL", "100ms"),
        ("WRITE_TIMEOUT", "1h"),
        ("SHUTDOWN_TIMEOUT", timeout),
    ];
    let agent = Agent::start(&settings);
    let mut stalled = Client::connect_narrow(agent.address());
    stalled.send(format!("{KEY}\n"));
    let mut reader = agent.login();
    for _ in 0..40 {
        reader.snapshot();
    }
    (agent, stalled)
}

#[test]
#[serial]
fn the_shutdown_waits_for_a_stalled_client_until_the_timeout() {
    let (mut agent, stalled) = with_a_stalled_client("1s");
    let mut reader = agent.login();
    reader.snapshot();
    let reader = thread::spawn(move || reader.rest());
    let (code, took) = stop(&mut agent, Signal::SIGTERM);
    assert_eq!(code, Some(0));
    // The agent waits, because the line to the stalled client is not complete.
    assert!(took > Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let (received, ending) = reader.join().unwrap();
    assert_eq!(ending, Ending::Eof);
    assert!(received.is_empty() || received.ends_with(b"\n"));
    drop(stalled);
}

#[test]
#[parallel]
fn a_second_signal_stops_the_agent_immediately() {
    for (first, second) in [
        (Signal::SIGTERM, Signal::SIGTERM),
        (Signal::SIGINT, Signal::SIGINT),
        (Signal::SIGTERM, Signal::SIGINT),
    ] {
        let (mut agent, _stalled) = with_a_stalled_client("1h");
        agent.signal(first);
        let port = agent.port();
        let closed = || (!net::listens(port)).then_some(());
        wait::until("the agent to stop accepting", DEADLINE, closed);
        assert!(agent.is_running(), "the agent does not wait for its client");
        let asked = Instant::now();
        agent.signal(second);
        agent.exit(DEADLINE);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{second}: {took:?}");
    }
}

#[test]
#[parallel]
fn a_signal_during_the_first_round_stops_the_agent() {
    let mut agent = Agent::start(&[]);
    let (code, took) = stop(&mut agent, Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
