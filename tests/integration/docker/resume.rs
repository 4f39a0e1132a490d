//! Tests of clients that connect again and continue where they stopped. Each log line and each event arrives once.

use std::fs::{self, File};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use serial_test::parallel;

use super::container::Container;
use super::engine::PrivateEngine;
use super::launch;
use super::news::{WRITER, writer};
use crate::support::{Agent, Client, DEADLINE, KEY};

/// An agent that stores only five log lines of each container.
fn start() -> Agent {
    launch()
        .vars(&[
            ("LOG_INTERVAL", "500ms"),
            ("DOCKER_INTERVAL", "500ms"),
            ("PUBLISH_INTERVAL", "500ms"),
            ("LOG_LINES", "5"),
        ])
        .start()
}

/// A client that stores its cursor, and everything that it has received.
pub(super) struct Shipper {
    container: String,
    /// The options that it sends besides the cursor.
    options: Value,
    cursor: Option<String>,
    /// The numbers of the log lines.
    pub(super) lines: Vec<u64>,
    pub(super) dropped: u64,
    /// The actions of the container's events.
    pub(super) events: Vec<String>,
    runs: Vec<String>,
}

impl Shipper {
    pub(super) fn new(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            options: json!({"sections": ["logs", "events"], "logs": "new"}),
            cursor: None,
            lines: Vec::new(),
            dropped: 0,
            events: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// A client that gets log lines and events as they happen.
    pub(super) fn live(container: &str) -> Self {
        let mut shipper = Self::new(container);
        shipper.options["live"] = json!(true);
        shipper
    }

    /// Connects and reads for some time. Returns the value of `agent.resume` in the first snapshot.
    pub(super) fn read_for(&mut self, agent: &Agent, time: Duration) -> Option<String> {
        let mut client = self.connect(agent);
        let outcome = self.read(&mut client)["agent"]["resume"].clone();
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.read(&mut client);
        }
        client.reset();
        outcome.as_str().map(str::to_owned)
    }

    pub(super) fn connect(&self, agent: &Agent) -> Client {
        let mut options = self.options.clone();
        if let Some(cursor) = &self.cursor {
            options["resume"] = json!(cursor);
        }
        let mut client = agent.connect();
        client.send(format!("{KEY} {options}\n"));
        client
    }

    /// Reads a snapshot, stores what it has, and then its cursor.
    pub(super) fn read(&mut self, client: &mut Client) -> Value {
        let line = client.line().expect("no snapshot: the stream has ended");
        let snapshot: Value = serde_json::from_str(&line).expect("the snapshot is not JSON");
        self.take(&snapshot);
        snapshot
    }

    fn take(&mut self, snapshot: &Value) {
        let lines = snapshot["logs"][&self.container].as_array();
        for line in lines.into_iter().flatten() {
            let number = line.as_str().unwrap().split(' ').nth(2).unwrap();
            self.lines.push(number.parse().unwrap());
        }
        let dropped = &snapshot["logs_dropped"][&self.container];
        self.dropped += dropped.as_u64().unwrap_or(0);
        for event in snapshot["events"].as_array().unwrap() {
            if event["container"] == self.container {
                self.events
                    .push(event["action"].as_str().unwrap().to_owned());
            }
        }
        let agent = &snapshot["agent"];
        self.cursor = Some(agent["cursor"].as_str().expect("no cursor").to_owned());
        let run = agent["run"].as_str().unwrap();
        if self.runs.last().is_none_or(|last| last != run) {
            self.runs.push(run.to_owned());
        }
    }

    /// Reads until the log line with this number.
    pub(super) fn read_until_line(&mut self, agent: &Agent, number: u64) {
        let mut client = self.connect(agent);
        let end = Instant::now() + DEADLINE;
        while self.lines.last() != Some(&number) {
            assert!(
                Instant::now() < end,
                "the newest line is {:?}, not {number}",
                self.lines.last()
            );
            self.read(&mut client);
        }
    }

