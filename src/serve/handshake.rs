//! From an accepted connection to a session: TLS, then the key.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::connection::{Connection, Socket};
use super::listener::Subscriptions;
use super::session::{Client, ClientSession};
use crate::messages::ClientId;
use crate::model::Options;
use crate::settings::{ApiKey, ServeSettings};

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
    pub(super) peer: SocketAddr,
    pub(super) client: ClientId,
    /// Given back when the connection is closed.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Why a client may not stay.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("wrong key")]
    WrongKey,
    #[error("{0}")]
    Options(String),
    #[error("line over {LONGEST_LINE} bytes")]
    TooLong,
    #[error("no complete line")]
    Incomplete,
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
            Self::Options(error) => {
                Some(format!("{}\n", serde_json::json!({ "error": error })).into_bytes())
            }
            Self::Tls(_) | Self::TlsLate | Self::Lost(_) => None,
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
        peer,
        client,
        permit,
    } = newcomer;
    let outcome = tokio::select! {
        outcome = let_in(stream, settings) => outcome,
        // Nobody was promised anything yet.
        () = stop.cancelled() => return,
    };
    match outcome {
        Ok((connection, options)) => {
            info!(client, %peer, "client connected");
            let client = Client {
                connection,
                id: client,
                peer,
                options,
                write_timeout: settings.write_timeout,
                subscriptions,
                _permit: permit,
            };
            sessions.spawn(async { ClientSession::begin(client) });
        }
        Err(refusal) => info!(%peer, reason = %refusal, "client refused"),
    }
}

/// TLS, where it is on, and the key.
async fn let_in(
    stream: std::net::TcpStream,
    settings: &ServeSettings,
) -> Result<(Connection, Options), Refusal> {
    let (key, patience) = (&settings.api_key, settings.auth_timeout);
    let mut socket = Socket::new(stream);
    socket.attach()?;
    let (mut connection, options) = match &settings.tls {
        None => {
            let options = authenticate(&mut socket, key, patience).await?;
            (Connection::Plain(socket), options)
        }
        Some(tls) => {
            let started = tokio::time::Instant::now();
            let handshake = TlsAcceptor::from(tls.server.clone())
                .accept_with(socket, |tls| tls.set_buffer_limit(Some(ENCRYPTED_AHEAD)));
            let mut stream = match timeout(patience, handshake).await {
                Ok(stream) => stream.map_err(Refusal::Tls)?,
                Err(_) => return Err(Refusal::TlsLate),
            };
            let left = patience.saturating_sub(started.elapsed());
            let options = authenticate(&mut stream, key, left).await?;
            (Connection::Tls(Box::new(stream)), options)
        }
    };
    connection.detach()?;
    Ok((connection, options))
}

/// Reads the key and what the client asks for. One that does not send the right key in time gets
/// the answer and time to read it.
async fn authenticate<S>(stream: &mut S, key: &ApiKey, within: Duration) -> Result<Options, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let verdict = match timeout(within, read_line(stream)).await {
        Ok(Ok(line)) => settle(key, &line),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::Late),
    };
    if let Err(refusal) = &verdict
        && let Some(answer) = refusal.answer()
    {
        let _ = timeout(LINGER, dismiss(stream, &answer)).await;
    }
    verdict
}

/// Whether a client's line is the key, and what the client asks for after it.
fn settle(key: &ApiKey, line: &[u8]) -> Result<Options, Refusal> {
    // A key has no white space in it.
    let (candidate, options) = match line.iter().position(|byte| *byte == b' ') {
        Some(space) => (&line[..space], Some(&line[space + 1..])),
        None => (line, None),
    };
    if !key.matches(candidate) {
        return Err(Refusal::WrongKey);
    }
    let parsed = options.map(Options::parse).transpose();
    Ok(parsed.map_err(Refusal::Options)?.unwrap_or_default())
}

/// The client's first line without its end; what follows it is left out, as all that a client
/// sends later is.
async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Refusal> {
    let mut line = Vec::with_capacity(128);
    let mut searched = 0;
    loop {
        if line.len() > LONGEST_LINE + 1 {
            return Err(Refusal::TooLong);
        }
        if stream.read_buf(&mut line).await? == 0 {
            return Err(Refusal::Incomplete);
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
    use super::{LONGEST_LINE, Refusal, read_line};

    async fn line(sent: &[&[u8]]) -> Result<Vec<u8>, Refusal> {
        let mut stream = tokio_test_stream(sent);
        read_line(&mut stream).await
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
        assert!(matches!(line(&[]).await, Err(Refusal::Incomplete)));
    }
}
