//! Tests how often the agent sends requests to an engine that answers slowly.

use std::time::Duration;

use serde_json::Value;
use serial_test::parallel;

use super::container::Container;
use super::snapshots::{Snapshots, collected_at, healthy, shows};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

#[test]
#[parallel]
fn rounds_through_the_api_take_at_most_half_of_the_time() {
    let container = Container::run("pace", &[], "echo up; sleep 1000");
    let agent = launch()
        .vars(&[("CONTAINER_STATS", "engine"), ("DOCKER_INTERVAL", "100ms")])
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    // Docker 20.10 answers once a second. A call can wait up to a second for the next answer.
    let interval = |s: &Value| s["sources"]["docker"]["interval_ms"].as_u64().unwrap();
    let stretched = snapshots.until("a longer interval", DEADLINE, |s| {
        shows(s, container.name()) && interval(s) > 100
    });
    assert!(healthy(&stretched), "{:#}", stretched["sources"]);
    assert_eq!(
        stretched["sources"]["docker"]["interval_reason"],
        "rounds take longer than half of the configured 100ms"
    );
    assert_eq!(stretched["sources"]["system"]["interval_ms"], 1000);
    assert_eq!(stretched["sources"]["system"].get("interval_reason"), None);
    let took = |s: &Value| {
        let milliseconds = s["sources"]["docker"]["duration_ms"].as_u64().unwrap();
        Duration::from_millis(milliseconds)
    };
    let began = |s: &Value| collected_at(s, "docker").unwrap() - took(s);
    let mut rounds = snapshots.take(12);
    rounds.dedup_by_key(|s| began(s));
    let [first, .., last] = &rounds[..] else {
        panic!("{} rounds in 12 s", rounds.len());
    };
    let time = began(last).duration_since(began(first)).unwrap();
    let busy: Duration = rounds[1..].iter().map(took).sum();
    // A single round can be slower than the other rounds, so the limit is above one half.
    let share = busy.as_secs_f64() / time.as_secs_f64();
    assert!(share < 0.7, "rounds took {share} of the time");
}
