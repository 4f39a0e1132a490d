//! The columns of every list, and the rows made from snapshots.

use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime};

use crate::model::{
    Container, EventAction, InterfaceKind, Snapshot, SourceStatus, StoppedContainer, TopIo,
    TopProcess, Unit,
};
use crate::watch::host::{Host, Latest, Link};
use crate::watch::listing::{Head, Row, Value};
use crate::watch::share::{container_traffic, share};
use crate::watch::text::{self, Level};

/// The lists in the view of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Containers,
    Processes,
    Units,
    Disks,
    Network,
    Events,
}

impl Pane {
    pub(super) const ALL: [Self; 6] = [
        Self::Containers,
        Self::Processes,
        Self::Units,
        Self::Disks,
        Self::Network,
        Self::Events,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Containers => "Containers",
            Self::Processes => "Processes",
            Self::Units => "Units",
            Self::Disks => "Disks",
            Self::Network => "Network",
            Self::Events => "Events",
        }
    }

    /// Returns the list that is `by` lists further. The first list follows the final list.
    pub(super) fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// A column of a fixed width.
const fn head(title: &'static str, width: u16, right: bool, weight: u8) -> Head {
    Head {
        title,
        width,
        grows: false,
        right,
        weight,
    }
}

/// A column that takes the remaining width of the table. `width` is the minimum.
const fn growing(title: &'static str, width: u16, weight: u8) -> Head {
    Head {
        grows: true,
        ..head(title, width, false, weight)
    }
}

pub(crate) const FLEET: &[Head] = &[
    head("HOST", 16, false, 99),
    head("CPU%", 6, true, 90),
    head("LAST", 12, true, 20),
    head("MEM%", 6, true, 80),
    head("DISK%", 6, true, 70),
    head("LOAD", 6, true, 30),
    head("CONT", 5, true, 60),
    head("AGE", 7, true, 40),
    growing("WORST PROBLEM", 24, 95),
];

const CONTAINERS: &[Head] = &[
    growing("NAME", 16, 99),
    head("CPU%", 7, true, 95),
    head("LAST", 10, true, 60),
    head("MEM", 6, true, 90),
    head("MEM%", 5, true, 55),
    head("NET↓/s", 7, true, 70),
    head("NET↑/s", 7, true, 69),
    head("READ/s", 7, true, 40),
    head("WRITE/s", 7, true, 39),
    head("PIDS", 5, true, 30),
    head("HEALTH", 9, false, 80),
    head("RST", 4, true, 75),
    head("UP", 8, true, 50),
    head("IMAGE", 24, false, 20),
];

const PROCESSES: &[Head] = &[
    growing("NAME", 16, 99),
    head("CPU%", 7, true, 95),
    head("MEM%", 6, true, 90),
    head("RSS", 6, true, 80),
    head("READ/s", 7, true, 50),
    head("WRITE/s", 7, true, 49),
    head("PID", 8, true, 85),
    head("USER", 12, false, 60),
    head("CONTAINER", 20, false, 70),
];

const UNITS: &[Head] = &[
    growing("NAME", 20, 99),
    head("CPU%", 7, true, 95),
    head("MEM", 6, true, 90),
    head("STATE", 20, false, 85),
    head("READ/s", 7, true, 40),
    head("WRITE/s", 7, true, 39),
    head("TASKS", 5, true, 30),
    head("OOM", 4, true, 45),
    head("RST", 4, true, 75),
    head("SINCE", 8, true, 50),
    head("PID", 8, true, 20),
];

const DISKS: &[Head] = &[
    growing("MOUNT", 20, 99),
    head("USED%", 6, true, 95),
    head("USED", 6, true, 80),
    head("SIZE", 6, true, 85),
    head("INODES%", 8, true, 50),
    head("TYPE", 8, false, 40),
    head("DEVICE", 20, false, 60),
];

const NETWORK: &[Head] = &[
    growing("NAME", 16, 99),
    head("NET↓/s", 8, true, 95),
    head("NET↑/s", 8, true, 94),
    head("RECEIVED", 8, true, 70),
    head("SENT", 8, true, 69),
    head("ERRORS", 7, true, 50),
    head("DROPS", 7, true, 49),
    head("KIND", 9, false, 60),
    head("LINK", 10, false, 40),
    head("CONTAINER", 16, false, 30),
];

