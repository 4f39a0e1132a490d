//! Tests of clients with the option `live`, and of containers that run only for a moment.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use serial_test::parallel;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::container::{Container, unique_name};
use super::engine::{Engine, IMAGE, LABEL};
use super::launch;
use super::news::writer;
use super::resume::Shipper;
use crate::support::{Agent, DEADLINE, KEY};

/// An agent with long intervals, so that everything that comes soon comes between two snapshots.
fn agent_with_long_intervals() -> Agent {
    launch()
        .vars(&[
            ("LOG_INTERVAL", "10s"),
            ("DOCKER_INTERVAL", "10s"),
            ("PUBLISH_INTERVAL", "10s"),
        ])
        .start()
}

#[test]
#[parallel]
fn log_lines_of_a_live_client_come_at_once() {
    let agent = agent_with_long_intervals();
    let script = "i=0; while true; do i=$((i + 1)); echo line $i; sleep 0.1; done";
    let container = Container::run("live-lines", &[], script);
    container.wait_for_line_with("line 1");
    let mut shipper = Shipper::live(container.name());
    let mut client = shipper.connect(&agent);
    shipper.read(&mut client);
    let end = Instant::now() + Duration::from_secs(8);
    let mut delays = Vec::new();
    while Instant::now() < end {
        let line = shipper.read(&mut client);
        let now = SystemTime::now();
        assert!(line["agent"]["seq"].is_u64(), "{line:#}");
        if line["live"] != true {
            continue;
        }
        for text in line["logs"][container.name()]
            .as_array()
            .into_iter()
            .flatten()
        {
            let (written, _) = text.as_str().unwrap().split_once(' ').unwrap();
            let written = OffsetDateTime::parse(written, &Rfc3339).unwrap();
            delays.push(now.duration_since(written.into()).unwrap_or_default());
        }
    }
    shipper.check();
    delays.sort_unstable();
    assert!(delays.len() > 30, "{} lines", delays.len());
    let median = delays[delays.len() / 2];
    assert!(median < Duration::from_millis(60), "{median:?}");
}

#[test]
#[parallel]
fn a_live_client_gets_every_line_of_a_fast_writer_once() {
    let rotation = ["--log-opt", "max-size=500k", "--log-opt", "max-file=5"];
    let container = writer("live-fast", &rotation, 100, "0.05");
    let agent = launch().var("LOG_LINES", "5").start();
    container.wait_for_line_with("line 1 ");
    let mut shipper = Shipper::live(container.name());
    for _ in 0..4 {
        shipper.read_for(&agent, Duration::from_secs(4));
        thread::sleep(Duration::from_millis(300));
    }
    shipper.check();
    assert!(
        shipper.lines.len() > 2000,
        "only {} lines",
        shipper.lines.len()
    );
}

#[test]
#[parallel]
fn a_live_client_that_lags_still_gets_snapshots() {
    let agent = launch()
        .vars(&[("LOG_LINES", "5"), ("PUBLISH_INTERVAL", "500ms")])
        .start();
    let script = "while ! test -e /go; do sleep 0.1; done; \
        awk 'BEGIN { for (i = 1; i <= 60000; i++) printf \"line %d %0160d\\n\", i, 0 }'; sleep 1000";
    let container = Container::run("live-lags", &[], script);
    let mut shipper = Shipper::live(container.name());
    let mut client = shipper.connect(&agent);
    shipper.read(&mut client);
    container.exec("touch /go");
    let (end, mut snapshots) = (Instant::now() + DEADLINE, 0);
    while shipper.lines.last() != Some(&60_000) {
        assert!(Instant::now() < end, "{:?}", shipper.lines.last());
        let line = shipper.read(&mut client);
        let is_behind = shipper.lines.last().is_some_and(|last| *last < 60_000);
        snapshots += u32::from(is_behind && line["live"].is_null());
        thread::sleep(Duration::from_millis(150));
    }
    shipper.check();
    assert!(snapshots >= 3, "only {snapshots} snapshots");
}

