//! The actor that decides when snapshots, events and log lines are published to NATS. The actor also writes to the agent's own
//! log what happens to the connection.
//!
//! In this file, the stream is the JetStream stream that stores events and log lines. A message is in flight after
//! the publisher has taken it from the queue, until the server has confirmed it or until it is put back into the queue.
//!
//! A stream position ([`StreamPosition`]) tells which events and log lines belong to a snapshot or to an earlier snapshot. It is
//! unrelated to JetStream.
//!
//! This file is long: it has all reactions of one actor, and they change the same state.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::fut::wrap_future;
use actix::{
    Actor, ActorContext, ActorFutureExt as _, AsyncContext, Context, Handler, Recipient,
    SpawnHandle,
};
use async_nats::Event;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

use super::delivery::{self, Failure, Prepared, Route};
use super::link::{self, ConnectionEvent};
use super::news;
use super::queue::{MessageKind, Queue, QueuedMessage};
use super::subject::Subjects;
use crate::backoff::jittered;
use crate::messages::{AddOutput, Publication, Reports};
use crate::model::{DEFAULT_MAX_LINE, Encoding, LogMode, Variant};
use crate::published::{LineRequest, LogPiece, PIECE_BYTES, Published, StreamPosition};
use crate::settings::NatsSettings;

/// Limit on the number of messages in flight. Each message in flight has a different subject.
const MAX_IN_FLIGHT: usize = 16;
/// Approximate pause before the agent retries a failed message, and before it looks for the stream again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Approximate pause between two searches for the stream, if there was no stream. The agent searches again because an
/// administrator can create the stream later.
const NO_STREAM_PAUSE: Duration = Duration::from_secs(60);
/// Limit on the number of subjects in the field `begun`.
const MAX_BEGUN: usize = 4096;
/// Limit on the number of different warnings. The count starts again when the connection is established or lost.
const MAX_WARNINGS: usize = 32;
/// Time that is reserved for sending the remaining bytes when the agent stops.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// Publishes snapshots, events and log lines to a NATS server.
///
/// Publishes a new snapshot immediately if no earlier snapshot is in flight. If an earlier snapshot is in flight, only the newest
/// snapshot waits. Events and log lines stay in the buffer until the server has confirmed them. When the buffer is full, the
/// oldest events and log lines are dropped.
pub struct NatsPublisher {
    settings: NatsSettings,
    /// The health of the output, for snapshots.
    reports: Arc<Reports>,
    /// The aggregator, which sends every snapshot to this actor.
    aggregator: Recipient<AddOutput>,
    subjects: Subjects,
    /// The first part of the id of a message with log lines. Each run of each agent has a different first part.
    run_id: String,
    route: Option<Route>,
    echo_refused: watch::Sender<bool>,
    link: ConnectionState,
    /// The task that looks for the stream, immediately or after a pause. None if no search is planned.
    looking: Option<SpawnHandle>,
    /// Whether the agent has already found the stream. If JetStream then does not answer, the agent assumes that the stream still
    /// exists and is only unreachable.
    had_stream: bool,
    /// The warnings that are already logged. The set is cleared when the connection is established or lost.
    warned: HashSet<String>,
    snapshots: Snapshots,
    /// The log lines up to this position were put into the queue. This is not a position in the JetStream stream. None before the
    /// first snapshot.
    since: Option<StreamPosition>,
    /// The number of events that were put into the queue or dropped. None before the first snapshot.
    events: Option<u64>,
    /// The newest snapshot whose log lines are not in the queue yet. They wait in the log files.
    waiting: Option<Arc<Published>>,
    /// Whether log lines are being read from log files.
    reading: bool,
    /// The subjects of the logs whose log lines this run of the agent has already put into the queue. An earlier
    /// run can have published the first log lines of every other log. So the agent first asks the stream for the newest published
    /// line of such a log.
    begun: HashSet<Arc<str>>,
    queue: Queue,
    /// The tasks for messages that were taken from the queue, by the number of the message.
    in_flight: HashMap<u64, SpawnHandle>,
    /// Number of log lines and events that were dropped because the buffer was full. Set to 0 when the queue is empty.
    lost: u64,
    counts: PublishCounts,
    /// Whether the agent is stopping. The publisher then ends when the queue is empty and no snapshot is in flight, or when the
    /// time for stopping is over.
    ending: bool,
    /// Dropped together with the publisher. The receiver then knows that the publisher has ended.
    _ended: oneshot::Sender<()>,
}

