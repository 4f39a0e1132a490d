//! Tests of clients that request only new log lines. Each log line arrives once, or is counted as dropped.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use serial_test::{parallel, serial};
use tempfile::TempDir;

use super::container::{Container, unique_name};
use super::engine::PrivateEngine;
use super::launch;
use super::stand_in::{Answer, StandIn};
use crate::support::{Agent, Client, DEADLINE, Ending, KEY, Launch, unpack, wait};

/// Options of a client that wants only logs, and wants each log line once.
pub(super) const NEW_LOGS: &str = r#"{"sections":["logs"],"logs":"new"}"#;

/// Writes numbered lines and continues with the next number after a restart. A stop of the container takes effect between two
/// lines.
pub(super) const WRITER: &str = "trap 'stop=1' TERM; i=$(cat /n 2>/dev/null || echo 0)
    while [ -z \"$stop\" ]; do i=$((i + 1)); echo \"line $i $filler\"; echo $i >/n
      case $i in *00) sleep $pause;; esac; done";

/// A container that runs [`WRITER`] with lines of about `filler` bytes and a pause after every hundred lines.
pub(super) fn writer(
    topic: &str,
    options: &[&str],
    filler: usize,
    pause: &str,
) -> Container<'static> {
    let variables = format!("filler={}; pause={pause};", "x".repeat(filler));
    Container::run(topic, options, &format!("{variables} {WRITER}"))
}

/// An agent that reads logs and publishes five times a second.
fn agent(log_lines: &str) -> Agent {
    often(log_lines).start()
}

/// Like [`agent`], but the agent reads logs by calls to the engine.
fn calling_agent(log_lines: &str) -> Agent {
    often(log_lines).var("CONTAINER_STATS", "engine").start()
}

fn often(log_lines: &str) -> Launch {
    launch()
        .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
        .var("LOG_LINES", log_lines)
}

/// A client and its totals of one container's numbered log lines.
pub(super) struct Reader {
    client: Client,
    pub(super) account: Account,
}

/// Totals of the log lines that a client has read.
pub(super) struct Account {
    pub(super) name: String,
    /// The number of the newest log line.
    pub(super) last: Option<u64>,
    pub(super) lines: u64,
    pub(super) dropped: u64,
    pub(super) skipped: u64,
}

impl Reader {
    pub(super) fn new(client: Client, options: &str, name: &str) -> Self {
        let mut client = client;
        client.send(format!("{KEY} {options}\n"));
        Self {
            client,
            account: Account::of(name),
        }
    }

    /// Reads the next snapshot and adds it to the totals.
    pub(super) fn read(&mut self) -> String {
        let line = self
            .client
            .line()
            .expect("no snapshot: the stream has ended");
        self.account.take_in(&line);
        line
    }

    /// Reads snapshots until `end`.
    fn read_until(&mut self, end: Instant) {
        while Instant::now() < end {
            self.read();
        }
    }
}

impl Account {
    fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            last: None,
            lines: 0,
            dropped: 0,
            skipped: 0,
        }
    }

    /// Adds a snapshot. Fails if log lines since the previous snapshot are missing and not counted as dropped.
    fn take_in(&mut self, snapshot: &str) {
        let snapshot: Value = serde_json::from_str(snapshot).expect("the snapshot is not JSON");
        let dropped = snapshot["logs_dropped"][&self.name].as_u64().unwrap_or(0);
        self.dropped += dropped;
        self.skipped = snapshot["agent"]["skipped"].as_u64().unwrap();
        let mut due = self.last.map(|last| last + 1 + dropped);
        for line in snapshot["logs"][&self.name]
            .as_array()
            .into_iter()
            .flatten()
        {
            let number = number(line.as_str().unwrap());
            assert_eq!(
                number,
                due.unwrap_or(number),
                "after {:?}, {dropped} dropped",
                self.last
            );
            due = Some(number + 1);
            self.last = Some(number);
            self.lines += 1;
        }
    }
}

