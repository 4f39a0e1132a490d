//! The session of one client. A session sends snapshots, counts skipped snapshots, and closes the connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, Running};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::info;

use super::connection::{Connection, Outgoing};
use crate::messages::{CatchUp, ClientId, Delivery, FindLog, HistorySent, Subscribe, Unsubscribe};
use crate::model::Options;
use crate::published::{EncodedSnapshot, StreamPosition};

/// Time that a client has to close its sending side, after the session has closed its own sending side.
const LINGER: Duration = Duration::from_secs(1);
/// After a client has closed its sending side, the session checks at this interval whether the client has closed the whole
/// connection.
const HALF_CLOSED_INTERVAL: Duration = Duration::from_secs(1);

/// The reason in the log if a session ends because the agent stops.
const STOPPING: &str = "agent stopping";
/// The reason in the log if the time for stopping ends before the session has ended.
const CUT_OFF: &str = "agent stopping, client did not finish reading in time";

/// The aggregator's addresses for the messages of sessions.
#[derive(Clone)]
pub struct Subscriptions {
    /// Adds a session.
    pub subscribe: Recipient<Subscribe>,
    /// Sends a session a snapshot with the log lines and events that the session lacks.
    pub catch_up: Recipient<CatchUp>,
    /// Sends a session the next figures of the past, or else its first snapshot.
    pub history_sent: Recipient<HistorySent>,
    /// Removes a session.
    pub unsubscribe: Recipient<Unsubscribe>,
    /// Finds the log files of a container.
    pub find_log: Recipient<FindLog>,
    /// The permits for readings of log files, for clients that ask for older log lines.
    pub readings: Arc<Semaphore>,
}

/// A client that has authenticated, and its options.
pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) id: ClientId,
    pub(super) peer: SocketAddr,
    pub(super) options: Options,
    pub(super) write_timeout: Duration,
    pub(super) subscriptions: Subscriptions,
    /// The permit of the client. When the session ends, another client can get this permit.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Sends snapshots to one client. Only the session writes to the connection.
///
/// The session writes one JSON line at a time. Meanwhile only the newest snapshot waits.
pub struct ClientSession {
    client: Client,
    /// The JSON line that is being written.
    outgoing: Option<Outgoing>,
    /// Whether there are more log lines up to the snapshot that is being written than this JSON line has.
    has_more: bool,
    /// Whether `outgoing` has only events and log lines, and is no snapshot.
    is_news: bool,
    /// Whether `outgoing` has figures of the past. The aggregator sends nothing else meanwhile.
    is_history: bool,
    /// Whether a JSON line with events and log lines was dropped, because a snapshot waits.
    has_missed_news: bool,
    /// The newest snapshot that arrived while `outgoing` was being written.
    pending: Option<Arc<EncodedSnapshot>>,
    /// Set when a write of the current JSON line blocks. Cleared when the line is written. The first value is the number of
    /// bytes that the kernel had accepted on this connection when the write timeout started. The second value is the write
    /// timeout.
    stalled: Option<(u64, Pin<Box<Sleep>>)>,
    /// The stream position of the newest snapshot that was sent or is being sent. None before the first snapshot.
    since: Option<StreamPosition>,
    /// Whether the session has requested a snapshot that continues at `since`, and waits for that snapshot.
    catching_up: bool,
    incoming: Incoming,
    /// The state of the agent's sending side.
    ending: Ending,
    counts: Counts,
    connected: Instant,
    reason: &'static str,
}

/// The state of the client's sending side.
enum Incoming {
    Open,
    /// The client has closed its sending side, but can possibly still receive.
    ///
    /// A client that has closed the whole connection answers the next bytes, or the next keep-alive probe, with a reset.
    /// Reading does not report this reset. Therefore, the session checks the socket's error each time that this timer ends.
    Closed(Pin<Box<Sleep>>),
}

/// The state of the agent's sending side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The session sends snapshots.
    NotYet,
    /// The agent stops. The session finishes the current JSON line, and then closes its sending side.
    Due,
    /// The session has closed its sending side.
    Closed,
}

/// Counts of sent and skipped snapshots.
#[derive(Debug, Default)]
struct Counts {
    /// The number of the first sent snapshot. None before the first snapshot.
    first: Option<u64>,
    /// The number of the newest sent snapshot. None before the first snapshot.
    newest: Option<u64>,
    /// Number of different snapshots that were sent or are being sent.
    different: u64,
    /// Number of completely sent JSON lines.
    sent: u64,
    /// Number of skipped snapshots so far.
    skipped: u64,
}

