//! What the agent tells systemd, by sd_notify(3)'s protocol, of which the test is the other side.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serial_test::parallel;

use crate::support::{Agent, Launch, PATIENCE};

/// The next message.
fn message(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("a message");
    String::from_utf8(message[..length].to_vec()).unwrap()
}

fn message_where(socket: &UnixDatagram, fits: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + PATIENCE;
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
fn the_supervisor_hears_of_every_turn_of_the_agents_life() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let variables = [("PUBLISH_INTERVAL", "1s"), ("WATCHDOG_USEC", "400000")];
    let mut agent = supervised(&path, &variables);
    // Not before there is a snapshot, so that a client that is started after it is not kept waiting.
    message_where(&socket, |message| message == "READY=1");
    let started = Instant::now();
    agent.login().snapshot();
    assert!(started.elapsed() < Duration::from_millis(500));
    let status = message_where(&socket, |message| message.starts_with("STATUS="));
    assert!(status.contains("clients, 0 containers"), "{status}");
    // Twice as often as would be enough.
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
    assert!(agent.exit(PATIENCE).success());
}

#[test]
#[parallel]
fn a_supervisor_that_does_not_read_holds_nothing_up() {
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
fn a_supervisor_that_is_not_there_is_told_nothing() {
    let agent = supervised(Path::new("/nowhere/at/all"), &[]);
    agent.login().snapshot();
    let agent = supervised(Path::new(&"x".repeat(200)), &[]);
    agent.event("NOTIFY_SOCKET cannot be used");
    agent.login().snapshot();
}
