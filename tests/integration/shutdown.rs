//! Stopping: every line is finished, in time, and a second signal is obeyed at once.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serial_test::{parallel, serial};

use crate::support::{Agent, Client, Ending, Idle, KEY, PATIENCE, net, schema, wait};

/// A stream consists of whole, valid lines, and ended in good order.
fn assert_whole(stream: (Vec<u8>, Ending)) {
    let (received, ending) = stream;
    assert_eq!(ending, Ending::Eof);
    assert_eq!(received.last(), Some(&b'\n'), "the last line is cut");
    let text = String::from_utf8(received).unwrap();
    let mut last = None;
    for line in text.lines() {
        let seq = schema::snapshot(line)["agent"]["seq"].as_u64().unwrap();
        assert!(last.is_none_or(|last| seq > last));
        last = Some(seq);
    }
}

/// Takes note of a moment, as the end of the shutdown.
fn stop(agent: &mut Agent, signal: Signal) -> (Option<i32>, Duration) {
    let asked = Instant::now();
    agent.signal(signal);
    let status = agent.exit(PATIENCE);
    (status.code(), asked.elapsed())
}

#[test]
#[serial]
fn fifty_clients_get_whole_lines_and_then_the_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms"), ("TOP_PROCESSES", "1000")]);
        let mut clients: Vec<Client> = (0..50).map(|_| agent.login()).collect();
        for client in &mut clients {
            client.snapshot();
        }
        // They read on while the agent stops, each in its own time.
        let readers: Vec<_> = clients
            .into_iter()
            .map(|mut client| thread::spawn(move || client.rest()))
            .collect();
        let mut witness = agent.login();
        for _ in 0..3 {
            witness.snapshot();
        }
        let (code, took) = stop(&mut agent, signal);
        assert_eq!(code, Some(0), "{signal}");
        assert!(took < Duration::from_secs(2), "{signal}: {took:?}");
        for reader in readers {
            assert_whole(reader.join().unwrap());
        }
        assert_eq!(witness.rest().1, Ending::Eof);
        assert!(!net::listens(agent.port()), "still listens");
    }
}

#[test]
#[parallel]
fn clients_that_have_not_sent_their_key_do_not_hold_it_up() {
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

/// An agent one of whose clients reads nothing, so that a line to it cannot be finished; and that client.
fn with_a_stalled_client(timeout: &str) -> (Agent, Client) {
    let _crowd = Idle::start(100);
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
fn a_stalled_client_is_waited_for_no_longer_than_the_timeout() {
    let (mut agent, stalled) = with_a_stalled_client("1s");
    let mut reader = agent.login();
    reader.snapshot();
    let reader = thread::spawn(move || reader.rest());
    let (code, took) = stop(&mut agent, Signal::SIGTERM);
    assert_eq!(code, Some(0));
    // It is waited for: its line is not finished.
    assert!(took > Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let (received, ending) = reader.join().unwrap();
    assert_eq!(ending, Ending::Eof);
    assert!(received.is_empty() || received.ends_with(b"\n"));
    drop(stalled);
}

#[test]
#[parallel]
fn a_second_signal_exits_at_once() {
    for (first, second) in [
        (Signal::SIGTERM, Signal::SIGTERM),
        (Signal::SIGINT, Signal::SIGINT),
        (Signal::SIGTERM, Signal::SIGINT),
    ] {
        let (mut agent, _stalled) = with_a_stalled_client("1h");
        agent.signal(first);
        let port = agent.port();
        let closed = || (!net::listens(port)).then_some(());
        wait::until("the agent to stop accepting", PATIENCE, closed);
        assert!(agent.is_running(), "it does not wait for its client");
        let asked = Instant::now();
        agent.signal(second);
        agent.exit(PATIENCE);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{second}: {took:?}");
    }
}

#[test]
#[parallel]
fn a_signal_during_the_first_reading_stops_it_too() {
    let mut agent = Agent::start(&[]);
    let (code, took) = stop(&mut agent, Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
