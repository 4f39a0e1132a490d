//! Reads the host's processes: their number, the largest users of CPU and memory, and the CPU use of the engine.
//!
//! One reading is one pass over `/proc`. A pass lists the processes if some have started or ended (see [`Processes::find`]). It reads only
//! the processes that were active, unless [`Choice`] says that others are due. A process that has just started is read in the second pass that
//! finds it, because most new processes have ended by then. A full pass reads it at once if the passes are more than 7.5 s apart.
//!
//! For most processes, a pass needs one system call and no allocation, because the file `stat` of the process stays open. The number of open
//! files is limited. For a process beyond this limit, a reading needs three system calls. For each process in the published lists, two more
//! files stay open, which full passes read.
//!
//! This file is long: all its figures come from the same pass.

use std::cmp::Ordering;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, open, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::geteuid;

use super::containers::ContainerNames;
use super::family::{MIN_CPU_INTERVAL, MetricFamily, Round};
use super::kept_files::max_kept_files;
use super::proc_stat::{Stat, parse, since_boot};
use super::process_choice::{Choice, MAX_QUIET_PERCENT, PassTimes, use_of};
use super::process_files::{NumberOfProcesses, Owner, Proc, TEXT_SIZE, open_files, read_file};
use super::process_io::{self, IoFound, KnownIo, highest, needs_groups};
use super::users::Users;
use crate::collect::decimal::decimal;
use crate::model::{ProcessCounts, TopIo, TopProcess, figure};
use crate::settings::Redaction;

/// The names of the engine's main processes.
const ENGINE: [&[u8]; 2] = [b"dockerd", b"containerd"];
/// The start of the name of the engine's shims. A shim is the engine's helper process for one container,
/// `containerd-shim-runc-v2`. The kernel stores only 15 bytes of a name.
const SHIM: &[u8] = b"containerd-shim";
/// The id of the first process of every PID namespace. If this process cannot be read, `/proc` hides other processes too.
const FIRST_PID: u32 = 1;
/// The letters of two states: the process runs or can run, and the process waits for a disk.
const RUNNING: u8 = b'R';
const BLOCKED: u8 = b'D';
/// Maximum number of ended processes between an ended process and the ancestor that inherits its I/O.
const MAX_GENERATIONS: usize = 32;
/// Size of the buffer for entries of `/proc`, in bytes. One system call returns all entries that fit.
const ENTRIES_SIZE: usize = 32 * 1024;

/// The metric family, with the data that it stores between readings.
pub(super) struct Processes {
    /// The length of each published list.
    listed: usize,
    /// The directory `/proc`. None until it has been opened.
    proc: Option<Arc<OwnedFd>>,
    /// The processes of the newest pass that have been read, by process id.
    known: HashMap<u32, KnownProcess>,
    /// The processes of the newest pass that have not been read yet, by process id.
    new: HashMap<u32, NewProcess>,
    /// Maximum number of files that stay open.
    max_kept: u64,
    /// How many more files can stay open in this pass.
    room_for_files: u64,
    /// The number of the current pass. A process that has ended has the number of an earlier pass.
    pass_number: u64,
    /// The number of the newest full pass. See [`Choice`].
    full_pass: u64,
    /// The number of processes. See [`NumberOfProcesses`].
    number: NumberOfProcesses,
    /// The newest list of processes. None before the first one, and after a failed pass.
    list: Option<List>,
    /// The start of the newest pass that listed the processes, as time since boot. None before the first one.
    listed_at: Option<Duration>,
    /// Whether this pass has found that a process, or a child of a process, has ended.
    has_found_end: bool,
    /// The start of the previous pass, as time since boot. None before the first pass.
    before: Option<Duration>,
    ticks_per_second: f64,
    /// The size of a page, in bytes.
    page: u64,
    users: Users,
    /// Whether the kernel reports the numbers of open files. None before the first pass.
    counts_files: Option<bool>,
    /// The parts of command lines that are replaced. None if command lines are not published.
    commands: Option<Redaction>,
    choice: Choice,
    /// Buffers that every pass uses again.
    buffers: Buffers,
    /// The figures and the start of the previous pass. None if that pass failed.
    last_pass: Option<(ProcessFigures, Instant)>,
}

/// The newest reading of a process.
#[derive(Debug)]
struct KnownProcess {
    /// The open file `stat`. After the process has ended, reading this file fails, even if another process has the same id.
    file: Option<OwnedFd>,
    name: Box<[u8]>,
    /// The start time, in ticks since boot. A later process with the same id has a different start time.
    started: u64,
    /// CPU time used so far, in ticks.
    used: u64,
    /// CPU time used between the two newest readings, in ticks.
    used_since: u64,
    /// CPU use between the two newest readings, in percent of one core.
    percent: f64,
    /// When the process was read, as time since boot. In a long pass, this time differs much between processes.
    read_at: Duration,
    /// When a reading last found that the process had used CPU time, as time since boot. If none has, the time of the first reading.
    idle_since: Duration,
    /// [`Choice::unseen_total`] at the newest reading.
    unseen_total: f64,
    /// Resident memory, in pages.
    resident: u64,
    threads: u64,
    /// See [`Stat::child_faults`].
    child_faults: u64,
    /// The letter of the state.
    state: u8,
    /// The number of the newest pass that found the process.
    pass: u64,
    /// The id of the parent process.
    parent: u32,
    io: KnownIo,
    /// The user and the containers of the process. Only for a process in a published list.
    owner: Option<Box<Owner>>,
}

/// A process that a pass has found and not read.
#[derive(Debug, Clone, Copy)]
struct NewProcess {
    /// The start of the pass that did not find it yet, as time since boot.
    not_before: Option<Duration>,
    /// Whether the agent may not read the process. Such a process does not count.
    is_refused: bool,
    /// The number of the newest pass that found the process.
    pass: u64,
}

