//! The logs of stopped containers that the agent has not read, for example of containers that ended before the agent started. They are
//! read only for a request for older log lines, so they cost nothing else.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::calls::CallReader;
use super::files::stopped::reader_of;
use crate::collect::docker::engine::Call;
use crate::model::{
    FileLog, FilePlace, LogPosition, LogRange, OpenLog, RangeLines, ReadLimits, ReadLines, ReadLog,
};
use crate::settings::{CollectSettings, ContainerStats, Redaction};

/// Opens the logs of stopped containers.
pub(super) struct StoppedLogs {
    redaction: Redaction,
    reads_files: bool,
    newest: Mutex<Origin>,
}

/// Where the logs of stopped containers are.
#[derive(Clone, Default)]
struct Origin {
    /// The folder in which the engine has a folder for each container. None if the agent reads no log files.
    containers: Option<PathBuf>,
    /// None while the engine does not answer.
    call: Option<Call>,
}

/// The log of a stopped container.
struct StoppedLog {
    /// The container's id, or the beginning of it.
    id: String,
    redaction: Redaction,
    origin: Origin,
}

impl StoppedLogs {
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self {
            redaction: settings.log_redact.clone(),
            reads_files: settings.container_stats != ContainerStats::Engine,
            newest: Mutex::default(),
        }
    }

    /// Records where the logs are after a round.
    pub(super) fn update(&self, containers: PathBuf, call: Option<Call>) {
        let containers = self.reads_files.then_some(containers);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Origin { containers, call };
    }
}

impl OpenLog for StoppedLogs {
    fn open(&self, id: &str) -> FileLog {
        let origin = self.newest.lock();
        FileLog(Arc::new(StoppedLog {
            id: id.to_owned(),
            redaction: self.redaction.clone(),
            origin: origin.unwrap_or_else(PoisonError::into_inner).clone(),
        }))
    }
}

impl ReadLog for StoppedLog {
    fn is_in_files(&self) -> bool {
        self.origin.containers.is_some()
    }

    fn read(&self, _: &LogPosition, _: &FilePlace, _: ReadLimits) -> io::Result<ReadLines> {
        // Clients have no positions in a log that the agent has not read.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn range(&self, range: &LogRange) -> io::Result<RangeLines> {
        let containers = self.origin.containers.as_deref();
        let file = containers.and_then(|folder| reader_of(folder, &self.id, &self.redaction));
        match (file, &self.origin.call) {
            (Some(file), _) => file.range(range),
            (None, Some(call)) => {
                let id = Arc::from(self.id.as_str());
                CallReader::of_engine(id, call, &self.redaction).range(range)
            }
            (None, None) => Err(io::Error::other("the engine does not answer")),
        }
    }
}
