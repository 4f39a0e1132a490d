//! The way to the engine: one connection per call, and a bound on every answer.
//!
//! bollard's own transports collect whatever the engine sends; an engine gone mad, or something
//! else behind its socket, could fill the agent's memory. A call gets a connection of its own, as
//! with bollard's, whose pool is empty on purpose; here that connection ends where the answer
//! grows absurd.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::{BollardRequest, ClientVersion};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::settings::DockerHost;

/// The most that is read of the list: ten thousand containers with 25 KiB each of names and labels. It is read entry by entry, so that
/// it is never whole in memory.
pub(super) const MOST_OF_THE_LIST: usize = 256 * 1024 * 1024;
/// The most that is read of what the engine says of one container.
pub(super) const MOST_OF_A_CONTAINER: usize = 4 * 1024 * 1024;
/// The most that is read of events on one connection. They are then asked for on another one.
pub(super) const MOST_OF_EVENTS: usize = 64 * 1024 * 1024;
/// The most that is read of a tail of logs: bollard searches what it has for the end of a line
/// again and again, so that a longer one would cost more than it is worth.
const MOST_OF_LOGS: usize = 4 * 1024 * 1024;
/// The most that is read of any other answer.
pub(super) const MOST_OF_THE_REST: usize = 1024 * 1024;
/// The pause before another try at an engine whose queue of connections is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// How long a connection to another host may be silent before that host is probed, and the time
/// between probes.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Sends bollard's requests to the engine.
#[derive(Clone)]
pub(super) struct Transport {
    host: Arc<DockerHost>,
    /// What was negotiated; until then, and where nothing could be, paths carry no version and
    /// the engine speaks its own.
    version: Arc<OnceLock<ClientVersion>>,
}

impl Transport {
    pub(super) fn new(host: &DockerHost) -> Self {
        Self {
            host: Arc::new(host.clone()),
            version: Arc::default(),
        }
    }

    /// Speaks this version from now on.
    pub(super) fn speak(&self, version: ClientVersion) {
        // Negotiated once in the life of a transport.
        let _ = self.version.set(version);
    }

    /// The version that is spoken.
    pub(super) fn version(&self) -> Option<&ClientVersion> {
        self.version.get()
    }

    /// Sends a request of bollard's.
    pub(super) async fn send(
        self,
        request: BollardRequest,
    ) -> Result<Response<Incoming>, BollardError> {
        let most = most_of(request.uri().path());
        self.exchange(request, most).await
    }

    /// Asks for a path, and for at most so many bytes of an answer.
    pub(super) async fn get(
        &self,
        path: &str,
        most: usize,
    ) -> Result<Response<Incoming>, BollardError> {
        let request = Request::get(path).body(Empty::<Bytes>::new())?;
        self.exchange(request, most).await
    }

    /// Sends a request on a connection of its own.
    async fn exchange<B>(
        &self,
        mut request: Request<B>,
        most: usize,
    ) -> Result<Response<Incoming>, BollardError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let uri = match self.version.get() {
            Some(version) => format!(
                "/v{}.{}{path}",
                version.major_version, version.minor_version
            ),
            None => path.to_owned(),
        };
        *request.uri_mut() = uri.parse::<Uri>()?;
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("docker"));

        let stream = Bounded {
            stream: connect(&self.host).await?,
            left: most,
            most,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, or when its receiver loses interest. Its errors reach the
        // receiver as well.
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

/// The next bytes of an answer.
pub(super) async fn next_bytes(answer: &mut Incoming) -> Result<Option<Bytes>, BollardError> {
    loop {
        match answer.frame().await {
            None => return Ok(None),
            Some(frame) => {
                // Trailers tell nothing.
                if let Ok(bytes) = frame?.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// A whole answer, which the connection's bound keeps small.
pub(super) async fn whole(mut answer: Incoming) -> Result<Vec<u8>, BollardError> {
    let mut whole = Vec::new();
    while let Some(bytes) = next_bytes(&mut answer).await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// The bound on what bollard asks for.
fn most_of(path: &str) -> usize {
    if path.ends_with("/logs") {
        MOST_OF_LOGS
    } else {
        MOST_OF_THE_REST
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(host: &DockerHost) -> io::Result<Box<dyn Stream>> {
    loop {
        let stream: io::Result<Box<dyn Stream>> = match host {
            DockerHost::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(about(path.display(), &error)),
            },
            DockerHost::Tcp(address) => match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Events may be silent for days: a host that went away must show all the same.
                    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                    let keepalive = keepalive.with_interval(KEEPALIVE);
                    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                    Ok(Box::new(stream))
                }
                Err(error) => Err(about(address, &error)),
            },
        };
        match stream {
            // A Unix socket says so instead of making the caller wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            other => return other,
        }
    }
}

fn about(place: impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{place}: {error}"))
}

/// A connection that ends with an error once it has yielded `most` bytes.
struct Bounded {
    stream: Box<dyn Stream>,
    left: usize,
    most: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let most = self.most >> 20;
            let text = format!("the engine's answer is longer than {most} MiB");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.left = self.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::{Bounded, MOST_OF_LOGS, MOST_OF_THE_REST, most_of};

    #[test]
    fn every_answer_to_bollard_has_a_bound() {
        assert_eq!(most_of("/containers/0123/logs"), MOST_OF_LOGS);
        assert_eq!(most_of("/_ping"), MOST_OF_THE_REST);
        assert_eq!(most_of(""), MOST_OF_THE_REST);
    }

    #[actix::test]
    async fn a_connection_ends_at_its_bound() {
        let (ours, theirs) = tokio::io::duplex(64);
        let endless = actix_rt::spawn(async move {
            let mut theirs = theirs;
            while tokio::io::AsyncWriteExt::write_all(&mut theirs, &[7; 64])
                .await
                .is_ok()
            {}
        });
        let mut bounded = Bounded {
            stream: Box::new(ours),
            left: 2 << 20,
            most: 2 << 20,
        };
        let mut read = Vec::new();
        let error = bounded.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the engine's answer is longer than 2 MiB"
        );
        assert!(read.len() >= 2 << 20 && read.len() < (2 << 20) + 64 * 1024);
        drop(bounded);
        endless.await.unwrap();
    }
}