impl Counts {
    /// Updates the number of skipped snapshots before the snapshot `seq`. Returns this number. The session calls this function
    /// before it sends the snapshot.
    ///
    /// The first snapshot and every n-th snapshot after it are due, where n is the client's option `every`. A snapshot that was
    /// due and was not sent counts as skipped.
    fn begin(&mut self, seq: u64, every: u32) -> u64 {
        let first = *self.first.get_or_insert(seq);
        let meant = seq.saturating_sub(first) / u64::from(every);
        // A snapshot that was requested with `CatchUp` can be sent without being due. It must not decrease the count.
        self.skipped = meant.saturating_sub(self.different).max(self.skipped);
        // The same snapshot is sent again if there were too many log lines for one JSON line.
        self.different += u64::from(self.newest != Some(seq));
        self.newest = Some(seq);
        self.skipped
    }
}

impl ClientSession {
    /// Starts the session of a client on the current thread.
    pub(super) fn begin(mut client: Client) {
        if let Err(error) = client.connection.attach() {
            info!(client = client.id, peer = %client.peer, reason = %error, "client connection lost");
            return;
        }
        Self {
            client,
            outgoing: None,
            has_more: false,
            is_news: false,
            is_history: false,
            has_missed_news: false,
            pending: None,
            stalled: None,
            since: None,
            catching_up: false,
            incoming: Incoming::Open,
            ending: Ending::NotYet,
            counts: Counts::default(),
            connected: Instant::now(),
            reason: "closed",
        }
        .start();
    }

    /// Starts to send a snapshot. If a JSON line is being written, the snapshot waits, and replaces an older one that waits.
    ///
    /// Does not send the snapshot if it lacks log lines or events that came after the previously sent snapshot. In this case,
    /// requests a snapshot that has all of them.
    fn send(&mut self, snapshot: Arc<EncodedSnapshot>) {
        if self.outgoing.is_some() {
            let is_snapshot = |line: &Arc<EncodedSnapshot>| !line.is_news;
            if snapshot.is_news && self.pending.as_ref().is_some_and(is_snapshot) {
                self.has_missed_news = true;
            } else {
                self.pending = Some(snapshot);
            }
            return;
        }
        if let Some(since) = &self.since
            && snapshot.lacks_something_after(since)
        {
            self.catch_up(snapshot.is_news);
            return;
        }
        self.catching_up = false;
        self.has_more = snapshot.more;
        self.is_news = snapshot.is_news;
        self.since = Some(snapshot.since.clone());
        if !snapshot.is_news {
            let every = self.client.options.every.get();
            self.counts.begin(snapshot.seq, every);
        }
        let skipped = self.counts.skipped;
        self.outgoing = Some(Outgoing::new(&snapshot, skipped));
    }

    /// Starts to send figures of the past.
    fn send_history(&mut self, line: Bytes) {
        self.is_history = true;
        self.outgoing = Some(Outgoing::complete(line));
    }

    /// Whether a snapshot is due that the client did not get. Only a live client gets something else than snapshots.
    fn lacks_snapshot(&self) -> bool {
        let newest = self.since.as_ref().map_or(0, |since| since.seq);
        let sent = self.counts.newest.unwrap_or(0);
        let every = u64::from(self.client.options.every.get());
        !self.client.options.live || newest.saturating_sub(sent) >= every
    }

    /// Requests a snapshot that continues at the client's position, or, if `is_news`, only the events and log lines after that
    /// position. Does nothing if such a request is not answered yet.
    fn catch_up(&mut self, is_news: bool) {
        if let Some(since) = &self.since
            && !std::mem::replace(&mut self.catching_up, true)
        {
            self.client.subscriptions.catch_up.do_send(CatchUp {
                client: self.client.id,
                since: since.clone(),
                is_news,
            });
        }
    }

    /// Writes, reads and closes as far as possible without waiting. If the session must end, returns the reason as an error.
    fn drive(
        &mut self,
        ctx: &mut Context<Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Result<(), &'static str> {
        // Writing comes first, so that a client that sends without pause cannot prevent it.
        self.write(cx)?;
        self.read(cx)?;
        if self.ending == Ending::Due && self.outgoing.is_none() {
            self.close(ctx, cx)?;
        }
        Ok(())
    }