/// The data of one pass. The next pass uses the same memory.
#[derive(Default)]
struct Buffers {
    entries: Vec<MaybeUninit<u8>>,
    /// The processes that this pass has listed, and those of them that it has read, and has not read.
    pids: Vec<u32>,
    read: Vec<u32>,
    unread: Vec<u32>,
    found: Vec<Found>,
    /// The processes with I/O.
    io: Vec<IoFound>,
}

/// What the lists of processes are sorted by.
struct Found {
    pid: u32,
    /// CPU use in percent of one core.
    percent: f64,
    /// Resident memory, in pages.
    resident: u64,
}

/// A list of the host's processes.
#[derive(Debug, Clone, Copy)]
struct List {
    /// The start of the pass that made it, as time since boot.
    at: Duration,
    /// The number of its processes. Processes that the agent may not read do not count.
    length: u64,
    /// The kernel's number of processes at that time. None if it could not be read, or changed.
    number: Option<u64>,
}

/// The result of a pass.
#[derive(Clone)]
pub(super) struct ProcessFigures {
    counts: ProcessCounts,
    /// The processes that use the most CPU.
    busiest: Vec<TopProcess>,
    /// The processes that use the most memory.
    largest: Vec<TopProcess>,
    /// The processes with the highest I/O. None if the agent may not read the I/O of other users' processes.
    most_io: Option<Vec<TopIo>>,
    /// CPU use of the engine's processes, in percent of one core. None if the engine has no process.
    engine_cpu_percent: Option<f64>,
}

/// Why the processes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessesError {
    #[error("cannot read /proc")]
    Read(#[from] io::Error),
    #[error("cannot read /proc: it hides the processes of other users from the agent (hidepid)")]
    Hidden,
}

impl MetricFamily for Processes {
    const NAME: &'static str = "processes";
    const COMPARES: bool = true;

    type Figures = ProcessFigures;
    type Error = ProcessesError;

    fn read(&mut self, round: &Round<'_>) -> Result<ProcessFigures, ProcessesError> {
        let now = Instant::now();
        if let Some((figures, at)) = &self.last_pass
            && now - *at < MIN_CPU_INTERVAL
        {
            return Ok(figures.clone());
        }
        self.last_pass = None;
        // The load averages of a guest are computed from the states of all its processes.
        let needs_all = (round.guest.as_ref()).is_some_and(|guest| guest.computes_load);
        let busy = round.busy.filter(|_| !needs_all);
        let figures = self.pass(round.memory_total, round.names, busy)?;
        self.last_pass = Some((figures.clone(), now));
        Ok(figures)
    }

    fn publish(&mut self, figures: ProcessFigures, round: &mut Round<'_>) {
        round.engine_cpu_percent = figures.engine_cpu_percent;
        let metrics = &mut round.metrics;
        metrics.processes = Some(figures.counts);
        metrics.top_processes = figures.busiest;
        metrics.top_memory = figures.largest;
        match figures.most_io {
            Some(most_io) => metrics.top_io = most_io,
            None => metrics.top_io_of_groups = Some(self.listed),
        }
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.top_processes = round.last.top_processes.clone();
    }
}

impl Processes {
    /// Creates the family. It publishes three lists of processes, each with `listed` processes: by CPU use, by memory and by I/O.
    /// `commands` has the parts of command lines to replace, if command lines are published.
    pub(super) fn new(listed: usize, users: Users, commands: Option<Redaction>) -> Self {
        Self {
            listed,
            proc: None,
            known: HashMap::new(),
            new: HashMap::new(),
            max_kept: max_kept_files(),
            room_for_files: 0,
            pass_number: 0,
            full_pass: 0,
            number: NumberOfProcesses::default(),
            list: None,
            listed_at: None,
            has_found_end: false,
            before: None,
            ticks_per_second: clock_ticks_per_second() as f64,
            page: page_size() as u64,
            users,
            counts_files: None,
            commands,
            choice: Choice::default(),
            buffers: Buffers::default(),
            last_pass: None,
        }
    }

