//! A proxy that delays all data between a client and an agent, like a slow network.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A proxy in front of an agent. The threads that forward data end with their connections.
pub(crate) struct Delay {
    address: SocketAddr,
}

impl Delay {
    /// Starts a proxy to `target` that delays data by `each_way` in each direction.
    pub(crate) fn to(target: SocketAddr, each_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(agent)) = (client, TcpStream::connect(target)) else {
                    return;
                };
                forward(
                    client.try_clone().unwrap(),
                    agent.try_clone().unwrap(),
                    each_way,
                );
                forward(agent, client, each_way);
            }
        });
        Self { address }
    }

    /// The address on which the proxy listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn forward(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (queue, queued) = channel();
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            enqueue(&queue, &bytes[..read], delay);
        }
    });
    thread::spawn(move || deliver(&queued, to));
}

fn enqueue(queue: &Sender<(Instant, Vec<u8>)>, bytes: &[u8], delay: Duration) {
    let _ = queue.send((Instant::now() + delay, bytes.to_vec()));
}

fn deliver(queued: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((due, bytes)) = queued.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
