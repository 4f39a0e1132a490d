//! What the engine tells of its containers while nobody asks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bollard::errors::Error as BollardError;
use bollard::models::EventMessage;
use futures_util::{Stream, StreamExt};
use tokio::task::JoinHandle;

use super::listing::SHORT_ID;
use crate::model::{ContainerEvent, EventAction, Events, Timestamp};

/// The most containers that are told apart of those to which something has happened.
const MOST_TOUCHED: usize = 1024;
/// How far back events are asked for: from before the list that they keep up to date.
const OVERLAP: Duration = Duration::from_secs(2);

/// What has happened to containers, as far as the engine has told.
#[derive(Clone, Default)]
pub(super) struct History(Arc<Mutex<Arc<Events>>>);

/// A stream of events that is followed until this is dropped.
pub(super) struct Following {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

/// What was told since it was asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The ids of the containers to which something has happened.
    pub(super) touched: HashSet<String>,
    /// There were more than those.
    pub(super) too_many: bool,
    /// No more is told: the engine was restarted, or dropped a reader that fell behind.
    pub(super) ended: bool,
}

impl History {
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
        events: impl Stream<Item = Result<EventMessage, BollardError>> + Send + 'static,
        history: History,
    ) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let task = tokio::spawn({
            let told = Arc::clone(&told);
            async move {
                let mut events = std::pin::pin!(events);
                while let Some(Ok(message)) = events.next().await {
                    let Some(id) = message.actor.as_ref().and_then(|actor| actor.id.as_ref())
                    else {
                        continue;
                    };
                    lock(&told).touch(id);
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
    pub(super) fn take(&self) -> Told {
        std::mem::take(&mut *lock(&self.told))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Told {
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

/// What is published of an event; none for those that are not.
fn event(message: &EventMessage) -> Option<ContainerEvent> {
    let told = message.action.as_deref()?;
    let (action, health) = match told.split_once(':') {
        Some((action, health)) => (action, Some(health.trim())),
        None => (told, None),
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
    let actor = message.actor.as_ref()?;
    let attribute = |name: &str| actor.attributes.as_ref()?.get(name).map(String::as_str);
    let bare = |name: &str| name.trim_start_matches('/').to_owned();
    let id: String = actor.id.as_ref()?.chars().take(SHORT_ID).collect();
    Some(ContainerEvent {
        time: Timestamp(moment(message)?),
        action: action.clone(),
        container: attribute("name").map_or_else(|| id.clone(), bare),
        image: attribute("image").unwrap_or_default().to_owned(),
        exit_code: attribute("exitCode")
            .or_else(|| attribute("containerExitCode"))
            .filter(|_| action == EventAction::Die)
            .and_then(|code| code.parse().ok()),
        health: health
            .filter(|health| action == EventAction::HealthStatus && !health.is_empty())
            .map(str::to_owned),
        renamed_from: attribute("oldName")
            .filter(|_| action == EventAction::Rename)
            .map(bare),
        id,
    })
}

fn moment(message: &EventMessage) -> Option<SystemTime> {
    let since_1970 = match (message.time_nano, message.time) {
        (Some(nanoseconds), _) => Duration::from_nanos(u64::try_from(nanoseconds).ok()?),
        (None, Some(seconds)) => Duration::from_secs(u64::try_from(seconds).ok()?),
        (None, None) => return None,
    };
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bollard::errors::Error as BollardError;
    use bollard::models::EventMessage;
    use futures_util::stream;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{Following, History, Told, event};
    use crate::model::{ContainerEvent, EventAction};

    const ID: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";

    fn message(action: &str, nanoseconds: u64, attributes: &Value) -> EventMessage {
        let mut all = json!({"name": "web", "image": "nginx:1"});
        all.as_object_mut()
            .unwrap()
            .extend(attributes.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "Type": "container", "Action": action, "time": nanoseconds / 1_000_000_000, "timeNano": nanoseconds,
            "Actor": {"ID": ID, "Attributes": all},
        }))
        .unwrap()
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
        assert_eq!(event(&EventMessage::default()), None);
        let mut before_1970 = message("die", 5, &json!({}));
        before_1970.time_nano = Some(-5);
        assert_eq!(event(&before_1970), None);
    }

    #[actix::test]
    async fn an_event_that_is_told_twice_counts_once() {
        let history = History::default();
        let told = [
            message("start", 1, &json!({})),
            message("die", 2, &json!({"exitCode": "3"})),
        ];
        let more = message("start", 2, &json!({}));
        for (told, end) in [(told.to_vec(), 2), ([&told[..], &[more]].concat(), 3)] {
            let stream = stream::iter(told.into_iter().map(Ok));
            let following = Following::start(stream, history.clone());
            tokio::task::yield_now().await;
            let expected = Told {
                touched: [ID.to_owned()].into(),
                too_many: false,
                ended: true,
            };
            assert_eq!(following.take(), expected);
            assert_eq!(following.take(), Told::default());
            assert_eq!(history.events().end(), end);
        }
    }

    #[actix::test]
    async fn a_stream_that_fails_has_ended() {
        let failing = stream::iter([Err(BollardError::RequestTimeoutError)]);
        let following = Following::start(failing, History::default());
        tokio::task::yield_now().await;
        assert!(following.take().ended);
    }

    #[test]
    fn fuzz_events() {
        let all = json!({"exitCode": "137", "oldName": "/old"});
        let seeds = ["die", "health_status: unhealthy", "rename"].map(|action| {
            serde_json::to_vec(&message(action, 1_735_689_600_123_456_789, &all)).unwrap()
        });
        let seeds = seeds.each_ref().map(Vec::as_slice);
        crate::fuzzing::run("events", &seeds, |bytes| {
            let message: EventMessage = serde_json::from_slice(bytes).unwrap_or_default();
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
            let message: EventMessage = serde_json::from_value(message).unwrap();
            if let Some(event) = event(&message) {
                prop_assert!(serde_json::to_string(&event).is_ok());
            }
        }
    }
}