    /// Makes one pass over the processes. `host_memory` is in bytes. `busy` is the CPU time that all processes of the host have used
    /// since boot, in seconds.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be read, or if it hides the processes of other users from the agent.
    fn pass(
        &mut self,
        host_memory: u64,
        names: &ContainerNames,
        busy: Option<f64>,
    ) -> Result<ProcessFigures, ProcessesError> {
        let now = PassTimes {
            at: since_boot(),
            busy,
        };
        let proc = self.find(now)?;
        self.before = Some(now.at);
        if !self.known.contains_key(&FIRST_PID) {
            return Err(ProcessesError::Hidden);
        }
        self.users.refresh();
        // Older kernels report 0 for every process. The agent itself always has open files.
        let counts_files = *self.counts_files.get_or_insert_with(|| {
            open_files(proc.as_fd(), process::id()).is_some_and(|open| open > 0)
        });
        let needs_groups = needs_groups(self.known.values().map(|known| known.io.access()));
        let proc = Proc {
            folder: proc.as_fd(),
            users: &self.users,
            commands: self.commands.as_ref(),
            pass: self.pass_number,
            full_pass: self.full_pass,
        };
        let Self {
            buffers,
            known,
            room_for_files,
            ..
        } = self;
        let Buffers { found, io, .. } = buffers;
        let (mut counts, mut engine) = (ProcessCounts::default(), None);
        // Most processes have one thread and sleep.
        let listed = self.list.map_or(0, |list| list.length);
        let unknown = listed.saturating_sub(known.len() as u64);
        counts.total += unknown;
        counts.threads += unknown;
        counts.sleeping += unknown;
        found.clear();
        for (pid, process) in &*known {
            let percent = process.percent;
            count(&mut counts, process);
            if is_engine(&process.name) {
                *engine.get_or_insert(0.0) += percent;
            }
            found.push(Found {
                pid: *pid,
                percent,
                resident: process.resident,
            });
        }
        let container_of = |owner: &Owner| {
            let container = names.by_ids(&owner.containers)?;
            Some(container.to_owned())
        };
        let with_io = |one: &IoFound| {
            let process = known.get_mut(&one.pid)?;
            let name = process.name();
            let owner = process.owner(&proc, one.pid, room_for_files);
            Some(TopIo {
                name,
                pid: Some(one.pid),
                unit: None,
                user: owner.user.clone(),
                container: container_of(owner),
                read_bytes_per_second: one.rates.read,
                write_bytes_per_second: one.rates.written,
            })
        };
        let most_io = highest(io, self.listed).iter().filter_map(with_io);
        let most_io = (!needs_groups).then(|| most_io.collect());
        let mut published = |one: &Found| {
            let process = known.get_mut(&one.pid)?;
            let resident = process.resident * self.page;
            let (name, threads) = (process.name(), process.threads);
            let owner = process.owner(&proc, one.pid, room_for_files);
            Some(TopProcess {
                name,
                cpu: figure(one.percent, 2),
                mem: figure(share(resident, host_memory), 2),
                pid: one.pid,
                memory_rss: Some(resident),
                threads: Some(threads),
                open_files: owner.open_files.filter(|_| counts_files),
                user: owner.user.clone(),
                command: owner.command.clone(),
                container: container_of(owner),
            })
        };
        // Sorts by the rounded percentage, because snapshots contain the rounded percentage.
        let by_cpu = |one: &Found| ((one.percent * 100.0).round() as u64, one.resident);
        let by_memory = |one: &Found| (one.resident, (one.percent * 100.0).round() as u64);
        Ok(ProcessFigures {
            counts,
            busiest: top(found, self.listed, by_cpu)
                .iter()
                .filter_map(&mut published)
                .collect(),
            largest: top(found, self.listed, by_memory)
                .iter()
                .filter_map(published)
                .collect(),
            most_io,
            engine_cpu_percent: engine.map(|percent| figure(percent, 2)),
        })
    }

    /// Reads the active processes, and the processes that were new in the previous pass. A full pass also reads the other processes that
    /// [`Choice`] selects. Before that, lists the processes
    ///
    /// * if their number has changed, or is not known,
    /// * if one of the processes that it reads, or a child of one, has ended. If the number is the same, another one has started. In addition,
    ///   the kernel counts the I/O of a process that has ended for its parent, so the end must be known before the I/O of the parent is
    ///   calculated.
    /// * if a full pass is due.
    fn find(&mut self, now: PassTimes) -> io::Result<Arc<OwnedFd>> {
        let proc = self.folder()?;
        self.pass_number += 1;
        self.buffers.read.clear();
        self.buffers.unread.clear();
        self.has_found_end = false;
        let is_full_due = self.choice.is_full_due(now);
        let number = self.number.read(proc.as_fd());
        // None until this pass has succeeded, so that the next one lists the processes if it fails.
        let listed = self.list.take();
        let listed = listed.filter(|list| number.is_some() && list.number == number);
        let mut list = match listed {
            Some(list) if !is_full_due => {
                let pids = &mut self.buffers.pids;
                pids.extend(self.known.keys().chain(self.new.keys()));
                list
            }
            _ => self.list(&proc, now)?,
        };
        let kept = self.known.values().map(KnownProcess::kept_files).sum();
        self.room_for_files = self.max_kept.saturating_sub(kept);
        let ticks_per_second = self.ticks_per_second;
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second;
        let mut used = self.read_due(&proc, now, is_full_due)?;
        let is_old = list.at != now.at;
        if is_old
            && (self.has_found_end
                || self
                    .choice
                    .is_more_used(now, seconds(used), self.quiet_cores()))
        {
            list = self.list(&proc, now)?;
            self.take_back_unread();
            used += self.read_due(&proc, now, is_full_due)?;
        }
        let must_read_all = (self.choice).is_more_used(now, seconds(used), self.quiet_cores());
        if must_read_all {
            let mut unread = std::mem::take(&mut self.buffers.unread);
            for pid in unread.drain(..) {
                used += self.read_one(&proc, pid)?;
            }
            self.buffers.unread = unread;
        }
        self.note_pass(now, seconds(used), must_read_all || is_full_due);
        self.forget_ended();
        self.read_io(&proc);
        if list.at == now.at {
            let refused = self.new.values().filter(|new| new.is_refused).count();
            list.length = list.length.saturating_sub(refused as u64);
        }
        self.list = Some(list);
        self.listed_at = Some(list.at);
        Ok(proc)
    }

    /// Records a pass. `used` is the CPU time of the processes that it read, in seconds. `is_full` says whether it was a full pass, or
    /// read all processes.
    fn note_pass(&mut self, now: PassTimes, used: f64, is_full: bool) {
        for pid in &self.buffers.unread {
            if let Some(known) = self.known.get_mut(pid)
                && known.used_since == 0
            {
                known.io.skip(now.at);
            }
        }
        if is_full {
            self.full_pass = self.pass_number;
            self.choice
                .note_full(now, used, self.buffers.unread.is_empty());
        } else {
            self.choice.note_partial(now, used, self.quiet_cores());
        }
    }

