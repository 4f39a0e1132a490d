//! Reads a container's log from its files.
//!
//! Each reading continues at the last position. If the log was rotated after that, the reading also reads the rotated files, even
//! if they are compressed. So every line is counted, even if there are too many lines to store.
//!
//! In these cases, a reading searches backwards from the end of the log for the newest lines:
//!
//! - It is the first reading, and the log existed before the agent's first round.
//! - The position is lost, because the only file of the log was emptied, or because too many files were rotated away.
//! - The previous reading failed, or a stopped container starts again. The position is still known, so the new lines are counted.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entries::{LineEnds, MAX_PARSED_BYTES, last_entries, read_chunk};
use super::format::Format;
use super::kept::{KeptFile, KeptFiles};
use super::offset::fingerprint_of;
use super::open;
use super::part::LogPart;
use super::parts;
use super::position::{Growth, Position};
use super::reader::LogReader;
use super::rotated::rotated_files;
use super::size::RotatedSize;
use super::unpacked::Budget;
use crate::collect::logs::entry::MAX_ENTRY_BYTES;
use crate::collect::logs::new::New;
use crate::collect::logs::seen::{Handover, Seen, fingerprint_of_message, identity};
use crate::collect::logs::tail::TailLines;
use crate::model::{FileLog, FileOffset, FilePlace, LogLines, LogPosition, Place};
use crate::settings::Redaction;

/// Limit on the bytes of a file that are read only to count lines. If there are more such bytes, their lines are not counted.
/// Together these lines count as one lost line.
const MAX_COUNTED_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Maximum number of messages that a reading stores. For each message, the reading stores a hash, and the number of lines up to
/// the message.
const MAX_MESSAGES: usize = 4096;
/// Lines are numbered. At the first reading, the last finished line gets this number. With [`New::All`], the first line of the
/// log gets the next number. The number is not 0, because older lines have smaller numbers.
const ORIGIN: u64 = 1 << 32;

/// The log of one container, read from its files.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// The folder of the container. None if the log file is not in such a folder.
    folder: Option<Box<Path>>,
    format: Format,
    tty: bool,
    wanted: usize,
    redaction: Redaction,
    /// Reads the log's files again, for clients that need more lines than the tail has.
    reader: FileLog,
    /// The newest file, if it stays open.
    kept: Arc<KeptFile>,
    all_kept: KeptFiles,
    place: Place,
    new: New,
    /// How far the log was read. None before the first reading of the file.
    at: Option<Position>,
    /// The newest place at which no line was unfinished. None before the first reading of the file.
    settled: Option<Arc<FilePlace>>,
    /// The newest lines. None before the first reading, after an error, and after the container has ended.
    tail: Option<TailLines>,
    /// The newest messages that were read. They show which lines are new if the position is lost.
    seen: Seen,
    /// Whether the log was read by calls to the engine before the agent could read its file.
    handed_over: bool,
    rotated: RotatedSize,
}

/// The newest lines of a log, found by a search from the end of the log.
struct NewestLines {
    tail: TailLines,
    /// The unfinished entry after these lines.
    rest: Vec<u8>,
    /// For each message, a hash of the message and the number of lines up to the end of the message.
    messages: Vec<(u64, usize)>,
}

impl LogFile {
    /// Prepares to read the newest `wanted` lines of the log at `path`. Does not read the log yet.
    pub(super) fn new(
        container: Arc<str>,
        path: PathBuf,
        tty: bool,
        wanted: usize,
        new: New,
    ) -> Self {
        let redaction = Redaction::default();
        let reader = LogReader::new(path.clone(), tty, &redaction);
        let is_of_container =
            |folder: &&Path| folder.file_name().is_some_and(|name| name == &*container);
        Self {
            folder: path.ancestors().find(is_of_container).map(Box::from),
            kept: Arc::clone(&reader.kept),
            all_kept: KeptFiles::default(),
            reader: FileLog(Arc::new(reader)),
            format: Format::of(&path),
            path,
            tty,
            wanted,
            redaction,
            place: Place {
                container,
                end: ORIGIN,
                origin: LogPosition {
                    line: ORIGIN,
                    place: None,
                },
                created: 0,
            },
            new,
            at: None,
            settled: None,
            tail: None,
            seen: Seen::new(wanted + 1),
            handed_over: false,
            rotated: RotatedSize::default(),
        }
    }