/// The state of the connection to the server.
enum ConnectionState {
    /// Not connected.
    Away,
    /// Connected. Only snapshots are published until the agent knows whether there is a stream.
    Preparing,
    /// Connected. Snapshots, events and log lines are published.
    Ready,
}

/// The snapshots that are not published yet. At most one snapshot is in flight, and at most one snapshot waits.
#[derive(Default)]
struct Snapshots {
    /// The newest snapshot, which waits. None if the newest snapshot is already in flight or published.
    newest: Option<Arc<Published>>,
    in_flight: Option<SpawnHandle>,
    /// The number of the first snapshot that the agent tried to publish.
    first: Option<u64>,
}

/// Counts of published snapshots and messages.
#[derive(Debug, Default)]
struct PublishCounts {
    snapshots: u64,
    messages: u64,
}

impl NatsPublisher {
    /// Creates a publisher. `host` is the name of the host. The publisher drops `ended` when the publisher ends.
    #[must_use]
    pub fn new(
        settings: NatsSettings,
        host: &str,
        aggregator: Recipient<AddOutput>,
        reports: Arc<Reports>,
        ended: oneshot::Sender<()>,
    ) -> Self {
        reports.nats.start();
        let subjects = Subjects::of(host);
        let began = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            run_id: format!(
                "{}-{:x}-{:x}",
                subjects.host(),
                began.as_millis(),
                fastrand::u64(..)
            ),
            queue: Queue::new(settings.buffer),
            settings,
            reports,
            aggregator,
            subjects,
            route: None,
            echo_refused: watch::Sender::new(false),
            link: ConnectionState::Away,
            looking: None,
            had_stream: false,
            warned: HashSet::new(),
            snapshots: Snapshots::default(),
            since: None,
            events: None,
            waiting: None,
            reading: false,
            begun: HashSet::new(),
            in_flight: HashMap::new(),
            lost: 0,
            counts: PublishCounts::default(),
            ending: false,
            _ended: ended,
        }
    }

    /// Logs a warning only once. When the connection is established or lost, the same warning can be logged again.
    fn warn_once(&mut self, about: &str, server: Option<&str>, reason: &str) {
        let complaint = format!("{about}: {reason}");
        self.reports.nats.failed("nats", complaint.clone());
        if self.warned.len() < MAX_WARNINGS && self.warned.insert(complaint) {
            warn!(server, reason, "NATS: {about}");
        }
    }

    // The connection.

    fn connected(&mut self, ctx: &mut Context<Self>) {
        let Some(route) = &mut self.route else {
            return;
        };
        let server = route.client.server_info();
        info!(
            server = server.server_name,
            version = server.version,
            "NATS: connected"
        );
        route.kept = None;
        self.warned.clear();
        self.prepare(ctx);
        self.publish_newest(ctx);
    }

    fn disconnected(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.link, ConnectionState::Away) {
            warn!("NATS: connection lost");
        }
        self.reports.nats.failed("nats", "connection lost");
        self.warned.clear();
        self.stop_looking(ctx);
        self.link = ConnectionState::Away;
        self.requeue(ctx);
        if let Some(snapshot) = self.snapshots.in_flight.take() {
            ctx.cancel_future(snapshot);
        }
    }

    /// Puts all messages in flight back into the queue, because the server has possibly not received them.
    fn requeue(&mut self, ctx: &mut Context<Self>) {
        for (number, handle) in self.in_flight.drain() {
            ctx.cancel_future(handle);
            self.queue.retry(number);
        }
    }

    /// Looks for the stream. Until the agent knows whether there is a stream, events and log lines wait.
    fn prepare(&mut self, ctx: &mut Context<Self>) {
        self.link = ConnectionState::Preparing;
        self.look_for_stream(ctx);
    }

    /// Starts a search for the stream immediately.
    fn look_for_stream(&mut self, ctx: &mut Context<Self>) {
        self.stop_looking(ctx);
        let Some(route) = &self.route else {
            return;
        };
        let asked = delivery::prepare(route.client.clone(), self.subjects.clone());
        let asked = wrap_future(asked).map(|prepared, publisher: &mut Self, ctx| {
            publisher.prepared(prepared, ctx);
        });
        self.looking = Some(ctx.spawn(asked));
    }

    /// Plans a search for the stream after a pause. The pause is long if messages are published without a stream.
    fn look_again(&mut self, ctx: &mut Context<Self>) {
        self.stop_looking(ctx);
        let pause = match self.link {
            ConnectionState::Ready => NO_STREAM_PAUSE,
            ConnectionState::Away | ConnectionState::Preparing => RETRY_PAUSE,
        };
        self.looking = Some(ctx.run_later(jittered(pause), Self::look_for_stream));
    }

    fn stop_looking(&mut self, ctx: &mut Context<Self>) {
        if let Some(looking) = self.looking.take() {
            ctx.cancel_future(looking);
        }
    }

    fn prepared(&mut self, prepared: Prepared, ctx: &mut Context<Self>) {
        let Some(route) = &mut self.route else {
            return;
        };
        match prepared {
            Prepared::Stream(kept, differences) => {
                route.kept = Some(kept);
                self.had_stream = true;
                self.looking = None;
                if let Some(differences) = differences {
                    self.warn_once("the stream is not as expected", None, &differences);
                }
                debug!("NATS: the stream stores events and log lines");
                self.link = ConnectionState::Ready;
                self.publish_waiting(ctx);
            }
            Prepared::NoJetStream(reason) if !self.had_stream => {
                self.go_without_stream(&reason, ctx);
                self.look_again(ctx);
            }
            Prepared::NoStream(reason) => {
                self.go_without_stream(&reason, ctx);
                self.look_again(ctx);
            }
            Prepared::NoJetStream(reason) | Prepared::NotYet(reason) => {
                self.warn_once("the stream cannot be looked up", None, &reason);
                self.look_again(ctx);
            }
        }
    }

    /// Starts to publish events and log lines without a stream. The agent does not know whether they are stored.
    fn go_without_stream(&mut self, reason: &str, ctx: &mut Context<Self>) {
        if let Some(route) = &mut self.route {
            route.kept = None;
        }
        self.warn_once("no usable stream for events and log lines", None, reason);
        self.link = ConnectionState::Ready;
        self.publish_waiting(ctx);
    }

    /// Handles an error that the server reports on the connection, for example a missing permission.
    ///
    /// The server does not answer a refused request. Without this error, the agent would only see a timeout.
    fn server_error(&mut self, words: &str, ctx: &mut Context<Self>) {
        let refused = words.strip_prefix("Permissions Violation for ");
        if refused.is_some_and(|refused| refused.contains("\"_INBOX.")) {
            self.echo_refused.send_replace(true);
        }
        if refused.is_some_and(|refused| refused.starts_with("Publish to \"_INBOX.")) {
            // The permission to publish to the agent's own inbox is optional. The agent uses it only to confirm that messages
            // have arrived.
            debug!(words, "NATS: the server reports an error");
            return;
        }
        self.warn_once("the server reports an error", None, words);
        let Some(refused) = refused else {
            return;
        };
        // A server can forward requests to JetStream under another name, for example `$JS.hub.API.…`.
        let asks = |of: &str| refused.contains("\"$JS.") && refused.contains(of);
        if asks(".API.DIRECT.GET.") || asks(".API.STREAM.MSG.GET.") {
            // The agent cannot read which log lines the stream already has, so it publishes all log lines that wait.
            self.requeue(ctx);
            self.queue.resolve_all();
            self.publish_waiting(ctx);
        } else if asks(".API.") || refused.starts_with("Subscription to \"_INBOX") {
            self.requeue(ctx);
            self.go_without_stream("no permission to publish requests to JetStream, or to subscribe to the answers (_INBOX.>)", ctx);
            self.look_again(ctx);
        }
    }

    // Snapshots.

    fn publish_newest(&mut self, ctx: &mut Context<Self>) {
        let Some(route) = &self.route else {
            return;
        };
        if matches!(self.link, ConnectionState::Away) || self.snapshots.in_flight.is_some() {
            return;
        }
        let Some(snapshot) = self.snapshots.newest.take() else {
            return;
        };
        let variant = Variant {
            sections: self.settings.sections,
            logs: LogMode::Tail,
            encoding: self.settings.encoding,
            has_cursor: false,
            max_line: DEFAULT_MAX_LINE,
        };
        let encoded = match snapshot.line(LineRequest::first(variant)) {
            Ok(encoded) => encoded,
            Err(error) => {
                // This error is not expected, because all types of the model can be encoded.
                error!(%error, "NATS: snapshot not encoded");
                return;
            }
        };
        let first = *self.snapshots.first.get_or_insert(encoded.seq);
        let skipped = (encoded.seq - first).saturating_sub(self.counts.snapshots);
        let line = [&encoded.shared[..], encoded.ending(skipped).as_ref()].concat();
        let packed = variant.encoding == Encoding::Zstd;
        let sent = delivery::publish_snapshot(
            route.clone(),
            self.subjects.snapshot(),
            Bytes::from(line),
            packed,
        );
        let sent = wrap_future(sent).map(|sent, publisher: &mut Self, ctx| {
            publisher.snapshots.in_flight = None;
            match sent {
                Ok(()) => {
                    publisher.counts.snapshots += 1;
                    publisher.reports.nats.succeeded("nats");
                }
                Err(failure) => {
                    publisher.warn_once("snapshot not published", None, &failure.to_string());
                }
            }
            publisher.publish_newest(ctx);
            publisher.end_when_done(ctx);
        });
        self.snapshots.in_flight = Some(ctx.spawn(sent));
    }

    // Events and log lines.

    /// Puts the events and log lines that are new in this snapshot into the queue, and publishes them.
    ///
    /// If the queue is half full, only the events go into the queue, and the log lines wait in the log files. If some logs are read
    /// by calls to the engine, all log lines go into the queue, because they would be lost otherwise.
    fn enqueue_new(&mut self, published: Arc<Published>, ctx: &mut Context<Self>) {
        self.enqueue_events(&published);
        self.waiting = Some(published);
        self.publish_waiting(ctx);
    }

    /// Puts the log lines of the waiting snapshot into the queue, if there is space. If the snapshot has not all of them, first
    /// reads the others from the log files.
    fn enqueue_lines(&mut self, ctx: &mut Context<Self>) {
        if self.reading {
            return;
        }
        let is_full = self.queue.is_half_full();
        let is_due = |published: &mut Arc<Published>| !is_full || !published.has_only_file_logs();
        let Some(published) = self.waiting.take_if(is_due) else {
            return;
        };
        let since = self.since.as_ref();
        let Some(unread) = since.and_then(|since| published.unread(since, DEFAULT_MAX_LINE)) else {
            self.enqueue(&published, None);
            return;
        };
        self.reading = true;
        let most = self.queue.longest().min(PIECE_BYTES);
        let read = wrap_future(spawn_blocking(move || unread.read(most)));
        ctx.spawn(read.map(move |piece, publisher: &mut Self, ctx| {
            publisher.reading = false;
            // An error means that the agent is stopping.
            let Ok(piece) = piece else { return };
            publisher.enqueue(&published, Some(&piece));
            if piece.has_more() {
                publisher.waiting.get_or_insert(published);
            }
            publisher.publish_waiting(ctx);
        }));
    }

    /// Puts the events that are new in this snapshot into the queue.
    fn enqueue_events(&mut self, published: &Published) {
        let mut dropped_now = 0;
        let subject = self.subjects.events();
        let after = self.events.replace(published.since().events);
        // The engine can send events from before the agent's start after the first snapshot.
        let after = after.map(|after| after.max(published.old_events()));
        let (events, lost) = published.events(after);
        let mut events = news::event_batches(events, lost).peekable();
        if events.peek().is_none() {
            self.queue.count_lost(&subject, lost);
        }
        for event in events {
            dropped_now += self.queue.push(&subject, MessageKind::Event, event);
        }
        self.count_dropped(dropped_now);
    }

    /// Puts the log lines after the publisher's position into the queue. `piece` has the log lines that are not in the snapshot.
    fn enqueue(&mut self, published: &Published, piece: Option<&LogPiece>) {
        let position = match (piece, &self.since) {
            (Some(piece), _) => piece.position().clone(),
            (None, Some(since)) => published.position_after(since),
            (None, None) => published.since().clone(),
        };
        let since = self.since.replace(position);
        let mut dropped_now = 0;
        let mut begun = Vec::new();
        let lines = published.log_lines(since.as_ref(), piece);
        for (container, dropped) in lines.containers() {
            let subject = self.subjects.logs(container);
            for batch in news::line_batches(lines.lines(container), dropped, self.queue.longest()) {
                let kind = match self.begun.contains(&subject) {
                    true => MessageKind::Lines,
                    false => MessageKind::Tail,
                };
                dropped_now += self.queue.push(&subject, kind, batch);
            }
            begun.push(subject);
        }
        if self.begun.len() + begun.len() > MAX_BEGUN {
            // After this, each log counts as new again. The cost is only one request to the stream for each log.
            self.begun.clear();
        }
        self.begun.extend(begun);
        self.count_dropped(dropped_now);
    }

    /// Counts log lines and events that were dropped because the buffer was full.
    fn count_dropped(&mut self, dropped_now: u64) {
        if dropped_now > 0 && self.lost == 0 {
            warn!(
                buffer = self.settings.buffer,
                "NATS: the buffer is full: the oldest log lines and events are dropped"
            );
        }
        self.lost += dropped_now;
        self.reports.nats.dropped(dropped_now);
    }

    /// Publishes messages from the queue, up to the limit of messages in flight.
    fn publish_waiting(&mut self, ctx: &mut Context<Self>) {
        self.enqueue_lines(ctx);
        while matches!(self.link, ConnectionState::Ready) && self.in_flight.len() < MAX_IN_FLIGHT {
            let Some(outgoing) = self.queue.take() else {
                break;
            };
            self.publish(outgoing, ctx);
        }
        if self.queue.is_empty() && self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            warn!(
                lost,
                "NATS: the buffer is empty again, after log lines and events were dropped"
            );
        }
        let is_waiting = !self.queue.is_empty() || self.waiting.is_some();
        self.reports.nats.waiting(is_waiting);
        self.end_when_done(ctx);
    }

    fn publish(&mut self, outgoing: QueuedMessage, ctx: &mut Context<Self>) {
        let Some(route) = &self.route else {
            return;
        };
        let (number, subject) = (outgoing.number, Arc::clone(&outgoing.subject));
        if outgoing.kind == MessageKind::Tail {
            let Some(kept) = route.kept.clone() else {
                self.queue.resolve(&subject, None);
                return;
            };
            let asked = delivery::last_line(kept, Arc::clone(&subject));
            let asked = wrap_future(asked).map(move |last, publisher: &mut Self, ctx| match last {
                Ok(last) => {
                    publisher.in_flight.remove(&number);
                    publisher.queue.resolve(&subject, last.as_deref());
                    publisher.publish_waiting(ctx);
                }
                Err(failure) => publisher.failed(number, &failure, ctx),
            });
            self.in_flight.insert(number, ctx.spawn(asked));
            return;
        }
        let id = match outgoing.kind {
            // The id depends only on the event. When an agent starts, it reads recent events. An earlier run has possibly
            // published them already. The stream recognizes a repeated event by its id.
            MessageKind::Event => format!(
                "{}-event-{:016x}",
                self.subjects.host(),
                hash(&outgoing.text)
            ),
            MessageKind::Lines | MessageKind::Tail => format!("{}-{number}", self.run_id),
        };
        let most = route.longest_message();
        let longest = self.queue.piece(number, route.longest(&id));
        let strict = self.queue.is_refused(number);
        let sent = delivery::publish(route.clone(), id, outgoing, longest, strict);
        let sent = wrap_future(sent).map(move |sent, publisher: &mut Self, ctx| match sent {
            Ok(published) => {
                publisher.in_flight.remove(&number);
                publisher.counts.messages += 1;
                if published.too_long > 0 {
                    publisher.warn_once(
                        "log lines or events that are too long for a message are dropped and counted",
                        None,
                        &format!("the limit is {most} bytes, including the headers"),
                    );
                }
                let count = publisher.queue.settle(number, published.unreported);
                publisher.reports.nats.sent(count - published.too_long.min(count));
                publisher.reports.nats.dropped(published.too_long);
                publisher.publish_waiting(ctx);
            }
            Err(failure) => publisher.failed(number, &failure, ctx),
        });
        self.in_flight.insert(number, ctx.spawn(sent));
    }

    /// Retries a message after a pause. If the stream is gone, or if the message is too long, looks for the stream first.
    fn failed(&mut self, number: u64, failure: &Failure, ctx: &mut Context<Self>) {
        self.warn_once("message not published", None, &failure.to_string());
        let again = ctx.run_later(jittered(RETRY_PAUSE), move |publisher, ctx| {
            publisher.in_flight.remove(&number);
            publisher.queue.retry(number);
            publisher.publish_waiting(ctx);
        });
        self.in_flight.insert(number, again);
        if matches!(failure, Failure::TooLong) {
            self.queue.refuse(number);
        }
        // The stream was possibly replaced, or the limits of the stream have changed.
        let other = matches!(failure, Failure::NoStream | Failure::TooLong);
        if other && matches!(self.link, ConnectionState::Ready) {
            self.prepare(ctx);
        }
    }

    // The end of the publisher.

    /// Ends the publisher if the agent is stopping, the queue is empty and no snapshot is in flight. Without a connection, the
    /// newest snapshot can still wait. It is then not published.
    fn end_when_done(&mut self, ctx: &mut Context<Self>) {
        let all_read = self.waiting.is_none() && !self.reading;
        if self.ending && all_read && self.queue.is_empty() && self.snapshots.in_flight.is_none() {
            self.end(ctx);
        }
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        let (left, counts) = (self.queue.waiting(), &self.counts);
        let (snapshots, messages) = (counts.snapshots, counts.messages);
        match left {
            0 => info!(
                snapshots,
                messages, "NATS: stopped, and no log lines or events are left in the buffer"
            ),
            _ => warn!(
                snapshots,
                messages, left, "NATS: stopped, but log lines or events are left in the buffer"
            ),
        }
        ctx.stop();
    }
}

