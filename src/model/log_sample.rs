//! The result of one reading of the logs of all containers.

use std::collections::HashMap;
use std::sync::Arc;

use super::{FileLog, LogLines, Logs, Positions, Via};

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
}

impl LogSample {
    /// Returns what reads the log files of a container. `container` is its name, or its id with at least 12 digits.
    ///
    /// # Errors
    /// Fails if no such container is known, or if its log cannot be read.
    pub fn file_of(&self, container: &str) -> Result<FileLog, String> {
        let running = self.logs.get(container);
        let running = running.map(|lines| &lines.place().container);
        let ended = || self.ended.iter().rev().find(|log| log.name == container);
        let by_name = running.or_else(|| ended().map(|log| &log.container));
        let by_id = || {
            let is_id = container.len() >= MIN_ID_DIGITS;
            let mut ids = self.positions.keys().filter(|_| is_id);
            ids.find(|id| id.starts_with(container))
        };
        let id = by_name.or_else(by_id).ok_or("container: no such log")?;
        let file = self.files.get(id).cloned();
        file.ok_or_else(|| "container: its log cannot be read".to_owned())
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
