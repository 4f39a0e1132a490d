//! Authenticates a pending connection: does the TLS handshake, and reads the key and the options. After that, starts the client's
//! session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::connection::{Connection, Socket, finish};
use super::range;
use super::session::{Client, ClientSession, Subscriptions};
use crate::messages::ClientId;
use crate::model::Options;
use crate::publish::admission::PendingConnection;
use crate::publish::admission::first_input::FirstInput;
use crate::settings::{ApiKeys, Credentials, ServeSettings, Tls};

/// Limit on the length of the first line that a client sends, in bytes. Only a line with a right key can be longer.
const MAX_LINE: usize = 4096;
/// Limit on the length of a first line with a right key, in bytes. A cursor can be long.
const MAX_LINE_WITH_KEY: usize = 96 * 1024;
/// The answer to a peer that has not sent a right key.
const UNAUTHORIZED: &[u8] = b"Unauthorized\n";
/// Time that a refused client has to read its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit on encrypted bytes that the kernel has not accepted yet. The limit is the size of two TLS records. A higher limit needs
/// more memory for each slow client. A lower limit needs more system calls for each client.
const ENCRYPTED_AHEAD: usize = 32 * 1024;

/// The data that is needed to authenticate one pending connection.
pub(super) struct Handshake {
    pub(super) client: ClientId,
    pub(super) stream: std::net::TcpStream,
    pub(super) pending: PendingConnection,
    pub(super) settings: Arc<ServeSettings>,
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    pub(super) subscriptions: Subscriptions,
    /// The thread on which the session will run.
    pub(super) serving: ArbiterHandle,
}

/// The name of a client's key, and the client's options.
type Login = (Arc<str>, Options);

/// The reason why a client is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("wrong key")]
    WrongKey,
    #[error("{0}")]
    Options(String),
    #[error("too many wrong keys")]
    Blocked,
    #[error("too many clients")]
    Full,
    #[error("no key yet, and other connections wait")]
    Evicted,
    #[error("first line is too long")]
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
    /// Returns the answer to the client. Returns None if the connection is closed without an answer.
    fn answer(&self) -> Option<Vec<u8>> {
        match self {
            Self::WrongKey | Self::TooLong | Self::Incomplete | Self::Late => {
                Some(UNAUTHORIZED.to_vec())
            }
            // If the peer has closed only its sending side, the peer can still read an answer.
            Self::ClosedEarly => Some(UNAUTHORIZED.to_vec()),
            Self::Options(error) => {
                Some(format!("{}\n", serde_json::json!({ "error": error })).into_bytes())
            }
            Self::Blocked
            | Self::Full
            | Self::Evicted
            | Self::Tls(_)
            | Self::TlsLate
            | Self::Lost(_) => None,
        }
    }
}

impl Handshake {
    /// Authenticates the client, and starts its session on the session's thread. Stops when `stop` is cancelled.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self {
            client,
            stream,
            mut pending,
            settings,
            credentials,
            subscriptions,
            serving,
        } = self;
        pending.start();
        let authenticator = Authenticator {
            credentials: &credentials,
            pending: &pending,
            timeout: settings.auth_timeout,
        };
        let authenticated = tokio::select! {
            biased;
            authenticated = authenticator.run(stream) => authenticated,
            () = pending.state.evicted() => Err(Refusal::Evicted),
            // A pending connection gets no answer when the agent stops.
            () = stop.cancelled() => return,
        };
        let admitted = authenticated.and_then(|authenticated| {
            let permit = pending.admission.client_permit().ok_or(Refusal::Full)?;
            Ok((authenticated, permit))
        });
        let peer = pending.peer;
        match admitted {
            Ok(((connection, (key, options)), permit)) => {
                drop(pending);
                info!(client, %peer, %key, "client connected");
                let client = Client {
                    connection,
                    id: client,
                    peer,
                    options,
                    write_timeout: settings.write_timeout,
                    subscriptions,
                    _permit: permit,
                };
                match client.options.range.clone() {
                    Some(range) => serving.spawn(range::answer(client, range)),
                    None => serving.spawn(async { ClientSession::begin(client) }),
                };
            }
            Err(Refusal::ClosedEarly) => pending.admission.closed_early(peer),
            Err(refusal) => pending.admission.refused(peer, &refusal),
        }
    }
}

