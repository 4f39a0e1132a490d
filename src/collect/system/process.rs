//! The processes: how many there are, which use most, and the engine's among them.
//!
//! One pass over `/proc`: a process costs one system call and no allocation, as its file is kept open;
//! one of too many for that costs three. Of those that are listed, two more files are kept open and read.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, open, openat, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::param::{clock_ticks_per_second, page_size};

use super::containers::{ContainerNames, container_ids};
use super::family::{MetricFamily, Round};
use super::kept_files::may_keep;
use super::proc_stat::{Stat, effective_user, parse, since_boot};
use super::users::Users;
use crate::model::{ProcessCounts, TopProcess, figure};

/// The engine's processes: one each, and a shim per container (`containerd-shim-runc-v2`, of which
/// the kernel keeps 15 bytes).
const ENGINE: [&[u8]; 2] = [b"dockerd", b"containerd"];
const SHIM: &[u8] = b"containerd-shim";
/// Buffers for the text of a process's file: 52 numbers of at most 20 digits and a name in `stat`, and what
/// matters of the others.
const TEXT: usize = 2048;
/// The first process of every PID namespace. A `/proc` in which it cannot be read hides others as well.
const FIRST: u32 = 1;
/// The shortest time that figures are over: the kernel counts CPU time in ticks of 10 ms. Where rounds come faster,
/// some publish the figures of the pass before.
const SHORTEST: Duration = Duration::from_millis(400);
/// Size of the buffer for entries of `/proc`. One system call returns as many entries as fit.
const ENTRIES: usize = 32 * 1024;

/// What is kept of the processes between two readings.
pub(super) struct Processes {
    listed: usize,
    /// None until it could be opened.
    proc: Option<Arc<OwnedFd>>,
    known: HashMap<u32, KnownProcess>,
    /// How many files may be kept open, and how many more in this pass.
    most_kept: u64,
    room_for_files: u64,
    /// The number of this pass, by which what has not been seen in it is told.
    pass_number: u64,
    /// When the pass before began, since boot; none before the first.
    before: Option<Duration>,
    ticks_per_second: f64,
    page: u64,
    users: Users,
    /// Buffers for one pass, kept for the next.
    room: Buffers,
    /// The figures of the last pass, and when it began.
    last_pass: Option<(ProcessFigures, Instant)>,
}

/// What is known of a process from the pass before.
#[derive(Debug)]
struct KnownProcess {
    /// Its `stat`. It stays its own, whoever gets its id: once it has ended, reading fails.
    file: Option<OwnedFd>,
    /// Tells a process from a later one with the same id.
    started: u64,
    used: u64,
    /// When that was read, since boot: among thousands some are read much sooner in a pass than others.
    read_at: Duration,
    pass: u64,
    /// Only of processes that are listed.
    whose: Option<Box<Whose>>,
}

/// Whose a process is.
#[derive(Debug)]
struct Whose {
    /// The files that say so, as long as it stays listed.
    files: [Option<OwnedFd>; 2],
    user: Option<String>,
    /// What may be the ids of the containers that it runs in.
    containers: Vec<String>,
    /// When this was read.
    pass: u64,
}

#[derive(Default)]
struct Buffers {
    entries: Vec<MaybeUninit<u8>>,
    pids: Vec<u32>,
    found: Vec<Found>,
    /// The names of the processes that were found, one after the other.
    names: Vec<u8>,
    counts: ProcessCounts,
}

/// A process as this pass found it.
struct Found {
    pid: u32,
    name: Range<usize>,
    /// CPU time used since the pass before, in ticks, and the time since then, in seconds.
    used: u64,
    elapsed: f64,
    /// Resident memory, in pages.
    resident: u64,
}

/// The outcome of a pass.
#[derive(Clone)]
pub(super) struct ProcessFigures {
    counts: ProcessCounts,
    /// Those that use most CPU, and those that have most memory.
    busiest: Vec<TopProcess>,
    largest: Vec<TopProcess>,
    /// CPU of the engine's processes, in percent of one core; none where there are none.
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
            && now - *at < SHORTEST
        {
            return Ok(figures.clone());
        }
        self.last_pass = None;
        let figures = self.pass(round.memory_total, round.names)?;
        self.last_pass = Some((figures.clone(), now));
        Ok(figures)
    }

    fn publish(&mut self, figures: ProcessFigures, round: &mut Round<'_>) {
        round.engine_cpu_percent = figures.engine_cpu_percent;
        let metrics = &mut round.metrics;
        metrics.processes = Some(figures.counts);
        metrics.top_processes = figures.busiest;
        metrics.top_memory = figures.largest;
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.top_processes = round.last.top_processes.clone();
    }
}

