//! What is known of one host: its newest snapshot, and what snapshots have said over time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::brief::Brief;
use super::history::History;
use super::share::share;
use super::text::{self, Level};
use crate::model::{Container, ContainerEvent, InterfaceKind, Snapshot, SystemMetrics};

/// The most lines of a log that are kept, and the most of their text, in bytes; the most events.
const MOST_LINES: usize = 5000;
const MOST_TEXT: usize = 8 * 1024 * 1024;
const MOST_EVENTS: usize = 256;
/// How long figures may be late before that is a problem, beside an interval as long as the last.
const LATE: Duration = Duration::from_secs(10);

/// One host.
pub(super) struct Host {
    /// Where it is, as it was asked for.
    pub(super) address: String,
    /// Whether that is the name that a server lets its agent publish by.
    is_vouched_for: bool,
    pub(super) link: Link,
    pub(super) heard: Option<Heard>,
    /// The newest snapshot, where all of it is told of.
    pub(super) snapshot: Option<Box<Snapshot>>,
    pub(super) cpu: History,
    /// Each core's.
    pub(super) cores: Vec<History>,
    /// In percent.
    pub(super) memory: History,
    /// Bytes per second: of the network, received and sent; of disks, read and written.
    pub(super) received: History,
    pub(super) sent: History,
    pub(super) read: History,
    pub(super) written: History,
    /// By the container's id.
    pub(super) containers: HashMap<String, Trace>,
    pub(super) events: VecDeque<ContainerEvent>,
    /// Of the container that is looked at.
    pub(super) log: Option<Log>,
}

/// What the newest snapshot said in short.
pub(super) struct Heard {
    pub(super) brief: Brief,
    pub(super) at: Instant,
    /// The time since the one before.
    interval: Duration,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Live,
    /// Its snapshots have stopped: nobody knows why, and it comes back by itself if at all.
    Silent,
    /// Why, and when it is tried again; never by itself where that would be in vain.
    Down {
        why: String,
        again: Option<Instant>,
    },
}

/// A container's figures over time.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) cpu: History,
    /// In bytes.
    pub(super) memory: History,
    pub(super) received: History,
    pub(super) sent: History,
}

/// The log of a container.
#[derive(Default)]
pub(super) struct Log {
    /// Its name, without the slash.
    pub(super) container: String,
    pub(super) lines: VecDeque<String>,
    /// How many lines have left at the front: a line keeps its number.
    pub(super) first: u64,
    /// How much text they are, in bytes.
    text: usize,
    /// How many the agent could not tell.
    pub(super) dropped: u64,
    /// The newest line that was told: who connects again is told the last ones once more.
    told: Option<String>,
    /// Nothing has been told on this connection.
    begins: bool,
}

impl Host {
    /// One of a fleet, by the name that is in its subjects.
    pub(super) fn of_fleet(name: String) -> Self {
        Self {
            is_vouched_for: true,
            ..Self::new(name)
        }
    }

    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            is_vouched_for: false,
            link: Link::Connecting,
            heard: None,
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

    /// Takes in a snapshot; `first` of a connection.
    pub(super) fn take(&mut self, snapshot: Box<Snapshot>, first: bool, now: Instant) {
        self.take_brief(Brief::from(&*snapshot), first, now);
        self.take_details(snapshot, first);
    }

