//! Those who have no key: guessers, and crowds that say nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::{parallel, serial};

use crate::support::{Agent, Client, Ending, KEY, Launch, PATIENCE, wait};

/// Ends a crowd when it is dropped, by a panic as well.
struct Ends<'e>(&'e AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn guess(agent: &Agent, from: &str) -> (Vec<u8>, Ending) {
    let mut client = Client::connect_from(from, agent.address());
    // One that is closed unheard may be closed already.
    let _ = client.try_send("not-the-key-of-this-agent\n");
    client.rest()
}

#[test]
#[parallel]
fn who_guesses_is_not_listened_to_and_others_are() {
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
    let closed = agent.event("too many wrong keys: closed for a while");
    assert_eq!(
        (closed.text("origin"), closed.text("closed_for")),
        ("127.0.0.2", "1s")
    );
    // Not a word, whatever the key.
    let mut unheard = Client::connect_from("127.0.0.2", agent.address());
    let peer = unheard.local_address().to_string();
    let _ = unheard.try_send(format!("{KEY}\n"));
    assert_eq!(unheard.rest().0, b"");
    let refused = agent.event_where("client refused", |event| event.text("peer") == peer);
    assert_eq!(refused.text("reason"), "too many wrong keys");

    // Whoever was there before stays, and others come in.
    for _ in 0..3 {
        session.snapshot();
    }
    let mut other = Client::connect_from("127.0.0.3", agent.address());
    other.send(format!("{KEY}\n"));
    other.snapshot();
}

#[test]
#[parallel]
fn the_next_time_lasts_twice_as_long_and_the_right_key_forgives() {
    let agent = Launch::new().start();
    let closings = || agent.events("too many wrong keys: closed for a while");
    let wait_for = |seconds: u64| thread::sleep(Duration::from_millis(1000 * seconds + 50));
    for _ in 0..5 {
        guess(&agent, "127.0.0.2");
    }
    wait_for(1);
    // One is enough now.
    assert_eq!(guess(&agent, "127.0.0.2").0, b"Unauthorized\n");
    assert_eq!(guess(&agent, "127.0.0.2").0, b"");
    agent.event_where("too many wrong keys: closed for a while", |event| {
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
fn who_says_nothing_takes_no_clients_place() {
    let agent = Launch::new().var("MAX_CLIENTS", "1").start();
    let _silent: Vec<_> = (0..20).map(|_| agent.connect()).collect();
    agent.login().snapshot();
}

#[test]
#[serial]
fn a_silent_crowd_keeps_nobody_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // With room for some two hundred connections.
    let launch = Launch::new().by(["prlimit", "--nofile=512:512"]);
    let agent = launch
        .vars(&[("PUBLISH_INTERVAL", "200ms"), ("AUTH_TIMEOUT", "60s")])
        .start();
    let mut session = agent.login();
    session.snapshot();
    let before = fs::read_dir(format!("/proc/{}/fd", agent.pid()))
        .unwrap()
        .count();
    // From where the client is, from elsewhere, and from everywhere.
    let origins: [fn(u8) -> String; 3] = [
        |_| "127.0.0.1".to_owned(),
        |_| "127.0.0.9".to_owned(),
        |number| format!("127.0.9.{}", 1 + number % 200),
    ];
    for origin in origins {
        // They keep coming while the client comes.
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let crowd = scope.spawn(|| {
                let mut crowd = Vec::new();
                let pause = Duration::from_micros(500);
                for number in 0.. {
                    crowd.push(Client::connect_from(&origin(number as u8), agent.address()));
                    thread::sleep(pause);
                    if crowd.len() > 4000 {
                        crowd.drain(..2000);
                    }
                    if ended.load(Ordering::Relaxed) && number > 3000 {
                        break;
                    }
                }
            });
            let end = Ends(&ended);
            for _ in 0..5 {
                let started = Instant::now();
                agent.login().snapshot();
                let took = started.elapsed();
                assert!(took < Duration::from_secs(3), "{took:?}");
                session.snapshot();
            }
            drop(end);
            crowd.join().unwrap();
        });
    }
    agent.event_where("client refused", |event| {
        event.text("reason") == "no key yet, and others wait"
    });
    // The log is not made to tell of each.
    let untold = agent.events("more clients refused than are named");
    let untold: u64 = untold.iter().map(|event| event.number("clients")).sum();
    assert!(untold > 1000, "{untold}");
    // Nothing is left of them.
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", agent.pid()))
            .unwrap()
            .count()
    };
    wait::until("the crowd to be gone", PATIENCE, || {
        (open() < before + 5).then_some(())
    });
}

#[test]
#[parallel]
fn keys_that_wait_for_the_fifth_are_not_tried() {
    let agent = Launch::new().start();
    let mut crowd: Vec<_> = (0..50)
        .map(|_| Client::connect_from("127.0.0.2", agent.address()))
        .collect();
    for client in &mut crowd {
        let _ = client.try_send("not-the-key-of-this-agent\n");
    }
    let answers: Vec<_> = crowd.iter_mut().map(|client| client.rest().0).collect();
    let tried = answers.iter().filter(|answer| !answer.is_empty()).count();
    // One more may be under way on every thread that greets.
    let threads = thread::available_parallelism().unwrap().get().div_ceil(2);
    assert!((5..5 + threads).contains(&tried), "{tried} were answered");
}
