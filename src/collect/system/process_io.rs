//! Calculates the I/O of processes from `/proc/<pid>/io`.
//!
//! A pass reads this file only for a process that it reads, and that can have had I/O: it has used CPU time since its previous reading,
//! or it waits for a disk, or it had I/O at its previous reading. The first pass reads the file of each process, so that later passes can compare.

use std::cmp::Reverse;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::fstat;
use rustix::io::{Errno, pread, retry_on_intr};

use super::process_files::{TEXT_SIZE, read_file};
use crate::collect::decimal::decimal;
use crate::collect::rate::per_second;

/// Bytes that a process has read from storage and written to storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IoCounters {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct IoRates {
    pub(super) read: f64,
    pub(super) written: f64,
}

/// A process of a pass that has had I/O.
pub(super) struct IoFound {
    pub(super) pid: u32,
    pub(super) rates: IoRates,
}

/// Whether the agent may read the I/O of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum IoAccess {
    /// The file was not read yet.
    #[default]
    Unknown,
    /// The process has the same user as the agent.
    OwnUser,
    OtherUser,
    /// The kernel has refused. The agent does not try again while this process runs.
    Refused,
}

/// What is known about the I/O of a process from earlier passes.
#[derive(Debug, Default)]
pub(super) struct KnownIo {
    /// The open file `io`. Only for a process whose file was read in the newest pass.
    file: Option<OwnedFd>,
    counters: IoCounters,
    /// When `counters` was read, as time since boot. None before the first reading.
    read_at: Option<Duration>,
    /// The I/O of ended children that was counted for the children. When a process has ended, the kernel adds its I/O to the
    /// counters of the parent.
    inherited: IoCounters,
    had_io: bool,
    access: IoAccess,
}

/// One reading of the file `io`.
pub(super) struct IoReading {
    counters: IoCounters,
    /// None if no more files can stay open.
    file: Option<OwnedFd>,
    access: IoAccess,
}

impl IoCounters {
    /// Parses `/proc/<pid>/io`. The lines `rchar` and `wchar` are left out, because they include the page cache.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let counter = |name: &[u8]| {
            let mut lines = text.split(|byte| *byte == b'\n');
            let digits = lines.find_map(|line| line.strip_prefix(name))?;
            decimal(digits.trim_ascii())
        };
        Some(Self {
            read: counter(b"read_bytes:")?,
            written: counter(b"write_bytes:")?,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            read: self.read.saturating_add(other.read),
            written: self.written.saturating_add(other.written),
        }
    }
}

impl KnownIo {
    /// A process that has started after `before`, as time since boot. Its counters began at 0.
    pub(super) fn of_new_process(before: Option<Duration>) -> Self {
        Self {
            read_at: before,
            ..Self::default()
        }
    }

    /// Returns the number of open files.
    pub(super) fn kept_files(&self) -> u64 {
        u64::from(self.file.is_some())
    }

    /// Records that the process was idle until `now`, which is the time since boot. See [`KnownIo::update`].
    pub(super) fn skip(&mut self, now: Duration) {
        if self.read_at.is_some() {
            self.read_at = Some(now);
        }
    }

    /// Returns whether the process had I/O before its newest reading.
    pub(super) fn had_io(&self) -> bool {
        self.had_io
    }

    pub(super) fn access(&self) -> IoAccess {
        self.access
    }

    /// Returns all I/O that the kernel adds to the counters of the parent when the process has ended, and that was counted for
    /// this process or its children.
    pub(super) fn legacy(&self) -> IoCounters {
        self.counters.plus(self.inherited)
    }

    /// Adds the I/O of a child that has ended.
    pub(super) fn inherit(&mut self, io: IoCounters) {
        self.inherited = self.inherited.plus(io);
    }

    /// Calls `read` if the process can have had I/O. `read` gets the open file of the previous pass. Returns the rates since the
    /// previous pass in which the process was idle or read, or none if there is no I/O. `now` returns the time since boot.
    pub(super) fn update(
        &mut self,
        is_active: bool,
        now: impl FnOnce() -> Duration,
        read: impl FnOnce(Option<OwnedFd>, IoAccess) -> Result<IoReading, Errno>,
    ) -> Option<IoRates> {
        let kept = self.file.take();
        let is_due = is_active || self.had_io || self.read_at.is_none();
        if self.access == IoAccess::Refused {
            return None;
        }
        if !is_due {
            // The process has used no tick of CPU time, so it had hardly any I/O. The next rate must not cover this time: a burst after a
            // long idle time would look small.
            self.read_at = Some(now());
            return None;
        }
        self.had_io = false;
        let reading = match read(kept, self.access) {
            Ok(reading) => reading,
            // Without the file, the kernel does not count the I/O of processes, or the process has ended.
            Err(Errno::ACCESS | Errno::PERM | Errno::NOENT) => {
                self.access = IoAccess::Refused;
                return None;
            }
            // The process has ended, or no file can be opened now.
            Err(_) => return None,
        };
        let now = now();
        let before = self.counters.plus(std::mem::take(&mut self.inherited));
        let since = self.read_at.replace(now);
        self.file = reading.file;
        self.access = reading.access;
        self.counters = reading.counters;
        let seconds = now.saturating_sub(since?).as_secs_f64();
        let rates = IoRates {
            read: per_second(before.read, reading.counters.read, seconds),
            written: per_second(before.written, reading.counters.written, seconds),
        };
        self.had_io = rates != IoRates::default();
        self.had_io.then_some(rates)
    }
}

