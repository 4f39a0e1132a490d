//! A container's log where the engine keeps it: the files of its `json-file` driver.
//!
//! Read from the last position on, through rotation and compression, so that every line is counted,
//! also one of which there is too much to be kept. Only where the position is lost (the one file of a
//! log was emptied, or too many have been rotated away) are the newest lines looked up anew.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::entries::{CHUNK, Entry, LineEnds, MOST_PARSED, last_entries};
use super::new::New;
use super::open;
use super::part::LogPart;
use super::position::{Growth, Position};
use super::rotated::Rotated;
use super::seen::{Handover, Seen, identity};
use super::tail::{Channel, TailLines};
use super::unpacked::Budget;
use crate::model::{LogLines, Place};
use crate::settings::Redaction;

/// The most of which lines are counted at a time, in bytes. Where there is more, it is only known that lines are lost.
const MOST_COUNTED: u64 = 256 * 1024 * 1024;
/// The most rotated files that are looked through.
const MOST_ROTATED: u32 = 100;
/// The longest beginning of an entry that is kept, in bytes. The engine's fragments are 16 KiB long.
const LONGEST_ENTRY: usize = 1024 * 1024;
/// Of so many messages it is known at most how many lines there are with each.
const MOST_MESSAGES: usize = 4096;
/// The number of the last line that was there when the agent first met a container: lines before it
/// have a number, too.
const ORIGIN: u64 = 1 << 32;
/// The log of one container, followed.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    tty: bool,
    wanted: usize,
    redaction: Redaction,
    place: Place,
    new: New,
    at: Option<Position>,
    /// None while the container rests.
    tail: Option<TailLines>,
    /// The newest messages that were read: by them it goes on where the position is lost.
    seen: Seen,
    /// It goes on from what the engine was asked for.
    handed_over: bool,
}

/// The newest lines of a log, as they were looked up.
struct NewestLines {
    tail: TailLines,
    /// What of an entry is after them.
    rest: Vec<u8>,
    /// The identity of each of their messages, and how many lines there are with it.
    messages: Vec<(u64, usize)>,
}

impl LogFile {
    /// The newest `wanted` lines of the log at `path`; nothing is read yet.
    pub(super) fn new(
        container: Arc<str>,
        path: PathBuf,
        tty: bool,
        wanted: usize,
        new: New,
    ) -> Self {
        Self {
            path,
            tty,
            wanted,
            redaction: Redaction::default(),
            place: Place {
                container,
                end: ORIGIN,
                origin: ORIGIN,
            },
            new,
            at: None,
            tail: None,
            seen: Seen::new(wanted + 1),
            handed_over: false,
        }
    }

    /// As one that was asked of the engine up to some line.
    pub(super) fn after(self, calls: &Handover) -> Self {
        Self {
            place: Place {
                container: self.place.container,
                end: calls.position,
                origin: calls.origin,
            },
            seen: (*calls.seen).clone(),
            handed_over: true,
            ..self
        }
    }

    /// What is to be known where the engine is asked from now on; none before the first reading.
    pub(super) fn handover(&self) -> Option<Handover> {
        self.at.as_ref().map(|_| Handover {
            position: self.position(),
            origin: self.place.origin,
            seen: Arc::new(self.seen.clone()),
        })
    }

    /// As one whose lines are without what is taken out of them.
    pub(super) fn redacting(self, redaction: &Redaction) -> Self {
        Self {
            redaction: redaction.clone(),
            ..self
        }
    }

    fn no_lines(&self) -> TailLines {
        TailLines::new(self.wanted, usize::MAX).redacting(&self.redaction)
    }

    /// Reads what is new; whether anything was.
    pub(super) fn update(&mut self) -> io::Result<bool> {
        let now = open::look_at(&self.path)?;
        if self.tail.is_some() && self.at.as_ref().is_some_and(|at| at.is_at(&now)) {
            return Ok(false);
        }
        let inode = self.at.as_ref().map(Position::inode);
        let (file, now) = open::open_again(&self.path, inode)?;
        let growth = match &self.at {
            Some(at) => Growth::read(at, &file, &now)?,
            None => None,
        };
        let seam = match &growth {
            Some(growth) => growth.seam(),
            None => Position::seam_of(&file, now.len())?,
        };
        let budget = Budget::new();
        let parts = match (&self.at, growth) {
            (_, Some(growth)) => Some(vec![growth.part()]),
            (Some(at), None) => self.parts_since(at, &file, &now, &budget)?,
            (None, None) => None,
        };
        let (tail, rest) = match (&self.at, parts) {
            (Some(at), Some(parts)) => {
                self.continued(parts, at.rest.clone(), &file, &now, &budget)?
            }
            (Some(_), None) => self.anew(&file, &now, &budget)?,
            (None, _) if self.handed_over => self.anew(&file, &now, &budget)?,
            (None, _) => self.first(&file, &now, &budget)?,
        };
        self.at = Some(Position::at_end(&now, seam, rest));
        self.tail = Some(tail);
        Ok(true)
    }

