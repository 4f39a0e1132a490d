//! Tests of log lines and events that the agent sends to a receiver of OpenTelemetry. Each of them arrives once, also when the receiver
//! refuses requests, hangs or is away, and when the agent restarts.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::Container;
use super::drivers::Journald;
use super::launch;
use crate::support::otlp::{Received, Receiver, Reply};
use crate::support::{Agent, DEADLINE, Launch, wait};

/// Writes numbered lines with a pause after every ten lines.
const WRITER: &str = "i=0; while true; do i=$((i + 1)); echo \"line $i $filler\"; case $i in *0) sleep $pause;; esac; done";

/// A container that runs [`WRITER`] with lines of about `filler` bytes. Waits for the first log line.
fn writer(topic: &str, filler: usize, pause: &str) -> Container<'static> {
    let variables = format!("filler={}; pause={pause};", "x".repeat(filler));
    let container = Container::run(topic, &[], &format!("{variables} {WRITER}"));
    container.wait_for_line_with("line 1 ");
    container
}

/// An agent that sends log lines and events five times a second, and that stores only 20 lines of each container.
fn sending(receiver: &Receiver) -> Launch {
    launch()
        .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
        .vars(&[("LOG_LINES", "20"), ("OTLP_TIMEOUT", "1s")])
        .vars(&[
            ("OTLP_SIGNALS", "logs,events"),
            ("OTLP_ENDPOINT", &receiver.url()),
        ])
}

fn numbers(lines: &[Received]) -> Vec<u64> {
    let number = |line: &Received| line.body().split(' ').nth(1)?.parse().ok();
    lines
        .iter()
        .map(|line| number(line).expect("no number"))
        .collect()
}

/// Waits until the receiver has a line that the container writes only now. Fails if a line is missing or occurs twice.
fn check_complete(receiver: &Receiver, container: &Container<'_>) -> Vec<u64> {
    check_complete_within(DEADLINE * 2, receiver, container)
}

fn check_complete_within(
    deadline: Duration,
    receiver: &Receiver,
    container: &Container<'_>,
) -> Vec<u64> {
    let newest = container.logs();
    let newest = newest.last().expect("no lines");
    let newest: u64 = newest.split(' ').nth(2).unwrap().parse().unwrap();
    let found = wait::until("the newest line", deadline, || {
        let found = numbers(&receiver.lines(container.name()));
        (found.last()? >= &newest).then_some(found)
    });
    for pair in found.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a line is missing or doubled");
    }
    found
}

fn health(agent: &Agent) -> Value {
    agent.login().snapshot()["outputs"]["otlp"].clone()
}

#[test]
#[parallel]
fn no_line_is_lost_or_doubled_while_the_receiver_fails() {
    let container = writer("otlp-faults", 50, "0.1");
    let mut receiver = Receiver::start();
    // The logs of other containers can be removed during the outage, and would count as dropped.
    let agent = sending(&receiver)
        .var("CONTAINERS_INCLUDE", container.name())
        .start();
    wait::until("the first lines", DEADLINE, || {
        (receiver.lines(container.name()).len() > 30).then_some(())
    });
    let resumed = || {
        agent
            .events("OTLP: the receiver accepts requests again")
            .len()
    };
    let faults = [
        Reply::Refuse(503, None),
        Reply::Refuse(429, Some(2)),
        Reply::Hang,
    ];
    for (number, fault) in (1..).zip(faults) {
        receiver.reply(fault);
        wait::until("the failure", DEADLINE, || {
            (health(&agent)["status"] == "failing").then_some(())
        });
        let before = receiver.lines(container.name()).len();
        thread::sleep(Duration::from_secs(3));
        assert_eq!(receiver.lines(container.name()).len(), before);
        receiver.reply(Reply::Accept);
        wait::until("the end of the failure", DEADLINE * 2, || {
            (health(&agent)["status"] == "ok").then_some(())
        });
        wait::until("the message", DEADLINE, || {
            (resumed() >= number).then_some(())
        });
    }
    receiver.go_away();
    wait::until("the failure", DEADLINE, || {
        (health(&agent)["status"] == "failing").then_some(())
    });
    thread::sleep(Duration::from_secs(3));
    let away = health(&agent);
    assert!(away["lag_ms"].as_u64().unwrap() >= 2000, "{away}");
    receiver.come_back();
    wait::until("the end of the failure", DEADLINE * 2, || {
        (health(&agent)["status"] == "ok").then_some(())
    });
    let found = check_complete(&receiver, &container);
    assert!(found.len() > 500, "{}", found.len());
    // The snapshot is older than the newest lines of the receiver.
    let now = wait::until("the count of all lines", DEADLINE, || {
        let now = health(&agent);
        (now["sent"].as_u64()? >= found.len() as u64).then_some(now)
    });
    assert_eq!(now["dropped"], 0, "{now}");
    // Each of the four faults is one warning, and no fault is logged for each request.
    let warnings = agent.events("OTLP: request not accepted, it is repeated");
    assert!((4..=8).contains(&warnings.len()), "{warnings:?}");
    let lines = receiver.lines(container.name());
    let uids: std::collections::BTreeSet<String> = lines
        .iter()
        .map(|line| line.attributes()["log.record.uid"].clone())
        .collect();
    assert_eq!(uids.len(), lines.len());
    let resource = &lines[0].resource;
    assert_eq!(resource["service.name"], container.name());
    assert!(
        resource["container.id"].starts_with(container.short_id())
            && resource["container.id"].len() == 64
    );
    assert!(lines[0].record.time_unix_nano > 1_700_000_000_000_000_000);
}

