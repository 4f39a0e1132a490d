//! A receiver that accepts every request, and counts requests and bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the receiver has received so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// Bytes of the bodies, as they were on the wire.
    pub(crate) bytes: u64,
}

/// The receiver. Its threads end with the benchmark.
pub(crate) struct Receiver {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::<Mutex<Counts>>::default();
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counts = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &counts));
            }
        });
        Self { address, counts }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }
}

fn serve(stream: TcpStream, counts: &Mutex<Counts>) {
    let mut stream = BufReader::new(stream);
    let mut body = Vec::new();
    while let Some(length) = body_length(&mut stream) {
        body.resize(length, 0);
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        {
            let mut counts = counts.lock().unwrap();
            counts.requests += 1;
            counts.bytes += length as u64;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        if stream.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// Reads the head of a request, and returns the length of its body. None at the end of the connection.
fn body_length(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            return Some(length);
        }
    }
}
