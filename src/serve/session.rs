//! One authenticated client: what it is sent, what it missed, and how it ends.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Running, WrapFuture,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::info;

use super::listener::Subscriptions;
use crate::messages::{
    CatchUp, ClientId, Delivery, EncodedSnapshot, Since, Subscribe, Unsubscribe,
};
use crate::model::Options;
use crate::settings::ServeSettings;

/// How long a client that was sent the end of the stream may take to close its side.
const LINGER: Duration = Duration::from_secs(1);
/// How often a client that has closed its sending side is looked at: has it closed both?
const HALF_CLOSED_LOOK: Duration = Duration::from_secs(1);

/// Why a session ends when the agent stops: in good order, or before its line was out.
const STOPPING: &str = "agent stopping";
const CUT_OFF: &str = "agent stopping, client did not finish reading in time";

type Reader = Box<dyn AsyncRead + Unpin>;
type Writer = Box<dyn AsyncWrite + Unpin>;

/// An authenticated connection, in two halves.
pub(super) struct Connection {
    reader: Reader,
    writer: Writer,
}

impl Connection {
    pub(super) fn split<S: AsyncRead + AsyncWrite + 'static>(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
        }
    }
}

/// Sends snapshots to one client. The only owner of the connection's write side: one line is
/// being written, and one newest snapshot waits, at most.
pub struct ClientSession {
    client: ClientId,
    peer: SocketAddr,
    options: Options,
    write_timeout: Duration,
    subscriptions: Subscriptions,
    /// None while a line is being written.
    writer: Option<Writer>,
    /// The newest snapshot that came while a line was being written.
    pending: Option<Arc<EncodedSnapshot>>,
    /// What the last snapshot that was sent has said of the logs; none before the first.
    since: Option<Since>,
    /// Whether a snapshot was asked for that follows on the last one that was sent.
    catching_up: bool,
    /// None until [`Actor::started`] takes it.
    reader: Option<Reader>,
    /// Set when the agent stops: close after the line that is being written.
    ending: bool,
    /// Set when the sending side is closed.
    closed: bool,
    /// Set when the client has closed its sending side.
    half_closed: bool,
    account: Account,
    connected: Instant,
    reason: &'static str,
    /// Given back when the session is dropped.
    _permit: OwnedSemaphorePermit,
}

/// Which snapshots a client got.
#[derive(Debug, Default)]
struct Account {
    /// The number of the first that was sent.
    first: Option<u64>,
    /// How many were sent in whole.
    sent: u64,
    /// How many were missed so far.
    skipped: u64,
}

impl Account {
    /// Counts what was missed up to the snapshot that is sent now, before it is sent: every one
    /// since the first that was meant for the client and was neither sent nor is this one.
    fn begin(&mut self, seq: u64, every: u32) -> u64 {
        let first = *self.first.get_or_insert(seq);
        let meant = seq.saturating_sub(first) / u64::from(every);
        // Never less than before: one that was caught up with may come between two that were meant.
        self.skipped = meant.saturating_sub(self.sent).max(self.skipped);
        self.skipped
    }
}

impl ClientSession {
    /// Starts the session of an authenticated client on the current arbiter.
    pub(super) fn begin(
        connection: Connection,
        client: ClientId,
        peer: SocketAddr,
        options: Options,
        permit: OwnedSemaphorePermit,
        settings: &ServeSettings,
        subscriptions: Subscriptions,
    ) {
        let Connection { reader, writer } = connection;
        Self {
            client,
            peer,
            options,
            write_timeout: settings.write_timeout,
            subscriptions,
            writer: Some(writer),
            pending: None,
            since: None,
            catching_up: false,
            reader: Some(reader),
            ending: false,
            closed: false,
            half_closed: false,
            account: Account::default(),
            connected: Instant::now(),
            reason: "closed",
            _permit: permit,
        }
        .start();
    }

    /// Sends a snapshot now if nothing is being written, else keeps it as the newest. One whose log
    /// lines follow on a snapshot that was not sent is asked for anew.
    fn send(&mut self, snapshot: Arc<EncodedSnapshot>, ctx: &mut Context<Self>) {
        let Some(mut writer) = self.writer.take() else {
            self.pending = Some(snapshot);
            return;
        };
        if let (Some(follows), Some(since)) = (snapshot.follows, &self.since)
            && follows != since.seq
        {
            self.writer = Some(writer);
            if !std::mem::replace(&mut self.catching_up, true) {
                self.subscriptions.catch_up.do_send(CatchUp {
                    client: self.client,
                    since: since.clone(),
                });
            }
            return;
        }
        self.catching_up = false;
        self.since = Some(snapshot.since.clone());
        let skipped = self.account.begin(snapshot.seq, self.options.every.get());
        let ending = snapshot.ending(skipped);
        let patience = self.write_timeout;
        let write = async move {
            let written =
                write_line(&mut writer, &snapshot.shared, ending.as_ref(), patience).await;
            (writer, written)
        };
        ctx.spawn(
            write
                .into_actor(self)
                .map(|(writer, written), session, ctx| match written {
                    Ok(()) => session.written(writer, ctx),
                    Err(error) => session.end(reason_of(&error), ctx),
                }),
        );
    }

