//! The snapshots of an agent. A thread reads the snapshots, so that no snapshot looks late when the test does other work.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::{Agent, DEADLINE, schema};

/// Limit of a snapshot's lateness.
const MAX_LATENESS: Duration = Duration::from_secs(1);

/// The snapshots of one client. Checks that each snapshot is valid, in order and on time.
pub(crate) struct Snapshots {
    arrivals: Receiver<(Instant, String)>,
    interval: Duration,
    previous: Option<u64>,
    /// The time at which snapshot 0 was due, computed from the most punctual snapshot so far.
    origin: Option<Instant>,
}

impl Snapshots {
    /// Logs in to an agent that publishes at this interval.
    pub(crate) fn of(agent: &Agent, interval: Duration) -> Self {
        let mut client = agent.login();
        let (sender, arrivals) = mpsc::channel();
        thread::spawn(move || {
            while let Some(line) = client.line() {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Self {
            arrivals,
            interval,
            previous: None,
            origin: None,
        }
    }

    /// The next snapshot.
    pub(crate) fn next(&mut self) -> Value {
        let arrival = self.arrivals.recv_timeout(DEADLINE);
        self.check(arrival.expect("expected a snapshot at every interval"))
    }

    fn check(&mut self, (at, line): (Instant, String)) -> Value {
        let snapshot = schema::snapshot(&line);
        let number = snapshot["agent"]["seq"]
            .as_u64()
            .expect("expected a number");
        // The first snapshot can be older than the login, so the times of the following snapshots cannot be computed from its
        // arrival.
        if let Some(previous) = self.previous {
            assert_eq!(number, previous + 1, "snapshots are numbered without a gap");
            self.check_punctual(number, at);
        }
        self.previous = Some(number);
        snapshot
    }

    fn check_punctual(&mut self, number: u64, at: Instant) {
        let offset =
            self.interval * u32::try_from(number).expect("the number of the snapshot is too large");
        let zero = at
            .checked_sub(offset)
            .expect("the time is before the start of the clock");
        let origin = self.origin.map_or(zero, |origin| origin.min(zero));
        self.origin = Some(origin);
        let late = zero - origin;
        assert!(late <= MAX_LATENESS, "snapshot {number} was {late:?} late");
    }

    /// The next `count` snapshots, including those that have arrived already.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.next()).collect()
    }

    /// The snapshots that have arrived and were not returned yet.
    pub(crate) fn arrived(&mut self) -> Vec<Value> {
        let mut arrived = Vec::new();
        while let Ok(arrival) = self.arrivals.try_recv() {
            arrived.push(self.check(arrival));
        }
        arrived
    }

    /// The first snapshot that `fits`. Fails if no snapshot fits before the deadline.
    pub(crate) fn until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + deadline;
        loop {
            let snapshot = self.next();
            if fits(&snapshot) {
                return snapshot;
            }
            let late = Instant::now() >= end;
            assert!(!late, "waited {deadline:?} for {what}; last: {snapshot:#}");
        }
    }

    /// The first snapshot for which the agent began to read containers and logs after this call. Disabled sources do not count.
    pub(crate) fn fresh(&mut self) -> Value {
        let now = SystemTime::now();
        self.until(
            "figures that were read after this call",
            DEADLINE,
            |snapshot| {
                ["docker", "logs"].iter().all(|source| {
                    let health = &snapshot["sources"][source];
                    let took = health["duration_ms"].as_f64().unwrap_or_default() / 1000.0;
                    let began = collected_at(snapshot, source)
                        .and_then(|at| at.checked_sub(Duration::from_secs_f64(took)));
                    began.is_some_and(|began| began >= now) || health["status"] == "disabled"
                })
            },
        )
    }
}

/// The time at which a source was read.
pub(crate) fn collected_at(snapshot: &Value, source: &str) -> Option<SystemTime> {
    let text = snapshot["sources"][source]["collected_at"].as_str()?;
    Some(humantime::parse_rfc3339(text).expect("expected a timestamp"))
}

/// The figures of a container, by its name without the slash.
pub(crate) fn figures<'s>(snapshot: &'s Value, name: &str) -> Option<&'s Value> {
    let mut containers = snapshot["containers"].as_array()?.iter();
    containers.find(|container| container["name"].as_str() == Some(&format!("/{name}")))
}

/// A figure of a container. Fails if the snapshot does not have it.
pub(crate) fn figure(snapshot: &Value, name: &str, field: &str) -> f64 {
    let container = figures(snapshot, name);
    let value = container.and_then(|container| container[field].as_f64());
    value.unwrap_or_else(|| panic!("no {field} of {name} in {snapshot:#}"))
}

/// The metadata of a container, by its name without the slash.
pub(crate) fn metadata<'s>(snapshot: &'s Value, name: &str) -> Option<&'s Value> {
    let mut containers = snapshot["docker_meta"].as_array()?.iter();
    containers.find(|container| container["names"][0].as_str() == Some(&format!("/{name}")))
}

/// The log lines of a container, by its name without the slash.
pub(crate) fn lines(snapshot: &Value, name: &str) -> Option<Vec<String>> {
    let lines = snapshot["logs"].get(name)?.as_array()?.iter();
    Some(
        lines
            .map(|line| line.as_str().unwrap().to_owned())
            .collect(),
    )
}

/// Whether the container is in all three sections.
pub(crate) fn shows(snapshot: &Value, name: &str) -> bool {
    figures(snapshot, name).is_some()
        && metadata(snapshot, name).is_some()
        && lines(snapshot, name).is_some()
}

/// Whether the container is in any section.
pub(crate) fn mentions(snapshot: &Value, name: &str) -> bool {
    figures(snapshot, name).is_some()
        || metadata(snapshot, name).is_some()
        || lines(snapshot, name).is_some()
}

/// Whether the status of the snapshot and of all sources is `ok`.
pub(crate) fn healthy(snapshot: &Value) -> bool {
    let well = |source| snapshot["sources"][source]["status"] == "ok";
    snapshot["status"] == "ok" && ["system", "docker", "logs"].into_iter().all(well)
}

/// Whether a source is failing and has an error text.
fn fails(snapshot: &Value, source: &str) -> bool {
    let health = &snapshot["sources"][source];
    let reason = health["error"].as_str().unwrap_or_default();
    health["status"] == "failing" && !reason.is_empty()
}

/// Whether Docker is failing, with an error text, and the host is not. Logs that are read from files do not need the engine.
pub(crate) fn docker_is_failing(snapshot: &Value) -> bool {
    snapshot["status"] == "degraded"
        && snapshot["sources"]["system"]["status"] == "ok"
        && fails(snapshot, "docker")
}

/// Whether both Docker and logs are failing, each with an error text, and the host is not.
pub(crate) fn docker_and_logs_are_failing(snapshot: &Value) -> bool {
    docker_is_failing(snapshot) && fails(snapshot, "logs")
}

/// Whether the figures of a source are at most two intervals older than the snapshot.
pub(crate) fn is_fresh(snapshot: &Value, source: &str, interval: Duration) -> bool {
    let text = snapshot["timestamp"]
        .as_str()
        .expect("expected a timestamp");
    let taken = humantime::parse_rfc3339(text).expect("expected a timestamp");
    collected_at(snapshot, source).is_some_and(|at| {
        let age = taken.duration_since(at).unwrap_or_default();
        age <= interval * 2
    })
}
