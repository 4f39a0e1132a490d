//! The data of one host: its newest snapshot, figures over time, events, and the log of the open container.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::brief::Brief;
use super::history::History;
use super::share::{container_traffic, disk_traffic, share, traffic};
use super::text::{self, Level};
use crate::model::{Container, ContainerEvent, Snapshot, StoppedContainer, SystemMetrics};

/// Maximum number of stored log lines.
const MAX_LINES: usize = 5000;
/// Limit on the text of all stored log lines, in bytes.
const MAX_TEXT: usize = 8 * 1024 * 1024;
/// Maximum number of stored events.
const MAX_EVENTS: usize = 256;
/// A missing snapshot is a problem after two intervals plus this time.
const LATE: Duration = Duration::from_secs(10);

/// One host.
pub(super) struct Host {
    /// The address that the user has given for the host. A host of a fleet has no address. Its name in the subjects of messages
    /// is stored instead.
    pub(super) address: String,
    /// Whether `address` is the name in the subjects of the host's messages. The NATS server can verify this name by its
    /// permissions. It cannot verify the name in a snapshot.
    is_name_verified: bool,
    pub(super) link: Link,
    pub(super) latest: Option<Latest>,
    /// The newest snapshot. None before the first snapshot, and while only the [`Brief`] of the newest snapshot is known.
    pub(super) snapshot: Option<Box<Snapshot>>,
    /// CPU use of the host, in percent.
    pub(super) cpu: History,
    /// CPU use of each core, in percent.
    pub(super) cores: Vec<History>,
    /// Memory in use, in percent.
    pub(super) memory: History,
    /// Bytes per second that the network received.
    pub(super) received: History,
    /// Bytes per second that the network sent.
    pub(super) sent: History,
    /// Bytes per second read from disks.
    pub(super) read: History,
    /// Bytes per second written to disks.
    pub(super) written: History,
    /// The figures of each container over time, by the container's id.
    pub(super) containers: HashMap<String, Trace>,
    /// The newest events, in the order of their arrival.
    pub(super) events: VecDeque<ContainerEvent>,
    /// The log of the container that the user has opened. None if no container is open.
    pub(super) log: Option<Log>,
}

/// The short form of the newest snapshot, and the time of its arrival.
pub(super) struct Latest {
    pub(super) brief: Brief,
    /// The time at which the snapshot arrived.
    pub(super) at: Instant,
    /// The time from the arrival of the previous snapshot to `at`. Zero for the first snapshot of a connection or after a
    /// silence.
    interval: Duration,
}

/// The state of the connection to a host, or to the NATS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Live,
    /// A host of a fleet has stopped sending snapshots. The view does not know the reason, and waits for the next snapshot.
    Silent,
    /// The connection failed.
    Down {
        /// The reason.
        why: String,
        /// The time of the next attempt to connect. None if only the user can start the next attempt.
        again: Option<Instant>,
    },
}

/// A container's figures over time.
#[derive(Default)]
pub(super) struct Trace {
    /// CPU use, in percent of one core.
    pub(super) cpu: History,
    /// Memory in use, in bytes.
    pub(super) memory: History,
    /// Bytes received per second.
    pub(super) received: History,
    /// Bytes sent per second.
    pub(super) sent: History,
}

/// The log of a container.
#[derive(Default)]
pub(super) struct Log {
    /// The container's name, without the slash.
    pub(super) container: String,
    pub(super) lines: VecDeque<String>,
    /// The number of the oldest stored line. Lines are numbered from 0, and a line never changes its number.
    pub(super) first: u64,
    /// The size of all stored lines, in bytes.
    text: usize,
    /// The number of lines that the agent reported as dropped.
    pub(super) dropped: u64,
    /// The newest line that has arrived. The first lines of a new connection can include this line and older lines.
    told: Option<String>,
    /// Whether the next lines that arrive are the first lines of a new connection.
    begins: bool,
}

impl Host {
    /// Creates a host of a fleet. `name` is the name in the subjects of the host's messages.
    pub(super) fn of_fleet(name: String) -> Self {
        Self {
            is_name_verified: true,
            ..Self::new(name)
        }
    }

