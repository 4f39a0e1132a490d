//! The state of all hosts: what their feeds told, and how the page sees it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::figures::{bytes, fullest_disk, has_system};
use super::problems::{self, Memory, Problem};
use super::source::Source;
use super::{History, millis, now};
use crate::feeds::brief::cut;
use crate::feeds::feed::{HostUpdate, Server, Update};
use crate::feeds::text;
use crate::model::{self, Snapshot, traffic};

/// Maximum number of hosts. Further hosts of a fleet are left out.
pub(super) const MAX_HOSTS: usize = 1000;
/// Maximum length of the name of a host, in characters.
const LONGEST_NAME: usize = 255;
/// Maximum length of the reason why a host is away, in characters.
const LONGEST_ERROR: usize = 500;
/// The number of values in a sparkline.
const SPARK: usize = 60;
/// A host is away if no snapshot has arrived for this number of its intervals plus [`LATE_MS`].
const LATE_INTERVALS: i64 = 3;
/// See [`LATE_INTERVALS`], in milliseconds.
const LATE_MS: i64 = 10_000;
/// The table of hosts is encoded once in this time, in milliseconds. It has the current time.
const LIST_KEPT_MS: i64 = 1000;
/// Maximum number of messages with figures of the past that wait for the first snapshot of their connection.
const MAX_PAST: usize = 256;
/// The clock of a host is wrong if its snapshot is older or newer than this plus one interval, in milliseconds.
const CLOCK_MS: i64 = 10_000;
/// A larger change of the difference between the clocks is a step of a clock, in milliseconds.
const CLOCK_STEP_MS: i64 = 600_000;
/// The interval at which hosts without new snapshots are looked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// All hosts.
pub(super) struct Hosts {
    state: Mutex<State>,
    /// Grows with each change.
    changed: watch::Sender<u64>,
    pub(super) history: Arc<History>,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<String, Host>,
    /// The id of each host, by its number in its feed.
    ids: HashMap<usize, String>,
    version: u64,
    /// The answer of `/hosts`, with its version and its time.
    list: Option<(u64, i64, Bytes)>,
    /// How many hosts of a fleet were left out.
    beyond: u64,
}

/// One host.
struct Host {
    id: String,
    /// The name that the user has given, or the name in the subjects of a fleet.
    address: String,
    is_name_verified: bool,
    source: Source,
    state: HostState,
    away_since: Option<i64>,
    error: Option<String>,
    newest_at: Option<i64>,
    interval_ms: Option<i64>,
    /// The time and the number of the newest snapshot.
    last: Option<(i64, u64)>,
    /// By how many milliseconds this clock is ahead of the host's clock. None before the first snapshot of a connection.
    clock_shift: Option<i64>,
    /// Figures of the past that the agent has sent before its first snapshot.
    past: Vec<model::History>,
    snapshot: Option<Box<Snapshot>>,
    spark: VecDeque<Option<f64>>,
    memory: Memory,
    problems: Vec<Problem>,
    version: u64,
    /// The answer of `/hosts/{host}`, with its version.
    answer: Option<(u64, Bytes)>,
}

/// Whether snapshots of a host arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum HostState {
    Live,
    Away,
    Waiting,
}

/// A row of the table of hosts.
#[derive(Serialize)]
struct HostRow<'h> {
    id: &'h str,
    name: String,
    state: HostState,
    away_since: Option<i64>,
    error: Option<&'h str>,
    newest_at: Option<i64>,
    interval_ms: Option<i64>,
    cpu: Option<f64>,
    memory_used: Option<f64>,
    memory_total: Option<f64>,
    disk_used_percent: Option<f64>,
    disk_mount: Option<String>,
    net_in: Option<f64>,
    net_out: Option<f64>,
    load1: Option<f64>,
    containers_up: Option<usize>,
    containers_down: Option<usize>,
    uptime_ms: Option<u64>,
    cores: Option<u32>,
    spark: &'h VecDeque<Option<f64>>,
}

#[derive(Serialize)]
struct List<'h> {
    now_at: i64,
    hosts: Vec<HostRow<'h>>,
    problems: Vec<Problem>,
    /// Why the history is not stored.
    history_error: Option<String>,
}

#[derive(Serialize)]
struct One<'h> {
    row: HostRow<'h>,
    problems: Vec<Problem>,
    snapshot: Option<&'h Snapshot>,
}

