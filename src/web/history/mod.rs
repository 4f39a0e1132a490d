//! The history: figures and events of all hosts, on disk.
//!
//! A sample goes to a [`memory::Window`] of ten minutes in memory and, within a second, to the journal in the [`store`]. When the window
//! has ended, a thread moves its samples to the blocks of the store: as they are, and as averages of 1 minute, 10 minutes and 1 hour. A
//! query reads the blocks and the windows in memory. While the store cannot be written, for example on a full disk, the windows of the last
//! hour stay in memory.

mod answer;
mod block;
mod database;
mod event;
#[cfg(test)]
mod fault_tests;
mod memory;
mod reader;
mod samples;
mod store;
#[cfg(test)]
mod tests;
mod tier;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::figures::bare;
use super::{millis, now};
use crate::model::{
    self, CONTAINER_SERIES, DISK_USED, DOCKER_SERIES, HOST_SERIES, Snapshot, SourceHealth,
    Timestamp, container_figures, disk_figures, host_figures,
};
pub use answer::Answer;
use answer::{Steps, usual_interval};
use event::Event;
pub(super) use event::EventsAnswer;
use memory::{MIN_GAP_MS, Memory};
use reader::Reader;
use samples::{CONTAINER, Samples};
use store::Store;
use tier::Tier;

/// The time of a window, in milliseconds. A multiple of a minute, and a divisor of an hour.
const WINDOW_MS: i64 = 600_000;
/// A window is closed this long after its end, in milliseconds.
const LATE_MS: i64 = 2000;
/// Maximum number of events of a host in memory, and of events in an answer.
const MAX_EVENTS: usize = 1000;
/// The time between two transactions of the store. With the time of a transaction it is less than a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(800);
/// The number of windows that are stored in one transaction.
const WINDOWS_AT_ONCE: usize = 16;
/// An agent keeps its figures for an hour at most. Older ones have a wrong time, in milliseconds.
const MAX_PAST_MS: i64 = 2 * 3_600_000;
/// How long a fill waits for the store at once, and how often.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSES: u32 = 100;
/// A difference of the clocks that is a step, in milliseconds.
const CLOCK_STEP_MS: i64 = 60_000;
/// Figures are deleted only after the clock has made no step for this time.
const STEADY_AFTER: Duration = Duration::from_secs(3600);
/// Figures of a source that are older than this number of its intervals plus [`CURRENT_MS`] are not recorded.
const CURRENT_INTERVALS: i64 = 2;
/// See [`CURRENT_INTERVALS`], in milliseconds.
const CURRENT_MS: i64 = 2000;

/// Where the history is stored, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// The folder of the store. None: the last hour stays in memory.
    pub folder: Option<PathBuf>,
    /// Maximum size of the store in bytes. The oldest figures go first.
    pub limit: u64,
    /// How long figures are kept.
    pub retention: Retention,
}

/// How long figures are kept, by the time between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The figures of each snapshot.
    pub full: Duration,
    /// One figure a minute.
    pub minute: Duration,
    /// One figure in 10 minutes.
    pub ten_minutes: Duration,
    /// One figure an hour.
    pub hour: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            full: HOUR,
            minute: HOUR * 24,
            ten_minutes: HOUR * 24 * 30,
            hour: HOUR * 24 * 366,
        }
    }
}

impl Retention {
    fn ms(self, tier: Tier) -> i64 {
        let kept = match tier {
            Tier::Full => self.full,
            Tier::Minute => self.minute,
            Tier::TenMinutes => self.ten_minutes,
            Tier::Hour => self.hour,
        };
        i64::try_from(kept.as_millis()).unwrap_or(i64::MAX / 4)
    }
}

/// The history of all hosts.
#[derive(Debug)]
pub struct History {
    memory: Mutex<Memory>,
    store: Option<(Mutex<Store>, Reader)>,
    /// Why the store cannot be written.
    trouble: Mutex<Option<String>>,
    /// Locked by the host that [`Self::fill`] works for.
    filling: Mutex<()>,
}

/// Compares the clock of the host with a clock that never steps. The clock of a host can be wrong until the host has the time of the
/// network, and figures must not be deleted by a wrong clock.
struct Clock {
    since: Instant,
    /// The time at `since`, in milliseconds since 1970.
    began_at: i64,
}

impl Clock {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            began_at: now(),
        }
    }

    /// Whether the clock has made no step for an hour. `at` is the current time.
    fn is_steady(&mut self, at: i64) -> bool {
        let passed = self.since.elapsed();
        let expected = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        if (at - self.began_at - expected).abs() > CLOCK_STEP_MS {
            *self = Self::new();
            return false;
        }
        passed >= STEADY_AFTER
    }
}

