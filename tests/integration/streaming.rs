//! Tests of the snapshots after the key. Clients do unusual things here, such as sending data or closing one direction. Whole
//! snapshots must still arrive on time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use serial_test::{parallel, serial};

use crate::support::{Agent, Client, DEADLINE, Ending, KEY, wait};

fn seq(snapshot: &Value) -> u64 {
    snapshot["agent"]["seq"].as_u64().unwrap()
}

#[test]
#[parallel]
fn a_new_client_gets_the_newest_snapshot_immediately() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h")]);
    let first = agent.login().snapshot();
    let asked = Instant::now();
    let again = agent.login().snapshot();
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(seq(&first), seq(&again));
    assert_eq!(first["timestamp"], again["timestamp"]);
}

#[test]
#[serial]
fn snapshots_arrive_at_the_interval_and_without_gaps_in_their_numbers() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms")]);
    let mut client = agent.login();
    // The first snapshot arrives immediately, not at a tick.
    client.snapshot();
    let mut previous = client.snapshot();
    let started = Instant::now();
    let mut arrived = started;
    for _ in 0..25 {
        let snapshot = client.snapshot();
        let gap = arrived.elapsed();
        arrived = Instant::now();
        assert!(gap < Duration::from_millis(600), "{gap:?}");
        assert_eq!(seq(&snapshot), seq(&previous) + 1);
        assert_eq!(snapshot["agent"]["skipped"], 0);
        let timestamp = |snapshot: &Value| snapshot["timestamp"].as_str().unwrap().to_owned();
        assert!(timestamp(&snapshot) > timestamp(&previous));
        previous = snapshot;
    }
    let mean = started.elapsed() / 25;
    assert!(mean >= Duration::from_millis(190), "{mean:?}");
    assert!(mean <= Duration::from_millis(220), "{mean:?}");
}

#[test]
#[parallel]
fn each_collector_has_its_own_interval() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms"), ("SYSTEM_INTERVAL", "1h")]);
    let mut client = agent.login();
    let first = client.snapshot();
    for _ in 0..10 {
        let next = client.snapshot();
        assert!(seq(&next) > seq(&first));
        assert_eq!(next["sources"]["system"], first["sources"]["system"]);
        assert_eq!(next["system"], first["system"]);
    }
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms"), ("SYSTEM_INTERVAL", "300ms")]);
    let mut client = agent.login();
    let at = |snapshot: &Value| snapshot["sources"]["system"]["collected_at"].clone();
    let first = at(&client.snapshot());
    client.snapshot_where("a second round", DEADLINE, |next| at(next) != first);
}

#[test]
#[parallel]
fn data_after_the_key_is_read_and_discarded() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    let mut client = agent.connect();
    client.send(format!("{KEY}\nand more in the same segment\n{KEY} {{}}\n"));
    client.snapshot();
    let before = agent.peak_rss();
    let chunk = vec![b'\n'; 1024 * 1024];
    for _ in 0..16 {
        client.send(&chunk);
    }
    client.wait_until_read();
    let growth = agent.peak_rss() - before;
    assert!(growth < 4 << 20, "grew by {growth} bytes");
    let next = seq(&client.snapshot());
    for later in 1..5 {
        assert_eq!(seq(&client.snapshot()), next + later);
    }
}

#[test]
#[parallel]
fn a_half_closed_client_still_receives_snapshots() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    let mut client = agent.login();
    client.half_close();
    let first = seq(&client.snapshot());
    for later in 1..10 {
        assert_eq!(seq(&client.snapshot()), first + later);
    }
    assert!(agent.events("client disconnected").is_empty());
}

#[test]
#[parallel]
fn a_client_that_disconnects_within_a_line_disturbs_no_other() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    let mut other = agent.login();
    let mut last = seq(&other.snapshot());
    for reset in [false, true].repeat(10) {
        let mut client = Client::connect_narrow(agent.address());
        client.send(format!("{KEY}\n"));
        client.receive_bytes(10);
        let peer = client.local_address().to_string();
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        agent.event_where("client disconnected", |event| event.text("peer") == peer);
    }
    // The other client has received every snapshot.
    let newest = seq(&agent.login().snapshot());
    while last < newest {
        let snapshot = other.snapshot();
        last += 1;
        assert_eq!(seq(&snapshot), last);
        assert_eq!(snapshot["agent"]["skipped"], 0);
    }
}

#[test]
#[serial]
fn two_hundred_clients_get_every_snapshot() {
    const CLIENTS: u64 = 200;
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms")]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| agent.connect()).collect();
    for client in &mut clients {
        client.send(format!("{KEY}\n"));
    }
    for client in &mut clients {
        client.snapshot_where("the count of all clients", DEADLINE, |s| {
            s["agent"]["clients"] == CLIENTS
        });
    }
    // From here on each client gets every snapshot.
    for client in &mut clients {
        let first = client.snapshot();
        for later in 1..4 {
            let next = client.snapshot();
            assert_eq!(seq(&next), seq(&first) + later);
            assert_eq!(next["agent"]["skipped"], 0);
        }
    }
    drop(clients);
    let mut last = agent.login();
    last.snapshot_where("the end of the other clients", DEADLINE, |s| {
        s["agent"]["clients"] == 1
    });
}

