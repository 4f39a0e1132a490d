//! The short history: the figures of the last minutes, for clients with the option `history`.
//!
//! The history has only numbers, in one column for each container and for each file system. A column begins with the first sample of
//! its container and ends with the last, so a container that ran for a moment costs little.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::model::{
    CONTAINER_SERIES, DISK_USED, DOCKER_SERIES, HOST_SERIES, History, HistoryColumn, Snapshot,
    container_figures, disk_figures, host_figures,
};

/// Limit on the number of samples. If the interval of snapshots is too short for it, only every n-th snapshot is a sample.
const MAX_SAMPLES: u64 = 720;
/// Maximum number of containers. A container that has ended counts while a sample still has its figures.
const MAX_CONTAINERS: usize = 1024;
/// Limit on the number of file systems.
const MAX_DISKS: usize = 64;
/// Number of figures of containers in one JSON line, about 200 KiB of text. A line with the host's figures can have more.
const LINE_FIGURES: usize = 32 * 1024;

/// The figures of the last minutes.
#[derive(Debug)]
pub(super) struct HistoryRing {
    /// The age of the oldest sample.
    period: Duration,
    /// The usual time between two samples.
    interval: Duration,
    /// Every n-th snapshot is a sample, and this field is n.
    every: u64,
    /// Limit on the number of samples.
    most: usize,
    /// The number of the oldest sample.
    first: u64,
    samples: VecDeque<Sample>,
    host: Column<{ HOST_SERIES.len() }>,
    disks: BTreeMap<Box<str>, Column<1>>,
    containers: BTreeMap<Box<str>, Column<{ CONTAINER_SERIES.len() }>>,
}

/// The time of a sample.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// In milliseconds since 1970.
    time: u64,
    /// By the monotonic clock.
    at: Instant,
}

/// Which sources have read the figures of a snapshot just now. A snapshot has the figures of a failing source for a while. The history
/// does not, so that clients see the gap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    pub(super) system: bool,
    pub(super) docker: bool,
}

/// The figures of one container or file system, or of the host. A figure that was not read is NaN.
#[derive(Debug)]
struct Column<const N: usize> {
    /// The number of the sample of the first row.
    first: u64,
    rows: VecDeque<[f32; N]>,
}

/// How much of the history a client has received.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The samples that the client gets now, by number.
    begin: u64,
    end: u64,
    part: Part,
}

/// The next part of the figures for a client.
#[derive(Debug, Clone)]
enum Part {
    Host,
    /// The containers whose names come after this name. None means all.
    Containers(Option<Box<str>>),
    /// The client has received all samples.
    None,
}

impl HistoryRing {
    /// Creates a history of the last `period`, for snapshots that come every `interval`. Keeps no history if `period` is 0.
    pub(super) fn new(period: Duration, interval: Duration) -> Self {
        let snapshots = u64::try_from(period.as_nanos().div_ceil(interval.as_nanos().max(1)));
        let snapshots = snapshots.unwrap_or(u64::MAX);
        let every = snapshots.div_ceil(MAX_SAMPLES).max(1);
        let most = snapshots.div_ceil(every);
        Self {
            period,
            interval: interval.saturating_mul(u32::try_from(every).unwrap_or(u32::MAX)),
            every,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            first: 0,
            samples: VecDeque::new(),
            host: Column::new(0),
            disks: BTreeMap::new(),
            containers: BTreeMap::new(),
        }
    }

    /// Adds the figures of a snapshot, if it is a sample. Removes the figures that are too old.
    pub(super) fn record(&mut self, snapshot: &Snapshot, current: Current, now: Instant) {
        if self.most == 0 || !snapshot.agent.seq.is_multiple_of(self.every) {
            return;
        }
        self.drop_old(now);
        let since_1970 = snapshot.timestamp.0.duration_since(UNIX_EPOCH);
        let time = since_1970.unwrap_or_default().as_millis();
        let number = self.end();
        reserve(&mut self.samples, self.most);
        self.samples.push_back(Sample {
            time: u64::try_from(time).unwrap_or(u64::MAX),
            at: now,
        });
        let host = host_figures(snapshot).map(number_of);
        self.host
            .push(number, of_current(host, snapshot, current), self.most);
        if current.system {
            let mut room = Room::of(&self.disks, MAX_DISKS, number);
            for (mount, percent) in disk_figures(&snapshot.system) {
                let row = [percent as f32];
                room.push(&mut self.disks, mount, row, self.most);
            }
        }
        if current.docker {
            let mut room = Room::of(&self.containers, MAX_CONTAINERS, number);
            for container in &*snapshot.containers {
                let name = container.name.trim_start_matches('/');
                let row = container_figures(container).map(number_of);
                room.push(&mut self.containers, name, row, self.most);
            }
        }
    }