    /// Reads and ignores the bytes that the client sends. Fails after an error, or when both sides are closed. If only the
    /// client's sending side is closed, the session continues, because the client can still receive.
    fn read(&mut self, cx: &mut std::task::Context<'_>) -> Result<(), &'static str> {
        let connection = &mut self.client.connection;
        if let Incoming::Closed(check) = &mut self.incoming {
            if check.as_mut().poll(cx).is_pending() {
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
        let mut check = Box::pin(sleep(HALF_CLOSED_INTERVAL));
        // A timer wakes the session only if it was polled at least once.
        let _ = check.as_mut().poll(cx);
        self.incoming = Incoming::Closed(check);
        Ok(())
    }

    /// Writes the current JSON line, and then the newest snapshot if one waits.
    fn write(&mut self, cx: &mut std::task::Context<'_>) -> Result<(), &'static str> {
        while let Some(line) = &mut self.outgoing {
            match self.client.connection.poll_send(line, cx) {
                Poll::Pending => return self.stall(cx),
                Poll::Ready(Err(error)) => return Err(reason_of(&error)),
                Poll::Ready(Ok(())) => {
                    (self.outgoing, self.stalled) = (None, None);
                    if std::mem::take(&mut self.is_history) {
                        let client = self.client.id;
                        let sent = HistorySent { client };
                        self.client.subscriptions.history_sent.do_send(sent);
                        continue;
                    }
                    self.counts.sent += u64::from(!self.is_news);
                    if std::mem::take(&mut self.has_more) && self.ending == Ending::NotYet {
                        self.pending = None;
                        self.catch_up(!self.lacks_snapshot());
                    } else if let Some(newest) = self.pending.take() {
                        self.send(newest);
                    } else if std::mem::take(&mut self.has_missed_news) {
                        self.catch_up(true);
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts the write timeout if it is not running. Starts it again if the kernel has accepted bytes since its start. Fails
    /// when the write timeout ends.
    fn stall(&mut self, cx: &mut std::task::Context<'_>) -> Result<(), &'static str> {
        let written = self.client.connection.written();
        let timeout = self.client.write_timeout;
        let (accepted, end) = self
            .stalled
            .get_or_insert_with(|| (written, Box::pin(sleep(timeout))));
        if *accepted != written {
            *accepted = written;
            let new_end = tokio::time::Instant::now() + timeout;
            end.as_mut().reset(new_end);
        }
        match end.as_mut().poll(cx) {
            Poll::Ready(()) => Err("write timeout"),
            Poll::Pending => Ok(()),
        }
    }

    /// Closes the agent's sending side. The session ends when the client has closed its sending side too, or after [`LINGER`].
    ///
    /// If the agent closed both sides at once, and the client then sent anything, the kernel would reset the connection. The
    /// client would lose the bytes that it has not read yet.
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

/// The future that reads and writes a session's connection until the session ends. The actor's context also polls this future
/// after each message to the actor, for example a delivery. So the session needs no new future for each JSON line.
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
            options: self.client.options.clone(),
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
            snapshots = self.counts.sent,
            skipped = self.counts.skipped,
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
            Delivery::History(line) if self.ending == Ending::NotYet => self.send_history(line),
            Delivery::Snapshot(_) | Delivery::History(_) => {}
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
    use super::Counts;

    #[test]
    fn a_snapshot_that_was_not_sent_is_counted_as_skipped() {
        let mut counts = Counts::default();
        let every = 1;
        let mut sent = |seq| counts.begin(seq, every);
        assert_eq!(sent(41), 0);
        assert_eq!(sent(42), 0);
        assert_eq!(sent(45), 2);
        assert_eq!(sent(46), 2);
        assert_eq!(sent(46), 2);
        assert_eq!(sent(50), 5);
    }

    #[test]
    fn a_snapshot_that_was_not_meant_for_the_client_is_not_counted_as_skipped() {
        let mut counts = Counts::default();
        let mut sent = |seq| counts.begin(seq, 3);
        assert_eq!([sent(4), sent(7), sent(10)], [0, 0, 0]);
        assert_eq!(sent(19), 2);
        // Snapshot 20 is not due. It was requested with `CatchUp`.
        assert_eq!([sent(20), sent(22)], [2, 2]);
    }
}