impl Hosts {
    pub(super) fn new(history: Arc<History>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::default(),
            history,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a host with this number. `address` is the name that the user has given.
    pub(super) fn add(&self, number: usize, address: &str, is_name_verified: bool, source: Source) {
        let mut state = self.lock();
        state.add(number, address, is_name_verified, source);
        self.publish(state);
    }

    fn publish(&self, state: MutexGuard<'_, State>) {
        let version = state.version;
        drop(state);
        self.changed.send_replace(version);
    }

    /// Returns a receiver that is told of each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns the answer of `/hosts` as JSON, with its version.
    pub(super) fn list(&self) -> (u64, Bytes) {
        let mut state = self.lock();
        let version = state.version;
        let at = now();
        if let Some((made, time, list)) = &state.list
            && *made == version
            && (0..LIST_KEPT_MS).contains(&(at - time))
        {
            return (version, list.clone());
        }
        let mut problems: Vec<_> = state.hosts.values().flat_map(Host::all_problems).collect();
        problems::sort(&mut problems);
        let list = Bytes::from(json(&List {
            now_at: at,
            hosts: state.hosts.values().map(Host::row).collect(),
            problems,
            history_error: self.history.trouble(),
        }));
        state.list = Some((version, at, list.clone()));
        (version, list)
    }

    /// Returns the answer of `/hosts/{host}` as JSON, with its version. None if there is no such host.
    pub(super) fn one(&self, id: &str) -> Option<(u64, Bytes)> {
        let mut state = self.lock();
        let host = state.hosts.get_mut(id)?;
        let version = host.version;
        if let Some((made, answer)) = &host.answer
            && *made == version
        {
            return Some((version, answer.clone()));
        }
        let mut problems = host.all_problems();
        problems::sort(&mut problems);
        let answer = Bytes::from(json(&One {
            row: host.row(),
            problems,
            snapshot: host.snapshot.as_deref(),
        }));
        host.answer = Some((version, answer.clone()));
        Some((version, answer))
    }

    /// Returns the version of a host. It grows with each change of the host. None if there is no such host.
    pub(super) fn version(&self, id: &str) -> Option<u64> {
        Some(self.lock().hosts.get(id)?.version)
    }

    /// Returns where the logs of a host come from. None if there is no such host.
    pub(super) fn source(&self, id: &str) -> Option<Source> {
        Some(self.lock().hosts.get(id)?.source.clone())
    }

    /// Returns the names of the running containers of a host. None if there is no such host.
    pub(super) fn containers(&self, id: &str) -> Option<Vec<String>> {
        let state = self.lock();
        let snapshot = state.hosts.get(id)?.snapshot.as_ref();
        let containers = snapshot.into_iter().flat_map(|one| one.containers.iter());
        let name = |name: &str| super::figures::bare(name).to_owned();
        Some(containers.map(|one| name(&one.name)).collect())
    }

    /// Handles the updates of the feeds until they end. `of_fleet` makes the source of a new host of a fleet.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut updates: mpsc::Receiver<Update>,
        of_fleet: impl Fn(&str) -> Option<Source>,
    ) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                _ = ticks.tick() => {
                    let mut state = self.lock();
                    if state.find_late(now()) {
                        self.publish(state);
                    }
                    continue;
                }
            };
            match update {
                Some(Update::Host { host, told }) => self.take(host, told, &of_fleet),
                Some(Update::Server(server)) => self.take_server(server),
                None => return,
            }
        }
    }

    fn take(&self, number: usize, told: HostUpdate, of_fleet: &impl Fn(&str) -> Option<Source>) {
        let mut state = self.lock();
        let at = now();
        if let HostUpdate::Appeared { name } = told {
            if let Some(source) = of_fleet(&name) {
                state.add(number, &name, true, source);
                self.publish(state);
            }
            return;
        }
        let Some(id) = state.ids.get(&number).cloned() else {
            return;
        };
        state.version += 1;
        let version = state.version;
        let Some(host) = state.hosts.get_mut(&id) else {
            return;
        };
        host.version = version;
        match told {
            HostUpdate::Snapshot { snapshot, .. } | HostUpdate::Opened { snapshot } => {
                let past = std::mem::take(&mut host.past);
                let shift = host.clock_shift(&past, &snapshot, at);
                let measured_at = millis(snapshot.timestamp.0).saturating_add(shift);
                if !past.is_empty() {
                    let (history, id) = (Arc::clone(&self.history), id.clone());
                    // An hour of 100 containers takes a moment.
                    spawn_blocking(move || history.fill(&id, &past, shift, at));
                }
                self.history.record(&id, &snapshot, measured_at);
                host.take(snapshot, at);
            }
            HostUpdate::Past(past) => {
                if host.past.len() < MAX_PAST {
                    host.past.push(*past);
                }
            }
            HostUpdate::Down { why, .. } => {
                host.past.clear();
                host.clock_shift = None;
                host.away(Some(why), at);
            }
            HostUpdate::Silent => {
                host.away(Some("no snapshot arrives".to_owned()), at);
            }
            HostUpdate::Vanished => {
                state.hosts.remove(&id);
                state.ids.remove(&number);
            }
            // Events of a fleet are in its snapshots too.
            HostUpdate::Brief(_)
            | HostUpdate::Event(_)
            | HostUpdate::Lines { .. }
            | HostUpdate::Appeared { .. } => {}
        }
        self.publish(state);
    }

    fn take_server(&self, server: Server) {
        match server {
            Server::Connected => info!("connected to the NATS server"),
            Server::Down { why, .. } => {
                warn!(error = why, "the connection to the NATS server failed");
                let mut state = self.lock();
                state.version += 1;
                let version = state.version;
                for host in state.hosts.values_mut() {
                    host.version = version;
                    host.away(Some(why.clone()), now());
                }
                self.publish(state);
            }
            Server::Trouble(trouble) => {
                warn!(
                    bad = trouble.bad,
                    missed = trouble.missed,
                    error = trouble.last,
                    "messages of NATS were left out"
                );
            }
        }
    }
}