    /// Continues a log that was read by calls to the engine.
    pub(super) fn after(self, calls: &Handover) -> Self {
        Self {
            place: Place {
                container: self.place.container,
                created: self.place.created,
                end: calls.position,
                origin: LogPosition {
                    line: calls.origin,
                    place: None,
                },
            },
            seen: (*calls.seen).clone(),
            settled: calls.settled.clone(),
            handed_over: true,
            ..self
        }
    }

    /// Returns how far the log was read. If the file becomes unreadable, calls to the engine continue there. None before the
    /// first reading of the file.
    pub(super) fn handover(&self) -> Option<Handover> {
        self.at.as_ref().map(|_| Handover {
            position: self.position(),
            origin: self.place.origin.line,
            seen: Arc::new(self.seen.clone()),
            settled: self.settled_message().map(Arc::new),
        })
    }

    /// Returns the place after the newest message, by the time of the message.
    fn settled_message(&self) -> Option<FilePlace> {
        let tail = self.tail.as_ref().filter(|tail| !tail.is_open())?;
        let newest = self.seen.newest()?;
        Some(FilePlace {
            at: FileOffset::of_time(tail.newest_time()?, fingerprint_of_message(newest)),
            line: self.position(),
        })
    }

    /// Sets the redaction of the lines.
    pub(super) fn redacting(self, redaction: &Redaction) -> Self {
        let redaction = redaction.clone();
        Self { redaction, ..self }.with_new_reader()
    }

    /// Sets whether the container has a TTY.
    pub(super) fn of_terminal(self, tty: bool) -> Self {
        if self.tty == tty {
            return self;
        }
        Self { tty, ..self }.with_new_reader()
    }

    /// Keeps the newest file open if not too many files are open. `all` counts them.
    pub(super) fn keeping(self, all: &KeptFiles) -> Self {
        let all_kept = all.clone();
        Self { all_kept, ..self }
    }

    fn with_new_reader(self) -> Self {
        let mut reader = LogReader::new(self.path.clone(), self.tty, &self.redaction);
        reader.kept = Arc::clone(&self.kept);
        Self {
            reader: FileLog(Arc::new(reader)),
            ..self
        }
    }

    /// Returns the path of the newest file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder of the container. None if the log file is not in such a folder.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Returns the size of all files of the log, in bytes. None before the first reading of the file.
    pub(super) fn bytes(&mut self) -> Option<u64> {
        let newest = &self.at.as_ref()?.at;
        Some(self.rotated.with_newest(&self.path, newest))
    }

    /// Whether the newest file is kept open.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    /// Closes the file that was kept open.
    pub(super) fn close(&self) {
        self.kept.close();
    }

    /// Sets the time when the container was created, in Unix seconds.
    pub(super) fn created(mut self, created: i64) -> Self {
        self.place.created = created;
        self
    }

    /// Returns what reads the log's files for clients that need more lines than the tail has.
    pub(super) fn reader(&self) -> &FileLog {
        &self.reader
    }

    fn no_lines(&self) -> TailLines {
        TailLines::new(self.wanted, usize::MAX).redacting(&self.redaction)
    }

    /// Reads the new lines. Returns false if the log has not changed.
    pub(super) fn update(&mut self) -> io::Result<bool> {
        let (now, kept) = self.kept.look(&self.path)?;
        self.update_from(now, kept)
    }

    /// Works like [`Self::update`], with fewer system calls. Looks for a newer file only from time to time, so the kernel must report to
    /// the agent when a newer file is created.
    pub(super) fn update_watched(&mut self) -> io::Result<bool> {
        let (now, kept) = self.kept.look_watched(&self.path)?;
        self.update_from(now, kept)
    }

