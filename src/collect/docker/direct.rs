//! The direct way: containers measured from the kernel's files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};
use tracing::debug;

use super::cgroup::{ContainerFiles, FILES_PER_CONTAINER, Kernel, KernelError};
use super::engine::{EngineError, Inspected};
use super::inventory::{Inspection, Inventory, RunningContainer};
use super::usage::{ContainerReading, CpuReading, network_lenders};

/// The most files that are kept open, and the share of all that the process may open.
const MOST_KEPT_FILES: u64 = 4096;
const SHARE_OF_FILES: u64 = 4;

/// How many files are kept open, of as many as the process may open.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    (limit / SHARE_OF_FILES).min(MOST_KEPT_FILES)
}

/// KeptFiles that containers are measured from.
pub(super) struct Direct {
    kernel: Result<Kernel, KernelError>,
    /// By id.
    containers: HashMap<String, Container>,
    /// How many containers' files are kept open; those of further ones are opened for each
    /// reading.
    most_kept: usize,
    /// The host's memory in bytes.
    host_memory: u64,
    /// Room for the texts of files.
    buffer: Vec<u8>,
}

/// A running container.
struct Container {
    /// Its first process.
    pid: u32,
    files: KeptFiles,
    /// What the next reading is compared with.
    last: Option<ContainerReading>,
}

/// How a container's files can be read.
enum KeptFiles {
    /// They are open.
    Kept(ContainerFiles),
    /// They can be opened.
    Located { own_network: bool },
    /// The kernel's files cannot serve; why.
    Refused(String),
    /// The engine did not say what its first process is.
    Unanswered(EngineError),
    /// It has no process: it is about to be restarted.
    Idle,
}

/// Why the files did not yield a container's figures.
#[derive(Debug)]
pub(super) enum Miss {
    /// They cannot; why not.
    Refused(String),
    /// They could before: the container has ended, or was restarted.
    Lost,
    /// The engine does not answer for this container.
    Failed(EngineError),
    /// There is nothing to be read at present.
    Idle,
}

/// The figures of one container.
pub(super) struct Figures {
    pub(super) now: ContainerReading,
    /// None for its first reading.
    pub(super) before: Option<CpuReading>,
}

/// What came of reading every container.
pub(super) struct Figured {
    /// The containers that run.
    pub(super) running: Arc<Vec<RunningContainer>>,
    /// The figures of each of them, in their order.
    pub(super) figures: Vec<Result<Figures, Miss>>,
    /// When they were read.
    pub(super) read_at: SystemTime,
    /// Whether these are all containers, or some that were read again.
    pub(super) is_whole: bool,
}

/// The host's memory, in bytes.
fn host_memory() -> u64 {
    let memory = rustix::system::sysinfo();
    u64::from(memory.mem_unit) * memory.totalram as u64
}

