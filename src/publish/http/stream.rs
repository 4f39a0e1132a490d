//! The TCP or TLS stream of a scraper's connection, with a write timeout.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::publish::admission::PendingState;

/// A stream that updates the state of the pending connection. A write fails if the peer accepts no bytes for the length of the
/// write timeout.
pub(super) struct ScraperStream<S> {
    stream: S,
    state: Arc<PendingState>,
    write_timeout: Duration,
    /// The running write timeout. Set while the peer accepts no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether the peer has sent anything.
    received: bool,
    /// Whether the peer has closed the connection without sending anything.
    closed_early: Arc<AtomicBool>,
}

impl<S> ScraperStream<S> {
    pub(super) fn new(stream: S, state: Arc<PendingState>, write_timeout: Duration) -> Self {
        Self {
            stream,
            state,
            write_timeout,
            stalled: None,
            received: false,
            closed_early: Arc::default(),
        }
    }

    /// Returns a flag that becomes true if the peer closes the connection without sending anything.
    pub(super) fn closed_early(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed_early)
    }

    /// Starts, continues or ends the write timeout. `result` is the result of a write. Returns an error after the timeout.
    fn written<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        // A peer that reads slowly does not reach the timeout. At the limit on connections, such a peer can be evicted.
        self.state.set_silent(true);
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ScraperStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.received && read.is_ready() {
            self.received = buffer.filled().len() > before;
            self.closed_early.store(!self.received, Ordering::Relaxed);
        }
        let is_silent = read.is_pending() || self.stalled.is_some();
        self.state.set_silent(is_silent);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScraperStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(result, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::ScraperStream;

    #[actix::test]
    async fn a_write_times_out_only_while_the_peer_accepts_no_bytes() {
        tokio::time::pause();
        let (mine, mut peer) = tokio::io::duplex(4);
        let mut mine = ScraperStream::new(mine, Arc::default(), Duration::from_secs(30));
        let began = Instant::now();
        let reads = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                peer.read_exact(&mut [0; 4]).await.unwrap();
            }
            peer
        };
        let (written, _peer) = tokio::join!(mine.write_all(&[0; 64]), reads);
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 90);
    }
}
