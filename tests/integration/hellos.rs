//! Tests of incomplete TLS ClientHellos, and of a client with a slow network.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serial_test::serial;

use crate::support::{Agent, Authority, Client, Delay, KEY, OpenSsl, client_hello};

/// The delay in each direction for the distant client. A round trip takes twice as long.
const ONE_WAY_DELAY: Duration = Duration::from_millis(400);

/// Opens `count` connections that send `hello` and then nothing.
fn silent(agent: &Agent, hello: &[u8], count: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(agent.address()).unwrap();
        stream.write_all(hello).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Logs in as the distant client. Returns how long this takes.
fn log_in(distant: &Delay, version: &str) -> Duration {
    let started = Instant::now();
    let mut client = OpenSsl::connect(distant.address(), &[version]);
    client.send(format!("{KEY}\n"));
    client.snapshot();
    started.elapsed()
}

#[test]
#[serial]
fn a_distant_client_logs_in_despite_thousands_of_incomplete_handshakes() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("AUTH_TIMEOUT", "60s").start();
    let distant = Delay::to(agent.address(), ONE_WAY_DELAY);
    let hello = client_hello();
    for (number, length) in (0..3000).zip((0..hello.len()).cycle()) {
        let mut client = Client::connect(agent.address());
        client.send(&hello[..length]);
        if number % 2 == 0 {
            client.reset();
        }
    }
    // An incomplete ClientHello does not count towards the limit of handshakes.
    let halves = silent(&agent, &hello[..hello.len() - 1], 1000);
    for version in ["-tls1_2", "-tls1_3"] {
        let took = log_in(&distant, version);
        assert!(took < Duration::from_secs(3), "{version}: {took:?}");
    }
    drop(halves);
    // Now the limit of handshakes is reached, and more connections wait. The distant client still has enough time.
    for version in ["-tls1_2", "-tls1_3"] {
        let before = silent(&agent, &hello, 900);
        let took = std::thread::scope(|scope| {
            let took = scope.spawn(|| log_in(&distant, version));
            let mut after = Vec::new();
            while !took.is_finished() && after.len() < 4000 {
                after.extend(silent(&agent, &hello, 10));
                std::thread::sleep(Duration::from_millis(10));
            }
            took.join().unwrap()
        });
        assert!(took < Duration::from_secs(10), "{version}: {took:?}");
        drop(before);
    }
}
