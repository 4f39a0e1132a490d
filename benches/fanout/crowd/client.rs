//! A client of the load generator. It reads snapshots and notes when each snapshot arrives.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use std::{cell::RefCell, future, io};
use std::{pin::Pin, task::Poll, task::ready};

use serde::Deserialize;
use system_agent::model::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::frames::{self, Frames};
use super::notes::{Notes, nanos};
use super::{Role, Spec};

/// Number of clients per source address. An address has far more ports than this.
const PER_ADDRESS: usize = 1000;
/// Size of a thread's read buffer in bytes. All clients of the thread share it.
const BUFFER: usize = 256 * 1024;
/// Receive buffer of a sleeper in bytes. A sleeper is a client that stops reading for a while. The buffer is small, so that the
/// sleeper soon lags.
const SLEEPER_BUFFER: u32 = 16 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// The data that all clients of a crowd share.
pub(super) struct Common {
    pub(super) spec: Spec,
    pub(super) tls: Option<TlsConnector>,
    /// Whether the sleepers sleep now.
    pub(super) asleep: watch::Sender<bool>,
    pub(super) notes: Mutex<Notes>,
}

/// Connects and reads until the connection ends.
pub(super) async fn run(index: usize, common: Arc<Common>) {
    let ended = connect(index, &common).await;
    let mut notes = common.notes.lock().unwrap();
    notes.lost += 1;
    notes.why_lost = Some(ended.map_or_else(
        |error| error.to_string(),
        |()| "closed by the server".to_owned(),
    ));
}

async fn connect(index: usize, common: &Common) -> io::Result<()> {
    let role = common.spec.role(index);
    let host = u8::try_from(index / PER_ADDRESS % 250).unwrap_or_default();
    let socket = TcpSocket::new_v4()?;
    if role == Role::Sleeper {
        socket.set_recv_buffer_size(SLEEPER_BUFFER)?;
    }
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 1, host + 1), 0)))?;
    let stream = socket.connect(common.spec.address).await?;
    let mut client = Client::new(role, common);
    match &common.tls {
        None => client.converse(stream).await,
        Some(tls) => {
            let name = ServerName::from(common.spec.address.ip());
            client.converse(tls.connect(name, stream).await?).await
        }
    }
}

struct Client<'c> {
    role: Role,
    common: &'c Common,
    frames: Frames,
    /// The bytes of the current snapshot, if the client needs the whole snapshot.
    whole: Option<Vec<u8>>,
    /// Number of bytes of the current snapshot that have arrived.
    length: u64,
    /// The sequence number of the first snapshot.
    first: Option<u64>,
    /// Number of snapshots that have arrived.
    delivered: u64,
    /// Number of skipped snapshots, as the newest snapshot states it.
    skipped: u64,
}

impl<'c> Client<'c> {
    fn new(role: Role, common: &'c Common) -> Self {
        let zstd = common.spec.zstd;
        Self {
            role,
            common,
            frames: if zstd {
                Frames::of_zstd()
            } else {
                Frames::of_lines()
            },
            // The number of a compressed snapshot is not always readable without decompression. The client decompresses only the
            // first snapshot, and counts the following ones.
            whole: (zstd || role == Role::Witness).then(Vec::new),
            length: 0,
            first: None,
            delivered: 0,
            skipped: 0,
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut stream: S,
    ) -> io::Result<()> {
        stream.write_all(self.common.spec.login.as_bytes()).await?;
        stream.flush().await?;
        let mut asleep = self.common.asleep.subscribe();
        loop {
            if self.role == Role::Sleeper {
                // The wait fails only when the process ends. At that time no client reads any more.
                let _ = asleep.wait_for(|asleep| !asleep).await;
            }
            let more = future::poll_fn(|cx| {
                BUFFERS.with_borrow_mut(|buffer| {
                    let mut read = ReadBuf::new(buffer);
                    ready!(Pin::new(&mut stream).poll_read(cx, &mut read))?;
                    self.receive(read.filled());
                    Poll::Ready(io::Result::Ok(!read.filled().is_empty()))
                })
            });
            if !more.await? {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        let arrived = SystemTime::now();
        while !bytes.is_empty() {
            let (taken, ended) = self.frames.take(bytes);
            self.length += taken as u64;
            if let Some(whole) = &mut self.whole {
                whole.extend_from_slice(&bytes[..taken]);
            }
            if ended {
                self.note(nanos(arrived));
            }
            bytes = &bytes[taken..];
        }
    }

    /// Notes the snapshot that has just ended.
    fn note(&mut self, arrived: u64) {
        let tail = self.frames.tail();
        let skipped = frames::skipped(tail)
            .expect("the snapshot does not end with the number of skipped snapshots");
        let shown = frames::seq(tail);
        let whole = self.whole.take().map(|whole| self.read(&whole));
        let seq = shown
            .or_else(|| Some(self.first? + self.delivered + skipped))
            .or_else(|| whole.as_ref().map(|whole| whole.agent.seq))
            .expect("the first snapshot is not stored as a whole");

        let mut notes = self.common.notes.lock().unwrap();
        if self.role == Role::Witness {
            self.whole = Some(Vec::new());
            let whole = whole.expect("the witness has not stored the whole snapshot");
            notes.ticks.insert(seq, nanos(whole.timestamp.0));
        }
        notes.served += usize::from(self.first.is_none());
        let missed = skipped - self.skipped;
        if self.role == Role::Sleeper {
            notes.skipped_by_sleepers += missed;
        } else {
            notes.arrivals.entry(seq).or_default().push(arrived);
            notes.skipped += missed;
            notes.bytes += self.length;
        }
        self.length = 0;
        self.first.get_or_insert(seq);
        self.delivered += 1;
        self.skipped = skipped;
    }

    fn read(&self, snapshot: &[u8]) -> Whole {
        let read = if self.common.spec.zstd {
            serde_json::from_slice(
                &zstd::decode_all(snapshot).expect("the snapshot is not a zstd frame"),
            )
        } else {
            serde_json::from_slice(snapshot)
        };
        read.expect("expected a snapshot")
    }
}

/// The fields that are read from a whole snapshot.
#[derive(Deserialize)]
struct Whole {
    timestamp: Timestamp,
    agent: Agent,
}

#[derive(Deserialize)]
struct Agent {
    seq: u64,
}