    /// Returns the directory `/proc`, which stays open.
    fn folder(&mut self) -> io::Result<Arc<OwnedFd>> {
        if let Some(proc) = &self.proc {
            return Ok(Arc::clone(proc));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = Arc::new(open("/proc", flags, Mode::empty())?);
        Ok(Arc::clone(self.proc.insert(proc)))
    }

    /// Reads those of the listed processes that must be read and that this pass has not read yet, and stores the others in `unread`.
    /// Returns the CPU time that the processes have used since their previous readings, in ticks.
    fn read_due(&mut self, proc: &OwnedFd, now: PassTimes, is_full_due: bool) -> io::Result<u64> {
        let mut pids = std::mem::take(&mut self.buffers.pids);
        let mut used = 0;
        for pid in pids.drain(..) {
            let known = self.known.get(&pid);
            if known.is_some_and(|known| known.read_at >= now.at) {
                continue;
            }
            if self.must_read(pid, now, is_full_due) {
                used += self.read_one(proc, pid)?;
                continue;
            }
            match self.known.get_mut(&pid) {
                Some(known) => known.skip(self.pass_number),
                None => {
                    let new = self.new.entry(pid).or_insert(NewProcess {
                        not_before: self.listed_at,
                        is_refused: false,
                        pass: 0,
                    });
                    new.pass = self.pass_number;
                }
            }
            self.buffers.unread.push(pid);
        }
        self.buffers.pids = pids;
        Ok(used)
    }

    /// Returns the CPU use of the processes in `unread` at their newest readings, in cores.
    fn quiet_cores(&self) -> f64 {
        let unread = self.buffers.unread.iter();
        let percents = unread.filter_map(|pid| Some(self.known.get(pid)?.percent));
        percents.sum::<f64>() / 100.0
    }

    /// Makes the processes in `unread` count as not found by this pass.
    fn take_back_unread(&mut self) {
        for pid in self.buffers.unread.drain(..) {
            if let Some(known) = self.known.get_mut(&pid) {
                known.pass = 0;
            } else if let Some(new) = self.new.get_mut(&pid) {
                new.pass = 0;
            }
        }
    }

    /// Removes the processes that have ended. Their nearest ancestors that still run inherit their I/O.
    fn forget_ended(&mut self) {
        let pass = self.pass_number;
        self.new.retain(|_, new| new.pass == pass);
        let ended = self.known.extract_if(|_, known| known.pass != pass);
        let ended: HashMap<u32, KnownProcess> = ended.collect();
        for process in ended.values() {
            let mut heir = process.parent;
            for _ in 0..MAX_GENERATIONS {
                match ended.get(&heir) {
                    Some(parent) => heir = parent.parent,
                    None => break,
                }
            }
            if let Some(heir) = self.known.get_mut(&heir) {
                heir.io.inherit(process.io.legacy());
            }
        }
    }

    /// Returns whether the pass must read a process even if the CPU time of the host shows that nothing else was active.
    fn must_read(&self, pid: u32, now: PassTimes, is_full_due: bool) -> bool {
        match self.known.get(&pid) {
            Some(known) if is_full_due && known.is_quiet(self.pass_number) => {
                (self.choice).is_due_in_full_pass(now, pid, known.read_at, known.idle_since)
            }
            Some(known) => !known.is_quiet(self.pass_number),
            None => match self.new.get(&pid) {
                Some(new) => is_full_due || !new.is_refused,
                // Most new processes have ended before the next pass.
                None => is_full_due && !self.choice.next_is_soon(now),
            },
        }
    }

    /// Reads the I/O of the processes that this pass has read and that can have had I/O.
    fn read_io(&mut self, proc: &OwnedFd) {
        self.buffers.io.clear();
        if self.listed == 0 {
            return;
        }
        let (own_user, room) = (geteuid().as_raw(), &mut self.room_for_files);
        for &pid in &self.buffers.read {
            let Some(known) = self.known.get_mut(&pid) else {
                continue;
            };
            let is_active = known.used_since > 0 || known.state == BLOCKED;
            let rates = known.io.update(is_active, since_boot, |kept, access| {
                process_io::read(proc.as_fd(), pid, own_user, kept, access, room)
            });
            let found = rates.map(|rates| IoFound { pid, rates });
            self.buffers.io.extend(found);
        }
    }

    /// Lists the ids of all processes in `buffers`.
    fn list(&mut self, proc: &OwnedFd, now: PassTimes) -> io::Result<List> {
        let before = self.number.read(proc.as_fd());
        let Buffers { pids, entries, .. } = &mut self.buffers;
        pids.clear();
        entries.resize(ENTRIES_SIZE, MaybeUninit::uninit());
        seek(proc, SeekFrom::Start(0))?;
        let mut directory = RawDir::new(proc, entries);
        while let Some(entry) = directory.next() {
            pids.extend(process_id(entry?.file_name()));
        }
        let length = pids.len() as u64;
        let number = self.number.read(proc.as_fd());
        Ok(List {
            at: now.at,
            length,
            // A number below `length` is not the kernel's, so `/proc` is emulated.
            number: number.filter(|number| Some(*number) == before && *number >= length),
        })
    }

    /// Reads one process. Returns the CPU time that it has used since its previous reading, in ticks. Leaves out a process that has
    /// ended or that is hidden from the agent.
    fn read_one(&mut self, proc: &OwnedFd, pid: u32) -> io::Result<u64> {
        let mut text = [0; TEXT_SIZE];
        let new = self.new.remove(&pid);
        let known = self.known.get_mut(&pid);
        let kept = known.and_then(|known| {
            // If the process has ended, `forget_ended` removes it.
            known.pass = 0;
            known.file.take()
        });
        let (file, length) = match self.read_stat(proc, pid, kept, &mut text) {
            Ok(read) => read,
            Err(Errno::NOENT | Errno::SRCH) => {
                self.has_found_end |= self.known.contains_key(&pid);
                return Ok(0);
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                let refused = NewProcess {
                    not_before: new.map_or(self.listed_at, |new| new.not_before),
                    is_refused: true,
                    pass: self.pass_number,
                };
                self.new.insert(pid, refused);
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        match parse(&text[..length]) {
            Some(stat) => Ok(self.store(pid, new, file, &stat)),
            None => Ok(0),
        }
    }

    /// Compares the reading of a process with the previous one, and stores it. `new` is what an earlier pass has found, if none has read
    /// the process. Returns the CPU time as [`Self::read_one`] does.
    fn store(
        &mut self,
        pid: u32,
        new: Option<NewProcess>,
        file: Option<OwnedFd>,
        stat: &Stat<'_>,
    ) -> u64 {
        let read_at = since_boot();
        let not_before = new.map_or(self.listed_at, |new| new.not_before);
        let was_found = new.is_some_and(|new| new.pass < self.pass_number);
        let known = self.known.remove(&pid);
        let was_known = known.is_some();
        let before = known.filter(|before| before.started == stat.started);
        self.has_found_end |= was_known && before.is_none();
        let is_new = self.is_new(stat, not_before);
        // The first figures of a process cover its whole life, and at least the time since the previous pass, because the life can be
        // too short for a rate.
        let started = Duration::from_secs_f64(stat.started as f64 / self.ticks_per_second);
        let since_start = self.before.map(|before| before.min(started));
        let (base, since) = match &before {
            Some(before) => (before.used, Some(before.read_at)),
            None if is_new => (0, since_start),
            // The process is older than the previous pass, but that pass did not find it. There is nothing to compare with.
            None => (stat.used, self.before),
        };
        let lost_child = |before: &KnownProcess| before.child_faults != stat.child_faults;
        self.has_found_end |= before.as_ref().is_some_and(lost_child);
        let idle_since = before.as_ref().map(|before| before.idle_since);
        let unseen_total = self.choice.unseen_total();
        let unseen = before
            .as_ref()
            .map(|before| unseen_total - before.unseen_total);
        let (name, owner, io) = match before {
            Some(before) => (before.name, before.owner, before.io),
            None if is_new => {
                let since = if was_found { since_start } else { self.before };
                (Box::default(), None, KnownIo::of_new_process(since))
            }
            None => (Box::default(), None, KnownIo::default()),
        };
        let used_since = stat.used.saturating_sub(base);
        let seconds_since =
            |at: Option<Duration>| at.map_or(0.0, |at| read_at.saturating_sub(at).as_secs_f64());
        let used = used_since as f64 / self.ticks_per_second;
        let elapsed = seconds_since(since);
        // If an earlier pass has found a process and not read it, the process was probably as active then as now.
        let recent = match was_found {
            true => elapsed,
            false => seconds_since(self.before),
        };
        let cores = use_of(used, elapsed, recent, unseen.unwrap_or(f64::INFINITY));
        let (name, owner) = match *name == *stat.name {
            true => (name, owner),
            // The process runs another program now, so its command line and possibly its user are different.
            false => (
                stat.name.into(),
                owner.map(|owner| Box::new(owner.outdated())),
            ),
        };
        let known = KnownProcess {
            file,
            name,
            started: stat.started,
            used: stat.used,
            used_since,
            percent: cores * 100.0,
            read_at,
            idle_since: idle_since.filter(|_| used_since == 0).unwrap_or(read_at),
            unseen_total,
            resident: stat.resident,
            threads: stat.threads,
            child_faults: stat.child_faults,
            state: stat.state,
            pass: self.pass_number,
            parent: stat.parent,
            io,
            owner,
        };
        let known = self.known.entry(pid).insert_entry(known).into_mut();
        known.close_owner(self.pass_number);
        self.buffers.read.push(pid);
        used_since
    }

    /// Reads `stat` of a process into `text`. Returns the open file, if the file can stay open, and the length of the text.
    fn read_stat(
        &mut self,
        proc: &OwnedFd,
        pid: u32,
        kept: Option<OwnedFd>,
        text: &mut [u8; TEXT_SIZE],
    ) -> Result<(Option<OwnedFd>, usize), Errno> {
        if let Some(file) = kept
            && let Ok(length) = retry_on_intr(|| pread(&file, &mut text[..], 0))
        {
            return Ok((Some(file), length));
        }
        // Either no file was open, or the process of the open file has ended and another process has the same id.
        let (file, length) = read_file(proc.as_fd(), pid, "stat", text)?;
        if self.room_for_files == 0 {
            return Ok((None, length));
        }
        self.room_for_files -= 1;
        Ok((Some(file), length))
    }

    /// Returns whether a process has started after the start of a pass that did not find it, `not_before`. All CPU time of such a
    /// process counts.
    fn is_new(&self, stat: &Stat<'_>, not_before: Option<Duration>) -> bool {
        not_before.is_some_and(|before| {
            // The kernel rounds the start time down to whole ticks.
            (stat.started + 1) as f64 / self.ticks_per_second >= before.as_secs_f64()
        })
    }
}

/// Parses the name of an entry of `/proc`. Returns none if the entry is not a process.
fn process_id(entry: &CStr) -> Option<u32> {
    decimal(entry.to_bytes())?.try_into().ok()
}

impl KnownProcess {
    /// Returns whether the process did nothing before its newest reading that a pass has to follow. The processes in the lists are
    /// read in each pass, so that their memory is current.
    fn is_quiet(&self, pass: u64) -> bool {
        self.percent < MAX_QUIET_PERCENT
            && !matches!(self.state, RUNNING | BLOCKED)
            && !self.io.had_io()
            && !self.is_listed(pass)
            && !ENGINE.contains(&&*self.name)
    }

    /// Returns whether the process was in a published list of the pass before `pass`.
    fn is_listed(&self, pass: u64) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| owner.pass + 1 == pass)
    }

    /// Records that a pass has found the process, and has not read it because it was quiet.
    fn skip(&mut self, pass: u64) {
        self.pass = pass;
        self.close_owner(pass);
    }

    /// Closes the files of a process that was in no published list of the previous pass.
    fn close_owner(&mut self, pass: u64) {
        if !self.is_listed(pass) {
            self.owner = None;
        }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// Returns the number of files of this process that are open.
    fn kept_files(&self) -> u64 {
        let owner = self.owner.iter().flat_map(|owner| &owner.files);
        let kept = [&self.file].into_iter().chain(owner).flatten();
        kept.count() as u64 + self.io.kept_files()
    }

    /// Returns the user and the containers of the process. They are read again after each full pass, because a
    /// process can change its user and its control group. The open files of an active process are counted in each pass.
    fn owner(&mut self, proc: &Proc<'_>, pid: u32, room_for_files: &mut u64) -> &Owner {
        let mut owner = match self.owner.take() {
            Some(owner) if owner.read_in >= proc.full_pass => owner,
            before => {
                let files = before.map(|before| before.files).unwrap_or_default();
                Box::new(Owner::read(proc, pid, files, room_for_files))
            }
        };
        let is_new = owner.read_in == proc.pass;
        if owner.pass < proc.pass && (is_new || self.used_since > 0) {
            owner.open_files = open_files(proc.folder, pid);
        }
        owner.pass = proc.pass;
        self.owner.insert(owner)
    }
}

/// Adds a process to the counts.
fn count(counts: &mut ProcessCounts, process: &KnownProcess) {
    counts.total += 1;
    counts.threads += process.threads;
    let state = match process.state {
        RUNNING => &mut counts.running,
        BLOCKED => &mut counts.blocked,
        b'T' | b't' => &mut counts.stopped,
        b'Z' | b'X' | b'x' => &mut counts.zombie,
        // Includes the states idle and parked of kernel threads.
        _ => &mut counts.sleeping,
    };
    *state += 1;
}

/// Returns the `listed` processes with the largest key, largest first. Processes with equal keys are in the order of their ids.
fn top<K: Ord>(found: &mut [Found], listed: usize, key: impl Fn(&Found) -> K) -> &[Found] {
    let order =
        |a: &Found, b: &Found| -> Ordering { key(b).cmp(&key(a)).then_with(|| a.pid.cmp(&b.pid)) };
    let listed = listed.min(found.len());
    if listed < found.len() {
        found.select_nth_unstable_by(listed, order);
    }
    let top = &mut found[..listed];
    top.sort_unstable_by(order);
    top
}

fn is_engine(name: &[u8]) -> bool {
    ENGINE.contains(&name) || name.starts_with(SHIM)
}

/// Returns `part` in percent of `whole`. Returns 0 if `whole` is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{AsFd, Choice, ContainerNames, Found, Processes, Users, top};
    use crate::collect::system::process_io::IoCounters;
    use crate::settings::HostRoot;

    #[test]
    fn processes_are_sorted_by_cpu_then_memory_then_id() {
        let one = |pid, used, resident| Found {
            pid,
            percent: f64::from(used),
            resident,
        };
        let all = || {
            vec![
                one(4, 0, 1),
                one(3, 9, 1),
                one(2, 0, 7),
                one(1, 0, 1),
                one(5, 1, 0),
            ]
        };
        let pids = |listed| -> Vec<u32> {
            let key = |one: &Found| (one.percent as u64, one.resident);
            top(&mut all(), listed, key)
                .iter()
                .map(|one| one.pid)
                .collect()
        };
        assert_eq!(pids(10), [3, 5, 2, 1, 4]);
        assert_eq!(pids(3), [3, 5, 2]);
        assert_eq!(pids(0), [0; 0]);
    }

    #[test]
    fn a_process_that_has_ended_is_removed() {
        let mut processes = Processes::new(5, Users::new(HostRoot::default()), None);
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        listed_pass(&mut processes, None);
        assert!(processes.known.contains_key(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        listed_pass(&mut processes, None);
        assert!(!processes.known.contains_key(&child.id()));
        assert!(processes.known.contains_key(&std::process::id()));
    }

    /// A child that ends with the test, also if the test fails. A child that runs on would use a core without end.
    struct Ending(Child);

    impl Drop for Ending {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Makes a pass that lists the processes. `busy` is the CPU time of all processes of the host, in seconds.
    fn listed_pass(processes: &mut Processes, busy: Option<f64>) -> super::ProcessFigures {
        // Without this, a pass does not list the processes if other tests start as many as they end.
        processes.list = None;
        processes.pass(1, &ContainerNames::default(), busy).unwrap()
    }

    fn pass_with(processes: &mut Processes, busy: f64) -> super::ProcessFigures {
        listed_pass(processes, Some(busy))
    }

    /// Starts a process that is idle until it gets a line, and then uses a whole core.
    fn start_idle() -> Ending {
        let child = Command::new("sh")
            .args(["-c", "read line; while :; do :; done"])
            .stdin(Stdio::piped())
            .spawn();
        Ending(child.unwrap())
    }

    #[test]
    fn an_idle_process_is_read_when_the_host_uses_more_cpu_time_than_the_other_processes() {
        let mut child = start_idle();
        let pid = child.0.id();
        // A process in a published list is read in each pass, so nothing is listed at first.
        let mut processes = Processes::new(0, Users::new(HostRoot::default()), None);
        // The shell is new for the first pass, and has been idle since then for the second one.
        thread::sleep(Duration::from_millis(300));
        pass_with(&mut processes, 0.0);
        processes.choice = Choice::default();
        pass_with(&mut processes, 0.0);
        let idle_since = processes.known[&pid].read_at;
        child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(100));
            let figures = pass_with(&mut processes, 0.0);
            assert_eq!(processes.known[&pid].read_at, idle_since);
            // Some of the listed processes can have ended.
            let all = processes.known.len() + processes.new.len();
            assert!(figures.counts.total >= all as u64);
        }
        processes.listed = usize::MAX;
        let figures = pass_with(&mut processes, 1000.0);
        let known = &processes.known[&pid];
        assert!(known.read_at > idle_since);
        // It has used nearly a whole core, although the time since its previous reading is long.
        assert!(known.used_since > 20 && known.percent > 30.0, "{known:?}");
        assert!(figures.busiest.iter().any(|process| process.pid == pid));
        // It is active now, so each pass reads it.
        let active_since = processes.known[&pid].read_at;
        pass_with(&mut processes, 1000.0);
        assert!(processes.known[&pid].read_at > active_since);
        drop(child);
        pass_with(&mut processes, 1000.0);
        assert!(!processes.known.contains_key(&pid));
    }

    #[test]
    fn a_full_pass_reads_a_dormant_process_in_one_of_four_passes() {
        let children = [start_idle(), start_idle()];
        let [dormant, idle] = [0, 1].map(|child: usize| children[child].0.id());
        let mut processes = Processes::new(0, Users::new(HostRoot::default()), None);
        thread::sleep(Duration::from_millis(300));
        pass_with(&mut processes, 0.0);
        pass_with(&mut processes, 0.0);
        let minute = Duration::from_secs(61);
        let known = processes.known.get_mut(&dormant).unwrap();
        known.idle_since = known.idle_since.saturating_sub(minute);
        let mut reads = [0, 0];
        for _ in 0..4 {
            let read_at = |processes: &Processes, pid| processes.known[&pid].read_at;
            let before = [dormant, idle].map(|pid| read_at(&processes, pid));
            processes.choice.age(Duration::from_secs(15));
            let figures = pass_with(&mut processes, 0.0);
            assert_eq!(processes.full_pass, processes.pass_number);
            assert!(figures.counts.total >= processes.known.len() as u64);
            for ((pid, before), reads) in [dormant, idle].into_iter().zip(before).zip(&mut reads) {
                *reads += usize::from(read_at(&processes, pid) > before);
            }
        }
        assert_eq!(reads, [1, 4]);
    }

    #[test]
    fn a_full_pass_reads_a_new_process_only_if_the_next_pass_is_far() {
        let mut processes = Processes::new(0, Users::new(HostRoot::default()), None);
        pass_with(&mut processes, 0.0);
        for (interval, is_read) in [(0, false), (15, true)] {
            let child = start_idle();
            let pid = child.0.id();
            let interval = Duration::from_secs(interval);
            processes.choice.age(interval);
            processes.choice.age_full(Duration::from_secs(16));
            pass_with(&mut processes, 0.0);
            assert_eq!(processes.full_pass, processes.pass_number);
            assert_eq!(processes.known.contains_key(&pid), is_read, "{interval:?}");
            assert_eq!(processes.new.contains_key(&pid), !is_read, "{interval:?}");
            pass_with(&mut processes, 0.0);
            assert!(processes.known.contains_key(&pid), "{interval:?}");
        }
    }

    #[test]
    fn a_full_pass_tries_again_to_read_a_process_that_was_refused() {
        let mut processes = Processes::new(0, Users::new(HostRoot::default()), None);
        pass_with(&mut processes, 0.0);
        let child = start_idle();
        let pid = child.0.id();
        pass_with(&mut processes, 0.0);
        processes.new.get_mut(&pid).unwrap().is_refused = true;
        pass_with(&mut processes, 0.0);
        assert!(!processes.known.contains_key(&pid));
        processes.choice.age_full(Duration::from_secs(16));
        pass_with(&mut processes, 0.0);
        assert!(processes.known.contains_key(&pid));
    }

    /// Fails unless the CPU use of a busy process is that of its whole life.
    fn assert_rate_of_life(processes: &Processes, pid: u32) {
        let known = &processes.known[&pid];
        assert!(known.used_since > 10, "{known:?}");
        // Its start and its CPU time are rounded to ticks.
        let life = known.read_at.as_secs_f64() - known.started as f64 / processes.ticks_per_second;
        let percent = known.used_since as f64 / processes.ticks_per_second / life * 100.0;
        let off = (known.percent - percent).abs();
        assert!(off < 1.0, "{percent}, {known:?}");
    }

    #[test]
    fn a_new_process_is_read_in_the_second_pass_that_finds_it() {
        let mut processes = Processes::new(usize::MAX, Users::new(HostRoot::default()), None);
        pass_with(&mut processes, 0.0);
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        let child = Ending(child.unwrap());
        let pid = child.0.id();
        thread::sleep(Duration::from_millis(300));
        let figures = pass_with(&mut processes, 0.0);
        assert!(processes.new.contains_key(&pid) && !processes.known.contains_key(&pid));
        let all = (processes.known.len() + processes.new.len()) as u64;
        assert!(figures.counts.total >= all && figures.counts.total < all + 20);
        thread::sleep(Duration::from_millis(300));
        pass_with(&mut processes, 0.0);
        assert!(!processes.new.contains_key(&pid));
        // All of its CPU time counts, also the time before the first of these passes.
        assert_rate_of_life(&processes, pid);
        // A process that has ended before the second pass is forgotten.
        let mut short = Command::new("true").spawn().unwrap();
        thread::sleep(Duration::from_millis(50));
        pass_with(&mut processes, 0.0);
        assert!(processes.new.contains_key(&short.id()));
        short.wait().unwrap();
        pass_with(&mut processes, 0.0);
        assert!(!processes.new.contains_key(&short.id()));
        assert!(!processes.known.contains_key(&short.id()));
        // A process that is read in the first pass that finds it has lived too short for a rate of its own.
        thread::sleep(Duration::from_millis(500));
        let young = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        let young = Ending(young.unwrap());
        thread::sleep(Duration::from_millis(50));
        pass_with(&mut processes, 1000.0);
        let known = &processes.known[&young.0.id()];
        assert!(known.percent < 50.0, "{known:?}");
    }

    /// Makes a pass that does not list the processes, unless other tests start or end one at the same moment.
    fn pass_without_list(processes: &mut Processes, busy: f64) -> super::ProcessFigures {
        let proc = processes.proc.clone().unwrap();
        let number = processes.number.read(proc.as_fd());
        processes.list.as_mut().unwrap().number = number;
        let names = ContainerNames::default();
        processes.pass(1, &names, Some(busy)).unwrap()
    }

    #[test]
    fn a_busy_process_is_found_although_the_number_of_processes_is_the_same() {
        let mut processes = Processes::new(0, Users::new(HostRoot::default()), None);
        pass_with(&mut processes, 0.0);
        let mut child = start_idle();
        let pid = child.0.id();
        thread::sleep(Duration::from_millis(300));
        pass_without_list(&mut processes, 0.0);
        // A process of another test can have ended, so that the pass has made a list.
        processes.new.remove(&pid);
        child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        thread::sleep(Duration::from_millis(500));
        let before = processes.before.unwrap();
        pass_without_list(&mut processes, 1000.0);
        // It was idle until the previous pass, so its CPU use is that of the time since then.
        let known = &processes.known[&pid];
        let recent = (known.read_at - before).as_secs_f64();
        let percent = known.used_since as f64 / processes.ticks_per_second / recent * 100.0;
        // Up to 5 % of a core can have been used before without being noticed.
        let idle = before.as_secs_f64() - known.started as f64 / processes.ticks_per_second;
        let off = (known.percent - percent).abs();
        let is_near = off < 1.0 + 5.0 * idle / recent;
        assert!(known.used_since > 10 && is_near, "{percent}, {known:?}");
    }

    #[test]
    fn processes_are_listed_when_one_has_ended_and_another_has_started() {
        let mut processes = Processes::new(usize::MAX, Users::new(HostRoot::default()), None);
        let mut first = Command::new("sleep").arg("100").spawn().unwrap();
        pass_with(&mut processes, 0.0);
        first.kill().unwrap();
        first.wait().unwrap();
        let second = Ending(Command::new("sleep").arg("100").spawn().unwrap());
        // The first process was in a list, so this pass reads it.
        pass_without_list(&mut processes, 0.0);
        assert!(!processes.known.contains_key(&first.id()));
        assert!(processes.new.contains_key(&second.0.id()));
        pass_without_list(&mut processes, 0.0);
        assert!(processes.known.contains_key(&second.0.id()));
    }

    #[test]
    fn the_io_of_an_ended_process_is_known_before_that_of_its_parent_is_calculated() {
        let mut processes = Processes::new(usize::MAX, Users::new(HostRoot::default()), None);
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        pass_with(&mut processes, 0.0);
        // Only idle processes that are in no list are not read.
        processes.listed = 0;
        pass_with(&mut processes, 0.0);
        pass_with(&mut processes, 0.0);
        let written = IoCounters {
            read: 0,
            written: 1 << 40,
        };
        let known = processes.known.get_mut(&child.id()).unwrap();
        known.io.inherit(written);
        child.kill().unwrap();
        child.wait().unwrap();
        // The parent, which is active, shows that a child has ended.
        let own = std::process::id();
        processes.known.get_mut(&own).unwrap().percent = 50.0;
        pass_without_list(&mut processes, 0.0);
        assert!(!processes.known.contains_key(&child.id()));
        assert!(processes.known[&own].io.legacy().written >= 1 << 40);
    }

    #[test]
    fn the_number_of_open_files_stays_within_its_limit() {
        let mut processes = Processes::new(5, Users::new(HostRoot::default()), None);
        let mut kept_of_all = |most| {
            processes.max_kept = most;
            let read = listed_pass(&mut processes, None);
            let known = processes.known.values();
            let kept = known.filter(|known| known.file.is_some()).count();
            // A process that ends during the pass can be listed and not read.
            assert!(read.counts.total >= processes.known.len() as u64);
            (kept, processes.known.len())
        };
        assert_eq!(kept_of_all(1).0, 1);
        assert_eq!(kept_of_all(2).0, 2);
        // Without a limit, the file of every process stays open. With a limit of 0, no further file stays open.
        let (kept, all) = kept_of_all(u64::MAX);
        assert_eq!(kept, all);
        assert!(kept_of_all(0).0 <= kept);
    }

    #[test]
    fn the_owner_files_of_a_process_that_leaves_the_list_are_closed() {
        let mut processes = Processes::new(1000, Users::new(HostRoot::default()), None);
        processes.max_kept = u64::MAX;
        let mut kept_owner_files = |listed| {
            processes.listed = listed;
            let read = listed_pass(&mut processes, None);
            let known = processes.known.values();
            let owner_files = known.map(|known| {
                known.kept_files() - u64::from(known.file.is_some()) - known.io.kept_files()
            });
            (owner_files.sum::<u64>(), read.busiest.len() as u64)
        };
        let (kept, listed) = kept_owner_files(1000);
        // Some processes can end between the pass and the count.
        assert!(kept >= listed && kept <= 2 * listed, "{kept} of {listed}");
        // The first pass finds that the processes are not listed. The second pass closes their files.
        kept_owner_files(0);
        assert_eq!(kept_owner_files(0).0, 0);
    }
}
