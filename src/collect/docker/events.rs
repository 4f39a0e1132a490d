//! Follows the engine's event stream. Stores the events to publish, and collects the ids of the containers with events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{Stream, StreamExt};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tracing::debug;

use super::choice::ContainerChoice;
use super::json::Json;
use super::listing::{SHORT_ID, id_in, labels};
use super::pieces::Piece;
use crate::model::{ContainerEvent, EventAction, Events, Timestamp};
use crate::settings::ContainerFacts;

/// Maximum number of container ids in one batch of events.
const MAX_TOUCHED: usize = 1024;
/// A new event stream starts at least this long ago. So it has the events that happened shortly before the next container list.
const OVERLAP: Duration = Duration::from_secs(2);
/// While no event is stored, a new event stream starts this long ago. A client that connected to an earlier run of the agent can
/// then get the events that happened while no agent ran, if the engine still has them.
const PAST: Duration = Duration::from_secs(3600);
/// Maximum time after the start of the first event stream in which the engine sends old events.
const MAX_REPLAY: Duration = Duration::from_secs(60);

/// Maximum number of starts of containers that wait for the logs source. If there are more, the oldest are dropped. Their logs are
/// then opened when the container list has the containers.
const MAX_STARTS: usize = 256;

/// Attributes of events that are no labels of the container.
const OWN_ATTRIBUTES: [&str; 10] = [
    "containerExitCode",
    "execDuration",
    "execID",
    "exitCode",
    "health_status",
    "image",
    "name",
    "oldName",
    "podId",
    "signal",
];

/// A container that has just started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartedContainer {
    pub(crate) id: String,
    /// The name without the slash.
    pub(crate) name: String,
    pub(crate) at: SystemTime,
}

/// One message of the event stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    Event(Json),
    /// A message that cannot be read. If the container's id was found in the text, the field is this id.
    Unreadable(Option<String>),
}

impl Message {
    /// Reads one line of the event stream.
    pub(super) fn read(line: Piece<'_>) -> Self {
        let text = match line {
            Piece::Whole(text) => match Json::parse(text) {
                Ok(event) => return Self::Event(event),
                Err(error) => {
                    debug!(%error, "an event cannot be read");
                    text
                }
            },
            Piece::TooLong(beginning) => {
                debug!("an event is too long");
                beginning
            }
        };
        Self::Unreadable(id_in(text))
    }
}

/// The newest events of containers. The task that follows the stream and the collectors share them.
#[derive(Clone)]
pub(super) struct SharedEvents {
    events: Arc<Mutex<Arc<Events>>>,
    /// Notifies of every added event.
    changed: watch::Sender<()>,
    starts: broadcast::Sender<StartedContainer>,
    /// Events from before this time are old: they happened before the agent started.
    began: SystemTime,
    /// Decides whose events are ignored: those of containers that the settings leave out.
    choice: Arc<ContainerChoice>,
}

impl SharedEvents {
    /// Creates the store without events. It ignores the events of containers that `choice` does not want.
    pub(super) fn new(choice: Arc<ContainerChoice>) -> Self {
        Self {
            choice,
            events: Arc::default(),
            changed: watch::Sender::new(()),
            starts: broadcast::Sender::new(MAX_STARTS),
            began: SystemTime::now() - OVERLAP,
        }
    }

    /// Whether the settings want the container of a message.
    fn wants(&self, id: &str, message: &Json) -> bool {
        let attributes = message.get("Actor").get("Attributes");
        let text = |name: &str| attributes.get(name).non_empty_text().unwrap_or_default();
        let (name, image) = (text("name"), text("image"));
        self.choice.wants(id, |filter| {
            let mut labels = labels(attributes, filter);
            labels.retain(|(name, _)| !OWN_ATTRIBUTES.contains(name));
            ContainerFacts {
                name: name.trim_start_matches('/'),
                image: &image,
                labels,
            }
        })
    }
}

/// Follows an event stream in its own task. The task stops when this value is dropped.
pub(super) struct Following {
    reported: Arc<Mutex<EventBatch>>,
    task: JoinHandle<()>,
}

