//! Events of containers: a client gets each event once and in order.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serial_test::{parallel, serial};

use super::container::Container;
use super::engine::PrivateEngine;
use super::{RECOVERY, launch};
use crate::support::{Agent, Client, DEADLINE, KEY};

/// A client and all events that it has received.
struct Listener {
    client: Client,
    events: Vec<Value>,
}

impl Listener {
    fn listen(agent: &Agent, options: &str) -> Self {
        let mut client = agent.connect();
        client.send(format!("{KEY} {options}\n"));
        // The first snapshot has the events from before the login, which the test ignores.
        client.line().expect("no snapshot: the stream has ended");
        Self {
            client,
            events: Vec::new(),
        }
    }

    fn read(&mut self) {
        let line = self
            .client
            .line()
            .expect("no snapshot: the stream has ended");
        let snapshot: Value = serde_json::from_str(&line).expect("the snapshot is not JSON");
        assert!(snapshot.get("events_dropped").is_none());
        let events = snapshot["events"].as_array().expect("events").clone();
        self.events.extend(events);
    }

    /// The events of a container, by its id.
    fn of(&self, id: &str) -> Vec<&Value> {
        self.events
            .iter()
            .filter(|event| event["id"] == id)
            .collect()
    }

    /// Waits until a container has `count` events, then reads three more snapshots.
    /// Returns the container's events without time and image.
    fn wait_for(&mut self, id: &str, count: usize) -> Vec<Value> {
        let end = Instant::now() + DEADLINE;
        while self.of(id).len() < count {
            assert!(Instant::now() < end, "{:#?}", self.of(id));
            self.read();
        }
        for _ in 0..3 {
            self.read();
        }
        self.bare(id)
    }

    /// The events of a container without time and image.
    fn bare(&self, id: &str) -> Vec<Value> {
        let bare = |event: &&Value| {
            let mut event = (*event).clone();
            let fields = event.as_object_mut().unwrap();
            assert_eq!(fields.remove("image").unwrap(), "system-agent-test");
            fields.remove("time").unwrap();
            event
        };
        self.of(id).iter().map(bare).collect()
    }
}

/// An expected event. `more` has further fields of the event.
fn event(container: &Container, action: &str, more: &Value) -> Value {
    let mut event =
        json!({"action": action, "container": container.name(), "id": container.short_id()});
    let more = more.as_object().unwrap().clone();
    event.as_object_mut().unwrap().extend(more);
    event
}

fn agent() -> Agent {
    launch()
        .vars(&[("DOCKER_INTERVAL", "300ms"), ("PUBLISH_INTERVAL", "200ms")])
        .start()
}

#[test]
#[parallel]
fn a_container_that_lives_300_milliseconds_causes_events() {
    let agent = launch().start();
    let mut seen = Listener::listen(&agent, r#"{"sections":["events"]}"#);
    let container = Container::run("short-life", &[], "sleep 0.3; exit 3");
    let id = container.short_id().to_owned();
    let expected = [
        event(&container, "start", &json!({})),
        event(&container, "die", &json!({"exit_code": 3})),
    ];
    assert_eq!(seen.wait_for(&id, 2), expected);
    let times: Vec<&str> = seen
        .of(&id)
        .iter()
        .map(|e| e["time"].as_str().unwrap())
        .collect();
    let times: Vec<_> = times
        .iter()
        .map(|at| humantime::parse_rfc3339(at).unwrap())
        .collect();
    let lived = times[1].duration_since(times[0]).unwrap();
    assert!((300..2000).contains(&lived.as_millis()), "{lived:?}");
}

#[test]
#[parallel]
fn each_action_on_a_container_causes_an_event() {
    let agent = agent();
    let mut seen = Listener::listen(&agent, "{}");
    let mut container = Container::run("handled", &["--stop-timeout", "0"], "exec sleep 1000");
    let id = container.short_id().to_owned();
    let start = event(&container, "start", &json!({}));
    container.docker("pause", &[]);
    container.docker("unpause", &[]);
    let pause = event(&container, "pause", &json!({}));
    let unpause = event(&container, "unpause", &json!({}));
    let before = container.name().to_owned();
    container.rename("handled-again");
    let renamed = event(&container, "rename", &json!({"renamed_from": before}));
    container.docker("restart", &[]);
    let killed = event(&container, "die", &json!({"exit_code": 137}));
    let again = [
        event(&container, "start", &json!({})),
        event(&container, "restart", &json!({})),
    ];
    let destroyed = event(&container, "destroy", &json!({}));
    drop(container);
    let [again, restart] = again;
    let expected = [
        start,
        pause,
        unpause,
        renamed,
        killed.clone(),
        again,
        restart,
        killed,
        destroyed,
    ];
    assert_eq!(seen.wait_for(&id, expected.len()), expected);
}

#[test]
#[parallel]
fn a_container_killed_for_its_memory_causes_an_oom_event() {
    let agent = agent();
    let mut seen = Listener::listen(&agent, "{}");
    // The container sleeps first, so that the agent sees the container. After that, the container fills its memory.
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    let container = Container::run("oom", &options, "sleep 1; exec tail /dev/zero");
    let id = container.short_id().to_owned();
    let seen = seen.wait_for(&id, 3);
    // The engine gets the `oom` event and the end of the container from different sources, so their order is not fixed.
    let actions: Vec<&str> = seen.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions[0], "start");
    assert_eq!(
        actions.iter().filter(|&&action| action == "oom").count(),
        1,
        "{seen:#?}"
    );
    let died = event(&container, "die", &json!({"exit_code": 137}));
    assert_eq!(
        seen.iter().filter(|&event| *event == died).count(),
        1,
        "{seen:#?}"
    );
    assert_eq!(seen.len(), 3);
}

