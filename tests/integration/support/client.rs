//! A simple client: a blocking socket that reads lines, with a deadline for every operation.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{DEADLINE, net, schema, wait};

/// A connection to an agent.
pub(crate) struct Client {
    stream: TcpStream,
    /// Bytes that were received but not yet returned to the test.
    received: Vec<u8>,
}

/// How the agent closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The agent closed the connection normally (FIN).
    Eof,
    /// The agent reset the connection (RST).
    Reset,
}

impl Client {
    /// Connects and sends nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE);
        Self::on(stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}")))
    }

    /// Connects from the given source address, e.g. `127.0.0.2`.
    pub(crate) fn connect_from(source: &str, address: SocketAddr) -> Self {
        let source: SocketAddr =
            SocketAddr::new(source.parse().expect("the source address is invalid"), 0);
        let socket = Self::socket(address);
        socket
            .bind(&source.into())
            .expect("cannot bind to the source address");
        socket.connect_timeout(&address.into(), DEADLINE).unwrap();
        Self::on(socket.into())
    }

    /// Connects with a small receive buffer, so that the agent soon notices when this client does not read. The segment size is
    /// small, because otherwise the agent's send buffer could grow to megabytes.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Self::socket(address);
        socket.set_recv_buffer_size(2048).unwrap();
        socket.set_tcp_mss(536).unwrap();
        socket.connect_timeout(&address.into(), DEADLINE).unwrap();
        Self::on(socket.into())
    }

    fn socket(address: SocketAddr) -> Socket {
        let domain = Domain::for_address(address);
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap()
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let received = Vec::new();
        Self { stream, received }
    }

    /// The client's own address, which is the peer in the agent's log.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// The agent's address to which this client is connected.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    /// Sends these bytes unchanged.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.try_send(bytes);
        sent.unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes. Returns an error if the agent has closed the connection.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Closes the sending side only.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Resets the connection (RST).
    pub(crate) fn reset(self) {
        let now = Some(Duration::ZERO);
        SockRef::from(&self.stream).set_linger(now).unwrap();
    }

    /// The next line without its newline, or `None` at the end of the stream. Fails the test if the stream ends within a line.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.line_within(DEADLINE)
    }

    /// Does the same as [`Client::line`], but the line must arrive before this deadline.
    pub(crate) fn line_within(&mut self, deadline: Duration) -> Option<String> {
        let end = Instant::now() + deadline;
        let mut searched = 0;
        loop {
            if let Some(at) = self.received[searched..].iter().position(|&b| b == b'\n') {
                let rest = self.received.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Some(String::from_utf8(line).expect("the line is not UTF-8"));
            }
            searched = self.received.len();
            match self.receive(end) {
                Received::Bytes => {}
                Received::End(_) if self.received.is_empty() => return None,
                Received::End(_) => panic!("unfinished line: {}", self.received.escape_ascii()),
                Received::Nothing => panic!(
                    "no whole line within {deadline:?}, only {:?}",
                    self.received.escape_ascii().to_string()
                ),
            }
        }
    }

    /// The next snapshot, validated against the schema.
    pub(crate) fn snapshot(&mut self) -> Value {
        self.snapshot_within(DEADLINE)
    }

    /// Does the same as [`Client::snapshot`], but the snapshot must arrive before this deadline.
    pub(crate) fn snapshot_within(&mut self, deadline: Duration) -> Value {
        let line = self
            .line_within(deadline)
            .expect("no snapshot: the stream has ended");
        schema::snapshot(&line)
    }

    /// Reads and validates snapshots until `fits` returns true. Returns the snapshot that fits.
    pub(crate) fn snapshot_where(
        &mut self,
        what: &str,
        deadline: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + deadline;
        loop {
            let snapshot = self.snapshot_within(deadline);
            if fits(&snapshot) {
                return snapshot;
            }
            let late = Instant::now() >= end;
            assert!(!late, "waited {deadline:?} for {what}; last: {snapshot:#}");
        }
    }

    /// Reads to the end of the stream. Returns all bytes and how the stream ended.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Ending) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.receive(end) {
                Received::Bytes => {}
                Received::End(ending) => return (std::mem::take(&mut self.received), ending),
                Received::Nothing => panic!(
                    "the connection is still open after {DEADLINE:?}; received {:?}",
                    self.received.escape_ascii().to_string()
                ),
            }
        }
    }

    /// Waits for the end of the stream and stores the received bytes. `None` if the stream is still open after the deadline.
    pub(crate) fn ends_within(&mut self, deadline: Duration) -> Option<Ending> {
        let end = Instant::now() + deadline;
        loop {
            match self.receive(end) {
                Received::Bytes => {}
                Received::End(ending) => return Some(ending),
                Received::Nothing => return None,
            }
        }
    }

    /// Waits until the agent has read everything that this client sent.
    pub(crate) fn wait_until_read(&self) {
        let (here, there) = (self.local_address(), self.peer_address());
        wait::until("the agent to read what was sent", DEADLINE, || {
            let sent = net::unread(here, there).is_some();
            (sent && net::unread(there, here) == Some(0)).then_some(())
        });
    }

    /// Receives until at least `count` bytes are in the buffer.
    pub(crate) fn receive_bytes(&mut self, count: usize) {
        let end = Instant::now() + DEADLINE;
        while self.received.len() < count {
            let received = self.receive(end);
            assert!(matches!(received, Received::Bytes), "{received:?}");
        }
    }

    /// Reads once from the connection into the buffer.
    fn receive(&mut self, end: Instant) -> Received {
        let left = end.saturating_duration_since(Instant::now());
        // The standard library refuses a timeout of zero.
        let left = left.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Received::End(Ending::Eof),
            Ok(read) => {
                self.received.extend_from_slice(&chunk[..read]);
                Received::Bytes
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Received::Nothing,
                ErrorKind::ConnectionReset => Received::End(Ending::Reset),
                ErrorKind::Interrupted => Received::Bytes,
                _ => panic!("cannot receive: {error}"),
            },
        }
    }
}

#[derive(Debug)]
enum Received {
    Bytes,
    End(Ending),
    Nothing,
}