/// What the event stream has reported after the previous [`Following::take`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EventBatch {
    /// The ids of the containers with events.
    pub(super) touched: HashSet<String>,
    /// Whether more than [`MAX_TOUCHED`] containers had events.
    pub(super) too_many: bool,
    /// Whether there was an event after which the stopped containers are possibly others.
    pub(super) may_have_stopped: bool,
    /// The ids of the containers that left a network, with the time when the last of these events happened. The engine sends such an event
    /// after a failed start, which has no event of its own, and after each stop.
    pub(super) disconnected: HashMap<String, SystemTime>,
    /// Whether the stream has ended. The stream ends if the engine restarts, or if the agent reads too slowly.
    pub(super) ended: bool,
}

impl SharedEvents {
    /// Returns the stored events.
    pub(super) fn events(&self) -> Arc<Events> {
        Arc::clone(&lock(&self.events))
    }

    /// Returns the start time for a new event stream. This is the time of the newest stored event, but at least [`OVERLAP`] ago.
    /// The engine then sends every missed event that it still has.
    pub(super) fn since(&self) -> SystemTime {
        let now = SystemTime::now();
        let last = self.events().newest().last().map(|event| event.time.0);
        last.map_or(now - PAST, |last| last.min(now - OVERLAP))
    }

    /// Adds an event. Ignores an event that is already stored, because each new stream repeats the newest events. `is_old` tells
    /// whether the event happened before the agent started. Returns whether the event was added.
    fn add(&self, event: ContainerEvent, is_old: bool) -> bool {
        let mut events = lock(&self.events);
        if events.newest().any(|known| *known == event) {
            return false;
        }
        Arc::make_mut(&mut events).push(event, is_old);
        drop(events);
        self.changed.send_replace(());
        true
    }

    /// Returns a receiver that is notified of every added event.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns a receiver of all containers that start from now on.
    pub(super) fn starts(&self) -> broadcast::Receiver<StartedContainer> {
        self.starts.subscribe()
    }
}

impl Following {
    /// Starts to follow a stream. Adds the events that are published to `history`.
    pub(super) fn start(
        events: impl Stream<Item = Message> + Send + 'static,
        history: SharedEvents,
    ) -> Self {
        let reported = Arc::new(Mutex::new(EventBatch::default()));
        let replay = Replay::begin(&history);
        let task = tokio::spawn({
            let reported = Arc::clone(&reported);
            async move {
                let mut events = std::pin::pin!(events);
                while let Some(message) = events.next().await {
                    take_message(message, &history, &replay, &reported);
                }
                lock(&reported).ended = true;
            }
        });
        Self { reported, task }
    }

    /// Returns what the stream has reported after the previous call.
    pub(super) fn take(&self) -> EventBatch {
        std::mem::take(&mut *lock(&self.reported))
    }
}

/// Recognizes the old events that the engine sends at the beginning of the first event stream that has events. They happened before
/// the agent started.
struct Replay {
    /// Events from before this time are old. None if this is not the first stream.
    before: Option<SystemTime>,
    began: Instant,
}

impl Replay {
    fn begin(history: &SharedEvents) -> Self {
        let is_first = history.events().end() == 0;
        Self {
            before: is_first.then_some(history.began),
            began: Instant::now(),
        }
    }

