//! Tests of peers without a key: peers that guess keys, and many peers that send nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::{parallel, serial};

use crate::support::{Agent, Client, DEADLINE, Ending, KEY, Launch, wait};

/// On drop, stops the thread that opens connections. The thread also stops after a panic of the test.
struct StopOnDrop<'e>(&'e AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn guess(agent: &Agent, from: &str) -> (Vec<u8>, Ending) {
    let mut client = Client::connect_from(from, agent.address());
    // Sending fails if the agent has already closed the connection.
    let _ = client.try_send("not-the-key-of-this-agent\n");
    client.rest()
}

#[test]
#[parallel]
fn wrong_keys_block_their_address_and_no_other() {
    let agent = Launch::new().var("PUBLISH_INTERVAL", "200ms").start();
    let mut session = Client::connect_from("127.0.0.2", agent.address());
    session.send(format!("{KEY}\n"));
    session.snapshot();

    for _ in 0..5 {
        assert_eq!(
            guess(&agent, "127.0.0.2"),
            (b"Unauthorized\n".to_vec(), Ending::Eof)
        );
    }
    let closed = agent.event("too many wrong keys: address blocked");
    assert_eq!(
        (closed.text("origin"), closed.text("closed_for")),
        ("127.0.0.2", "1s")
    );
    // A blocked address gets no answer, even with the right key.
    let mut blocked = Client::connect_from("127.0.0.2", agent.address());
    let peer = blocked.local_address().to_string();
    let _ = blocked.try_send(format!("{KEY}\n"));
    assert_eq!(blocked.rest().0, b"");
    let refused = agent.event_where("client refused", |event| event.text("peer") == peer);
    assert_eq!(refused.text("reason"), "too many wrong keys");

    // An older session continues, and other addresses can log in.
    for _ in 0..3 {
        session.snapshot();
    }
    let mut other = Client::connect_from("127.0.0.3", agent.address());
    other.send(format!("{KEY}\n"));
    other.snapshot();
}

#[test]
#[parallel]
fn the_next_block_lasts_twice_as_long_and_a_right_key_lifts_it() {
    let agent = Launch::new().start();
    let closings = || agent.events("too many wrong keys: address blocked");
    let wait_for = |seconds: u64| thread::sleep(Duration::from_millis(1000 * seconds + 50));
    for _ in 0..5 {
        guess(&agent, "127.0.0.2");
    }
    wait_for(1);
    // After the block, one more wrong key blocks the address again.
    assert_eq!(guess(&agent, "127.0.0.2").0, b"Unauthorized\n");
    assert_eq!(guess(&agent, "127.0.0.2").0, b"");
    agent.event_where("too many wrong keys: address blocked", |event| {
        event.text("closed_for") == "2s"
    });
    wait_for(2);
    let mut client = Client::connect_from("127.0.0.2", agent.address());
    client.send(format!("{KEY}\n"));
    client.snapshot();
    for _ in 0..4 {
        assert_eq!(guess(&agent, "127.0.0.2").0, b"Unauthorized\n");
    }
    assert_eq!(closings().len(), 2);
}

#[test]
#[parallel]
fn pending_connections_do_not_count_as_clients() {
    let agent = Launch::new().var("MAX_CLIENTS", "1").start();
    let _silent: Vec<_> = (0..20).map(|_| agent.connect()).collect();
    agent.login().snapshot();
}

#[test]
#[serial]
fn many_silent_connections_do_not_keep_clients_out() {
    let (_, maximum) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, maximum, maximum).unwrap();
    // This limit leaves about 200 descriptors for pending connections.
    let launch = Launch::new().launched_by(["prlimit", "--nofile=512:512"]);
    let agent = launch
        .vars(&[("PUBLISH_INTERVAL", "200ms"), ("AUTH_TIMEOUT", "60s")])
        .start();
    let mut session = agent.login();
    session.snapshot();
    let before = fs::read_dir(format!("/proc/{}/fd", agent.pid()))
        .unwrap()
        .count();
    // The silent connections come from the client's address, from one other address, and from 200 addresses.
    let origins: [fn(u8) -> String; 3] = [
        |_| "127.0.0.1".to_owned(),
        |_| "127.0.0.9".to_owned(),
        |number| format!("127.0.9.{}", 1 + number % 200),
    ];
    for origin in origins {
        // New silent connections arrive while the client logs in.
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let connections = scope.spawn(|| {
                let mut connections = Vec::new();
                let pause = Duration::from_micros(500);
                for number in 0.. {
                    connections.push(Client::connect_from(&origin(number as u8), agent.address()));
                    thread::sleep(pause);
                    if connections.len() > 4000 {
                        connections.drain(..2000);
                    }
                    if ended.load(Ordering::Relaxed) && number > 3000 {
                        break;
                    }
                }
            });
            let end = StopOnDrop(&ended);
            for _ in 0..5 {
                let started = Instant::now();
                agent.login().snapshot();
                let took = started.elapsed();
                assert!(took < Duration::from_secs(3), "{took:?}");
                session.snapshot();
            }
            drop(end);
            connections.join().unwrap();
        });
    }
    agent.event_where("client refused", |event| {
        event.text("reason") == "no key yet, and other connections wait"
    });
    // The agent does not log each refused connection.
    let not_logged = agent.events("further clients were refused and not logged");
    let not_logged: u64 = not_logged.iter().map(|event| event.number("clients")).sum();
    assert!(not_logged > 1000, "{not_logged}");
    // The agent closes all silent connections.
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", agent.pid()))
            .unwrap()
            .count()
    };
    wait::until("the silent connections to be closed", DEADLINE, || {
        (open() < before + 5).then_some(())
    });
}

#[test]
#[parallel]
fn after_five_wrong_keys_waiting_keys_are_not_checked() {
    let agent = Launch::new().start();
    let mut connections: Vec<_> = (0..50)
        .map(|_| Client::connect_from("127.0.0.2", agent.address()))
        .collect();
    for client in &mut connections {
        let _ = client.try_send("not-the-key-of-this-agent\n");
    }
    let answers: Vec<_> = connections
        .iter_mut()
        .map(|client| client.rest().0)
        .collect();
    let tried = answers.iter().filter(|answer| !answer.is_empty()).count();
    // At that moment each authentication thread can be checking one more key.
    let threads = thread::available_parallelism().unwrap().get().div_ceil(2);
    assert!(
        (5..5 + threads).contains(&tried),
        "{tried} connections were answered"
    );
}