/// Authenticates one connection.
struct Authenticator<'a> {
    credentials: &'a watch::Receiver<Arc<Credentials>>,
    pending: &'a PendingConnection,
    /// Time from the start of the authentication to the end of the first line. Waiting for other TLS handshakes does not count.
    timeout: Duration,
}

impl Authenticator<'_> {
    /// Does the TLS handshake, if TLS is on, and reads the key and the options.
    async fn run(&self, stream: std::net::TcpStream) -> Result<(Connection, Login), Refusal> {
        let tls = self.credentials.borrow().tls.clone();
        let mut socket = Socket::new(stream, Arc::clone(&self.pending.state), tls.is_some());
        socket.attach()?;
        let deadline = Instant::now() + self.timeout;
        let input = timeout_at(deadline, socket.first_input(tls.is_some())).await;
        let remaining = deadline.saturating_duration_since(Instant::now());
        match input {
            Ok(Ok(FirstInput::End)) if tls.is_some() => return Err(Refusal::ClosedEarly),
            Err(_) if tls.is_some() => return Err(Refusal::TlsLate),
            Ok(Err(error)) => return Err(Refusal::Lost(error)),
            _ => {}
        }
        // The futures are boxed, so that a connection without input needs no memory for the following steps.
        let (mut connection, login) = match tls {
            None => Box::pin(self.plain(socket, remaining)).await?,
            Some(tls) => {
                let handshake = Box::pin(self.tls(&tls, socket, remaining));
                let handshakes = self.pending.admission.tls_handshakes();
                let done = handshakes.run(handshake).await;
                done.unwrap_or(Err(Refusal::Evicted))?
            }
        };
        connection.detach()?;
        Ok((connection, login))
    }

    async fn plain(
        &self,
        mut socket: Socket,
        remaining: Duration,
    ) -> Result<(Connection, Login), Refusal> {
        let deadline = Instant::now() + remaining;
        let login = self.login(&mut socket, deadline).await?;
        Ok((Connection::Plain(socket), login))
    }

    async fn tls(
        &self,
        tls: &Tls,
        socket: Socket,
        remaining: Duration,
    ) -> Result<(Connection, Login), Refusal> {
        // The peer can close the connection while the handshake waits for a permit. Computing a signature would then waste CPU
        // time.
        if socket.is_closed() {
            return Err(Refusal::Tls(io::ErrorKind::UnexpectedEof.into()));
        }
        let deadline = Instant::now() + remaining;
        let handshake = TlsAcceptor::from(Arc::clone(&tls.server))
            .accept_with(socket, |tls| tls.set_buffer_limit(Some(ENCRYPTED_AHEAD)));
        let mut stream = match timeout_at(deadline, handshake).await {
            Ok(stream) => stream.map_err(Refusal::Tls)?,
            Err(_) => return Err(Refusal::TlsLate),
        };
        let login = self.login(&mut stream, deadline).await?;
        Ok((Connection::Tls(Box::new(stream)), login))
    }

    /// Reads the key and the options until the deadline. If the client is refused, sends the answer to the client.
    async fn login<S>(&self, stream: &mut S, deadline: Instant) -> Result<Login, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let PendingConnection {
            admission, prefix, ..
        } = self.pending;
        let credentials = self.credentials;
        let has_key = |line: &[u8]| credentials.borrow().keys.find(key_in(line)).is_some();
        let login = match timeout_at(deadline, read_line(stream, has_key)).await {
            // The prefix can be blocked after the connection was accepted.
            Ok(Ok(_)) if admission.is_blocked(*prefix) => Err(Refusal::Blocked),
            Ok(Ok(line)) => verify(&self.credentials.borrow().keys, &line),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Late),
        };
        // Count the key before sending the answer, because an attacker can try the next key without reading the answer.
        match &login {
            Ok(_) | Err(Refusal::Options(_)) => admission.right_key(*prefix),
            Err(Refusal::WrongKey | Refusal::TooLong) => admission.wrong_key(*prefix),
            Err(_) => {}
        }
        if let Err(refusal) = &login
            && let Some(answer) = refusal.answer()
        {
            let _ = timeout(ANSWER_TIMEOUT, send_answer(stream, &answer)).await;
        }
        login
    }
}

