//! Measures containers from the kernel's files, without the engine. Stores the open files and the previous reading of each
//! container. The module `files` finds and reads the files.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use foldhash::{HashMap, HashMapExt as _};
use tracing::debug;

use super::engine::{EngineError, Inspected};
use super::files::{ContainerFiles, FILES_PER_CONTAINER, Host, HostEnds, Kernel, KernelError};
use super::inspection::Inspection;
use super::inventory::{Inventory, RunningContainer};
use super::usage::{ContainerReading, CpuReading, network_owners};
use crate::collect::cgroup::keyed;
use crate::collect::kernel_file::KernelFile;

/// Maximum number of container files that stay open. This is enough for 1,000 containers. The kernel needs 4.4 KB of memory for each file.
const MAX_KEPT_FILES: u64 = 12_288;
/// Container files can always use this share of the files that the process can open: one quarter.
const SHARE_OF_FILES: u64 = 4;

/// Returns how many container files can stay open if the process can open `limit` files. `left` is how many of them nothing else needs.
#[must_use]
pub fn most_kept_files(limit: u64, left: u64) -> u64 {
    (limit / SHARE_OF_FILES).max(left).min(MAX_KEPT_FILES)
}

/// The files of all containers, with the previous reading of each container.
pub(super) struct Direct {
    kernel: Result<Kernel, KernelError>,
    /// The containers by id.
    containers: HashMap<String, Container>,
    /// Number of containers whose files stay open. The files of other containers are opened for each reading.
    max_kept: usize,
    /// The memory of the host, in bytes.
    host_memory: u64,
    /// How many processes the kernel has killed for lack of memory. None if it is not needed or not known.
    oom_kills: Option<u64>,
    /// The network interfaces of the host.
    ends: HostEnds,
    /// The file `/proc/vmstat`, which has the number of processes that the kernel has killed for lack of memory.
    vmstat: KernelFile,
    /// Buffer for the texts of files.
    buffer: Vec<u8>,
}

/// A running container.
struct Container {
    /// The id of the container's first process.
    pid: u32,
    /// The newest inspection. None if there was no answer.
    inspected: Option<Arc<Inspected>>,
    files: FileAccess,
    /// The previous reading. The next reading is compared with it.
    last: Option<ContainerReading>,
}

/// Whether and how a container's files can be read.
enum FileAccess {
    /// The files are open and stay open.
    Kept(ContainerFiles),
    /// The files can be read. They are opened for each reading.
    Located { own_network: bool },
    /// The files cannot be read. The text is the reason.
    Refused(String),
    /// The engine did not answer the inspection, so the first process is not known.
    Unanswered(EngineError),
    /// The container has no process, because it is about to be restarted.
    Idle,
}

/// Why a container has no figures from the files.
#[derive(Debug)]
pub(super) enum Missing {
    /// The files cannot be read. The text is the reason.
    Refused(String),
    /// The files could be read earlier. The container has ended or restarted.
    Lost,
    /// The engine does not answer for this container.
    Failed(EngineError),
    /// The container has no process now.
    Idle,
}

/// The figures of one container.
pub(super) struct Figures {
    pub(super) now: ContainerReading,
    /// The CPU reading before `now`. None if `now` is the first reading.
    pub(super) before: Option<CpuReading>,
}

/// The figures of several containers.
pub(super) struct FigureSet {
    /// The running containers. Empty if only some containers were read again.
    pub(super) running: Arc<Vec<RunningContainer>>,
    /// The figures of each container that was read. The order is that of `running`, or that of the ids that were read again.
    pub(super) figures: Vec<Result<Figures, Missing>>,
    /// When the figures were read.
    pub(super) read_at: SystemTime,
    /// Whether the set has all containers of an inventory. False if only some containers were read again.
    pub(super) is_whole: bool,
}

/// Returns the host's memory, in bytes.
fn host_memory() -> u64 {
    let memory = rustix::system::sysinfo();
    u64::from(memory.mem_unit) * memory.totalram as u64
}