impl Direct {
    /// Reads the files below `/proc` and the control groups that are mounted. Whether they stay open between readings is
    /// for the caller to say: an open file keeps the network of a container that has ended.
    pub(super) fn new(keeps_open: bool) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let kept = if keeps_open {
            most_kept_files(files)
        } else {
            0
        };
        Self {
            kernel: Kernel::new(Path::new("/proc")),
            containers: HashMap::new(),
            most_kept: usize::try_from(kept).unwrap_or(usize::MAX) / FILES_PER_CONTAINER,
            host_memory: host_memory(),
            buffer: Vec::new(),
        }
    }

    /// Reads the figures of all containers of an inventory that still run. Blocks.
    pub(super) fn read_all(&mut self, inventory: &Inventory) -> Figured {
        if self.kernel.is_err() {
            // The reason may have been a passing one.
            self.kernel = Kernel::new(Path::new("/proc"));
        }
        // Memory may be added to a running host.
        self.host_memory = host_memory();
        let running = inventory.running();
        self.update(&running);
        let lenders = network_lenders(&running);
        let lends = |one: &RunningContainer| lenders.iter().any(|lender| one.listed.is(lender));
        let figures = running
            .iter()
            .map(|one| self.read(&one.listed.id, lends(one)))
            .collect();
        Figured {
            running,
            figures,
            read_at: SystemTime::now(),
            is_whole: true,
        }
    }

    /// Reads the figures of some containers, those of which there was none before twice, `apart` from each other. First
    /// takes in an inventory, if there is a newer one. Blocks.
    pub(super) fn read_twice(
        &mut self,
        ids: &[String],
        anew: Option<&Inventory>,
        apart: Duration,
    ) -> Figured {
        if let Some(inventory) = anew {
            self.update(&inventory.running());
        }
        for id in ids {
            let known = self.containers.get(id);
            if known.is_some_and(|known| known.last.is_none()) {
                // What comes of it is what the second reading is compared with.
                let _ = self.read(id, false);
            }
        }
        thread::sleep(apart);
        Figured {
            running: Arc::default(),
            figures: ids.iter().map(|id| self.read(id, false)).collect(),
            read_at: SystemTime::now(),
            is_whole: false,
        }
    }

    /// Forgets containers that no longer run, or that run as another process, whose counters begin
    /// anew. Opens the files of those that are not known yet.
    fn update(&mut self, running: &[RunningContainer]) {
        let mut before =
            std::mem::replace(&mut self.containers, HashMap::with_capacity(running.len()));
        let mut strangers = Vec::new();
        for one in running {
            let Some(inspected) = one.inspection.done() else {
                if let Inspection::Failed { error, .. } = &one.inspection {
                    let unanswered = Container {
                        pid: 0,
                        files: KeptFiles::Unanswered(error.clone()),
                        last: None,
                    };
                    self.containers.insert(one.listed.id.clone(), unanswered);
                }
                continue;
            };
            match before.remove_entry(&one.listed.id) {
                // What was refused is tried again: the reason may have been a passing one.
                Some((id, known)) if known.pid == inspected.pid && known.files.are_there() => {
                    self.containers.insert(id, known);
                }
                _ => strangers.push((one, inspected)),
            }
        }
        // The files of containers that are gone are closed first.
        drop(before);
        for (one, inspected) in strangers {
            self.meet(one, inspected);
        }
    }

    fn meet(&mut self, one: &RunningContainer, inspected: &Inspected) {
        let container = &one.listed;
        let Inspected {
            pid, own_network, ..
        } = *inspected;
        let files = match &self.kernel {
            _ if pid == 0 => KeptFiles::Idle,
            Err(error) => KeptFiles::Refused(error.to_string()),
            Ok(kernel) => match kernel.open(&container.id, pid, own_network) {
                Ok(files) if self.containers.len() < self.most_kept => KeptFiles::Kept(files),
                Ok(_) => KeptFiles::Located { own_network },
                Err(refused) => match &one.inspection {
                    // It may be another process by now.
                    Inspection::Failed { error, .. } => KeptFiles::Unanswered(error.clone()),
                    _ => KeptFiles::Refused(refused.to_string()),
                },
            },
        };
        if let KeptFiles::Refused(reason) = &files {
            debug!(
                container = container.bare_name(),
                reason, "not measured directly"
            );
        }
        let last = None;
        let known = Container { pid, files, last };
        self.containers.insert(container.id.clone(), known);
    }

    /// Reads a container's figures, with their rates since the last reading; of one that `lends` its network to
    /// others all of them each time.
    fn read(&mut self, id: &str, lends: bool) -> Result<Figures, Miss> {
        let (buffer, host_memory) = (&mut self.buffer, self.host_memory);
        let known = self.containers.get_mut(id).ok_or(Miss::Lost)?;
        let last = known.last.as_ref();
        let read = match (&known.files, &self.kernel) {
            (KeptFiles::Kept(files), _) => files.read(last, lends, buffer, host_memory),
            (&KeptFiles::Located { own_network }, Ok(kernel)) => kernel
                .open(id, known.pid, own_network)
                .and_then(|files| files.read(last, lends, buffer, host_memory)),
            (KeptFiles::Refused(reason), _) => return Err(Miss::Refused(reason.clone())),
            (KeptFiles::Unanswered(error), _) => return Err(Miss::Failed(error.clone())),
            (KeptFiles::Idle, _) => return Err(Miss::Idle),
            (KeptFiles::Located { .. }, Err(_)) => return Err(Miss::Lost),
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
                debug!(%error, "container lost");
                self.containers.remove(id);
                Err(Miss::Lost)
            }
        }
    }
}

impl KeptFiles {
    /// Whether the container can be read from them.
    fn are_there(&self) -> bool {
        matches!(self, Self::Kept(_) | Self::Located { .. })
    }
}