    /// Reads the log for the first time.
    fn first(
        &mut self,
        file: &File,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(TailLines, Vec<u8>)> {
        if self.new == New::All {
            let (mut tail, mut rest) = (self.no_lines(), Vec::new());
            let parts = self.all_parts(file, now, budget)?;
            self.take_in_parts(parts, &mut rest, &mut tail, budget)?;
            self.place.end = ORIGIN + tail.count() as u64;
            return Ok((tail, rest));
        }
        let mut newest = self.newest(file, now.len(), budget)?;
        let lines = newest.tail.show();
        let new = self.new.of(&lines);
        // Where all that is kept is new, more may have been before it.
        let all = new == lines.iter().len() && new >= self.wanted;
        let lost = u64::from(self.new != New::Nothing && all);
        (self.place.end, self.place.origin) = (ORIGIN, ORIGIN - new as u64 - lost);
        self.place.end += newest.tail.unfinished() as u64;
        self.remember(&newest.messages);
        Ok((newest.tail, newest.rest))
    }

    /// Reads the newest lines where the position is lost. By what was seen of them it is told how many are new.
    fn anew(
        &mut self,
        file: &File,
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
            // Nothing had been there, and all that is there is known.
            None if self.seen.is_empty() && count <= self.wanted => count as u64,
            // How many lines were lost is not to be known: one at least, most likely.
            None => count as u64 + 1,
        };
        self.remember(&messages[seen.map_or(0, |seen| seen.messages)..]);
        Ok((tail, rest))
    }

    fn remember(&mut self, messages: &[(u64, usize)]) {
        for (identity, _) in messages {
            self.seen.push(*identity);
        }
    }

    /// Reads on from the last position.
    fn continued(
        &mut self,
        parts: Vec<LogPart>,
        mut rest: Vec<u8>,
        file: &File,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(TailLines, Vec<u8>)> {
        // Gone after an error, as if the container had rested: the position is still right.
        let awake = self.tail.take();
        let rested = awake.is_none();
        let mut tail = awake.unwrap_or_else(|| self.no_lines());
        let before = tail.count();
        self.take_in_parts(parts, &mut rest, &mut tail, budget)?;
        let lines = (tail.count() - before) as u64;
        if rested {
            // What was there before it rested is looked up.
            tail = self.newest(file, now.len(), budget)?.tail;
        }
        self.place.end += lines;
        Ok((tail, rest))
    }

    /// The lines as they are now, oldest first.
    pub(super) fn lines(&mut self) -> LogLines {
        let lines = self.tail.as_mut().map(TailLines::show).unwrap_or_default();
        let place = Place {
            end: self.position(),
            ..self.place.clone()
        };
        LogLines::new(lines, place)
    }

    /// The number of the last finished line.
    pub(super) fn position(&self) -> u64 {
        self.place.end - self.unfinished() as u64
    }

    fn unfinished(&self) -> usize {
        self.tail.as_ref().map_or(0, TailLines::unfinished)
    }

    /// The id of its container.
    pub(super) fn container(&self) -> &Arc<str> {
        &self.place.container
    }

    /// Whether it has been, so that there is a position.
    pub(super) fn has_been_read(&self) -> bool {
        self.at.is_some() || self.handed_over
    }

    /// Keeps no more than the position: its container has ended, and may be started again.
    pub(super) fn rest(&mut self) {
        self.tail = None;
    }

    /// Whether there is a file, as the engine removes it with its container.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self.path.try_exists(), Ok(false))
    }

