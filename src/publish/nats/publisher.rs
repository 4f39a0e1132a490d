//! What is published when, and what the log says of it.

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
use tracing::{debug, error, info, warn};

use super::delivery::{self, Failure, Prepared, Route};
use super::link::{self, ConnectionEvent};
use super::news;
use super::queue::{MessageKind, Queue, QueuedMessage};
use super::subject::Subjects;
use crate::backoff::jittered;
use crate::messages::{AddOutput, Publication};
use crate::model::{Encoding, LogMode, Variant};
use crate::published::{Published, StreamPosition};
use crate::settings::NatsSettings;

/// How many messages are on their way at once, each of another subject.
const MOST_ON_THEIR_WAY: usize = 16;
/// The pause before a message that was not taken comes again, or the server is asked for the stream again: about that.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where everything is published without a stream meanwhile: somebody may make one.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// Of how many logs it is remembered that they have begun.
const MOST_BEGUN: usize = 4096;
/// How many different complaints are told of one connection, or of one time without.
const MOST_TOLD: usize = 32;
/// How long the last bytes may take to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Publishes to a NATS server: each snapshot once it is there, if the one before has arrived, and every event and log line, each
/// kept until the server has it.
pub struct NatsPublisher {
    settings: NatsSettings,
    /// Hands over every snapshot.
    aggregator: Recipient<AddOutput>,
    subjects: Subjects,
    /// Before the number in a message's id: told from other agents' and from those of this one's earlier lives.
    life: String,
    route: Option<Route>,
    echo_refused: watch::Sender<bool>,
    link: ConnectionState,
    /// What asks for the stream, now or after a pause.
    asking: Option<SpawnHandle>,
    /// There was a stream: where nobody answers who could have one, it is out of reach and not gone.
    had_stream: bool,
    /// Complaints that the log has of this connection, or of this time without.
    told: HashSet<String>,
    snapshots: Snapshots,
    /// Up to where events and log lines have been taken in; none before the first snapshot.
    since: Option<StreamPosition>,
    /// The subjects of logs of which this agent has taken in lines: what comes first of one may have been published by an agent
    /// before it.
    begun: HashSet<Arc<str>>,
    queue: Queue,
    /// What is done about messages that were taken out of the queue.
    on_their_way: HashMap<u64, SpawnHandle>,
    /// How many lines and events had to go since a server took all there were.
    lost: u64,
    account: PublishCounts,
    /// The agent is stopping: as soon as all is out.
    ending: bool,
    /// Dropped when the publisher has ended.
    _ended: oneshot::Sender<()>,
}

/// How far the connection is.
enum ConnectionState {
    /// There is none.
    Away,
    /// There is one, and nothing but snapshots is published until it is known whether there is a stream.
    Preparing,
    /// Everything can be published.
    Ready,
}

/// Of the snapshots only the newest counts.
#[derive(Default)]
struct Snapshots {
    newest: Option<Arc<Published>>,
    on_its_way: Option<SpawnHandle>,
    /// The number of the first that was meant to go out.
    first: Option<u64>,
}

/// What has been published.
#[derive(Debug, Default)]
struct PublishCounts {
    snapshots: u64,
    messages: u64,
}