#[test]
#[parallel]
fn the_lines_of_an_outage_stay_in_their_files_and_not_in_memory() {
    // Run it with OUTAGE_SECONDS=300 for a long outage.
    let outage: u64 = match std::env::var("OUTAGE_SECONDS") {
        Ok(seconds) => seconds.parse().expect("OUTAGE_SECONDS must be a number"),
        Err(_) => 10,
    };
    // A long outage has fewer lines a second, because the receiver of this test keeps all of them.
    let pause = if outage > 10 { "0.05" } else { "0.02" };
    let container = writer("otlp-memory", 1000, pause);
    let receiver = Receiver::start();
    let agent = sending(&receiver).start();
    wait::until("the first lines", DEADLINE, || {
        (receiver.lines(container.name()).len() > 100).then_some(())
    });
    receiver.reply(Reply::Refuse(503, None));
    thread::sleep(Duration::from_secs(5));
    let before = agent.peak_rss();
    thread::sleep(Duration::from_secs(outage));
    receiver.reply(Reply::Accept);
    // After a long outage, the agent tries again only every 30 s, and there are more lines.
    let deadline = DEADLINE * 2 + Duration::from_secs(outage);
    let found = check_complete_within(deadline, &receiver, &container);
    let after = agent.peak_rss();
    assert!(found.len() as u64 > 50 * (outage + 5), "{}", found.len());
    assert!(
        after < before + 16 * 1024 * 1024,
        "{before} bytes before, {after} after"
    );
}

#[test]
#[parallel]
fn lines_continue_after_a_restart_of_the_agent() {
    let container = writer("otlp-restart", 50, "0.1");
    let receiver = Receiver::start();
    let state = tempfile::tempdir().unwrap();
    let start = || {
        sending(&receiver)
            .var("STATE_DIRECTORY", state.path())
            .var("CONTAINERS_INCLUDE", container.name())
            .start()
    };
    let mut agent = start();
    wait::until("the first lines", DEADLINE, || {
        (receiver.lines(container.name()).len() > 30).then_some(())
    });
    for signal in [Signal::SIGTERM, Signal::SIGTERM] {
        agent.signal(signal);
        agent.exit(DEADLINE);
        let written = receiver.lines(container.name()).len();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(receiver.lines(container.name()).len(), written);
        agent = start();
        agent.event("OTLP: log lines and events continue at the position of the earlier run");
        check_complete(&receiver, &container);
    }
    assert_eq!(health(&agent)["dropped"], 0);
}

#[test]
#[parallel]
fn a_damaged_position_is_reported_and_the_agent_begins_with_the_newest_lines() {
    let container = writer("otlp-damaged", 50, "0.1");
    let receiver = Receiver::start();
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("otlp-cursor"), "damaged").unwrap();
    let agent = sending(&receiver)
        .var("STATE_DIRECTORY", state.path())
        .start();
    agent.event("OTLP: the position of the earlier run cannot be read, so the agent begins with the newest log lines");
    check_complete(&receiver, &container);
}

#[test]
#[parallel]
fn lines_that_the_receiver_refuses_for_ever_are_dropped_and_counted() {
    let container = writer("otlp-refused", 50, "0.1");
    let receiver = Receiver::start();
    let agent = sending(&receiver).start();
    for (fault, message) in [
        (
            Reply::Refuse(400, None),
            "OTLP: the receiver refuses the contents of a request, which are dropped",
        ),
        (
            Reply::Partial(2),
            "OTLP: the receiver refuses a part of a request, which is dropped",
        ),
    ] {
        let before = health(&agent)["dropped"].as_u64().unwrap();
        receiver.reply(fault);
        let warned = agent.event(message);
        assert!(!warned.text("reason").is_empty(), "{warned:?}");
        wait::until("dropped lines", DEADLINE, || {
            (health(&agent)["dropped"].as_u64()? > before + 4).then_some(())
        });
        assert_eq!(agent.events(message).len(), 1);
        receiver.reply(Reply::Accept);
        wait::until("the end of the failure", DEADLINE, || {
            (health(&agent)["status"] == "ok").then_some(())
        });
    }
    let all = receiver.lines(container.name()).len();
    wait::until("further lines", DEADLINE, || {
        (receiver.lines(container.name()).len() > all + 20).then_some(())
    });
}

