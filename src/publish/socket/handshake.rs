//! From an accepted connection to a session: TLS, then the key.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::connection::{Connection, Socket};
use super::door::Door;
use super::hello::Beginning;
use super::listener::{Subscriptions, Visit};
use super::lobby::Voice;
use super::origin::Origin;
use super::session::{Client, ClientSession};
use crate::model::Options;
use crate::settings::{ApiKeys, Credentials, ServeSettings, Tls};

/// The most that a client may send before its line ends.
const LONGEST_LINE: usize = 4096;
/// The answer to a client that may not stay.
const UNAUTHORIZED: &[u8] = b"Unauthorized\n";
/// How long a refused client may take to read its answer, and how much more it may send: a
/// connection that is closed with bytes unread is reset, and the answer lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
/// How much of a line is encrypted ahead of what the kernel takes, in bytes: two records. More is memory for every client
/// that reads slowly, fewer are more calls for everybody.
const ENCRYPTED_AHEAD: usize = 32 * 1024;

/// A connection that has been accepted, and nothing else.
pub(super) struct Newcomer {
    pub(super) stream: std::net::TcpStream,
    pub(super) visit: Visit,
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    pub(super) door: Arc<Door>,
}

/// The name of a client's key, and what it asks for.
type Shown = (Arc<str>, Options);

/// What a client has shown, and what it asks for.
struct Greeting {
    connection: Connection,
    /// The name of its key.
    key: Arc<str>,
    options: Options,
}

/// Why a client may not stay.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("wrong key")]
    WrongKey,
    #[error("{0}")]
    Options(String),
    #[error("too many wrong keys")]
    Closed,
    #[error("too many clients")]
    Full,
    #[error("no key yet, and others wait")]
    Displaced,
    #[error("line over {LONGEST_LINE} bytes")]
    TooLong,
    #[error("no complete line")]
    Incomplete,
    #[error("closed before anything was sent")]
    ClosedEarly,
    #[error("no complete line in time")]
    Late,
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("TLS handshake not completed in time")]
    TlsLate,
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
}

impl Refusal {
    /// What the client is told, where there is one.
    fn answer(&self) -> Option<Vec<u8>> {
        match self {
            Self::WrongKey | Self::TooLong | Self::Incomplete | Self::Late => {
                Some(UNAUTHORIZED.to_vec())
            }
            // It may have closed its sending side only.
            Self::ClosedEarly => Some(UNAUTHORIZED.to_vec()),
            Self::Options(error) => {
                Some(format!("{}\n", serde_json::json!({ "error": error })).into_bytes())
            }
            Self::Closed
            | Self::Full
            | Self::Displaced
            | Self::Tls(_)
            | Self::TlsLate
            | Self::Lost(_) => None,
        }
    }
}

/// Settles whether a newcomer stays, and hands it to the thread of its session if so.
pub(super) async fn greet(
    newcomer: Newcomer,
    settings: &ServeSettings,
    subscriptions: Subscriptions,
    sessions: &ArbiterHandle,
    stop: CancellationToken,
) {
    let Newcomer {
        stream,
        visit,
        credentials,
        door,
    } = newcomer;
    let Visit {
        peer,
        origin,
        client,
        seat,
    } = visit;
    let doorkeeper = Doorkeeper {
        credentials: &credentials,
        door: &door,
        origin,
        patience: settings.auth_timeout,
    };
    let greeting = tokio::select! {
        biased;
        greeting = doorkeeper.let_in(stream, seat.voice()) => greeting,
        () = seat.needed() => Err(Refusal::Displaced),
        // Nobody was promised anything yet.
        () = stop.cancelled() => return,
    };
    let admitted = greeting.and_then(|greeting| {
        let permit = door.admit().ok_or(Refusal::Full)?;
        Ok((greeting, permit))
    });
    match admitted {
        Ok((greeting, permit)) => {
            drop(seat);
            info!(client, %peer, key = %greeting.key, "client connected");
            let client = Client {
                connection: greeting.connection,
                id: client,
                peer,
                options: greeting.options,
                write_timeout: settings.write_timeout,
                subscriptions,
                _permit: permit,
            };
            sessions.spawn(async { ClientSession::begin(client) });
        }
        Err(Refusal::ClosedEarly) => door.closed_early(peer),
        Err(refusal) => door.refused(peer, &refusal),
    }
}