impl State {
    fn add(&mut self, number: usize, address: &str, is_name_verified: bool, source: Source) {
        if self.hosts.len() >= MAX_HOSTS {
            self.beyond += 1;
            if self.beyond == 1 {
                warn!(
                    limit = MAX_HOSTS,
                    "there are too many hosts: some are left out"
                );
            }
            return;
        }
        self.version += 1;
        let id = self.free_id(address);
        self.ids.insert(number, id.clone());
        let host = Host {
            id: id.clone(),
            address: cut(text::plain(address), LONGEST_NAME),
            is_name_verified,
            source,
            state: HostState::Waiting,
            away_since: None,
            error: None,
            newest_at: None,
            interval_ms: None,
            last: None,
            clock_shift: None,
            past: Vec::new(),
            snapshot: None,
            spark: VecDeque::new(),
            memory: Memory::default(),
            problems: Vec::new(),
            version: self.version,
            answer: None,
        };
        self.hosts.insert(id, host);
    }

    /// Makes an id that fits in a URL and that no other host has.
    fn free_id(&self, address: &str) -> String {
        let is_plain =
            |one: &char| one.is_ascii_alphanumeric() || matches!(one, '.' | ':' | '_' | '-');
        let plain: String = address
            .chars()
            .filter(is_plain)
            .take(LONGEST_NAME)
            .collect();
        let plain = if plain.trim_matches('.').is_empty() {
            "host".to_owned()
        } else {
            plain
        };
        let mut id = plain.clone();
        for count in 2.. {
            if !self.hosts.contains_key(&id) {
                break;
            }
            id = format!("{plain}-{count}");
        }
        id
    }

    /// Marks hosts as away whose snapshots are late. Returns whether there are any.
    fn find_late(&mut self, at: i64) -> bool {
        let mut found = false;
        for host in self.hosts.values_mut() {
            if host.state == HostState::Live && host.is_late(at) {
                host.away(Some("no snapshot arrives".to_owned()), at);
                self.version += 1;
                host.version = self.version;
                found = true;
            }
        }
        found
    }
}

impl Host {
    /// Stores a snapshot that arrived at the time `at`.
    fn take(&mut self, mut snapshot: Box<Snapshot>, at: i64) {
        let this = (millis(snapshot.timestamp.0), snapshot.agent.seq);
        if let Some((before, seq)) = self.last.replace(this)
            && let Ok(count) = i64::try_from(this.1.saturating_sub(seq))
            && count > 0
            && this.0 > before
        {
            self.interval_ms = Some((this.0 - before) / count);
        }
        if self.state != HostState::Live {
            if self.away_since.is_some() {
                info!(host = self.id, "host is back");
            }
            (self.state, self.away_since, self.error) = (HostState::Live, None, None);
        }
        self.newest_at = Some(at);
        if has_system(&snapshot) {
            self.push_spark(Some(snapshot.system.cpu_percent[0]));
        }
        self.problems = self.memory.problems(&self.id, &snapshot, at);
        snapshot.logs = Arc::default();
        snapshot.events = Vec::new();
        snapshot.agent.cursor = None;
        self.snapshot = Some(snapshot);
    }