impl Direct {
    /// Prepares to read the files in `/proc` and in the mounted control groups. At most `kept` files stay open between readings.
    pub(super) fn new(kept: u64) -> Self {
        Self {
            kernel: Kernel::new(Path::new("/proc")),
            containers: HashMap::new(),
            max_kept: usize::try_from(kept).unwrap_or(usize::MAX) / FILES_PER_CONTAINER,
            host_memory: host_memory(),
            oom_kills: None,
            ends: HostEnds::new("/proc/net/dev"),
            vmstat: KernelFile::new("/proc/vmstat"),
            buffer: Vec::new(),
        }
    }

    /// Reads the figures of all containers of an inventory that still run. Blocks the thread while it reads the files.
    pub(super) fn read_all(&mut self, inventory: &Inventory) -> FigureSet {
        if self.kernel.is_err() {
            // The earlier failure is possibly temporary.
            self.kernel = Kernel::new(Path::new("/proc"));
        }
        // Memory can be added to a running host.
        self.host_memory = host_memory();
        // The number of killed processes is read before the figures of the containers, so that the next round sees a process that is
        // killed in between.
        self.oom_kills = self.read_oom_kills();
        let running = inventory.running();
        self.update(&running);
        self.read_ends();
        let owners = network_owners(&running);
        let shares_network =
            |one: &RunningContainer| owners.iter().any(|owner| one.listed.is(owner));
        let figures = running
            .iter()
            .map(|one| self.read(&one.listed.id, shares_network(one)))
            .collect();
        FigureSet {
            running,
            figures,
            read_at: SystemTime::now(),
            is_whole: true,
        }
    }

    /// Waits for `pause`, and then reads the figures of some containers. If a container has no earlier reading, reads it also
    /// before the pause, so that the second reading has rates. If there is a `newer` inventory, updates the containers first.
    /// Blocks the thread.
    pub(super) fn read_twice(
        &mut self,
        ids: &[String],
        newer: Option<&Inventory>,
        pause: Duration,
    ) -> FigureSet {
        if let Some(inventory) = newer {
            self.update(&inventory.running());
        }
        self.read_ends();
        for id in ids {
            let known = self.containers.get(id);
            if known.is_some_and(|known| known.last.is_none()) {
                // `read` stores this reading. The second reading is compared with it.
                let _ = self.read(id, false);
            }
        }
        thread::sleep(pause);
        self.read_ends();
        FigureSet {
            running: Arc::default(),
            figures: ids.iter().map(|id| self.read(id, false)).collect(),
            read_at: SystemTime::now(),
            is_whole: false,
        }
    }

    /// Opens the files of containers that are not known yet. Removes containers that no longer run. If the first process of a
    /// container has changed, the container counts as not known, because its counters start at 0 again.
    fn update(&mut self, running: &[RunningContainer]) {
        let mut before =
            std::mem::replace(&mut self.containers, HashMap::with_capacity(running.len()));
        let mut unknown = Vec::new();
        for one in running {
            let Some(inspected) = one.inspection.answer() else {
                if let Inspection::Failed { error, .. } = &one.inspection {
                    let unanswered = Container {
                        pid: 0,
                        inspected: None,
                        files: FileAccess::Unanswered(error.clone()),
                        last: None,
                    };
                    self.containers.insert(one.listed.id.clone(), unanswered);
                }
                continue;
            };
            match before.remove_entry(&one.listed.id) {
                // If the files could not be read, the agent tries again, because the reason is possibly temporary.
                Some((id, mut known))
                    if known.pid == inspected.pid && known.files.are_readable() =>
                {
                    known.note(inspected);
                    self.containers.insert(id, known);
                }
                _ => unknown.push((one, inspected)),
            }
        }
        // Closes the files of removed containers before new files are opened.
        drop(before);
        for (one, inspected) in unknown {
            self.add(one, inspected);
        }
    }

    /// Returns how many processes the kernel has killed for lack of memory since boot. None if no container needs it.
    fn read_oom_kills(&mut self) -> Option<u64> {
        let needs = |container: &Container| match &container.files {
            FileAccess::Kept(files) => files.needs_oom_kills(),
            FileAccess::Located { .. } => true,
            FileAccess::Refused(_) | FileAccess::Unanswered(_) | FileAccess::Idle => false,
        };
        if !self.containers.values().any(needs) {
            return None;
        }
        let text = std::str::from_utf8(self.vmstat.read().ok()?).ok()?;
        keyed(text, "oom_kill")
    }

