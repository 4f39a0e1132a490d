//! A stream of snapshots, read by a thread of its own so that nothing a test does in between makes one look late.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::{Agent, PATIENCE, schema};

/// No snapshot may be later than this.
const LATEST: Duration = Duration::from_secs(1);

/// The snapshots of one client. Each is validated, and must come in its turn and in time.
pub(crate) struct Snapshots {
    arrivals: Receiver<(Instant, String)>,
    interval: Duration,
    previous: Option<u64>,
    /// When the snapshot numbered 0 would have come, by the most punctual one so far.
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
        let arrival = self.arrivals.recv_timeout(PATIENCE);
        self.check(arrival.expect("a snapshot at every interval"))
    }

    fn check(&mut self, (at, line): (Instant, String)) -> Value {
        let snapshot = schema::snapshot(&line);
        let number = snapshot["agent"]["seq"].as_u64().expect("a number");
        // The first is the newest of what was there already, so its arrival tells nothing of the schedule.
        if let Some(previous) = self.previous {
            assert_eq!(number, previous + 1, "snapshots are numbered without a gap");
            self.check_punctual(number, at);
        }
        self.previous = Some(number);
        snapshot
    }

    fn check_punctual(&mut self, number: u64, at: Instant) {
        let offset = self.interval * u32::try_from(number).expect("a small number");
        let zero = at.checked_sub(offset).expect("not that long ago");
        let origin = self.origin.map_or(zero, |origin| origin.min(zero));
        self.origin = Some(origin);
        let late = zero - origin;
        assert!(late <= LATEST, "snapshot {number} was {late:?} late");
    }

    /// So many snapshots from now on, those not looked at yet included.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Those that have arrived by now and were not looked at yet.
    pub(crate) fn arrived(&mut self) -> Vec<Value> {
        let mut arrived = Vec::new();
        while let Ok(arrival) = self.arrivals.try_recv() {
            arrived.push(self.check(arrival));
        }
        arrived
    }

    /// The first snapshot that `fits`, which must come before the deadline.
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

    /// The first snapshot whose containers were measured, and whose logs were read, wholly after now.
    pub(crate) fn fresh(&mut self) -> Value {
        let now = SystemTime::now();
        self.until("figures of after now", PATIENCE, |snapshot| {
            ["docker", "logs"].iter().all(|source| {
                let health = &snapshot["sources"][source];
                let took = health["duration_ms"].as_f64().unwrap_or_default() / 1000.0;
                let began = collected_at(snapshot, source)
                    .and_then(|at| at.checked_sub(Duration::from_secs_f64(took)));
                began.is_some_and(|began| began >= now) || health["status"] == "disabled"
            })
        })
    }
}

/// When the figures of a source were read.
pub(crate) fn collected_at(snapshot: &Value, source: &str) -> Option<SystemTime> {
    let text = snapshot["sources"][source]["collected_at"].as_str()?;
    Some(humantime::parse_rfc3339(text).expect("a timestamp"))
}

/// The figures of a container, by its name without the slash.
pub(crate) fn figures<'s>(snapshot: &'s Value, name: &str) -> Option<&'s Value> {
    let mut containers = snapshot["containers"].as_array()?.iter();
    containers.find(|container| container["name"].as_str() == Some(&format!("/{name}")))
}

/// One figure of a container, which must be there.
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

/// Whether all sources are well.
pub(crate) fn healthy(snapshot: &Value) -> bool {
    let well = |source| snapshot["sources"][source]["status"] == "ok";
    snapshot["status"] == "ok" && ["system", "docker", "logs"].into_iter().all(well)
}

/// Whether a source is failing, with a reason.
fn fails(snapshot: &Value, source: &str) -> bool {
    let health = &snapshot["sources"][source];
    let reason = health["error"].as_str().unwrap_or_default();
    health["status"] == "failing" && !reason.is_empty()
}

/// Whether Docker is failing, with a reason, and the host is not. Logs that are read from files go on without the engine.
pub(crate) fn docker_is_failing(snapshot: &Value) -> bool {
    snapshot["status"] == "degraded"
        && snapshot["sources"]["system"]["status"] == "ok"
        && fails(snapshot, "docker")
}

/// Whether Docker and logs are failing, with a reason each, and nothing else is.
pub(crate) fn docker_and_logs_are_failing(snapshot: &Value) -> bool {
    docker_is_failing(snapshot) && fails(snapshot, "logs")
}

/// Whether the figures of a source are not older than two intervals, by the snapshot's own time.
pub(crate) fn is_fresh(snapshot: &Value, source: &str, interval: Duration) -> bool {
    let text = snapshot["timestamp"].as_str().expect("a timestamp");
    let taken = humantime::parse_rfc3339(text).expect("a timestamp");
    collected_at(snapshot, source).is_some_and(|at| {
        let age = taken.duration_since(at).unwrap_or_default();
        age <= interval * 2
    })
}
