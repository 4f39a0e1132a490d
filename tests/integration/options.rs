//! Tests of the options that a client can send after its key.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use serial_test::parallel;

use crate::support::{Agent, Client, DEADLINE, Ending, Idle, KEY, schema, unpack};

/// The fields that every snapshot has.
const ENVELOPE: [&str; 5] = ["agent", "host", "sources", "status", "timestamp"];

/// A client that has sent its key and these options.
fn asking(agent: &Agent, options: &str) -> Client {
    let mut client = agent.connect();
    client.send(format!("{KEY} {options}\n"));
    client
}

fn next(client: &mut Client) -> Value {
    let line = client.line().expect("no snapshot: the stream has ended");
    serde_json::from_str(&line).expect("the snapshot is not JSON")
}

fn seq(snapshot: &Value) -> u64 {
    snapshot["agent"]["seq"].as_u64().unwrap()
}

fn fields(snapshot: &Value) -> Vec<&str> {
    let fields = snapshot.as_object().unwrap().keys();
    fields.map(String::as_str).collect()
}

#[test]
#[parallel]
fn a_client_that_asks_for_nothing_gets_everything() {
    let agent = Agent::start(&[]);
    for options in [
        "{}",
        " {} ",
        r#"{"sections":["system","containers","docker_meta","stopped","logs","events"],"logs":"tail","every":1,"encoding":"json"}"#,
    ] {
        let line = asking(&agent, options).line().unwrap();
        let snapshot = schema::snapshot(&line);
        let plain = agent.login().snapshot();
        assert_eq!(fields(&snapshot), fields(&plain), "{options}");
    }
}

#[test]
#[parallel]
fn the_kernels_own_figures_come_only_to_clients_that_ask() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1s"), ("SYSTEM_INTERVAL", "1s")]);
    let mut client = asking(&agent, r#"{"sections":["kernel","system"]}"#);
    // The first snapshot is from before the first reading.
    let end = Instant::now() + DEADLINE;
    let snapshot = loop {
        let snapshot = next(&mut client);
        if snapshot.get("kernel").is_some() {
            break snapshot;
        }
        assert!(Instant::now() < end, "no section kernel: {snapshot}");
    };
    let kernel = &snapshot["kernel"];
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let fields = meminfo.lines().count();
    assert_eq!(kernel["meminfo"].as_object().unwrap().len(), fields);
    let total = kernel["meminfo"]["MemTotal"].as_f64().unwrap();
    let mib = snapshot["system"]["memory_total"].as_f64().unwrap();
    assert!((total / 1024.0 / 1024.0 - mib).abs() < 0.1, "{total} {mib}");
    assert!(kernel["vmstat"]["pgfault"].as_u64().unwrap() > 0);
    let mut filled = agent.login().snapshot();
    assert!(filled.get("kernel").is_none());
    filled["kernel"] = kernel.clone();
    assert_eq!(schema::violations(&filled), Vec::<String>::new());
}

#[test]
#[parallel]
fn only_the_sections_that_were_asked_for_are_sent() {
    let agent = Agent::start(&[]);
    let whole = agent.login().snapshot();
    for sections in [
        &[][..],
        &["system"],
        &["containers", "docker_meta"],
        &["logs", "system", "logs"],
    ] {
        let snapshot = next(&mut asking(
            &agent,
            &json!({"sections": sections}).to_string(),
        ));
        let mut expected = [&ENVELOPE[..], sections].concat();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(fields(&snapshot), expected);
        // Together with the other sections, the snapshot is valid.
        let mut filled = whole.clone();
        let parts = snapshot.as_object().unwrap().clone();
        filled.as_object_mut().unwrap().extend(parts);
        assert_eq!(schema::violations(&filled), Vec::<String>::new());
    }
}

#[test]
#[parallel]
fn with_every_n_each_nth_snapshot_is_sent() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms")]);
    for every in [1, 2, 5] {
        let mut client = asking(&agent, &json!({ "every": every }).to_string());
        let mut last = seq(&next(&mut client));
        for _ in 0..4 {
            let snapshot = next(&mut client);
            assert_eq!(seq(&snapshot), last + every);
            assert_eq!(snapshot["agent"]["skipped"], 0);
            last = seq(&snapshot);
        }
    }
    // With the maximum of `every`, only the first snapshot arrives.
    let mut client = asking(&agent, r#"{"every":4294967295}"#);
    next(&mut client);
    assert_eq!(client.ends_within(Duration::from_millis(500)), None);
    agent.signal(Signal::SIGTERM);
    assert_eq!(client.rest(), (Vec::new(), Ending::Eof));
}