/// After a network outage many clients connect at the same time. A client that is still connected must get its snapshots on time.
#[test]
#[serial]
fn two_thousand_new_clients_delay_no_other_client() {
    const CROWD: usize = 2000;
    limit_descriptors(None, 2 * CROWD as u64);
    let interval = Duration::from_millis(500);
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "500ms")]);
    let mut early = agent.login();
    early.snapshot();
    let address = agent.address();
    let burst = thread::spawn(move || {
        // A client sends its key as soon as it is connected.
        let connect = |_| {
            let mut client = Client::connect(address);
            client.send(format!("{KEY} {{\"sections\":[]}}\n"));
            client
        };
        let mut burst: Vec<Client> = (0..CROWD).map(connect).collect();
        for client in &mut burst {
            client.line().expect("no snapshot: the stream has ended");
        }
    });
    let mut last = early.snapshot();
    let mut arrived = Instant::now();
    let mut gaps = Vec::new();
    while !burst.is_finished() || gaps.len() < 3 {
        let next = early.snapshot();
        assert_eq!(seq(&next), seq(&last) + 1);
        gaps.push(arrived.elapsed());
        (last, arrived) = (next, Instant::now());
    }
    burst.join().unwrap();
    let late = interval + Duration::from_millis(250);
    assert!(gaps.iter().all(|gap| *gap < late), "{gaps:?}");
}

/// The lowest free file descriptor of a process. The next file that the process opens gets this number.
fn lowest_free_descriptor(pid: u32) -> u64 {
    let open: BTreeSet<u64> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    (0..).find(|number| !open.contains(number)).unwrap()
}

/// Sets the soft limit of open files for a process. `None` is the test process.
fn limit_descriptors(pid: Option<u32>, soft: u64) {
    let pid = pid.map(|pid| Pid::from_raw(pid.try_into().unwrap()).unwrap());
    let limit = Rlimit {
        current: Some(soft),
        ..getrlimit(Resource::Nofile)
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[test]
#[parallel]
fn without_free_descriptors_the_agent_serves_its_clients_and_retries() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    let pid = agent.pid();
    let mut early = agent.login();
    let before = seq(&early.snapshot());
    limit_descriptors(Some(pid), lowest_free_descriptor(pid));

    let mut late = agent.connect();
    late.send(format!("{KEY}\n"));
    let refused = agent.event("accept failed");
    assert_eq!(refused.level(), "WARN");
    assert!(refused.text("error").contains("os error 24"), "{refused:?}");
    assert_eq!(late.ends_within(Duration::from_secs(2)), None);
    // The pause before a retry grows from 10 ms to one second.
    let tries = agent.events("accept failed").len();
    assert!((2..=12).contains(&tries), "{tries} attempts in two seconds");
    let seen = seq(&early.snapshot_where("the newest", DEADLINE, |s| seq(s) > before + 15));

    limit_descriptors(Some(pid), 1024);
    late.snapshot();
    early.snapshot_where("both", DEADLINE, |s| {
        seq(s) > seen && s["agent"]["clients"] == 2 && s["status"] == "ok"
    });
}

#[test]
#[parallel]
fn a_client_over_the_limit_is_disconnected_immediately() {
    let agent = Agent::start(&[("MAX_CLIENTS", "2"), ("PUBLISH_INTERVAL", "100ms")]);
    let mut first = agent.login();
    let mut second = agent.login();
    first.snapshot();
    second.snapshot();
    let mut third = agent.connect();
    let peer = third.local_address().to_string();
    let (answer, ending) = third.rest();
    assert_eq!((answer, ending), (Vec::new(), Ending::Eof));
    let refused = agent.event_where("client refused", |event| event.text("peer") == peer);
    let reason = refused.text("reason");
    assert!(
        reason.contains("MAX_CLIENTS") || reason.contains("too many"),
        "{reason}"
    );
    // The connected clients are not affected. When one of them disconnects, a new client is accepted.
    second.snapshot();
    let left = first.local_address().to_string();
    drop(first);
    agent.event_where("client disconnected", |event| event.text("peer") == left);
    // The agent logs the event just before it closes the connection, so the first attempts can fail.
    wait::until("a connection for the new client", DEADLINE, || {
        agent.login().line()
    });
}

#[test]
#[parallel]
fn a_reset_after_a_half_close_is_noticed_between_snapshots() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h")]);
    let mut client = agent.login();
    client.snapshot();
    let peer = client.local_address().to_string();
    client.half_close();
    assert_eq!(client.ends_within(Duration::from_secs(2)), None);
    client.reset();
    let event = agent.event_where("client disconnected", |event| event.text("peer") == peer);
    assert_eq!(event.text("reason"), "closed by client");
}
