//! The short form of a snapshot: only the figures that the table of hosts shows. Reading only these figures saves most of the
//! time and memory.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::share::share;
use super::text::{self, Level};
use crate::model::{
    self, BtrfsFileSystem, Conntrack, Disk, FailedUnit, LoadAverage, MemoryController,
    NvmeController, RaidArray, Snapshot, SourceStatus, Sources, StoppedContainer, SystemMetrics,
    Timestamp, Zfs,
};

/// Maximum number of problems of one host.
const MAX_PROBLEMS: usize = 16;
/// Maximum length of the text of a problem, in characters. The text can contain a very long name.
const LONGEST_PROBLEM: usize = 200;
/// Maximum number of stopped containers that a problem names.
const MAX_DOWN: usize = 8;
/// Maximum length of the name of a host, in characters.
const LONGEST_NAME: usize = 255;

/// The figures of a host in the table of hosts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Brief {
    pub(super) hostname: String,
    /// The time at which the agent composed the snapshot.
    pub(super) timestamp: Timestamp,
    /// The number of the snapshot.
    pub(super) seq: u64,
    /// The time at which the agent read the host's figures.
    pub(super) collected_at: Option<Timestamp>,
    /// The interval at which the agent reads the host's figures.
    pub(super) read_every: Option<Duration>,
    /// CPU in percent.
    pub(super) cpu: f64,
    /// Memory in use, in percent.
    pub(super) memory: f64,
    /// Used space of the root file system, in percent.
    pub(super) disk: f64,
    /// The load average over one minute.
    pub(super) load: f64,
    /// The number of containers.
    pub(super) containers: usize,
    /// The host's problems, the worst first.
    pub(super) problems: Vec<(Level, String)>,
}

/// The fields of a snapshot from which a [`Brief`] is made.
#[derive(Deserialize)]
struct Parts {
    timestamp: Timestamp,
    #[serde(default)]
    system: SystemParts,
    #[serde(default)]
    containers: Vec<ContainerParts>,
    #[serde(default)]
    stopped: Vec<Arc<StoppedContainer>>,
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
    raid: Vec<RaidArray>,
    #[serde(default)]
    zfs: Option<Zfs>,
    #[serde(default)]
    btrfs: Vec<BtrfsFileSystem>,
    #[serde(default)]
    memory_controllers: Vec<MemoryController>,
    #[serde(default)]
    nvme: Vec<NvmeController>,
    #[serde(default)]
    conntrack: Option<Conntrack>,
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
    /// Reads a snapshot's JSON line.
    ///
    /// # Errors
    /// Fails if the JSON line is not a snapshot.
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
                raid: system.raid.clone(),
                zfs: system.zfs.clone(),
                btrfs: system.btrfs.clone(),
                memory_controllers: system.memory_controllers.clone(),
                nvme: system.nvme.clone(),
                conntrack: system.conntrack,
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
            stopped: snapshot.stopped.to_vec(),
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

/// The problems that a snapshot shows, the worst first.
fn problems(parts: &Parts) -> Vec<(Level, String)> {
    let system = &parts.system;
    let mut problems = Vec::new();
    for (name, source) in parts.sources.named() {
        if source.status == SourceStatus::Failing {
            let why = source.error.as_deref().unwrap_or("no reason given");
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
    for array in &system.raid {
        let name = text::plain(&array.device);
        if ["inactive", "broken"].contains(&array.state.as_str()) {
            problems.push((Level::Bad, format!("{name} is {}", array.state)));
        } else if array.is_degraded() {
            let (active, required) = (array.disks_active, array.disks_required);
            let degraded = format!("{name} is degraded: {active} of {required} disks work");
            problems.push((Level::Bad, degraded));
        }
    }
    problems.extend(failing_hardware(system));
    if let Some(Conntrack { entries, limit }) = system.conntrack {
        let share = share(entries as f64, limit as f64);
        if share >= 90.0 {
            let full = format!("the connection table is {share:.0} % full");
            problems.push((Level::of_share(share), full));
        }
    }
    let memory = share(system.memory_used, system.memory_total);
    if memory >= 90.0 {
        problems.push((Level::Bad, format!("{memory:.0} % of memory is in use")));
    }
    problems.extend(down(&parts.stopped).map(|down| (Level::Warn, down)));
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
    problems.truncate(MAX_PROBLEMS);
    for (_, text) in &mut problems {
        *text = cut(std::mem::take(text), LONGEST_PROBLEM);
    }
    problems
}

/// The problems of ZFS pools, Btrfs devices, memory and NVMe controllers.
fn failing_hardware(system: &SystemParts) -> Vec<(Level, String)> {
    let mut problems = Vec::new();
    let pools = system.zfs.iter().flat_map(|zfs| &zfs.pools);
    for pool in pools.filter(|pool| pool.state != "online") {
        let (name, state) = (text::plain(&pool.name), text::plain(&pool.state));
        problems.push((Level::Bad, format!("pool {name} is {state}")));
    }
    for file_system in &system.btrfs {
        let name = file_system.label.as_ref().unwrap_or(&file_system.uuid);
        let name = text::plain(name);
        for device in &file_system.devices {
            let errors: u64 = device
                .errors()
                .iter()
                .fold(0, |sum, (_, count)| sum.saturating_add(*count));
            if device.missing {
                let missing = format!("btrfs {name}: device {} is missing", device.id);
                problems.push((Level::Bad, missing));
            } else if errors > 0 {
                let errors = format!("btrfs {name}: device {} had {errors} errors", device.id);
                problems.push((Level::Warn, errors));
            }
        }
    }
    for controller in &system.memory_controllers {
        let errors = controller.uncorrectable_errors;
        if errors > 0 {
            let errors = format!("memory had {errors} errors that could not be corrected");
            problems.push((Level::Bad, errors));
        }
    }
    let dead = system.nvme.iter();
    for controller in dead.filter(|one| one.state.as_deref() == Some("dead")) {
        let name = text::plain(&controller.name);
        problems.push((Level::Bad, format!("{name} is dead")));
    }
    problems
}

/// Names the stopped containers that are meant to run. None if there are none.
fn down(stopped: &[Arc<StoppedContainer>]) -> Option<String> {
    let down: Vec<_> = stopped.iter().filter(|one| one.is_down()).collect();
    let named = down.iter().take(MAX_DOWN).map(|one| {
        let ending = text::ending(one);
        format!(
            "{} ({})",
            text::plain(one.bare_name()),
            ending.trim_start_matches("exit ")
        )
    });
    let named: Vec<_> = named.collect();
    let more = if down.len() > MAX_DOWN { ", …" } else { "" };
    (!down.is_empty()).then(|| format!("{} down: {}{more}", down.len(), named.join(", ")))
}

/// Returns the first `longest` characters of a text. A shortened text is a copy, so that the memory of the long text is freed.
fn cut(text: String, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
