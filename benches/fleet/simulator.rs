//! Hosts that are none: a real agent's snapshots, published to NATS under other names. The benchmark has hundreds of them in a
//! process of their own; tests have a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, HeaderMap};
use tokio::time::{Instant, sleep_until};
use zstd::bulk::Compressor;

/// A snapshot that leaves this much after it was due is late.
const LATE: Duration = Duration::from_millis(500);
/// As an agent compresses.
const LEVEL: i32 = 1;
/// Room for what the server says: little.
const READ_BUFFER: u16 = 1024;

/// A snapshot's line, in pieces.
pub(crate) struct Template(Vec<Piece>);

enum Piece {
    /// What every host says at any time.
    Text(String),
    /// When the snapshot was composed, and its figures read.
    Time,
    Name,
    Seq,
}

impl Template {
    /// Of an agent's line, with or without its end.
    pub(crate) fn new(line: &str) -> Self {
        let line = line.trim_end();
        // The agent's part comes last: names before it are the host's own.
        let agent = line.rfind("\"agent\":{").expect("a snapshot's agent");
        let mut cuts = Vec::new();
        let mut cut = |from: usize, key: &str, end: char, piece: fn() -> Piece| {
            let begin = line[from..].find(key)? + from + key.len();
            let length = line[begin..].find(end)?;
            cuts.push((begin, begin + length, piece()));
            Some(begin)
        };
        cut(0, "{\"timestamp\":\"", '"', || Piece::Time).expect("a snapshot's time");
        cut(0, "\"host\":{\"hostname\":\"", '"', || Piece::Name).expect("a host's name");
        cut(agent, "\"seq\":", ',', || Piece::Seq).expect("a snapshot's number");
        let mut from = 0;
        while let Some(next) = cut(from, "\"collected_at\":\"", '"', || Piece::Time) {
            from = next;
        }
        cuts.sort_by_key(|(begin, ..)| *begin);
        let mut pieces = Vec::new();
        let mut done = 0;
        for (begin, end, piece) in cuts {
            pieces.extend([Piece::Text(line[done..begin].to_owned()), piece]);
            done = end;
        }
        pieces.push(Piece::Text(format!("{}\n", &line[done..])));
        Self(pieces)
    }

    /// The line of one host, at one time.
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

/// What hosts have done.
#[derive(Default)]
pub(crate) struct Counts {
    /// Connections there have been.
    pub(crate) connected: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) late: AtomicU64,
}

/// One host.
pub(crate) struct Host {
    pub(crate) server: String,
    /// A name of letters, digits and `-`: its subject's token, too.
    pub(crate) name: String,
    pub(crate) template: Arc<Template>,
    pub(crate) interval: Duration,
    /// When its first snapshot is due, after its start.
    pub(crate) after: Duration,
    pub(crate) zstd: bool,
}

impl Host {
    /// Publishes until the task is aborted: over a connection of its own, as an agent does, and nothing while there is none.
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
                sent.expect("a client that is not closed");
                counts.sent.fetch_add(1, Ordering::Relaxed);
            }
            if due.elapsed() > LATE {
                counts.late.fetch_add(1, Ordering::Relaxed);
            }
            // One that is late does not catch up: the next has its time.
            due += self.interval;
        }
    }

    async fn connect(&self) -> Client {
        let options = ConnectOptions::new()
            .name(&self.name)
            .read_buffer_capacity(READ_BUFFER)
            .client_capacity(4)
            .retry_on_initial_connect();
        let client = options.connect(&self.server).await.expect("a URL");
        while client.connection_state() != State::Connected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client
    }
}
