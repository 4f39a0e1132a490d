//! A minimal browser: requests, and a stream of events that is read and thrown away.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flate2::write::GzDecoder;

const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer with the status 200.
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Gets a path. With `gzip`, the answer can be compressed.
pub(crate) fn get(address: SocketAddr, path: &str, gzip: bool) -> Answer {
    let mut bytes = Vec::new();
    ask(address, path, gzip).read_to_end(&mut bytes).unwrap();
    let end = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("the answer has no head");
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).unwrap();
    assert_ok(path, &head);
    Answer { head, body }
}

/// Sends a request with HTTP/1.0, so that the body has no chunks.
fn ask(address: SocketAddr, path: &str, gzip: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("cannot connect to the server");
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let accepted = if gzip {
        "Accept-Encoding: gzip\r\n"
    } else {
        ""
    };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{accepted}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn assert_ok(path: &str, head: &str) {
    let status = head.split_whitespace().nth(1);
    assert_eq!(status, Some("200"), "{path}: {head}");
}

/// An event stream that a thread reads. Closed on drop.
pub(crate) struct EventStream {
    stream: TcpStream,
    bytes: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl EventStream {
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let stream = ask(address, path, true);
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        lines.read_line(&mut head).unwrap();
        assert_ok(path, &head);
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = lines.read(&mut buffer) {
                count.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Self {
            stream,
            bytes,
            reader: Some(reader),
        }
    }

    /// The number of bytes that have been read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let reader = self.reader.take().map(JoinHandle::join);
        assert!(reader.is_none_or(|ended| ended.is_ok()));
    }
}

/// Reads a compressed stream until each of its events with these names has arrived. Returns the number of bytes.
pub(crate) fn first_events(address: SocketAddr, path: &str, names: &[&str]) -> usize {
    let mut stream = BufReader::new(ask(address, path, true));
    let mut head = String::new();
    while stream.read_line(&mut head).unwrap() > 2 {}
    assert_ok(path, &head);
    let mut events = GzDecoder::new(Vec::new());
    let mut bytes = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).expect("the event does not come");
        assert_ne!(length, 0, "{path}: the stream has ended");
        bytes += length;
        events.write_all(&buffer[..length]).unwrap();
        events.flush().unwrap();
        let text = String::from_utf8_lossy(events.get_ref());
        let has = |name: &&str| text.contains(&format!("event: {name}\n"));
        if text.ends_with("\n\n") && names.iter().all(has) {
            return bytes;
        }
    }
}
