//! An agent with one client. The client notes some fields of each snapshot.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::common::agent::{self, KEY, TIMEOUT};
use crate::plan::Plan;
use crate::process::Process;

/// A running agent. Stopped on drop.
pub(crate) struct Agent {
    process: Process,
    port: u16,
    noted: Arc<Mutex<Vec<Noted>>>,
    /// The time from the start to the first snapshot with all containers in all sections.
    pub(crate) took: Duration,
}

impl Agent {
    /// Starts the agent and waits for the first complete snapshot.
    pub(crate) fn start(plan: &Plan, containers: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(&plan.agent), containers, settings)
    }

    /// Does the same as [`Agent::start`], but `command` starts the agent. The command's process must become the agent's process.
    pub(crate) fn start_by(command: Command, containers: usize, settings: &[(&str, &str)]) -> Self {
        let started = Instant::now();
        let (process, mut stream) = agent::start_by(command, settings);
        let port = stream.peer_addr().unwrap().port();
        stream.write_all(format!("{KEY}\n").as_bytes()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut lines = BufReader::new(stream).lines();
        loop {
            let line = lines.next().expect("no snapshot from the agent").unwrap();
            if Noted::of(&line).is_complete(containers) {
                break;
            }
            assert!(
                started.elapsed() < TIMEOUT,
                "the snapshot is not complete: {line}"
            );
        }
        let took = started.elapsed();
        let noted = Arc::<Mutex<Vec<Noted>>>::default();
        let notes = Arc::clone(&noted);
        // The client reads until the agent stops.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                notes.lock().unwrap().push(Noted::of(&line));
            }
        });
        Self {
            process,
            port,
            noted,
            took,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Discards the notes of all snapshots until now.
    pub(crate) fn forget(&self) {
        self.noted.lock().unwrap().clear();
    }

    /// Waits for the next snapshot.
    pub(crate) fn wait(&self) {
        let count = || self.noted.lock().unwrap().len();
        let before = count();
        while count() == before {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns and removes the notes of all snapshots since the previous call.
    pub(crate) fn noted(&self) -> Vec<Noted> {
        std::mem::take(&mut self.noted.lock().unwrap())
    }
}

/// The noted fields of a snapshot. The client does not parse the other fields, so that it uses little CPU time.
#[derive(Deserialize)]
pub(crate) struct Noted {
    timestamp: String,
    status: String,
    containers: Vec<IgnoredAny>,
    docker_meta: Vec<IgnoredAny>,
    logs: HashMap<String, IgnoredAny>,
    sources: HashMap<String, Source>,
    agent: Own,
}

#[derive(Deserialize)]
struct Source {
    collected_at: Option<String>,
    via: Option<String>,
}

#[derive(Deserialize)]
struct Own {
    skipped: u64,
}

impl Noted {
    fn of(line: &str) -> Self {
        serde_json::from_str(line).expect("expected a snapshot")
    }

    /// Whether all three sections have at least this number of containers. More are possible, because other containers can run,
    /// too.
    fn is_complete(&self, containers: usize) -> bool {
        let sections = [
            self.containers.len(),
            self.docker_meta.len(),
            self.logs.len(),
        ];
        self.status == "ok" && sections.iter().all(|&count| count >= containers)
    }

    /// How a source's figures were read: `kernel` or `engine`.
    pub(crate) fn via(&self, source: &str) -> Option<&str> {
        self.sources.get(source)?.via.as_deref()
    }

    /// The age of a source's figures at the time of the snapshot, in milliseconds.
    pub(crate) fn age_ms(&self, source: &str) -> Option<f64> {
        let collected_at = self.sources.get(source)?.collected_at.as_deref()?;
        let age = instant(&self.timestamp) - instant(collected_at);
        Some(age.as_seconds_f64() * 1000.0)
    }
}

/// The number of rounds of the docker source that these snapshots show.
pub(crate) fn docker_rounds(noted: &[Noted]) -> usize {
    let rounds = noted
        .iter()
        .filter_map(|one| one.sources.get("docker")?.collected_at.as_deref());
    rounds.collect::<BTreeSet<_>>().len()
}

/// The number of snapshots that the client did not get between the first and the final snapshot of `noted`.
pub(crate) fn skipped(noted: &[Noted]) -> u64 {
    let ends = noted.first().zip(noted.last());
    ends.map_or(0, |(first, last)| last.agent.skipped - first.agent.skipped)
}

fn instant(timestamp: &str) -> OffsetDateTime {
    OffsetDateTime::parse(timestamp, &Rfc3339).expect("expected a time in RFC 3339")
}