#[test]
#[parallel]
fn a_failed_health_check_causes_an_event() {
    let agent = agent();
    let mut seen = Listener::listen(&agent, "{}");
    let options = [
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "500ms",
        "--health-retries",
        "1",
    ];
    let container = Container::run("health", &options, "touch /well; exec sleep 1000");
    let id = container.short_id().to_owned();
    let health = |health: &str| event(&container, "health_status", &json!({"health": health}));
    let expected = [
        event(&container, "start", &json!({})),
        health("healthy"),
        health("unhealthy"),
    ];
    assert_eq!(seen.wait_for(&id, 2), expected[..2]);
    container.exec("rm /well");
    assert_eq!(seen.wait_for(&id, 3), expected);
}

#[test]
#[parallel]
fn the_events_of_a_crash_loop_are_in_order() {
    let agent = agent();
    let mut seen = Listener::listen(&agent, "{}");
    let options = ["--restart", "on-failure:4"];
    let container = Container::run("crash-loop", &options, "exit 3");
    let id = container.short_id().to_owned();
    let start = event(&container, "start", &json!({}));
    let die = event(&container, "die", &json!({"exit_code": 3}));
    let expected: Vec<Value> = [start, die].into_iter().cycle().take(10).collect();
    assert_eq!(seen.wait_for(&id, 10), expected);
}

/// A client that wants every fifth snapshot misses no event. A client that does not read for some seconds also misses no event.
#[test]
#[serial]
fn clients_with_fewer_snapshots_get_all_events() {
    let agent = agent();
    let fifth = Listener::listen(&agent, r#"{"sections":["events"],"every":5}"#);
    let narrow = Client::connect_narrow(agent.address());
    let mut slow = Listener {
        client: narrow,
        events: Vec::new(),
    };
    slow.client.send(format!("{KEY}\n"));
    slow.client.snapshot();
    let steady = Listener::listen(&agent, "{}");
    let mut others = [steady, fifth];
    let containers: Vec<Container> = (0..8)
        .map(|_| {
            let container = Container::run("events-many", &[], "exit 0");
            for one in &mut others {
                one.read();
            }
            thread::sleep(Duration::from_millis(500));
            container
        })
        .collect();
    for mut one in others.into_iter().chain([slow]) {
        one.wait_for(containers.last().unwrap().short_id(), 2);
        for container in &containers {
            let seen = one.bare(container.short_id());
            let actions: Vec<&Value> = seen.iter().map(|event| &event["action"]).collect();
            assert_eq!(actions, ["start", "die"]);
        }
    }
}

/// After a restart, the engine sends past events again. The agent does not publish them again.
#[test]
#[parallel]
fn no_event_is_repeated_after_an_outage() {
    let mut engine = PrivateEngine::prepare();
    engine.start_with_image();
    let agent = launch()
        .var("DOCKER_HOST", engine.engine().host())
        .vars(&[("DOCKER_INTERVAL", "300ms"), ("PUBLISH_INTERVAL", "200ms")])
        .start();
    let mut seen = Listener::listen(&agent, "{}");
    let before = Container::run_on(engine.engine(), "before", &[], "exit 0");
    let id = before.short_id().to_owned();
    before.keep();
    assert_eq!(seen.wait_for(&id, 2).len(), 2);
    engine.stop();
    engine.start();
    let after = Container::run_on(engine.engine(), "after", &[], "exit 0");
    let id_after = after.short_id().to_owned();
    after.keep();
    let end = Instant::now() + RECOVERY;
    while seen.of(&id_after).len() < 2 && Instant::now() < end {
        seen.read();
    }
    assert_eq!(seen.wait_for(&id_after, 2).len(), 2);
    assert_eq!(seen.of(&id).len(), 2);
}
