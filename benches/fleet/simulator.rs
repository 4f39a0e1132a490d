//! Simulated hosts: they publish copies of a real agent's snapshot to NATS under other names. The benchmark runs hundreds of
//! hosts in one process. Tests run a few hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, HeaderMap};
use tokio::time::{Instant, sleep_until};
use zstd::bulk::Compressor;

/// A snapshot is late if the host publishes it more than this time after it was due.
const LATE: Duration = Duration::from_millis(500);
/// The agent's compression level.
const LEVEL: i32 = 1;
/// Size of the read buffer in bytes. It is small, because the server sends little to a host.
const READ_BUFFER: u16 = 1024;

/// The JSON line of a snapshot, split into pieces.
pub(crate) struct Template(Vec<Piece>);

enum Piece {
    /// Text that is the same in all snapshots.
    Text(String),
    /// The time at which the snapshot was composed and its sources were read.
    Time,
    Name,
    Seq,
}

impl Template {
    /// Makes a template from an agent's JSON line, with or without its line feed.
    pub(crate) fn new(line: &str) -> Self {
        let line = line.trim_end();
        // The section `agent` is the final section. `seq` is a field of that section, so the search for `seq` begins there.
        let agent = line
            .rfind("\"agent\":{")
            .expect("the snapshot has no section agent");
        let mut variable_parts = Vec::new();
        let mut add_part = |from: usize, key: &str, end: char, piece: fn() -> Piece| {
            let begin = line[from..].find(key)? + from + key.len();
            let length = line[begin..].find(end)?;
            variable_parts.push((begin, begin + length, piece()));
            Some(begin)
        };
        add_part(0, "{\"timestamp\":\"", '"', || Piece::Time).expect("the snapshot has no time");
        add_part(0, "\"host\":{\"hostname\":\"", '"', || Piece::Name)
            .expect("the snapshot has no name of the host");
        add_part(agent, "\"seq\":", ',', || Piece::Seq).expect("the snapshot has no number");
        let mut from = 0;
        while let Some(next) = add_part(from, "\"collected_at\":\"", '"', || Piece::Time) {
            from = next;
        }
        variable_parts.sort_by_key(|(begin, ..)| *begin);
        let mut pieces = Vec::new();
        let mut done = 0;
        for (begin, end, piece) in variable_parts {
            pieces.extend([Piece::Text(line[done..begin].to_owned()), piece]);
            done = end;
        }
        pieces.push(Piece::Text(format!("{}\n", &line[done..])));
        Self(pieces)
    }

    /// The JSON line of one host at one time.
    pub(crate) fn line(&self, name: &str, seq: u64, at: SystemTime) -> String {
        let at = humantime::format_rfc3339_millis(at).to_string();
        let seq = seq.to_string();
        let said = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Time => &at,
            Piece::Name => name,
            Piece::Seq => &seq,
        });
        said.collect()
    }
}

/// The totals of the hosts.
#[derive(Default)]
pub(crate) struct Counts {
    /// The number of connections that were made.
    pub(crate) connected: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) late: AtomicU64,
}

/// A simulated host.
pub(crate) struct Host {
    pub(crate) server: String,
    /// A name of letters, digits and `-`, so that it is also a valid token of the subject.
    pub(crate) name: String,
    pub(crate) template: Arc<Template>,
    pub(crate) interval: Duration,
    /// The time from the host's start to its first snapshot.
    pub(crate) after: Duration,
    pub(crate) zstd: bool,
}

impl Host {
    /// Publishes over its own connection until the task is aborted. Publishes nothing while the connection is down.
    pub(crate) async fn publish(self, counts: Arc<Counts>) {
        let client = self.connect().await;
        counts.connected.fetch_add(1, Ordering::Relaxed);
        let subject = format!("agents.{}.snapshot", self.name);
        let mut headers = HeaderMap::new();
        headers.insert("Content-Encoding", "zstd");
        let mut compressor = Compressor::new(LEVEL).unwrap();
        let mut due = Instant::now() + self.after;
        for seq in 1.. {
            sleep_until(due).await;
            let line = self.template.line(&self.name, seq, SystemTime::now());
            if client.connection_state() == State::Connected {
                let subject = subject.clone();
                let sent = match self.zstd {
                    true => {
                        let frame = compressor.compress(line.as_bytes()).unwrap();
                        counts
                            .bytes
                            .fetch_add(frame.len() as u64, Ordering::Relaxed);
                        let headers = headers.clone();
                        client
                            .publish_with_headers(subject, headers, frame.into())
                            .await
                    }
                    false => {
                        counts.bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
                        client.publish(subject, line.into()).await
                    }
                };
                sent.expect("the client is closed");
                counts.sent.fetch_add(1, Ordering::Relaxed);
            }
            if due.elapsed() > LATE {
                counts.late.fetch_add(1, Ordering::Relaxed);
            }
            // A late snapshot does not shift the schedule. The next snapshot is due at its own time.
            due += self.interval;
        }
    }

    async fn connect(&self) -> Client {
        let options = ConnectOptions::new()
            .name(&self.name)
            .read_buffer_capacity(READ_BUFFER)
            .client_capacity(4)
            .retry_on_initial_connect();
        let client = options
            .connect(&self.server)
            .await
            .expect("the URL of the server is invalid");
        while client.connection_state() != State::Connected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client
    }
}