impl NatsPublisher {
    /// A publisher of the snapshots of a host with this name. `ended` is dropped when it has ended.
    #[must_use]
    pub fn new(
        settings: NatsSettings,
        host: &str,
        aggregator: Recipient<AddOutput>,
        ended: oneshot::Sender<()>,
    ) -> Self {
        let subjects = Subjects::of(host);
        let began = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            life: format!(
                "{}-{:x}-{:x}",
                subjects.host(),
                began.as_millis(),
                fastrand::u64(..)
            ),
            queue: Queue::new(settings.buffer),
            settings,
            aggregator,
            subjects,
            route: None,
            echo_refused: watch::Sender::new(false),
            link: ConnectionState::Away,
            asking: None,
            had_stream: false,
            told: HashSet::new(),
            snapshots: Snapshots::default(),
            since: None,
            begun: HashSet::new(),
            on_their_way: HashMap::new(),
            lost: 0,
            account: PublishCounts::default(),
            ending: false,
            _ended: ended,
        }
    }

    /// Warns of something, once for each connection or time without.
    fn complain(&mut self, about: &str, server: Option<&str>, reason: &str) {
        let complaint = format!("{about}: {reason}");
        if self.told.len() < MOST_TOLD && self.told.insert(complaint) {
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
        self.told.clear();
        self.prepare(ctx);
        self.publish_newest(ctx);
    }

    fn disconnected(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.link, ConnectionState::Away) {
            warn!("NATS: connection lost");
        }
        self.told.clear();
        self.stop_asking(ctx);
        self.link = ConnectionState::Away;
        self.call_back(ctx);
        if let Some(snapshot) = self.snapshots.on_its_way.take() {
            ctx.cancel_future(snapshot);
        }
    }

    /// Whatever is on its way may be lost with the connection: it comes again.
    fn call_back(&mut self, ctx: &mut Context<Self>) {
        for (number, handle) in self.on_their_way.drain() {
            ctx.cancel_future(handle);
            self.queue.retry(number);
        }
    }

    /// Holds back events and log lines until it is known whether there is a stream.
    fn prepare(&mut self, ctx: &mut Context<Self>) {
        self.link = ConnectionState::Preparing;
        self.ask(ctx);
    }

    /// Asks for the stream.
    fn ask(&mut self, ctx: &mut Context<Self>) {
        self.stop_asking(ctx);
        let Some(route) = &self.route else {
            return;
        };
        let asked = delivery::prepare(route.client.clone(), self.subjects.clone());
        let asked = wrap_future(asked).map(|prepared, publisher: &mut Self, ctx| {
            publisher.prepared(prepared, ctx);
        });
        self.asking = Some(ctx.spawn(asked));
    }

    /// Asks for the stream after a pause, which is long where nothing waits for the answer.
    fn ask_again(&mut self, ctx: &mut Context<Self>) {
        self.stop_asking(ctx);
        let pause = match self.link {
            ConnectionState::Ready => LONG_PAUSE,
            ConnectionState::Away | ConnectionState::Preparing => PAUSE,
        };
        self.asking = Some(ctx.run_later(jittered(pause), Self::ask));
    }

    fn stop_asking(&mut self, ctx: &mut Context<Self>) {
        if let Some(asking) = self.asking.take() {
            ctx.cancel_future(asking);
        }
    }

    fn prepared(&mut self, prepared: Prepared, ctx: &mut Context<Self>) {
        let Some(route) = &mut self.route else {
            return;
        };
        match prepared {
            Prepared::Stream(kept, odd) => {
                route.kept = Some(kept);
                self.had_stream = true;
                self.asking = None;
                if let Some(odd) = odd {
                    self.complain("the stream is not as expected", None, &odd);
                }
                debug!("NATS: events and log lines are stored");
                self.link = ConnectionState::Ready;
                self.publish_waiting(ctx);
            }
            Prepared::NoJetStream(reason) if !self.had_stream => {
                self.go_without_stream(&reason, ctx);
                self.ask_again(ctx);
            }
            Prepared::NoStream(reason) => {
                self.go_without_stream(&reason, ctx);
                self.ask_again(ctx);
            }
            Prepared::NoJetStream(reason) | Prepared::NotYet(reason) => {
                self.complain("the stream cannot be asked for", None, &reason);
                self.ask_again(ctx);
            }
        }
    }

    /// Publishes events and log lines to whoever listens.
    fn go_without_stream(&mut self, reason: &str, ctx: &mut Context<Self>) {
        if let Some(route) = &mut self.route {
            route.kept = None;
        }
        self.complain(
            "no stream: events and log lines are not stored",
            None,
            reason,
        );
        self.link = ConnectionState::Ready;
        self.publish_waiting(ctx);
    }

    /// The server complains, or has refused something. It does not say so to whom waits for an answer.
    fn server_says(&mut self, words: &str, ctx: &mut Context<Self>) {
        let refused = words.strip_prefix("Permissions Violation for ");
        if refused.is_some_and(|refused| refused.contains("\"_INBOX.")) {
            self.echo_refused.send_replace(true);
        }
        if refused.is_some_and(|refused| refused.starts_with("Publish to \"_INBOX.")) {
            // Nobody has to allow that.
            debug!(words, "NATS: the server says");
            return;
        }
        self.complain("the server says", None, words);
        let Some(refused) = refused else {
            return;
        };
        // A server may pass what JetStream is asked on by another name: `$JS.hub.API.…`.
        let asks = |of: &str| refused.contains("\"$JS.") && refused.contains(of);
        if asks(".API.DIRECT.GET.") || asks(".API.STREAM.MSG.GET.") {
            self.call_back(ctx);
            self.queue.resolve_all();
            self.publish_waiting(ctx);
        } else if asks(".API.") || refused.starts_with("Subscription to \"_INBOX") {
            // Nothing is asked for, or no answer and no acknowledgement will come.
            self.call_back(ctx);
            self.go_without_stream("no permission", ctx);
            self.ask_again(ctx);
        }
    }

    // Snapshots.

    fn publish_newest(&mut self, ctx: &mut Context<Self>) {
        let Some(route) = &self.route else {
            return;
        };
        if matches!(self.link, ConnectionState::Away) || self.snapshots.on_its_way.is_some() {
            return;
        }
        let Some(snapshot) = self.snapshots.newest.take() else {
            return;
        };
        let variant = Variant {
            sections: self.settings.sections,
            logs: LogMode::Tail,
            encoding: self.settings.encoding,
        };
        let encoded = match snapshot.line(variant, None, false) {
            Ok(encoded) => encoded,
            Err(error) => {
                // The model's types rule it out.
                error!(%error, "NATS: snapshot not encoded");
                return;
            }
        };
        let first = *self.snapshots.first.get_or_insert(encoded.seq);
        let skipped = (encoded.seq - first).saturating_sub(self.account.snapshots);
        let line = [&encoded.shared[..], encoded.ending(skipped).as_ref()].concat();
        let packed = variant.encoding == Encoding::Zstd;
        let sent = delivery::publish_snapshot(
            route.clone(),
            self.subjects.snapshot(),
            Bytes::from(line),
            packed,
        );
        let sent = wrap_future(sent).map(|sent, publisher: &mut Self, ctx| {
            publisher.snapshots.on_its_way = None;
            match sent {
                Ok(()) => publisher.account.snapshots += 1,
                Err(failure) => {
                    publisher.complain("snapshot not published", None, &failure.to_string());
                }
            }
            publisher.publish_newest(ctx);
            publisher.end_when_done(ctx);
        });
        self.snapshots.on_its_way = Some(ctx.spawn(sent));
    }

    // Events and log lines.

    /// Takes in the events and log lines that came after those that were taken in before.
    fn take_in(&mut self, published: &Published, ctx: &mut Context<Self>) {
        let since = self.since.replace(published.since());
        self.enqueue(published, since.as_ref());
        self.publish_waiting(ctx);
    }

    fn enqueue(&mut self, published: &Published, since: Option<&StreamPosition>) {
        let mut gone = 0;
        let subject = self.subjects.events();
        let (events, lost) = published.events(since.map(|since| since.events));
        let mut events = news::event_batches(events, lost).peekable();
        if events.peek().is_none() {
            self.queue.lose(&subject, lost);
        }
        for event in events {
            gone += self.queue.push(&subject, MessageKind::Event, event);
        }
        let mut begun = Vec::new();
        let lines = published.log_lines(since);
        for (container, dropped) in lines.containers() {
            let subject = self.subjects.logs(container);
            for batch in news::line_batches(lines.lines(container), dropped, self.queue.longest()) {
                let kind = match self.begun.contains(&subject) {
                    true => MessageKind::Lines,
                    false => MessageKind::Tail,
                };
                gone += self.queue.push(&subject, kind, batch);
            }
            begun.push(subject);
        }
        if self.begun.len() + begun.len() > MOST_BEGUN {
            // They begin anew, which costs a question each and nothing else.
            self.begun.clear();
        }
        self.begun.extend(begun);
        if gone > 0 && self.lost == 0 {
            warn!(
                buffer = self.settings.buffer,
                "NATS: the buffer is full: the oldest log lines and events go"
            );
        }
        self.lost += gone;
    }

    fn publish_waiting(&mut self, ctx: &mut Context<Self>) {
        while matches!(self.link, ConnectionState::Ready)
            && self.on_their_way.len() < MOST_ON_THEIR_WAY
        {
            let Some(outgoing) = self.queue.take() else {
                break;
            };
            self.publish(outgoing, ctx);
        }
        if self.queue.is_empty() && self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            warn!(
                lost,
                "NATS: all that was kept is out; log lines and events that had to go"
            );
        }
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
                    publisher.on_their_way.remove(&number);
                    publisher.queue.resolve(&subject, last.as_deref());
                    publisher.publish_waiting(ctx);
                }
                Err(failure) => publisher.failed(number, &failure, ctx),
            });
            self.on_their_way.insert(number, ctx.spawn(asked));
            return;
        }
        let id = match outgoing.kind {
            // An agent that starts is told of what has just happened, and so was the one before it.
            MessageKind::Event => format!(
                "{}-event-{:016x}",
                self.subjects.host(),
                hash(&outgoing.text)
            ),
            MessageKind::Lines | MessageKind::Tail => format!("{}-{number}", self.life),
        };
        let most = route.longest_message();
        let longest = self.queue.piece(number, route.longest(&id));
        let strict = self.queue.is_refused(number);
        let sent = delivery::publish(route.clone(), id, outgoing, longest, strict);
        let sent = wrap_future(sent).map(move |sent, publisher: &mut Self, ctx| match sent {
            Ok(published) => {
                publisher.on_their_way.remove(&number);
                publisher.account.messages += 1;
                if published.too_long > 0 {
                    publisher.complain(
                        "log lines or events that are too long for a message are left out and counted",
                        None,
                        &format!("a message may have {most} bytes, with its headers"),
                    );
                }
                publisher.queue.settle(number, published.unsaid);
                publisher.publish_waiting(ctx);
            }
            Err(failure) => publisher.failed(number, &failure, ctx),
        });
        self.on_their_way.insert(number, ctx.spawn(sent));
    }

    /// A message comes again after a pause, and after the stream has been asked for where it is gone.
    fn failed(&mut self, number: u64, failure: &Failure, ctx: &mut Context<Self>) {
        self.complain("not published", None, &failure.to_string());
        let again = ctx.run_later(jittered(PAUSE), move |publisher, ctx| {
            publisher.on_their_way.remove(&number);
            publisher.queue.retry(number);
            publisher.publish_waiting(ctx);
        });
        self.on_their_way.insert(number, again);
        if matches!(failure, Failure::TooLong) {
            self.queue.refuse(number);
        }
        // The stream may be another one by now, or be limited otherwise.
        let other = matches!(failure, Failure::NoStream | Failure::TooLong);
        if other && matches!(self.link, ConnectionState::Ready) {
            self.prepare(ctx);
        }
    }

    // The end.

    /// Ends once nothing is left to be published.
    fn end_when_done(&mut self, ctx: &mut Context<Self>) {
        if self.ending && self.queue.is_empty() && self.snapshots.on_its_way.is_none() {
            self.end(ctx);
        }
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        let (left, account) = (self.queue.waiting(), &self.account);
        let (snapshots, messages) = (account.snapshots, account.messages);
        match left {
            0 => info!(snapshots, messages, "NATS: all is published"),
            _ => warn!(
                snapshots,
                messages, left, "NATS: log lines and events are left that no server took"
            ),
        }
        ctx.stop();
    }
}

/// The same for the same text, in every agent of this build.
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
                    publisher.aggregator.do_send(AddOutput { output });
                }
                Err(error) => {
                    error!(%error, "NATS: nothing is published");
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
                self.server_says(words.strip_prefix("nats: ").unwrap_or(&words), ctx);
            }
            ConnectionEvent::Event(Event::ClientError(error)) => {
                let words = error.to_string();
                let words = words.strip_prefix("nats: ").unwrap_or(&words);
                // All others come with the server's name.
                if words == "DNS error" {
                    self.complain("not connected", None, "a server's name has no address");
                }
            }
            ConnectionEvent::Event(event) => debug!(%event, "NATS"),
            ConnectionEvent::Failed(failed) => {
                for (server, reason) in failed {
                    self.complain("not connected", Some(&server), &reason);
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
                self.take_in(&published, ctx);
            }
            Publication::End(within) => {
                self.ending = true;
                ctx.run_later(within.saturating_sub(LAST_WORDS), Self::end);
                self.end_when_done(ctx);
            }
        }
    }
}
