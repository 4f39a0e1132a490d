//! Reads lines of a log again from its files, for clients that need more lines than the tail has. A reading begins at a position
//! and ends after a limited number of bytes. It has no state: the position after it tells where the next reading begins.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::entries::{CHUNK, LineEnds, MAX_ENTRY_BYTES};
use super::format::Format;
use super::kept::KeptFile;
use super::offset::{FINGERPRINT_BYTES, bytes_before, fingerprint};
use super::part::LogPart;
use super::tail::TailLines;
use super::unpacked::Budget;
use super::{open, parts, range};
use crate::model::{
    FileOffset, FilePlace, LinesBuilder, LogPosition, LogRange, RangeLines, ReadLimits, ReadLines,
    ReadLog,
};
use crate::settings::Redaction;

/// Limit on the lines of one reading. The limit on bytes is reached first.
const MAX_LINES: usize = 1 << 30;
/// If a line is unfinished after enough bytes, the reading continues for up to this many bytes, to find the end of the line.
const MAX_OPEN_BYTES: usize = 256 * 1024;

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

    /// Opens the newest file. If it was deleted together with its container, returns the file that was kept open.
    fn open(&self) -> io::Result<(Arc<File>, Metadata)> {
        match open::open(&self.path) {
            Ok((file, now)) => Ok((Arc::new(file), now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (file, _) = self.kept.get().ok_or(error)?;
                let now = file.metadata()?;
                Ok((file, now))
            }
            Err(error) => Err(error),
        }
    }
}

impl ReadLog for LogReader {
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
        let all = |budget: &Budget| parts::all(&self.path, &file, &now, budget);
        let place = *place;
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
            skipped: after.saturating_sub(start.line),
            limits,
            redaction: self.redaction.clone(),
            not_stored: 0,
            lines: LinesBuilder::default(),
            tail: new_tail(&self.redaction, limits),
            first: start.line,
            settled: start,
        };
        let dropped = walk.first.saturating_sub(after);
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
        let read = walk.finish(dropped, reached.then_some(to));
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

fn new_tail(redaction: &Redaction, limits: ReadLimits) -> TailLines {
    TailLines::new(MAX_LINES, usize::MAX)
        .redacting(redaction)
        .cutting_at(limits.line)
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
    /// Number of lines at the beginning that come before the position of the client.
    skipped: u64,
    limits: ReadLimits,
    redaction: Redaction,
    /// Number of lines before the client's position that were counted and are not stored.
    not_stored: u64,
    /// The lines that were read.
    lines: LinesBuilder,
    /// The lines after `lines`. They need more work than a copy.
    tail: TailLines,
    /// The number of the newest line before the reading.
    first: u64,
    /// The newest place at which no line was unfinished.
    settled: FilePlace,
}

impl Walk {
    /// Reads a part of the log, up to the place `to`, or until there are enough bytes.
    fn read(&mut self, part: LogPart, to: &FilePlace) -> io::Result<End> {
        let inode = part.inode()?;
        let mut offset = part.offset();
        let stop = part.has(&to.at)?.then_some(to.at.offset);
        if stop.is_some_and(|stop| offset >= stop) {
            return Ok(End::AtPlace);
        }
        let before = bytes_before(offset);
        let mut reader = part.reader(before);
        // The last bytes that were parsed, for the fingerprint, and then the bytes that are not parsed yet.
        let mut bytes = Vec::new();
        (&mut reader).take(before as u64).read_to_end(&mut bytes)?;
        let (mut begin, mut searched) = (bytes.len(), 0);
        let chunk = (self.limits.text * 2).clamp(8 * 1024, CHUNK) as u64;
        loop {
            let unread = stop.map_or(u64::MAX, |stop| {
                stop.saturating_sub(offset + (bytes.len() - begin) as u64)
            });
            let read = (&mut reader)
                .take(chunk.min(unread))
                .read_to_end(&mut bytes)?;
            let mut settled = None;
            let mut enough = false;
            while let Some(length) = self.format.entry_end(&bytes[begin..], searched) {
                self.add(&bytes[begin..begin + length]);
                offset += length as u64;
                (begin, searched) = (begin + length, 0);
                let is_open = self.tail.is_open();
                if !is_open {
                    settled = Some((begin, offset, self.first + self.count()));
                    if self.count() <= self.skipped {
                        self.skip();
                    }
                }
                let limit = if is_open {
                    self.limits.text + MAX_OPEN_BYTES.max(2 * self.limits.line)
                } else {
                    self.limits.text
                };
                // The lines before the client's position do not count.
                let text = self.lines.bytes() + self.tail.text();
                enough = self.count() > self.skipped && text >= limit;
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
                self.settled = FilePlace { at, line };
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

    /// Returns the number of lines that were read, including unfinished lines.
    fn count(&self) -> u64 {
        self.not_stored + (self.lines.count() + self.tail.count()) as u64
    }

    /// Drops the stored lines, because they come before the client's position.
    fn skip(&mut self) {
        self.not_stored = self.count();
        self.lines = LinesBuilder::default();
        self.tail = new_tail(&self.redaction, self.limits);
    }

    fn add(&mut self, entry: &[u8]) {
        if !self.tty
            && !self.redaction.is_on()
            && !self.tail.is_open()
            && let Some(plain) = self.format.parse_plain(entry)
        {
            if self.tail.count() > 0 {
                self.lines.extend(&self.tail.show());
                self.tail = new_tail(&self.redaction, self.limits);
            }
            self.lines.push_plain([&plain.timestamp, plain.text, ""]);
            return;
        }
        if let Some(entry) = self.format.parse(entry) {
            self.tail.push(entry.channel_of(self.tty), &entry.message);
        }
    }

    /// Returns the lines. `to` is the place at which the reading should end, if the reading has reached it.
    fn finish(mut self, dropped: u64, to: Option<&FilePlace>) -> ReadLines {
        let count = self.count();
        let last = self.tail.show();
        if self.tail.count() > last.iter().len() {
            // There was too much text after a line that is not finished yet.
            self.lines = LinesBuilder::default();
            self.not_stored = count - last.iter().len() as u64;
        }
        self.lines.extend(&last);
        let lines = self.lines.finish(last.open());
        let finished = lines.iter().len() - lines.open();
        let new = self.skipped.saturating_sub(self.not_stored);
        let dropped = dropped + self.not_stored.saturating_sub(self.skipped);
        let new = usize::try_from(new).unwrap_or(finished);
        let newest = self.first + count - lines.open() as u64;
        let (line, place, lost) = match to {
            // The number at the place is right, because all earlier lines were counted before they were deleted. If the reading has
            // found fewer lines, a file is damaged.
            Some(to) => (to.line, *to, to.line.saturating_sub(newest)),
            None => (newest, self.settled, 0),
        };
        ReadLines {
            new: new.min(finished)..finished,
            lines: lines.into(),
            dropped: dropped + lost,
            end: LogPosition {
                line,
                place: Some(place.into()),
            },
        }
    }
}