/// Finds the key at the start of a client's first line, and parses the options after the key.
fn verify(keys: &ApiKeys, line: &[u8]) -> Result<Login, Refusal> {
    let candidate = key_in(line);
    let options = line.get(candidate.len() + 1..);
    let key = keys.find(candidate).ok_or(Refusal::WrongKey)?;
    let parsed = options.map(Options::parse).transpose();
    let options = parsed.map_err(Refusal::Options)?.unwrap_or_default();
    Ok((Arc::clone(key.name()), options))
}

/// Returns the part of a first line that is the key. A key has no white space, so the first space ends the key.
fn key_in(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b' ');
    &line[..end.unwrap_or(line.len())]
}

/// Reads the client's first line, and returns the line without its line end. The line contains the key, so the memory of the line
/// is overwritten when the line is dropped. Bytes after the first line are ignored.
///
/// `has_key` tells whether a line begins with a right key. Only such a line can be longer than [`MAX_LINE`].
async fn read_line<S: AsyncRead + Unpin>(
    stream: &mut S,
    has_key: impl Fn(&[u8]) -> bool,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut line = Zeroizing::new(Vec::with_capacity(128));
    let mut searched = 0;
    let mut limit = MAX_LINE;
    loop {
        if line.len() > limit + 1 && limit == MAX_LINE && has_key(&line) {
            limit = MAX_LINE_WITH_KEY;
        }
        if line.len() > limit + 1 {
            return Err(Refusal::TooLong);
        }
        if line.len() == line.capacity() {
            // If `Vec` grew by itself, it would free the old memory without overwriting it.
            let larger = (2 * line.len()).min(limit + 2);
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
            return if line.len() > limit && !(limit == MAX_LINE && has_key(&line)) {
                Err(Refusal::TooLong)
            } else {
                Ok(line)
            };
        }
        searched = line.len();
    }
}

/// Whether the error means that the peer has closed the connection by a reset, or without closing TLS first.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    )
}

/// Sends the answer to a refused client, and waits until the client closes its side.
async fn send_answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    answer: &[u8],
) -> io::Result<()> {
    stream.write_all(answer).await?;
    finish(stream).await?;
    debug!("answer to the refused client is sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MAX_LINE, MAX_LINE_WITH_KEY, Refusal, read_line, verify};
    use crate::settings::{ApiKey, ApiKeys};

    async fn line(sent: &[&[u8]]) -> Result<Vec<u8>, Refusal> {
        let mut stream = tokio_test_stream(sent);
        let line = read_line(&mut stream, |line| line.starts_with(b"right ")).await;
        line.map(|line| line.to_vec())
    }

    /// Returns a stream that returns one piece for each read, and then ends.
    fn tokio_test_stream(pieces: &[&[u8]]) -> impl tokio::io::AsyncRead + Unpin {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)))
            .collect();
        tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces))
    }

    #[actix::test]
    async fn the_first_line_can_arrive_in_pieces() {
        assert_eq!(line(&[b"key\n"]).await.unwrap(), b"key");
        assert_eq!(line(&[b"key\r\nmore\n"]).await.unwrap(), b"key");
        assert_eq!(
            line(&[b"k", b"e", b"y", b"\r", b"\n"]).await.unwrap(),
            b"key"
        );
        assert_eq!(line(&[b"\n"]).await.unwrap(), b"");
    }

    #[actix::test]
    async fn a_first_line_over_4_kib_or_without_an_end_is_refused() {
        let longest = vec![b'k'; MAX_LINE];
        let ended = [longest.as_slice(), b"\r\n"].concat();
        assert_eq!(line(&[&ended]).await.unwrap(), longest);
        let over = [longest.as_slice(), b"k\n"].concat();
        assert!(matches!(line(&[&over]).await, Err(Refusal::TooLong)));
        let with_key = [b"right ".as_slice(), &vec![b'x'; 5 * 1024], b"\n"].concat();
        assert_eq!(
            line(&[&with_key]).await.unwrap(),
            &with_key[..with_key.len() - 1]
        );
        let over = [b"right ".as_slice(), &vec![b'x'; MAX_LINE_WITH_KEY], b"\n"].concat();
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
            // The input arrives in two pieces.
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            let pieces = [head, tail];
            let line = runtime.block_on(read_line(&mut tokio_test_stream(&pieces), |_| false));
            if let Ok(line) = line
                && verify(&keys, &line).is_ok()
            {
                assert!(bytes.starts_with(b"0123456789abcdef"));
            }
        });
    }
}
