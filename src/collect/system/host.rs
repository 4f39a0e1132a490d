//! Describes the host: its name, operating system, kernel, number of CPUs and boot time.

use std::sync::Arc;

use rustix::system::uname;

use super::os_release::OsRelease;
use super::virtualization;
use crate::model::HostInfo;
use crate::settings::HostRoot;

/// The description of the host. Each part can change while the agent runs. For example, an upgrade changes the version, and
/// setting the clock changes the boot time.
pub(super) struct Host {
    info: Arc<HostInfo>,
    os: OsRelease,
    /// The kind of virtualization, which does not change while the agent runs.
    virtualization: Option<&'static str>,
}

impl Host {
    pub(super) fn new(root: HostRoot) -> Self {
        Self {
            info: Arc::default(),
            virtualization: virtualization::detect(&root),
            os: OsRelease::new(root),
        }
    }

    /// Reads the description again. If `cpus` or `boot_time` is none, the previous value stays. Sources: `uname(2)` and
    /// os-release(5).
    pub(super) fn refresh(&mut self, cpus: Option<u32>, boot_time: Option<u64>) -> Arc<HostInfo> {
        let uname = uname();
        let now = HostInfo {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            os: self.os.name().to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            cpus: cpus.unwrap_or(self.info.cpus),
            boot_time: boot_time.unwrap_or(self.info.boot_time),
            virtualization: self.virtualization.map(str::to_owned),
        };
        if *self.info != now {
            self.info = Arc::new(now);
        }
        Arc::clone(&self.info)
    }
}