const EVENTS: &[Head] = &[
    head("TIME (UTC)", 20, false, 99),
    head("EVENT", 14, false, 95),
    head("CONTAINER", 20, false, 90),
    growing("DETAIL", 16, 80),
    head("IMAGE", 24, false, 10),
];

pub(crate) fn of_pane(pane: Pane) -> &'static [Head] {
    match pane {
        Pane::Containers => CONTAINERS,
        Pane::Processes => PROCESSES,
        Pane::Units => UNITS,
        Pane::Disks => DISKS,
        Pane::Network => NETWORK,
        Pane::Events => EVENTS,
    }
}

pub(super) fn rows_of_pane(pane: Pane, host: &Host) -> Vec<Row> {
    let Some(snapshot) = &host.snapshot else {
        return Vec::new();
    };
    match pane {
        Pane::Containers => containers(host, snapshot),
        Pane::Processes => processes(snapshot),
        Pane::Units => units(snapshot),
        Pane::Disks => disks(snapshot),
        Pane::Network => network(snapshot),
        Pane::Events => events(host, None),
    }
}

/// The rows of the table of hosts.
pub(super) fn fleet(hosts: &BTreeMap<usize, Host>, now: Instant) -> Vec<Row> {
    let mut called: HashMap<&str, usize> = HashMap::new();
    for host in hosts.values() {
        *called.entry(host.name()).or_default() += 1;
    }
    hosts
        .iter()
        .map(|(number, host)| Row {
            id: number.to_string(),
            values: host_values(host, called.get(host.name()) == Some(&1), now),
        })
        .collect()
}

/// The row of a host. If another host has the same name (`is_alone` is false), the first column also has the host's address.
fn host_values(host: &Host, is_alone: bool, now: Instant) -> Vec<Value> {
    let name = match is_alone {
        true => text::plain(host.name()),
        false => format!(
            "{} {}",
            text::plain(host.name()),
            text::plain(&host.address)
        ),
    };
    let name = Value::text(name).level(match host.is_away() {
        true => Level::Bad,
        false => Level::Plain,
    });
    let problem = match (host.problems(now).into_iter().next(), &host.link) {
        (Some((level, problem)), _) => Value::text(problem).level(level),
        (None, Link::Connecting) => Value::text("connecting …").level(Level::Dim),
        (None, _) => Value::text(""),
    };
    let Some(Latest { brief, .. }) = &host.latest else {
        let mut values = vec![Value::unknown(); FLEET.len()];
        values[0] = name;
        values[FLEET.len() - 1] = problem;
        return values;
    };
    let age = host.age(now).unwrap_or_default();
    vec![
        name,
        percent(brief.cpu),
        Value::text(text::bars(host.cpu.newest(12), 100.0)).level(Level::Dim),
        percent(brief.memory),
        percent(brief.disk),
        Value::number(brief.load, format!("{:.2}", brief.load)),
        count(brief.containers as u64),
        Value::number(age.as_secs_f64(), text::age(age)),
        problem,
    ]
}

fn containers(host: &Host, snapshot: &Snapshot) -> Vec<Row> {
    let row = |container: &Container| {
        let trace = host.containers.get(&*container.id);
        let bars = trace.map_or_else(String::new, |trace| {
            text::bars(trace.cpu.newest(10), trace.cpu.highest(10).max(10.0))
        });
        let (received, sent) = container_traffic(container);
        let io = container.block_io.unwrap_or_default();
        let share =
            |share: f64| Value::number(share, format!("{share:.1}")).level(Level::of_share(share));
        Row {
            id: container.id.to_string(),
            values: vec![
                Value::text(text::plain(container.name.trim_start_matches('/'))).level(
                    if &*container.status == "paused" {
                        Level::Dim
                    } else {
                        Level::Plain
                    },
                ),
                Value::number(
                    container.cpu_percent,
                    format!("{:.1}", container.cpu_percent),
                ),
                Value::text(bars).level(Level::Dim),
                maybe_bytes(container.memory_usage.map(|bytes| bytes as f64)),
                container.memory_percent.map_or_else(Value::unknown, share),
                bytes(received),
                bytes(sent),
                maybe_bytes(io.read_bytes_per_second),
                maybe_bytes(io.write_bytes_per_second),
                container.pids.map_or_else(Value::unknown, count),
                health(container),
                times(container.restart_count),
                container.uptime.map_or_else(Value::unknown, |uptime| {
                    Value::number(uptime as f64, text::span(uptime))
                }),
                Value::text(text::plain(&container.image)).level(Level::Dim),
            ],
        }
    };
    let running = snapshot.containers.iter().map(row);
    let stopped = snapshot.stopped.iter().map(|one| stopped(snapshot, one));
    running.chain(stopped).collect()
}

