//! The short form of a snapshot: only the figures that the table of hosts shows. Reading only these figures saves most of the
//! time and memory.

use std::time::Duration;

use super::problems::{Kind, Parts, down, problems};
use super::share::share;
use super::text::Level;
use crate::model::{self, Snapshot, Timestamp};

/// Maximum number of problems of one host.
const MAX_PROBLEMS: usize = 16;
/// Maximum length of the text of a problem, in characters. The text can contain a very long name.
const LONGEST_PROBLEM: usize = 200;
/// Maximum length of the name of a host, in characters.
const LONGEST_NAME: usize = 255;

/// The figures of a host in the table of hosts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Brief {
    pub(crate) hostname: String,
    /// The time at which the agent composed the snapshot.
    pub(crate) timestamp: Timestamp,
    /// The number of the snapshot.
    pub(crate) seq: u64,
    /// The time at which the agent read the host's figures.
    pub(crate) collected_at: Option<Timestamp>,
    /// The interval at which the agent reads the host's figures.
    pub(crate) read_every: Option<Duration>,
    /// CPU in percent.
    pub(crate) cpu: f64,
    /// Memory in use, in percent.
    pub(crate) memory: f64,
    /// Used space of the root file system, in percent.
    pub(crate) disk: f64,
    /// The load average over one minute.
    pub(crate) load: f64,
    /// The number of containers.
    pub(crate) containers: usize,
    /// The host's problems, the worst first.
    pub(crate) problems: Vec<(Level, String)>,
}

impl Brief {
    /// Reads a snapshot's JSON line.
    ///
    /// # Errors
    /// Fails if the JSON line is not a snapshot.
    pub(crate) fn read(line: &[u8]) -> serde_json::Result<Self> {
        model::read::<Parts>(line).map(Self::from)
    }
}

impl From<&Snapshot> for Brief {
    fn from(snapshot: &Snapshot) -> Self {
        Parts::from(snapshot).into()
    }
}

impl From<Parts> for Brief {
    fn from(parts: Parts) -> Self {
        let system = &parts.system;
        let read = &parts.sources.system;
        Self {
            timestamp: parts.timestamp,
            seq: parts.agent.seq,
            collected_at: read.collected_at,
            read_every: read.interval_ms.map(Duration::from_millis),
            cpu: system.cpu_percent[0],
            memory: share(system.memory_used, system.memory_total),
            disk: share(system.disk_used, system.disk_total),
            load: system.load_avg.one,
            containers: parts.containers.len(),
            problems: texts(&parts),
            hostname: cut(parts.host.hostname, LONGEST_NAME),
        }
    }
}

/// The texts of the problems that a snapshot shows, the worst first. All containers that are down are one text.
fn texts(parts: &Parts) -> Vec<(Level, String)> {
    let mut down = down(&parts.stopped);
    let mut texts: Vec<_> = problems(parts)
        .into_iter()
        .filter_map(|problem| match problem.kind {
            Kind::Down => Some((problem.level, down.take()?)),
            _ => Some((problem.level, problem.text)),
        })
        .collect();
    texts.truncate(MAX_PROBLEMS);
    for (_, text) in &mut texts {
        *text = cut(std::mem::take(text), LONGEST_PROBLEM);
    }
    texts
}

/// Returns the first `longest` characters of a text. A shortened text is a copy, so that the memory of the long text is freed.
pub(crate) fn cut(text: String, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