/// Reads the file `io` of a process. `kept` is the open file of the previous pass.
pub(super) fn read(
    proc: BorrowedFd<'_>,
    pid: u32,
    own_user: u32,
    kept: Option<OwnedFd>,
    access: IoAccess,
    room_for_files: &mut u64,
) -> Result<IoReading, Errno> {
    let mut text = [0; TEXT_SIZE];
    let was_kept = kept.is_some();
    let (file, length) = match kept {
        Some(file) => {
            let length = retry_on_intr(|| pread(&file, &mut text[..], 0))?;
            (file, length)
        }
        None => read_file(proc, pid, "io", &mut text)?,
    };
    let counters = IoCounters::parse(&text[..length]).ok_or(Errno::INVAL)?;
    // The owner of the file is the user of the process.
    let access = match access {
        IoAccess::Unknown if fstat(&file)?.st_uid == own_user => IoAccess::OwnUser,
        IoAccess::Unknown => IoAccess::OtherUser,
        known => known,
    };
    let can_stay_open = was_kept || *room_for_files > 0;
    *room_for_files -= u64::from(can_stay_open && !was_kept);
    Ok(IoReading {
        counters,
        file: can_stay_open.then_some(file),
        access,
    })
}

/// Returns the `listed` processes with the highest I/O, highest first. Processes with equal I/O are in the order of their ids.
pub(super) fn highest(found: &mut [IoFound], listed: usize) -> &[IoFound] {
    found.sort_unstable_by_key(|one| {
        let hundredths = (one.rates.read + one.rates.written) * 100.0;
        (Reverse(hundredths as u64), one.pid)
    });
    &found[..listed.min(found.len())]
}