impl Processes {
    /// Lists the `listed` busiest and the `listed` largest.
    pub(super) fn new(listed: usize, users: Users) -> Self {
        Self {
            listed,
            proc: None,
            known: HashMap::new(),
            most_kept: may_keep(),
            room_for_files: 0,
            pass_number: 0,
            before: None,
            ticks_per_second: clock_ticks_per_second() as f64,
            page: page_size() as u64,
            users,
            room: Buffers::default(),
            last_pass: None,
        }
    }

    /// Reads all processes and compares them with the reading before. `host_memory` is in bytes.
    ///
    /// # Errors
    /// `/proc` cannot be read, or hides the processes of other users from the agent.
    fn pass(
        &mut self,
        host_memory: u64,
        names: &ContainerNames,
    ) -> Result<ProcessFigures, ProcessesError> {
        let began = since_boot();
        let proc = self.find()?;
        self.before = Some(began);
        if !self.room.found.iter().any(|process| process.pid == FIRST) {
            return Err(ProcessesError::Hidden);
        }

        let percent = |process: &Found| {
            // Before the first reading there is nothing that a difference could be taken of.
            if process.elapsed > 0.0 {
                process.used as f64 / self.ticks_per_second / process.elapsed * 100.0
            } else {
                0.0
            }
        };
        let found = &self.room.found;
        let name = |process: &Found| &self.room.names[process.name.clone()];
        let engine = found
            .iter()
            .filter(|process| is_engine(name(process)))
            .map(percent)
            .reduce(|sum, percent| sum + percent);
        self.users.refresh();
        let proc = Proc {
            folder: proc.as_fd(),
            users: &self.users,
            pass: self.pass_number,
        };
        let Self {
            room,
            known,
            room_for_files,
            ..
        } = self;
        let Buffers {
            found, names: text, ..
        } = room;
        let mut published = |process: &Found| {
            let resident = process.resident * self.page;
            let known = known.get_mut(&process.pid);
            let whose = known.map(|known| known.whose(&proc, process.pid, room_for_files));
            TopProcess {
                name: String::from_utf8_lossy(&text[process.name.clone()]).into_owned(),
                cpu: figure(percent(process), 2),
                mem: figure(share(resident, host_memory), 2),
                pid: process.pid,
                memory_rss: Some(resident),
                user: whose.and_then(|whose| whose.user.clone()),
                container: whose
                    .and_then(|whose| names.by_ids(&whose.containers))
                    .map(str::to_owned),
            }
        };
        // As it is published.
        let by_cpu = |one: &Found| ((percent(one) * 100.0).round() as u64, one.resident);
        let by_memory = |one: &Found| (one.resident, one.used);
        Ok(ProcessFigures {
            counts: room.counts,
            busiest: top(found, self.listed, by_cpu)
                .iter()
                .map(&mut published)
                .collect(),
            largest: top(found, self.listed, by_memory)
                .iter()
                .map(published)
                .collect(),
            engine_cpu_percent: engine.map(|percent| figure(percent, 2)),
        })
    }

