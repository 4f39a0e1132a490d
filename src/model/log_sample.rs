//! The result of one reading of the logs of all containers.

use std::sync::Arc;

use foldhash::HashMap;

use super::{FileLog, LogLines, LogOpener, Logs, Positions, StoppedContainer, Via};

/// Minimum number of digits of a container's id that identify the container.
const MIN_ID_DIGITS: usize = 12;

/// One reading of the running containers' logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogSample {
    /// The section `logs`.
    pub logs: Arc<Logs>,
    /// The logs of containers that have ended, in the order in which the containers ended.
    pub ended: Arc<Vec<EndedLog>>,
    /// The positions in the logs of running and ended containers.
    pub positions: Arc<Positions>,
    /// The logs that can be read from files, by container id.
    pub files: Arc<HashMap<Arc<str>, FileLog>>,
    /// The size of all files of a running container's log, in bytes. By container id.
    pub bytes: Arc<HashMap<Arc<str>, u64>>,
    /// Where the log lines come from.
    pub via: Via,
    /// Why not all log lines come from the engine's log files. None if all log lines come from these files.
    pub via_reason: Option<String>,
    /// Opens the logs of stopped containers that the agent has not read. None if no log can be read.
    pub opener: Option<LogOpener>,
}

impl LogSample {
    /// Returns what reads the log of a container. `container` is its name, or its id with at least 12 digits. The agent reads
    /// the logs of running containers. Of the containers in `stopped`, it opens the log now if it has not read it before.
    ///
    /// # Errors
    /// Fails if no such container is known, or if its log cannot be read.
    pub fn file_of(
        &self,
        container: &str,
        stopped: &[Arc<StoppedContainer>],
    ) -> Result<FileLog, String> {
        let running = self.logs.get(container);
        let running = running.map(|lines| &lines.place().container);
        let ended = || self.ended.iter().rev().find(|log| log.name == container);
        let by_name = running.or_else(|| ended().map(|log| &log.container));
        let is_id = container.len() >= MIN_ID_DIGITS;
        let by_id = || {
            let mut ids = self.positions.keys().filter(|_| is_id);
            ids.find(|id| id.starts_with(container))
        };
        if let Some(id) = by_name.or_else(by_id) {
            let file = self.files.get(id).cloned();
            return file.ok_or_else(|| "container: its log cannot be read".to_owned());
        }
        let unread = stopped.iter().find_map(|one| {
            if one.bare_name() == container {
                return Some(one.id.as_str());
            }
            // The id of a stopped container has only 12 digits.
            (is_id && container.starts_with(&one.id)).then_some(container)
        });
        let file = unread.zip(self.opener.as_ref());
        let file = file.map(|(id, opener)| opener.0.open(id));
        file.ok_or_else(|| "container: no such log".to_owned())
    }
}

/// The log of a container that has ended. The agent remembers this log, because the container can be started again.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedLog {
    /// The container's name, without the slash.
    pub name: String,
    /// The container's id.
    pub container: Arc<str>,
    /// The position up to which the log has been read.
    pub position: u64,
    /// The newest log lines. None after they have become too old.
    pub lines: Option<Arc<LogLines>>,
}
