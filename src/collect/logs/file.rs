//! A container's log where the engine keeps it: the files of its `json-file` driver.
//!
//! Read from the last position on, through rotation and compression, so that every line is counted,
//! also one of which there is too much to be kept. Only where the position is lost (the one file of a
//! log was emptied, or too many have been rotated away) are the newest lines looked up anew.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::new::New;
use super::open;
use super::rotated::{Budget, Rotated, Unpacked};
use super::seen::{Handover, Seen, identity};
use super::tail::{Channel, Tail};
use crate::model::{LogLines, Place};
use crate::settings::Redaction;

/// The most that is parsed of a log at a time, in bytes: the text that is kept of a container, six
/// times as long where every byte of it is escaped. Of what is before that, only lines are counted.
pub(super) const MOST_PARSED: u64 = 6 * 1024 * 1024;
/// The most of which lines are counted at a time, in bytes. Where there is more, it is only known that lines are lost.
const MOST_COUNTED: u64 = 256 * 1024 * 1024;
/// How much is read of a log at a time, in bytes.
const CHUNK: usize = 64 * 1024;
/// The first look at the end of a log, in bytes; later ones are four times as long each.
const FIRST_LOOK: u64 = 32 * 1024;
/// How much is kept to tell growth from a file that was emptied and has grown again.
const SEAM: u64 = 64;
/// The most rotated files that are looked through.
const MOST_ROTATED: u32 = 100;
/// The longest beginning of an entry that is kept, in bytes. The engine's fragments are 16 KiB long.
const LONGEST_ENTRY: usize = 1024 * 1024;
/// Of so many messages it is known at most how many lines there are with each.
const MOST_MESSAGES: usize = 4096;
/// The number of the last line that was there when the agent first met a container: lines before it
/// have a number, too.
const ORIGIN: u64 = 1 << 32;
/// How an entry that ends a line ends: the text's line feed stands before the quote.
const LINE_END: &[u8] = br#"\n","stream""#;

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
    tail: Option<Tail>,
    /// The newest messages that were read: by them it goes on where the position is lost.
    seen: Seen,
    /// It goes on from what the engine was asked for.
    handed_over: bool,
}

/// How far the newest file has been read. It is opened anew when it has grown: a container that
/// logs nothing costs one system call a round, and none costs a descriptor.
#[derive(Debug)]
pub(super) struct Position {
    inode: u64,
    pub(super) offset: u64,
    /// What stands before the offset, and when the file was written to last: a file that was
    /// emptied and has grown again has other contents there.
    pub(super) seam: Vec<u8>,
    written: (i64, i64),
    /// An entry whose end was not written yet.
    rest: Vec<u8>,
}

/// A part of a log, to its file's end.
pub(super) enum Part {
    Plain { file: File, from: u64, to: u64 },
    Compressed { log: Unpacked, from: u64 },
    Read(io::Cursor<Vec<u8>>),
}

/// What a file has more than before, where that is as little as most often: read at once with the
/// seam that it follows.
struct Growth {
    bytes: Vec<u8>,
    seam: usize,
}

/// The newest lines of a log, as they were looked up.
struct Newest {
    tail: Tail,
    /// What of an entry is after them.
    rest: Vec<u8>,
    /// The identity of each of their messages, and how many lines there are with it.
    messages: Vec<(u64, usize)>,
}

