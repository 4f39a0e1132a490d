//! The allocator, told to take little. Only glibc's has to be, and can be; with another nothing happens here.

use std::time::Duration;

/// How often what is free goes back to the kernel.
pub const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);

/// Makes all threads allocate from one arena. glibc would give each of them its own, of which every one keeps as
/// much as its thread has ever used at once: at 100 containers, two minutes after the start, 1.7 MiB more in all.
///
/// To be called before there is a second thread.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "there is no other way to say it")]
    // SAFETY: sets a number inside the allocator, which takes any. A second thread would be no danger either: the
    // allocator takes its lock for that, once it has been used at all.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
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
