//! What is not in the store yet: the windows that samples go to, events, and the entries for the journal.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::samples::Samples;
use super::{MAX_EVENTS, WINDOW_MS, window_start};
use crate::model::HistoryColumn;
use crate::web::hosts::MAX_HOSTS;

/// How long figures and events are kept in memory while they are not stored, in milliseconds.
const KEPT_MS: i64 = 3_600_000;
/// A window that is still in the future after this time is removed. The clock was wrong when its samples came.
const FUTURE: Duration = Duration::from_secs(2 * 3600);
/// Limit on the bytes of entries that wait for the journal.
const MAX_PENDING: usize = 16 << 20;
/// The least time between two samples of a host, in milliseconds.
pub(super) const MIN_GAP_MS: i64 = 500;

/// Samples of one host from [`WINDOW_MS`] milliseconds.
#[derive(Debug)]
pub(super) struct Window {
    /// Later windows have higher numbers.
    pub(super) number: u64,
    /// The lowest number in the journal of the window's entries. A server that starts again gives the window another number.
    lowest_number: u64,
    opened: Instant,
    pub(super) host: String,
    pub(super) start: i64,
    pub(super) samples: Samples,
    /// A stored sample that is nearer than this to a sample of the window is the same sample, in milliseconds.
    pub(super) gap: i64,
    /// The number of series whose names are in the journal.
    journaled: usize,
}

/// One sample in the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) window: u64,
    host: String,
    at: i64,
    gap: i64,
    /// The position of the first name in `names`.
    first: usize,
    /// The names of series that no earlier entry of the window has.
    names: Vec<String>,
    /// The figures of all series of the window so far.
    figures: HistoryColumn,
}

/// What waits for the journal.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// One JSON line for each sample.
    pub(super) entries: Vec<u8>,
    /// The highest number of a window in `entries`.
    pub(super) highest_number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Windows that can get more samples, by their host and start.
    open: HashMap<String, BTreeMap<i64, Window>>,
    /// Windows that get no more samples.
    pub(super) closed: Vec<Arc<Window>>,
    /// Events that are not stored, by their host, oldest first.
    pub(super) events: HashMap<String, VecDeque<Event>>,
    pub(super) pending: Pending,
    /// Whether samples go to the journal too.
    has_journal: bool,
    next_window: u64,
    /// Windows with numbers below this one have entries in the journal on disk.
    written_below: u64,
}

impl Memory {
    /// Makes the memory with the samples of a journal, oldest first.
    pub(super) fn replay(journal: Vec<Entry>) -> Self {
        let mut memory = Self::default();
        let mut names: HashMap<u64, Vec<String>> = HashMap::new();
        for entry in journal {
            memory.next_window = memory.next_window.max(entry.window + 1);
            let names = names.entry(entry.window).or_default();
            if entry.first > names.len() {
                // The entries with the other names were left out, because the disk was full.
                continue;
            }
            names.truncate(entry.first);
            names.extend(entry.names);
            let figures = entry.figures.0.iter();
            let figures = names.iter().zip(figures).filter_map(|(name, figure)| {
                let figure = (*figure)?;
                Some((name.as_str(), figure))
            });
            // The samples of the journal are all different.
            if let Some(window) = memory.add(&entry.host, entry.at, 1, figures) {
                window.gap = window.gap.max(entry.gap);
                window.lowest_number = window.lowest_number.min(entry.window);
            }
        }
        // These numbers are higher than all in the journal. The names of a window that goes on are written again.
        for window in memory.open.values_mut().flat_map(BTreeMap::values_mut) {
            window.number = memory.next_window;
            memory.next_window += 1;
        }
        memory.written_below = memory.next_window;
        memory.has_journal = true;
        memory
    }

    /// Adds a sample, unless there is another one less than `gap` milliseconds before or after it. Returns its window. None if there
    /// are too many hosts.
    pub(super) fn add<'n>(
        &mut self,
        host: &str,
        at: i64,
        gap: i64,
        figures: impl Iterator<Item = (&'n str, f32)>,
    ) -> Option<&mut Window> {
        if !self.open.contains_key(host) {
            if self.open.len() >= MAX_HOSTS {
                return None;
            }
            self.open.insert(host.to_owned(), BTreeMap::new());
        }
        let windows = self.open.get_mut(host)?;
        let start = window_start(at);
        let window = windows.entry(start).or_insert_with(|| {
            self.next_window += 1;
            Window {
                number: self.next_window - 1,
                lowest_number: self.next_window - 1,
                opened: Instant::now(),
                host: host.to_owned(),
                start,
                samples: Samples::default(),
                gap,
                journaled: 0,
            }
        });
        window.gap = window.gap.max(gap);
        let row = window.samples.add(at, gap, figures);
        if let Some(row) = row.filter(|_| self.has_journal) {
            window.write_entry(row, &mut self.pending);
        }
        Some(window)
    }