/// The number in `TIMESTAMP line NUMBER …`.
fn number(line: &str) -> u64 {
    let number = line.split(' ').nth(2).expect("expected a number");
    number.parse().expect("expected a number")
}

#[test]
#[parallel]
fn each_log_line_arrives_once_despite_restarts_rotation_and_pauses_of_the_client() {
    let rotation = ["--log-opt", "max-size=1m", "--log-opt", "max-file=3"];
    let container = writer("news", &rotation, 400, "0.4");
    let agent = agent("400");
    let name = container.name();
    container.wait_for_line_with("line 1 ");
    let end = Instant::now() + Duration::from_secs(20);
    thread::scope(|scope| {
        let reader = |options: &str| Reader::new(agent.connect(), options, name);
        let mut steady = reader(NEW_LOGS);
        let steady = scope.spawn(move || {
            steady.read_until(end);
            assert_eq!((steady.account.skipped, steady.account.dropped), (0, 0));
            assert!(
                steady.account.lines > 2000,
                "only {} lines",
                steady.account.lines
            );
        });
        let mut third = reader(r#"{"sections":["logs"],"logs":"new","every":3}"#);
        let third = scope.spawn(move || {
            third.read_until(end);
            assert_eq!((third.account.skipped, third.account.dropped), (0, 0));
            assert!(
                third.account.lines > 2000,
                "only {} lines",
                third.account.lines
            );
        });
        let narrow = Client::connect_narrow(agent.address());
        let mut slow = Reader::new(narrow, NEW_LOGS, name);
        let slow = scope.spawn(move || {
            while Instant::now() < end {
                slow.read_until(Instant::now() + Duration::from_secs(2));
                thread::sleep(Duration::from_secs(4));
            }
            assert!(
                slow.account.skipped > 0,
                "the slow client skipped no snapshot"
            );
            // The log lines wait in the log files.
            assert_eq!(slow.account.dropped, 0);
            assert!(
                slow.account.lines > 500,
                "only {} lines",
                slow.account.lines
            );
        });
        let killed = scope.spawn(move || {
            while Instant::now() < end {
                let mut again = reader(NEW_LOGS);
                again.read_until(Instant::now() + Duration::from_secs(1));
                again.client.reset();
            }
        });
        for _ in 0..2 {
            thread::sleep(Duration::from_secs(5));
            container.docker("restart", &[]);
        }
        for reader in [steady, third, slow, killed] {
            reader.join().unwrap();
        }
    });
}

/// The container writes about three times as much in one `LOG_INTERVAL` as its log files hold. The agent must read each rotated file
/// within two seconds, so no other test runs beside this one.
#[test]
#[serial]
fn lines_that_docker_deletes_between_two_rounds_are_counted() {
    const BATCHES: u64 = 18;
    const BATCH: u64 = 12_000;
    let rotation = ["--log-opt", "max-size=1m", "--log-opt", "max-file=3"];
    let script = format!(
        "sleep 3; n=0; while [ $n -lt {BATCHES} ]; do n=$((n + 1))
        awk \"BEGIN {{ for (i = ($n - 1) * {BATCH} + 1; i <= $n * {BATCH}; i++) print \\\"line \\\" i \\\" {}\\\" }}\"
        sleep 1; done; sleep 1000",
        "x".repeat(20)
    );
    let agent = launch()
        .vars(&[("LOG_INTERVAL", "6s"), ("PUBLISH_INTERVAL", "6s")])
        .start();
    let container = Container::run("news-deleted", &rotation, &script);
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    let end = Instant::now() + DEADLINE * 3;
    while reader.account.last != Some(BATCHES * BATCH) {
        assert!(
            Instant::now() < end,
            "the newest line is {:?}",
            reader.account.last
        );
        reader.read();
    }
    let Account { lines, dropped, .. } = reader.account;
    assert_eq!(lines + dropped, BATCHES * BATCH);
    assert!(dropped > 0, "Docker has deleted no line");
}

#[test]
#[parallel]
fn each_log_line_arrives_once_in_compressed_snapshots() {
    let container = writer("news-packed", &[], 10, "0.3");
    let agent = agent("300");
    container.wait_for_line_with("line 1 ");
    let mut packed = agent.connect();
    packed.send(format!(
        "{KEY} {{\"sections\":[\"logs\"],\"logs\":\"new\",\"encoding\":\"zstd\"}}\n"
    ));
    assert_eq!(packed.ends_within(Duration::from_secs(5)), None);
    agent.signal(Signal::SIGTERM);
    let (stream, ending) = packed.rest();
    assert_eq!(ending, Ending::Eof);
    let mut account = Account::of(container.name());
    let snapshots = unpack(&stream);
    for snapshot in &snapshots {
        account.take_in(snapshot);
    }
    assert!(snapshots.len() > 15, "only {} snapshots", snapshots.len());
    assert_eq!((account.skipped, account.dropped), (0, 0));
    assert!(account.lines > 500, "only {} lines", account.lines);
}

#[test]
#[parallel]
fn each_log_line_arrives_once_through_the_api() {
    let container = writer("news-local", &["--log-driver", "local"], 10, "1.5");
    let agent = calling_agent("300");
    container.wait_for_line_with("line 1 ");
    let end = Instant::now() + Duration::from_secs(12);
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(4));
            container.docker("restart", &[]);
        });
        reader.read_until(end);
    });
    assert_eq!(reader.account.dropped, 0);
    assert!(
        reader.account.lines > 500,
        "only {} lines",
        reader.account.lines
    );
}