/// The thread that writes to the store. Ends on drop, after it has written what is left.
pub(super) struct Writer {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Opens the store.
    ///
    /// # Errors
    /// Fails if the folder cannot be used, or if another server uses it.
    pub fn open(settings: &HistorySettings) -> io::Result<Self> {
        let Some(folder) = &settings.folder else {
            return Ok(Self {
                memory: Mutex::default(),
                store: None,
                trouble: Mutex::default(),
                filling: Mutex::default(),
            });
        };
        let (store, journal) = Store::open(folder, settings.limit, settings.retention)?;
        let reader = store.reader();
        Ok(Self {
            memory: Mutex::new(Memory::replay(journal)),
            store: Some((Mutex::new(store), reader)),
            trouble: Mutex::default(),
            filling: Mutex::default(),
        })
    }

    /// Returns a history that is not stored, with the reason.
    pub(super) fn in_memory(why: String) -> Self {
        Self {
            memory: Mutex::default(),
            store: None,
            trouble: Mutex::new(Some(why)),
            filling: Mutex::default(),
        }
    }

    /// Starts the thread that writes to the store.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(super) fn start_writer(self: &Arc<Self>) -> io::Result<Writer> {
        let (stop, stopped) = sync_channel(1);
        let history = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                let mut clock = Clock::new();
                while stopped.recv_timeout(WRITE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let at = now();
                    history.write(at, clock.is_steady(at));
                }
                history.write(now(), false);
            })?;
        Ok(Writer {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns why the store cannot be written. None if it can.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Records the figures and events of a snapshot. `at` is its time, in milliseconds since 1970.
    pub fn record(&self, host: &str, snapshot: &Snapshot, at: i64) {
        let figures = series(snapshot);
        let mut memory = lock(&self.memory);
        for event in &snapshot.events {
            memory.add_event(host, Event::from(event));
        }
        let figures = figures
            .iter()
            .map(|(name, figure)| (name.as_str(), *figure as f32));
        memory.add(host, at, MIN_GAP_MS, figures);
        memory.limit_pending();
    }

    /// Records figures of the past that an agent has kept, where there are none. `shift` is the time by which the clock of this
    /// host is ahead of the agent's clock, in milliseconds. Blocks the thread while many samples wait for the store.
    pub(super) fn fill(&self, host: &str, past: &[model::History], shift: i64, now: i64) {
        let interval = past
            .iter()
            .map(|past| past.interval_ms)
            .max()
            .unwrap_or_default();
        let gap = i64::try_from(interval / 2)
            .unwrap_or_default()
            .max(MIN_GAP_MS);
        // A message can have the same times as the one before, with the figures of other containers.
        let mut samples: BTreeMap<i64, Vec<(&str, f32)>> = BTreeMap::new();
        let columns: Vec<_> = past.iter().map(columns).collect();
        for (past, columns) in past.iter().zip(&columns) {
            for (row, time) in past.times.iter().enumerate() {
                let time = i64::try_from(*time)
                    .unwrap_or(i64::MAX)
                    .saturating_add(shift);
                let figures = columns.iter().filter_map(|(name, column)| {
                    let figure = (*column.get(row)?)?;
                    Some((name.as_str(), figure))
                });
                samples.entry(time).or_default().extend(figures);
            }
        }
        // One host after another, so that not all of them wait for the store at the same time.
        let _one = lock(&self.filling);
        let mut pauses = 0;
        for (time, figures) in samples {
            // After a step of the agent's clock, times can be wrong by hours.
            if time > now || time < now - MAX_PAST_MS {
                continue;
            }
            while lock(&self.memory).is_busy() && pauses < MAX_PAUSES {
                thread::sleep(PAUSE);
                pauses += 1;
            }
            // Other hosts must not wait for all samples.
            lock(&self.memory).add(host, time, gap, figures.into_iter());
        }
        lock(&self.memory).limit_pending();
    }

    /// Writes what is new to the store, and stores the windows that have ended. Call this once a second. With `may_delete`, figures
    /// whose retention has passed are deleted.
    pub fn write(&self, now: i64, may_delete: bool) {
        let Some((store, _)) = &self.store else {
            let mut memory = lock(&self.memory);
            memory.close(now);
            memory.forget_old(now);
            return;
        };
        let deleted_at = may_delete.then_some(now);
        let written = self.write_to(&mut lock(store), now, deleted_at);
        let why = written.err().map(|error| error.to_string());
        if why.is_some() {
            let mut memory = lock(&self.memory);
            // After damage the new database does not have the names.
            memory.repeat_names();
            memory.close(now);
            memory.forget_old(now);
        }
        let mut trouble = lock(&self.trouble);
        match (&*trouble, &why) {
            (None, Some(error)) => warn!(error, "the history cannot be written"),
            (Some(_), None) => info!("the history is written again"),
            _ => {}
        }
        *trouble = why;
    }

    fn write_to(&self, store: &mut Store, now: i64, deleted_at: Option<i64>) -> io::Result<()> {
        self.append(store)?;
        let closed = {
            let mut memory = lock(&self.memory);
            memory.close(now);
            memory.closed.clone()
        };
        if closed.is_empty() || store.is_resting() {
            return Ok(());
        }
        for windows in closed.chunks(WINDOWS_AT_ONCE) {
            store.merge(windows)?;
            lock(&self.memory).stored(windows);
            self.append(store)?;
        }
        let lowest = lock(&self.memory).lowest_number();
        store.clean(lowest, deleted_at)
    }

    /// Writes new entries and events. What cannot be written waits.
    fn append(&self, store: &mut Store) -> io::Result<()> {
        let (pending, events) = {
            let mut memory = lock(&self.memory);
            (
                std::mem::take(&mut memory.pending),
                std::mem::take(&mut memory.events),
            )
        };
        if pending.entries.is_empty() && events.is_empty() {
            return Ok(());
        }
        let all = events.iter();
        let all =
            all.flat_map(|(host, events)| events.iter().map(move |event| (host.as_str(), event)));
        let written = store.append(&pending.entries, pending.highest_number, all);
        let mut memory = lock(&self.memory);
        match written {
            Ok(()) => memory.written(&pending),
            Err(_) => memory.put_back(pending, events),
        }
        written
    }

    /// Returns series of a host between two times, with at most about `points` values each.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub fn query(
        &self,
        host: &str,
        series: &[&str],
        from: i64,
        to: i64,
        points: usize,
    ) -> io::Result<Answer> {
        let mut steps = Steps::new((from, to), points, series);
        let mut raw = match &self.store {
            Some((_, reader)) => add_tiers(reader, host, series, (from, to), &mut steps)?,
            None => Vec::new(),
        };
        {
            let memory = lock(&self.memory);
            let windows = memory.windows(host);
            let asked =
                windows.filter(|window| window.start <= to && window.start + WINDOW_MS > from);
            raw.extend(asked.map(|window| (window.samples.picked(series), (i64::MIN, i64::MAX))));
        }
        let times = raw.iter().flat_map(|(samples, _)| &samples.times);
        let mut times: Vec<i64> = times.copied().collect();
        times.sort_unstable();
        let usual = usual_interval(&times);
        for (samples, range) in &raw {
            steps.add(samples, *range, usual);
        }
        Ok(steps.answer())
    }

    /// Returns the oldest events between two times, of one container or of all.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub(super) fn events(
        &self,
        host: &str,
        from: i64,
        to: i64,
        container: Option<&str>,
    ) -> io::Result<EventsAnswer> {
        let mut events = match &self.store {
            Some((_, reader)) => reader.events(host, (from, to), container)?,
            None => Vec::new(),
        };
        let wanted = |event: &&Event| {
            (from..=to).contains(&event.at)
                && container.is_none_or(|name| event.container.as_deref() == Some(name))
        };
        let new: Vec<Event> = {
            let memory = lock(&self.memory);
            let all = memory.events.get(host).into_iter().flatten();
            all.filter(wanted).cloned().collect()
        };
        let new: Vec<Event> = new
            .into_iter()
            .filter(|event| !events.contains(event))
            .collect();
        events.extend(new);
        events.sort_by_key(|event| event.at);
        let more = events.len() > MAX_EVENTS;
        events.truncate(MAX_EVENTS);
        Ok(EventsAnswer { events, more })
    }

    /// Returns the names of the series of a host, sorted. A series that ended long ago can be absent.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub(super) fn series(&self, host: &str) -> io::Result<Vec<String>> {
        let mut names = BTreeSet::new();
        if let Some((_, reader)) = &self.store {
            names.extend(reader.names(host)?);
        }
        let memory = lock(&self.memory);
        names.extend(
            memory
                .windows(host)
                .flat_map(|window| window.samples.names.iter().cloned()),
        );
        Ok(names.into_iter().collect())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // The thread has told its panic already.
            let _ = thread.join();
        }
    }
}

