//! Asks file systems how full they are. A file system that does not answer does not delay the other file systems.
//!
//! The system call `fstatvfs` can block forever, for example if the server of a network file system is gone. So separate threads
//! make this call. One thread asks all fast file systems, one after another. Each slow file system has its own thread. The caller itself
//! asks a root file system on a local disk, which answers from memory. This saves two switches between threads.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstatvfs, open, statx};
use rustix::io::Errno;

use crate::collect::system::space::Full;

/// A file system that has not answered for this time counts as stuck. A reading of all file systems also takes at most this
/// time.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Maximum time that a reading waits for one file system. A file system that takes longer counts as slow.
const SLOW_AFTER: Duration = Duration::from_millis(100);
/// Maximum number of threads that wait for slow file systems.
const MAX_WAITING: usize = 64;

/// File systems whose numbers are in memory. Opening the root needs no reading either.
const ANSWER_AT_ONCE: [&str; 5] = ["btrfs", "ext3", "ext4", "f2fs", "xfs"];

/// A mount and its mount point.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MountPath {
    /// The number of the mount in the table of mounts.
    pub(super) mount: u64,
    pub(super) path: PathBuf,
    /// Whether this is the root, and of a type in [`ANSWER_AT_ONCE`].
    pub(super) answers_at_once: bool,
}

impl MountPath {
    pub(super) fn new(mount: u64, path: PathBuf, kind: &str) -> Self {
        let answers_at_once = path == Path::new("/") && ANSWER_AT_ONCE.contains(&kind);
        Self {
            mount,
            path,
            answers_at_once,
        }
    }
}

/// The answer of a file system.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StatfsAnswer {
    Full(Full),
    /// The file system does not count its space.
    NoFigures,
    /// Another mount is now at the path.
    Elsewhere,
    Failed(Errno),
}

/// Asks file systems, and stores their newest answers.
#[derive(Default)]
pub(super) struct Asker {
    /// The newest answer of each file system, and how long the answer took.
    known: HashMap<MountPath, (StatfsAnswer, Duration)>,
    /// The thread for fast file systems. None before the first question, and while the thread waits for a slow file system.
    thread: Option<Thread>,
    /// The questions that have no answer yet, each with its start time and its thread.
    waiting: HashMap<MountPath, (Instant, Thread)>,
    /// The index of the file system that the next reading asks first. If a reading runs out of threads, this is the first file
    /// system that the reading did not ask.
    first: usize,
}

/// A thread that asks one file system after another.
struct Thread {
    places: Sender<MountPath>,
    answers: Receiver<(StatfsAnswer, Duration)>,
}

impl Asker {
    /// Asks each file system in `places`, and forgets the answers of all other file systems. If an answer takes long, a later
    /// call records it.
    pub(super) fn ask(&mut self, places: &[&MountPath]) {
        let end = Instant::now() + STUCK_AFTER;
        self.collect();
        let there: HashSet<&MountPath> = places.iter().copied().collect();
        self.known.retain(|place, _| there.contains(place));
        self.first %= places.len().max(1);
        let (before, after) = places.split_at(self.first);
        for (number, place) in after.iter().chain(before).enumerate() {
            if self.waiting.contains_key(*place) {
                continue;
            }
            let left = u32::try_from(places.len() - number).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left.max(1);
            if !self.ask_one(place, share.min(SLOW_AFTER)) {
                // No thread is available. The next reading begins with this file system.
                self.first += number;
                break;
            }
        }
        self.wait_for_new_ones(&there, end);
    }