/// One entry of a log.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
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

    fn no_lines(&self) -> Tail {
        Tail::new(self.wanted, usize::MAX).redacting(&self.redaction)
    }

    /// Reads what is new; whether anything was.
    pub(super) fn update(&mut self) -> io::Result<bool> {
        let now = open::look_at(&self.path)?;
        if self.tail.is_some() && self.at.as_ref().is_some_and(|at| at.is_at(&now)) {
            return Ok(false);
        }
        let inode = self.at.as_ref().map(|at| at.inode);
        let (file, now) = open::open_again(&self.path, inode)?;
        let growth = match &self.at {
            Some(at) => Growth::read(at, &file, &now)?,
            None => None,
        };
        let seam = match &growth {
            Some(growth) => growth.seam(),
            None => seam(&file, now.len())?,
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
        self.at = Some(Position {
            inode: now.ino(),
            offset: now.len(),
            seam,
            written: written(&now),
            rest,
        });
        self.tail = Some(tail);
        Ok(true)
    }

    /// Reads the log for the first time.
    fn first(
        &mut self,
        file: &File,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(Tail, Vec<u8>)> {
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
    ) -> io::Result<(Tail, Vec<u8>)> {
        let Newest {
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
        parts: Vec<Part>,
        mut rest: Vec<u8>,
        file: &File,
        now: &Metadata,
        budget: &Budget,
    ) -> io::Result<(Tail, Vec<u8>)> {
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
        let lines = self.tail.as_mut().map(Tail::show).unwrap_or_default();
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
        self.tail.as_ref().map_or(0, Tail::unfinished)
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
    ) -> io::Result<Option<Vec<Part>>> {
        let newest = |from| -> io::Result<Part> {
            Ok(Part::Plain {
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
    fn all_parts(&self, file: &File, now: &Metadata, budget: &Budget) -> io::Result<Vec<Part>> {
        let mut parts = vec![Part::Plain {
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
        parts: Vec<Part>,
        rest: &mut Vec<u8>,
        tail: &mut Tail,
        budget: &Budget,
    ) -> io::Result<()> {
        let mut messages = Vec::new();
        let mut after: u64 = parts.iter().map(Part::plain_bytes).sum();
        for part in parts {
            after -= part.plain_bytes();
            let parsed = MOST_PARSED.saturating_sub(after);
            let counted = part.plain_bytes().saturating_sub(parsed) <= MOST_COUNTED;
            let compressed = matches!(part, Part::Compressed { .. });
            let (mut unparsed, mut reader) = part.split(parsed);
            if let Some(unparsed) = &mut unparsed {
                let mut ends = LineEnds::after(rest);
                if counted {
                    ends.count(unparsed)?;
                }
                // The next entry that is whole begins after the end of this one.
                ends.count_to_entry(&mut reader, rest)?;
                tail.skip(ends.found.max(usize::from(!counted)));
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
    fn newest(&self, file: &File, size: u64, budget: &Budget) -> io::Result<Newest> {
        let mut newest = Newest {
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
        tail: &mut Tail,
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
    fn take_in_entry(&self, entry: &[u8], tail: &mut Tail, messages: &mut Vec<(u64, usize)>) {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(entry) else {
            return;
        };
        let channel = match &*entry.stream {
            _ if self.tty => Channel::Terminal,
            "stderr" => Channel::Stderr,
            _ => Channel::Stdout,
        };
        let mut message = Vec::with_capacity(entry.log.len() + 36);
        push_timestamp(&mut message, &entry.time);
        message.push(b' ');
        message.extend_from_slice(entry.log.as_bytes());
        tail.push(channel, &message);
        messages.push((identity(&message), tail.count()));
    }
}

impl Position {
    /// Whether a file is as it was when it was read last.
    fn is_at(&self, now: &Metadata) -> bool {
        (self.inode, self.offset, self.written) == (now.ino(), now.len(), written(now))
    }

    /// Whether a file has the contents that stand before this position.
    pub(super) fn is_in(&self, file: &File, now: &Metadata) -> io::Result<bool> {
        if self.seam.is_empty() {
            return Ok(self.inode == now.ino());
        }
        Ok(self.offset <= now.len() && self.seam == seam(file, self.offset)?)
    }
}

impl Growth {
    /// None where it is much, or where the file is not what it was.
    fn read(at: &Position, file: &File, now: &Metadata) -> io::Result<Option<Self>> {
        let new = now.len().checked_sub(at.offset);
        let new = new.filter(|new| *new <= CHUNK as u64 && at.inode == now.ino());
        let Some(new) = new else { return Ok(None) };
        let seam = at.seam.len();
        let mut bytes = Vec::with_capacity(seam + new as usize);
        let from = at.offset - seam as u64;
        let read = read_range(file, from, now.len(), &mut bytes)?;
        let whole = read == seam as u64 + new && bytes.starts_with(&at.seam);
        Ok(whole.then_some(Self { bytes, seam }))
    }

    /// What the next growth follows.
    fn seam(&self) -> Vec<u8> {
        let before = self.bytes.len().saturating_sub(SEAM as usize);
        self.bytes[before..].to_vec()
    }

    fn part(self) -> Part {
        let mut new = io::Cursor::new(self.bytes);
        new.set_position(self.seam as u64);
        Part::Read(new)
    }
}

impl Part {
    /// How many bytes it has, as far as that is known without reading it.
    fn plain_bytes(&self) -> u64 {
        match self {
            Self::Plain { from, to, .. } => to.saturating_sub(*from),
            Self::Compressed { .. } => 0,
            Self::Read(new) => new.get_ref().len() as u64 - new.position(),
        }
    }

    /// What is only counted of it, if anything, and what is parsed: its last bytes. What is
    /// compressed is counted where nothing may be parsed, and parsed as a whole otherwise.
    fn split(self, parsed: u64) -> (Option<Box<dyn Read>>, Box<dyn Read>) {
        match self {
            Self::Plain { file, from, to } => {
                let file = Arc::new(file);
                let range = |at, to| Range {
                    file: Arc::clone(&file),
                    at,
                    to,
                };
                let middle = to.saturating_sub(parsed);
                if middle <= from {
                    return (None, Box::new(range(from, to)));
                }
                (
                    Some(Box::new(range(from, middle))),
                    Box::new(range(middle, to)),
                )
            }
            Self::Compressed { mut log, from } => {
                // It was read up to there when its position was looked for.
                let _ = io::copy(&mut (&mut log).take(from), &mut io::sink());
                if parsed == 0 {
                    return (Some(Box::new(log)), Box::new(io::empty()));
                }
                (None, Box::new(log))
            }
            // Never more than may be parsed.
            Self::Read(new) => (None, Box::new(new)),
        }
    }
}

/// The bytes of a file between two offsets.
struct Range {
    file: Arc<File>,
    at: u64,
    to: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Counts the ends of lines in entries that come in pieces.
struct LineEnds {
    found: usize,
    /// The end of what was counted, which may be the beginning of a line's end.
    last: Vec<u8>,
}

impl LineEnds {
    /// Behind an entry's beginning.
    fn after(rest: &[u8]) -> Self {
        let mut ends = Self {
            found: 0,
            last: Vec::new(),
        };
        ends.take(rest);
        ends
    }

    fn take(&mut self, piece: &[u8]) {
        self.last.extend_from_slice(piece);
        self.found += line_ends(&self.last);
        let kept = self.last.len().saturating_sub(LINE_END.len() - 1);
        self.last.drain(..kept);
    }

    fn count(&mut self, mut entries: impl Read) -> io::Result<()> {
        let mut piece = Vec::with_capacity(CHUNK);
        while (&mut entries).take(CHUNK as u64).read_to_end(&mut piece)? > 0 {
            self.take(&piece);
            piece.clear();
        }
        Ok(())
    }

    /// Counts to the end of the entry that has begun; leaves in `rest` what was read beyond it.
    fn count_to_entry(&mut self, mut entries: impl Read, rest: &mut Vec<u8>) -> io::Result<()> {
        rest.clear();
        while (&mut entries).take(CHUNK as u64).read_to_end(rest)? > 0 {
            if let Some(end) = memchr::memchr(b'\n', rest) {
                let beyond = rest.split_off(end + 1);
                self.take(rest);
                *rest = beyond;
                return Ok(());
            }
            self.take(rest);
            rest.clear();
        }
        Ok(())
    }
}

/// The engine prints nine digits of a second's fraction, and writes them without zeros at the end.
fn push_timestamp(message: &mut Vec<u8>, time: &str) {
    let (seconds, zone) = match time.find(['Z', '+']) {
        Some(zone) => time.split_at(zone),
        None => (time, ""),
    };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    message.extend_from_slice(seconds.as_bytes());
    message.push(b'.');
    message.extend_from_slice(fraction.as_bytes());
    message.resize(message.len() + 9_usize.saturating_sub(fraction.len()), b'0');
    message.extend_from_slice(zone.as_bytes());
}

/// The last bytes before an offset: an entry's end, whose timestamp is like no other's.
fn seam(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut seam = Vec::with_capacity(SEAM as usize);
    read_range(file, offset.saturating_sub(SEAM), offset, &mut seam)?;
    Ok(seam)
}

fn written(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// How many entries end a line, as far as can be told without parsing them.
pub(super) fn line_ends(entries: &[u8]) -> usize {
    memchr::memmem::find_iter(entries, LINE_END).count()
}

/// The end of a file with whole entries: `wanted` ends of lines, or all that there are, or as
/// many as fit [`MOST_PARSED`]; and how many it has.
pub(super) fn last_entries(file: &File, size: u64, wanted: usize) -> io::Result<(Vec<u8>, usize)> {
    let mut look = FIRST_LOOK;
    loop {
        let from = size.saturating_sub(look);
        let mut chunk = Vec::new();
        read_range(file, from, size, &mut chunk)?;
        if from > 0 {
            // It begins in the middle of an entry.
            let begin = chunk.iter().position(|byte| *byte == b'\n');
            chunk.drain(..begin.map_or(chunk.len(), |end| end + 1));
        }
        let ends = line_ends(&chunk);
        if ends >= wanted || from == 0 || look >= MOST_PARSED {
            return Ok((chunk, ends));
        }
        look = (look * 4).min(MOST_PARSED);
    }
}

/// Appends the bytes between two offsets; returns how many there were.
fn read_range(file: &File, from: u64, to: u64, into: &mut Vec<u8>) -> io::Result<u64> {
    let before = into.len();
    let wanted = usize::try_from(to - from).unwrap_or(usize::MAX);
    into.resize(before + wanted, 0);
    let mut read = 0;
    while read < wanted {
        match file.read_at(&mut into[before + read..], from + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                into.truncate(before);
                return Err(error);
            }
        }
    }
    into.truncate(before + read);
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use super::{Handover, LogFile, MOST_PARSED, New, ORIGIN, Seen, push_timestamp};
    use crate::model::Place;

    /// An entry as the engine writes it.
    fn entry(text: &str) -> String {
        let log = serde_json::to_string(text).unwrap();
        format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"2024-01-01T12:00:00.25Z\"}}\n")
    }

    fn append(path: &Path, entries: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(entries.as_ref()).unwrap();
    }

    fn numbered(numbers: std::ops::Range<u32>) -> String {
        numbers
            .map(|number| entry(&format!("line {number}\n")))
            .collect()
    }

    /// The texts of the lines, without their timestamp.
    fn texts(log: &mut LogFile) -> Vec<String> {
        let lines = shown(log);
        let text = |line: &String| {
            line.strip_prefix("2024-01-01T12:00:00.250000000Z ")
                .unwrap()
                .to_owned()
        };
        lines.iter().map(text).collect()
    }

    fn shown(log: &mut LogFile) -> Vec<String> {
        serde_json::from_str(&serde_json::to_string(&log.lines()).unwrap()).unwrap()
    }

    fn log_at(path: &Path, wanted: usize) -> LogFile {
        LogFile::new("0123".into(), path.to_owned(), false, wanted, New::Nothing)
    }

    fn expected(numbers: std::ops::Range<u32>) -> Vec<String> {
        numbers.map(|number| format!("line {number}")).collect()
    }

    #[test]
    fn reads_the_newest_lines_then_only_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123-json.log");
        append(&path, numbered(0..10_000));
        let mut log = log_at(&path, 50);
        assert!(log.update().unwrap());
        assert_eq!(texts(&mut log), expected(9950..10_000));
        assert!(!log.update().unwrap());
        append(&path, numbered(10_000..10_003));
        assert!(log.update().unwrap());
        assert_eq!(texts(&mut log), expected(9953..10_003));
    }

    /// How many lines were numbered since the log was first read, and the number before those that
    /// count for a client that has been sent none.
    fn numbers(log: &mut LogFile) -> (u64, u64) {
        let lines = log.lines();
        let Place { end, origin, .. } = lines.place();
        (end - ORIGIN, ORIGIN - origin)
    }

    fn compress(path: &Path) {
        let done = Command::new("gzip").arg(path).status().unwrap();
        assert!(done.success());
    }

    #[test]
    fn no_room_is_kept_between_rounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123-json.log");
        let mut log = log_at(&path, 50);
        let mut kept = |entries: &str| {
            append(&path, entries);
            assert!(log.update().unwrap());
            log.at.as_ref().map(|at| at.rest.capacity())
        };
        assert_eq!(kept(&numbered(0..10_000)), Some(0));
        assert_eq!(kept(&numbered(0..10)), Some(0));
        let beginning = "{\"log\":";
        assert_eq!(kept(beginning), Some(beginning.len()));
    }

    #[test]
    fn every_line_has_a_number_however_it_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let [first, second, third] =
            [1, 2, 3].map(|number| folder.path().join(format!("log.{number}")));
        append(&path, numbered(0..30));
        let mut log = log_at(&path, 10);
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (0, 10));
        append(&path, numbered(30..45));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (15, 10));
        // Rotated twice, the older one compressed in the middle of a line's news.
        append(&path, numbered(45..50));
        fs::rename(&path, &second).unwrap();
        compress(&second);
        append(&first, numbered(50..70));
        append(&path, numbered(70..80));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (50, 10));
        assert_eq!(texts(&mut log), expected(70..80));
        // While the container rests, and is rotated.
        log.rest();
        fs::remove_file(folder.path().join("log.2.gz")).unwrap();
        fs::rename(&first, &second).unwrap();
        append(&path, numbered(80..90));
        fs::rename(&path, &first).unwrap();
        append(&path, numbered(90..91));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (61, 10));
        assert_eq!(texts(&mut log), expected(81..91));
        // Rotated away: that lines were lost is all that is known.
        for file in [&first, &second, &third] {
            let _ = fs::remove_file(file);
        }
        fs::remove_file(&path).unwrap();
        append(&path, numbered(200..203));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (65, 10));
    }

    #[test]
    fn what_is_too_much_to_be_parsed_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, first) = (folder.path().join("log"), folder.path().join("log.1"));
        append(&path, numbered(0..3));
        let mut log = log_at(&path, 10);
        log.update().unwrap();
        let long = |number: u32| entry(&format!("line {number} {}\n", "x".repeat(1000)));
        append(&path, (3..9_000).map(long).collect::<String>());
        fs::rename(&path, &first).unwrap();
        append(&path, (9_000..13_000).map(long).collect::<String>());
        assert!(fs::metadata(&path).unwrap().len() < MOST_PARSED);
        assert!(fs::metadata(&first).unwrap().len() > MOST_PARSED);
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (12_997, 3));
        append(&path, (13_000..33_000).map(long).collect::<String>());
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (32_997, 3));
        assert_eq!(shown(&mut log).len(), 10);
    }

    #[test]
    fn a_log_that_is_new_as_a_whole_is_counted_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, numbered(40..100));
        append(&folder.path().join("log.1"), numbered(0..40));
        let mut log = LogFile::new("0123".into(), path, false, 10, New::All);
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (100, 0));
        assert_eq!(texts(&mut log), expected(90..100));
    }

    /// Puts a copy of a file in its place, or of its first bytes.
    fn replace_by_copy(path: &Path, bytes: usize) {
        let copy = path.with_extension("copy");
        let content = fs::read(path).unwrap();
        fs::write(&copy, &content[..bytes.min(content.len())]).unwrap();
        fs::rename(&copy, path).unwrap();
    }

    #[test]
    fn a_file_that_is_replaced_by_its_copy_is_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, numbered(0..30));
        let mut log = log_at(&path, 10);
        log.update().unwrap();
        replace_by_copy(&path, usize::MAX);
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (0, 10));
        append(&path, numbered(30..32));
        replace_by_copy(&path, usize::MAX);
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (2, 10));
        assert_eq!(texts(&mut log), expected(22..32));
        // By less than all of it: what is there was seen, and what comes then is new.
        replace_by_copy(&path, numbered(0..28).len());
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (2, 10));
        append(&path, numbered(40..43));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (5, 10));
        // While nothing was in it.
        let path = folder.path().join("empty");
        append(&path, "");
        let mut log = log_at(&path, 10);
        log.update().unwrap();
        replace_by_copy(&path, usize::MAX);
        append(&path, numbered(0..4));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (4, 0));
    }

    #[test]
    fn a_log_goes_on_where_the_engine_was_asked_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, numbered(0..30));
        let mut log = log_at(&path, 10);
        assert!(log.handover().is_none());
        log.update().unwrap();
        append(&path, numbered(30..33));
        log.update().unwrap();
        let handover = log.handover().unwrap();
        append(&path, numbered(33..37));
        let mut next = log_at(&path, 10).after(&handover);
        next.update().unwrap();
        assert_eq!((numbers(&mut next), numbers(&mut log)), ((7, 10), (3, 10)));
        append(&path, numbered(37..38));
        next.update().unwrap();
        assert_eq!(numbers(&mut next), (8, 10));
        // Of more than are kept it is known that some are lost.
        append(&path, numbered(38..90));
        let mut next = log_at(&path, 10).after(&handover);
        next.update().unwrap();
        assert!(numbers(&mut next).0 > 3 + 10);
        // Nothing had been there.
        let none = log_at(&path, 10).after(&Handover {
            position: ORIGIN,
            origin: ORIGIN,
            seen: Arc::new(Seen::new(11)),
        });
        let few = folder.path().join("few");
        append(&few, numbered(0..3));
        let mut next = LogFile { path: few, ..none };
        next.update().unwrap();
        assert_eq!(numbers(&mut next), (3, 0));
    }

    #[test]
    fn what_is_no_longer_a_file_is_not_read_and_blocks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, numbered(0..3));
        let mut log = log_at(&path, 10);
        log.update().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        assert!(log.update().is_err());
        fs::remove_file(&path).unwrap();
        // Nor is a rotated one.
        let first = folder.path().join("log.1");
        assert!(
            Command::new("mkfifo")
                .arg(&first)
                .status()
                .unwrap()
                .success()
        );
        append(&path, numbered(3..5));
        log.update().unwrap();
        assert_eq!(texts(&mut log), expected(3..5));
    }

    #[test]
    fn an_entry_without_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, numbered(0..3));
        let mut log = log_at(&path, 10);
        log.update().unwrap();
        append(&path, "z".repeat(5 << 20) + "\n");
        append(&path, numbered(3..5));
        log.update().unwrap();
        assert_eq!(numbers(&mut log), (2, 3));
        assert_eq!(texts(&mut log), expected(0..5));
    }

    #[test]
    fn an_entry_may_be_written_in_two_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let entry = entry("one line\n");
        append(&path, &entry[..20]);
        let mut log = log_at(&path, 5);
        log.update().unwrap();
        assert!(texts(&mut log).is_empty());
        append(&path, &entry[20..]);
        log.update().unwrap();
        assert_eq!(texts(&mut log), ["one line"]);
    }

    #[test]
    fn follows_through_rotation_truncation_and_compressed_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (first, second) = (folder.path().join("log.1"), folder.path().join("log.2"));
        append(&path, numbered(0..30));
        let mut log = log_at(&path, 50);
        log.update().unwrap();
        // Written, rotated, written, rotated, between two readings.
        append(&path, numbered(30..40));
        fs::rename(&path, &second).unwrap();
        append(&first, numbered(40..60));
        append(&path, numbered(60..65));
        log.update().unwrap();
        assert_eq!(texts(&mut log), expected(15..65));
        compress(&second);
        fs::rename(&first, folder.path().join("log.1.tmp")).unwrap();
        fs::rename(folder.path().join("log.1.tmp"), &first).unwrap();
        let mut anew = log_at(&path, 50);
        anew.update().unwrap();
        assert_eq!(texts(&mut anew), expected(15..65));
        // Emptied and grown beyond where it was, between two readings.
        fs::write(&path, numbered(100..200)).unwrap();
        log.update().unwrap();
        assert_eq!(texts(&mut log), expected(150..200));
        // A single file is emptied instead of being rotated.
        fs::write(&path, numbered(65..66)).unwrap();
        fs::remove_file(&first).unwrap();
        fs::remove_file(folder.path().join("log.2.gz")).unwrap();
        log.update().unwrap();
        assert_eq!(texts(&mut log), expected(65..66));
    }

    #[test]
    fn fragments_make_one_line_also_across_the_first_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for _ in 0..5 {
            for _ in 0..6 {
                append(&path, entry(&"x".repeat(16 * 1024)));
            }
            append(&path, entry("end\n"));
        }
        let mut log = log_at(&path, 5);
        log.update().unwrap();
        assert_eq!(shown(&mut log).len(), 5);
        assert!(
            shown(&mut log)
                .iter()
                .all(|line| line.ends_with("[line cut at 16 KiB]"))
        );
    }

    #[test]
    fn a_terminals_line_ends_are_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, entry("a\r\n"));
        let long = "y".repeat(16 * 1024 - 1);
        append(&path, entry(&format!("{long}\r")));
        append(&path, entry("\n"));
        for (tty, text) in [(true, "a"), (false, "a\r")] {
            let mut log = LogFile::new("0123".into(), path.clone(), tty, 5, New::Nothing);
            log.update().unwrap();
            assert_eq!(texts(&mut log)[0], text);
            assert_eq!(
                texts(&mut log)[1],
                format!("{long}{}", if tty { "" } else { "\r" })
            );
        }
    }

    #[test]
    fn a_log_that_is_none_yields_nothing_and_breaks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = log_at(&path, 5);
        assert!(log.update().is_err());
        append(&path, b"\xff\x00nonsense\n{}\n[]\n{\"log\":1}\n");
        log.update().unwrap();
        assert!(shown(&mut log).is_empty());
    }

    #[test]
    fn timestamps_have_nine_digits() {
        for (written, printed) in [
            ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00.000000000Z"),
            ("2024-01-01T12:00:00.5Z", "2024-01-01T12:00:00.500000000Z"),
            (
                "2024-01-01T12:00:00.123456789+01:00",
                "2024-01-01T12:00:00.123456789+01:00",
            ),
        ] {
            let mut message = Vec::new();
            push_timestamp(&mut message, written);
            assert_eq!(String::from_utf8(message).unwrap(), printed);
        }
    }

    #[test]
    fn fuzz_log_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let entries = [
            r#"{"log":"a line\n","stream":"stdout","time":"2024-01-01T12:00:00.5Z"}"#,
            r#"{"log":"half ","stream":"stderr","time":"2024-01-01T12:00:01.123456789Z"}"#,
            r#"{"log":"\u00e9\ud83d\udca9\"\\\r\n","stream":"stdout","time":"2024-01-01T12:00:02Z"}"#,
            r#"{"log":"of a line\n","stream":"stderr","time":"2024-01-01T12:00:03.5+01:00","attrs":{"a":"b"}}"#,
        ];
        let seed = entries.join("\n") + "\n";
        let mut follows = log_at(&path, 3);
        crate::fuzzing::run(
            "log_files",
            &[seed.as_bytes(), entries[0].as_bytes()],
            |bytes| {
                fs::write(&path, bytes).unwrap();
                // One that is read for the first time, and one that goes on from wherever it was.
                let mut first = LogFile::new(
                    "0123".into(),
                    path.clone(),
                    bytes.len() % 2 == 0,
                    3,
                    New::All,
                );
                for log in [&mut first, &mut follows] {
                    if log.update().is_ok() {
                        let lines = log.lines();
                        let lines: Vec<String> = serde_json::from_str(lines.json()).unwrap();
                        assert!(lines.len() <= 3);
                    }
                }
            },
        );
    }
}