#[test]
#[parallel]
fn the_last_log_line_of_a_container_arrives() {
    assert_last_log_line_arrives(&agent("50"), "json-file");
    assert_last_log_line_arrives(&agent("50"), "local");
}

#[test]
#[parallel]
fn the_last_log_line_of_a_container_arrives_through_the_api() {
    assert_last_log_line_arrives(&calling_agent("50"), "local");
}

fn assert_last_log_line_arrives(agent: &Agent, driver: &str) {
    let options = ["--log-driver", driver];
    let script = "echo line 1; sleep 3; echo line 2; exit 1";
    let container = Container::run("news-last", &options, script);
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    let end = Instant::now() + DEADLINE;
    while reader.account.last != Some(2) {
        assert!(
            Instant::now() < end,
            "the newest log line is {:?}",
            reader.account.last
        );
        reader.read();
    }
    // The final log line of the first run comes only once, also after the container starts again.
    container.docker("start", &[]);
    reader.account.last = None;
    while reader.account.last.is_none() {
        assert!(Instant::now() < end, "no log line after the restart");
        reader.read();
    }
    assert_eq!((reader.account.last, reader.account.dropped), (Some(1), 0));
}

#[test]
#[parallel]
fn no_log_line_is_repeated_after_an_outage_of_the_engine() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let script = format!("filler=x; pause=0.5; {WRITER}");
    let container = Container::run_on(
        private.engine(),
        "news-outage",
        &["--network", "none"],
        &script,
    );
    let agent = launch()
        .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
        .vars(&[
            ("DOCKER_HOST", private.engine().host()),
            ("LOG_LINES", "10000"),
        ])
        .start();
    container.wait_for_line_with("line 1 ");
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    reader.read_until(Instant::now() + Duration::from_secs(2));
    let before_outage = reader
        .account
        .last
        .expect("no log line arrived before the outage");
    let hang = private.freeze();
    // Long enough for the agent to discard its state of the logs, which it does after three intervals and 15 s.
    reader.read_until(Instant::now() + Duration::from_secs(25));
    drop(hang);
    let end = Instant::now() + DEADLINE;
    let before = reader.account.last;
    while reader.account.last == before {
        assert!(Instant::now() < end, "no log line after the outage");
        reader.read();
    }
    reader.read_until(Instant::now() + Duration::from_secs(2));
    assert!(
        reader.account.last > Some(before_outage + 1000),
        "{:?}",
        reader.account.last
    );
    assert_eq!(reader.account.dropped, 0);
}

