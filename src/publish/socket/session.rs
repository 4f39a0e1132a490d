//! One authenticated client: what it is sent, what it missed, and how it ends.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, Running};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tracing::info;

use super::connection::{Connection, Outgoing};
use crate::messages::{CatchUp, ClientId, Delivery, Subscribe, Unsubscribe};
use crate::model::Options;
use crate::published::{EncodedSnapshot, StreamPosition};

/// How long a client that was sent the end of the stream may take to close its side.
const LINGER: Duration = Duration::from_secs(1);
/// How often a client that has closed its sending side is looked at: has it closed both?
const HALF_CLOSED_LOOK: Duration = Duration::from_secs(1);

/// Why a session ends when the agent stops: in good order, or before its line was out.
const STOPPING: &str = "agent stopping";
const CUT_OFF: &str = "agent stopping, client did not finish reading in time";

/// The aggregator's addresses, for sessions.
#[derive(Clone)]
pub struct Subscriptions {
    /// Adds a session.
    pub subscribe: Recipient<Subscribe>,
    /// Sends a session what it missed.
    pub catch_up: Recipient<CatchUp>,
    /// Removes a session.
    pub unsubscribe: Recipient<Unsubscribe>,
}

/// A client that has authenticated, and its options.
pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) id: ClientId,
    pub(super) peer: SocketAddr,
    pub(super) options: Options,
    pub(super) write_timeout: Duration,
    pub(super) subscriptions: Subscriptions,
    /// Given back when the session is dropped.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Sends snapshots to one client. The only owner of the connection's write side: one line is
/// being written, and one newest snapshot waits, at most.
pub struct ClientSession {
    client: Client,
    /// The line that is being written.
    outgoing: Option<Outgoing>,
    /// The newest snapshot that came meanwhile.
    pending: Option<Arc<EncodedSnapshot>>,
    /// While the client accepts nothing: how much it had accepted before, and for how much longer that may go on.
    stalled: Option<(u64, Pin<Box<Sleep>>)>,
    /// What the last snapshot that was sent has said of the logs; none before the first.
    since: Option<StreamPosition>,
    /// Whether a snapshot was asked for that follows on the last one that was sent.
    catching_up: bool,
    incoming: Incoming,
    /// Set when the agent stops: close after the line that is being written.
    ending: Ending,
    account: Account,
    connected: Instant,
    reason: &'static str,
}

/// The client's sending side.
enum Incoming {
    Open,
    /// Closed by the client, which still receives. If it has closed both, it answers the next bytes
    /// or the kernel's probes by a reset, which reading does not tell; it is looked for at that time.
    Closed(Pin<Box<Sleep>>),
}

