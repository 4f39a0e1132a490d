//! The allocator, told to take little. Only glibc's has to be, and can be; with another nothing happens here.

#[cfg(target_os = "linux")]
use std::ops::Range;
use std::time::Duration;

/// When what the start has left goes back to the kernel.
pub const GIVE_BACK_FIRST: Duration = Duration::from_secs(10);
/// How often it does from then on. All that it lets go of comes back within a fraction of a millisecond.
pub const GIVE_BACK_EVERY: Duration = Duration::from_secs(20);

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

/// Lets go of the program's pages of code and constants: those that are needed come back from the page cache within a few dozen
/// faults, those of the start do not. Those are more than a MiB.
#[cfg(target_os = "linux")]
fn leave_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(own) = code_and_constants(&maps, leave_code as fn() as usize) else {
        return;
    };
    #[expect(unsafe_code, reason = "there is no other way to say it")]
    // SAFETY: the range is of the program's own file, as it has this function in it: it stays for as long as the process lives.
    // Nothing was ever written there, as it does not allow that: what is let go of is in the file as it was.
    unsafe {
        libc::madvise(
            own.start as *mut libc::c_void,
            own.len(),
            libc::MADV_DONTNEED,
        );
    }
}

/// Where the code lies that has the address in it, together with the constants directly before it, if a linker has put them
/// there: only what cannot be written to and is in the file as it is in memory. What lies behind the code is not all of that
/// kind: the loader has written addresses there before it forbade writing.
#[cfg(target_os = "linux")]
fn code_and_constants(maps: &str, address: usize) -> Option<Range<usize>> {
    let mut before: Option<Mapping> = None;
    for mapping in maps.lines().map(Mapping::read) {
        if let Some(code) = &mapping
            && code.access == "r-xp"
            && code.addresses.contains(&address)
        {
            let constants = before
                .filter(|it| it.access == "r--p" && it.file == code.file)
                .filter(|it| it.addresses.end == code.addresses.start);
            let start = constants.map_or(code.addresses.start, |it| it.addresses.start);
            return Some(start..code.addresses.end);
        }
        before = mapping;
    }
    None
}

/// A mapping of a file, a line of `/proc/self/maps`: `START-END ACCESS OFFSET DEVICE INODE PATH`.
#[cfg(target_os = "linux")]
struct Mapping<'a> {
    addresses: Range<usize>,
    access: &'a str,
    file: &'a str,
}

#[cfg(target_os = "linux")]
impl<'a> Mapping<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (access, file) = (fields.next()?, fields.nth(3)?);
        let [start, end] = [start, end].map(|it| usize::from_str_radix(it, 16).ok());
        file.starts_with('/').then_some(Self {
            addresses: start?..end?,
            access,
            file,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{code_and_constants, give_back};

    /// As a linker lays it out: constants, code, what the loader has written to, and data.
    const MAPS: &str = "\
55667eee0000-55667f0cf000 r--p 00000000 fe:00 5311409                    /usr/bin/system-agent
55667f0cf000-55667f943000 r-xp 001ee000 fe:00 5311409                    /usr/bin/system-agent
55667f943000-55667f98c000 r--p 00a61000 fe:00 5311409                    /usr/bin/system-agent
55667f98c000-55667f98e000 rw-p 00aa9000 fe:00 5311409                    /usr/bin/system-agent
5566939dd000-556693a50000 rw-p 00000000 00:00 0                          [heap]
";
    const IN_THE_CODE: usize = 0x5566_7f0c_f010;

    #[test]
    fn the_code_that_has_the_address_and_the_constants_before_it_are_let_go_of() {
        let all = 0x5566_7eee_0000..0x5566_7f94_3000;
        let code = 0x5566_7f0c_f000..0x5566_7f94_3000;
        let changed = |old: &str, new: &str| {
            assert!(MAPS.contains(old), "{old}");
            code_and_constants(&MAPS.replacen(old, new, 1), IN_THE_CODE)
        };
        assert_eq!(code_and_constants(MAPS, IN_THE_CODE), Some(all));
        // What is before the code may be written to, lies elsewhere, or is of another file, of none or not there.
        for (old, new) in [
            ("55667f0cf000 r--p", "55667f0cf000 rw-p"),
            ("-55667f0cf000 r--p", "-55667f0ce000 r--p"),
            ("/usr/bin/system-agent", "/usr/lib/libc.so.6"),
            ("/usr/bin/system-agent", ""),
            (MAPS.lines().next().unwrap(), "nonsense"),
        ] {
            assert_eq!(changed(old, new), Some(code.clone()), "{old} -> {new}");
        }
        assert_eq!(changed("r-xp", "rwxp"), None, "code that may be written to");
    }

    #[test]
    fn nothing_else_is_let_go_of() {
        for address in [0x5566_7f94_3000, 0x5566_939d_d000, 0x1000] {
            assert_eq!(code_and_constants(MAPS, address), None, "{address:x}");
        }
        for maps in [
            "",
            "nonsense",
            "7ffd2b5f6000-7ffd2b5f8000 r-xp 00000000 00:00 0 [vdso]",
        ] {
            assert_eq!(code_and_constants(maps, 0x7ffd_2b5f_6000), None, "{maps}");
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
