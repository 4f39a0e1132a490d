//! The process's secrets, kept from others on the host.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps the process's memory from core dumps, and from other processes of its user: they may neither trace it nor read
/// its memory or its environment.
pub fn forbid_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Neither is refused by any kernel in use; without them the agent is no worse than others.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, none);
}

/// Wipes a variable's value from the memory in which the process was given it: `/proc/<pid>/environ` shows it for as long
/// as the process runs. It counts as set to nothing from then on.
///
/// To be called before there is a second thread.
pub fn wipe_variable(name: &std::ffi::CStr) {
    #[expect(
        unsafe_code,
        reason = "the environment's memory is nowhere else to be had"
    )]
    // SAFETY: what getenv yields is null or a text that ends with a zero, in memory that the process owns and may write
    // to. Nobody else reads it meanwhile, as there is no other thread.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if !value.is_null() {
            let length = libc::strlen(value);
            let value = std::slice::from_raw_parts_mut(value.cast::<u8>(), length);
            zeroize::Zeroize::zeroize(value);
        }
    }
}