/// Adds the averages of the store to `steps`: of the best tier for their length, and of the others where the best tier has none. Returns
/// the samples of the full tier, with the time that counts of each.
///
/// # Errors
/// Fails if the store cannot be read.
fn add_tiers(
    reader: &Reader,
    host: &str,
    series: &[&str],
    (from, to): (i64, i64),
    steps: &mut Steps,
) -> io::Result<Vec<(Samples, (i64, i64))>> {
    let coarsest = Tier::ALL
        .into_iter()
        .rfind(|tier| tier.step_ms() * 2 <= steps.length());
    let coarsest = coarsest.unwrap_or(Tier::Full);
    // The time that the tiers so far have.
    let mut known: Option<(i64, i64)> = None;
    let mut raw = Vec::new();
    // The best tier. Then the coarser ones, which have what is older, and the finer ones, which have what is newer.
    let coarser = Tier::ALL.into_iter().filter(|tier| *tier > coarsest);
    let finer = Tier::ALL.into_iter().rev().filter(|tier| *tier < coarsest);
    for tier in std::iter::once(coarsest).chain(coarser).chain(finer) {
        let step = tier.step_ms();
        // An average counts if its time ends before the known time.
        let sides = match known {
            None => vec![(from, to + 1)],
            Some((begin, end)) => vec![(from, begin - (step - 1).max(0)), (end, to + 1)],
        };
        for (first, end) in sides.into_iter().filter(|(first, end)| first < end) {
            let wanted = |name: &str| series.contains(&name);
            let part = reader.part(host, tier, (first, end - 1), wanted)?;
            let Some((begin, covered)) = part.span else {
                continue;
            };
            // The newest average of a tier does not have all of its samples yet.
            let covered = covered - covered.rem_euclid(step.max(1));
            let (begin, covered) = (begin.max(first), covered.min(end));
            if begin >= covered {
                continue;
            }
            let range = (begin, covered);
            if tier == Tier::Full {
                raw.extend(part.blocks.into_iter().map(|block| (block, range)));
            } else {
                for block in &part.blocks {
                    steps.add_averages(block, range, step);
                }
            }
            known = Some(match known {
                None => range,
                Some((first, end)) => (first.min(begin), end.max(covered)),
            });
        }
    }
    Ok(raw)
}

