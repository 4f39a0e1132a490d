//! Reads the figures of systemd's units from their control groups.
//!
//! Each round reads the CPU time and the memory of every unit, which are two system calls a unit. The busiest units are published,
//! and only their other files are read. A unit that has used no CPU time has the same figures as before, so its other files are read
//! again only after some time.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tree::UnitTree;
use crate::collect::cgroup::{
    ACTIVITY_FILES, Activity, ActivityFiles, DetailFiles, FILES_PER_GROUP, GroupError, Groups,
    Mounts, Usage,
};
use crate::collect::system::family::{MIN_CPU_INTERVAL, MetricFamily, Round};
use crate::collect::system::kept_files::max_kept_files;
use crate::model::{Unit, figure};

/// How often the groups are searched again even if nothing seems to have changed.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum age of the details of an idle unit.
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);

/// The metric family. Source: the files of the units' control groups.
pub(in crate::collect::system) struct UnitGroups {
    /// The directory `/proc`.
    proc: PathBuf,
    /// The number of published units. 0 switches the family off.
    published: usize,
    /// The mounted control groups, and whether systemd's hierarchy is of v1. None until they are found.
    mounts: Option<(Mounts, bool)>,
    tree: UnitTree,
    /// When all files were opened again. None before the first search.
    reopened: Option<Instant>,
    /// The units by the paths of their groups.
    known: HashMap<String, KnownUnit>,
    /// Maximum number of files that stay open.
    max_kept: usize,
    /// Buffer for the texts of files.
    buffer: Vec<u8>,
    /// The newest figures and their time.
    newest: Option<(Vec<Unit>, Instant)>,
}

/// Why the units cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /proc/self/mountinfo")]
pub(in crate::collect::system) struct UnitGroupsError(#[from] io::Error);

/// A unit with a control group.
struct KnownUnit {
    name: String,
    groups: Groups,
    /// The open files. None if too many files are open. Then they are opened for each reading.
    files: Option<ActivityFiles>,
    /// The figures of the current round. None if this round has not read the unit yet.
    now: Option<ActivityReading>,
    /// The figures of the previous round.
    before: Option<ActivityReading>,
    /// Only for a unit that was published in the previous round.
    details: Option<Details>,
}

/// A reading of the CPU time and the memory.
struct ActivityReading {
    activity: Activity,
    at: Instant,
}

/// A published unit's files and their newest figures.
struct Details {
    files: Option<DetailFiles>,
    usage: Arc<Usage>,
    /// When the files were read.
    read_at: Instant,
    /// When the figures were known to be right. While a unit is idle, this is later than `read_at`.
    at: Instant,
}

impl MetricFamily for UnitGroups {
    const NAME: &'static str = "units";
    const COMPARES: bool = true;

    type Figures = Vec<Unit>;
    type Error = UnitGroupsError;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<Unit>, UnitGroupsError> {
        if self.published == 0 {
            return Ok(Vec::new());
        }
        let now = Instant::now();
        if let Some((units, at)) = &self.newest
            && now - *at < MIN_CPU_INTERVAL
        {
            return Ok(units.clone());
        }
        self.newest = None;
        let is_due = self.reopened.is_none_or(|at| now - at >= RESCAN_INTERVAL);
        if is_due {
            self.reopened = Some(now);
        }
        if is_due || self.tree.has_changed() {
            self.search(is_due)?;
        }
        for unit in self.known.values_mut() {
            unit.before = unit.now.take();
        }
        if !self.read_activities() {
            // A unit has ended. Perhaps it has started again, or another has started at the same time.
            self.search(false)?;
            self.read_activities();
        }
        let units = self.busiest();
        self.newest = Some((units.clone(), now));
        Ok(units)
    }

    fn publish(&mut self, units: Vec<Unit>, round: &mut Round<'_>) {
        round.metrics.units = units;
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.units.clone_from(&round.last.units);
    }
}

impl UnitGroups {
    /// Creates the family. It publishes the `published` busiest units.
    pub(in crate::collect::system) fn new(published: usize) -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            published,
            mounts: None,
            tree: UnitTree::default(),
            reopened: None,
            known: HashMap::new(),
            max_kept: usize::try_from(max_kept_files()).unwrap_or(usize::MAX),
            buffer: Vec::new(),
            newest: None,
        }
    }

    /// Searches the groups of all units. Keeps the data of units that are known already. If `reopens` is true, opens their files again,
    /// because systemd can enable a controller for a unit that runs. Units can come and go in every round, so not each search does this.
    fn search(&mut self, reopens: bool) -> Result<(), UnitGroupsError> {
        if self.mounts.is_none() {
            let mounts = Mounts::parse(&mountinfo(&self.proc)?);
            let is_v1 = mounts.systemd().map(|(_, is_v1)| is_v1);
            self.mounts = is_v1.map(|is_v1| (mounts, is_v1));
        }
        let Some((mounts, is_v1)) = &self.mounts else {
            return Ok(());
        };
        let root = mounts.systemd().map(|(root, _)| root);
        self.tree = root.map(UnitTree::find).unwrap_or_default();
        let mut before = std::mem::take(&mut self.known);
        for unit in std::mem::take(&mut self.tree.units) {
            let groups = || mounts.unit_groups(&unit.path, *is_v1);
            let known = match before.remove(&unit.path) {
                Some(known) if !reopens => Some(known),
                Some(known) => groups().map(|groups| known.with_groups(groups)),
                None => groups().map(|groups| KnownUnit::new(unit.name, groups)),
            };
            if let Some(known) = known {
                self.known.insert(unit.path, known);
            }
        }
        if self.known.is_empty() {
            // The hierarchy can be mounted later.
            self.mounts = None;
        }
        Ok(())
    }

    /// Reads the CPU time and the memory of all units that this round has not read yet. Removes units that have ended. Returns
    /// whether all units could be read.
    fn read_activities(&mut self) -> bool {
        let kept = self.known.values().map(KnownUnit::kept_files).sum();
        let mut room = self.max_kept.saturating_sub(kept);
        let buffer = &mut self.buffer;
        let count = self.known.len();
        self.known
            .retain(|_, unit| unit.now.is_some() || unit.read_activity(&mut room, buffer).is_ok());
        self.known.len() == count
    }

    /// Returns the busiest units with all their figures, the busiest first.
    fn busiest(&mut self) -> Vec<Unit> {
        let kept: usize = self.known.values().map(KnownUnit::kept_files).sum();
        let mut room = self.max_kept.saturating_sub(kept);
        let mut units: Vec<&mut KnownUnit> = self.known.values_mut().collect();
        units.sort_by_cached_key(|unit| Reverse(unit.rank()));
        let published = self.published.min(units.len());
        let (busiest, others) = units.split_at_mut(published);
        for unit in others {
            unit.details = None;
        }
        let buffer = &mut self.buffer;
        busiest
            .iter_mut()
            .map(|unit| unit.publish(&mut room, buffer))
            .collect()
    }
}

