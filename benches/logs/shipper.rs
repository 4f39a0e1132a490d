//! A client that stores log lines together with its cursor, and continues from the cursor after each failure.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use socket2::SockRef;

use crate::common::agent::KEY;

/// The client reconnects after this time without a byte: several intervals of the agent, as docs/protocol.md recommends.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the client connects again.
const PAUSE: Duration = Duration::from_millis(300);
/// How soon the client notices that it must end.
const NOTICE: Duration = Duration::from_millis(10);

/// The client, on its own thread.
pub(crate) struct Shipper(Arc<Mutex<Stored>>);

/// What the client has stored.
#[derive(Default)]
pub(crate) struct Stored {
    /// The texts of the container's log lines.
    pub(crate) lines: Vec<Box<str>>,
    pub(crate) dropped: u64,
    /// The snapshots, as evidence if lines are wrong.
    pub(crate) notes: Vec<Note>,
    cursor: Option<String>,
    /// The number of starts of the client.
    starts: u64,
    has_ended: bool,
}

/// A note about one snapshot.
#[derive(Debug)]
#[allow(dead_code, reason = "only its Debug form is read")]
pub(crate) struct Note {
    /// The place of its first log line in all lines, and its number of lines.
    pub(crate) lines: (usize, usize),
    pub(crate) dropped: u64,
    pub(crate) run: String,
    pub(crate) seq: u64,
    /// The value of `agent.resume`.
    pub(crate) resume: Option<String>,
    /// The cursor that the snapshot had. The next connection can begin with it.
    pub(crate) cursor: String,
    pub(crate) at: Instant,
}

#[derive(Deserialize)]
struct Snapshot {
    logs: HashMap<String, Vec<String>>,
    logs_dropped: HashMap<String, u64>,
    agent: Agent,
}

#[derive(Deserialize)]
struct Agent {
    run: String,
    seq: u64,
    cursor: String,
    resume: Option<String>,
}

impl Shipper {
    /// Starts a client of the log of one container.
    pub(crate) fn start(address: SocketAddr, container: &str) -> Self {
        let stored = Arc::new(Mutex::new(Stored::default()));
        let (own, container) = (Arc::clone(&stored), container.to_owned());
        thread::spawn(move || {
            while !own.lock().unwrap().has_ended {
                follow(address, &container, &own);
                thread::sleep(PAUSE);
            }
        });
        Self(stored)
    }

    /// Kills the client, and starts it again. This happens when it has received the next snapshot and has not stored it. The client
    /// loses that snapshot and everything after it, and its connection is reset.
    pub(crate) fn kill(&self) {
        self.0.lock().unwrap().starts += 1;
    }

    /// Ends the client.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap().has_ended = true;
    }

    /// What the client has stored until now.
    pub(crate) fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap()
    }
}

/// Reads one connection until it ends, or until the client is killed.
fn follow(address: SocketAddr, container: &str, stored: &Mutex<Stored>) {
    let (start, resume) = {
        let stored = stored.lock().unwrap();
        let resume = stored.cursor.as_ref();
        let resume = resume.map(|cursor| format!("\"resume\":\"{cursor}\","));
        (stored.starts, resume.unwrap_or_default())
    };
    let Ok(mut stream) = TcpStream::connect(address) else {
        return;
    };
    // The end of the connection is a reset.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    stream.set_read_timeout(Some(NOTICE)).unwrap();
    let login = format!("{KEY} {{{resume}\"logs\":\"new\",\"sections\":[\"logs\",\"events\"]}}\n");
    if stream.write_all(login.as_bytes()).is_err() {
        return;
    }
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut newest = Instant::now();
    while newest.elapsed() < PATIENCE {
        let read = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Ok(0) | Err(_) => return,
            Ok(read) => {
                newest = Instant::now();
                read
            }
        };
        unread.extend_from_slice(&buffer[..read]);
        while let Some(end) = memchr::memchr(b'\n', &unread) {
            let snapshot: Vec<u8> = unread.drain(..=end).collect();
            let snapshot = serde_json::from_slice(&snapshot).expect("a snapshot");
            let mut stored = stored.lock().unwrap();
            if stored.starts != start {
                return;
            }
            stored.take(container, snapshot);
        }
        if stored.lock().unwrap().has_ended {
            return;
        }
    }
}

impl Stored {
    /// Stores the lines of a snapshot and its cursor, both or none.
    fn take(&mut self, container: &str, mut snapshot: Snapshot) {
        let lines = snapshot.logs.remove(container).unwrap_or_default();
        let dropped = snapshot.logs_dropped.remove(container).unwrap_or_default();
        let agent = snapshot.agent;
        self.notes.push(Note {
            lines: (self.lines.len(), lines.len()),
            dropped,
            run: agent.run,
            seq: agent.seq,
            resume: agent.resume,
            cursor: agent.cursor.clone(),
            at: Instant::now(),
        });
        // `TIMESTAMP text`
        let text = |line: &String| line.split_once(' ').map_or("", |(_, text)| text).into();
        self.lines.extend(lines.iter().map(text));
        self.dropped += dropped;
        self.cursor = Some(agent.cursor);
    }
}
