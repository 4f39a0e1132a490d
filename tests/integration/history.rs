//! Tests of the option `history`: the figures of the past that a client gets before its first snapshot.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use serial_test::parallel;
use system_agent::client::Connector;
use system_agent::model::{CONTAINER_SERIES, HOST_SERIES, StreamLine};
use system_agent::settings::ApiKey;

use crate::support::{Agent, Client, DEADLINE, Ending, KEY, schema, unpack};

const FAST: &[(&str, &str)] = &[("PUBLISH_INTERVAL", "200ms"), ("SYSTEM_INTERVAL", "200ms")];

/// A client that has sent its key and these options.
fn asking(agent: &Agent, options: &str) -> Client {
    let mut client = agent.connect();
    client.send(format!("{KEY} {options}\n"));
    client
}

/// Reads a line of the history, and checks it against the schema.
fn history(client: &mut Client) -> Value {
    let line = client.line().expect("the stream has ended");
    let line: Value = serde_json::from_str(&line).expect("the line is not JSON");
    assert_eq!(
        schema::history_violations(&line),
        Vec::<String>::new(),
        "{line}"
    );
    let history = line["history"].clone();
    let length = times(&history).len();
    for (name, column) in history["host"].as_object().into_iter().flatten() {
        assert_eq!(column.as_array().unwrap().len(), length, "{name}");
    }
    history
}

fn times(history: &Value) -> Vec<u64> {
    let times = history["times"].as_array().expect("no times");
    times.iter().map(|time| time.as_u64().unwrap()).collect()
}

/// Waits until the agent has published this snapshot.
fn wait_for(agent: &Agent, seq: u64) {
    let mut client = agent.login();
    while client.snapshot()["agent"]["seq"].as_u64().unwrap() < seq {}
}