/// What it takes to settle who stays.
struct Doorkeeper<'d> {
    credentials: &'d watch::Receiver<Arc<Credentials>>,
    door: &'d Door,
    origin: Origin,
    /// From the first byte to the end of the key's line.
    patience: Duration,
}

impl Doorkeeper<'_> {
    /// TLS, where it is on, and the key.
    async fn let_in(
        &self,
        stream: std::net::TcpStream,
        voice: Arc<Voice>,
    ) -> Result<Greeting, Refusal> {
        let mut socket = Socket::new(stream, voice);
        socket.attach()?;
        let began = tokio::time::Instant::now();
        let tls = self.credentials.borrow().tls.clone();
        // A connection that says nothing costs no more than this.
        let heard = timeout(self.patience, socket.heard(tls.is_some())).await;
        let patience = self.patience.saturating_sub(began.elapsed());
        match heard {
            Ok(Ok(Beginning::End)) if tls.is_some() => return Err(Refusal::ClosedEarly),
            Err(_) if tls.is_some() => return Err(Refusal::TlsLate),
            Ok(Err(error)) => return Err(Refusal::Lost(error)),
            _ => {}
        }
        let greeting = match tls {
            None => Box::pin(self.plain(socket, patience)).await,
            Some(tls) => {
                let handshake = Box::pin(self.tls(&tls, socket, patience));
                let in_turn = self.door.in_turn(handshake).await;
                in_turn.unwrap_or(Err(Refusal::Displaced))
            }
        };
        let (mut connection, (key, options)) = greeting?;
        connection.detach()?;
        Ok(Greeting {
            connection,
            key,
            options,
        })
    }

    async fn plain(
        &self,
        mut socket: Socket,
        patience: Duration,
    ) -> Result<(Connection, Shown), Refusal> {
        let shown = self.authenticate(&mut socket, patience).await?;
        Ok((Connection::Plain(socket), shown))
    }

    async fn tls(
        &self,
        tls: &Tls,
        socket: Socket,
        patience: Duration,
    ) -> Result<(Connection, Shown), Refusal> {
        // Its answer to the agent's part can no longer come, so that is not worth a signature: it may have waited for long.
        if socket.is_closed() {
            return Err(Refusal::Tls(io::ErrorKind::UnexpectedEof.into()));
        }
        let started = tokio::time::Instant::now();
        let handshake = TlsAcceptor::from(Arc::clone(&tls.server))
            .accept_with(socket, |tls| tls.set_buffer_limit(Some(ENCRYPTED_AHEAD)));
        let mut stream = match timeout(patience, handshake).await {
            Ok(stream) => stream.map_err(Refusal::Tls)?,
            Err(_) => return Err(Refusal::TlsLate),
        };
        let left = patience.saturating_sub(started.elapsed());
        let shown = self.authenticate(&mut stream, left).await?;
        Ok((Connection::Tls(Box::new(stream)), shown))
    }

    /// Reads the key and what the client asks for; yields the key's name. A client that does not send a right key in time
    /// gets the answer and time to read it.
    async fn authenticate<S>(&self, stream: &mut S, within: Duration) -> Result<Shown, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let verdict = match timeout(within, read_line(stream)).await {
            // It may have been open before so many came.
            Ok(Ok(_)) if self.door.is_closed(self.origin) => Err(Refusal::Closed),
            Ok(Ok(line)) => settle(&self.credentials.borrow().keys, &line),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Late),
        };
        // Before the answer, for which a guesser need not wait.
        match &verdict {
            Ok(_) | Err(Refusal::Options(_)) => self.door.right_key(self.origin),
            Err(Refusal::WrongKey | Refusal::TooLong) => self.door.wrong_key(self.origin),
            Err(_) => {}
        }
        if let Err(refusal) = &verdict
            && let Some(answer) = refusal.answer()
        {
            let _ = timeout(LINGER, dismiss(stream, &answer)).await;
        }
        verdict
    }
}

/// Whether a client's line is one of the keys, which, and what the client asks for after it.
fn settle(keys: &ApiKeys, line: &[u8]) -> Result<Shown, Refusal> {
    // A key has no white space in it.
    let (candidate, options) = match line.iter().position(|byte| *byte == b' ') {
        Some(space) => (&line[..space], Some(&line[space + 1..])),
        None => (line, None),
    };
    let key = keys.find(candidate).ok_or(Refusal::WrongKey)?;
    let parsed = options.map(Options::parse).transpose();
    let options = parsed.map_err(Refusal::Options)?.unwrap_or_default();
    Ok((Arc::clone(key.name()), options))
}