/// Returns the time at which the window with the time `at` begins.
const fn window_start(at: i64) -> i64 {
    at - at.rem_euclid(WINDOW_MS)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The series of an agent's history, with the names that [`series`] gives them.
fn columns(past: &model::History) -> Vec<(String, &[Option<f32>])> {
    let host = past.host.iter();
    let host = host.map(|(series, column)| (series.clone(), column.0.as_slice()));
    let containers = past.containers.iter().flat_map(|(container, all)| {
        let name = move |series: &str| format!("{CONTAINER}{}:{series}", bare(container));
        all.iter()
            .map(move |(series, column)| (name(series), column.0.as_slice()))
    });
    host.chain(containers).collect()
}

/// Whether the figures of a source are new. A snapshot has the last figures of a failing source for a while.
fn is_current(source: &SourceHealth, snapshot: &Snapshot) -> bool {
    let interval = i64::try_from(source.interval_ms.unwrap_or_default()).unwrap_or_default();
    let age = |at: &Timestamp| millis(snapshot.timestamp.0) - millis(at.0);
    let longest = interval.saturating_mul(CURRENT_INTERVALS) + CURRENT_MS;
    source
        .collected_at
        .as_ref()
        .is_some_and(|at| age(at) <= longest)
}

/// The series of a snapshot: name and value. A figure that was not read is absent.
fn series(snapshot: &Snapshot) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    let mut add = |name: String, value: Option<f64>| all.extend(value.map(|value| (name, value)));
    let (system, docker) = (&snapshot.sources.system, &snapshot.sources.docker);
    let (has_system, has_docker) = (is_current(system, snapshot), is_current(docker, snapshot));
    let sources = HOST_SERIES.len() - DOCKER_SERIES;
    for (number, value) in host_figures(snapshot).into_iter().enumerate() {
        let is_known = if number < sources {
            has_system
        } else {
            has_docker
        };
        add(HOST_SERIES[number].to_owned(), value.filter(|_| is_known));
    }
    if has_system {
        for (mount, percent) in disk_figures(&snapshot.system) {
            add(format!("{DISK_USED}{mount}"), Some(percent));
        }
    }
    for container in snapshot.containers.iter().filter(|_| has_docker) {
        let name = bare(&container.name);
        for (series, value) in CONTAINER_SERIES.iter().zip(container_figures(container)) {
            add(format!("{CONTAINER}{name}:{series}"), value);
        }
    }
    all
}