    /// Reads the network interfaces of the host, if a container needs them.
    fn read_ends(&mut self) {
        let needs = |container: &Container| matches!(&container.files, FileAccess::Kept(files) if files.has_network());
        if self.containers.values().any(needs) {
            self.ends.read();
        }
    }

    fn add(&mut self, one: &RunningContainer, inspected: &Arc<Inspected>) {
        let container = &one.listed;
        let Inspected {
            pid, own_network, ..
        } = **inspected;
        let files = match &self.kernel {
            _ if pid == 0 => FileAccess::Idle,
            Err(error) => FileAccess::Refused(error.to_string()),
            Ok(kernel) => match kernel.open(&container.id, pid, own_network) {
                Ok(files) if self.containers.len() < self.max_kept => FileAccess::Kept(files),
                Ok(_) => FileAccess::Located { own_network },
                Err(refused) => match &one.inspection {
                    // The inspection is old, so another process can have this process id now.
                    Inspection::Failed { error, .. } => FileAccess::Unanswered(error.clone()),
                    _ => FileAccess::Refused(refused.to_string()),
                },
            },
        };
        if let FileAccess::Refused(reason) = &files {
            debug!(
                container = container.bare_name(),
                reason, "the kernel's files of a container cannot be read"
            );
        }
        let last = None;
        let known = Container {
            pid,
            inspected: Some(Arc::clone(inspected)),
            files,
            last,
        };
        self.containers.insert(container.id.clone(), known);
    }

    /// Reads a container's figures, with the rates since the previous reading. If other containers share the container's network
    /// (`shares_network`), reads all files each time.
    fn read(&mut self, id: &str, shares_network: bool) -> Result<Figures, Missing> {
        let buffer = &mut self.buffer;
        let host = &Host {
            memory: self.host_memory,
            oom_kills: self.oom_kills,
            ends: Some(&self.ends),
        };
        let without_ends = &Host {
            ends: None,
            ..*host
        };
        let known = self.containers.get_mut(id).ok_or(Missing::Lost)?;
        let last = known.last.as_ref();
        let read = match (&known.files, &self.kernel) {
            (FileAccess::Kept(files), _) => files.read(last, shares_network, buffer, host),
            (&FileAccess::Located { own_network }, Ok(kernel)) => kernel
                .open(id, known.pid, own_network)
                .and_then(|files| files.read(last, shares_network, buffer, without_ends)),
            (FileAccess::Refused(reason), _) => return Err(Missing::Refused(reason.clone())),
            (FileAccess::Unanswered(error), _) => return Err(Missing::Failed(error.clone())),
            (FileAccess::Idle, _) => return Err(Missing::Idle),
            (FileAccess::Located { .. }, Err(_)) => return Err(Missing::Lost),
        };
        match read {
            Ok(now) => {
                let before = known.last.replace(now.clone());
                Ok(Figures {
                    now,
                    before: before.map(|before| before.cpu),
                })
            }
            Err(error) => {
                debug!(%error, "the kernel's files of a container can no longer be read");
                self.containers.remove(id);
                Err(Missing::Lost)
            }
        }
    }
}

impl Container {
    /// Stores the newest inspection. The engine is asked again after an event, which can be a change of the container's limits.
    fn note(&mut self, inspected: &Arc<Inspected>) {
        let known = self.inspected.replace(Arc::clone(inspected));
        let is_same = known.is_some_and(|known| Arc::ptr_eq(&known, inspected));
        if let Some(last) = self.last.as_mut().filter(|_| !is_same) {
            last.rare_at = None;
        }
    }
}

impl FileAccess {
    /// Whether the container's files can be read. They are open, or are opened for each reading.
    fn are_readable(&self) -> bool {
        matches!(self, Self::Kept(_) | Self::Located { .. })
    }
}