/// Returns whether the list must have control groups in place of processes: the agent can read no process of another user, and the
/// kernel refuses more processes than it allows. The kernel can refuse a few processes even to root, for example in a container.
pub(super) fn needs_groups(known: impl Iterator<Item = IoAccess>) -> bool {
    let (mut allowed, mut refused) = (0, 0);
    for access in known {
        match access {
            IoAccess::OtherUser => return false,
            IoAccess::OwnUser => allowed += 1,
            IoAccess::Refused => refused += 1,
            IoAccess::Unknown => {}
        }
    }
    refused > allowed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rustix::io::Errno;

    use super::{
        IoAccess, IoCounters, IoFound, IoRates, IoReading, KnownIo, highest, needs_groups,
    };

    const IO: &[u8] =
        b"rchar: 323934931\nwchar: 323929600\nsyscr: 632687\nsyscw: 632675\nread_bytes: 4096\n\
        write_bytes: 323932160\ncancelled_write_bytes: 7\n";

    #[test]
    fn only_bytes_of_storage_are_read() {
        let expected = IoCounters {
            read: 4096,
            written: 323_932_160,
        };
        assert_eq!(IoCounters::parse(IO), Some(expected));
        for text in [
            &b""[..],
            b"read_bytes: 1\n",
            b"read_bytes: x\nwrite_bytes: 1\n",
            b"read_bytes: -1\nwrite_bytes: 1\n",
            b"cancelled_write_bytes: 1\nread_bytes: 1\n",
        ] {
            assert_eq!(IoCounters::parse(text), None);
        }
    }

    /// Reads a process at a second after boot. Returns the rates, and whether the file was read.
    fn update(
        io: &mut KnownIo,
        is_active: bool,
        second: u64,
        outcome: Result<(u64, u64), Errno>,
    ) -> (Option<(f64, f64)>, bool) {
        let mut is_read = false;
        let rates = io.update(
            is_active,
            || Duration::from_secs(second),
            |_, _| {
                is_read = true;
                outcome.map(|(read, written)| IoReading {
                    counters: IoCounters { read, written },
                    file: None,
                    access: IoAccess::OwnUser,
                })
            },
        );
        (rates.map(|rates| (rates.read, rates.written)), is_read)
    }

    #[test]
    fn a_rate_covers_the_time_since_the_process_was_idle() {
        let mut io = KnownIo::default();
        assert_eq!(update(&mut io, false, 10, Ok((100, 1000))), (None, true));
        // An idle process is not read.
        assert_eq!(update(&mut io, false, 15, Ok((0, 0))), (None, false));
        let rates = Some((20.0, 400.0));
        assert_eq!(update(&mut io, true, 20, Ok((200, 3000))), (rates, true));
        // After I/O, the process is read once more, even if it is idle.
        assert_eq!(update(&mut io, false, 25, Ok((200, 3000))), (None, true));
        assert_eq!(update(&mut io, false, 30, Ok((0, 0))), (None, false));
        // Counters that go backwards are no I/O.
        assert_eq!(update(&mut io, true, 35, Ok((0, 0))), (None, true));
        assert_eq!(update(&mut io, true, 35, Ok((9, 9))), (None, true));
        // A pass that has not read the process counts as idle too.
        io.skip(Duration::from_secs(40));
        let rates = Some((10.0, 0.0));
        assert_eq!(update(&mut io, true, 45, Ok((59, 9))), (rates, true));
    }

    #[test]
    fn all_io_of_a_new_process_counts() {
        let mut io = KnownIo::of_new_process(Some(Duration::from_secs(5)));
        assert_eq!(update(&mut io, false, 6, Ok((9, 9))), (None, false));
        // At second 6 the process was idle, so the I/O came later.
        let rates = Some((125.0, 62.5));
        assert_eq!(update(&mut io, true, 10, Ok((500, 250))), (rates, true));
    }

    #[test]
    fn a_refused_process_is_not_opened_again() {
        for error in [Errno::ACCESS, Errno::PERM, Errno::NOENT] {
            let mut io = KnownIo::default();
            let opens = (0..100).filter(|second| update(&mut io, true, *second, Err(error)).1);
            assert_eq!(opens.count(), 1);
            assert_eq!(io.access(), IoAccess::Refused);
        }
        // Too few file descriptors are temporary.
        let mut io = KnownIo::default();
        assert!(update(&mut io, true, 0, Err(Errno::MFILE)).1);
        assert!(update(&mut io, true, 1, Ok((0, 0))).1);
        let rates = Some((7.0, 0.0));
        assert_eq!(update(&mut io, true, 2, Ok((7, 0))), (rates, true));
    }

    #[test]
    fn the_io_of_an_ended_child_does_not_count_again_for_the_parent() {
        let (mut parent, mut child) = (KnownIo::default(), KnownIo::default());
        update(&mut parent, true, 0, Ok((10, 10)));
        update(&mut child, true, 0, Ok((0, 0)));
        let rates = Some((0.0, 1000.0));
        assert_eq!(update(&mut child, true, 5, Ok((0, 5000))), (rates, true));
        // The child has written 500 more bytes, and then it has ended. The parent itself has read 50 bytes.
        parent.inherit(child.legacy());
        let rates = Some((5.0, 50.0));
        assert_eq!(update(&mut parent, true, 10, Ok((60, 5510))), (rates, true));
        assert_eq!(update(&mut parent, true, 15, Ok((60, 5510))), (None, true));
    }

    #[test]
    fn processes_are_sorted_by_the_sum_of_reading_and_writing() {
        let one = |pid, read, written| IoFound {
            pid,
            rates: IoRates { read, written },
        };
        let pids = |listed| -> Vec<u32> {
            let mut found = [
                one(4, 1.0, 0.0),
                one(3, 0.0, 9.0),
                one(2, 5.0, 5.0),
                one(1, 0.0, 1.0),
            ];
            let listed = highest(&mut found, listed);
            listed.iter().map(|one| one.pid).collect()
        };
        assert_eq!(pids(9), [2, 3, 1, 4]);
        assert_eq!(pids(2), [2, 3]);
        assert_eq!(pids(0), [0; 0]);
    }

    #[test]
    fn control_groups_are_listed_if_no_process_of_another_user_can_be_read() {
        use IoAccess::{OtherUser, OwnUser, Refused, Unknown};
        for (known, expected) in [
            (&[OwnUser, Refused, Refused, Unknown][..], true),
            (&[Refused], true),
            (&[Refused, Refused, Refused, OtherUser], false),
            (&[OwnUser, Refused], false),
            (&[OwnUser, Unknown], false),
            (&[], false),
        ] {
            assert_eq!(needs_groups(known.iter().copied()), expected);
        }
    }

    proptest! {
        #[test]
        fn rates_are_finite_and_not_negative(counters: Vec<(u64, u64, u64)>, inherited: (u64, u64)) {
            let mut io = KnownIo::default();
            for (second, read, written) in counters {
                io.inherit(IoCounters { read: inherited.0, written: inherited.1 });
                if let Some((read, written)) = update(&mut io, true, second, Ok((read, written))).0 {
                    prop_assert!(read.is_finite() && read >= 0.0 && written.is_finite() && written >= 0.0);
                }
            }
        }
    }

    #[test]
    fn fuzz_io_of_a_process() {
        let seeds: [&[u8]; 2] = [
            IO,
            b"read_bytes: 18446744073709551615\nwrite_bytes: 99999999999999999999\n",
        ];
        crate::fuzzing::run("io_of_a_process", &seeds, |bytes| {
            IoCounters::parse(bytes);
        });
    }
}
