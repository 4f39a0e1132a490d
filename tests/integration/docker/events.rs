//! What happens to containers, each of it told once and in order.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serial_test::{parallel, serial};

use super::container::Container;
use super::engine::PrivateEngine;
use super::{RECOVERY, launch};
use crate::support::{Agent, Client, KEY, PATIENCE};

/// The events of some containers, by id, as a client is told of them.
struct Told {
    client: Client,
    events: Vec<Value>,
}

impl Told {
    fn listen(agent: &Agent, options: &str) -> Self {
        let mut client = agent.connect();
        client.send(format!("{KEY} {options}\n"));
        // What was before is in the first.
        client.line().expect("a snapshot");
        Self {
            client,
            events: Vec::new(),
        }
    }

    fn read(&mut self) {
        let line = self.client.line().expect("a snapshot, not the end");
        let snapshot: Value = serde_json::from_str(&line).expect("a snapshot is JSON");
        assert!(snapshot.get("events_dropped").is_none());
        let events = snapshot["events"].as_array().expect("events").clone();
        self.events.extend(events);
    }

    /// The events of a container.
    fn of(&self, id: &str) -> Vec<&Value> {
        self.events
            .iter()
            .filter(|event| event["id"] == id)
            .collect()
    }

    /// The events of a container, without time and image, once there are so many, and a while later.
    fn wait_for(&mut self, id: &str, count: usize) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        while self.of(id).len() < count {
            assert!(Instant::now() < end, "{:#?}", self.of(id));
            self.read();
        }
        for _ in 0..3 {
            self.read();
        }
        self.bare(id)
    }

    /// The events of a container, without time and image.
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

/// An event as it is expected.
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
fn a_life_of_300_milliseconds_is_seen() {
    let agent = launch().start();
    let mut told = Told::listen(&agent, r#"{"sections":["events"]}"#);
    let container = Container::run("short-life", &[], "sleep 0.3; exit 3");
    let id = container.short_id().to_owned();
    let expected = [
        event(&container, "start", &json!({})),
        event(&container, "die", &json!({"exit_code": 3})),
    ];
    assert_eq!(told.wait_for(&id, 2), expected);
    let times: Vec<&str> = told
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
fn everything_that_can_be_done_to_a_container_is_told() {
    let agent = agent();
    let mut told = Told::listen(&agent, "{}");
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
    assert_eq!(told.wait_for(&id, expected.len()), expected);
}

#[test]
#[parallel]
fn a_container_that_is_killed_for_its_memory_is_told() {
    let agent = agent();
    let mut told = Told::listen(&agent, "{}");
    // Fills its own memory, after a while in which it is seen.
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    let container = Container::run("oom", &options, "sleep 1; exec tail /dev/zero");
    let id = container.short_id().to_owned();
    let told = told.wait_for(&id, 3);
    // The kernel's word and that of the end come by different ways.
    let actions: Vec<&str> = told.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions[0], "start");
    assert_eq!(
        actions.iter().filter(|&&action| action == "oom").count(),
        1,
        "{told:#?}"
    );
    let died = event(&container, "die", &json!({"exit_code": 137}));
    assert_eq!(
        told.iter().filter(|&event| *event == died).count(),
        1,
        "{told:#?}"
    );
    assert_eq!(told.len(), 3);
}

#[test]
#[parallel]
fn a_health_check_that_fails_is_told() {
    let agent = agent();
    let mut told = Told::listen(&agent, "{}");
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
    assert_eq!(told.wait_for(&id, 2), expected[..2]);
    container.exec("rm /well");
    assert_eq!(told.wait_for(&id, 3), expected);
}

#[test]
#[parallel]
fn a_crash_loop_is_told_in_order() {
    let agent = agent();
    let mut told = Told::listen(&agent, "{}");
    let options = ["--restart", "on-failure:4"];
    let container = Container::run("crash-loop", &options, "exit 3");
    let id = container.short_id().to_owned();
    let start = event(&container, "start", &json!({}));
    let die = event(&container, "die", &json!({"exit_code": 3}));
    let expected: Vec<Value> = [start, die].into_iter().cycle().take(10).collect();
    assert_eq!(told.wait_for(&id, 10), expected);
}

/// One that wants every fifth snapshot, and one that does not read for a while, miss nothing.
#[test]
#[serial]
fn whoever_is_sent_fewer_snapshots_is_told_as_much() {
    let agent = agent();
    let fifth = Told::listen(&agent, r#"{"sections":["events"],"every":5}"#);
    let narrow = Client::connect_narrow(agent.address());
    let mut slow = Told {
        client: narrow,
        events: Vec::new(),
    };
    slow.client.send(format!("{KEY}\n"));
    slow.client.snapshot();
    let steady = Told::listen(&agent, "{}");
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
            let told = one.bare(container.short_id());
            let actions: Vec<&Value> = told.iter().map(|event| &event["action"]).collect();
            assert_eq!(actions, ["start", "die"]);
        }
    }
}

/// The engine is restarted: what it tells again is not told twice.
#[test]
#[parallel]
fn nothing_is_told_twice_after_an_outage() {
    let mut engine = PrivateEngine::prepare();
    engine.start_with_image();
    let agent = launch()
        .var("DOCKER_HOST", engine.engine().host())
        .vars(&[("DOCKER_INTERVAL", "300ms"), ("PUBLISH_INTERVAL", "200ms")])
        .start();
    let mut told = Told::listen(&agent, "{}");
    let before = Container::run_on(engine.engine(), "before", &[], "exit 0");
    let id = before.short_id().to_owned();
    before.keep();
    assert_eq!(told.wait_for(&id, 2).len(), 2);
    engine.stop();
    engine.start();
    let after = Container::run_on(engine.engine(), "after", &[], "exit 0");
    let id_after = after.short_id().to_owned();
    after.keep();
    let end = Instant::now() + RECOVERY;
    while told.of(&id_after).len() < 2 && Instant::now() < end {
        told.read();
    }
    assert_eq!(told.wait_for(&id_after, 2).len(), 2);
    assert_eq!(told.of(&id).len(), 2);
}
