//! Tests of the messages to systemd (sd_notify(3)). In these tests, the test process receives the messages instead of systemd.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serial_test::parallel;

use crate::support::{Agent, DEADLINE, Launch};

/// The next message.
fn message(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("no message arrived");
    String::from_utf8(message[..length].to_vec()).unwrap()
}

fn message_where(socket: &UnixDatagram, fits: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let message = message(socket);
        if fits(&message) {
            return message;
        }
        assert!(Instant::now() < end, "last: {message}");
    }
}

fn supervised(path: &Path, variables: &[(&str, &str)]) -> Agent {
    let launch = Launch::new().var("NOTIFY_SOCKET", path);
    launch.vars(variables).start()
}

#[test]
#[parallel]
fn the_supervisor_gets_ready_status_watchdog_and_stopping_messages() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let variables = [("PUBLISH_INTERVAL", "1s"), ("WATCHDOG_USEC", "400000")];
    let mut agent = supervised(&path, &variables);
    // The agent is ready only after its first snapshot, so that a client does not have to wait.
    message_where(&socket, |message| message == "READY=1");
    let started = Instant::now();
    agent.login().snapshot();
    assert!(started.elapsed() < Duration::from_millis(500));
    let status = message_where(&socket, |message| message.starts_with("STATUS="));
    assert!(status.contains("clients, 0 containers"), "{status}");
    // The agent sends the message twice in each watchdog interval (400 ms).
    let started = Instant::now();
    for _ in 0..5 {
        message_where(&socket, |message| message == "WATCHDOG=1");
    }
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(700) && took < Duration::from_millis(2500),
        "{took:?}"
    );
    agent.signal(Signal::SIGTERM);
    message_where(&socket, |message| message == "STOPPING=1");
    assert!(agent.exit(DEADLINE).success());
}

#[test]
#[parallel]
fn a_supervisor_that_does_not_read_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let variables = [("PUBLISH_INTERVAL", "100ms"), ("WATCHDOG_USEC", "2000")];
    let agent = supervised(&path, &variables);
    let mut client = agent.login();
    let first = client.snapshot()["agent"]["seq"].as_u64().unwrap();
    for later in 1..20 {
        assert_eq!(client.snapshot()["agent"]["seq"], first + later);
    }
    drop(socket);
    client.snapshot();
}

#[test]
#[parallel]
fn without_a_supervisor_the_agent_runs_normally() {
    let agent = supervised(Path::new("/nowhere/at/all"), &[]);
    agent.login().snapshot();
    let agent = supervised(Path::new(&"x".repeat(200)), &[]);
    agent.event("NOTIFY_SOCKET cannot be used");
    agent.login().snapshot();
}
