//! The direct way: containers measured from the kernel's files.

use std::collections::HashMap;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use tracing::debug;

use super::cgroup::{ContainerFiles, FILES_PER_CONTAINER, Kernel, KernelError};
use super::engine::{EngineError, Inspected};
use super::inventory::{Inspection, Running};
use super::listing::Listed;
use super::usage::Reading;

/// The most files that are kept open, and the share of all that the process may open.
const MOST_KEPT_FILES: u64 = 4096;
const SHARE_OF_FILES: u64 = 4;

/// How many files are kept open, of as many as the process may open.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    (limit / SHARE_OF_FILES).min(MOST_KEPT_FILES)
}

/// Files that containers are measured from.
pub(super) struct Direct {
    kernel: Result<Kernel, KernelError>,
    /// By id, with the first process that they belong to.
    containers: HashMap<String, (u32, Known)>,
    /// How many containers' files are kept open; those of further ones are opened for each
    /// reading.
    most_kept: usize,
    /// The host's memory in bytes.
    host_memory: u64,
    /// Room for the texts of files.
    buffer: Vec<u8>,
}

/// What is known of a running container.
enum Known {
    /// Its files are open.
    Kept(ContainerFiles),
    /// Its files can be opened.
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

impl Direct {
    /// Reads the files below `/proc` and the control groups that are mounted.
    pub(super) fn new() -> Self {
        let memory = rustix::system::sysinfo();
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let kept = most_kept_files(files);
        Self {
            kernel: Kernel::new(Path::new("/proc")),
            containers: HashMap::new(),
            most_kept: usize::try_from(kept).unwrap_or(usize::MAX) / FILES_PER_CONTAINER,
            host_memory: u64::from(memory.mem_unit) * memory.totalram as u64,
            buffer: Vec::new(),
        }
    }

    /// Forgets containers that no longer run, or that run as another process, and opens the files
    /// of those that are not known yet. Returns the ids of those that run as another process:
    /// their counters have begun anew.
    pub(super) fn update(&mut self, running: &[Running]) -> Vec<String> {
        let mut before =
            std::mem::replace(&mut self.containers, HashMap::with_capacity(running.len()));
        let mut strangers = Vec::new();
        let mut restarted = Vec::new();
        for Running { listed, inspection } in running {
            let inspected = match inspection {
                Inspection::Done(inspected) => inspected,
                Inspection::Due => continue,
                Inspection::Failed(error, _) => {
                    let known = (0, Known::Unanswered(error.clone()));
                    self.containers.insert(listed.id.clone(), known);
                    continue;
                }
            };
            match before.remove_entry(&listed.id) {
                // What was refused is tried again: the reason may have been a passing one.
                Some((id, (pid, known @ (Known::Kept(_) | Known::Located { .. }))))
                    if pid == inspected.pid =>
                {
                    self.containers.insert(id, (pid, known));
                }
                Some((id, (pid, _))) if pid != inspected.pid => {
                    restarted.push(id);
                    strangers.push((listed, inspected));
                }
                _ => strangers.push((listed, inspected)),
            }
        }
        for (listed, inspected) in strangers {
            self.meet(listed, inspected);
        }
        restarted
    }

    fn meet(&mut self, container: &Listed, inspected: &Inspected) {
        let Inspected {
            pid, own_network, ..
        } = *inspected;
        let known = match &self.kernel {
            _ if pid == 0 => Known::Idle,
            Err(error) => Known::Refused(error.to_string()),
            Ok(kernel) => match kernel.open(&container.id, pid, own_network) {
                Ok(files) if self.containers.len() < self.most_kept => Known::Kept(files),
                Ok(_) => Known::Located { own_network },
                Err(error) => Known::Refused(error.to_string()),
            },
        };
        if let Known::Refused(reason) = &known {
            debug!(
                container = container.bare_name(),
                reason, "not measured directly"
            );
        }
        self.containers.insert(container.id.clone(), (pid, known));
    }

    /// Reads a container's figures, with their rates since `before`; of one that `lends` its network to others all
    /// of them each time.
    pub(super) fn read(
        &mut self,
        id: &str,
        before: Option<&Reading>,
        lends: bool,
    ) -> Result<Reading, Miss> {
        let (buffer, host_memory) = (&mut self.buffer, self.host_memory);
        let read = match (self.containers.get(id), &self.kernel) {
            (Some((_, Known::Kept(files))), _) => files.read(before, lends, buffer, host_memory),
            (Some(&(pid, Known::Located { own_network })), Ok(kernel)) => kernel
                .open(id, pid, own_network)
                .and_then(|files| files.read(before, lends, buffer, host_memory)),
            (Some((_, Known::Refused(reason))), _) => return Err(Miss::Refused(reason.clone())),
            (Some((_, Known::Unanswered(error))), _) => return Err(Miss::Failed(error.clone())),
            (Some((_, Known::Idle)), _) => return Err(Miss::Idle),
            (None, _) | (_, Err(_)) => return Err(Miss::Lost),
        };
        read.map_err(|error| {
            debug!(%error, "container lost");
            self.containers.remove(id);
            Miss::Lost
        })
    }
}