    /// Checks that each line up to the newest has arrived once, and none was dropped.
    pub(super) fn check(&self) {
        let first = *self.lines.first().expect("no log line");
        let last = *self.lines.last().unwrap();
        let expected: Vec<u64> = (first..=last).collect();
        let wrong = self
            .lines
            .iter()
            .zip(&expected)
            .find(|(line, due)| line != due);
        assert_eq!(
            (wrong, self.lines.len()),
            (None, expected.len()),
            "{} dropped",
            self.dropped
        );
        assert_eq!(self.dropped, 0);
    }
}

/// The number of the newest line in the container's log.
pub(super) fn newest_line(container: &Container<'_>) -> u64 {
    let newest = container.docker("logs", &["--tail", "1"]);
    newest.split(' ').nth(1).unwrap().trim().parse().unwrap()
}

#[test]
#[parallel]
fn a_client_gets_every_log_line_even_if_there_are_more_than_the_agent_stores() {
    let rotation = ["--log-opt", "max-size=200k", "--log-opt", "max-file=5"];
    let container = writer("resume-all", &rotation, 20, "0.2");
    let agent = start();
    container.wait_for_line_with("line 1 ");
    let mut shipper = Shipper::new(container.name());
    shipper.read_for(&agent, Duration::from_secs(10));
    shipper.check();
    assert!(
        shipper.lines.len() > 2000,
        "only {} lines",
        shipper.lines.len()
    );
}

#[test]
#[parallel]
fn a_client_continues_after_its_own_crash_and_after_a_restart_of_the_agent() {
    let rotation = ["--log-opt", "max-size=500k", "--log-opt", "max-file=5"];
    let container = writer("resume-crash", &rotation, 20, "0.2");
    container.wait_for_line_with("line 1 ");
    let mut shipper = Shipper::new(container.name());
    let mut running = start();
    assert_eq!(shipper.read_for(&running, Duration::from_secs(1)), None);
    for round in 0..6 {
        thread::sleep(Duration::from_millis(700));
        if round % 2 == 1 {
            running.signal(Signal::SIGKILL);
            running.exit(DEADLINE);
            thread::sleep(Duration::from_secs(1));
            running = start();
        }
        let outcome = shipper.read_for(&running, Duration::from_millis(1200));
        assert_eq!(outcome.as_deref(), Some("continued"));
    }
    container.docker("kill", &["--signal", "STOP"]);
    let newest = newest_line(&container);
    shipper.read_until_line(&running, newest);
    shipper.check();
    assert!(
        shipper.lines.len() > 2000,
        "only {} lines",
        shipper.lines.len()
    );
    assert_eq!(shipper.runs.len(), 4);
}

#[test]
#[parallel]
fn the_example_shipper_prints_every_line_also_after_it_was_killed() {
    let container = writer("resume-ship", &[], 20, "0.2");
    let agent = start();
    container.wait_for_line_with("line 1 ");
    let folder = tempfile::tempdir().unwrap();
    let mut printed = Vec::new();
    for run in 0..3 {
        let output = folder.path().join(run.to_string());
        let mut shipper = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shipper.py"))
            .arg(folder.path().join("cursor"))
            .arg(agent.address().to_string())
            .env("API_KEY", KEY)
            .stdout(File::create(&output).unwrap())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_secs(3));
        shipper.kill().unwrap();
        shipper.wait().unwrap();
        let text = fs::read_to_string(&output).unwrap();
        // The last line can be incomplete.
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let own = lines.filter_map(|line| line.strip_prefix(container.name()));
        printed.extend(own.map(|line| line.split(' ').nth(3).unwrap().parse::<u64>().unwrap()));
    }
    // If the shipper is killed after it has printed lines and before it has stored the cursor, these lines come again.
    printed.sort_unstable();
    printed.dedup();
    let expected: Vec<u64> = (printed[0]..).take(printed.len()).collect();
    assert!(
        printed == expected && printed.len() > 500,
        "{} lines",
        printed.len()
    );
}

