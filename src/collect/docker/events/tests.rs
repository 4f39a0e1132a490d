//! Tests of the engine's events.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{EventBatch, Following, Message, SharedEvents, event};
use crate::collect::docker::choice::ContainerChoice;
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
async fn the_containers_that_left_a_network_are_reported() {
    let left = |id: &str, nanoseconds: u64| {
        Message::Event(read(&json!({
            "Type": "network", "Action": "disconnect", "timeNano": nanoseconds,
            "Actor": {"ID": ID, "Attributes": {"container": id, "name": "bridge", "type": "bridge"}},
        })))
    };
    // The first event happened before the agent started. The last event has no container.
    let messages = [
        left("old", 1),
        left("web", FUTURE),
        left("web", FUTURE + 1),
        left("", FUTURE),
    ];
    let history = SharedEvents::new(Arc::default());
    let following = Following::start(stream::iter(messages), history.clone());
    tokio::task::yield_now().await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(FUTURE + 1);
    let expected = EventBatch {
        disconnected: [("web".to_owned(), at)].into(),
        ended: true,
        ..EventBatch::default()
    };
    assert_eq!(following.take(), expected);
    assert_eq!(history.events().end(), 0);
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
            may_have_stopped: true,
            ended: true,
            ..EventBatch::default()
        };
        assert_eq!(following.take(), expected);
        assert_eq!(following.take(), EventBatch::default());
        assert_eq!(history.events().end(), end);
    }
}

#[actix::test]
async fn the_newest_name_decides_whether_events_are_left_out() {
    let variables = [("CONTAINERS_EXCLUDE".into(), "hidden".into())];
    let settings = crate::settings::CollectSettings::from_env(variables.into_iter()).unwrap();
    let choice = Arc::new(ContainerChoice::new(settings.containers));
    let history = SharedEvents::new(Arc::clone(&choice));
    let renamed =
        |time, old: &str, new: &str| message("rename", time, &json!({"name": new, "oldName": old}));
    // The first two events happened before the agent started.
    let messages = [
        message("start", 1, &json!({"name": "shown"})),
        renamed(2, "shown", "hidden"),
        message("die", FUTURE, &json!({"name": "hidden"})),
    ];
    let stream = stream::iter(messages.map(Message::Event));
    let following = Following::start(stream, history.clone());
    tokio::task::yield_now().await;
    assert!(choice.excludes(ID));
    assert!(following.take().touched.is_empty());
    assert_eq!(history.events().end(), 1, "the start");
    // The event of the rename to a wanted name has the hidden name.
    let messages = [
        renamed(FUTURE + 1, "hidden", "again"),
        message("start", FUTURE + 2, &json!({"name": "again"})),
    ];
    let stream = stream::iter(messages.map(Message::Event));
    let following = Following::start(stream, history.clone());
    tokio::task::yield_now().await;
    assert!(!choice.excludes(ID) && following.take().touched.contains(ID));
    assert_eq!(history.events().end(), 2, "only the second start is added");
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
