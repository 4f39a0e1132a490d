//! Tests of slow clients. A slow client misses whole snapshots, never parts of a snapshot. Other clients do not notice slow
//! clients.

use std::time::{Duration, Instant};

use serde_json::Value;
use serial_test::serial;

use crate::support::{Agent, Client, DEADLINE, Idle, KEY, net};

/// With a long list of processes a snapshot has tens of kilobytes, so buffers are soon full.
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
fn a_client_that_never_reads_is_disconnected_and_disturbs_no_other() {
    let _idle = Idle::start(100);
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
    // Every snapshot is on time, both while the other clients are stalled and after they are disconnected.
    while !waiting.is_empty() {
        assert!(started.elapsed() < DEADLINE, "still connected: {waiting:?}");
        let asked = Instant::now();
        let snapshot = reader.snapshot();
        assert!(
            asked.elapsed() < Duration::from_millis(600),
            "the snapshot is late"
        );
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
    reader.snapshot_where("the end of the other clients", DEADLINE, |s| {
        number(s, "clients") == 1
    });
}

#[test]
#[serial]
fn a_client_that_reads_again_gets_the_newest_snapshot_and_a_count_of_skipped_ones() {
    let _idle = Idle::start(100);
    let agent = Agent::start(LARGE);
    let mut reader = agent.login();
    let mut slow = stalled(&agent);
    // 50 snapshots are far more than all buffers can hold.
    let first = number(&reader.snapshot(), "seq");
    let far = |snapshot: &Value| number(snapshot, "seq") >= first + 50;
    let newest = reader.snapshot_where("50 snapshots", DEADLINE, far);
    let mut previous = slow.snapshot();
    assert_eq!(number(&previous, "skipped"), 0);
    let mut missed = 0;
    // First the buffered snapshots arrive, whole and in order. After these, the newest snapshot arrives.
    while number(&previous, "seq") < number(&newest, "seq") + 5 {
        let next = slow.snapshot();
        let gap = number(&next, "seq") - number(&previous, "seq") - 1;
        let skipped = number(&next, "skipped") - number(&previous, "skipped");
        assert_eq!(skipped, gap, "{previous:#}\n{next:#}");
        missed += gap;
        previous = next;
    }
    assert!(missed > 10, "the client missed only {missed}");
    // From here on the client reads every snapshot.
    let skipped = number(&previous, "skipped");
    for _ in 0..5 {
        let next = slow.snapshot();
        assert_eq!(number(&next, "seq"), number(&previous, "seq") + 1);
        assert_eq!(number(&next, "skipped"), skipped);
        previous = next;
    }
    // The log event of the client's disconnection states how many snapshots the client got and skipped.
    let peer = slow.local_address().to_string();
    drop(slow);
    let event = agent.event_where("client disconnected", |event| event.text("peer") == peer);
    assert!(event.number("skipped") >= skipped);
    assert!(event.number("snapshots") > 0);
}

#[test]
#[serial]
fn a_client_that_reads_slowly_stays_and_gets_recent_snapshots() {
    let _idle = Idle::start(100);
    let agent = Agent::start(&[LARGE, &[("WRITE_TIMEOUT", "2s")]].concat());
    let mut reader = agent.login();
    let mut slow = stalled(&agent);
    let mut received = 0;
    // The client reads 4 KiB for each snapshot, which is about a third of the data.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        received += 4 * 1024;
        slow.receive_bytes(received);
        reader.snapshot();
    }
    assert!(agent.events("client disconnected").is_empty());
    // The kernel holds few old snapshots for this client. Without a limit the kernel could hold megabytes for each client.
    let waiting = net::unacknowledged(slow.peer_address(), slow.local_address());
    let waiting = waiting.expect("the kernel does not list the connection");
    assert!(waiting < 256 * 1024, "{waiting} bytes wait in the kernel");
    // The client has missed most of the snapshots.
    let newest = number(&agent.login().snapshot(), "seq");
    let up_to_date = |snapshot: &Value| number(snapshot, "seq") >= newest;
    let last = slow.snapshot_where("the newest", DEADLINE, up_to_date);
    assert!(number(&last, "skipped") > 10, "{last:#}");
}
