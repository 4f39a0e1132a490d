//! Reads lines of a log again from its files, for clients that need more lines than the tail has. A reading begins at a position
//! and ends after a limited number of bytes. It has no state: the position after it tells where the next reading begins.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::entries::{CHUNK, LineEnds, read_up_to};
use super::format::Format;
use super::kept::KeptFile;
use super::offset::{FINGERPRINT_BYTES, bytes_before, fingerprint};
use super::part::LogPart;
use super::unpacked::Budget;
use super::{open, parts, range};
use crate::collect::logs::entry::MAX_ENTRY_BYTES;
use crate::collect::logs::line_piece::LinePiece;
use crate::model::{
    FileOffset, FilePlace, LogPosition, LogRange, RangeLines, ReadLimits, ReadLines, ReadLog,
};
use crate::settings::Redaction;

/// The files of one container's log.
#[derive(Debug)]
pub(super) struct LogReader {
    path: PathBuf,
    format: Format,
    tty: bool,
    redaction: Redaction,
    /// The newest file, if it stays open.
    pub(super) kept: Arc<KeptFile>,
}

impl LogReader {
    /// Prepares to read the log at `path`.
    pub(super) fn new(path: PathBuf, tty: bool, redaction: &Redaction) -> Self {
        Self {
            format: Format::of(&path),
            path,
            tty,
            redaction: redaction.clone(),
            kept: Arc::default(),
        }
    }

    /// Returns the newest file. Opens it if it is not kept open.
    fn open(&self) -> io::Result<(Arc<File>, Metadata)> {
        if let (now, Some(file)) = self.kept.look(&self.path)? {
            return Ok((file, now));
        }
        let (file, now) = open::open(&self.path)?;
        Ok((Arc::new(file), now))
    }
}

impl ReadLog for LogReader {
    fn is_in_files(&self) -> bool {
        true
    }

    fn read(
        &self,
        after: &LogPosition,
        to: &FilePlace,
        limits: ReadLimits,
    ) -> io::Result<ReadLines> {
        let (file, now) = self.open()?;
        let budget = Budget::new();
        let Some(place) = after.place.as_deref() else {
            return Err(io::Error::other("no place to begin at"));
        };
        let since = |budget: &Budget| parts::since(&self.path, &place.at, &file, &now, budget);
        let place = *place;
        let all = |budget: &Budget| match place.at.time() {
            // Calls to the engine have recorded the place. It is gone, or in a compressed file.
            Some(time) => {
                let (parts, at, _) = parts::plain_after_time(&self.path, time, &file, &now)?;
                Ok((parts, at))
            }
            None => parts::all(&self.path, &file, &now, budget),
        };
        let is_beginning = place.at == FileOffset::default();
        let found = match is_beginning {
            true => None,
            false => since(&budget)?,
        };
        if let Some(part) = found.as_ref().and_then(|parts| parts.first())
            && part.has(&to.at)?
            && part.offset() > to.at.offset
        {
            // The client has received these lines already.
            return Ok(ReadLines::none(after.clone()));
        }
        // `start` is where the reading begins, and `after` the number of the newest line before the client's position.
        let (parts, start, after) = match found {
            Some(parts) if place.line > 0 => (parts, place, after.line),
            Some(parts) => {
                // Another run of the agent has recorded the place, so its line is numbered by counting.
                let line = number_before(self.format, parts, to)?;
                let start = FilePlace { line, ..place };
                let again = since(&Budget::new())?;
                (again.unwrap_or_default(), start, line + after.line)
            }
            None => {
                let counted = Budget::new();
                let (parts, at) = all(&counted)?;
                let line = number_before(self.format, parts, to)?;
                let start = FilePlace { at, line };
                let after = match place.line {
                    0 if is_beginning => start.line,
                    // The number of lost lines is unknown, so one lost line is counted.
                    0 => start.line.saturating_sub(1),
                    _ => after.line,
                };
                (all(&budget)?.0, start, after)
            }
        };
        let mut walk = Walk {
            format: self.format,
            tty: self.tty,
            piece: LinePiece::new(start, after, limits, &self.redaction),
        };
        let dropped = start.line.saturating_sub(after);
        let mut reached = false;
        for part in parts {
            match walk.read(part, to)? {
                End::OfPart => {}
                End::OfPiece => break,
                End::AtPlace => {
                    reached = true;
                    break;
                }
            }
        }
        let read = walk.piece.finish(dropped, reached.then_some(to));
        if !reached && read.end.line > to.line {
            return Err(rotated_meanwhile());
        }
        Ok(read)
    }

