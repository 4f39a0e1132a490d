//! Clients that do not keep up: they miss snapshots, never parts of one, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::Value;
use serial_test::serial;

use crate::support::{Agent, Client, Idle, KEY, PATIENCE, net};

/// Many processes to list make snapshots of some ten kilobytes, so that buffers are soon full.
const LARGE: &[(&str, &str)] = &[("TOP_PROCESSES", "1000"), ("PUBLISH_INTERVAL", "100ms")];

fn number(snapshot: &Value, field: &str) -> u64 {
    snapshot["agent"][field].as_u64().unwrap()
}

/// A client that has sent its key and reads nothing.
fn stalled(agent: &Agent) -> Client {
    let mut client = Client::connect_narrow(agent.address());
    client.send(format!("{KEY}\n"));
    client
}

#[test]
#[serial]
fn one_that_never_reads_is_disconnected_and_disturbs_nobody() {
    let _crowd = Idle::start(100);
    let agent = Agent::start(&[LARGE, &[("WRITE_TIMEOUT", "2s")]].concat());
    let mut reader = agent.login();
    for _ in 0..10 {
        reader.snapshot();
    }
    let before = agent.peak_rss();
    let started = Instant::now();
    let stalled: Vec<Client> = (0..10).map(|_| stalled(&agent)).collect();
    let peers = stalled.iter().map(|c| c.local_address().to_string());
    let mut waiting: Vec<String> = peers.collect();
    let mut last = number(&reader.snapshot(), "seq");
    // Every snapshot is on time as long as the others are stuck, and after they are gone.
    while !waiting.is_empty() {
        assert!(started.elapsed() < PATIENCE, "still connected: {waiting:?}");
        let asked = Instant::now();
        let snapshot = reader.snapshot();
        assert!(asked.elapsed() < Duration::from_millis(600), "late");
        last += 1;
        assert_eq!(number(&snapshot, "seq"), last);
        assert_eq!(number(&snapshot, "skipped"), 0);
        for event in agent.events("client disconnected") {
            if waiting.iter().any(|peer| peer == event.text("peer")) {
                assert_eq!(event.text("reason"), "write timeout");
                assert!(event.number("duration_ms") >= 2000, "{event:?}");
                waiting.retain(|peer| peer != event.text("peer"));
            }
        }
    }
    let growth = agent.peak_rss() - before;
    assert!(growth < 4 << 20, "grew by {growth} bytes");
    reader.snapshot_where("the others to be gone", PATIENCE, |s| {
        number(s, "clients") == 1
    });
}

#[test]
#[serial]
fn one_that_reads_again_gets_the_newest_whole_and_is_told_what_it_missed() {
    let _crowd = Idle::start(100);
    let agent = Agent::start(LARGE);
    let mut reader = agent.login();
    let mut slow = stalled(&agent);
    // Far more than all buffers on the way can hold.
    let first = number(&reader.snapshot(), "seq");
    let far = |snapshot: &Value| number(snapshot, "seq") >= first + 50;
    let newest = reader.snapshot_where("50 snapshots", PATIENCE, far);
    let mut previous = slow.snapshot();
    assert_eq!(number(&previous, "skipped"), 0);
    let mut missed = 0;
    // What was on the way arrives first, whole and in order; then the newest.
    while number(&previous, "seq") < number(&newest, "seq") + 5 {
        let next = slow.snapshot();
        let gap = number(&next, "seq") - number(&previous, "seq") - 1;
        let told = number(&next, "skipped") - number(&previous, "skipped");
        assert_eq!(told, gap, "{previous:#}\n{next:#}");
        missed += gap;
        previous = next;
    }
    assert!(missed > 10, "missed only {missed}");
    // From here on it keeps up.
    let skipped = number(&previous, "skipped");
    for _ in 0..5 {
        let next = slow.snapshot();
        assert_eq!(number(&next, "seq"), number(&previous, "seq") + 1);
        assert_eq!(number(&next, "skipped"), skipped);
        previous = next;
    }
    // Its account is settled when it leaves.
    let peer = slow.local_address().to_string();
    drop(slow);
    let event = agent.event_where("client disconnected", |event| event.text("peer") == peer);
    assert!(event.number("skipped") >= skipped);
    assert!(event.number("snapshots") > 0);
}

#[test]
#[serial]
fn one_that_reads_a_little_now_and_then_stays_and_is_not_sent_the_past() {
    let _crowd = Idle::start(100);
    let agent = Agent::start(&[LARGE, &[("WRITE_TIMEOUT", "2s")]].concat());
    let mut reader = agent.login();
    let mut slow = stalled(&agent);
    let mut received = 0;
    // A few kilobytes with every snapshot of the other: a third of what is sent, but never nothing.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        received += 4 * 1024;
        slow.receive_bytes(received);
        reader.snapshot();
    }
    assert!(agent.events("client disconnected").is_empty());
    // Nor does the kernel keep old snapshots for it, as it would if it were let: megabytes a client.
    let waiting = net::unacknowledged(slow.peer_address(), slow.local_address());
    let waiting = waiting.expect("a connection");
    assert!(waiting < 256 * 1024, "{waiting} bytes wait in the kernel");
    // Of what was sent since it has missed most.
    let newest = number(&agent.login().snapshot(), "seq");
    let up_to_date = |snapshot: &Value| number(snapshot, "seq") >= newest;
    let last = slow.snapshot_where("the newest", PATIENCE, up_to_date);
    assert!(number(&last, "skipped") > 10, "{last:#}");
}
