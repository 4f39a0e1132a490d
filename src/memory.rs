//! The allocator, told to take little. Only glibc's has to be, and can be; with another nothing happens here.

use std::time::Duration;

/// How often what is free goes back to the kernel.
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

/// Gives the kernel back what is free. glibc does so by itself only with what lies at the end of an arena; between
/// small blocks that stay, such as what is known of containers, whole snapshots' room would be kept for ever.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "there is no other way to say it")]
    // SAFETY: touches only what nobody has been given; it takes the allocator's lock for that.
    unsafe {
        libc::malloc_trim(0);
    }
}