/// The row of a stopped container: its name, how it ended, how long ago, and its image.
fn stopped(snapshot: &Snapshot, container: &StoppedContainer) -> Row {
    let stopped_for = stopped_for(snapshot, container).map(|ago| {
        let text = format!("-{}", text::span(ago));
        Value::number(-(ago as f64), text).level(Level::Dim)
    });
    let mut values = vec![Value::unknown(); CONTAINERS.len()];
    let dim = |text: String| Value::text(text).level(Level::Dim);
    let set = [
        ("NAME", dim(text::plain(container.bare_name()))),
        ("HEALTH", dim(text::ending(container))),
        ("UP", stopped_for.unwrap_or_else(Value::unknown)),
        ("IMAGE", dim(text::plain(&container.image))),
    ];
    for (title, value) in set {
        if let Some(place) = CONTAINERS.iter().position(|head| head.title == title) {
            values[place] = value;
        }
    }
    Row {
        id: container.id.clone(),
        values,
    }
}

/// Returns how long a container had been stopped at the time of the snapshot, in seconds. None if it was never started.
pub(super) fn stopped_for(snapshot: &Snapshot, container: &StoppedContainer) -> Option<u64> {
    let stopped = snapshot
        .timestamp
        .0
        .duration_since(container.finished_at?.0);
    Some(stopped.unwrap_or_default().as_secs())
}

fn health(container: &Container) -> Value {
    match container.health.as_deref() {
        _ if &*container.status == "paused" => Value::text("paused").level(Level::Warn),
        None => Value::text("-").level(Level::Dim),
        Some("healthy") => Value::text("healthy").level(Level::Good),
        Some("unhealthy") => Value::text("unhealthy").level(Level::Bad),
        Some(other) => Value::text(text::plain(other)).level(Level::Warn),
    }
}

/// The processes with the most CPU time, with the most memory and with the most I/O. A process in several groups is listed once.
fn processes(snapshot: &Snapshot) -> Vec<Row> {
    let system = &snapshot.system;
    let busiest = &system.top_processes;
    let largest = system
        .top_memory
        .iter()
        .filter(|process| busiest.iter().all(|busy| busy.pid != process.pid));
    let others = || busiest.iter().chain(largest.clone());
    let io: HashMap<u32, &TopIo> = system
        .top_io
        .iter()
        .filter_map(|one| Some((one.pid?, one)))
        .collect();
    let row = |process: &TopProcess| Row {
        id: process.pid.to_string(),
        values: vec![
            Value::text(text::plain(&process.name)),
            Value::number(process.cpu, format!("{:.1}", process.cpu)),
            Value::number(process.mem, format!("{:.1}", process.mem))
                .level(Level::of_share(process.mem)),
            maybe_bytes(process.memory_rss.map(|bytes| bytes as f64)),
            maybe_bytes(io.get(&process.pid).map(|one| one.read_bytes_per_second)),
            maybe_bytes(io.get(&process.pid).map(|one| one.write_bytes_per_second)),
            count(process.pid.into()).level(Level::Dim),
            named(process.user.as_deref()),
            named(process.container.as_deref()),
        ],
    };
    let only_io = system.top_io.iter().filter_map(|one| {
        let pid = one
            .pid
            .filter(|pid| others().all(|other| other.pid != *pid))?;
        let unknown = Value::unknown();
        Some(Row {
            id: pid.to_string(),
            values: vec![
                Value::text(text::plain(&one.name)),
                unknown.clone(),
                unknown.clone(),
                unknown,
                bytes(one.read_bytes_per_second),
                bytes(one.write_bytes_per_second),
                count(pid.into()).level(Level::Dim),
                named(one.user.as_deref()),
                named(one.container.as_deref()),
            ],
        })
    });
    others().map(row).chain(only_io).collect()
}

