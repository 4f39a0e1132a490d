use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Compressor, Part};
use crate::model::{
    ContainerEvent, EncodedLines, EndedLog, EventAction, Events, LogLines, LogPosition, LogSample,
    Options, Place, Positions, Section, Snapshot, StderrLines, SystemMetrics, Timestamp,
};
use crate::published::{EncodedSnapshot, LineRequest, Published, StreamPosition};

fn snapshot() -> Snapshot {
    let recorded = include_str!("../../../tests/fixtures/snapshot.json");
    let mut snapshot: Snapshot = serde_json::from_str(recorded).unwrap();
    snapshot.logs = Arc::default();
    snapshot.agent.seq = 7;
    snapshot.agent.skipped = 0;
    snapshot
}

fn published(logs: LogSample) -> Published {
    Published::new(snapshot(), logs, (Arc::default(), 0), Instant::now(), None)
}

fn made(
    published: &Published,
    options: &str,
    since: Option<&StreamPosition>,
) -> Arc<EncodedSnapshot> {
    let variant = Options::parse(options.as_bytes()).unwrap().variant;
    let request = LineRequest {
        since,
        lagging: true,
        ..LineRequest::first(variant)
    };
    published.line(request).unwrap()
}

fn bytes(encoded: &EncodedSnapshot, skipped: u64) -> Vec<u8> {
    [&encoded.shared, encoded.ending(skipped).as_ref()].concat()
}

fn value(encoded: &EncodedSnapshot) -> Value {
    serde_json::from_slice(&bytes(encoded, 0)).unwrap()
}

#[test]
fn a_session_appends_its_own_count_of_skipped_snapshots() {
    let published = published(LogSample::default());
    let whole = made(&published, "{}", None);
    assert_eq!((whole.seq, whole.follows), (7, None));
    for skipped in [0, 1, u64::MAX] {
        let mut expected = snapshot();
        expected.timestamp = published.snapshot.timestamp;
        expected.agent.skipped = skipped;
        let mut line = serde_json::to_string(&expected).unwrap();
        line.push('\n');
        assert_eq!(String::from_utf8(bytes(&whole, skipped)).unwrap(), line);
    }
}