    fn drop_old(&mut self, now: Instant) {
        let is_old = |sample: &Sample| now.saturating_duration_since(sample.at) >= self.period;
        while self.samples.len() >= self.most || self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
            self.first += 1;
        }
        let first = self.first;
        self.host.drop_before(first);
        self.disks.retain(|_, column| column.drop_before(first));
        self.containers
            .retain(|_, column| column.drop_before(first));
    }

    /// Returns the number of the next sample.
    fn end(&self) -> u64 {
        self.first + self.samples.len() as u64
    }

    /// Begins the history of a client that wants the samples of the last `period` that came after the time `after`, in milliseconds
    /// since 1970.
    pub(super) fn begin(&self, period: Duration, after: Option<u64>, now: Instant) -> Progress {
        let is_wanted = |sample: &Sample| {
            now.saturating_duration_since(sample.at) <= period
                && after.is_none_or(|after| sample.time > after)
        };
        let unwanted = self.samples.iter().take_while(|sample| !is_wanted(sample));
        Progress {
            begin: self.first + unwanted.count() as u64,
            end: self.end(),
            part: Part::Host,
        }
    }

    /// Returns the next part of the history for one JSON line. None if the client has received everything. The first call for a client
    /// always returns a part, which can be empty.
    pub(super) fn next(&self, progress: &mut Progress) -> Option<History> {
        if matches!(progress.part, Part::None) {
            if progress.end >= self.end() {
                return None;
            }
            // New samples came while the client read.
            *progress = Progress {
                begin: progress.end,
                end: self.end(),
                part: Part::Host,
            };
        }
        let begin = progress.begin.max(self.first);
        let samples = begin..progress.end.max(begin);
        let mut history = History {
            interval_ms: match self.most {
                0 => 0,
                _ => u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX),
            },
            times: samples
                .clone()
                .filter_map(|number| Some(self.samples.get(self.index(number))?.time))
                .collect(),
            ..History::default()
        };
        let length = history.times.len().max(1);
        let mut room = LINE_FIGURES;
        if matches!(progress.part, Part::Host) {
            history.host = self.host.series(&HOST_SERIES, &samples).collect();
            for (mount, column) in &self.disks {
                let name = format!("{DISK_USED}{mount}");
                history.host.extend(column.series(&[&name], &samples));
            }
            room = room.saturating_sub(history.host.len() * length);
        }
        let after = match &progress.part {
            Part::Containers(Some(name)) => Bound::Excluded(&**name),
            _ => Bound::Unbounded,
        };
        let mut last = None;
        for (name, column) in self.containers.range::<str, _>((after, Bound::Unbounded)) {
            let figures = CONTAINER_SERIES.len() * length;
            let is_empty = history.host.is_empty() && history.containers.is_empty();
            if figures > room && !is_empty {
                progress.part = Part::Containers(last.or_else(|| match &progress.part {
                    Part::Containers(name) => name.clone(),
                    _ => None,
                }));
                return Some(history);
            }
            let series: BTreeMap<_, _> = column.series(&CONTAINER_SERIES, &samples).collect();
            if !series.is_empty() {
                room = room.saturating_sub(figures);
                history.containers.insert(name.to_string(), series);
            }
            last = Some(name.clone());
        }
        progress.part = Part::None;
        Some(history)
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number - self.first).unwrap_or(usize::MAX)
    }
}

/// Removes figures that are not of this round: those of a source whose newest round failed, and those of a family that failed.
fn of_current(
    mut host: [f32; HOST_SERIES.len()],
    snapshot: &Snapshot,
    current: Current,
) -> [f32; HOST_SERIES.len()] {
    let (system, docker) = host.split_at_mut(HOST_SERIES.len() - DOCKER_SERIES);
    if !current.system {
        system.fill(f32::NAN);
    } else if snapshot.system.exact.load_avg.is_none() {
        // The load averages of a snapshot keep their last figure if a reading fails.
        for (name, figure) in HOST_SERIES.iter().zip(system) {
            if *name == "load1" {
                *figure = f32::NAN;
            }
        }
    }
    if !current.docker {
        docker.fill(f32::NAN);
    }
    host
}