#[test]
#[parallel]
fn a_zstd_stream_decompresses_to_the_plain_stream() {
    let _idle = Idle::start(50);
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "100ms"), ("TOP_PROCESSES", "1000")]);
    let mut plain = agent.login();
    let mut packed = asking(&agent, r#"{"encoding":"zstd"}"#);
    let mut part = asking(&agent, r#"{"encoding":"zstd","sections":["system"]}"#);
    let by_seq = |lines: &[String]| -> BTreeMap<u64, String> {
        let numbered = lines.iter().map(|line| {
            let snapshot: Value = serde_json::from_str(line).expect("the snapshot is not JSON");
            (seq(&snapshot), line.clone())
        });
        numbered.collect()
    };
    let lines: Vec<String> = (0..20).map(|_| plain.line().unwrap()).collect();
    let lines = by_seq(&lines);
    drop(plain);
    // Read both streams until the agent ends them.
    agent.signal(Signal::SIGTERM);
    let (stream, ending) = packed.rest();
    assert_eq!(ending, Ending::Eof);
    let (part, _) = part.rest();
    let unpacked = by_seq(&unpack(&stream));
    let same = unpacked.iter().filter(|(seq, line)| {
        let plain = lines.get(seq);
        // The JSON lines of both clients are identical, also in the number of clients that they state.
        plain.is_some_and(|plain| plain == *line)
    });
    assert!(same.count() >= 15, "too few in common");
    for (seq, line) in &unpacked {
        assert!(lines.get(seq).is_none_or(|plain| plain == line), "{seq}");
        schema::snapshot(line);
    }
    let length: usize = unpacked.values().map(String::len).sum();
    assert!(stream.len() * 2 < length, "{} of {length}", stream.len());
    let part = unpack(&part);
    assert!(part.len() >= 15);
    for line in part {
        let snapshot: Value = serde_json::from_str(&line).unwrap();
        assert!(snapshot["system"].is_object() && snapshot.get("logs").is_none());
    }
}

#[test]
#[parallel]
fn a_wrong_option_is_named_and_the_connection_closed() {
    let agent = Agent::start(&[]);
    for (options, named) in [
        ("", "options"),
        ("x", "options"),
        (KEY, "options"),
        ("[]", "options"),
        ("{", "options"),
        (r#"{"every":2} x"#, "options"),
        (r#"{"section":[]}"#, "section"),
        (r#"{"sections":"system"}"#, "sections"),
        (r#"{"sections":["cpu"]}"#, "sections"),
        (r#"{"logs":"old"}"#, "logs"),
        (r#"{"every":0}"#, "every"),
        (r#"{"every":1.5}"#, "every"),
        (r#"{"encoding":"gzip"}"#, "encoding"),
        ("{\"every\":\u{1}}", "options"),
    ] {
        let mut client = asking(&agent, options);
        let peer = client.local_address().to_string();
        let (answer, ending) = client.rest();
        assert_eq!(ending, Ending::Eof, "{options}");
        let answer = String::from_utf8(answer).unwrap();
        let line = answer
            .strip_suffix('\n')
            .expect("the answer is not one line");
        let answer: Value = serde_json::from_str(line).expect("the answer is not JSON");
        assert_eq!(fields(&answer), ["error"], "{options}");
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("{named}: ")),
            "{options}: {error}"
        );
        assert!(error.contains("accepted: "), "{options}: {error}");
        let event = agent.event_where("client refused", |event| event.text("peer") == peer);
        assert_eq!(event.text("reason"), error);
    }
    // The limit for the first line includes the options. It is larger for a line with a right key.
    for (count, expected) in [
        (600, &b"{\"error\":\"options: "[..]),
        (16_000, b"Unauthorized\n"),
    ] {
        let long = format!("{{\"sections\":[{}]}}", "\"logs\",".repeat(count));
        let (answer, _) = asking(&agent, &long).rest();
        assert!(answer.starts_with(expected), "{}", answer.escape_ascii());
    }
}

#[test]
#[parallel]
fn options_are_ignored_without_the_key() {
    let agent = Agent::start(&[]);
    for line in [
        "wrong-key-of-some-length {}".to_owned(),
        "wrong-key-of-some-length {\"every\":0}".to_owned(),
        " {}".to_owned(),
        format!("{KEY}{{}}"),
        format!("{KEY}\t{{}}"),
    ] {
        let mut client = agent.connect();
        client.send(format!("{line}\n"));
        let (answer, ending) = client.rest();
        assert_eq!(answer, b"Unauthorized\n", "{line}");
        assert_eq!(ending, Ending::Eof);
    }
}

#[test]
#[parallel]
fn options_can_arrive_in_pieces_and_end_with_cr_lf() {
    let agent = Agent::start(&[]);
    let mut client = agent.connect();
    for piece in [KEY, " ", "{\"sections\"", ":[\"system\"]}", "\r", "\n"] {
        client.send(piece);
        client.wait_until_read();
    }
    let snapshot = client.line_within(DEADLINE).unwrap();
    let snapshot: Value = serde_json::from_str(&snapshot).unwrap();
    assert!(snapshot.get("containers").is_none(), "{snapshot:#}");
}
