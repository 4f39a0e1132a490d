//! The allocator, told to take little. Only glibc's has to be, and can be; with another nothing happens here.

use std::time::Duration;

/// When what the start has left goes back to the kernel.
pub const GIVE_BACK_FIRST: Duration = Duration::from_secs(10);
/// How often what is free goes back to it from then on.
pub const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);

/// Makes all threads allocate from one arena, and keep nothing for themselves. glibc would give each of them an arena of its
/// own, of which every one keeps as much as its thread has ever used at once: at 100 containers, two minutes after the start,
/// 1.7 MiB more in all. And each would keep small blocks that it has freed, where they hold up what is around them: 0.4 MiB
/// more, and growing for as long as half an hour.
///
/// The second can only be said by the environment, before the process begins: where it is not, the program is begun anew. Where
/// that does not work it goes on as it is.
///
/// To be called before there is a second thread.
pub fn be_frugal() {
    #[cfg(target_env = "gnu")]
    {
        begin_anew();
        #[expect(unsafe_code, reason = "there is no other way to say it")]
        // SAFETY: sets numbers inside the allocator, which takes any. A second thread would be no danger either: the
        // allocator takes its lock for that, once it has been used at all.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MXFAST, 0);
        }
    }
}

/// Begins the program anew with what glibc is to be told, unless that is there.
#[cfg(target_env = "gnu")]
fn begin_anew() {
    use std::env;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    /// Where there are file capabilities glibc takes its own variable away, and only this one tells that it was there.
    const BEGUN_ANEW: &str = "SYSTEM_AGENT_BEGUN_ANEW";
    const TUNABLES: &str = "GLIBC_TUNABLES";

    if env::var_os(TUNABLES).is_some() || env::var_os(BEGUN_ANEW).is_some() {
        return;
    }
    // Not by /proc/self/exe: the process would be called `exe`.
    let Ok(program) = env::current_exe() else {
        return;
    };
    #[expect(
        unsafe_code,
        reason = "a Command's own environment would be a copy of the secrets in this one"
    )]
    // SAFETY: there is no other thread that might read the environment meanwhile.
    unsafe {
        env::set_var(TUNABLES, "glibc.malloc.tcache_count=0");
        env::set_var(BEGUN_ANEW, "1");
    }
    let mut arguments = env::args_os();
    let mut anew = Command::new(program);
    if let Some(first) = arguments.next() {
        anew.arg0(first);
    }
    // Returns only where it has failed.
    let _ = anew.args(arguments).exec();
}

/// Gives the kernel back what is free, and what of the program has not been needed lately. glibc does the first by itself only
/// with what lies at the end of an arena; between small blocks that stay, such as what is known of containers, whole snapshots'
/// room would be kept for ever.
pub fn give_back() {
    #[cfg(target_os = "linux")]
    leave_code();
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "there is no other way to say it")]
    // SAFETY: touches only what nobody has been given; it takes the allocator's lock for that.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the program's pages of code: those that are needed come back from the page cache within a few dozen faults, those
/// of the start do not. Those are more than a MiB.
#[cfg(target_os = "linux")]
fn leave_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let here = leave_code as fn() as usize;
    let own = maps
        .lines()
        .filter_map(code)
        .find(|(start, length)| (*start..start + length).contains(&here));
    let Some((start, length)) = own else { return };
    #[expect(unsafe_code, reason = "there is no other way to say it")]
    // SAFETY: the mapping is the program's own code, as it has this function in it: it stays for as long as the process lives.
    // Nothing was ever written there, as it does not allow that: what is let go of is in the file as it was.
    unsafe {
        libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
    }
}

/// Where a mapping begins and how long it is, if it is code in a file: `START-END r-xp OFFSET DEVICE INODE PATH`.
#[cfg(target_os = "linux")]
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (access, path) = (fields.next()?, fields.nth(3)?);
    if access != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).ok());
    let (start, end) = (start?, end?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{code, give_back};

    #[test]
    fn code_is_what_a_file_has_and_nobody_writes_to() {
        for (line, expected) in [
            (
                "55b8f7d7f000-55b8f8662000 r-xp 00200000 fe:00 5311409                    /usr/bin/system-agent",
                Some((0x55b8_f7d7_f000, 0x8e_3000)),
            ),
            (
                "55b8f7b7e000-55b8f7d7f000 r--p 00000000 fe:00 5311409 /usr/bin/system-agent",
                None,
            ),
            (
                "55b8f7b7e000-55b8f7d7f000 rwxp 00000000 fe:00 5311409 /usr/bin/system-agent",
                None,
            ),
            (
                "7ffd2b5f6000-7ffd2b5f8000 r-xp 00000000 00:00 0 [vdso]",
                None,
            ),
            ("7f62776ad000-7f62776ae000 r-xp 00000000 00:00 0 ", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(code(line), expected, "{line}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        for _ in 0..3 {
            give_back();
            assert_eq!("42".parse(), Ok(42));
        }
    }
}