    /// Whether a message is an old event. After [`MAX_REPLAY`] no event is old: if the clock is set back then, new events can have
    /// the time of old events.
    fn is_old(&self, message: &Json) -> bool {
        let is_before = |before| moment(message).is_some_and(|moment| moment < before);
        self.began.elapsed() < MAX_REPLAY && self.before.is_some_and(is_before)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EventBatch {
    fn touch(&mut self, id: &str) {
        if self.touched.len() < MAX_TOUCHED {
            self.touched.insert(id.to_owned());
        } else {
            self.too_many |= !self.touched.contains(id);
        }
    }

    fn disconnect(&mut self, id: String, at: SystemTime) {
        if self.disconnected.len() < MAX_TOUCHED || self.disconnected.contains_key(&id) {
            self.disconnected.insert(id, at);
        } else {
            self.too_many = true;
        }
    }
}

/// Locks a mutex. Ignores poisoning, because no code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores the event of a message, and notes in `reported` what has become stale.
fn take_message(
    message: Message,
    history: &SharedEvents,
    replay: &Replay,
    reported: &Mutex<EventBatch>,
) {
    let message = match message {
        Message::Event(message) => message,
        Message::Unreadable(id) => {
            // Any id here makes the container list stale. If the container's id is not known, the empty id has the same effect.
            let mut reported = lock(reported);
            reported.touch(&id.unwrap_or_default());
            reported.may_have_stopped = true;
            return;
        }
    };
    let is_old = replay.is_old(&message);
    if message.get("Type").text().as_deref() == Some("network") {
        let attributes = message.get("Actor").get("Attributes");
        let id = attributes.get("container").non_empty_text();
        let id = id.filter(|id| !is_old && !history.choice.excludes(id));
        if let (Some(id), Some(at)) = (id, moment(&message)) {
            lock(reported).disconnect(id, at);
        }
        return;
    }
    let Some(id) = id_of(&message) else { return };
    let action = message.get("Action").text().unwrap_or_default();
    let is_rename = action == "rename";
    let was_excluded = history.choice.excludes(&id);
    if is_rename {
        history.choice.forget(&id);
    }
    let is_wanted = history.wants(&id, &message);
    // The container list is newer than an old event.
    if !is_old && (is_wanted || is_rename) {
        let mut reported = lock(reported);
        reported.touch(&id);
        reported.may_have_stopped |= may_have_stopped(&action);
    }
    // The event of a rename would publish the old name, which is left out.
    let is_published = is_wanted && !(is_rename && was_excluded);
    let Some(event) = event(&message).filter(|_| is_published) else {
        return;
    };
    let started = (event.action == EventAction::Start).then(|| StartedContainer {
        id,
        name: event.container.clone(),
        at: event.time.0,
    });
    let is_new = history.add(event, is_old);
    if let Some(started) = started.filter(|_| is_new) {
        // An error means that no source subscribes to starts, because logs are switched off.
        let _ = history.starts.send(started);
    }
}

/// Whether the stopped containers are possibly others after an action. Unknown actions count.
fn may_have_stopped(action: &str) -> bool {
    !action.starts_with("health_status") && !["oom", "pause", "unpause"].contains(&action)
}

fn id_of(message: &Json) -> Option<String> {
    message.get("Actor").get("ID").non_empty_text()
}

/// Returns the event to publish. None for a message that is not published.
fn event(message: &Json) -> Option<ContainerEvent> {
    let reported = message.get("Action").text()?;
    let (action, health) = match reported.split_once(':') {
        Some((action, health)) => (action, Some(health.trim())),
        None => (reported.as_str(), None),
    };
    let action = match action {
        "start" => EventAction::Start,
        // `died` and `remove` are Podman's names.
        "die" | "died" => EventAction::Die,
        "oom" => EventAction::Oom,
        "health_status" => EventAction::HealthStatus,
        "restart" => EventAction::Restart,
        "pause" => EventAction::Pause,
        "unpause" => EventAction::Unpause,
        "destroy" | "remove" => EventAction::Destroy,
        "rename" => EventAction::Rename,
        _ => return None,
    };
    let attributes = message.get("Actor").get("Attributes");
    let attribute = |name: &str| attributes.get(name).non_empty_text();
    let bare = |name: String| {
        let bare = name.trim_start_matches('/');
        (!bare.is_empty()).then(|| bare.to_owned())
    };
    // The event gets the same short id as in the container list. A message without a container id is not published.
    let id = id_of(message)?;
    let short = id.get(..SHORT_ID)?.to_ascii_lowercase();
    if !short.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let is_die = action == EventAction::Die;
    let is_health = action == EventAction::HealthStatus;
    let is_rename = action == EventAction::Rename;
    Some(ContainerEvent {
        time: Timestamp(moment(message)?),
        container: attribute("name")
            .and_then(bare)
            .unwrap_or_else(|| short.clone()),
        image: attribute("image").unwrap_or_default(),
        exit_code: attribute("exitCode")
            .or_else(|| attribute("containerExitCode"))
            .filter(|_| is_die)
            .and_then(|code| code.parse().ok()),
        health: if is_health {
            // A health event without a health status is not published.
            let reported = health.filter(|health| !health.is_empty());
            Some(
                reported
                    .map(str::to_owned)
                    .or_else(|| attribute("health_status"))?,
            )
        } else {
            None
        },
        renamed_from: if is_rename {
            Some(attribute("oldName").and_then(bare)?)
        } else {
            None
        },
        action,
        id: short,
    })
}

fn moment(message: &Json) -> Option<SystemTime> {
    let since_1970 = match message.get("timeNano").integer() {
        Some(nanoseconds) => Duration::from_nanos(u64::try_from(nanoseconds).ok()?),
        None => Duration::from_secs(message.get("time").count()?),
    };
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

#[cfg(test)]
mod tests;
