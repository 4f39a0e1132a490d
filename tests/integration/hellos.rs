//! Hellos that are cut short, and a client far away.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serial_test::serial;

use crate::support::{Agent, Authority, Client, Delay, KEY, OpenSsl, client_hello};

/// How long everything takes to and from the client far away: its round trip is twice as long.
const FAR: Duration = Duration::from_millis(400);

/// Connections that have sent so much of a hello, and then nothing.
fn silent(agent: &Agent, hello: &[u8], count: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(agent.address()).unwrap();
        stream.write_all(hello).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Lets a client far away in; how long that took.
fn comes_in(far: &Delay, version: &str) -> Duration {
    let started = Instant::now();
    let mut client = OpenSsl::connect(far.address(), &[version]);
    client.send(format!("{KEY}\n"));
    client.snapshot();
    started.elapsed()
}

#[test]
#[serial]
fn a_client_far_away_comes_in_after_thousands_that_were_cut_short_and_beside_hundreds() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("AUTH_TIMEOUT", "60s").start();
    let far = Delay::to(agent.address(), FAR);
    let hello = client_hello();
    for (number, length) in (0..3000).zip((0..hello.len()).cycle()) {
        let mut client = Client::connect(agent.address());
        client.send(&hello[..length]);
        if number % 2 == 0 {
            client.reset();
        }
    }
    // Half a hello keeps no turn from others.
    let halves = silent(&agent, &hello[..hello.len() - 1], 1000);
    for version in ["-tls1_2", "-tls1_3"] {
        let took = comes_in(&far, version);
        assert!(took < Duration::from_secs(3), "{version}: {took:?}");
    }
    drop(halves);
    // As many as may have a turn have one, and many more wait for theirs: the one from afar keeps its own for long enough.
    for version in ["-tls1_2", "-tls1_3"] {
        let before = silent(&agent, &hello, 900);
        let came_in = std::thread::scope(|scope| {
            let came_in = scope.spawn(|| comes_in(&far, version));
            let mut after = Vec::new();
            while !came_in.is_finished() && after.len() < 4000 {
                after.extend(silent(&agent, &hello, 10));
                std::thread::sleep(Duration::from_millis(10));
            }
            came_in.join().unwrap()
        });
        assert!(came_in < Duration::from_secs(10), "{version}: {came_in:?}");
        drop(before);
    }
}