fn units(snapshot: &Snapshot) -> Vec<Row> {
    let row = |unit: &Unit| {
        let io = unit.block_io.unwrap_or_default();
        let state = match (unit.state.as_deref(), unit.sub_state.as_deref()) {
            (Some(state), Some(sub)) => text::plain(&format!("{state} ({sub})")),
            (state, _) => text::plain(state.unwrap_or("-")),
        };
        let level = match unit.state.as_deref() {
            Some("failed") => Level::Bad,
            Some("active") => Level::Plain,
            Some(_) => Level::Warn,
            None => Level::Dim,
        };
        let since = unit.since.map(|since| {
            let age = snapshot.timestamp.0.duration_since(since.0);
            let age = age.unwrap_or_default().as_secs();
            Value::number(age as f64, text::span(age))
        });
        Row {
            id: unit.name.clone(),
            values: vec![
                Value::text(text::plain(&unit.name)),
                unit.cpu_percent.map_or_else(Value::unknown, |percent| {
                    Value::number(percent, format!("{percent:.1}"))
                }),
                maybe_bytes(unit.memory.map(|bytes| bytes as f64)),
                Value::text(state).level(level),
                maybe_bytes(io.read_bytes_per_second),
                maybe_bytes(io.write_bytes_per_second),
                unit.tasks.map_or_else(Value::unknown, count),
                times(unit.oom_kills),
                times(unit.restarts),
                since.unwrap_or_else(Value::unknown),
                unit.main_pid
                    .map_or_else(Value::unknown, |pid| count(pid.into())),
            ],
        }
    };
    snapshot.system.units.iter().map(row).collect()
}

fn disks(snapshot: &Snapshot) -> Vec<Row> {
    let system = &snapshot.system;
    system
        .disks
        .iter()
        .map(|disk| {
            let used = match (disk.used, disk.total) {
                (Some(used), Some(total)) => percent(share(used, total)),
                _ if disk.stuck => Value::text("stuck").level(Level::Bad),
                _ => Value::unknown(),
            };
            let inodes = match (disk.inodes_used, disk.inodes_total) {
                (Some(used), Some(total)) => percent(share(used as f64, total as f64)),
                _ => Value::unknown(),
            };
            let gib = |gib: Option<f64>| {
                gib.map_or_else(Value::unknown, |gib| Value::number(gib, text::gib(gib)))
            };
            Row {
                id: disk.mount.clone(),
                values: vec![
                    Value::text(text::plain(&disk.mount)),
                    used,
                    gib(disk.used),
                    gib(disk.total),
                    inodes,
                    Value::text(text::plain(&disk.kind)).level(Level::Dim),
                    Value::text(text::plain(&disk.device)).level(Level::Dim),
                ],
            }
        })
        .collect()
}

fn network(snapshot: &Snapshot) -> Vec<Row> {
    let system = &snapshot.system;
    system
        .network
        .iter()
        .map(|interface| {
            let kind = match &interface.kind {
                Some(InterfaceKind::Physical) => "device".to_owned(),
                Some(InterfaceKind::Loopback) => "loopback".to_owned(),
                Some(InterfaceKind::Bridge) => "bridge".to_owned(),
                Some(InterfaceKind::Veth) => "veth".to_owned(),
                Some(InterfaceKind::Virtual) => "virtual".to_owned(),
                Some(InterfaceKind::Other(kind)) => text::plain(kind),
                None => "-".to_owned(),
            };
            let link = match (interface.up, interface.speed) {
                (Some(false), _) => Value::text("down").level(Level::Dim),
                (_, Some(speed)) => Value::text(format!("{speed} Mbit/s")),
                (Some(true), None) => Value::text("up"),
                (None, None) => Value::text("-").level(Level::Dim),
            };
            let sum = |one: Option<u64>, other: Option<u64>| {
                let sum = one
                    .unwrap_or_default()
                    .saturating_add(other.unwrap_or_default());
                count(sum).level(if sum > 0 { Level::Warn } else { Level::Dim })
            };
            Row {
                id: interface.name.clone(),
                values: vec![
                    Value::text(text::plain(&interface.name)),
                    maybe_bytes(interface.bytes_recv_per_second),
                    maybe_bytes(interface.bytes_sent_per_second),
                    bytes(interface.bytes_recv as f64),
                    bytes(interface.bytes_sent as f64),
                    sum(interface.errors_recv, interface.errors_sent),
                    sum(interface.drops_recv, interface.drops_sent),
                    Value::text(kind).level(Level::Dim),
                    link,
                    named(interface.container.as_deref()),
                ],
            }
        })
        .collect()
}

