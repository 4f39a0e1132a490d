//! How one container's log is read, and what the newest reading of its file has found.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::file::LogFile;
use super::open;
use crate::collect::docker::engine::EngineError;
use crate::collect::logs::seen::Handover;
use crate::model::LogLines;

/// The way in which a container's log is read, and the result of the newest reading.
pub(super) enum ReadLog {
    /// The log is read from its file.
    File {
        name: String,
        log: Box<LogFile>,
        /// None before the first reading.
        lines: Option<Arc<LogLines>>,
        /// Number of failures that were ignored after the newest success: 0 or 1. A second failure is not ignored.
        failed: u32,
        /// The reason why the file cannot be read now, if the agent or the host is the cause.
        host_error: Option<EngineError>,
    },
    /// The log is read by calls to the engine. The fields are the reason, and the position where the calls continue.
    Engine(String, Option<Handover>),
    /// The log is in the systemd journal. `tty` tells whether the container has a TTY.
    Journal { tty: bool },
    /// The engine did not answer the inspection of the container.
    Unanswered(EngineError),
    /// The container was removed, and the agent has not noticed it otherwise yet.
    Removed,
}

/// The result of reading one container's log from its file.
pub(in crate::collect::logs) enum LogReading {
    /// The newest lines.
    Lines(Arc<LogLines>),
    /// The lines of an earlier reading, and the reason why newer lines cannot be read.
    Stale(Arc<LogLines>, EngineError),
    /// The log must be read by calls to the engine. The fields are the reason, and the position where the calls continue. The
    /// position is None if the file was never read.
    Engine(String, Option<Handover>),
    /// The log must be read from the systemd journal, or by calls to the engine. `tty` tells whether the container has a TTY.
    Journal { tty: bool },
    /// There are no lines. The engine did not answer the inspection, or the agent or the host cannot open files now.
    Unanswered(EngineError),
    /// There are no lines. The container has just ended or started or was removed, or the round had no time for its log.
    Absent,
}

/// Whether an error is the fault of the agent or the host, and not of the file. Examples are too few file descriptors and too
/// little memory.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN)
    )
}

