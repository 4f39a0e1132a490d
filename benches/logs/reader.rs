//! A client that reads log lines with numbers, and counts lost and repeated lines.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::common::agent::KEY;

/// How fast the client reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speed {
    Full,
    BytesPerSecond(u64),
}

/// What a client has received.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lines: u64,
    /// Lines that are missing and were not counted as dropped.
    pub(crate) lost: u64,
    /// Lines that came twice or out of order.
    pub(crate) repeated: u64,
    /// Lines that were counted as dropped.
    pub(crate) dropped: u64,
    /// The time from the timestamp of each line in a live line to its receipt.
    pub(crate) delays: Vec<(Instant, Duration)>,
    /// The number of the next line of each container.
    pub(crate) next: HashMap<String, u64>,
}

/// A client on its own thread.
pub(crate) struct Reader {
    stream: TcpStream,
    bytes: Arc<AtomicU64>,
    thread: JoinHandle<Tally>,
}

#[derive(Deserialize)]
struct Snapshot<'s> {
    #[serde(borrow)]
    logs: HashMap<&'s str, Vec<&'s str>>,
    #[serde(borrow)]
    logs_dropped: HashMap<&'s str, u64>,
    #[serde(default)]
    live: bool,
}

impl Reader {
    pub(crate) fn start(stream: TcpStream, speed: Speed) -> Self {
        Self::start_as(stream, speed, false)
    }

    /// Starts a client that gets log lines as they happen.
    pub(crate) fn start_live(stream: TcpStream) -> Self {
        Self::start_as(stream, Speed::Full, true)
    }

    fn start_as(mut stream: TcpStream, speed: Speed, is_live: bool) -> Self {
        writeln!(
            stream,
            "{KEY} {{\"logs\":\"new\",\"sections\":[\"logs\"],\"live\":{is_live}}}"
        )
        .unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        let (counted, own) = (Arc::clone(&bytes), stream.try_clone().unwrap());
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            let mut lines = BufReader::new(Paced::new(own, speed));
            let mut line = String::new();
            loop {
                line.clear();
                match lines.read_line(&mut line) {
                    Ok(1..) if line.ends_with('\n') => {}
                    _ => return tally,
                }
                let snapshot: Snapshot<'_> = serde_json::from_str(&line).expect("a snapshot");
                counted.fetch_add(tally.take(&snapshot), Ordering::Relaxed);
            }
        });
        Self {
            stream,
            bytes,
            thread,
        }
    }

    /// The number of bytes of all lines so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Closes the connection.
    pub(crate) fn finish(self) -> Tally {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.thread.join().expect("the client has panicked")
    }
}

impl Tally {
    /// Adds a snapshot. Returns the number of bytes of its lines. The first line of a container can have any number.
    fn take(&mut self, snapshot: &Snapshot<'_>) -> u64 {
        for (container, dropped) in &snapshot.logs_dropped {
            self.dropped += dropped;
            if let Some(next) = self.next.get_mut(*container) {
                *next += dropped;
            }
        }
        let (mut bytes, now) = (0, SystemTime::now());
        for (container, lines) in &snapshot.logs {
            for line in lines {
                bytes += line.len() as u64 + 1;
                let number: u64 = line
                    .split(' ')
                    .nth(1)
                    .and_then(|it| it.parse().ok())
                    .unwrap_or_else(|| panic!("a line of {container} without a number: {line}"));
                self.lines += 1;
                if snapshot.live {
                    let written = line.split(' ').next().unwrap_or_default();
                    let written = OffsetDateTime::parse(written, &Rfc3339).expect("a time");
                    let delay = now.duration_since(written.into());
                    self.delays
                        .push((Instant::now(), delay.unwrap_or_default()));
                }
                match self.next.get_mut(*container) {
                    Some(next) => {
                        self.lost += number.saturating_sub(*next);
                        self.repeated += u64::from(number < *next);
                        *next = number + 1;
                    }
                    None => {
                        self.next.insert((*container).to_owned(), number + 1);
                    }
                }
            }
        }
        bytes
    }
}

/// Connects with a small receive buffer, so that the agent soon notices that the client is slow.
pub(crate) fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket
        .connect(&address.into())
        .expect("the agent did not accept the connection");
    socket.into()
}

/// A connection that is read at a limited speed.
struct Paced {
    stream: TcpStream,
    speed: Speed,
    began: Instant,
    read: u64,
}

impl Paced {
    fn new(stream: TcpStream, speed: Speed) -> Self {
        Self {
            stream,
            speed,
            began: Instant::now(),
            read: 0,
        }
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Speed::BytesPerSecond(speed) = self.speed else {
            return self.stream.read(buffer);
        };
        let due = self.began + Duration::from_secs_f64(self.read as f64 / speed as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let limit = buffer.len().min(2048);
        let read = self.stream.read(&mut buffer[..limit])?;
        self.read += read as u64;
        Ok(read)
    }
}