#[test]
#[parallel]
fn a_request_that_is_too_large_is_split() {
    let container = writer("otlp-large", 50, "0.1");
    let receiver = Receiver::start();
    receiver.reply(Reply::AtMost(3));
    // Requests of three lines are too slow for the lines of other tests, whose containers are removed before their lines are sent.
    let agent = sending(&receiver)
        .var("CONTAINERS_INCLUDE", container.name())
        .start();
    wait::until("the first lines", DEADLINE, || {
        (receiver.lines(container.name()).len() > 60).then_some(())
    });
    check_complete(&receiver, &container);
    assert_eq!(health(&agent)["dropped"], 0);
}

#[test]
#[parallel]
fn lines_have_their_severity_and_trace_and_events_have_names() {
    let receiver = Receiver::start();
    let agent = sending(&receiver).start();
    agent.login().snapshot();
    let script = r#"echo '{"level":"warn","msg":"a","trace_id":"0af7651916cd43dd8448eb211c80319c"}'; echo 'level=error b'; echo plain; exit 3"#;
    let labels = [
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=api",
    ];
    let container = Container::run("otlp-severity", &labels, script);
    let lines = wait::until("three lines", DEADLINE, || {
        Some(receiver.lines(container.name())).filter(|lines| lines.len() == 3)
    });
    let severities: Vec<i32> = lines
        .iter()
        .map(|line| line.record.severity_number)
        .collect();
    assert_eq!(severities, [13, 17, 0]);
    assert_eq!(lines[0].record.trace_id[..2], [0x0a, 0xf7]);
    let event = |name: &str| {
        wait::until(name, DEADLINE, || {
            let is_it = |one: &Received| {
                one.record.event_name == name
                    && one.attributes()["container.name"] == container.name()
            };
            receiver.records().into_iter().find(is_it)
        })
    };
    let start = event("container.start");
    assert_eq!(start.resource["service.name"], "system-agent");
    assert_eq!(start.attributes()["container.id"], container.short_id());
    let die = event("container.die");
    assert_eq!(die.attributes()["system_agent.container.exit_code"], "3");
    assert_eq!(die.record.severity_text, "WARN");
}

/// Writes more lines at a time than the agent stores, to both streams in turn. Then writes a line of three fragments to stderr, with a
/// line to stdout between the fragments.
const BOTH_STREAMS: &str = "for i in $(seq 1 100); do echo out $i; echo err $i >&2; done
    { printf 'err '; head -c 40000 /dev/zero | tr '\\0' x; } >&2; echo out between; echo >&2
    sleep 0.5; echo out end; sleep 1000";

/// Waits for the line `out end`, which is the container's last line. Returns the beginning and the stream of each line.
fn streams(receiver: &Receiver, container: &Container<'_>) -> Vec<(String, String)> {
    let lines = wait::until("the last line", DEADLINE, || {
        let lines = receiver.lines(container.name());
        let has_end = lines.iter().any(|line| line.body() == "out end");
        has_end.then_some(lines)
    });
    let of_line = |line: &Received| {
        let stream = line.attributes().remove("log.iostream");
        (
            line.body().chars().take(3).collect(),
            stream.expect("no log.iostream"),
        )
    };
    lines.iter().map(of_line).collect()
}

/// Fails unless each of the container's lines has its stream.
fn assert_streams(receiver: &Receiver, container: &Container<'_>) {
    let streams = streams(receiver, container);
    for (begin, expected, count) in [("out", "stdout", 102), ("err", "stderr", 101)] {
        let found: Vec<&str> = streams
            .iter()
            .filter(|(found, _)| found == begin)
            .map(|(_, stream)| &**stream)
            .collect();
        assert_eq!(found, vec![expected; count], "{}", container.name());
    }
}

#[test]
#[parallel]
fn each_line_has_the_stream_to_which_the_container_has_written_it() {
    for way in ["kernel", "engine"] {
        let receiver = Receiver::start();
        let agent = sending(&receiver).var("CONTAINER_STATS", way).start();
        agent.login().snapshot();
        for driver in ["json-file", "local"] {
            let options = ["--log-driver", driver];
            let container = Container::run("otlp-streams", &options, BOTH_STREAMS);
            assert_streams(&receiver, &container);
        }
        let script = "echo out; echo err >&2; sleep 0.5; echo out end; sleep 1000";
        let terminal = Container::run("otlp-streams-tty", &["--tty"], script);
        let expected = ["out", "err", "out"].map(|begin| (begin.to_owned(), "stdout".to_owned()));
        assert_eq!(streams(&receiver, &terminal), expected);
    }
}

#[test]
#[serial]
fn each_line_of_the_driver_journald_has_its_stream() {
    let _journald = Journald::start();
    let receiver = Receiver::start();
    let agent = sending(&receiver).start();
    agent.login().snapshot();
    let driver = ["--log-driver", "journald"];
    let container = Container::run("otlp-streams-journal", &driver, BOTH_STREAMS);
    assert_streams(&receiver, &container);
    assert_eq!(agent.login().snapshot()["sources"]["logs"]["via"], "kernel");
}