fn mountinfo(proc: &Path) -> io::Result<String> {
    let table = fs::read(proc.join("self/mountinfo"))?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

impl KnownUnit {
    fn new(name: String, groups: Groups) -> Self {
        Self {
            name,
            groups,
            files: None,
            now: None,
            before: None,
            details: None,
        }
    }

    /// Closes the files, so that they are opened again.
    fn with_groups(self, groups: Groups) -> Self {
        Self {
            groups,
            files: None,
            details: self.details.map(|details| Details {
                files: None,
                ..details
            }),
            ..self
        }
    }

    /// Returns the number of files that are open for this unit, at most.
    fn kept_files(&self) -> usize {
        let details = self.details.as_ref();
        let has_details = details.is_some_and(|details| details.files.is_some());
        let activity = if self.files.is_some() {
            ACTIVITY_FILES
        } else {
            0
        };
        let details = if has_details {
            FILES_PER_GROUP - ACTIVITY_FILES
        } else {
            0
        };
        activity + details
    }

    /// Reads the CPU time and the memory. `room` is the number of files that can stay open.
    fn read_activity(&mut self, room: &mut usize, buffer: &mut Vec<u8>) -> Result<(), GroupError> {
        let at = Instant::now();
        let files = match self.files.take() {
            Some(files) => files,
            None => {
                // Without open files, a new group with the same path looks like the old one. Its CPU time is then lower.
                let files = ActivityFiles::open(&self.groups)?;
                *room = room.saturating_sub(ACTIVITY_FILES);
                files
            }
        };
        let activity = files.read(buffer)?;
        if *room > 0 {
            self.files = Some(files);
        }
        self.now = Some(ActivityReading { activity, at });
        Ok(())
    }

    /// Returns the CPU time that was used since the previous reading, in nanoseconds. None without a previous reading.
    fn used_ns(&self) -> Option<(u64, Duration)> {
        let (before, now) = (self.before.as_ref()?, self.now.as_ref()?);
        let used = now.activity.cpu_ns?.checked_sub(before.activity.cpu_ns?)?;
        Some((used, now.at - before.at))
    }

    /// Returns the value by which units are sorted: the CPU use, and then the memory.
    fn rank(&self) -> (u64, u64) {
        let used = self.used_ns().map_or(0, |(used, _)| used);
        let now = self.now.as_ref();
        let memory = now.and_then(|now| now.activity.memory);
        (used, memory.unwrap_or(0))
    }

    /// Whether the unit has used no CPU time, and its memory is the same.
    fn is_idle(&self) -> bool {
        let memory = |reading: &Option<ActivityReading>| {
            reading.as_ref().and_then(|reading| reading.activity.memory)
        };
        self.used_ns().is_some_and(|(used, _)| used == 0)
            && memory(&self.before) == memory(&self.now)
    }

    /// Reads the other files, and returns all figures.
    fn publish(&mut self, room: &mut usize, buffer: &mut Vec<u8>) -> Unit {
        let is_idle = self.is_idle();
        let details = self.details.take();
        if let Some(now) = &self.now {
            self.details = match details {
                Some(details) if is_idle && details.stay_valid(now.at) => Some(Details {
                    at: now.at,
                    ..details
                }),
                // A unit without details has ended since its activity was read.
                details => Details::read(details, &self.groups, now, room, buffer).ok(),
            };
        }
        let usage = self.details.as_ref().map(|details| &details.usage);
        let activity = self.now.as_ref().map(|now| &now.activity);
        Unit {
            name: self.name.clone(),
            cpu_percent: self.used_ns().and_then(|(used, elapsed)| {
                let percent = used as f64 / elapsed.as_nanos() as f64 * 100.0;
                percent.is_finite().then(|| figure(percent, 2))
            }),
            cpu_usage_ns: activity.and_then(|activity| activity.cpu_ns),
            memory: activity.and_then(|activity| activity.memory),
            tasks: usage.and_then(|usage| usage.pids),
            oom_kills: usage.and_then(|usage| usage.oom_kills),
            block_io: usage.and_then(|usage| usage.block_io),
            pressure: usage.and_then(|usage| usage.pressure),
            ..Unit::default()
        }
    }
}

impl Details {
    /// Reads the files, and adds the rates since the reading `before`.
    fn read(
        before: Option<Self>,
        groups: &Groups,
        now: &ActivityReading,
        room: &mut usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Self, GroupError> {
        let (kept, before) = match before {
            Some(Self {
                files, usage, at, ..
            }) => (files, Some((usage, at))),
            None => (None, None),
        };
        let is_kept = kept.is_some();
        let files = match kept {
            Some(files) => files,
            None => DetailFiles::open(groups, false)?,
        };
        let mut usage = files.read(&now.activity, None, buffer)?;
        if let Some((before, at)) = before {
            usage.add_rates(&before, Some((now.at - at).as_secs_f64()));
        }
        let needed = FILES_PER_GROUP - ACTIVITY_FILES;
        let keeps = is_kept || *room >= needed;
        if keeps && !is_kept {
            *room -= needed;
        }
        Ok(Self {
            files: keeps.then_some(files),
            usage: Arc::new(usage),
            read_at: now.at,
            at: now.at,
        })
    }

    /// Whether these details of an idle unit need not be read again. The averages of the pressure fall even if the unit is idle,
    /// until they are 0. Rates are 0 from the first reading of an idle unit on.
    fn stay_valid(&self, now: Instant) -> bool {
        let pressures = self.usage.pressure.iter();
        let has_pressure = pressures
            .flat_map(|pressures| [pressures.cpu, pressures.memory, pressures.io])
            .flatten()
            .any(|pressure| pressure.some.avg60 > 0.0);
        let has_rates = self.usage.block_io.is_some_and(|io| {
            let rates = [io.read_bytes_per_second, io.write_bytes_per_second];
            rates.into_iter().any(|rate| rate != Some(0.0))
        });
        !has_pressure && !has_rates && now - self.read_at < MAX_IDLE_AGE
    }
}

#[cfg(test)]
mod tests;