/// Returns a hash of an event's text. For the same text, all agents of one build compute the same hash.
fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

impl Actor for NatsPublisher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (settings, subjects) = (self.settings.clone(), self.subjects.clone());
        let news = ctx.address().recipient();
        let begun = async move { link::connect(&settings, &subjects, news).await };
        ctx.wait(
            wrap_future(begun).map(|begun, publisher: &mut Self, ctx| match begun {
                Ok(client) => {
                    publisher.route = Some(Route {
                        client,
                        echo_refused: publisher.echo_refused.subscribe(),
                        kept: None,
                    });
                    let output = ctx.address().recipient();
                    let sections = publisher.settings.sections;
                    publisher.aggregator.do_send(AddOutput { output, sections });
                }
                Err(error) => {
                    error!(%error, "NATS: cannot start, nothing is published");
                    ctx.stop();
                }
            }),
        );
    }
}

impl Handler<ConnectionEvent> for NatsPublisher {
    type Result = ();

    fn handle(&mut self, news: ConnectionEvent, ctx: &mut Self::Context) {
        match news {
            ConnectionEvent::Event(Event::Connected) => self.connected(ctx),
            ConnectionEvent::Event(Event::Disconnected) => self.disconnected(ctx),
            ConnectionEvent::Event(Event::ServerError(error)) => {
                let words = error.to_string();
                self.server_error(words.strip_prefix("nats: ").unwrap_or(&words), ctx);
            }
            ConnectionEvent::Event(Event::ClientError(error)) => {
                let words = error.to_string();
                let words = words.strip_prefix("nats: ").unwrap_or(&words);
                // Only a DNS error is handled here. The other client errors also arrive as `ConnectionEvent::Failed`, with the
                // server's name.
                if words == "DNS error" {
                    self.warn_once(
                        "not connected",
                        None,
                        "the name of a server cannot be resolved",
                    );
                }
            }
            ConnectionEvent::Event(event) => debug!(%event, "NATS"),
            ConnectionEvent::Failed(failed) => {
                for (server, reason) in failed {
                    self.warn_once("not connected", Some(&server), &reason);
                }
            }
        }
    }
}

impl Handler<Publication> for NatsPublisher {
    type Result = ();

    fn handle(&mut self, publication: Publication, ctx: &mut Self::Context) {
        match publication {
            Publication::Published(_) if self.ending => {}
            Publication::Published(published) => {
                self.snapshots.newest = Some(Arc::clone(&published));
                self.publish_newest(ctx);
                self.enqueue_new(published, ctx);
            }
            Publication::End(within) => {
                self.ending = true;
                ctx.run_later(within.saturating_sub(FLUSH_TIME), Self::end);
                self.end_when_done(ctx);
            }
        }
    }
}
