//! The problems that a snapshot shows: rules that `watch` and `web` share.

use std::sync::Arc;

use serde::Deserialize;

use super::share::share;
use super::text::{self, Level};
use crate::model::{
    BtrfsFileSystem, Conntrack, Disk, FailedUnit, LoadAverage, MemoryController, NvmeController,
    RaidArray, Snapshot, SourceStatus, Sources, StoppedContainer, SystemMetrics, Timestamp, Zfs,
};

/// Maximum number of stopped containers that a text names.
const MAX_DOWN: usize = 8;

/// A problem that a snapshot shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// What has the problem, e.g. a mount point or a unit. Together with `kind`, it identifies the problem on its host.
    pub(crate) subject: String,
    pub(crate) level: Level,
    pub(crate) text: String,
    /// The name of the container, if a container has the problem.
    pub(crate) container: Option<String>,
    /// When the problem began, if the snapshot tells it.
    pub(crate) since: Option<Timestamp>,
}

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Source,
    Disk,
    Raid,
    Hardware,
    Conntrack,
    Memory,
    Down,
    Unit,
    Unhealthy,
}

impl Problem {
    fn new(kind: Kind, subject: &str, level: Level, text: String) -> Self {
        Self {
            kind,
            subject: subject.to_owned(),
            level,
            text,
            container: None,
            since: None,
        }
    }
}

/// The fields of a snapshot that are needed for the table of hosts and for the problems.
#[derive(Deserialize)]
pub(crate) struct Parts {
    pub(super) timestamp: Timestamp,
    #[serde(default)]
    pub(super) system: SystemParts,
    #[serde(default)]
    pub(super) containers: Vec<ContainerParts>,
    #[serde(default)]
    pub(super) stopped: Vec<Arc<StoppedContainer>>,
    pub(super) sources: Sources,
    pub(super) host: HostParts,
    pub(super) agent: AgentParts,
}

#[derive(Default, Deserialize)]
pub(super) struct SystemParts {
    pub(super) cpu_percent: [f64; 1],
    pub(super) memory_used: f64,
    pub(super) memory_total: f64,
    pub(super) disk_used: f64,
    pub(super) disk_total: f64,
    pub(super) load_avg: LoadAverage,
    #[serde(default)]
    pub(super) disks: Vec<Disk>,
    #[serde(default)]
    pub(super) raid: Vec<RaidArray>,
    #[serde(default)]
    pub(super) zfs: Option<Zfs>,
    #[serde(default)]
    pub(super) btrfs: Vec<BtrfsFileSystem>,
    #[serde(default)]
    pub(super) memory_controllers: Vec<MemoryController>,
    #[serde(default)]
    pub(super) nvme: Vec<NvmeController>,
    #[serde(default)]
    pub(super) conntrack: Option<Conntrack>,
    #[serde(default)]
    pub(super) failed_units: Option<Vec<FailedUnit>>,
}

#[derive(Deserialize)]
pub(super) struct ContainerParts {
    pub(super) name: String,
    #[serde(default)]
    pub(super) health: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct HostParts {
    pub(super) hostname: String,
}

#[derive(Deserialize)]
pub(super) struct AgentParts {
    pub(super) seq: u64,
}

impl From<&Snapshot> for Parts {
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
                    name: container.name.to_string(),
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
    }
}