    /// Reads the new lines of the newest file. `now` is its metadata, and `kept` the file itself if it is open.
    fn update_from(&mut self, now: Metadata, kept: Option<Arc<File>>) -> io::Result<bool> {
        if self.tail.is_some() && self.at.as_ref().is_some_and(|at| at.is_at(&now)) {
            return Ok(false);
        }
        let (file, now) = match kept {
            Some(file) => (file, now),
            None => {
                let inode = self.at.as_ref().map(|position| position.at.inode);
                let (file, now) = open::open_again(&self.path, inode)?;
                let file = Arc::new(file);
                self.kept.keep(&file, &now, &self.all_kept);
                (file, now)
            }
        };
        let growth = match &self.at {
            Some(at) => Growth::read(at, &file, &now)?,
            None => None,
        };
        if growth.is_none() {
            self.rotated.note_rotation();
        }
        let fingerprint = match &growth {
            Some(growth) => growth.fingerprint(),
            None => fingerprint_of(&file, &now, now.len())?,
        };
        let budget = Budget::new();
        let parts = match (&self.at, growth) {
            (_, Some(growth)) => Some(vec![growth.part()]),
            (Some(position), None) => parts::since(&self.path, &position.at, &file, &now, &budget)?,
            (None, None) => None,
        };
        let (tail, rest) = match (&self.at, parts) {
            (Some(at), Some(parts)) => {
                self.continued(parts, at.rest.clone(), &file, &now, &budget)?
            }
            (Some(_), None) => self.resynchronized(&file, &now, &budget)?,
            (None, _) if self.handed_over => {
                let settled = self.settled.clone();
                let parts = match &settled {
                    Some(place) => parts::since(&self.path, &place.at, &file, &now, &budget)?,
                    None => None,
                };
                match (settled, parts) {
                    (Some(settled), Some(parts)) => {
                        self.place.end = settled.line;
                        self.continued(parts, Vec::new(), &file, &now, &budget)?
                    }
                    _ => self.resynchronized(&file, &now, &budget)?,
                }
            }
            (None, _) => self.first(&file, &now, &budget)?,
        };
        if self
            .settled
            .as_ref()
            .is_some_and(|place| place.at.time().is_some())
        {
            // This place was only for the calls to the engine.
            self.settled = None;
        }
        if rest.is_empty() && !tail.is_open() {
            self.settled = Some(Arc::new(FilePlace {
                at: FileOffset {
                    inode: now.ino(),
                    offset: now.len(),
                    fingerprint,
                },
                line: self.place.end,
            }));
        }
        self.at = Some(Position::at_end(&now, fingerprint, rest));
        self.tail = Some(tail);
        Ok(true)
    }

