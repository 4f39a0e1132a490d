//! Protects the secrets in the memory of the process from other processes on the host.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Forbids core dumps of the process. Other processes of the same user can then not trace this process, and cannot read its
/// memory or environment.
pub fn forbid_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Current kernels do not refuse these calls. If a kernel did, the agent would run with the usual protection of a process.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, none);
}

/// Overwrites the value of an environment variable with zeros, in the memory that `/proc/<pid>/environ` shows. After the call,
/// the value of the variable is an empty text.
///
/// Call this function before the process has a second thread.
pub fn wipe_variable(name: &std::ffi::CStr) {
    #[expect(
        unsafe_code,
        reason = "only getenv gives access to the memory of the environment"
    )]
    // SAFETY: getenv returns null or a text that ends with a zero byte. The text is in memory that the process owns and can
    // write. There is no other thread that could read it at the same time.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if !value.is_null() {
            let length = libc::strlen(value);
            let value = std::slice::from_raw_parts_mut(value.cast::<u8>(), length);
            zeroize::Zeroize::zeroize(value);
        }
    }
}
