//! Reads files of one process: the user, the containers and the command line of a process.

use std::ffi::CStr;
use std::fs;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statat, statx};
use rustix::io::{Errno, pread, retry_on_intr};

use super::containers::container_ids;
use super::proc_stat::effective_user;
use super::users::Users;
use crate::settings::Redaction;

/// The PID namespace of the agent, as a symbolic link. It does not resolve if `/proc` is that of another namespace.
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
/// The text of this link in the host's own PID namespace. The kernel has a constant for this number, `PROC_PID_INIT_INO`.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Size of the buffer for the text of a process's file, in bytes. The buffer holds all of `stat`, which has 52 numbers of up to
/// 20 digits and a name. For the other files, it holds the part that the agent needs.
pub(super) const TEXT_SIZE: usize = 2048;

/// The kernel's number of processes, which is part of the link count of `/proc`. While it stays the same, as many processes have started
/// as have ended.
#[derive(Debug, Default)]
pub(super) struct NumberOfProcesses {
    /// Whether the link count counts the same processes as `/proc` lists. In a PID namespace, `/proc` lists only the processes of the
    /// namespace. None before the first reading.
    is_usable: Option<bool>,
}

impl NumberOfProcesses {
    /// Returns a number that changes with the number of processes. None if there is no such number.
    pub(super) fn read(&mut self, proc: BorrowedFd<'_>) -> Option<u64> {
        let is_first = || {
            fs::read_link(PID_NAMESPACE).is_ok_and(|link| link == Path::new(FIRST_PID_NAMESPACE))
        };
        let is_usable = *self.is_usable.get_or_insert_with(is_first);
        let links = || {
            let links = statx(proc, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK).ok()?;
            Some(u64::from(links.stx_nlink))
        };
        is_usable.then(links).flatten()
    }
}

/// The user and the containers that a process belongs to.
#[derive(Debug)]
pub(super) struct Owner {
    /// The files `status`, `cgroup` and `cmdline`, which stay open while the process is in a published list.
    pub(super) files: [Option<OwnedFd>; 3],
    pub(super) user: Option<String>,
    pub(super) command: Option<String>,
    /// Possible ids of the process's containers.
    pub(super) containers: Vec<String>,
    /// The number of open files. None if it cannot be read.
    pub(super) open_files: Option<u64>,
    /// The number of the pass that read this data.
    pub(super) read_in: u64,
    /// The number of the newest pass that listed the process. 0 if none has listed it.
    pub(super) pass: u64,
}

/// Opens a file of a process and reads up to `TEXT_SIZE` bytes. Returns the file and the length of the text.
pub(super) fn read_file(
    proc: BorrowedFd<'_>,
    pid: u32,
    file: &str,
    text: &mut [u8; TEXT_SIZE],
) -> Result<(OwnedFd, usize), Errno> {
    let mut path = [0; 24];
    // The buffer has room for ten digits, the longest name and the final zero.
    let _ = write!(&mut path[..], "{pid}/{file}\0");
    let path = CStr::from_bytes_until_nul(&path).unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = retry_on_intr(|| openat(proc, path, flags, Mode::empty()))?;
    let length = retry_on_intr(|| pread(&file, &mut text[..], 0))?;
    Ok((file, length))
}

/// The data that are needed to read the owner of a process.
pub(super) struct Proc<'p> {
    pub(super) folder: BorrowedFd<'p>,
    pub(super) users: &'p Users,
    pub(super) commands: Option<&'p Redaction>,
    pub(super) pass: u64,
    /// The number of the newest full pass.
    pub(super) full_pass: u64,
}

impl Owner {
    /// Returns the owner with its open files, so that the next pass that lists the process reads them again.
    pub(super) fn outdated(self) -> Self {
        Self { read_in: 0, ..self }
    }

    /// Reads the owner of a process. The owner is empty if the process has ended.
    pub(super) fn read(
        proc: &Proc<'_>,
        pid: u32,
        files: [Option<OwnedFd>; 3],
        room_for_files: &mut u64,
    ) -> Self {
        let mut text = [0; TEXT_SIZE];
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
        let [status, cgroup, cmdline] = files;
        let (status, identity) = read("status", status);
        let (cgroup, groups) = read("cgroup", cgroup);
        let (cmdline, command) = match proc.commands {
            Some(redaction) => {
                let (file, arguments) = read("cmdline", cmdline);
                (file, command(&arguments, redaction))
            }
            None => (None, None),
        };
        Self {
            files: [status, cgroup, cmdline],
            command,
            user: effective_user(&identity).map(|id| proc.users.name(id)),
            containers: container_ids(&String::from_utf8_lossy(&groups)),
            open_files: None,
            read_in: proc.pass,
            pass: 0,
        }
    }
}

/// Returns the text of a command line, from arguments that end with zero bytes. None for a thread of the kernel. If there are more
/// than [`TEXT_SIZE`] bytes, the argument at this limit is left out, because a part of a secret would not be replaced.
pub(super) fn command(arguments: &[u8], redaction: &Redaction) -> Option<String> {
    let is_cut = arguments.len() == TEXT_SIZE;
    let end = match is_cut {
        true => arguments.iter().rposition(|byte| *byte == 0)?,
        false => arguments.len(),
    };
    let arguments = arguments[..end].trim_ascii_end();
    let arguments: Vec<_> = arguments
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let text = arguments.join(" ");
    let text = redaction.apply(text.trim().into()).into_owned();
    (!text.is_empty()).then_some(text)
}

/// Returns the number of open files of a process. Linux 6.2 and later reports this number as the size of the folder.
pub(super) fn open_files(proc: BorrowedFd<'_>, pid: u32) -> Option<u64> {
    let folder = statat(proc, format!("{pid}/fd"), AtFlags::empty()).ok()?;
    u64::try_from(folder.st_size).ok()
}

#[cfg(test)]
mod tests {
    use super::{TEXT_SIZE, command};
    use crate::settings::Redaction;

    #[test]
    fn secrets_in_a_command_line_are_replaced() {
        let redaction =
            Redaction::parse(r"--password[=\s](?P<secret>\S+) AKIA[0-9A-Z]{16}").unwrap();
        for (arguments, expected) in [
            (
                &b"nginx\0-g\0daemon off;\0"[..],
                Some("nginx -g daemon off;"),
            ),
            (
                b"db\0--password=abc\0-x\0",
                Some("db --password=[redacted] -x"),
            ),
            (b"db\0--password\0abc\0", Some("db --password [redacted]")),
            (b"a\xff\0", Some("a\u{fffd}")),
            (b"", None),
            (b"\0\0", None),
        ] {
            assert_eq!(command(arguments, &redaction).as_deref(), expected);
        }
        // The secret begins before the limit and ends after it.
        let mut long = vec![b'x'; TEXT_SIZE - 10];
        long.extend(b"\0AKIA00000");
        long.truncate(TEXT_SIZE);
        let shown = command(&long, &redaction).unwrap();
        assert_eq!(shown, "x".repeat(TEXT_SIZE - 10));
        assert_eq!(command(&[b'x'; TEXT_SIZE], &redaction), None);
    }
}
