//! Follows the engine's event stream. Stores the events to publish, and collects the ids of the containers with events.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{Stream, StreamExt};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tracing::debug;

use super::json::Json;
use super::listing::{SHORT_ID, id_in, labels};
use super::pieces::Piece;
use crate::model::{ContainerEvent, EventAction, Events, Timestamp};
use crate::settings::{ContainerFacts, ContainerFilter};

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
const MAX_STARTS: usize = 1024;

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
    /// Tells of which containers the events are ignored.
    filter: Arc<ContainerFilter>,
}

impl SharedEvents {
    /// Creates the store without events. It ignores the events of containers that `filter` does not want.
    pub(super) fn new(filter: Arc<ContainerFilter>) -> Self {
        Self {
            filter,
            events: Arc::default(),
            changed: watch::Sender::new(()),
            starts: broadcast::Sender::new(MAX_STARTS),
            began: SystemTime::now() - OVERLAP,
        }
    }

    /// Whether the settings want the container of a message.
    fn wants(&self, message: &Json) -> bool {
        let attributes = message.get("Actor").get("Attributes");
        let text = |name: &str| attributes.get(name).non_empty_text().unwrap_or_default();
        self.filter.wants(&ContainerFacts {
            name: text("name").trim_start_matches('/'),
            image: &text("image"),
            labels: labels(attributes, &self.filter),
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
                    let message = match message {
                        Message::Event(message) => message,
                        Message::Unreadable(id) => {
                            // Any id here makes the container list stale. If the container's id is not known, the empty id has
                            // the same effect.
                            lock(&reported).touch(&id.unwrap_or_default());
                            continue;
                        }
                    };
                    let Some(id) = id_of(&message) else {
                        continue;
                    };
                    let is_old = replay.is_old(&message);
                    let event = event(&message);
                    let is_wanted = history.wants(&message);
                    // After a rename, the settings possibly leave out another container than before.
                    let is_rename = || {
                        let action = event.as_ref().map(|event| &event.action);
                        action == Some(&EventAction::Rename)
                    };
                    // The container list is newer than an old event.
                    if !is_old && (is_wanted || is_rename()) {
                        lock(&reported).touch(&id);
                    }
                    if let Some(event) = event.filter(|_| is_wanted) {
                        let started = (event.action == EventAction::Start).then(|| {
                            let (name, at) = (event.container.clone(), event.time.0);
                            StartedContainer { id, name, at }
                        });
                        let is_new = history.add(event, is_old);
                        if let Some(started) = started.filter(|_| is_new) {
                            // An error means that no source subscribes to starts, because logs are switched off.
                            let _ = history.starts.send(started);
                        }
                    }
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
}

/// Locks a mutex. Ignores poisoning, because no code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use futures_util::stream;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{EventBatch, Following, Message, SharedEvents, event};
    use crate::collect::docker::json::Json;
    use crate::collect::docker::pieces::{Lines, Piece};
    use crate::model::{ContainerEvent, EventAction};

    const ID: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";

    /// A time in the year 2200, in nanoseconds since 1970. Events of this time are not old.
    const FUTURE: u64 = 7_258_118_400_000_000_000;

    fn read(message: &Value) -> Json {
        Json::parse(message.to_string().as_bytes()).unwrap()
    }

    fn message(action: &str, nanoseconds: u64, attributes: &Value) -> Json {
        let mut all = json!({"name": "web", "image": "nginx:1"});
        all.as_object_mut()
            .unwrap()
            .extend(attributes.as_object().unwrap().clone());
        read(&json!({
            "Type": "container", "Action": action, "time": nanoseconds / 1_000_000_000, "timeNano": nanoseconds,
            "Actor": {"ID": ID, "Attributes": all},
        }))
    }

    fn plain(action: EventAction, nanoseconds: u64) -> ContainerEvent {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        ContainerEvent {
            time: crate::model::Timestamp(time),
            action,
            container: "web".to_owned(),
            id: "f578d361bfca".to_owned(),
            image: "nginx:1".to_owned(),
            exit_code: None,
            health: None,
            renamed_from: None,
        }
    }

    #[test]
    fn an_event_has_only_the_fields_of_its_action() {
        let of = |action: &str, attributes: Value| event(&message(action, 5, &attributes)).unwrap();
        let die = of("die", json!({"exitCode": "137"}));
        let exit_code = Some(137);
        assert_eq!(
            die,
            ContainerEvent {
                exit_code,
                ..plain(EventAction::Die, 5)
            }
        );
        // Attributes of another action are ignored.
        assert_eq!(
            of("start", json!({"exitCode": "137"})),
            plain(EventAction::Start, 5)
        );
        let health = Some("unhealthy".to_owned());
        let expected = ContainerEvent {
            health,
            ..plain(EventAction::HealthStatus, 5)
        };
        assert_eq!(of("health_status: unhealthy", json!({})), expected);
        let renamed_from = Some("old".to_owned());
        let expected = ContainerEvent {
            renamed_from,
            ..plain(EventAction::Rename, 5)
        };
        assert_eq!(of("rename", json!({"oldName": "/old"})), expected);
        assert_eq!(
            of("die", json!({"exitCode": "x"})),
            plain(EventAction::Die, 5)
        );
    }

    #[test]
    fn a_message_that_is_not_a_published_event_is_omitted() {
        for action in ["update", "exec_start: sh", ""] {
            assert_eq!(event(&message(action, 5, &json!({}))), None);
        }
        assert_eq!(event(&Json::Null), None);
        let before_1970 = json!({"Action": "die", "timeNano": -5, "Actor": {"ID": ID}});
        assert_eq!(event(&read(&before_1970)), None);
        for (action, attributes) in [
            ("health_status", json!({})),
            ("rename", json!({"oldName": "/"})),
        ] {
            assert_eq!(
                event(&message(action, 5, &attributes)),
                None,
                "{action} without its value"
            );
        }
    }

    #[test]
    fn an_invalid_value_does_not_affect_other_values() {
        let usual = json!({
            "Action": "die", "timeNano": 2_000_000_000_u64, "time": 2,
            "Actor": {"ID": ID, "Attributes": {"name": "web", "image": "nginx:1", "exitCode": "3"}},
        });
        let odd = [
            json!(null),
            json!([]),
            json!({}),
            json!(1e300),
            json!("x"),
            json!(7),
        ];
        let places = [
            "/timeNano",
            "/time",
            "/Actor/Attributes",
            "/Actor/Attributes/name",
            "/Actor/Attributes/image",
            "/Actor/Attributes/exitCode",
        ];
        for place in places {
            for value in &odd {
                let mut message = usual.clone();
                *message.pointer_mut(place).unwrap() = value.clone();
                let event = event(&read(&message)).unwrap_or_else(|| panic!("{place} {value}"));
                assert_eq!(event.id, "f578d361bfca");
                let of_attributes = place.starts_with("/Actor");
                assert!(
                    event.exit_code == Some(3) || of_attributes,
                    "{place} {value}"
                );
            }
        }
    }

    #[actix::test]
    async fn an_unreadable_event_is_not_published_but_makes_the_list_stale() {
        let long = format!(r#"{{"Actor":{{"ID":"{ID}"}},"x":"{}"}}"#, "x".repeat(500));
        let text = format!(
            "{{\"Action\":\"die\",\"Actor\":{{\"ID\":\n{long}\n<html>\n{}\n",
            json!({"Action": "start", "timeNano": FUTURE + 5, "Actor": {"ID": "0123456789abcdef"}})
        );
        let mut lines = Lines::new(400);
        let mut messages = Vec::new();
        for chunk in text.as_bytes().chunks(7) {
            lines.push(chunk, |line| messages.push(Message::read(line)));
        }
        assert_eq!(messages.len(), 4);
        let history = SharedEvents::new(Arc::default());
        let following = Following::start(stream::iter(messages), history.clone());
        tokio::task::yield_now().await;
        let reported = following.take();
        let touched = ["", ID, "0123456789abcdef"].map(str::to_owned);
        assert_eq!(reported.touched, touched.into());
        assert_eq!(
            history.events().end(),
            1,
            "only the readable event is stored"
        );
    }

    #[actix::test]
    async fn an_event_that_is_received_twice_is_stored_once() {
        let history = SharedEvents::new(Arc::default());
        let reported = [
            message("start", FUTURE + 1, &json!({})),
            message("die", FUTURE + 2, &json!({"exitCode": "3"})),
        ];
        let more = message("start", FUTURE + 2, &json!({}));
        for (reported, end) in [
            (reported.to_vec(), 2),
            ([&reported[..], &[more]].concat(), 3),
        ] {
            let stream = stream::iter(reported.into_iter().map(Message::Event));
            let following = Following::start(stream, history.clone());
            tokio::task::yield_now().await;
            let expected = EventBatch {
                touched: [ID.to_owned()].into(),
                too_many: false,
                ended: true,
            };
            assert_eq!(following.take(), expected);
            assert_eq!(following.take(), EventBatch::default());
            assert_eq!(history.events().end(), end);
        }
    }

    #[actix::test]
    async fn only_the_first_stream_has_old_events() {
        let history = SharedEvents::new(Arc::default());
        for (times, touched, old) in [(vec![1, 2, FUTURE], true, 2), (vec![3], true, 2)] {
            let reported = times.iter().map(|time| message("start", *time, &json!({})));
            let stream = stream::iter(reported.map(Message::Event).collect::<Vec<_>>());
            let following = Following::start(stream, history.clone());
            tokio::task::yield_now().await;
            assert_eq!(!following.take().touched.is_empty(), touched);
            assert_eq!(history.events().old(), old);
        }
        assert_eq!(history.events().end(), 4);
        let history = SharedEvents::new(Arc::default());
        let stream = stream::iter([Message::Event(message("start", 1, &json!({})))]);
        let following = Following::start(stream, history.clone());
        tokio::task::yield_now().await;
        assert!(following.take().touched.is_empty() && history.events().old() == 1);
    }

    #[test]
    fn fuzz_events() {
        let all = json!({"exitCode": "137", "oldName": "/old"});
        let seeds = ["die", "health_status: unhealthy", "rename"].map(|action| {
            let message = json!({
                "Action": action, "timeNano": 1_735_689_600_123_456_789_u64, "Actor": {"ID": ID, "Attributes": all},
            });
            serde_json::to_vec(&message).unwrap()
        });
        let seeds = seeds.each_ref().map(Vec::as_slice);
        crate::fuzzing::run("events", &seeds, |bytes| {
            let Message::Event(message) = Message::read(Piece::Whole(bytes)) else {
                return;
            };
            if let Some(event) = event(&message) {
                serde_json::to_vec(&event).unwrap();
            }
        });
    }

    proptest! {
        #[test]
        fn no_message_panics(
            action in "start|die|health_status: \\PC*|rename|\\PC*",
            id: String,
            text: String,
            seconds: Option<i64>,
            nanoseconds: Option<i64>,
        ) {
            let attributes = json!({"name": text, "exitCode": text, "oldName": text});
            let message = json!({
                "Action": action, "time": seconds, "timeNano": nanoseconds,
                "Actor": {"ID": id, "Attributes": attributes},
            });
            if let Some(event) = event(&read(&message)) {
                prop_assert!(serde_json::to_string(&event).is_ok());
            }
        }
    }
}