    /// Asks one file system. Waits at most `wait` for the answer. Does not wait for a slow file system. Returns false if no
    /// thread is available.
    fn ask_one(&mut self, place: &MountPath, wait: Duration) -> bool {
        if place.answers_at_once {
            self.known.insert(place.clone(), ask_timed(place));
            return true;
        }
        let slow = self
            .known
            .get(place)
            .is_some_and(|(_, took)| *took >= SLOW_AFTER);
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        let thread = if slow { None } else { self.thread.take() };
        let Some(thread) = thread.or_else(Thread::start) else {
            return false;
        };
        let asked = Instant::now();
        if thread.places.send(place.clone()).is_err() {
            return true;
        }
        let wait = if slow { Duration::ZERO } else { wait };
        match thread.answers.recv_timeout(wait) {
            Ok(answer) => {
                self.known.insert(place.clone(), answer);
                self.thread = Some(thread);
            }
            Err(RecvTimeoutError::Timeout) => {
                self.waiting.insert(place.clone(), (asked, thread));
            }
            Err(RecvTimeoutError::Disconnected) => {}
        }
        true
    }

    /// Records the answers that have arrived.
    fn collect(&mut self) {
        let (known, spare) = (&mut self.known, &mut self.thread);
        let answered =
            self.waiting
                .extract_if(|place, (_, thread)| match thread.answers.try_recv() {
                    Ok(answer) => {
                        known.insert(place.clone(), answer);
                        true
                    }
                    Err(_) => false,
                });
        for (_, (_, thread)) in answered {
            spare.get_or_insert(thread);
        }
    }

    /// Waits for file systems that have never answered, so that the first reading has their figures. Waits at most until `end`,
    /// and at most 1 s for each file system.
    fn wait_for_new_ones(&mut self, there: &HashSet<&MountPath>, end: Instant) {
        loop {
            let is_new = |(place, (asked, _)): (&MountPath, &(Instant, Thread))| {
                there.contains(place)
                    && !self.known.contains_key(place)
                    && asked.elapsed() < STUCK_AFTER
            };
            let now = Instant::now();
            if now >= end || !self.waiting.iter().any(is_new) {
                return;
            }
            thread::sleep(Duration::from_millis(5).min(end - now));
            self.collect();
        }
    }

    /// Returns the newest answer of a file system. Returns none if the file system has never answered.
    pub(super) fn answer(&self, place: &MountPath) -> Option<&StatfsAnswer> {
        self.known.get(place).map(|(answer, _)| answer)
    }

    /// Returns whether a file system is stuck: it has not answered for 1 s.
    pub(super) fn is_stuck(&self, place: &MountPath) -> bool {
        let asked = self.waiting.get(place);
        asked.is_some_and(|(asked, _)| asked.elapsed() >= STUCK_AFTER)
    }

    #[cfg(test)]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Thread {
    /// Starts a thread. Returns none if the system refuses to start another thread.
    fn start() -> Option<Self> {
        let (places, asked) = channel::<MountPath>();
        let (answer, answers) = channel();
        let ask = move || {
            for place in asked {
                if answer.send(ask_timed(&place)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("file systems".to_owned())
            .spawn(ask)
            .ok()?;
        Some(Self { places, answers })
    }
}

/// Asks one file system. Returns the answer, and how long the answer took.
fn ask_timed(place: &MountPath) -> (StatfsAnswer, Duration) {
    let began = Instant::now();
    let answer = ask(place).unwrap_or_else(StatfsAnswer::Failed);
    (answer, began.elapsed())
}

/// Asks one file system. Opens the path first, so that the check of the mount's number and the call of `fstatvfs` use the same
/// mount.
fn ask(place: &MountPath) -> Result<StatfsAnswer, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = open(&place.path, flags, Mode::empty())?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // Kernels older than 5.8 do not return the number of the mount. With such a kernel, the number is not checked.
    if let Ok(stat) = statx(&file, c"", flags, StatxFlags::MNT_ID)
        && StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID)
        && stat.stx_mnt_id != place.mount
    {
        return Ok(StatfsAnswer::Elsewhere);
    }
    let stat = fstatvfs(&file)?;
    Ok(if stat.f_blocks == 0 {
        StatfsAnswer::NoFigures
    } else {
        StatfsAnswer::Full(Full::of(&stat))
    })
}
