//! The first process of a container. If this process has ended, the container has ended, even if the engine does not answer.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use super::proc_cgroup::{names, of_process};

/// A container's first process. The process id alone does not identify the process, because the kernel reuses ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstProcess {
    pid: u32,
    /// When the process started, in clock ticks after boot.
    start: u64,
}

/// The fields that are read from `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    threads: u64,
    start: u64,
}

impl FirstProcess {
    /// Returns the process `pid` if it belongs to the container `id`. Returns none, for example, if the engine is on another
    /// host. Blocks the thread while it reads `/proc`.
    pub(super) fn of_container(proc: &Path, pid: u32, id: &str) -> Option<Self> {
        if pid == 0 {
            return None;
        }
        let stat = || read(proc, pid).ok().flatten();
        let start = stat()?.start;
        let cgroup = fs::read_to_string(of_process(proc, pid, "cgroup")).ok()?;
        // If the start time has not changed, the control groups belong to this process.
        let same = stat().is_some_and(|stat| stat.start == start);
        (same && names(&cgroup, id)).then_some(Self { pid, start })
    }

    /// Whether the process has the process id `pid`.
    pub(super) fn is(&self, pid: u32) -> bool {
        self.pid == pid
    }

    /// Whether the process has ended. Blocks the thread while it reads `/proc`.
    pub(super) fn has_ended(&self, proc: &Path) -> bool {
        match read(proc, self.pid) {
            Ok(Some(stat)) => stat.start != self.start || stat.has_ended(),
            // A text that cannot be understood does not show that the process has ended.
            Ok(None) => false,
            Err(error) => {
                error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
            }
        }
    }

    /// Returns how long the process has run. Changes of the host's clock do not affect this time.
    pub(super) fn uptime(&self) -> Option<Duration> {
        let now = clock_gettime(ClockId::Boottime);
        let now = Duration::new(
            u64::try_from(now.tv_sec).ok()?,
            u32::try_from(now.tv_nsec).ok()?,
        );
        let start = Duration::from_secs_f64(self.start as f64 / clock_ticks_per_second() as f64);
        Some(now.saturating_sub(start))
    }
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name is in parentheses, and can contain any character.
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split_ascii_whitespace();
        Some(Self {
            state: *fields.next()?.as_bytes().first()?,
            threads: fields.nth(16)?.parse().ok()?,
            start: fields.nth(1)?.parse().ok()?,
        })
    }

    /// Whether the process has ended. A zombie has ended. If only the main thread has ended, the process has the same state as a
    /// zombie, but more than one thread.
    fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

fn read(proc: &Path, pid: u32) -> io::Result<Option<Stat>> {
    let text = fs::read(of_process(proc, pid, "stat"))?;
    Ok(Stat::parse(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::{FirstProcess, Stat};

    const STAT: &str =
        "4711 (a) (b) Z 1) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 987654 1 2 3\n";

    #[test]
    fn the_fields_are_found_with_any_program_name() {
        let stat = Stat::parse(STAT).unwrap();
        assert_eq!(
            stat,
            Stat {
                state: b'S',
                threads: 3,
                start: 987_654
            }
        );
        assert_eq!(Stat::parse("4711 (sh) S 1"), None);
    }

    /// Creates a temporary `/proc` with one process.
    fn proc(stat: &str) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join("4711");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cgroup"), "0::/docker/0123abcd\n").unwrap();
        proc
    }

    #[test]
    fn only_a_process_in_the_containers_cgroup_is_its_first_process() {
        let proc = proc(STAT);
        let of = |pid, id| FirstProcess::of_container(proc.path(), pid, id);
        assert!(of(4711, "0123abcd").is_some());
        assert_eq!(of(4711, "ffff"), None);
        assert_eq!(of(4712, "0123abcd"), None);
        assert_eq!(of(0, "0123abcd"), None);
    }

    #[test]
    fn a_process_has_ended_if_it_is_gone_or_a_zombie_or_its_id_is_reused() {
        let folder = proc(STAT);
        let first = FirstProcess::of_container(folder.path(), 4711, "0123abcd").unwrap();
        let ended = |stat: &str| first.has_ended(proc(stat).path());
        assert!(!ended(STAT));
        assert!(!ended("garbage"));
        assert!(ended(&STAT.replace("987654", "987655")), "a reused id");
        let zombie = STAT.replace(") S ", ") Z ");
        assert!(!ended(&zombie), "some of the three threads still run");
        assert!(ended(&zombie.replace(" 3 0 987654", " 1 0 987654")));
        let empty = tempfile::tempdir().unwrap();
        assert!(first.has_ended(empty.path()));
    }

    #[test]
    fn a_real_process_is_followed_to_its_end() {
        let proc = Path::new("/proc");
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // Every text of control groups contains the empty id.
        let first = FirstProcess::of_container(proc, child.id(), "").unwrap();
        assert!(!first.has_ended(proc));
        let uptime = first.uptime().unwrap();
        assert!(uptime.as_secs() < 60, "{uptime:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(first.has_ended(proc));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\\) | |[0-9])*") {
            let _ = Stat::parse(&text);
            let _ = Stat::parse(&format!("1 (x) {text}"));
        }
    }
}
