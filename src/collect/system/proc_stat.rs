//! Parses `/proc/<pid>/stat` and `/proc/<pid>/status`, and reads the clock that `stat` uses.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::collect::decimal::decimal;

/// Returns the time since boot, including the time in suspend. The kernel uses the same clock for the start times of processes.
pub(super) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// The fields of `/proc/<pid>/stat` that the agent uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat<'t> {
    pub(super) name: &'t [u8],
    /// The letter of the state, for example `S`.
    pub(super) state: u8,
    /// The id of the parent process.
    pub(super) parent: u32,
    pub(super) threads: u64,
    /// The page faults of the children that have ended and that the process has waited for (`cminflt`). Every process has some.
    pub(super) child_faults: u64,
    /// CPU time used so far (`utime` + `stime`), in clock ticks of the kernel.
    pub(super) used: u64,
    /// The start time, in clock ticks since boot.
    pub(super) started: u64,
    /// Resident memory, in pages.
    pub(super) resident: u64,
}

/// Parses `/proc/<pid>/stat`. Spaces separate the fields. The second field is the name, in parentheses. The name itself can
/// contain spaces and parentheses.
pub(super) fn parse(stat: &[u8]) -> Option<Stat<'_>> {
    let open = memchr::memchr(b'(', stat)?;
    let close = memchr::memrchr(b')', stat)?;
    let name = stat.get(open + 1..close)?;
    // The first field here is the third field of the file.
    let mut fields = stat[close + 1..].split(|byte| *byte == b' ').skip(1);
    let state = *fields.next()?.first()?;
    let mut field = |skipped: usize| decimal(fields.nth(skipped)?);
    let parent = u32::try_from(field(0)?).ok()?;
    let child_faults = field(11 - 5)?;
    let (utime, stime) = (field(14 - 12)?, field(0)?);
    let threads = field(20 - 16)?;
    let started = field(22 - 21)?;
    let resident = field(24 - 23)?;
    Some(Stat {
        name,
        state,
        parent,
        threads,
        child_faults,
        used: utime.checked_add(stime)?,
        started,
        resident,
    })
}

/// Parses the effective user in `/proc/<pid>/status`: `Uid:\treal\teffective\tsaved\tfile systems`.
pub(super) fn effective_user(status: &[u8]) -> Option<u32> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let users = lines.find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut users = std::str::from_utf8(users).ok()?.split_ascii_whitespace();
    users.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{effective_user, parse};

    const STAT: &[u8] = b"1234 (a) b (c) S 1 1234 1234 0 -1 4194304 2731 99 10 0 57 31 5 6 20 0 3 0 \
        987654 225280000 4096 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn a_name_can_contain_any_character() {
        let stat = parse(STAT).unwrap();
        assert_eq!(stat.name, b"a) b (c");
        assert_eq!(
            (stat.used, stat.started, stat.resident),
            (57 + 31, 987_654, 4096)
        );
        assert_eq!((stat.state, stat.parent, stat.threads), (b'S', 1, 3));
        assert_eq!(stat.child_faults, 99);
        let odd = [b"1 (\xff\n ) ".as_slice(), &STAT[15..]].concat();
        assert_eq!(parse(&odd).unwrap().name, b"\xff\n ");
    }

    #[test]
    fn an_invalid_stat_is_refused() {
        for text in [
            &b""[..],
            b"1",
            b"1 )(",
            b"1 (a)",
            b"1 (a) S 1 2 3",
            &STAT[..90],
        ] {
            assert_eq!(parse(text), None);
        }
    }

    #[test]
    fn the_effective_user_is_read() {
        let status = b"Name:\tx\nUmask:\t0022\nUid:\t1000\t33\t33\t33\nGid:\t1\t2\t3\t4\n";
        assert_eq!(effective_user(status), Some(33));
        for text in [
            &b""[..],
            b"Uid:",
            b"Uid:\t1",
            b"Uid:\t1\tx",
            b"Name:\tUid:\t1\t2",
        ] {
            assert_eq!(effective_user(text), None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: Vec<u8>, numbers in proptest::collection::vec(any::<u64>(), 0..60)) {
            parse(&text);
            effective_user(&text);
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            parse(format!("1 (a) S {}", numbers.join(" ")).as_bytes());
        }
    }

    #[test]
    fn fuzz_stat_of_a_process() {
        let seeds: [&[u8]; 2] = [
            STAT,
            b"1 (systemd) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12",
        ];
        crate::fuzzing::run("stat_of_a_process", &seeds, |bytes| {
            parse(bytes);
        });
    }
}
