//! The new log lines that are not in a snapshot, because the snapshot has only the newest log lines of each container. They are
//! read from the log files in pieces of limited size.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StreamPosition;
use super::line::next_position_id;
use crate::model::{
    DEFAULT_MAX_LINE, FileLog, FilePlace, LogLines, LogPosition, LogSample, ReadLimits, ReadLines,
};

/// Approximate limit on the text of a piece for a client, in bytes.
pub const PIECE_BYTES: usize = 512 * 1024;
/// Limit on the time of a piece. Logs that were not read by then come with the next piece.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Minimum share of one container in a piece, in bytes.
const MIN_SHARE: usize = 4 * 1024;

/// The logs with log lines that a client has not received and that are not in the snapshot.
#[derive(Debug, Clone)]
pub struct Unread {
    logs: Vec<UnreadLog>,
    /// The client's position after the snapshot.
    end: StreamPosition,
    /// Limit on the text of a line, in bytes.
    max_line: u32,
}

/// The unread log lines of one container.
#[derive(Debug, Clone)]
struct UnreadLog {
    container: Arc<str>,
    /// Whether the container has ended. The engine deletes the files only after that.
    has_ended: bool,
    file: FileLog,
    after: LogPosition,
    to: Arc<FilePlace>,
}

/// Log lines that were read from log files, for a client that needs more log lines than the snapshot has.
#[derive(Debug)]
pub struct LogPiece {
    logs: HashMap<Arc<str>, ReadLines>,
    /// The position after the log lines of this piece, and after the log lines of the snapshot for all other containers.
    position: StreamPosition,
    /// Whether more log lines up to the snapshot can be read after this piece.
    more: bool,
}

impl Unread {
    /// `logs` has only the newest log lines of each container. Returns the logs with further log lines after the position `since`.
    /// None if `logs` has all log lines after `since`. `end` is the client's position after `logs`. The client gets log lines of up
    /// to `max_line` bytes.
    pub(super) fn of(
        logs: &LogSample,
        since: &StreamPosition,
        end: StreamPosition,
        max_line: u32,
    ) -> Option<Self> {
        let mut unread = Vec::new();
        let mut add = |container: &Arc<str>, newest: Option<&LogLines>, has_ended| {
            let Some(position) = end.positions.get(container) else {
                return;
            };
            let origin = || newest.map(|lines| lines.place().origin.clone());
            let place = newest.map(LogLines::place);
            let Some(after) = since.log(container, place).or_else(origin) else {
                return;
            };
            let shown = newest.map_or(0, LogLines::finished) as u64;
            let is_cut = || newest.is_some_and(|lines| lines.has_cut_line_after(after.line));
            let is_complete = position.line.saturating_sub(after.line) <= shown
                && !(max_line > DEFAULT_MAX_LINE && is_cut());
            if is_complete || after.place.is_none() {
                return;
            }
            if let (Some(file), Some(to)) = (logs.files.get(container), &position.place) {
                unread.push(UnreadLog {
                    container: Arc::clone(container),
                    has_ended,
                    file: file.clone(),
                    after,
                    to: Arc::clone(to),
                });
            }
        };
        for log in logs.ended.iter() {
            add(&log.container, log.lines.as_deref(), true);
        }
        for lines in logs.logs.values() {
            add(&lines.place().container, Some(lines), false);
        }
        (!unread.is_empty()).then_some(Self {
            logs: unread,
            end,
            max_line,
        })
    }

    /// Reads the next log lines of each log, about `most` bytes together. Blocks the thread.
    #[must_use]
    pub fn read(self, most: usize) -> LogPiece {
        let limits = ReadLimits {
            text: (most / self.logs.len()).max(MIN_SHARE),
            line: self.max_line as usize,
        };
        let end = Instant::now() + MAX_TIME;
        self.read_by(|log| {
            if Instant::now() > end {
                return Ok(log.none());
            }
            let has_number = log.after.place.as_ref().is_some_and(|place| place.line > 0);
            if has_number && log.to.line <= log.after.line {
                // The lines after the position belong to a line that is not finished yet.
                return Ok(log.none());
            }
            log.file.0.read(&log.after, &log.to, limits)
        })
    }

    /// Returns a piece without log lines. The client stays at its position in all logs that must be read.
    #[must_use]
    pub fn postponed(self) -> LogPiece {
        self.read_by(|log| Ok(log.none()))
    }

    fn read_by(self, mut read: impl FnMut(&UnreadLog) -> io::Result<ReadLines>) -> LogPiece {
        let mut piece = LogPiece {
            logs: HashMap::with_capacity(self.logs.len()),
            position: self.end,
            more: false,
        };
        let mut positions = (*piece.position.positions).clone();
        for log in self.logs {
            let read = match read(&log) {
                Ok(read) => read,
                // The log was removed together with its container. The snapshot's newest log lines are all that is left.
                Err(error) if log.has_ended && error.kind() == io::ErrorKind::NotFound => continue,
                // The engine cannot read the log any more. The snapshot's newest log lines are all that is left.
                Err(error) if is_permanent(error.kind()) => continue,
                // The log cannot be read now. The client stays at its position, and a later snapshot tries again.
                Err(_) => log.none(),
            };
            piece.more |= read.end.line < log.to.line && read.end != log.after;
            positions.insert(Arc::clone(&log.container), read.end.clone());
            piece.logs.insert(log.container, read);
        }
        // Clients that have received everything up to the snapshot are all at the same position.
        if positions != *piece.position.positions {
            piece.position.id = next_position_id();
            piece.position.positions = Arc::new(positions);
        }
        piece
    }
}

/// Whether a further attempt to read a log by calls to the engine would fail too.
fn is_permanent(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::TimedOut | io::ErrorKind::InvalidData)
}

impl UnreadLog {
    /// Returns no log lines. The client stays at its position.
    fn none(&self) -> ReadLines {
        ReadLines::none(self.after.clone())
    }
}

impl LogPiece {
    /// Returns the position after this piece.
    #[must_use]
    pub fn position(&self) -> &StreamPosition {
        &self.position
    }

    /// Returns whether more log lines up to the snapshot can be read after this piece.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Returns the log lines of a container. None if the snapshot has all its new log lines.
    pub(super) fn of(&self, container: &str) -> Option<&ReadLines> {
        self.logs.get(container)
    }
}