/// The agent's sending side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// After the line that is being written.
    Due,
    Closed,
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
    pub(super) fn begin(mut client: Client) {
        if let Err(error) = client.connection.attach() {
            info!(client = client.id, peer = %client.peer, reason = %error, "client lost");
            return;
        }
        Self {
            client,
            outgoing: None,
            pending: None,
            stalled: None,
            since: None,
            catching_up: false,
            incoming: Incoming::Open,
            ending: Ending::NotYet,
            account: Account::default(),
            connected: Instant::now(),
            reason: "closed",
        }
        .start();
    }

    /// Sends a snapshot next if nothing is being written, else keeps it as the newest. One whose log
    /// lines or events follow on a snapshot that was not sent is asked for anew.
    fn send(&mut self, snapshot: Arc<EncodedSnapshot>) {
        if self.outgoing.is_some() {
            self.pending = Some(snapshot);
            return;
        }
        if let Some(since) = &self.since
            && snapshot.lacks_something_after(since)
        {
            if !std::mem::replace(&mut self.catching_up, true) {
                self.client.subscriptions.catch_up.do_send(CatchUp {
                    client: self.client.id,
                    since: since.clone(),
                });
            }
            return;
        }
        self.catching_up = false;
        self.since = Some(snapshot.since.clone());
        let every = self.client.options.every.get();
        let skipped = self.account.begin(snapshot.seq, every);
        self.outgoing = Some(Outgoing::new(snapshot, skipped));
    }

    /// Reads, writes and closes as far as that is possible now. Yields why the session ends, where
    /// it does.
    fn drive(
        &mut self,
        ctx: &mut Context<Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Result<(), &'static str> {
        // First, as one that sends without end would leave no time for it.
        self.write(cx)?;
        self.read(cx)?;
        if self.ending == Ending::Due && self.outgoing.is_none() {
            self.close(ctx, cx)?;
        }
        Ok(())
    }

    /// Reads and forgets what the client sends. Only an error ends the session: a client that has
    /// closed its sending side still receives.
    fn read(&mut self, cx: &mut std::task::Context<'_>) -> Result<(), &'static str> {
        let connection = &mut self.client.connection;
        if let Incoming::Closed(look) = &mut self.incoming {
            if look.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if let Some(error) = connection.take_error() {
                return Err(reason_of(&error));
            }
        } else {
            match connection.poll_discard(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(reason_of(&error)),
                Poll::Ready(Ok(())) if self.ending == Ending::Closed => return Err(STOPPING),
                Poll::Ready(Ok(())) => {}
            }
        }
        let mut look = Box::pin(sleep(HALF_CLOSED_LOOK));
        // To be woken by it.
        let _ = look.as_mut().poll(cx);
        self.incoming = Incoming::Closed(look);
        Ok(())
    }

    /// Writes the line that is due, and those after it.
    fn write(&mut self, cx: &mut std::task::Context<'_>) -> Result<(), &'static str> {
        while let Some(line) = &mut self.outgoing {
            match self.client.connection.poll_send(line, cx) {
                Poll::Pending => return self.stall(cx),
                Poll::Ready(Err(error)) => return Err(reason_of(&error)),
                Poll::Ready(Ok(())) => {
                    self.account.sent += 1;
                    (self.outgoing, self.stalled) = (None, None);
                    if let Some(newest) = self.pending.take() {
                        self.send(newest);
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for the client to accept more: it has so long for anything at all.
    fn stall(&mut self, cx: &mut std::task::Context<'_>) -> Result<(), &'static str> {
        let written = self.client.connection.written();
        let timeout = self.client.write_timeout;
        let (accepted, end) = self
            .stalled
            .get_or_insert_with(|| (written, Box::pin(sleep(timeout))));
        if *accepted != written {
            *accepted = written;
            let anew = tokio::time::Instant::now() + timeout;
            end.as_mut().reset(anew);
        }
        match end.as_mut().poll(cx) {
            Poll::Ready(()) => Err("write timeout"),
            Poll::Pending => Ok(()),
        }
    }

    /// Closes the sending side, and waits for the client to close the other: a connection that is
    /// closed at once is reset, and what the client has not read yet lost, when the client sends
    /// anything.
    fn close(
        &mut self,
        ctx: &mut Context<Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Result<(), &'static str> {
        if self.client.connection.poll_close(cx).is_pending() {
            return Ok(());
        }
        if matches!(self.incoming, Incoming::Closed(_)) {
            return Err(STOPPING);
        }
        self.ending = Ending::Closed;
        ctx.run_later(LINGER, |session, ctx| session.end(STOPPING, ctx));
        Ok(())
    }

    fn end(&mut self, reason: &'static str, ctx: &mut Context<Self>) {
        self.reason = reason;
        ctx.stop();
    }
}

/// Drives a session's connection for as long as the session lives. The context polls it whenever
/// anything has happened, a delivery as well: a line costs no future of its own.
struct Drive;

impl ActorFuture<ClientSession> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut ClientSession,
        ctx: &mut Context<ClientSession>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<()> {
        match session.drive(ctx, cx) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                session.end(reason, ctx);
                Poll::Ready(())
            }
        }
    }
}

impl Actor for ClientSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Drive);
        let subscribe = Subscribe {
            client: self.client.id,
            options: self.client.options,
            deliveries: ctx.address().recipient(),
        };
        self.client.subscriptions.subscribe.do_send(subscribe);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        let client = self.client.id;
        self.client
            .subscriptions
            .unsubscribe
            .do_send(Unsubscribe { client });
        info!(
            client,
            peer = %self.client.peer,
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
            Delivery::Snapshot(snapshot) if self.ending == Ending::NotYet => self.send(snapshot),
            Delivery::Snapshot(_) => {}
            Delivery::End(within) => {
                self.ending = Ending::Due;
                self.pending = None;
                ctx.run_later(within, |session, ctx| session.end(CUT_OFF, ctx));
            }
        }
    }
}

fn reason_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => "closed by client",
        _ => "connection failed",
    }
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