    /// Creates a host with an address and no data.
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            is_name_verified: false,
            link: Link::Connecting,
            latest: None,
            snapshot: None,
            cpu: History::default(),
            cores: Vec::new(),
            memory: History::default(),
            received: History::default(),
            sent: History::default(),
            read: History::default(),
            written: History::default(),
            containers: HashMap::new(),
            events: VecDeque::new(),
            log: None,
        }
    }

    /// Stores a snapshot. `first` is true for the first snapshot of a connection.
    pub(super) fn take(&mut self, snapshot: Box<Snapshot>, first: bool, now: Instant) {
        self.take_brief(Brief::from(&*snapshot), first, now);
        self.take_details(snapshot, first);
    }

    /// Stores the parts of a snapshot that the table of hosts does not show. `first` is true for the first snapshot of a
    /// connection.
    pub(super) fn take_details(&mut self, snapshot: Box<Snapshot>, first: bool) {
        let system = &snapshot.system;
        self.cores
            .resize_with(system.cpu_cores.len(), History::default);
        for (history, percent) in self.cores.iter_mut().zip(&system.cpu_cores) {
            history.push(*percent);
        }
        let (received, sent) = traffic(system);
        self.received.push(received);
        self.sent.push(sent);
        let (read, written) = disk_traffic(system);
        self.read.push(read);
        self.written.push(written);

        self.containers.retain(|id, _| {
            snapshot
                .containers
                .iter()
                .any(|container| *container.id == **id)
        });
        for container in snapshot.containers.iter() {
            let trace = self.containers.entry(container.id.to_string()).or_default();
            trace.take(container);
        }
        for event in &snapshot.events {
            self.take_event(event.clone(), MAX_EVENTS);
        }
        if let Some(log) = &mut self.log {
            log.begins |= first;
            log.take(&snapshot);
        }
        self.snapshot = Some(snapshot);
    }

    /// Stores the parts of a snapshot that the table of hosts shows. `first` is true for the first snapshot of a connection or
    /// after a silence.
    pub(super) fn take_brief(&mut self, brief: Brief, first: bool, now: Instant) {
        self.link = Link::Live;
        self.cpu.push(brief.cpu);
        self.memory.push(brief.memory);
        let interval = match &self.latest {
            Some(before) if !first => now - before.at,
            _ => Duration::ZERO,
        };
        self.latest = Some(Latest {
            brief,
            at: now,
            interval,
        });
    }

    /// Stores an event, unless the same event is already stored. If there are more than `most` events, removes the oldest events.
    pub(super) fn take_event(&mut self, event: ContainerEvent, most: usize) {
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
        while self.events.len() > most {
            self.events.pop_front();
        }
    }

    /// Stores new lines of a container's log, if this container is open.
    pub(super) fn take_lines(&mut self, container: &str, lines: &[String], dropped: u64) {
        if let Some(log) = self.log.as_mut().filter(|log| log.container == container) {
            log.dropped = log.dropped.saturating_add(dropped);
            log.add(lines);
        }
    }

    /// Removes the data that the table of hosts does not show. Does not remove the events.
    pub(super) fn forget_details(&mut self) {
        let fresh = Self::new(std::mem::take(&mut self.address));
        let all = std::mem::replace(self, fresh);
        self.is_name_verified = all.is_name_verified;
        self.link = all.link;
        self.latest = all.latest;
        self.cpu = all.cpu;
        self.memory = all.memory;
        self.events = all.events;
    }

    /// The host's name. For a host of a fleet, it is the name in the subjects of the host's messages. For any other host, it is
    /// the name in the newest snapshot. Without such a name, it is the address.
    pub(super) fn name(&self) -> &str {
        if self.is_name_verified {
            return &self.address;
        }
        self.latest
            .as_ref()
            .map(|latest| latest.brief.hostname.as_str())
            .filter(|name| !name.is_empty())
            .unwrap_or(&self.address)
    }

    /// The age of the host's figures: their age in the newest snapshot, plus the time since its arrival. The agent's clock
    /// measures the first time. The clock of the computer that runs the view measures the second time. None if there is no
    /// snapshot, or if the snapshot does not tell when the figures were read.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let Latest { brief, at, .. } = self.latest.as_ref()?;
        let waited = brief.timestamp.0.duration_since(brief.collected_at?.0);
        Some(waited.unwrap_or_default() + (now - *at))
    }

    /// Returns the container with this id. If no container has this id, returns the container with this name.
    pub(super) fn container(&self, id: &str, name: &str) -> Option<&Container> {
        let containers = &self.snapshot.as_ref()?.containers;
        let called = |container: &&Container| container.name.trim_start_matches('/') == name;
        let by_id = containers.iter().find(|container| &*container.id == id);
        by_id.or_else(|| containers.iter().find(called))
    }

    /// Returns the stopped container with this id. If none has this id, returns the stopped container with this name.
    pub(super) fn stopped(&self, id: &str, name: &str) -> Option<&StoppedContainer> {
        let stopped = self.snapshot.as_ref()?.stopped.iter();
        let by_id = stopped.clone().find(|one| one.id == id);
        by_id
            .or_else(|| stopped.clone().find(|one| one.bare_name() == name))
            .map(|one| &**one)
    }

    /// The problems of this host and of the connection to the host, the worst first.
    pub(super) fn problems(&self, now: Instant) -> Vec<(Level, String)> {
        let mut problems = Vec::new();
        if let Link::Down { why, .. } = &self.link {
            problems.push((Level::Bad, text::plain(why)));
        }
        let Some(latest) = &self.latest else {
            return problems;
        };
        let late = now - latest.at;
        if self.link == Link::Silent {
            let last = text::time_of_day(latest.brief.timestamp.0);
            let late = text::age(late);
            let silent = format!("away: no snapshot for {late}, the last one at {last}");
            problems.push((Level::Bad, silent));
        } else if late > latest.interval * 2 + LATE && self.link == Link::Live {
            let late = text::age(late);
            problems.push((Level::Bad, format!("no snapshot for {late}")));
        }
        problems.extend(latest.brief.problems.iter().cloned());
        problems.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        problems
    }

    /// Whether no snapshots arrive from this host.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.link, Link::Down { .. } | Link::Silent)
    }

    /// Removes the stored log. If `container` is the name of a container, starts an empty log for it.
    pub(super) fn follow_log(&mut self, container: Option<&str>) {
        self.log = container.map(|container| Log {
            container: container.to_owned(),
            ..Log::default()
        });
    }
}

