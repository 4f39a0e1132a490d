//! Connects to the engine. Each call has its own connection, and each answer has a size limit.
//!
//! bollard's own transports have no size limit. So a faulty engine, or another program that uses its socket, could fill the
//! agent's memory. In this module, a connection ends with an error when the answer is longer than its limit.

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

/// Maximum size of the container list, in bytes. The limit is enough for 10,000 containers with 25 KiB of names and labels each.
/// The list is read entry by entry, so memory never holds the whole list.
pub(super) const MAX_LIST_BYTES: usize = 256 * 1024 * 1024;
/// Maximum size of an inspection, and of one entry of the container list, in bytes.
pub(super) const MAX_CONTAINER_BYTES: usize = 4 * 1024 * 1024;
/// Maximum size of the events on one connection, in bytes. After that, the agent opens a new connection for events.
pub(super) const MAX_EVENTS_BYTES: usize = 64 * 1024 * 1024;
/// Maximum size of the tail of a log, in bytes. With each chunk, bollard searches its whole buffer again for the end of a line.
/// So a longer tail would cost too much CPU time.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;
/// Maximum size of any other answer, in bytes.
pub(super) const MAX_OTHER_BYTES: usize = 1024 * 1024;
/// Pause before the agent tries to connect again, if the queue of the engine's socket is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// Time without traffic after which TCP probes an engine on another host. It is also the time between two probes.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Sends requests to the engine, for [`super::engine`] and for bollard.
#[derive(Clone)]
pub(super) struct Transport {
    host: Arc<DockerHost>,
    /// The negotiated API version. If there is none, paths have no version, and the engine uses its own version.
    version: Arc<OnceLock<ClientVersion>>,
}

impl Transport {
    pub(super) fn new(host: &DockerHost) -> Self {
        Self {
            host: Arc::new(host.clone()),
            version: Arc::default(),
        }
    }

    /// Uses this API version for all later requests.
    pub(super) fn speak(&self, version: ClientVersion) {
        // `set` cannot fail, because each transport negotiates only once.
        let _ = self.version.set(version);
    }

    /// Returns the negotiated API version.
    pub(super) fn version(&self) -> Option<&ClientVersion> {
        self.version.get()
    }

    /// Sends a request from bollard.
    pub(super) async fn send(
        self,
        request: BollardRequest,
    ) -> Result<Response<Incoming>, BollardError> {
        let limit = limit_for(request.uri().path());
        self.exchange(request, limit).await
    }

    /// Requests a path. `limit` is the maximum size of the answer in bytes.
    pub(super) async fn get(
        &self,
        path: &str,
        limit: usize,
    ) -> Result<Response<Incoming>, BollardError> {
        let request = Request::get(path).body(Empty::<Bytes>::new())?;
        self.exchange(request, limit).await
    }

    /// Sends a request on a new connection.
    async fn exchange<B>(
        &self,
        mut request: Request<B>,
        limit: usize,
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

        let stream = Limited {
            stream: connect(&self.host).await?,
            left: limit,
            limit,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // This task ends at the end of the answer, or when the answer is dropped. The code that reads the answer gets the task's
        // errors.
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

/// Returns the next bytes of an answer. None at the end of the answer.
pub(in crate::collect) async fn next_bytes(
    answer: &mut Incoming,
) -> Result<Option<Bytes>, BollardError> {
    loop {
        match answer.frame().await {
            None => return Ok(None),
            Some(frame) => {
                // A frame without data is a trailer. Trailers are ignored.
                if let Ok(bytes) = frame?.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Reads a whole answer into memory. The limit of the connection also limits the size of the answer.
pub(super) async fn whole(mut answer: Incoming) -> Result<Vec<u8>, BollardError> {
    let mut whole = Vec::new();
    while let Some(bytes) = next_bytes(&mut answer).await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// Returns the limit for the answer to a request from bollard, in bytes.
fn limit_for(path: &str) -> usize {
    if path.ends_with("/logs") {
        MAX_LOG_BYTES
    } else {
        MAX_OTHER_BYTES
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
                    // The event stream can be silent for days. Probes detect that the engine's host is gone.
                    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                    let keepalive = keepalive.with_interval(KEEPALIVE);
                    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                    Ok(Box::new(stream))
                }
                Err(error) => Err(about(address, &error)),
            },
        };
        match stream {
            // If the queue of a Unix socket is full, connecting fails immediately with this error.
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

/// A connection that ends with an error after `limit` received bytes.
struct Limited {
    stream: Box<dyn Stream>,
    left: usize,
    limit: usize,
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let limit = self.limit >> 20;
            let text = format!("the engine's answer is longer than {limit} MiB");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.left = self.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
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

    use super::{Limited, MAX_LOG_BYTES, MAX_OTHER_BYTES, limit_for};

    #[test]
    fn every_answer_to_bollard_has_a_size_limit() {
        assert_eq!(limit_for("/containers/0123/logs"), MAX_LOG_BYTES);
        assert_eq!(limit_for("/_ping"), MAX_OTHER_BYTES);
        assert_eq!(limit_for(""), MAX_OTHER_BYTES);
    }

    #[actix::test]
    async fn a_connection_ends_with_an_error_at_its_limit() {
        let (ours, theirs) = tokio::io::duplex(64);
        let endless = actix_rt::spawn(async move {
            let mut theirs = theirs;
            while tokio::io::AsyncWriteExt::write_all(&mut theirs, &[7; 64])
                .await
                .is_ok()
            {}
        });
        let mut limited = Limited {
            stream: Box::new(ours),
            left: 2 << 20,
            limit: 2 << 20,
        };
        let mut read = Vec::new();
        let error = limited.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the engine's answer is longer than 2 MiB"
        );
        assert!(read.len() >= 2 << 20 && read.len() < (2 << 20) + 64 * 1024);
        drop(limited);
        endless.await.unwrap();
    }
}