/// The client's first line without its end, wiped when it is dropped; what follows it is left out, as all that a client
/// sends later is.
async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut line = Zeroizing::new(Vec::with_capacity(128));
    let mut searched = 0;
    loop {
        if line.len() > LONGEST_LINE + 1 {
            return Err(Refusal::TooLong);
        }
        if line.len() == line.capacity() {
            // By itself it would grow without wiping what it leaves.
            let larger = (2 * line.len()).min(LONGEST_LINE + 2);
            let mut larger = Zeroizing::new(Vec::with_capacity(larger));
            larger.extend_from_slice(&line);
            line = larger;
        }
        let nothing_yet = line.is_empty();
        match stream.read_buf(&mut *line).await {
            Ok(0) if nothing_yet => return Err(Refusal::ClosedEarly),
            Ok(0) => return Err(Refusal::Incomplete),
            Ok(_) => {}
            Err(error) if nothing_yet && is_end(&error) => return Err(Refusal::ClosedEarly),
            Err(error) => return Err(error.into()),
        }
        if let Some(end) = line[searched..].iter().position(|byte| *byte == b'\n') {
            line.truncate(searched + end);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return if line.len() > LONGEST_LINE {
                Err(Refusal::TooLong)
            } else {
                Ok(line)
            };
        }
        searched = line.len();
    }
}

/// Whether the peer has closed the connection: in good order, by a reset, or without the end of TLS.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    )
}

/// Says that the client may not stay, and lets it read that.
async fn dismiss<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    answer: &[u8],
) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut left = LINGER_BYTES;
    let mut scratch = [0; 1024];
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    debug!("refused client has its answer");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LINE, Refusal, read_line, settle};
    use crate::settings::{ApiKey, ApiKeys};

    async fn line(sent: &[&[u8]]) -> Result<Vec<u8>, Refusal> {
        let mut stream = tokio_test_stream(sent);
        read_line(&mut stream).await.map(|line| line.to_vec())
    }

    /// A stream that yields the pieces one by one, then ends.
    fn tokio_test_stream(pieces: &[&[u8]]) -> impl tokio::io::AsyncRead + Unpin {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)))
            .collect();
        tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces))
    }

    #[actix::test]
    async fn a_line_may_come_in_any_pieces() {
        assert_eq!(line(&[b"key\n"]).await.unwrap(), b"key");
        assert_eq!(line(&[b"key\r\nmore\n"]).await.unwrap(), b"key");
        assert_eq!(
            line(&[b"k", b"e", b"y", b"\r", b"\n"]).await.unwrap(),
            b"key"
        );
        assert_eq!(line(&[b"\n"]).await.unwrap(), b"");
    }

    #[actix::test]
    async fn a_line_ends_within_4_kib_or_not_at_all() {
        let longest = vec![b'k'; LONGEST_LINE];
        let ended = [longest.as_slice(), b"\r\n"].concat();
        assert_eq!(line(&[&ended]).await.unwrap(), longest);
        let over = [longest.as_slice(), b"k\n"].concat();
        assert!(matches!(line(&[&over]).await, Err(Refusal::TooLong)));
        let endless = vec![b'k'; 5 * 1024];
        assert!(matches!(
            line(&[&endless, b"k"]).await,
            Err(Refusal::TooLong)
        ));
        assert!(matches!(line(&[b"key"]).await, Err(Refusal::Incomplete)));
        assert!(matches!(line(&[]).await, Err(Refusal::ClosedEarly)));
    }

    #[test]
    fn fuzz_the_first_line() {
        let keys = ApiKey::new("", "0123456789abcdef").unwrap();
        let keys = ApiKeys::of(vec![keys]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let seeds: [&[u8]; 4] = [
            b"0123456789abcdef\n",
            b"0123456789abcdef\r\n",
            b"0123456789abcdef {\"every\":2,\"sections\":[\"system\"]}\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        crate::fuzzing::run("first_line", &seeds, |bytes| {
            // In two pieces.
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            let pieces = [head, tail];
            let line = runtime.block_on(read_line(&mut tokio_test_stream(&pieces)));
            if let Ok(line) = line
                && settle(&keys, &line).is_ok()
            {
                assert!(bytes.starts_with(b"0123456789abcdef"));
            }
        });
    }
}
