//! What the engine tells of its containers while nobody asks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use tokio::task::JoinHandle;
use tracing::debug;

use super::json::Json;
use super::listing::{SHORT_ID, id_in};
use super::pieces::Piece;
use crate::model::{ContainerEvent, EventAction, Events, Timestamp};

/// The most containers that are told apart of those to which something has happened.
const MOST_TOUCHED: usize = 1024;
/// How far back events are asked for: from before the list that they keep up to date.
const OVERLAP: Duration = Duration::from_secs(2);

/// What the engine tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    Event(Json),
    /// Something that cannot be read, with the id of the container that it is about, where that can be seen.
    Unreadable(Option<String>),
}

impl Message {
    /// Reads a line of the stream.
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

/// What has happened to containers, as far as the engine has told.
#[derive(Clone, Default)]
pub(super) struct SharedEvents(Arc<Mutex<Arc<Events>>>);

/// A stream of events that is followed until this is dropped.
pub(super) struct Following {
    told: Arc<Mutex<EventBatch>>,
    task: JoinHandle<()>,
}

/// What was told since it was asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EventBatch {
    /// The ids of the containers to which something has happened.
    pub(super) touched: HashSet<String>,
    /// There were more than those.
    pub(super) too_many: bool,
    /// No more is told: the engine was restarted, or dropped a reader that fell behind.
    pub(super) ended: bool,
}

impl SharedEvents {
    /// All that is kept of it.
    pub(super) fn events(&self) -> Arc<Events> {
        Arc::clone(&lock(&self.0))
    }

    /// From when on events are to be asked for, so that none is missed that the engine still has.
    pub(super) fn since(&self) -> SystemTime {
        let before = SystemTime::now() - OVERLAP;
        let last = self.events().newest().last().map(|event| event.time.0);
        last.map_or(before, |last| before.min(last))
    }

    /// Takes in an event, unless it was told before: each connection begins with the last ones.
    fn take_in(&self, event: ContainerEvent) {
        let mut events = lock(&self.0);
        if !events.newest().any(|known| *known == event) {
            Arc::make_mut(&mut events).push(event);
        }
    }
}

impl Following {
    /// Follows a stream of events.
    pub(super) fn start(
        events: impl Stream<Item = Message> + Send + 'static,
        history: SharedEvents,
    ) -> Self {
        let told = Arc::new(Mutex::new(EventBatch::default()));
        let task = tokio::spawn({
            let told = Arc::clone(&told);
            async move {
                let mut events = std::pin::pin!(events);
                while let Some(message) = events.next().await {
                    let message = match message {
                        Message::Event(message) => message,
                        Message::Unreadable(id) => {
                            // Something has happened: the list is stale, whatever it was. An id that is
                            // no container's makes it so.
                            lock(&told).touch(&id.unwrap_or_default());
                            continue;
                        }
                    };
                    let Some(id) = id_of(&message) else {
                        continue;
                    };
                    lock(&told).touch(&id);
                    if let Some(event) = event(&message) {
                        history.take_in(event);
                    }
                }
                lock(&told).ended = true;
            }
        });
        Self { told, task }
    }

    /// What was told since this was called last.
    pub(super) fn take(&self) -> EventBatch {
        std::mem::take(&mut *lock(&self.told))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EventBatch {
    fn touch(&mut self, id: &str) {
        if self.touched.len() < MOST_TOUCHED {
            self.touched.insert(id.to_owned());
        } else {
            self.too_many |= !self.touched.contains(id);
        }
    }
}

/// Nothing that holds such a lock can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id_of(message: &Json) -> Option<String> {
    message.get("Actor").get("ID").words()
}

/// What is published of an event; none for those that are not.
fn event(message: &Json) -> Option<ContainerEvent> {
    let told = message.get("Action").text()?;
    let (action, health) = match told.split_once(':') {
        Some((action, health)) => (action, Some(health.trim())),
        None => (told.as_str(), None),
    };
    let action = match action {
        "start" => EventAction::Start,
        // The other names are Podman's.
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
    let attribute = |name: &str| attributes.get(name).words();
    let bare = |name: String| {
        let bare = name.trim_start_matches('/');
        (!bare.is_empty()).then(|| bare.to_owned())
    };
    // As the list has it: an event of something else is not published.
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
            // Without a word of health it is no news of health.
            let told = health.filter(|health| !health.is_empty());
            Some(
                told.map(str::to_owned)
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
    use std::time::{Duration, SystemTime};

    use futures_util::stream;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{EventBatch, Following, Message, SharedEvents, event};
    use crate::collect::docker::json::Json;
    use crate::collect::docker::pieces::{Lines, Piece};
    use crate::model::{ContainerEvent, EventAction};

    const ID: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";

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
    fn each_action_has_what_belongs_to_it() {
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
        // What belongs to another action is left out.
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
    fn what_is_no_event_of_a_container_is_left_out() {
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
                "nothing to tell"
            );
        }
    }

    #[test]
    fn an_odd_value_costs_itself_alone() {
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
    async fn what_cannot_be_read_is_skipped_and_makes_the_list_stale() {
        let long = format!(r#"{{"Actor":{{"ID":"{ID}"}},"x":"{}"}}"#, "x".repeat(500));
        let text = format!(
            "{{\"Action\":\"die\",\"Actor\":{{\"ID\":\n{long}\n<html>\n{}\n",
            json!({"Action": "start", "timeNano": 5, "Actor": {"ID": "0123456789abcdef"}})
        );
        let mut lines = Lines::new(400);
        let mut messages = Vec::new();
        for chunk in text.as_bytes().chunks(7) {
            lines.push(chunk, |line| messages.push(Message::read(line)));
        }
        assert_eq!(messages.len(), 4);
        let history = SharedEvents::default();
        let following = Following::start(stream::iter(messages), history.clone());
        tokio::task::yield_now().await;
        let told = following.take();
        let touched = ["", ID, "0123456789abcdef"].map(str::to_owned);
        assert_eq!(told.touched, touched.into());
        assert_eq!(history.events().end(), 1, "the one that can be read");
    }

    #[actix::test]
    async fn an_event_that_is_told_twice_counts_once() {
        let history = SharedEvents::default();
        let told = [
            message("start", 1, &json!({})),
            message("die", 2, &json!({"exitCode": "3"})),
        ];
        let more = message("start", 2, &json!({}));
        for (told, end) in [(told.to_vec(), 2), ([&told[..], &[more]].concat(), 3)] {
            let stream = stream::iter(told.into_iter().map(Message::Event));
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
