//! The connection of a client, with or without TLS. Writes snapshots without copying them. Ignores the bytes that a client sends
//! after authentication.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::publish::admission::PendingState;
use crate::publish::admission::first_input::{FirstInput, first_input};
use crate::published::{EncodedSnapshot, LineEnd};

/// A connection that can move from one thread to another.
pub(super) enum Connection {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A TCP socket. A socket that is registered with the runtime of one thread cannot move to another thread. Therefore, the socket
/// is not registered while it moves.
pub(super) struct Socket {
    stream: Stream,
    /// Number of bytes that the kernel has accepted for sending.
    written: u64,
    /// The state of the pending connection. None after the client has authenticated.
    pending: Option<Arc<PendingState>>,
    /// Number of bytes that were received while the connection was pending.
    received: usize,
    /// Limit on `received` before the agent's first answer.
    max_unanswered: usize,
}

/// The stream of a [`Socket`].
enum Stream {
    /// Registered with this thread's runtime.
    Registered(TcpStream),
    /// Not registered with any runtime. None only after an attempt to register the stream has failed.
    Bare(Option<std::net::TcpStream>),
}

/// Limit on the bytes that a peer can send while its connection is pending. A ClientHello, certificates and the key need less.
const MAX_PENDING_BYTES: usize = 128 * 1024;
/// Limit on the bytes that a peer can send with TLS before the agent's first answer. A ClientHello usually has less than 4 KiB, and with a long
/// session ticket at most 16 KiB. This limit bounds the memory in which rustls buffers an incomplete ClientHello.
const MAX_HELLO_BYTES: usize = 18 * 1024;
/// Limit on consecutive reads. With no limit, the session of a client that sends without pause would never write.
const READS: usize = 8;

/// A JSON line that is being written.
pub(super) struct Outgoing {
    /// The line up to its end. Clients share it.
    shared: Bytes,
    ending: LineEnd,
    /// Number of bytes of the JSON line that are already written.
    written: usize,
}

impl Outgoing {
    pub(super) fn new(snapshot: &EncodedSnapshot, skipped: u64) -> Self {
        Self {
            shared: snapshot.shared.clone(),
            ending: snapshot.ending(skipped),
            written: 0,
        }
    }

    /// A line that is already complete.
    pub(super) fn complete(line: Bytes) -> Self {
        Self {
            shared: line,
            ending: LineEnd::NONE,
            written: 0,
        }
    }
}

/// A byte stream in both directions.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// Limit on the bytes that a client can still send. The agent reads and ignores these bytes. If the agent closed a
/// connection with unread bytes, the kernel would reset the connection, and the client would lose the answer.
const MAX_IGNORED_BYTES: usize = 64 * 1024;

/// Closes the agent's sending side, and waits until the client closes its side.
pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut left = MAX_IGNORED_BYTES;
    let mut scratch = [0; 1024];
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

impl Connection {
    /// Returns and clears the error that the kernel has stored for the socket, if there is an error.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        match &self.socket().stream {
            Stream::Registered(stream) => stream.take_error().unwrap_or_else(Some),
            Stream::Bare(_) => None,
        }
    }

    /// Returns the number of bytes that the kernel has accepted for sending.
    pub(super) fn written(&mut self) -> u64 {
        self.socket().written
    }

    /// Removes the connection from this thread's runtime.
    pub(super) fn detach(&mut self) -> io::Result<()> {
        self.socket().detach()
    }

    /// Registers the connection with this thread's runtime.
    pub(super) fn attach(&mut self) -> io::Result<()> {
        self.socket().attach()
    }

    /// Registers the connection with this thread's runtime, and returns its byte stream.
    pub(super) fn attached(mut self) -> io::Result<Box<dyn ByteStream>> {
        self.attach()?;
        Ok(match self {
            Self::Plain(socket) => Box::new(socket),
            Self::Tls(stream) => stream,
        })
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Reads and ignores the client's input until the client closes its sending side. The buffer is on the stack, so an idle
    /// client needs no buffer.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 2048];
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(match self {
                Self::Plain(socket) => Pin::new(socket).poll_read(cx, &mut buffer),
                Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            })?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the remaining bytes of a JSON line. Does not copy the shared part and the end into one buffer.
    pub(super) fn poll_send(
        &mut self,
        line: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let (shared, ending) = (&line.shared, line.ending.as_ref());
        loop {
            let parts = [
                IoSlice::new(shared.get(line.written..).unwrap_or_default()),
                IoSlice::new(&ending[line.written.saturating_sub(shared.len())..]),
            ];
            if parts.iter().all(|part| part.is_empty()) {
                break;
            }
            let written = ready!(match self {
                Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, &parts),
                Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, &parts),
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            line.written += written;
        }
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Closes the sending side.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Socket {
    /// Creates the socket of a pending connection. The socket is not registered with a runtime yet. The socket updates `pending`
    /// until `detach` is called. `with_tls` says whether the peer must begin with a ClientHello.
    pub(super) fn new(
        stream: std::net::TcpStream,
        pending: Arc<PendingState>,
        with_tls: bool,
    ) -> Self {
        Self {
            stream: Stream::Bare(Some(stream)),
            written: 0,
            pending: Some(pending),
            received: 0,
            max_unanswered: if with_tls {
                MAX_HELLO_BYTES
            } else {
                MAX_PENDING_BYTES
            },
        }
    }

    fn detach(&mut self) -> io::Result<()> {
        self.pending = None;
        if let Stream::Registered(stream) = std::mem::replace(&mut self.stream, Stream::Bare(None))
        {
            self.stream = Stream::Bare(Some(stream.into_std()?));
        }
        Ok(())
    }

    pub(super) fn attach(&mut self) -> io::Result<()> {
        if let Stream::Bare(stream) = &mut self.stream {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected)?;
            self.stream = Stream::Registered(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    /// Waits for the first input, but does not read the input.
    pub(super) async fn first_input(&self, is_tls: bool) -> io::Result<FirstInput> {
        let Stream::Registered(stream) = &self.stream else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let input = first_input(stream, is_tls, || self.set_silent(true)).await?;
        self.set_silent(false);
        Ok(input)
    }

    fn set_silent(&self, is_silent: bool) {
        if let Some(pending) = &self.pending {
            pending.set_silent(is_silent);
        }
    }

    /// Whether the peer has closed its sending side, as far as the runtime knows.
    pub(super) fn is_closed(&self) -> bool {
        let Stream::Registered(stream) = &self.stream else {
            return true;
        };
        let ready = stream.ready(Interest::READABLE).now_or_never();
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }

    fn registered(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.stream {
            Stream::Registered(stream) => Ok(Pin::new(stream)),
            Stream::Bare(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Counts the bytes that the kernel has accepted. Returns `written` unchanged.
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = written {
            self.written += written as u64;
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.registered()?.poll_read(cx, buf);
        self.set_silent(read.is_pending());
        if self.pending.is_some() {
            self.received += buf.filled().len() - before;
            let limit = if self.written == 0 {
                self.max_unanswered
            } else {
                MAX_PENDING_BYTES
            };
            if self.received > limit {
                return Poll::Ready(Err(io::Error::other("too many bytes before a key")));
            }
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.registered()?.poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.registered()?.poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_shutdown(cx)
    }
}