#[test]
#[parallel]
fn events_and_containers_of_the_time_without_a_client_or_agent_arrive() {
    let mut running = start();
    let name = super::container::unique_name("resume-new");
    let mut shipper = Shipper::new(&name);
    shipper.read_for(&running, Duration::from_secs(1));
    let script = "for i in $(seq 1 40); do echo line $i; done; sleep 1000";
    let container = Container::run_as(&name, script);
    container.wait_for_line("line 40");
    running.signal(Signal::SIGTERM);
    running.exit(DEADLINE);
    container.docker("pause", &[]);
    container.docker("unpause", &[]);
    running = start();
    shipper.read_until_line(&running, 40);
    shipper.read_for(&running, Duration::from_secs(1));
    shipper.check();
    assert_eq!(shipper.lines.len(), 40);
    assert_eq!(shipper.events, ["start", "pause", "unpause"]);
    // A new client does not get events from before the start of the agent.
    let mut new = Shipper::new(&name);
    new.read_for(&running, Duration::from_secs(1));
    assert!(new.events.is_empty(), "{:?}", new.events);
}

#[test]
#[parallel]
fn a_cursor_of_another_host_is_reported_and_other_text_is_refused() {
    let agent = start();
    let container = Container::run("resume-odd", &[], "echo line 1; sleep 1000");
    container.wait_for_line("line 1");
    let mut shipper = Shipper::new(container.name());
    shipper.read_for(&agent, Duration::from_secs(1));
    // The second to fifth byte identify the host.
    let own = shipper.cursor.clone().unwrap();
    let other = own.chars().enumerate().map(|(place, letter)| match place {
        3 if letter == 'A' => 'B',
        3 => 'A',
        _ => letter,
    });
    shipper.cursor = Some(other.collect());
    let mut client = shipper.connect(&agent);
    let first = shipper.read(&mut client);
    assert_eq!(first["agent"]["resume"], "other_host");
    assert_eq!(first["logs"][container.name()].as_array().unwrap().len(), 1);
    for cursor in ["", "x", &own[1..]] {
        let mut client = agent.connect();
        client.send(format!("{KEY} {}\n", json!({ "resume": cursor })));
        let answer = client.line().unwrap();
        assert_eq!(
            answer.trim(),
            r#"{"error":"resume: accepted: the value of agent.cursor"}"#
        );
    }
}

#[test]
#[parallel]
fn a_client_continues_after_restarts_of_the_engine() {
    let mut private = PrivateEngine::prepare().with("--live-restore");
    private.start_with_image();
    let script = format!("filler=x; pause=0.2; {WRITER}");
    let network = ["--network", "none"];
    let container =
        Container::run_on(private.engine(), "resume-restarts", &network, &script).keep();
    let agent = launch()
        .vars(&[("LOG_INTERVAL", "500ms"), ("PUBLISH_INTERVAL", "500ms")])
        .var("DOCKER_HOST", private.engine().host())
        .var("LOG_LINES", "5")
        .start();
    let mut shipper = Shipper::live(&container);
    for _ in 0..3 {
        shipper.read_for(&agent, Duration::from_secs(2));
        private.stop();
        shipper.read_for(&agent, Duration::from_secs(1));
        private.start();
    }
    shipper.read_for(&agent, Duration::from_secs(3));
    private
        .engine()
        .docker(["kill", "--signal", "STOP", &container]);
    // A restart of the engine can lose a line that the container has written. So the engine's own log is compared.
    let written = private.engine().docker(["logs", &container]);
    let written = written
        .lines()
        .filter_map(|line| line.split(' ').nth(1)?.parse().ok());
    let mut written: Vec<u64> = written.collect();
    shipper.read_until_line(&agent, *written.last().unwrap());
    written.retain(|number| *number >= shipper.lines[0]);
    assert!(
        shipper.lines == written,
        "{} of {} lines",
        shipper.lines.len(),
        written.len()
    );
    assert_eq!(shipper.dropped, 0);
    assert!(shipper.lines.len() > 1000, "only {}", shipper.lines.len());
    private.engine().docker(["kill", &container]);
}