    /// One pass over `/proc`, into `room`.
    fn find(&mut self) -> io::Result<Arc<OwnedFd>> {
        let proc = match &self.proc {
            Some(proc) => Arc::clone(proc),
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let proc = Arc::new(open("/proc", flags, Mode::empty())?);
                Arc::clone(self.proc.insert(proc))
            }
        };
        self.pass_number += 1;
        self.room.found.clear();
        self.room.names.clear();
        self.room.counts = ProcessCounts::default();
        self.list(&proc)?;
        let kept = self.known.values().map(KnownProcess::kept_files).sum();
        self.room_for_files = self.most_kept.saturating_sub(kept);
        let mut pids = std::mem::take(&mut self.room.pids);
        for pid in pids.drain(..) {
            self.find_one(&proc, pid)?;
        }
        self.room.pids = pids;
        let pass = self.pass_number;
        self.known.retain(|_, known| known.pass == pass);
        Ok(proc)
    }

    /// The ids of all processes.
    fn list(&mut self, proc: &OwnedFd) -> io::Result<()> {
        let Buffers { pids, entries, .. } = &mut self.room;
        pids.clear();
        entries.resize(ENTRIES, MaybeUninit::uninit());
        seek(proc, SeekFrom::Start(0))?;
        let mut directory = RawDir::new(proc, entries);
        while let Some(entry) = directory.next() {
            pids.extend(process_id(entry?.file_name()));
        }
        Ok(())
    }

    /// One process; one that has ended meanwhile, or is hidden from the agent, is left out.
    fn find_one(&mut self, proc: &OwnedFd, pid: u32) -> io::Result<()> {
        let mut text = [0; TEXT];
        let (kept, before) = match self.known.remove(&pid) {
            Some(mut known) => (known.file.take(), Some(known)),
            None => (None, None),
        };
        let (file, length) = match self.read_stat(proc, pid, kept, &mut text) {
            Ok(read) => read,
            Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(stat) = parse(&text[..length]) else {
            return Ok(());
        };
        let read_at = since_boot();
        count(&mut self.room.counts, &stat);
        let before = before.filter(|before| before.started == stat.started);
        let base = match &before {
            Some(before) => before.used,
            None if self.is_new(&stat) => 0,
            // It was there before, but was missed: there is nothing to compare it with.
            None => stat.used,
        };
        let since = before.as_ref().map(|before| before.read_at).or(self.before);
        let elapsed = since.map_or(0.0, |at| read_at.saturating_sub(at).as_secs_f64());
        // Those of one that is listed no longer are closed.
        let whose = before
            .and_then(|before| before.whose)
            .filter(|whose| whose.pass + 1 == self.pass_number);
        self.known.insert(
            pid,
            KnownProcess {
                file,
                started: stat.started,
                used: stat.used,
                read_at,
                pass: self.pass_number,
                whose,
            },
        );
        let name = self.room.names.len()..self.room.names.len() + stat.name.len();
        self.room.names.extend_from_slice(stat.name);
        self.room.found.push(Found {
            pid,
            name,
            used: stat.used.saturating_sub(base),
            elapsed,
            resident: stat.resident,
        });
        Ok(())
    }

    /// Reads a process's `stat`; yields its file where that is kept, and how long the text is.
    fn read_stat(
        &mut self,
        proc: &OwnedFd,
        pid: u32,
        kept: Option<OwnedFd>,
        text: &mut [u8; TEXT],
    ) -> Result<(Option<OwnedFd>, usize), Errno> {
        if let Some(file) = kept
            && let Ok(length) = retry_on_intr(|| pread(&file, &mut text[..], 0))
        {
            return Ok((Some(file), length));
        }
        // None was kept, or that process has ended and another one has its id.
        let (file, length) = read_file(proc.as_fd(), pid, "stat", text)?;
        if self.room_for_files == 0 {
            return Ok((None, length));
        }
        self.room_for_files -= 1;
        Ok((Some(file), length))
    }

    /// Whether a process has started since the pass before began: it is measured from its start.
    fn is_new(&self, stat: &Stat<'_>) -> bool {
        self.before.is_some_and(|before| {
            // The kernel counts whole ticks.
            (stat.started + 1) as f64 / self.ticks_per_second >= before.as_secs_f64()
        })
    }
}

/// The id that an entry of `/proc` stands for; most of the others have names.
fn process_id(entry: &CStr) -> Option<u32> {
    std::str::from_utf8(entry.to_bytes()).ok()?.parse().ok()
}

/// Opens a process's file and reads the beginning of its text, which is all of it but of a long one;
/// yields how long that is.
fn read_file(
    proc: BorrowedFd<'_>,
    pid: u32,
    file: &str,
    text: &mut [u8; TEXT],
) -> Result<(OwnedFd, usize), Errno> {
    let mut path = [0; 24];
    // Ten digits, the longest name and a zero always fit.
    let _ = write!(&mut path[..], "{pid}/{file}\0");
    let path = CStr::from_bytes_until_nul(&path).unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = retry_on_intr(|| openat(proc, path, flags, Mode::empty()))?;
    let length = retry_on_intr(|| pread(&file, &mut text[..], 0))?;
    Ok((file, length))
}

impl KnownProcess {
    fn kept_files(&self) -> u64 {
        let whose = self.whose.iter().flat_map(|whose| &whose.files);
        let kept = [&self.file].into_iter().chain(whose).flatten();
        kept.count() as u64
    }

    /// As it is in this pass: a process may drop root, and be moved to another container's group.
    fn whose(&mut self, proc: &Proc<'_>, pid: u32, room_for_files: &mut u64) -> &Whose {
        let before = self.whose.take();
        self.whose.insert(match before {
            Some(whose) if whose.pass == proc.pass => whose,
            before => {
                let files = before.map(|before| before.files).unwrap_or_default();
                Box::new(Whose::read(proc, pid, files, room_for_files))
            }
        })
    }
}