#[test]
#[parallel]
fn a_client_can_get_long_lines_whole() {
    let agent = launch().var("PUBLISH_INTERVAL", "500ms").start();
    let numbers = "while ! test -e /go; do sleep 0.1; done; \
        seq -s ' ' 1 5000; echo short; seq -s ' ' 1 170000; echo end; sleep 1000";
    let container = Container::run("live-long", &[], numbers);
    let options = [(64 * 1024, false), (1024 * 1024, true)];
    let mut clients = options.map(|(max_line, is_live)| {
        let mut client = agent.connect();
        let options =
            json!({"logs": "new", "sections": ["logs"], "max_line": max_line, "live": is_live});
        client.send(format!("{KEY} {options}\n"));
        client.line().unwrap();
        client
    });
    let expected = |last: u32| {
        let numbers: Vec<_> = (1..=last).map(|number| number.to_string()).collect();
        numbers.join(" ")
    };
    container.exec("touch /go");
    for (client, (max_line, _)) in clients.iter_mut().zip(options) {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|last| last != "end") {
            let line: Value = serde_json::from_str(&client.line().unwrap()).unwrap();
            let lines = line["logs"][container.name()].as_array();
            for line in lines.into_iter().flatten() {
                let (_, text) = line.as_str().unwrap().split_once(' ').unwrap();
                texts.push(text.to_owned());
            }
        }
        let long = expected(170_000);
        assert!(long.len() > 1024 * 1024);
        let cut = format!("{} … [line cut at {max_line} bytes]", &long[..max_line]);
        assert_eq!(texts.len(), 4, "{max_line}");
        assert!(texts[0] == expected(5000), "{max_line}: {}", texts[0].len());
        assert_eq!(texts[1], "short");
        assert!(texts[2] == cut, "{max_line}: {}", texts[2].len());
    }
}

#[test]
#[parallel]
fn events_of_a_live_client_come_at_once() {
    let agent = agent_with_long_intervals();
    let container = Container::run("live-events", &[], "sleep 1000");
    let mut shipper = Shipper::live(container.name());
    let mut client = shipper.connect(&agent);
    shipper.read(&mut client);
    let began = Instant::now();
    container.docker("pause", &[]);
    while !shipper.events.contains(&"pause".to_owned()) {
        assert!(began.elapsed() < DEADLINE);
        shipper.read(&mut client);
    }
    // The agent reads the engine's events while no round runs.
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[test]
#[parallel]
fn a_container_of_300_ms_delivers_its_lines_also_if_it_is_removed() {
    assert_short_containers_deliver_all(&[&["--rm"], &[], &["--rm", "--tty"]]);
}

/// Fails unless a container that runs 300 ms delivers its lines, with each of these options of `docker run`.
pub(super) fn assert_short_containers_deliver_all(all_options: &[&[&str]]) {
    let agent = launch()
        .vars(&[("LOG_INTERVAL", "2s"), ("PUBLISH_INTERVAL", "2s")])
        .start();
    for options in all_options {
        let name = unique_name("live-short");
        let mut shipper = Shipper::new(&name);
        let mut client = shipper.connect(&agent);
        shipper.read(&mut client);
        let script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 0.3; echo line 6";
        let label = format!("{LABEL}={}", std::process::id());
        let run = ["run", "--detach", "--name", &name, "--label", &label];
        let command = [IMAGE, "sh", "-c", script];
        Engine::local().docker([&run, *options, &command].concat());
        let end = Instant::now() + DEADLINE;
        while shipper.lines.last() != Some(&6) {
            assert!(Instant::now() < end, "{options:?}: {:?}", shipper.lines);
            let snapshot = shipper.read(&mut client);
            if options.contains(&"--tty") {
                assert_no_carriage_returns(&snapshot);
            }
        }
        shipper.check();
        let lines: BTreeSet<u64> = shipper.lines.iter().copied().collect();
        assert_eq!(lines.len(), 6, "{options:?}");
        if !options.contains(&"--rm") {
            Engine::local().docker(["rm", "--force", &name]);
        }
    }
}

fn assert_no_carriage_returns(snapshot: &Value) {
    assert!(
        !snapshot["logs"].to_string().contains("\\r"),
        "{snapshot:#}"
    );
}