#[test]
#[parallel]
fn a_client_gets_the_figures_from_before_it_connected() {
    let agent = Agent::start(FAST);
    wait_for(&agent, 10);
    let mut client = asking(&agent, r#"{"sections":["system"],"history":true}"#);
    let past = history(&mut client);
    let times = times(&past);
    assert_eq!(
        past["interval_ms"], 1000,
        "720 samples of 10 minutes: every 5th snapshot"
    );
    assert!(times.len() >= 2, "{past}");
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let age = now.unwrap().as_millis() as u64 - times[times.len() - 1];
    assert!(age < 5000, "the newest sample is {age} ms old");
    // The figures are those of the snapshots.
    let line = client.line().unwrap();
    let snapshot: Value = serde_json::from_str(&line).unwrap();
    let used = past["host"]["memory.used"][times.len() - 1]
        .as_f64()
        .unwrap();
    let mib = snapshot["system"]["memory_used"].as_f64().unwrap();
    assert!((used / 1_048_576.0 - mib).abs() < mib / 4.0, "{used} {mib}");
    let root = past["host"]["disk.used:/"].as_array().unwrap();
    let full = snapshot["system"]["disk_used"].as_f64().unwrap()
        / snapshot["system"]["disk_total"].as_f64().unwrap();
    let newest = root[root.len() - 1].as_f64().unwrap();
    assert!((newest - full * 100.0).abs() < 1.0, "{newest} {full}");
    assert!(past.get("containers").is_none(), "{past}");
    // A snapshot comes at each interval after that.
    assert_eq!(snapshot["agent"]["skipped"], 0);
    let next: Value = serde_json::from_str(&client.line().unwrap()).unwrap();
    let seq = |snapshot: &Value| snapshot["agent"]["seq"].as_u64().unwrap();
    assert_eq!(seq(&next), seq(&snapshot) + 1);
}

#[test]
#[parallel]
fn other_clients_get_the_same_bytes_as_without_a_history() {
    let on = Agent::start(&[]);
    let off = Agent::start(&[("HISTORY", "0")]);
    let shape = |line: String| -> Vec<String> {
        let value: Value = serde_json::from_str(&line).unwrap();
        schema::snapshot(&line);
        value.as_object().unwrap().keys().cloned().collect()
    };
    for options in ["", " {}", r#" {"history":false}"#] {
        let first = |agent: &Agent| {
            let mut client = agent.connect();
            client.send(format!("{KEY}{options}\n"));
            client.line().unwrap()
        };
        assert_eq!(shape(first(&on)), shape(first(&off)), "{options}");
    }
    // All clients of one variant get one line, with or without the option.
    let plain = asking(&on, "{}").line().unwrap();
    let mut with = asking(&on, r#"{"history":true}"#);
    history(&mut with);
    let with = with.line().unwrap();
    let seq = |line: &str| schema::snapshot(line)["agent"]["seq"].clone();
    if seq(&plain) == seq(&with) {
        assert_eq!(plain, with);
    }
}

#[test]
#[parallel]
fn the_number_of_seconds_limits_the_history() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "500ms"), ("HISTORY", "1m")]);
    wait_for(&agent, 12);
    let all = times(&history(&mut asking(&agent, r#"{"history":3600}"#)));
    let last = times(&history(&mut asking(&agent, r#"{"history":2}"#)));
    assert!(all.len() >= 12, "{all:?}");
    assert!((2..=5).contains(&last.len()), "{last:?}");
}

#[test]
#[parallel]
fn with_resume_only_later_samples_come() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "500ms"), ("HISTORY", "1m")]);
    let mut first = asking(&agent, r#"{"sections":["events"]}"#);
    let mut snapshot = Value::Null;
    for _ in 0..4 {
        snapshot = serde_json::from_str(&first.line().unwrap()).unwrap();
    }
    drop(first);
    let seen = snapshot["agent"]["seq"].as_u64().unwrap();
    wait_for(&agent, seen + 4);
    let options =
        json!({"sections": ["events"], "history": true, "resume": snapshot["agent"]["cursor"]});
    let mut client = asking(&agent, &options.to_string());
    let times = times(&history(&mut client));
    let at = humantime::parse_rfc3339(snapshot["timestamp"].as_str().unwrap()).unwrap();
    let at = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    assert!(times.iter().all(|time| *time > at), "{at} {times:?}");
    let next: Value = serde_json::from_str(&client.line().unwrap()).unwrap();
    assert_eq!(next["agent"]["resume"], "continued");
    // Each snapshot after the cursor is a sample, up to the first snapshot of this connection.
    let first = next["agent"]["seq"].as_u64().unwrap();
    let missed = (first - seen) as usize;
    assert!(
        (missed - 1..=missed).contains(&times.len()),
        "{missed} {times:?}"
    );
}

#[test]
#[parallel]
fn a_history_that_is_off_is_empty() {
    let agent = Agent::start(&[("HISTORY", "0"), ("PUBLISH_INTERVAL", "200ms")]);
    wait_for(&agent, 4);
    let mut client = asking(&agent, r#"{"history":true}"#);
    assert_eq!(history(&mut client), json!({"interval_ms": 0, "times": []}));
    client.snapshot();
}

#[test]
#[parallel]
fn a_wrong_value_is_answered_with_the_accepted_ones() {
    let agent = Agent::start(&[]);
    for options in [
        r#"{"history":0}"#,
        r#"{"history":"all"}"#,
        r#"{"history":3601}"#,
    ] {
        let mut client = asking(&agent, options);
        let answer: Value = serde_json::from_str(&client.line().unwrap()).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.starts_with("history: accepted: true, false"),
            "{error}"
        );
        assert_eq!(client.rest(), (Vec::new(), Ending::Eof));
    }
}

#[test]
#[parallel]
fn a_compressed_history_is_a_frame_of_its_own() {
    let agent = Agent::start(FAST);
    wait_for(&agent, 10);
    let mut client = asking(
        &agent,
        r#"{"sections":["system"],"encoding":"zstd","history":true}"#,
    );
    // The agent sends the whole stream before it closes the connection.
    thread::sleep(Duration::from_secs(1));
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    let lines = unpack(&client.rest().0);
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(times(&first["history"]).len() >= 2, "{first}");
    assert!(lines.len() >= 3, "{}", lines.len());
    for line in &lines[1..] {
        let snapshot: Value = serde_json::from_str(line).unwrap();
        assert!(snapshot["agent"]["seq"].is_u64());
    }
}

#[test]
#[parallel]
fn the_page_lists_every_series() {
    let page = include_str!("../../docs/protocol.md");
    let section = page.split("## History").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let [_, host, containers] = section.split("| series of ").collect::<Vec<_>>()[..] else {
        panic!("there are not two tables");
    };
    for (table, names) in [(host, &HOST_SERIES[..]), (containers, &CONTAINER_SERIES)] {
        for name in names {
            assert!(table.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
#[parallel]
fn the_client_library_reads_the_history() {
    let agent = Agent::start(FAST);
    wait_for(&agent, 10);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let key = ApiKey::new("test", KEY).unwrap();
        let connector = Connector::new(&agent.address().to_string(), &key);
        let connector = connector.options(r#"{"sections":["system"]}"#);
        let mut lines = connector
            .connect_with_history(Duration::from_secs(600))
            .await
            .unwrap();
        let StreamLine::History(history) = lines.next_line().await.unwrap() else {
            panic!("the first line is no history");
        };
        let cpu = &history.host["cpu"].0;
        assert!(cpu.len() >= 2 && cpu.len() == history.times.len());
        assert!(cpu[cpu.len() - 1].is_some(), "{cpu:?}");
        assert!(matches!(
            lines.next_line().await,
            Ok(StreamLine::Snapshot(_))
        ));
        // `next` returns only snapshots.
        let mut lines = connector
            .connect_with_history(Duration::from_secs(1))
            .await
            .unwrap();
        assert!(lines.next().await.unwrap().agent.seq >= 10);
    });
}

#[test]
#[parallel]
fn a_client_that_reads_its_history_slowly_delays_the_stop_by_no_more_than_the_timeout() {
    let mut agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms"), ("SHUTDOWN_TIMEOUT", "2s")]);
    wait_for(&agent, 5);
    let mut client = Client::connect_narrow(agent.address());
    client.send(format!("{KEY} {{\"history\":true}}\n"));
    thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(agent.exit(DEADLINE).success());
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}