#[test]
#[parallel]
fn a_log_file_that_is_copied_and_emptied_is_still_followed() {
    let container = writer("news-copied", &[], 10, "2");
    let agent = agent("2000");
    container.wait_for_line_with("line 1 ");
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    let path = container.inspect()["LogPath"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        // Copies and empties the file as logrotate does. The test does this just after a burst of log lines. At another time, the
        // copy itself could lose log lines.
        let mut before = reader.account.last;
        while reader.account.last == before
            || reader.account.last.is_some_and(|last| last % 100 > 0)
        {
            before = reader.account.last;
            reader.read();
        }
        fs::copy(&path, format!("{path}.1")).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
    }
    reader.read_until(Instant::now() + Duration::from_secs(5));
    assert_eq!(reader.account.dropped, 0);
    assert!(
        reader.account.lines > 400,
        "only {} lines",
        reader.account.lines
    );
    fs::remove_file(format!("{path}.1")).unwrap();
}

#[test]
#[parallel]
fn a_container_that_starts_again_sends_only_its_new_log_lines() {
    let script = "test -e /again && echo line 2 || { echo line 1; touch /again; }; sleep 1000";
    let container = Container::run("news-stopped", &[], script);
    container.wait_for_line("line 1");
    container.docker("stop", &["--time", "0"]);
    let agent = agent("50");
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    reader.read_until(Instant::now() + Duration::from_secs(2));
    assert_eq!(reader.account.last, None);
    container.docker("start", &[]);
    let end = Instant::now() + DEADLINE;
    while reader.account.last.is_none() {
        assert!(Instant::now() < end, "no log line");
        reader.read();
    }
    // The log line from before the agent's start does not come.
    assert_eq!(
        (
            reader.account.last,
            reader.account.lines,
            reader.account.dropped
        ),
        (Some(2), 1, 0)
    );
}

#[test]
#[parallel]
fn log_lines_of_a_container_that_starts_while_the_engine_sends_its_first_list_arrive() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let has_started = Arc::new(AtomicBool::new(false));
    let _engine = StandIn::at(&socket, {
        let has_started = Arc::clone(&has_started);
        move |path| {
            if !path.contains("/containers/json") || has_started.load(Ordering::SeqCst) {
                return Answer::Engine;
            }
            // The engine has made this list before the container starts, and sends it after that.
            wait::until("a container", DEADLINE, || {
                has_started.load(Ordering::SeqCst).then_some(())
            });
            Answer::Json("200 OK", "[]")
        }
    });
    let agent = often("100")
        .var("DOCKER_HOST", format!("unix://{}", socket.display()))
        .var("DOCKER_INTERVAL", "500ms")
        .start();
    let name = unique_name("news-first");
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, &name);
    let container = Container::run_as(&name, "echo line 1; sleep 1000");
    container.wait_for_line_with("line 1");
    has_started.store(true, Ordering::SeqCst);
    let end = Instant::now() + DEADLINE;
    while reader.account.last != Some(1) {
        assert!(Instant::now() < end, "no log line");
        reader.read();
    }
}

#[test]
#[parallel]
fn log_lines_before_the_first_reading_arrive() {
    let agent = agent("100");
    let before = Container::run("news-new", &[], "echo line 1; sleep 1000");
    let name = before.name().to_owned();
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, &name);
    let end = Instant::now() + DEADLINE;
    while reader.account.last != Some(1) {
        assert!(Instant::now() < end, "no log line");
        reader.read();
    }
    // The engine states the time of creation in whole seconds. After this pause, the next container has a later second.
    reader.read_until(Instant::now() + Duration::from_millis(1200));
    // Another container with the same name continues the numbers. In one burst this container writes more log lines than the
    // agent stores.
    drop(before);
    let script = "seq -f 'line %.0f' 2 2000 2>/dev/null || for i in $(seq 2 2000); do echo line $i; done; sleep 1000";
    let _again = Container::run_as(&name, script);
    while reader.account.last != Some(2000) {
        assert!(
            Instant::now() < end,
            "the newest log line is {:?}",
            reader.account.last
        );
        reader.read();
    }
    assert_eq!((reader.account.lines, reader.account.dropped), (2000, 0));
}
