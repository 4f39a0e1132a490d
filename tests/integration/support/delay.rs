//! A way to an agent that is long: a proxy that keeps what it passes on for a time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Where connections to an agent take longer. Its threads end with the connections.
pub(crate) struct Delay {
    address: SocketAddr,
}

impl Delay {
    /// A way to `target` on which everything takes so long in each direction.
    pub(crate) fn to(target: SocketAddr, each_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(agent)) = (client, TcpStream::connect(target)) else {
                    return;
                };
                pass_on(
                    client.try_clone().unwrap(),
                    agent.try_clone().unwrap(),
                    each_way,
                );
                pass_on(agent, client, each_way);
            }
        });
        Self { address }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn pass_on(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (on_the_way, arriving) = channel();
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            depart(&on_the_way, &bytes[..read], delay);
        }
    });
    thread::spawn(move || arrive(&arriving, to));
}

fn depart(on_the_way: &Sender<(Instant, Vec<u8>)>, bytes: &[u8], delay: Duration) {
    let _ = on_the_way.send((Instant::now() + delay, bytes.to_vec()));
}

fn arrive(arriving: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((due, bytes)) = arriving.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