impl ReadLog {
    /// Reads the new lines of a log that is read from its file. Does nothing for other logs. `read_from` is the folder of all
    /// containers from which the agent has read a log. None before the first such reading.
    ///
    /// The engine deletes the folder of a container together with the container. So a container without a folder was removed,
    /// and a call to the engine for its log is useless. Such a call would also delay all other logs while the engine does not
    /// answer. This is certain only if the agent sees the engine's folders: a container's own `/var/lib/docker` can belong to
    /// another engine.
    ///
    /// `is_watched` says whether the kernel reports to the agent when the log is rotated.
    pub(super) fn read(&mut self, read_from: &mut Option<PathBuf>, is_watched: bool) {
        let Self::File {
            log,
            lines,
            failed,
            host_error,
            ..
        } = self
        else {
            return;
        };
        let updated = match is_watched {
            true => log.update_watched(),
            false => log.update(),
        };
        match updated {
            Ok(grown) => {
                (*failed, *host_error) = (0, None);
                let containers = log.folder().and_then(Path::parent);
                // Compares the paths as text, because Rust compares paths part by part, which takes much longer.
                if containers.map(Path::as_os_str) != read_from.as_deref().map(Path::as_os_str) {
                    *read_from = containers.map(Path::to_owned);
                }
                if grown {
                    *lines = Some(Arc::new(log.lines()));
                }
            }
            // The first failure is ignored, because there is no file for a moment during a rotation.
            Err(_) if lines.is_some() && *failed == 0 => *failed = 1,
            // A call to the engine would also fail, and costs more than a retry.
            Err(error) if is_temporary(&error) => {
                *host_error = Some(EngineError::Failed {
                    call: "log file",
                    reason: error.to_string(),
                });
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && was_removed(log, read_from) =>
            {
                *self = Self::Removed;
            }
            Err(error) => {
                *self = Self::Engine(format!("cannot read the log file: {error}"), log.handover());
            }
        }
    }

    /// Reads the new lines of a log that is read from its file, after a change. Returns whether there are new lines. Ignores errors,
    /// because the next round reads the log again.
    pub(super) fn read_changed(&mut self) -> bool {
        let Self::File { log, lines, .. } = self else {
            return false;
        };
        let has_grown = log.update().is_ok_and(|has_grown| has_grown);
        if has_grown {
            *lines = Some(Arc::new(log.lines()));
        }
        has_grown
    }

    /// Returns the name of the container and the newest lines, if the log is read from its file and has been read.
    pub(super) fn named_lines(&self) -> Option<(String, Arc<LogLines>)> {
        match self {
            Self::File { name, lines, .. } => Some((name.clone(), Arc::clone(lines.as_ref()?))),
            Self::Engine(..) | Self::Journal { .. } | Self::Unanswered(_) | Self::Removed => None,
        }
    }

    /// Returns the result of the newest reading.
    pub(super) fn last(&self) -> LogReading {
        match self {
            Self::File {
                lines, host_error, ..
            } => match (lines, host_error) {
                (Some(lines), None) => LogReading::Lines(Arc::clone(lines)),
                (Some(lines), Some(host_error)) => {
                    LogReading::Stale(Arc::clone(lines), host_error.clone())
                }
                (None, Some(host_error)) => LogReading::Unanswered(host_error.clone()),
                (None, None) => LogReading::Absent,
            },
            Self::Engine(reason, handover) => LogReading::Engine(reason.clone(), handover.clone()),
            Self::Journal { tty } => LogReading::Journal { tty: *tty },
            Self::Unanswered(error) => LogReading::Unanswered(error.clone()),
            Self::Removed => LogReading::Absent,
        }
    }

    /// Returns the log, if it is read from its file.
    pub(super) fn log_file(&self) -> Option<&LogFile> {
        match self {
            Self::File { log, .. } => Some(log),
            Self::Engine(..) | Self::Journal { .. } | Self::Unanswered(_) | Self::Removed => None,
        }
    }
}

/// Whether a container was removed. See [`ReadLog::read`].
fn was_removed(log: &LogFile, read_from: &Option<PathBuf>) -> bool {
    let Some(folder) = log.folder() else {
        return false;
    };
    let is_seen = read_from.is_some() && folder.parent() == read_from.as_deref();
    is_seen && !open::exists(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::{LogReading, ReadLog};
    use crate::collect::logs::files::file::LogFile;
    use crate::collect::logs::new::New;

    /// The log of a container whose log file is in a folder of `containers`. There is no such folder if `line` is none.
    fn log(containers: &Path, id: &str, line: Option<&str>) -> ReadLog {
        let path = containers.join(id).join(format!("{id}-json.log"));
        if let Some(line) = line {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, line).unwrap();
        }
        ReadLog::File {
            name: id.to_owned(),
            log: Box::new(LogFile::new(Arc::from(id), path, false, 10, New::All)),
            lines: None,
            failed: 0,
            host_error: None,
        }
    }

    #[test]
    fn the_engine_is_not_asked_for_the_log_of_a_removed_container() {
        let containers = tempfile::tempdir().unwrap();
        let line = "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-01T12:00:00Z\"}\n";
        let mut read_from = None;

        // The agent does not know yet whether it sees the folders of this engine.
        let mut removed = log(containers.path(), "removed", None);
        removed.read(&mut read_from, false);
        assert!(matches!(removed.last(), LogReading::Engine(..)));

        let mut running = log(containers.path(), "running", Some(line));
        running.read(&mut read_from, false);
        assert!(matches!(running.last(), LogReading::Lines(_)));
        let mut removed = log(containers.path(), "removed", None);
        removed.read(&mut read_from, false);
        assert!(matches!(removed.last(), LogReading::Absent));
        assert!(removed.log_file().is_none());

        // The folder exists, so the container does too, and the engine can read its log.
        let mut without_file = log(containers.path(), "running", None);
        fs::remove_file(containers.path().join("running/running-json.log")).unwrap();
        without_file.read(&mut read_from, false);
        assert!(matches!(without_file.last(), LogReading::Engine(..)));

        // The container belongs to an engine whose folders the agent does not see.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut unseen = log(elsewhere.path(), "unseen", None);
        unseen.read(&mut read_from, false);
        assert!(matches!(unseen.last(), LogReading::Engine(..)));
    }
}
