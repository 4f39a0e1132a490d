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
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::settings::DockerHost;

/// The most that is read of the list: a thousand containers with 5 KiB each of names and labels. What is made of it takes a
/// few times as much.
const MOST_OF_THE_LIST: usize = 5 * 1024 * 1024;
/// The most that is read of what the engine says of one container.
const MOST_OF_A_CONTAINER: usize = 4 * 1024 * 1024;
/// The most that is read of a tail of logs: bollard searches what it has for the end of a line
/// again and again, so that a longer one would cost more than it is worth.
const MOST_OF_LOGS: usize = 4 * 1024 * 1024;
/// The most that is read of any other answer.
const MOST_OF_THE_REST: usize = 1024 * 1024;
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

    /// Sends a request on a connection of its own.
    pub(super) async fn send(
        self,
        mut request: BollardRequest,
    ) -> Result<Response<Incoming>, BollardError> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let most = most_of(request.uri().path());
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

fn most_of(path: &str) -> usize {
    let mut from_the_end = path.rsplit('/');
    match (from_the_end.next(), from_the_end.next()) {
        (Some("json"), Some("containers")) => MOST_OF_THE_LIST,
        (Some("json"), _) => MOST_OF_A_CONTAINER,
        (Some("logs"), _) => MOST_OF_LOGS,
        _ => MOST_OF_THE_REST,
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

    use super::{
        Bounded, MOST_OF_A_CONTAINER, MOST_OF_LOGS, MOST_OF_THE_LIST, MOST_OF_THE_REST, most_of,
    };

    #[test]
    fn every_answer_has_a_bound() {
        assert_eq!(most_of("/containers/json"), MOST_OF_THE_LIST);
        assert_eq!(most_of("/containers/0123/json"), MOST_OF_A_CONTAINER);
        assert_eq!(most_of("/containers/0123/logs"), MOST_OF_LOGS);
        assert_eq!(most_of("/containers/0123/stats"), MOST_OF_THE_REST);
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
