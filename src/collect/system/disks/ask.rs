//! Asking file systems how full they are, none of which keeps another waiting.
//!
//! Asking may take for ever (a network's file system, whose server is gone; one in a program that hangs), so threads ask. One
//! thread asks those that answer at once, one after the other. A slow one has a thread of its own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstatvfs, open, statx};
use rustix::io::Errno;

use crate::collect::system::space::Full;

/// How long a file system may take to answer before it counts as stuck; also the longest time that a reading takes.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How long a reading waits for one file system. One that takes longer is slow.
const PATIENCE: Duration = Duration::from_millis(100);
/// Maximum number of threads that wait for slow file systems.
const MAX_WAITING: usize = 64;

/// A mount, and the path that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MountPath {
    /// Its number in the table of mounts.
    pub(super) mount: u64,
    pub(super) path: PathBuf,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StatfsAnswer {
    Full(Full),
    /// It does not count its space.
    NoFigures,
    /// The path leads to another mount by now.
    Elsewhere,
    Failed(Errno),
}

/// Asks file systems, and keeps their last answers.
#[derive(Default)]
pub(super) struct Asker {
    /// The last answers, and how long each took.
    known: HashMap<MountPath, (StatfsAnswer, Duration)>,
    /// None before the first question, and where it was left to a slow file system.
    thread: Option<Thread>,
    /// The questions that wait for an answer, with the moment of each.
    waiting: HashMap<MountPath, (Instant, Thread)>,
    /// Where the next reading begins: at a place that this one had no thread for.
    first: usize,
}

/// A thread that asks one file system after the other.
struct Thread {
    places: Sender<MountPath>,
    answers: Receiver<(StatfsAnswer, Duration)>,
}

impl Asker {
    /// Asks each of these, and forgets all others. Answers that take long are noted by a later call.
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
            if !self.ask_one(place, share.min(PATIENCE)) {
                // No thread is left. The next reading begins here.
                self.first += number;
                break;
            }
        }
        self.wait_for_new_ones(&there, end);
    }

    /// Asks one, and waits for its answer for a while unless it is known to be slow. False where there is no thread to ask it.
    fn ask_one(&mut self, place: &MountPath, patience: Duration) -> bool {
        let slow = self
            .known
            .get(place)
            .is_some_and(|(_, took)| *took >= PATIENCE);
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
        let patience = if slow { Duration::ZERO } else { patience };
        match thread.answers.recv_timeout(patience) {
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

    /// Notes the answers that have come.
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

    /// Waits until those have answered that never did before, so that a first reading has them.
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

    /// The last answer of a place; none where it has never answered.
    pub(super) fn answer(&self, place: &MountPath) -> Option<&StatfsAnswer> {
        self.known.get(place).map(|(answer, _)| answer)
    }

    /// Whether a file system has not answered for so long that it counts as stuck.
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
    /// None where the system has no more threads to give.
    fn start() -> Option<Self> {
        let (places, asked) = channel::<MountPath>();
        let (answer, answers) = channel();
        let ask = move || {
            for place in asked {
                let began = Instant::now();
                let given = ask(&place).unwrap_or_else(StatfsAnswer::Failed);
                if answer.send((given, began.elapsed())).is_err() {
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

/// Asks one. The path is opened first, so that the mount that is looked at is the one that is asked.
fn ask(place: &MountPath) -> Result<StatfsAnswer, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = open(&place.path, flags, Mode::empty())?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // Kernels before 5.8 do not say which mount it is: there the table of mounts counts.
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