fn number_of(figure: Option<f64>) -> f32 {
    figure.map_or(f32::NAN, |figure| figure as f32)
}

impl<const N: usize> Column<N> {
    fn new(first: u64) -> Self {
        Self {
            first,
            rows: VecDeque::new(),
        }
    }

    /// Returns the number of the sample after the last row.
    fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// Adds the row of the sample `number`. The samples between the last row and this row have no figures.
    fn push(&mut self, number: u64, row: [f32; N], most: usize) {
        if self.rows.is_empty() {
            self.first = number;
        }
        while self.end() < number {
            reserve(&mut self.rows, most);
            self.rows.push_back([f32::NAN; N]);
        }
        reserve(&mut self.rows, most);
        self.rows.push_back(row);
    }

    /// Removes the rows of samples before `first`. Returns whether there are other rows.
    fn drop_before(&mut self, first: u64) -> bool {
        while self.first < first && self.rows.pop_front().is_some() {
            self.first += 1;
        }
        !self.rows.is_empty()
    }

    /// Returns the figures of each series for these samples. Leaves out a series without figures.
    fn series(
        &self,
        names: &[&str],
        samples: &std::ops::Range<u64>,
    ) -> impl Iterator<Item = (String, HistoryColumn)> {
        let figure = move |number: u64, series: usize| {
            let row = usize::try_from(number.checked_sub(self.first)?).ok()?;
            let figure = *self.rows.get(row)?.get(series)?;
            figure.is_finite().then_some(figure)
        };
        names.iter().enumerate().filter_map(move |(series, name)| {
            let figures: Vec<_> = samples.clone().map(|at| figure(at, series)).collect();
            let has_some = figures.iter().any(Option::is_some);
            has_some.then(|| ((*name).to_owned(), HistoryColumn(figures)))
        })
    }
}

/// Makes room for one more row. A queue grows by an eighth, and never to more than `most` rows, because the queues of many containers
/// are most of the memory of the history.
fn reserve<T>(rows: &mut VecDeque<T>, most: usize) {
    let length = rows.len();
    if length == rows.capacity() {
        let more = (length / 8).max(8).min(most.saturating_sub(length)).max(1);
        rows.reserve_exact(more);
    }
}

/// Adds the rows of one sample to the columns. If there are too many columns, the containers that ended first lose theirs.
struct Room {
    most: usize,
    number: u64,
    /// The columns of containers that this sample does not have. The container that ended first is the last. None until it is needed.
    ended: Option<Vec<Box<str>>>,
}

impl Room {
    fn of<const N: usize>(
        columns: &BTreeMap<Box<str>, Column<N>>,
        most: usize,
        number: u64,
    ) -> Self {
        debug_assert!(columns.len() <= most);
        Self {
            most,
            number,
            ended: None,
        }
    }

    fn push<const N: usize>(
        &mut self,
        columns: &mut BTreeMap<Box<str>, Column<N>>,
        name: &str,
        row: [f32; N],
        rows: usize,
    ) {
        if let Some(column) = columns.get_mut(name) {
            // Two containers never have the same name. Two mounts at one place are rare, and the first counts.
            if column.end() <= self.number {
                column.push(self.number, row, rows);
            }
            return;
        }
        if columns.len() >= self.most {
            let number = self.number;
            let ended = self.ended.get_or_insert_with(|| {
                // A column with a row in the previous sample can get another row in this sample.
                let ended = columns.iter().filter(|(_, column)| column.end() < number);
                let mut ended: Vec<_> = ended.map(|(name, it)| (it.end(), name)).collect();
                ended.sort_unstable_by(|a, b| b.cmp(a));
                ended.into_iter().map(|(_, name)| name.clone()).collect()
            });
            // A column of the list can have got a row in this sample since the list was made.
            let mut ended = std::iter::from_fn(|| ended.pop());
            let oldest = ended.find(|name| columns.get(name).is_some_and(|it| it.end() < number));
            let Some(oldest) = oldest else { return };
            columns.remove(&oldest);
        }
        let mut column = Column::new(self.number);
        column.push(self.number, row, rows);
        columns.insert(name.into(), column);
    }
}

#[cfg(test)]
mod tests;
