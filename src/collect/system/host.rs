//! What the host is: its name, operating system, kernel and CPUs.

use std::sync::Arc;

use rustix::system::uname;

use super::os_release::OsRelease;
use crate::model::HostInfo;
use crate::settings::HostRoot;

/// The description of the host. All of it may change while the agent runs: the host's name, its CPUs, its version in an
/// upgrade, and its boot time when its clock is set.
pub(super) struct Host {
    info: Arc<HostInfo>,
    os: OsRelease,
}

impl Host {
    pub(super) fn new(root: HostRoot) -> Self {
        Self {
            info: Arc::default(),
            os: OsRelease::new(root),
        }
    }

    /// The description as it is now. CPUs and boot time that are not given stay as they were.
    /// Sources: `uname(2)` and os-release(5).
    pub(super) fn refresh(&mut self, cpus: Option<u32>, boot_time: Option<u64>) -> Arc<HostInfo> {
        let uname = uname();
        let now = HostInfo {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            os: self.os.name().to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            cpus: cpus.unwrap_or(self.info.cpus),
            boot_time: boot_time.unwrap_or(self.info.boot_time),
        };
        if *self.info != now {
            self.info = Arc::new(now);
        }
        Arc::clone(&self.info)
    }
}
