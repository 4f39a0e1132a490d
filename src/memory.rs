//! Returns freed memory to the kernel.
//!
//! The allocator of glibc keeps freed memory for later. After 10,000 connections that never authenticated, it would keep 15 MiB for
//! as long as the agent runs. After a large buffer was freed for the first time, it would also keep later buffers of this size.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two returns.
const INTERVAL: Duration = Duration::from_secs(60);

/// Buffers of at least this size, in bytes, are returned to the kernel as soon as they are freed.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 128 * 1024;

/// Makes the allocator return large buffers as soon as they are freed. Has no effect with other allocators than that of glibc.
pub(crate) fn return_large_buffers() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the standard library has no such function")]
    // SAFETY: the function only changes a setting of the allocator, and can be called from any thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Returns freed memory to the kernel once a minute, as long as the agent runs.
pub(crate) async fn return_freed() {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        // The allocator can be locked for some milliseconds, so no thread that serves clients does this.
        if spawn_blocking(trim).await.is_err() {
            return;
        }
    }
}

/// Returns the memory that the allocator has freed. Other allocators than that of glibc return memory by themselves.
fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the standard library has no such function")]
    // SAFETY: the function changes no memory that is in use, and can be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