/// What the processes that are listed are looked up in.
struct Proc<'p> {
    folder: BorrowedFd<'p>,
    users: &'p Users,
    pass: u64,
}

impl Whose {
    /// Nothing of a process that has ended meanwhile.
    fn read(
        proc: &Proc<'_>,
        pid: u32,
        files: [Option<OwnedFd>; 2],
        room_for_files: &mut u64,
    ) -> Self {
        let mut text = [0; TEXT];
        let mut read = |name, kept: Option<OwnedFd>| {
            if let Some(file) = kept
                && let Ok(length) = retry_on_intr(|| pread(&file, &mut text[..], 0))
            {
                return (Some(file), text[..length].to_vec());
            }
            let Ok((file, length)) = read_file(proc.folder, pid, name, &mut text) else {
                return (None, Vec::new());
            };
            let kept = *room_for_files > 0;
            *room_for_files -= u64::from(kept);
            (kept.then_some(file), text[..length].to_vec())
        };
        let [status, cgroup] = files;
        let (status, identity) = read("status", status);
        let (cgroup, groups) = read("cgroup", cgroup);
        Self {
            files: [status, cgroup],
            user: effective_user(&identity).map(|id| proc.users.name(id)),
            containers: container_ids(&String::from_utf8_lossy(&groups)),
            pass: proc.pass,
        }
    }
}

fn count(counts: &mut ProcessCounts, stat: &Stat<'_>) {
    counts.total += 1;
    counts.threads += stat.threads;
    let state = match stat.state {
        b'R' => &mut counts.running,
        b'D' => &mut counts.blocked,
        b'T' | b't' => &mut counts.stopped,
        b'Z' | b'X' | b'x' => &mut counts.zombie,
        // With those of kernel threads: idle, and parked.
        _ => &mut counts.sleeping,
    };
    *state += 1;
}

/// The `listed` with the largest key, largest first; of equal ones the older process.
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

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerNames, Found, Processes, Users, top};
    use crate::settings::HostRoot;

    #[test]
    fn the_busiest_come_first_then_the_largest_then_the_oldest() {
        let one = |pid, used, resident| Found {
            pid,
            name: 0..0,
            used,
            elapsed: 1.0,
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
            let key = |one: &Found| (one.used, one.resident);
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
    fn processes_that_have_ended_are_forgotten() {
        let mut processes = Processes::new(5, Users::new(HostRoot::default()));
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        processes.pass(1, &ContainerNames::default()).unwrap();
        assert!(processes.known.contains_key(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        processes.pass(1, &ContainerNames::default()).unwrap();
        assert!(!processes.known.contains_key(&child.id()));
        assert!(processes.known.contains_key(&std::process::id()));
    }

    #[test]
    fn no_more_files_are_kept_than_may_be() {
        let mut processes = Processes::new(5, Users::new(HostRoot::default()));
        let mut kept_of_all = |most| {
            processes.most_kept = most;
            let read = processes.pass(1, &ContainerNames::default()).unwrap();
            let known = processes.known.values();
            let kept = known.filter(|known| known.file.is_some()).count() as u64;
            assert_eq!(read.counts.total, processes.known.len() as u64);
            (kept, read.counts.total)
        };
        assert_eq!(kept_of_all(1).0, 1);
        assert_eq!(kept_of_all(2).0, 2);
        // As many as there are, and no more than before once there is no room.
        let (kept, all) = kept_of_all(u64::MAX);
        assert_eq!(kept, all);
        assert!(kept_of_all(0).0 <= kept);
    }

    #[test]
    fn files_of_what_is_listed_no_longer_are_closed() {
        let mut processes = Processes::new(1000, Users::new(HostRoot::default()));
        processes.most_kept = u64::MAX;
        let mut kept_beside = |listed| {
            processes.listed = listed;
            let read = processes.pass(1, &ContainerNames::default()).unwrap();
            let known = processes.known.values();
            let beside = known.map(|known| known.kept_files() - u64::from(known.file.is_some()));
            (beside.sum::<u64>(), read.busiest.len() as u64)
        };
        let (kept, listed) = kept_beside(1000);
        // Some may have ended in between.
        assert!(kept >= listed && kept <= 2 * listed, "{kept} of {listed}");
        // In this pass it becomes known that they are not, and in the next they are let go of.
        kept_beside(0);
        assert_eq!(kept_beside(0).0, 0);
    }
}