    /// Whether many entries wait for the journal.
    pub(super) fn is_busy(&self) -> bool {
        self.pending.entries.len() > MAX_PENDING / 2
    }

    /// Makes sure that the entries for the journal do not grow without limit while it cannot be written.
    pub(super) fn limit_pending(&mut self) {
        if self.pending.entries.len() > MAX_PENDING {
            self.forget_journal();
        }
    }

    /// Removes all entries for the journal.
    fn forget_journal(&mut self) {
        self.pending = Pending::default();
        self.repeat_names();
    }

    /// The next entry of each window has all names again.
    pub(super) fn repeat_names(&mut self) {
        for window in self.open.values_mut().flat_map(BTreeMap::values_mut) {
            window.journaled = 0;
        }
    }

    pub(super) fn add_event(&mut self, host: &str, event: Event) {
        if !self.events.contains_key(host) && self.events.len() >= MAX_HOSTS {
            return;
        }
        let events = self.events.entry(host.to_owned()).or_default();
        if events.contains(&event) {
            return;
        }
        if events.len() >= MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Closes the windows that end before `now`.
    pub(super) fn close(&mut self, now: i64) {
        for windows in self.open.values_mut() {
            // Snapshots of the last moment can still arrive.
            while windows
                .first_key_value()
                .is_some_and(|(start, _)| start.saturating_add(WINDOW_MS + super::LATE_MS) <= now)
            {
                self.closed
                    .extend(windows.pop_first().map(|(_, window)| Arc::new(window)));
            }
            windows.retain(|start, window| *start <= now || window.opened.elapsed() < FUTURE);
        }
        self.open.retain(|_, windows| !windows.is_empty());
    }

    /// Removes what could not be stored for an hour. Keeps windows with entries in the journal on disk: at most two of each host.
    pub(super) fn forget_old(&mut self, now: i64) {
        let written_below = self.written_below;
        self.closed.retain(|window| {
            window.start + WINDOW_MS + KEPT_MS > now || window.lowest_number < written_below
        });
        for events in self.events.values_mut() {
            events.retain(|event| event.at + KEPT_MS > now);
        }
        self.events.retain(|_, events| !events.is_empty());
    }

    /// Removes windows that are stored now.
    pub(super) fn stored(&mut self, windows: &[Arc<Window>]) {
        let numbers: HashSet<u64> = windows.iter().map(|window| window.number).collect();
        self.closed
            .retain(|window| !numbers.contains(&window.number));
    }

    /// Returns the lowest number in the journal of the windows that are not stored.
    pub(super) fn lowest_number(&self) -> u64 {
        let open = self.open.values().flat_map(BTreeMap::values);
        let all = open.chain(self.closed.iter().map(Arc::as_ref));
        all.map(|window| window.lowest_number)
            .min()
            .unwrap_or(self.next_window)
    }

    /// Records that entries were written to the journal.
    pub(super) fn written(&mut self, pending: &Pending) {
        if !pending.entries.is_empty() {
            self.written_below = self.written_below.max(pending.highest_number + 1);
        }
    }

    /// Puts back what could not be written. It is older than what has come since.
    pub(super) fn put_back(
        &mut self,
        mut pending: Pending,
        events: HashMap<String, VecDeque<Event>>,
    ) {
        pending.entries.append(&mut self.pending.entries);
        pending.highest_number = pending.highest_number.max(self.pending.highest_number);
        self.pending = pending;
        self.limit_pending();
        for (host, mut events) in events {
            let later = self.events.remove(&host).unwrap_or_default();
            events.extend(later);
            let surplus = events.len().saturating_sub(MAX_EVENTS);
            events.drain(..surplus);
            self.events.insert(host, events);
        }
    }

    /// Returns the windows of a host, in no order.
    pub(super) fn windows(&self, host: &str) -> impl Iterator<Item = &Window> {
        let closed = self.closed.iter().map(Arc::as_ref);
        let open = self.open.get(host).into_iter().flat_map(BTreeMap::values);
        closed.filter(move |window| window.host == host).chain(open)
    }
}

impl Window {
    fn write_entry(&mut self, row: usize, pending: &mut Pending) {
        let all = &self.samples;
        let first = self.journaled.min(all.names.len());
        let figures = all.columns.iter().map(|column| column[row]);
        let figures = figures.map(|figure| figure.is_finite().then_some(figure));
        let entry = Entry {
            window: self.number,
            host: self.host.clone(),
            at: all.times[row],
            gap: self.gap,
            first,
            names: all.names[first..].to_vec(),
            figures: HistoryColumn(figures.collect()),
        };
        // Writing to memory does not fail, and an entry is always valid JSON.
        if serde_json::to_writer(&mut pending.entries, &entry).is_ok() {
            pending.entries.push(b'\n');
            pending.highest_number = pending.highest_number.max(self.number);
            self.journaled = all.names.len();
        }
    }
}