    /// What was written since a position, oldest first; none where that is lost.
    fn parts_since(
        &self,
        at: &Position,
        file: &File,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<Option<Vec<LogPart>>> {
        let newest = |from| -> io::Result<LogPart> {
            Ok(LogPart::Plain {
                file: file.try_clone()?,
                from,
                to: now.len(),
            })
        };
        // By its contents: the file may have been replaced by its copy.
        if at.is_in(file, now)? {
            return Ok(Some(vec![newest(at.offset)?]));
        }
        let mut missing = 0;
        let mut parts = vec![newest(0)?];
        let mut seen = vec![now.ino()];
        for number in 1..=MOST_ROTATED {
            let Some(rotated) = Rotated::open(&self.path, number)? else {
                // One of them may be on its way to its next name.
                missing += 1;
                if missing > 1 {
                    break;
                }
                continue;
            };
            let inode = rotated.inode();
            // Rotated once more while this looks: the same file under its next name.
            if seen.contains(&inode) {
                continue;
            }
            seen.push(inode);
            let found = rotated.continues(at, budget)?;
            parts.push(rotated.part(if found { at.offset } else { 0 }, budget)?);
            if found {
                parts.reverse();
                return Ok(Some(parts));
            }
        }
        Ok(None)
    }

    /// All of the log, oldest first.
    fn all_parts(&self, file: &File, now: &Metadata, budget: &Budget) -> io::Result<Vec<LogPart>> {
        let mut parts = vec![LogPart::Plain {
            file: file.try_clone()?,
            from: 0,
            to: now.len(),
        }];
        let mut seen = vec![now.ino()];
        for number in 1..=MOST_ROTATED {
            let Some(rotated) = Rotated::open(&self.path, number)? else {
                break;
            };
            if !seen.contains(&rotated.inode()) {
                seen.push(rotated.inode());
                parts.push(rotated.part(0, budget)?);
            }
        }
        parts.reverse();
        Ok(parts)
    }

    /// Takes in parts of the log, of the first of them as much as may be parsed. `rest` is what of
    /// an entry is before them, and then what of one is after them.
    fn take_in_parts(
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
            let parsed = MOST_PARSED.saturating_sub(after);
            let counted = part.plain_bytes().saturating_sub(parsed) <= MOST_COUNTED;
            let compressed = matches!(part, LogPart::Compressed { .. });
            let (mut unparsed, mut reader) = part.split(parsed);
            if let Some(unparsed) = &mut unparsed {
                let mut ends = LineEnds::after(rest);
                if counted {
                    ends.count(unparsed)?;
                }
                // The next entry that is whole begins after the end of this one.
                ends.count_to_entry(&mut reader, rest)?;
                tail.skip(ends.found().max(usize::from(!counted)));
            }
            self.take_in(reader, rest, tail, &mut messages)?;
            if compressed && budget.is_spent() {
                // How many lines were in the rest of it is not to be known.
                rest.clear();
                tail.skip(1);
            }
            self.remember(&messages);
            messages.clear();
        }
        Ok(())
    }

    /// Looks up the newest lines, wherever they are.
    fn newest(&self, file: &File, size: u64, budget: &Budget) -> io::Result<NewestLines> {
        let mut newest = NewestLines {
            tail: self.no_lines(),
            rest: Vec::new(),
            messages: Vec::new(),
        };
        for chunk in self.newest_entries(file, size, budget)?.iter().rev() {
            newest.rest.clear();
            let (rest, tail) = (&mut newest.rest, &mut newest.tail);
            self.take_in(&chunk[..], rest, tail, &mut newest.messages)?;
        }
        Ok(newest)
    }

    /// The entries of the newest lines, the newest file's first, whose size is given.
    fn newest_entries(&self, file: &File, size: u64, budget: &Budget) -> io::Result<Vec<Vec<u8>>> {
        // One more than wanted: what the first of them follows is known to be whole.
        let mut wanted = self.wanted + 1;
        let (chunk, ends) = last_entries(file, size, wanted)?;
        let mut read = chunk.len() as u64;
        wanted = wanted.saturating_sub(ends);
        let mut chunks = vec![chunk];
        let mut seen = vec![file.metadata()?.ino()];
        for number in 1..=MOST_ROTATED {
            if wanted == 0 || read >= MOST_PARSED {
                break;
            }
            let Some(rotated) = Rotated::open(&self.path, number)? else {
                break;
            };
            // Rotated while this looks: the same file under its next name.
            if seen.contains(&rotated.inode()) {
                continue;
            }
            seen.push(rotated.inode());
            let (chunk, ends) = rotated.last_entries(wanted, budget)?;
            read += chunk.len() as u64;
            wanted = wanted.saturating_sub(ends);
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// Takes in whole entries, the first of which may begin in `rest`; leaves there what follows
    /// the last of them.
    fn take_in(
        &self,
        mut entries: impl Read,
        rest: &mut Vec<u8>,
        tail: &mut TailLines,
        messages: &mut Vec<(u64, usize)>,
    ) -> io::Result<()> {
        let mut searched = 0;
        loop {
            let read = (&mut entries).take(CHUNK as u64).read_to_end(rest)?;
            let mut begin = 0;
            while let Some(end) = memchr::memchr(b'\n', &rest[searched..]) {
                self.take_in_entry(&rest[begin..searched + end], tail, messages);
                begin = searched + end + 1;
                searched = begin;
            }
            rest.drain(..begin);
            if rest.len() > LONGEST_ENTRY {
                // What comes up to the next end is no entry, and left out as such.
                rest.clear();
            }
            searched = rest.len();
            let surplus = messages.len().saturating_sub(MOST_MESSAGES);
            messages.drain(..surplus);
            if read == 0 {
                // It is kept until the next round, of every container's log: the room for a chunk is not.
                rest.shrink_to_fit();
                return Ok(());
            }
        }
    }

    /// One that is no entry is left out: the engine that wrote it cannot read it either.
    fn take_in_entry(&self, entry: &[u8], tail: &mut TailLines, messages: &mut Vec<(u64, usize)>) {
        let Some(entry) = Entry::parse(entry) else {
            return;
        };
        let channel = match self.tty {
            true => Channel::Terminal,
            false => entry.channel(),
        };
        let message = entry.message();
        tail.push(channel, &message);
        messages.push((identity(&message), tail.count()));
    }
}

#[cfg(test)]
mod tests;
