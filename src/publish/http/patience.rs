//! A scraper's connection that is not waited for without end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::publish::socket::lobby::Voice;

/// Takes note of whether its peer is waited for, and ends where that accepts nothing for so long.
pub(super) struct Patience<S> {
    stream: S,
    voice: Arc<Voice>,
    most: Duration,
    /// While the peer accepts nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether the peer has sent anything.
    heard: bool,
    ended_unheard: Arc<AtomicBool>,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, voice: Arc<Voice>, most: Duration) -> Self {
        Self {
            stream,
            voice,
            most,
            stalled: None,
            heard: false,
            ended_unheard: Arc::default(),
        }
    }

    /// Becomes true where the peer ends the connection before it has sent anything.
    pub(super) fn ended_unheard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended_unheard)
    }

    /// What came of an attempt to write.
    fn written<T>(
        &mut self,
        attempt: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.stalled = None;
            return attempt;
        }
        // Whoever accepts a little now and then is a peer that others would wait for.
        self.voice.is_waited_for(true);
        let most = self.most;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(most)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.heard && read.is_ready() {
            self.heard = buffer.filled().len() > before;
            self.ended_unheard.store(!self.heard, Ordering::Relaxed);
        }
        self.voice
            .is_waited_for(read.is_pending() || self.stalled.is_some());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(attempt, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(attempt, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(attempt, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(attempt, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::Patience;
    use crate::publish::socket::lobby::Voice;

    #[actix::test]
    async fn who_accepts_nothing_is_waited_for_so_long_and_who_accepts_a_little_for_longer() {
        tokio::time::pause();
        let (mine, mut peer) = tokio::io::duplex(4);
        let voice = Arc::new(Voice::new(&Arc::default()));
        let mut mine = Patience::new(mine, voice, Duration::from_secs(30));
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