#[test]
fn sections_that_are_not_selected_are_absent_and_the_other_fields_stay() {
    let published = published(LogSample::default());
    let whole = value(&made(&published, "{}", None));
    let part = value(&made(&published, r#"{"sections":["docker_meta"]}"#, None));
    let none = value(&made(&published, r#"{"sections":[]}"#, None));
    let mut expected = whole;
    let fields = expected.as_object_mut().unwrap();
    for section in ["system", "containers", "stopped", "logs", "events"] {
        assert!(fields.remove(section).is_some());
    }
    assert_eq!(part, expected);
    expected.as_object_mut().unwrap().remove("docker_meta");
    assert_eq!(none, expected);
}

#[test]
fn a_variant_is_encoded_once() {
    let published = published(LogSample::default());
    let one = made(&published, r#"{"encoding":"zstd"}"#, None);
    let other = made(&published, r#"{"encoding":"zstd","every":2}"#, None);
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(published.lines_made(), 1);
    made(&published, "{}", None);
    assert_eq!(published.lines_made(), 2);
}

#[test]
fn an_encoded_section_is_reused_while_its_sample_is_the_same() {
    let before = published(LogSample::default());
    made(&before, "{}", None);
    let meta = |published: &Published| {
        published.encodings().sections[&Part::Section(Section::DockerMeta)].as_ptr()
    };
    let known = meta(&before);
    let mut now = snapshot();
    now.agent.seq = 8;
    now.docker_meta = Arc::clone(&before.snapshot.docker_meta);
    now.system = Arc::new(SystemMetrics {
        cpu_percent: [12.5],
        ..SystemMetrics::default()
    });
    let events = (Arc::default(), 0);
    let after = Published::new(
        now.clone(),
        LogSample::default(),
        events,
        Instant::now(),
        Some(&before),
    );
    assert_eq!(value(&made(&after, "{}", None)), json!(now));
    assert_eq!(meta(&after), known);
}

#[test]
fn the_buffer_of_a_line_is_used_again_after_all_clients_have_received_it() {
    let next = |before: Published| {
        let mut now = snapshot();
        now.agent.seq = before.seq() + 1;
        let events = (Arc::default(), 0);
        let next = Published::new(
            now,
            LogSample::default(),
            events,
            Instant::now(),
            Some(&before),
        );
        drop(before);
        next
    };
    let spare = |published: &Published| published.encodings().spare.capacity();
    let first = published(LogSample::default());
    let buffer = made(&first, "{}", None).shared.as_ptr();
    let second = next(first);
    assert!(spare(&second) > 0);
    let line = made(&second, "{}", None);
    assert_eq!(spare(&second), 0);
    assert_eq!(line.shared.as_ptr(), buffer);
    assert_eq!(value(&line), json!(second.snapshot));
    // A client still receives the second line.
    let sent = line.shared.clone();
    let third = next(second);
    let other = made(&third, "{}", None);
    assert_ne!(other.shared.as_ptr(), buffer);
    assert_eq!(value(&other), json!(third.snapshot));
    assert_eq!(line.shared, sent);
    let third = next(third);
    assert_eq!(spare(&third), 0);
    // A buffer is freed if two snapshots do not use it.
    drop((sent, line, other));
    made(&third, "{}", None);
    let third = next(third);
    assert!(spare(&third) > 0);
    let third = next(third);
    assert!(spare(&third) > 0);
    let third = next(third);
    assert_eq!(spare(&third), 0);
    // The buffer of a much longer line is not used for a short one, but for the next long one.
    let buffer = made(&third, "{}", None).shared.as_ptr();
    let fourth = next(third);
    made(&fourth, r#"{"sections":["stopped"]}"#, None);
    assert!(spare(&fourth) > 0);
    assert_eq!(made(&fourth, "{}", None).shared.as_ptr(), buffer);
}

#[test]
fn a_zstd_frame_holds_the_whole_json_line_for_every_count_of_skipped_snapshots() {
    let published = published(LogSample::default());
    let plain = made(&published, "{}", None);
    let frame = made(&published, r#"{"encoding":"zstd"}"#, None);
    for skipped in [0, 12_345, u64::MAX] {
        let unpacked = zstd::decode_all(&bytes(&frame, skipped)[..]).unwrap();
        assert_eq!(unpacked, bytes(&plain, skipped));
    }
    // Several frames in sequence can be decoded together.
    let stream = [bytes(&frame, 1), bytes(&frame, 2)].concat();
    let unpacked = zstd::decode_all(&stream[..]).unwrap();
    assert_eq!(unpacked, [bytes(&plain, 1), bytes(&plain, 2)].concat());
}

#[test]
fn a_compressor_can_be_reused_for_lines_of_any_length() {
    let mut compressor = Compressor::default();
    for length in [1, 200_000, 3, 3_000_000] {
        let line: Vec<u8> = (0..length)
            .map(|i: u32| (i.wrapping_mul(i) % 251) as u8)
            .collect();
        let mut frame = compressor.compress(&[line.as_slice().into()]).unwrap();
        // These bytes are an empty last block.
        frame.extend_from_slice(&[1, 0, 0]);
        assert_eq!(zstd::decode_all(&frame[..]).unwrap(), line);
    }
}

#[test]
fn a_client_gets_the_events_that_it_has_not_received_and_equal_clients_share_the_line() {
    let mut events = Events::default();
    for second in 0..5 {
        events.push(
            ContainerEvent {
                time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(second)),
                action: EventAction::Die,
                container: "web".to_owned(),
                id: "0123456789ab".to_owned(),
                image: "nginx".to_owned(),
                exit_code: Some(3),
                health: None,
                renamed_from: None,
            },
            false,
        );
    }
    let published = Published::new(
        snapshot(),
        LogSample::default(),
        (Arc::new(events), 3),
        Instant::now(),
        None,
    );
    let at = |events, seq| StreamPosition {
        events,
        ..since(seq, &[])
    };
    let seconds = |snapshot: &Arc<EncodedSnapshot>| -> Vec<String> {
        let value = value(snapshot);
        assert!(value.get("events_dropped").is_none());
        let events = value["events"].as_array().unwrap().iter();
        events
            .map(|event| event["time"].as_str().unwrap()[17..19].to_owned())
            .collect()
    };
    let for_new_clients = made(&published, "{}", None);
    assert_eq!(seconds(&for_new_clients), ["03", "04"]);
    let expected = json!({
        "time": "1970-01-01T00:00:03.000Z", "action": "die", "container": "web", "id": "0123456789ab",
        "image": "nginx", "exit_code": 3
    });
    assert_eq!(value(&for_new_clients)["events"][0], expected);
    let for_other_clients = made(&published, "{}", Some(&at(3, 6)));
    assert!(Arc::ptr_eq(&for_new_clients, &for_other_clients));
    assert_eq!(
        (for_new_clients.events_after, for_new_clients.since.events),
        (Some(3), 5)
    );
    let for_lagging_client = made(&published, "{}", Some(&at(1, 2)));
    assert_eq!(seconds(&for_lagging_client), ["01", "02", "03", "04"]);
    assert!(
        for_other_clients.lacks_something_after(&at(1, 2))
            && !for_lagging_client.lacks_something_after(&at(1, 2))
    );
    assert!(!for_lagging_client.lacks_something_after(&at(2, 5)));
    // Clients without the section `events` share one line, even if their positions differ.
    let without = r#"{"sections":["system"]}"#;
    let [one, other] = [1, 5].map(|events| made(&published, without, Some(&at(events, 2))));
    assert!(Arc::ptr_eq(&one, &other));
    assert!(value(&one).get("events").is_none());
    assert!(!one.lacks_something_after(&at(1, 2)));
}

/// A start of the container `web`, at a time in Unix seconds.
fn start_at(second: u64) -> ContainerEvent {
    ContainerEvent {
        time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(second)),
        action: EventAction::Start,
        container: "web".to_owned(),
        id: "0123456789ab".to_owned(),
        image: "nginx".to_owned(),
        exit_code: None,
        health: None,
        renamed_from: None,
    }
}

#[test]
fn a_client_that_came_before_the_old_events_lacks_nothing() {
    let mut events = Events::default();
    for (second, is_old) in [(1, true), (2, true), (3, false)] {
        events.push(start_at(second), is_old);
    }
    let published = Published::new(
        snapshot(),
        LogSample::default(),
        (Arc::new(events), 2),
        Instant::now(),
        None,
    );
    let early = since(6, &[]);
    let line = made(&published, "{}", Some(&early));
    assert_eq!(value(&line)["events"].as_array().unwrap().len(), 1);
    assert!(!line.lacks_something_after(&early));
}

#[test]
fn dropped_events_are_counted() {
    let mut events = Events::default();
    for _ in 0..Events::MOST + 44 {
        events.push(start_at(0), false);
    }
    let published = Published::new(
        snapshot(),
        LogSample::default(),
        (Arc::new(events), 4),
        Instant::now(),
        None,
    );
    let value = value(&made(&published, "{}", None));
    assert_eq!(value["events"].as_array().unwrap().len(), Events::MOST);
    assert_eq!(value["events_dropped"], 40);
}

fn log(container: &str, texts: &[&str], end: u64, origin: u64) -> Arc<LogLines> {
    let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
    let place = Place {
        container: Arc::from(container),
        end,
        origin: at_line(origin),
        created: 0,
    };
    let lines = EncodedLines::following(
        &EncodedLines::default(),
        0..0,
        &texts,
        &StderrLines::default(),
        0,
    );
    Arc::new(LogLines::new(Arc::new(lines), place))
}

fn at_line(line: u64) -> LogPosition {
    LogPosition { line, place: None }
}

fn since(seq: u64, positions: &[(&str, u64)]) -> StreamPosition {
    let positions = positions
        .iter()
        .map(|&(id, end)| (Arc::from(id), at_line(end)));
    StreamPosition {
        // Different from the ids that the agent gives.
        id: seq + (1 << 62),
        resumed: None,
        begins_logs: false,
        seq,
        positions: Arc::new(positions.collect::<Positions>()),
        events: 0,
    }
}

fn ended(name: &str, id: &str, position: u64, lines: Option<Arc<LogLines>>) -> EndedLog {
    EndedLog {
        name: name.to_owned(),
        container: Arc::from(id),
        position,
        lines,
    }
}

#[test]
fn new_log_lines_begin_after_the_clients_position_and_dropped_log_lines_are_counted() {
    let logs = LogSample {
        logs: Arc::new(
            [
                ("new".to_owned(), log("4", &["n1", "n2"], 12, 5)),
                ("quiet".to_owned(), log("2", &["q"], 9, 0)),
                ("web".to_owned(), log("1", &["w1", "w2", "w3"], 100, 0)),
            ]
            .into(),
        ),
        ended: Arc::new(vec![
            ended("gone", "9", 8, None),
            ended("web", "0", 3, Some(log("0", &["last"], 3, 0))),
        ]),
        ..LogSample::default()
    };
    let published = published(logs);
    let options = r#"{"logs":"new","sections":["logs"]}"#;
    let first = value(&made(&published, options, None));
    assert_eq!(
        first["logs"],
        json!({"new": ["n1", "n2"], "quiet": ["q"], "web": ["last", "w1", "w2", "w3"]})
    );
    assert_eq!(first["logs_dropped"], json!({}));

    let before = since(6, &[("0", 2), ("1", 98), ("2", 9), ("9", 8)]);
    let news = made(&published, options, Some(&before));
    assert_eq!(news.follows, Some(before.id));
    let news = value(&news);
    assert_eq!(
        news["logs"],
        json!({"new": ["n1", "n2"], "web": ["last", "w2", "w3"]})
    );
    // The client has no position for the container `new`, so all log lines after the start position of the container are new.
    assert_eq!(news["logs_dropped"], json!({"new": 5}));

    let long_before = since(2, &[("0", 3), ("1", 40), ("2", 9), ("4", 12), ("9", 6)]);
    let news = value(&made(&published, options, Some(&long_before)));
    assert_eq!(news["logs"], json!({"web": ["w1", "w2", "w3"]}));
    assert_eq!(news["logs_dropped"], json!({"gone": 2, "web": 57}));
    assert_eq!(published.lines_made(), 3);
}

/// Compares the JSON lines for a recorded snapshot with the JSON lines that an earlier build sent for the same snapshot.
#[test]
fn the_json_lines_are_byte_for_byte_the_recorded_json_lines() {
    let recorded = include_str!("../../../tests/fixtures/snapshot.json");
    let mut snapshot: Snapshot = serde_json::from_str(recorded).unwrap();
    let events = std::mem::take(&mut snapshot.events);
    let mut newest = Events::default();
    events
        .into_iter()
        .for_each(|event| newest.push(event, false));
    let odd = [
        "2026-01-01T00:00:00Z a",
        "2026-01-01T00:00:01Z \u{1b}[31m\"ä\u{fffd}\t\\",
        "",
    ];
    let logs = LogSample {
        logs: Arc::new(
            [
                ("db".to_owned(), log("1", &odd, 12, 5)),
                ("web".to_owned(), log("2", &["q"], 9, 0)),
            ]
            .into(),
        ),
        ended: Arc::new(vec![
            ended("gone", "9", 8, None),
            ended("web", "0", 3, Some(log("0", &["last"], 3, 0))),
        ]),
        ..LogSample::default()
    };
    snapshot.logs = Arc::clone(&logs.logs);
    let published_before = newest.end().saturating_sub(1);
    let published = Published::new(
        snapshot,
        logs,
        (Arc::new(newest), published_before),
        Instant::now(),
        None,
    );
    let before = since(6, &[("0", 2), ("1", 3), ("9", 6)]);
    let mut lines = String::new();
    for (options, since) in [
        ("{}", None),
        (r#"{"sections":["system"]}"#, None),
        (r#"{"sections":["docker_meta","events"]}"#, Some(&before)),
        (r#"{"sections":[]}"#, None),
        (r#"{"logs":"new"}"#, None),
        (
            r#"{"logs":"new","sections":["logs","events"]}"#,
            Some(&before),
        ),
    ] {
        let line = made(&published, options, since);
        lines += &format!(
            "{options}\n{}",
            String::from_utf8(bytes(&line, 17)).unwrap()
        );
    }
    // The earlier build sent no cursors.
    crate::recorded::compare("wire/lines.txt", &without_cursors(&lines));
}

fn without_cursors(lines: &str) -> String {
    let mut parts = lines.split(r#""cursor":""#);
    let first = parts.next().unwrap_or_default().to_owned();
    let rest: Vec<&str> = parts
        .map(|part| part.split_once("\",").expect("the end of a cursor").1)
        .collect();
    assert_eq!(rest.len(), 3, "lines with a cursor");
    first + &rest.concat()
}

#[test]
fn the_cache_for_clients_that_lag_grows_with_the_clients_up_to_a_limit() {
    for (clients, limit) in [
        (1, super::MIN_LAGGING_BYTES),
        (400, 400 * super::LAGGING_BYTES_OF_CLIENT),
        (10_000, super::MAX_LAGGING_BYTES),
    ] {
        let mut snapshot = snapshot();
        snapshot.agent.clients = clients;
        let logs = LogSample::default();
        let published = Published::new(snapshot, logs, (Arc::default(), 0), Instant::now(), None);
        let line = |seq| made(&published, r#"{"logs":"new"}"#, Some(&since(seq, &[])));
        let length = line(0).shared.len();
        for seq in 1..2 + (limit / length) as u64 {
            line(seq);
        }
        assert_eq!(published.lines_made(), limit / length);
    }
}