    /// Reads the log for the first time.
    fn first(
        &mut self,
        file: &Arc<File>,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(TailLines, Vec<u8>)> {
        if self.new == New::All {
            let (mut tail, mut rest) = (self.no_lines(), Vec::new());
            let (parts, _) = parts::all(&self.path, file, now, budget)?;
            self.place.origin.place = Some(Arc::new(FilePlace {
                at: FileOffset::default(),
                line: ORIGIN,
            }));
            self.add_parts(parts, &mut rest, &mut tail, budget)?;
            self.place.end = ORIGIN + tail.count() as u64;
            return Ok((tail, rest));
        }
        if let New::Since(since) = self.new
            && let Some((parts, at)) = parts::after_time(&self.path, since, file, now)?
        {
            self.place.end = ORIGIN;
            self.place.origin.place = Some(Arc::new(FilePlace { at, line: ORIGIN }));
            return self.continued(parts, Vec::new(), file, now, budget);
        }
        let mut newest = self.newest(file, now.len(), budget)?;
        let lines = newest.tail.show();
        let new = self.new.of(&lines);
        // If all lines that were found are new, there were probably more new lines. One lost line is counted for them.
        let all = new == lines.iter().len() && new >= self.wanted;
        let lost = u64::from(self.new != New::OnlyKept && all);
        (self.place.end, self.place.origin.line) = (ORIGIN, ORIGIN - new as u64 - lost);
        self.place.end += newest.tail.unfinished() as u64;
        self.remember(&newest.messages);
        Ok((newest.tail, newest.rest))
    }

    /// Reads the newest lines after the position was lost. The messages of earlier readings show how many lines are new.
    fn resynchronized(
        &mut self,
        file: &Arc<File>,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(TailLines, Vec<u8>)> {
        let NewestLines {
            tail,
            rest,
            messages,
        } = self.newest(file, now.len(), budget)?;
        let identities: Vec<u64> = messages.iter().map(|(identity, _)| *identity).collect();
        let seen = self.seen.overlap(&identities);
        let count = tail.count();
        self.place.end += match seen.and_then(|seen| messages.get(seen.messages.checked_sub(1)?)) {
            Some((_, seen)) => (count - seen) as u64,
            // The log was empty at the previous reading, so all its lines are new.
            None if self.seen.is_empty() && count <= self.wanted => count as u64,
            // All lines in the files are new. The number of lost lines is unknown, so one lost line is counted.
            None => self.lines_in_files(file, now)? + tail.unfinished() as u64 + 1,
        };
        self.remember(&messages[seen.map_or(0, |seen| seen.messages)..]);
        Ok((tail, rest))
    }

    /// Returns the number of finished lines in all files of the log.
    fn lines_in_files(&self, file: &Arc<File>, now: &Metadata) -> io::Result<u64> {
        let mut ends = LineEnds::after(self.format, &[]);
        let (parts, _) = parts::all(&self.path, file, now, &Budget::new())?;
        for part in parts {
            ends.count(part.reader(0))?;
        }
        Ok(ends.found() as u64)
    }

    fn remember(&mut self, messages: &[(u64, usize)]) {
        for (identity, _) in messages {
            self.seen.push(*identity);
        }
    }

    /// Reads the log from its position to its end.
    fn continued(
        &mut self,
        parts: Vec<LogPart>,
        mut rest: Vec<u8>,
        file: &File,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(TailLines, Vec<u8>)> {
        // `self.tail` is empty while the log is read. If the reading fails, the next reading builds the tail again. The position
        // stays correct.
        let kept_tail = self.tail.take();
        let rebuild = kept_tail.is_none();
        let mut tail = kept_tail.unwrap_or_else(|| self.no_lines());
        let before = tail.count();
        self.add_parts(parts, &mut rest, &mut tail, budget)?;
        let lines = (tail.count() - before) as u64;
        if rebuild {
            // This tail has no lines from before the position, so the reading searches for the newest lines again.
            tail = self.newest(file, now.len(), budget)?.tail;
        }
        self.place.end += lines;
        Ok((tail, rest))
    }

    /// Returns the newest lines, oldest first.
    pub(super) fn lines(&mut self) -> LogLines {
        let lines = self.tail.as_mut().map(TailLines::show).unwrap_or_default();
        let place = Place {
            end: self.position(),
            ..self.place.clone()
        };
        LogLines::new(lines, place)
    }

    /// Returns the number of the last finished line, and a place in the files at or before its end.
    pub(super) fn log_position(&self) -> LogPosition {
        LogPosition {
            line: self.position(),
            place: self.settled.clone(),
        }
    }

    /// Returns the number of the last finished line.
    pub(super) fn position(&self) -> u64 {
        self.place.end - self.unfinished() as u64
    }

    fn unfinished(&self) -> usize {
        self.tail.as_ref().map_or(0, TailLines::unfinished)
    }

    /// Returns the id of the container.
    pub(super) fn container(&self) -> &Arc<str> {
        &self.place.container
    }

    /// Whether the log has a position, because it was read from its files or by calls to the engine.
    pub(super) fn has_been_read(&self) -> bool {
        self.at.is_some() || self.handed_over
    }

    /// Drops the lines and stores only the position, because the container has ended. If the container starts again, reading
    /// continues at the position.
    pub(super) fn drop_lines(&mut self) {
        self.tail = None;
    }

    /// Whether the log file exists. The engine removes the file together with the container. If the agent cannot check the file,
    /// returns true.
    pub(super) fn exists(&self) -> bool {
        !matches!(self.path.try_exists(), Ok(false))
    }

    /// Adds parts of the log to `tail`. Parses only the newest [`MAX_PARSED_BYTES`] of the parts. In older bytes, only counts the
    /// lines. `rest` contains the unfinished entry before the parts. Afterwards `rest` contains the unfinished entry at the end
    /// of the parts.
    fn add_parts(
        &mut self,
        parts: Vec<LogPart>,
        rest: &mut Vec<u8>,
        tail: &mut TailLines,
        budget: &Budget,
    ) -> io::Result<()> {
        let mut messages = Vec::new();
        let mut after: u64 = parts.iter().map(LogPart::plain_bytes).sum();
        for part in parts {
            after -= part.plain_bytes();
            let parsed = MAX_PARSED_BYTES.saturating_sub(after);
            let counted = part.plain_bytes().saturating_sub(parsed) <= MAX_COUNTED_BYTES;
            let compressed = matches!(part, LogPart::Compressed { .. });
            let (mut unparsed, mut reader) = part.split(parsed);
            if let Some(unparsed) = &mut unparsed {
                let mut ends = LineEnds::after(self.format, rest);
                if counted {
                    ends.count(unparsed)?;
                }
                // The parsed bytes can begin inside an entry. This call moves the reader to the next whole entry.
                ends.count_to_entry(&mut reader, rest)?;
                tail.skip(ends.found().max(usize::from(!counted)));
            }
            self.add_entries(reader, rest, tail, &mut messages)?;
            if compressed && budget.is_spent() {
                // The file has more lines, but their number is unknown. So one lost line is counted.
                rest.clear();
                tail.skip(1);
            }
            self.remember(&messages);
            messages.clear();
        }
        Ok(())
    }

    /// Searches for the newest lines. If the newest file has too few lines, searches the rotated files too.
    fn newest(&self, file: &File, size: u64, budget: &Budget) -> io::Result<NewestLines> {
        let mut newest = NewestLines {
            tail: self.no_lines(),
            rest: Vec::new(),
            messages: Vec::new(),
        };
        for chunk in self.newest_entries(file, size, budget)?.iter().rev() {
            newest.rest.clear();
            let (rest, tail) = (&mut newest.rest, &mut newest.tail);
            self.add_entries(&chunk[..], rest, tail, &mut newest.messages)?;
        }
        Ok(newest)
    }

    /// Returns the entries of the newest lines, one chunk per file. The first chunk is from `file`, the newest file. `size` is
    /// the size of `file` in bytes.
    fn newest_entries(&self, file: &File, size: u64, budget: &Budget) -> io::Result<Vec<Vec<u8>>> {
        // Reads one line more than wanted, because the beginning of the oldest line can be missing.
        let mut wanted = self.wanted + 1;
        let (chunk, ends) = last_entries(self.format, file, size, wanted)?;
        let mut read = chunk.len() as u64;
        wanted = wanted.saturating_sub(ends);
        let mut chunks = vec![chunk];
        let mut older = rotated_files(&self.path, file.metadata()?.ino());
        while wanted > 0
            && read < MAX_PARSED_BYTES
            && let Some(rotated) = older.next().transpose()?
        {
            let (chunk, ends) = rotated.last_entries(self.format, wanted, budget)?;
            read += chunk.len() as u64;
            wanted = wanted.saturating_sub(ends);
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Adds the whole entries from `entries` to `tail`. If the first entry is unfinished, its beginning is in `rest`. Afterwards
    /// `rest` contains the unfinished entry at the end.
    fn add_entries(
        &self,
        mut entries: impl Read,
        rest: &mut Vec<u8>,
        tail: &mut TailLines,
        messages: &mut Vec<(u64, usize)>,
    ) -> io::Result<()> {
        let mut searched = 0;
        loop {
            let read = read_chunk(&mut entries, rest)?;
            let mut begin = 0;
            while let Some(length) = self.format.entry_end(&rest[begin..], searched) {
                self.add_entry(&rest[begin..begin + length], tail, messages);
                (begin, searched) = (begin + length, 0);
            }
            rest.drain(..begin);
            if rest.len() > MAX_ENTRY_BYTES {
                // This is not a valid entry. `add_entry` ignores its end.
                rest.clear();
            }
            searched = rest.len();
            let surplus = messages.len().saturating_sub(MAX_MESSAGES);
            messages.drain(..surplus);
            if read == 0 {
                // The agent stores `rest` of every container until the next round. So `rest` must not hold the memory of a whole
                // chunk.
                rest.shrink_to_fit();
                return Ok(());
            }
        }
    }

    /// Adds one entry. Ignores bytes that are not a valid entry, because the engine cannot read them either.
    fn add_entry(&self, entry: &[u8], tail: &mut TailLines, messages: &mut Vec<(u64, usize)>) {
        if let Some(entry) = self.format.parse(entry) {
            tail.push(entry.channel_of(self.tty), &entry.message);
            messages.push((identity(&entry.message), tail.count()));
        }
    }
}

#[cfg(test)]
mod tests;