impl Trace {
    fn take(&mut self, container: &Container) {
        self.cpu.push(container.cpu_percent);
        self.memory
            .push(container.memory_usage.unwrap_or_default() as f64);
        let (received, sent) = container_traffic(container);
        self.received.push(received);
        self.sent.push(sent);
    }
}

impl Log {
    fn take(&mut self, snapshot: &Snapshot) {
        if let Some(dropped) = &snapshot.logs_dropped {
            let dropped = dropped.get(&self.container).copied();
            self.dropped = self.dropped.saturating_add(dropped.unwrap_or_default());
        }
        let Some(told) = snapshot.logs.get(&self.container) else {
            return;
        };
        let lines: Vec<String> = serde_json::from_str(told.json()).unwrap_or_default();
        // The first lines of a new connection can include lines that have already arrived. These lines are skipped.
        let known = match (std::mem::take(&mut self.begins), &self.told) {
            (true, Some(last)) => lines
                .iter()
                .rposition(|line| line == last)
                .map_or(0, |at| at + 1),
            _ => 0,
        };
        self.add(&lines[known..]);
    }

    /// Adds new lines, and removes the oldest lines above the limits.
    fn add(&mut self, lines: &[String]) {
        if let Some(last) = lines.last() {
            self.told = Some(last.clone());
        }
        let before = self.lines.len();
        self.lines
            .extend(lines.iter().map(|line| text::plain(line)));
        self.text += self.lines.range(before..).map(String::len).sum::<usize>();
        while self.lines.len() > MAX_LINES || self.text > MAX_TEXT {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.text -= oldest.len();
            self.first += 1;
        }
    }
}

/// Memory in use, in percent.
pub(super) fn memory_percent(system: &SystemMetrics) -> f64 {
    share(system.memory_used, system.memory_total)
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn a_host_of_a_fleet_keeps_its_verified_name_after_its_details_were_forgotten() {
        let mut host = Host::of_fleet("web-1".to_owned());
        host.forget_details();
        assert!(host.is_name_verified);
        assert_eq!(host.name(), "web-1");
    }
}
