//! What is kept of a snapshot of a host among many: what the fleet's table shows. It is read without the rest, which is most of
//! a snapshot, and costs a fraction of it in time and memory.

use std::time::Duration;

use serde::Deserialize;

use super::share::share;
use super::text::{self, Level};
use crate::model::{
    self, Disk, FailedUnit, LoadAverage, Snapshot, SourceStatus, Sources, SystemMetrics, Timestamp,
};

/// The most problems of a host that are kept, and the most of each one's text, in characters: names are foreign text.
const MOST_PROBLEMS: usize = 16;
const LONGEST_PROBLEM: usize = 200;
/// The longest name of a host, in characters.
const LONGEST_NAME: usize = 255;

/// A host's figures in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Brief {
    pub(super) hostname: String,
    /// When the snapshot was composed, and its number.
    pub(super) timestamp: Timestamp,
    pub(super) seq: u64,
    /// When its figures were read, and how often they are.
    pub(super) collected_at: Option<Timestamp>,
    pub(super) read_every: Option<Duration>,
    /// In percent.
    pub(super) cpu: f64,
    pub(super) memory: f64,
    pub(super) disk: f64,
    /// Over one minute.
    pub(super) load: f64,
    pub(super) containers: usize,
    /// What is not as it should be, the worst first.
    pub(super) problems: Vec<(Level, String)>,
}

/// The parts of a snapshot that it is made of.
#[derive(Deserialize)]
struct Parts {
    timestamp: Timestamp,
    #[serde(default)]
    system: SystemParts,
    #[serde(default)]
    containers: Vec<ContainerParts>,
    sources: Sources,
    host: HostParts,
    agent: AgentParts,
}

#[derive(Default, Deserialize)]
struct SystemParts {
    cpu_percent: [f64; 1],
    memory_used: f64,
    memory_total: f64,
    disk_used: f64,
    disk_total: f64,
    load_avg: LoadAverage,
    #[serde(default)]
    disks: Vec<Disk>,
    #[serde(default)]
    failed_units: Option<Vec<FailedUnit>>,
}

#[derive(Deserialize)]
struct ContainerParts {
    name: String,
    #[serde(default)]
    health: Option<String>,
}

#[derive(Deserialize)]
struct HostParts {
    hostname: String,
}

#[derive(Deserialize)]
struct AgentParts {
    seq: u64,
}

impl Brief {
    /// Of a snapshot's line.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        model::read::<Parts>(line).map(Self::from)
    }
}

impl From<&Snapshot> for Brief {
    fn from(snapshot: &Snapshot) -> Self {
        let system: &SystemMetrics = &snapshot.system;
        Parts {
            timestamp: snapshot.timestamp,
            system: SystemParts {
                cpu_percent: system.cpu_percent,
                memory_used: system.memory_used,
                memory_total: system.memory_total,
                disk_used: system.disk_used,
                disk_total: system.disk_total,
                load_avg: system.load_avg,
                disks: system.disks.clone(),
                failed_units: system.failed_units.clone(),
            },
            containers: snapshot
                .containers
                .iter()
                .map(|container| ContainerParts {
                    name: container.name.clone(),
                    health: container.health.clone(),
                })
                .collect(),
            sources: snapshot.sources.clone(),
            host: HostParts {
                hostname: snapshot.host.hostname.clone(),
            },
            agent: AgentParts {
                seq: snapshot.agent.seq,
            },
        }
        .into()
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
            problems: problems(&parts),
            hostname: cut(parts.host.hostname, LONGEST_NAME),
        }
    }
}

fn problems(parts: &Parts) -> Vec<(Level, String)> {
    let system = &parts.system;
    let mut problems = Vec::new();
    for (name, source) in parts.sources.named() {
        if source.status == SourceStatus::Failing {
            let why = source.error.as_deref().unwrap_or("no reason is given");
            let why = text::plain(why);
            problems.push((Level::Bad, format!("{name} is failing: {why}")));
        }
    }
    for disk in &system.disks {
        let share = share(
            disk.used.unwrap_or_default(),
            disk.total.unwrap_or_default(),
        );
        if disk.stuck {
            let mount = text::plain(&disk.mount);
            problems.push((Level::Bad, format!("{mount} does not answer")));
        } else if share >= 90.0 {
            let mount = text::plain(&disk.mount);
            let full = format!("{mount} is {share:.0} % full");
            problems.push((Level::of_share(share), full));
        }
    }
    let memory = share(system.memory_used, system.memory_total);
    if memory >= 90.0 {
        problems.push((Level::Bad, format!("{memory:.0} % of memory is in use")));
    }
    for unit in system.failed_units.iter().flatten() {
        let name = text::plain(&unit.name);
        problems.push((Level::Warn, format!("{name} has failed")));
    }
    for container in &parts.containers {
        if container.health.as_deref() == Some("unhealthy") {
            let name = text::plain(container.name.trim_start_matches('/'));
            problems.push((Level::Warn, format!("{name} is unhealthy")));
        }
    }
    problems.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    problems.truncate(MOST_PROBLEMS);
    for (_, text) in &mut problems {
        *text = cut(std::mem::take(text), LONGEST_PROBLEM);
    }
    problems
}

/// So many characters of a text, in no more memory than they take.
fn cut(text: String, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