    /// Takes in all that the fleet's table does not show; `first` of a connection.
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
                .any(|container| container.id == *id)
        });
        for container in snapshot.containers.iter() {
            let trace = self.containers.entry(container.id.clone()).or_default();
            trace.take(container);
        }
        for event in &snapshot.events {
            self.take_event(event.clone(), MOST_EVENTS);
        }
        if let Some(log) = &mut self.log {
            log.begins |= first;
            log.take(&snapshot);
        }
        self.snapshot = Some(snapshot);
    }

    /// Takes in what a snapshot said in short; `first` of a connection.
    pub(super) fn take_brief(&mut self, brief: Brief, first: bool, now: Instant) {
        self.link = Link::Live;
        self.cpu.push(brief.cpu);
        self.memory.push(brief.memory);
        let interval = match &self.heard {
            Some(before) if !first => now - before.at,
            _ => Duration::ZERO,
        };
        self.heard = Some(Heard {
            brief,
            at: now,
            interval,
        });
    }

    /// Takes in an event, once; the newest `most` are kept.
    pub(super) fn take_event(&mut self, event: ContainerEvent, most: usize) {
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
        while self.events.len() > most {
            self.events.pop_front();
        }
    }

    /// Takes in new lines of a container's log, if it is the one that is looked at.
    pub(super) fn take_lines(&mut self, container: &str, lines: &[String], dropped: u64) {
        if let Some(log) = self.log.as_mut().filter(|log| log.container == container) {
            log.dropped = log.dropped.saturating_add(dropped);
            log.add(lines);
        }
    }

    /// Forgets what only its own views show.
    pub(super) fn forget_details(&mut self) {
        let fresh = Self::new(std::mem::take(&mut self.address));
        let all = std::mem::replace(self, fresh);
        self.link = all.link;
        self.heard = all.heard;
        self.cpu = all.cpu;
        self.memory = all.memory;
        self.events = all.events;
    }

    /// What it is called: in a fleet as the server lets its agent publish, which nobody else can say; else by its own name,
    /// where that is known.
    pub(super) fn name(&self) -> &str {
        if self.is_vouched_for {
            return &self.address;
        }
        self.heard
            .as_ref()
            .map(|heard| heard.brief.hostname.as_str())
            .filter(|name| !name.is_empty())
            .unwrap_or(&self.address)
    }

    /// How old the host's figures are: by the agent's clock until the snapshot left, by this one's since.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let Heard { brief, at, .. } = self.heard.as_ref()?;
        let waited = brief.timestamp.0.duration_since(brief.collected_at?.0);
        Some(waited.unwrap_or_default() + (now - *at))
    }

    /// The container of this id, or else of this name.
    pub(super) fn container(&self, id: &str, name: &str) -> Option<&Container> {
        let containers = &self.snapshot.as_ref()?.containers;
        let called = |container: &&Container| container.name.trim_start_matches('/') == name;
        let by_id = containers.iter().find(|container| container.id == id);
        by_id.or_else(|| containers.iter().find(called))
    }

    /// Everything that is not as it should be, the worst first.
    pub(super) fn problems(&self, now: Instant) -> Vec<(Level, String)> {
        let mut problems = Vec::new();
        if let Link::Down { why, .. } = &self.link {
            problems.push((Level::Bad, text::plain(why)));
        }
        let Some(heard) = &self.heard else {
            return problems;
        };
        let late = now - heard.at;
        if self.link == Link::Silent {
            let last = text::time_of_day(heard.brief.timestamp.0);
            let late = text::age(late);
            let silent = format!("away: no snapshot for {late}, the last is of {last}");
            problems.push((Level::Bad, silent));
        } else if late > heard.interval * 2 + LATE && self.link == Link::Live {
            let late = text::age(late);
            problems.push((Level::Bad, format!("no snapshot for {late}")));
        }
        problems.extend(heard.brief.problems.iter().cloned());
        problems.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        problems
    }

    /// Whether it is not to be heard of.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.link, Link::Down { .. } | Link::Silent)
    }

    /// Keeps this container's log from now on, and no other's.
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
        // A new connection begins with the last lines, some of which are here already.
        let known = match (std::mem::take(&mut self.begins), &self.told) {
            (true, Some(last)) => lines
                .iter()
                .rposition(|line| line == last)
                .map_or(0, |at| at + 1),
            _ => 0,
        };
        self.add(&lines[known..]);
    }

    /// New lines.
    fn add(&mut self, lines: &[String]) {
        if let Some(last) = lines.last() {
            self.told = Some(last.clone());
        }
        let before = self.lines.len();
        self.lines
            .extend(lines.iter().map(|line| text::plain(line)));
        self.text += self.lines.range(before..).map(String::len).sum::<usize>();
        while self.lines.len() > MOST_LINES || self.text > MOST_TEXT {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.text -= oldest.len();
            self.first += 1;
        }
    }
}

pub(super) fn memory_percent(system: &SystemMetrics) -> f64 {
    share(system.memory_used, system.memory_total)
}

/// Bytes received and sent per second, by the interfaces that lead out of the host; by all but the host's way to itself and
/// containers' where there is no device, as in a container.
pub(super) fn traffic(system: &SystemMetrics) -> (f64, f64) {
    let sum = |wanted: fn(&InterfaceKind) -> bool| {
        let interfaces = system.network.iter().filter(|interface| {
            wanted(interface.kind.as_ref().unwrap_or(&InterfaceKind::Physical))
        });
        interfaces.fold((0, 0.0, 0.0), |(count, received, sent), interface| {
            (
                count + 1,
                received + interface.bytes_recv_per_second.unwrap_or_default(),
                sent + interface.bytes_sent_per_second.unwrap_or_default(),
            )
        })
    };
    let (count, received, sent) = sum(|kind| *kind == InterfaceKind::Physical);
    if count > 0 {
        return (received, sent);
    }
    let (_, received, sent) =
        sum(|kind| matches!(kind, InterfaceKind::Virtual | InterfaceKind::Veth));
    (received, sent)
}

/// Bytes read and written per second by all disks; not by what is made of disks, which would count twice.
pub(super) fn disk_traffic(system: &SystemMetrics) -> (f64, f64) {
    let made_of_others = |name: &str| name.starts_with("dm-") || name.starts_with("md");
    system
        .disk_io
        .iter()
        .filter(|disk| !made_of_others(&disk.device))
        .fold((0.0, 0.0), |(read, written), disk| {
            (
                read + disk.read_bytes_per_second,
                written + disk.write_bytes_per_second,
            )
        })
}

/// Bytes received and sent per second by all interfaces of a container.
pub(super) fn container_traffic(container: &Container) -> (f64, f64) {
    container
        .network
        .values()
        .fold((0.0, 0.0), |(received, sent), interface| {
            (
                received + interface.rx_bytes_per_second.unwrap_or_default(),
                sent + interface.tx_bytes_per_second.unwrap_or_default(),
            )
        })
}