    fn away(&mut self, why: Option<String>, at: i64) {
        if self.state != HostState::Away {
            self.state = HostState::Away;
            self.away_since = Some(self.newest_at.unwrap_or(at));
            if self.newest_at.is_some() {
                self.push_spark(None);
            }
            info!(host = self.id, error = why, "host is away");
        }
        self.error = why.map(|why| cut(text::plain(&why), LONGEST_ERROR));
    }

    /// Returns by how many milliseconds this clock is ahead of the host's clock. A difference that can be the age of the snapshot is 0.
    fn clock_shift(&mut self, past: &[model::History], snapshot: &Snapshot, at: i64) -> i64 {
        let behind = at - millis(snapshot.timestamp.0);
        // Snapshots that the network has held back arrive late. They do not change the difference.
        let known = self
            .clock_shift
            .filter(|shift| (behind - shift).abs() <= CLOCK_STEP_MS);
        let shift = known.unwrap_or_else(|| {
            let interval = past.iter().map(|past| past.interval_ms).max();
            let interval = i64::try_from(interval.unwrap_or_default()).unwrap_or_default();
            let longest = interval.max(self.interval_ms.unwrap_or_default()) + CLOCK_MS;
            if behind.abs() > longest { behind } else { 0 }
        });
        self.clock_shift = Some(shift);
        shift
    }

    fn push_spark(&mut self, value: Option<f64>) {
        if self.spark.len() == SPARK {
            self.spark.pop_front();
        }
        self.spark.push_back(value);
    }

    fn is_late(&self, at: i64) -> bool {
        let interval = self.interval_ms.unwrap_or_default();
        let newest = self.newest_at.unwrap_or(at);
        // Without a known interval, the agent can have an interval of an hour.
        self.interval_ms.is_some() && at - newest > interval * LATE_INTERVALS + LATE_MS
    }

    fn name(&self) -> String {
        let told = self.snapshot.as_ref().map(|one| one.host.hostname.as_str());
        match told.filter(|name| !name.is_empty() && !self.is_name_verified) {
            Some(name) => cut(text::plain(name), LONGEST_NAME),
            None => self.address.clone(),
        }
    }

    fn all_problems(&self) -> Vec<Problem> {
        if self.state != HostState::Away {
            return self.problems.clone();
        }
        // The other problems are as old as the last snapshot.
        let why = self.error.as_deref().unwrap_or("no snapshot arrives");
        let away = Problem {
            id: format!("{}/away", self.id),
            host: self.id.clone(),
            container: None,
            severity: "critical",
            text: cut(format!("{} is away: {why}", self.name()), LONGEST_ERROR),
            since_at: self.away_since.unwrap_or_default(),
        };
        std::iter::once(away)
            .chain(self.problems.iter().cloned())
            .collect()
    }

    fn row(&self) -> HostRow<'_> {
        let snapshot = self.snapshot.as_deref();
        let system = snapshot
            .filter(|one| has_system(one))
            .map(|one| &*one.system);
        let has_docker = snapshot.is_some_and(|one| one.sources.docker.collected_at.is_some());
        let containers = snapshot.filter(|_| has_docker);
        let disk = system.and_then(fullest_disk);
        let traffic = system.and_then(traffic);
        HostRow {
            id: &self.id,
            name: self.name(),
            state: self.state,
            away_since: self.away_since,
            error: self.error.as_deref(),
            newest_at: self.newest_at,
            interval_ms: self.interval_ms,
            cpu: system.map(|system| system.cpu_percent[0]),
            memory_used: system.map(|system| bytes(system.memory_used)),
            memory_total: system.map(|system| bytes(system.memory_total)),
            disk_used_percent: disk.map(|(_, percent)| (percent * 10.0).round() / 10.0),
            disk_mount: disk.map(|(mount, _)| text::plain(mount)),
            net_in: traffic.map(|(received, _)| received),
            net_out: traffic.map(|(_, sent)| sent),
            load1: system.map(|system| system.load_avg.one),
            containers_up: containers.map(|one| one.containers.len()),
            containers_down: containers
                .map(|one| one.stopped.iter().filter(|one| one.is_down()).count()),
            uptime_ms: system.map(|system| system.uptime.saturating_mul(1000)),
            cores: snapshot.map(|one| one.host.cpus),
            spark: &self.spark,
        }
    }
}

/// Encodes a value. The types of this module never fail to encode.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