/// The events of one container, or of all containers.
pub(super) fn events(host: &Host, container: Option<&str>) -> Vec<Row> {
    host.events
        .iter()
        .filter(|event| container.is_none_or(|container| container == event.container))
        .map(|event| {
            let since_1970 = event.time.0.duration_since(SystemTime::UNIX_EPOCH);
            let time = humantime::format_rfc3339_seconds(event.time.0).to_string();
            let other;
            let (action, level) = match &event.action {
                EventAction::Start => ("start", Level::Good),
                EventAction::Die if event.exit_code == Some(0) => ("die", Level::Plain),
                EventAction::Die => ("die", Level::Warn),
                EventAction::Oom => ("oom", Level::Bad),
                EventAction::HealthStatus if event.health.as_deref() == Some("unhealthy") => {
                    ("health", Level::Bad)
                }
                EventAction::HealthStatus => ("health", Level::Plain),
                EventAction::Restart => ("restart", Level::Warn),
                EventAction::Pause => ("pause", Level::Plain),
                EventAction::Unpause => ("unpause", Level::Plain),
                EventAction::Destroy => ("destroy", Level::Plain),
                EventAction::Rename => ("rename", Level::Plain),
                EventAction::Other(action) => {
                    other = text::plain(action);
                    (other.as_str(), Level::Plain)
                }
            };
            let detail = match (&event.exit_code, &event.health, &event.renamed_from) {
                (Some(code), _, _) => format!("exit status {code}"),
                (_, Some(health), _) => text::plain(health),
                (_, _, Some(before)) => format!("from {}", text::plain(before)),
                _ => String::new(),
            };
            let order = since_1970.unwrap_or_default().as_secs_f64();
            Row {
                id: format!("{order} {action} {}", event.id),
                values: vec![
                    Value::number(order, time),
                    Value::text(action).level(level),
                    Value::text(text::plain(&event.container)),
                    Value::text(detail).level(level),
                    Value::text(text::plain(&event.image)).level(Level::Dim),
                ],
            }
        })
        .collect()
}

/// The name of each source, coloured by its status.
pub(super) fn sources(snapshot: &Snapshot) -> Vec<(String, Level)> {
    snapshot
        .sources
        .named()
        .map(|(name, source)| match &source.status {
            SourceStatus::Ok => (name.to_owned(), Level::Good),
            SourceStatus::Failing => (name.to_owned(), Level::Bad),
            SourceStatus::Disabled => (format!("{name} off"), Level::Dim),
            SourceStatus::Other(status) => (format!("{name} {}", text::plain(status)), Level::Warn),
        })
        .collect()
}

fn percent(percent: f64) -> Value {
    Value::number(percent, format!("{percent:.1}")).level(Level::of_share(percent))
}

fn count(count: u64) -> Value {
    Value::number(count as f64, count.to_string())
}

/// The number of times that something unwanted has happened.
fn times(number: Option<u64>) -> Value {
    match number {
        None => Value::unknown(),
        Some(0) => count(0).level(Level::Dim),
        Some(often) => count(often).level(Level::Warn),
    }
}

fn bytes(bytes: f64) -> Value {
    let level = if bytes > 0.0 {
        Level::Plain
    } else {
        Level::Dim
    };
    Value::number(bytes, text::bytes(bytes)).level(level)
}

fn maybe_bytes(some: Option<f64>) -> Value {
    some.map_or_else(Value::unknown, bytes)
}

fn named(name: Option<&str>) -> Value {
    name.map_or_else(
        || Value::text("-").level(Level::Dim),
        |name| Value::text(text::plain(name)),
    )
}
