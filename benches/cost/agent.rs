//! The agent, with one client that takes notes of each snapshot.

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

use crate::common::agent::{self, KEY, PATIENCE};
use crate::plan::Plan;
use crate::process::Process;

/// A running agent. Ended on drop.
pub(crate) struct Agent {
    process: Process,
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// From its start to the first snapshot with every container in every section.
    pub(crate) took: Duration,
}

impl Agent {
    /// Starts it and waits for the first complete snapshot.
    pub(crate) fn start(plan: &Plan, containers: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(&plan.agent), containers, settings)
    }

    /// As [`Agent::start`], by a command that becomes the agent.
    pub(crate) fn start_by(command: Command, containers: usize, settings: &[(&str, &str)]) -> Self {
        let started = Instant::now();
        let (process, mut stream) = agent::start_by(command, settings);
        let port = stream.peer_addr().unwrap().port();
        stream.write_all(format!("{KEY}\n").as_bytes()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream).lines();
        loop {
            let line = lines.next().expect("the agent streams").unwrap();
            if Heard::of(&line).is_complete(containers) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "not complete: {line}");
        }
        let took = started.elapsed();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let notes = Arc::clone(&heard);
        // The client reads on until the agent ends.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                notes.lock().unwrap().push(Heard::of(&line));
            }
        });
        Self {
            process,
            port,
            heard,
            took,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Forgets what was heard until now.
    pub(crate) fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Waits for the next snapshot.
    pub(crate) fn wait(&self) {
        let count = || self.heard.lock().unwrap().len();
        let before = count();
        while count() == before {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every snapshot since then.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

/// What is noted of a snapshot; the rest is not looked at, as the client must not cost what it measures.
#[derive(Deserialize)]
pub(crate) struct Heard {
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

impl Heard {
    fn of(line: &str) -> Self {
        serde_json::from_str(line).expect("a snapshot")
    }

    /// Others' containers may run beside ours.
    fn is_complete(&self, containers: usize) -> bool {
        let sections = [
            self.containers.len(),
            self.docker_meta.len(),
            self.logs.len(),
        ];
        self.status == "ok" && sections.iter().all(|&count| count >= containers)
    }

    /// By which way a source's figures came.
    pub(crate) fn via(&self, source: &str) -> Option<&str> {
        self.sources.get(source)?.via.as_deref()
    }

    /// How old a source's figures are in it, in milliseconds.
    pub(crate) fn age_ms(&self, source: &str) -> Option<f64> {
        let collected_at = self.sources.get(source)?.collected_at.as_deref()?;
        let age = instant(&self.timestamp) - instant(collected_at);
        Some(age.as_seconds_f64() * 1000.0)
    }
}

/// How many rounds of the containers' figures are among these.
pub(crate) fn docker_rounds(heard: &[Heard]) -> usize {
    let rounds = heard
        .iter()
        .filter_map(|one| one.sources.get("docker")?.collected_at.as_deref());
    rounds.collect::<BTreeSet<_>>().len()
}

/// How many snapshots the client has missed meanwhile.
pub(crate) fn skipped(heard: &[Heard]) -> u64 {
    let ends = heard.first().zip(heard.last());
    ends.map_or(0, |(first, last)| last.agent.skipped - first.agent.skipped)
}

fn instant(timestamp: &str) -> OffsetDateTime {
    OffsetDateTime::parse(timestamp, &Rfc3339).expect("RFC 3339")
}