/// The problems that a snapshot shows, the worst first.
pub(crate) fn problems(parts: &Parts) -> Vec<Problem> {
    let system = &parts.system;
    let mut problems = Vec::new();
    for (name, source) in parts.sources.named() {
        if source.status == SourceStatus::Failing {
            let why = source.error.as_deref().unwrap_or("no reason given");
            let why = text::plain(why);
            let text = format!("{name} is failing: {why}");
            problems.push(Problem::new(Kind::Source, name, Level::Bad, text));
        }
    }
    for disk in &system.disks {
        let share = share(
            disk.used.unwrap_or_default(),
            disk.total.unwrap_or_default(),
        );
        if disk.stuck {
            let mount = text::plain(&disk.mount);
            let text = format!("{mount} does not answer");
            problems.push(Problem::new(Kind::Disk, &disk.mount, Level::Bad, text));
        } else if share >= 90.0 {
            let mount = text::plain(&disk.mount);
            let full = format!("{mount} is {share:.0} % full");
            let level = Level::of_share(share);
            problems.push(Problem::new(Kind::Disk, &disk.mount, level, full));
        }
    }
    for array in &system.raid {
        let name = text::plain(&array.device);
        if ["inactive", "broken"].contains(&array.state.as_str()) {
            let text = format!("{name} is {}", text::plain(&array.state));
            problems.push(Problem::new(Kind::Raid, &array.device, Level::Bad, text));
        } else if array.is_degraded() {
            let (active, required) = (array.disks_active, array.disks_required);
            let degraded = format!("{name} is degraded: {active} of {required} disks work");
            problems.push(Problem::new(
                Kind::Raid,
                &array.device,
                Level::Bad,
                degraded,
            ));
        }
    }
    problems.extend(failing_hardware(system));
    if let Some(Conntrack { entries, limit }) = system.conntrack {
        let share = share(entries as f64, limit as f64);
        if share >= 90.0 {
            let full = format!("the connection table is {share:.0} % full");
            let level = Level::of_share(share);
            problems.push(Problem::new(Kind::Conntrack, "", level, full));
        }
    }
    let memory = share(system.memory_used, system.memory_total);
    if memory >= 90.0 {
        let text = format!("{memory:.0} % of memory is in use");
        problems.push(Problem::new(Kind::Memory, "", Level::Bad, text));
    }
    for stopped in parts.stopped.iter().filter(|one| one.is_down()) {
        let name = text::plain(stopped.bare_name());
        let text = format!("{name} is down ({})", text::ending(stopped));
        problems.push(Problem {
            container: Some(stopped.bare_name().to_owned()),
            since: stopped.finished_at,
            ..Problem::new(Kind::Down, stopped.bare_name(), Level::Warn, text)
        });
    }
    for unit in system.failed_units.iter().flatten() {
        let name = text::plain(&unit.name);
        let text = format!("{name} has failed");
        problems.push(Problem::new(Kind::Unit, &unit.name, Level::Warn, text));
    }
    for container in &parts.containers {
        if container.health.as_deref() == Some("unhealthy") {
            let bare = container.name.trim_start_matches('/');
            let text = format!("{} is unhealthy", text::plain(bare));
            problems.push(Problem {
                container: Some(bare.to_owned()),
                ..Problem::new(Kind::Unhealthy, bare, Level::Warn, text)
            });
        }
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.level));
    problems
}

/// The problems of ZFS pools, Btrfs devices, memory and NVMe controllers.
fn failing_hardware(system: &SystemParts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let pools = system.zfs.iter().flat_map(|zfs| &zfs.pools);
    for pool in pools.filter(|pool| pool.state != "online") {
        let (name, state) = (text::plain(&pool.name), text::plain(&pool.state));
        problems.push(of_hardware(Level::Bad, format!("pool {name} is {state}")));
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
                problems.push(of_hardware(Level::Bad, missing));
            } else if errors > 0 {
                let errors = format!("btrfs {name}: device {} had {errors} errors", device.id);
                problems.push(of_hardware(Level::Warn, errors));
            }
        }
    }
    for controller in &system.memory_controllers {
        let errors = controller.uncorrectable_errors;
        if errors > 0 {
            let errors = format!("memory had {errors} errors that could not be corrected");
            problems.push(of_hardware(Level::Bad, errors));
        }
    }
    let dead = system.nvme.iter();
    for controller in dead.filter(|one| one.state.as_deref() == Some("dead")) {
        let name = text::plain(&controller.name);
        problems.push(of_hardware(Level::Bad, format!("{name} is dead")));
    }
    problems
}

/// A problem of hardware. Its text without the digits identifies it, because a count of errors grows.
fn of_hardware(level: Level, text: String) -> Problem {
    let subject = text.replace(|one: char| one.is_ascii_digit(), "");
    Problem::new(Kind::Hardware, &subject, level, text)
}

/// Names the stopped containers that are meant to run. None if there are none.
pub(super) fn down(stopped: &[Arc<StoppedContainer>]) -> Option<String> {
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