    fn range(&self, range: &LogRange) -> io::Result<RangeLines> {
        range::read(&self.path, self.tty, &self.redaction, self.open()?, range)
    }
}

/// Returns the number of the newest line before `parts`. Counts the lines in `parts` up to `to`, whose number is known.
///
/// # Errors
/// Fails if `to` is in none of the parts. The files have changed since `to` was read, and a later reading can succeed.
fn number_before(format: Format, parts: Vec<LogPart>, to: &FilePlace) -> io::Result<u64> {
    let mut ends = LineEnds::after(format, &[]);
    for part in parts {
        let is_last = part.has(&to.at)?;
        let length = to.at.offset.saturating_sub(part.offset());
        let reader = part.reader(0);
        if is_last {
            ends.count(reader.take(length))?;
            return Ok(to.line.saturating_sub(ends.found() as u64));
        }
        ends.count(reader)?;
    }
    Err(rotated_meanwhile())
}

fn rotated_meanwhile() -> io::Error {
    io::Error::other("the log was rotated while it was read")
}

/// Where the reading of a part ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// At the end of the part.
    OfPart,
    /// After enough bytes.
    OfPiece,
    /// At the place where the reading should end.
    AtPlace,
}

/// A reading.
struct Walk {
    format: Format,
    tty: bool,
    piece: LinePiece,
}

impl Walk {
    /// Reads a part of the log, up to the place `to`, or until there are enough bytes.
    fn read(&mut self, part: LogPart, to: &FilePlace) -> io::Result<End> {
        let inode = part.inode();
        let mut offset = part.offset();
        let stop = part.has(&to.at)?.then_some(to.at.offset);
        if stop.is_some_and(|stop| offset >= stop) {
            return Ok(End::AtPlace);
        }
        let before = bytes_before(offset);
        let mut reader = part.reader(before);
        // The last bytes that were parsed, for the fingerprint, and then the bytes that are not parsed yet.
        let mut bytes = Vec::new();
        read_up_to(&mut reader, before, &mut bytes)?;
        let (mut begin, mut searched) = (bytes.len(), 0);
        let chunk = (self.piece.limits.text * 2).clamp(8 * 1024, CHUNK);
        loop {
            let unread = stop.map_or(u64::MAX, |stop| {
                stop.saturating_sub(offset + (bytes.len() - begin) as u64)
            });
            let limit = usize::try_from(unread).map_or(chunk, |unread| chunk.min(unread));
            let read = read_up_to(&mut reader, limit, &mut bytes)?;
            let mut settled = None;
            let mut enough = false;
            while let Some(length) = self.format.entry_end(&bytes[begin..], searched) {
                self.add(&bytes[begin..begin + length]);
                offset += length as u64;
                (begin, searched) = (begin + length, 0);
                if let Some(line) = self.piece.settle() {
                    settled = Some((begin, offset, line));
                }
                enough = self.piece.is_enough();
                if enough {
                    break;
                }
            }
            if let Some((end, offset, line)) = settled {
                let at = FileOffset {
                    inode,
                    offset,
                    fingerprint: fingerprint(&bytes[..end]),
                };
                self.piece.settled = FilePlace { at, line };
            }
            if stop.is_some_and(|stop| offset >= stop) {
                return Ok(End::AtPlace);
            }
            if enough {
                return Ok(End::OfPiece);
            }
            if read == 0 {
                return Ok(End::OfPart);
            }
            if bytes.len() - begin > MAX_ENTRY_BYTES {
                // This is not a valid entry. `add` ignores its end.
                offset += (bytes.len() - begin) as u64;
                begin = bytes.len();
            }
            let parsed = begin.saturating_sub(FINGERPRINT_BYTES);
            bytes.drain(..parsed);
            begin -= parsed;
            searched = bytes.len() - begin;
        }
    }

    fn add(&mut self, entry: &[u8]) {
        if !self.tty
            && self.piece.can_copy()
            && let Some(plain) = self.format.parse_plain(entry)
        {
            self.piece.push_plain(&plain);
        } else if let Some(entry) = self.format.parse(entry) {
            self.piece.push(entry.channel_of(self.tty), &entry.message);
        }
    }
}