    fn written(&mut self, writer: Writer, ctx: &mut Context<Self>) {
        self.account.sent += 1;
        self.writer = Some(writer);
        if self.ending {
            self.close(ctx);
        } else if let Some(newest) = self.pending.take() {
            self.send(newest, ctx);
        }
    }

    /// Closes the sending side, if nothing is being written, and waits for the client to close
    /// the other: a connection that is closed at once is reset, and what the client has not read
    /// yet lost, when the client sends anything.
    fn close(&mut self, ctx: &mut Context<Self>) {
        if let Some(mut writer) = self.writer.take() {
            let close = async move {
                let closed = writer.shutdown().await;
                (writer, closed)
            };
            ctx.spawn(close.into_actor(self).map(|(writer, _), session, ctx| {
                session.writer = Some(writer);
                session.closed = true;
                if session.half_closed {
                    session.end(STOPPING, ctx);
                } else {
                    ctx.run_later(LINGER, |session, ctx| session.end(STOPPING, ctx));
                }
            }));
        }
    }

    /// Reads and forgets what the client sends. Only an error ends the session: a client that has
    /// closed its sending side still receives. If it has closed both, the next write is answered
    /// by a reset, which a later look finds.
    fn discard(&mut self, mut reader: Reader, ctx: &mut Context<Self>) {
        let read = async move {
            let end = discard(&mut reader).await;
            (reader, end)
        };
        ctx.spawn(
            read.into_actor(self)
                .map(|(reader, end), session, ctx| match end {
                    Err(error) => session.end(reason_of(&error), ctx),
                    Ok(()) if session.closed => session.end(STOPPING, ctx),
                    Ok(()) => {
                        session.half_closed = true;
                        ctx.run_later(HALF_CLOSED_LOOK, |session, ctx| {
                            session.discard(reader, ctx);
                        });
                    }
                }),
        );
    }

    fn end(&mut self, reason: &'static str, ctx: &mut Context<Self>) {
        self.reason = reason;
        ctx.stop();
    }
}

impl Actor for ClientSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(reader) = self.reader.take() {
            self.discard(reader, ctx);
        }
        let subscribe = Subscribe {
            client: self.client,
            options: self.options,
            deliveries: ctx.address().recipient(),
        };
        self.subscriptions.subscribe.do_send(subscribe);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        let client = self.client;
        self.subscriptions
            .unsubscribe
            .do_send(Unsubscribe { client });
        info!(
            client,
            peer = %self.peer,
            reason = self.reason,
            duration_ms = self.connected.elapsed().as_millis() as u64,
            snapshots = self.account.sent,
            skipped = self.account.skipped,
            "client disconnected"
        );
        Running::Stop
    }
}

impl Handler<Delivery> for ClientSession {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, ctx: &mut Self::Context) {
        match delivery {
            Delivery::Snapshot(snapshot) if !self.ending => self.send(snapshot, ctx),
            Delivery::Snapshot(_) => {}
            Delivery::End(within) => {
                self.ending = true;
                self.pending = None;
                self.close(ctx);
                ctx.run_later(within, |session, ctx| session.end(CUT_OFF, ctx));
            }
        }
    }
}

fn reason_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut => "write timeout",
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => "closed by client",
        _ => "connection failed",
    }
}

/// Writes a whole line, in two parts that are not copied together. Fails when the client
/// accepts nothing for as long as `patience`.
async fn write_line(
    writer: &mut Writer,
    shared: &[u8],
    ending: &[u8],
    patience: Duration,
) -> io::Result<()> {
    let mut parts = [IoSlice::new(shared), IoSlice::new(ending)];
    let mut rest = &mut parts[..];
    while !rest.is_empty() {
        match within(patience, writer.write_vectored(rest)).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    within(patience, writer.flush()).await
}

async fn within<T>(
    patience: Duration,
    write: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(patience, write)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads and forgets whatever comes, until the end. The buffer is on the stack of the poll, so
/// that an idle client costs none.
async fn discard(reader: &mut Reader) -> io::Result<()> {
    poll_fn(|cx| {
        let mut scratch = [0; 2048];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::Account;

    #[test]
    fn what_was_missed_is_what_was_neither_sent_nor_is_now() {
        let mut account = Account::default();
        let every = 1;
        let mut sent = |seq| {
            let skipped = account.begin(seq, every);
            account.sent += 1;
            skipped
        };
        assert_eq!(sent(41), 0);
        assert_eq!(sent(42), 0);
        assert_eq!(sent(45), 2);
        assert_eq!(sent(46), 2);
        assert_eq!(sent(50), 5);
    }

    #[test]
    fn what_was_not_meant_for_a_client_was_not_missed() {
        let mut account = Account::default();
        let mut sent = |seq| {
            let skipped = account.begin(seq, 3);
            account.sent += 1;
            skipped
        };
        assert_eq!([sent(4), sent(7), sent(10)], [0, 0, 0]);
        assert_eq!(sent(19), 2);
        // Caught up with in between.
        assert_eq!([sent(20), sent(22)], [2, 2]);
    }
}
