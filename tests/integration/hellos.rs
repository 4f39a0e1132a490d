//! Tests of incomplete TLS ClientHellos, and of a client with a slow network.

use std::io::{ErrorKind, Read as _, Write as _};
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

/// Returns the first `length` bytes of a ClientHello that is longer than this, in records of up to 16 KiB.
fn long_hello(length: usize) -> Vec<u8> {
    let mut hello = vec![0; length];
    for record in hello.chunks_mut(5 + (1 << 14)) {
        let length = record.len() - 5;
        record[..5].copy_from_slice(&[0x16, 3, 1, (length >> 8) as u8, length as u8]);
    }
    hello[5..9].copy_from_slice(&[1, 0, 0xff, 0xf0]);
    hello
}

#[test]
#[serial]
fn an_endless_client_hello_is_refused() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("AUTH_TIMEOUT", "60s").start();
    let hello = long_hello(22 * 1024);
    let (start, rest) = hello.split_at(17 * 1024);
    let mut long = silent(&agent, start, 1).remove(0);
    long.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let waited = long.read(&mut [0]).unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    // With these bytes the message exceeds the limit. It is still incomplete and valid.
    long.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    long.write_all(rest).unwrap();
    let closed = long.read(&mut [0; 64]);
    let is_closed = match &closed {
        Ok(read) => *read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_closed, "{closed:?}");
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
