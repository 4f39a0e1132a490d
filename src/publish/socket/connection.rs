//! A client's connection, plain or TLS: what is read is forgotten, what is written is shared.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::publish::admission::PendingState;
use crate::publish::admission::first_input::{FirstInput, first_input};
use crate::published::{EncodedSnapshot, LineEnd};

/// A connection that may move from one thread to another.
pub(super) enum Connection {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A socket, which belongs to the runtime that registered it: to move it is bare for a while.
pub(super) struct Socket {
    stream: Stream,
    /// How many bytes the kernel has taken.
    written: u64,
    /// Until the client has authenticated.
    pending: Option<Arc<PendingState>>,
    /// Bytes received while pending.
    received: usize,
}

enum Stream {
    Registered(TcpStream),
    /// None only where registering it failed.
    Bare(Option<std::net::TcpStream>),
}

/// Limit on the bytes that a pending client may send. A ClientHello, certificates and the key fit. rustls buffers as much of an
/// incomplete message.
const MAX_PENDING_BYTES: usize = 32 * 1024;
/// How often is read in a row, at most: one that sends without end is written to as well.
const READS: usize = 8;

/// A line on its way.
pub(super) struct Outgoing {
    snapshot: Arc<EncodedSnapshot>,
    ending: LineEnd,
    written: usize,
}

impl Outgoing {
    pub(super) fn new(snapshot: Arc<EncodedSnapshot>, skipped: u64) -> Self {
        let ending = snapshot.ending(skipped);
        Self {
            snapshot,
            ending,
            written: 0,
        }
    }
}

impl Connection {
    /// Why the connection is no more, if it is not.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        match &self.socket().stream {
            Stream::Registered(stream) => stream.take_error().unwrap_or_else(Some),
            Stream::Bare(_) => None,
        }
    }

    /// How many bytes have left for the client.
    pub(super) fn written(&mut self) -> u64 {
        self.socket().written
    }

    /// Takes it off this thread's runtime.
    pub(super) fn detach(&mut self) -> io::Result<()> {
        self.socket().detach()
    }

    /// Puts it on this thread's runtime.
    pub(super) fn attach(&mut self) -> io::Result<()> {
        self.socket().attach()
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Reads and forgets whatever comes, until the end. The buffer is on the stack of the poll, so
    /// that an idle client costs none.
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

    /// Writes what is left of a line, whose two parts are not copied together.
    pub(super) fn poll_send(
        &mut self,
        line: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let (shared, ending) = (&line.snapshot.shared, line.ending.as_ref());
        loop {
            let parts = [
                IoSlice::new(shared.get(line.written..).unwrap_or_default()),
                IoSlice::new(&ending[line.written.saturating_sub(shared.len())..]),
            ];
            if parts[1].is_empty() {
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
    /// A pending connection's socket, not registered with a runtime yet. Until it is detached it updates the state.
    pub(super) fn new(stream: std::net::TcpStream, pending: Arc<PendingState>) -> Self {
        Self {
            stream: Stream::Bare(Some(stream)),
            written: 0,
            pending: Some(pending),
            received: 0,
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

    /// Waits for the first input.
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

    /// Counts what was written.
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
            if self.received > MAX_PENDING_BYTES {
                return Poll::Ready(Err(io::Error::other("too much before a key")));
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
