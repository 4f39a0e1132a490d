//! Reads older log lines of one container for a request with `"logs":"range"`: from its newest file and from its rotated files,
//! compressed ones too. The work of one request is limited.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::entries::{CHUNK, read_range, read_up_to};
use super::format::Format;
use super::rotated::{Rotated, rotated_files};
use super::search::offset_of;
use super::unpacked::{Budget, Unpacked};
use crate::collect::logs::entry::{DISORDER, MAX_ENTRY_BYTES};
use crate::collect::logs::line::{after_timestamp, is_fragment, matches, without_first_word};
use crate::collect::logs::new::moment;
use crate::collect::logs::tail::{Channel, TailLines};
use crate::model::{LogRange, RangeEnd, RangeLines};
use crate::settings::Redaction;

/// Limit on the bytes of log files that one request examines.
const MAX_EXAMINED_BYTES: u64 = 128 * 1024 * 1024;
/// Limit on the text of an answer, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Limit on the time of a reading.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Number of bytes of a file that are examined together.
const BLOCK_BYTES: u64 = 1024 * 1024;
/// Limit on the bytes that are examined together, if a line is longer than [`BLOCK_BYTES`].
const MAX_BLOCK_BYTES: u64 = 16 * BLOCK_BYTES;

/// Reads the log lines of a range. `file` is the newest file of the log, and `now` its metadata. Blocks the thread.
pub(super) fn read(
    path: &Path,
    tty: bool,
    redaction: &Redaction,
    (file, now): (Arc<File>, Metadata),
    range: &LogRange,
) -> io::Result<RangeLines> {
    let reading = Reading {
        format: Format::of(path),
        tty,
        redaction,
        range,
        regex: range.regex(),
        found: Vec::new(),
        examined: 0,
        deadline: Instant::now() + MAX_TIME,
        edge: None,
        cut: None,
        has_more: false,
    };
    let newest = now.ino();
    let mut files = vec![Rotated::newest(file, now)];
    for rotated in rotated_files(path, newest) {
        files.push(rotated?);
    }
    let budget = Budget::new();
    let read = reading.read_files(&files, &budget)?;
    if budget.is_spent() {
        return Err(io::Error::other("its compressed files are too large"));
    }
    Ok(read)
}

struct Reading<'r> {
    format: Format,
    tty: bool,
    redaction: &'r Redaction,
    range: &'r LogRange,
    regex: Option<regex::Regex>,
    /// The matching lines as JSON strings, with their times.
    found: Vec<FoundLine>,
    /// Number of bytes that were examined. Bytes before the beginning of the range do not count.
    examined: u64,
    /// When the reading must end.
    deadline: Instant,
    /// The time of the outermost line of the newest block: the oldest line if the answer has the newest lines, else the newest line.
    edge: Option<SystemTime>,
    /// If there were enough lines: the time of the outermost line for the answer.
    cut: Option<SystemTime>,
    /// Whether the log can have more matching lines.
    has_more: bool,
}

type FoundLine = (SystemTime, Box<str>);

impl Reading<'_> {
    /// Reads the matching lines. `files` are the files of the log, the newest first.
    fn read_files(mut self, files: &[Rotated], budget: &Budget) -> io::Result<RangeLines> {
        let mut order: Vec<usize> = (0..files.len()).collect();
        if self.range.from == RangeEnd::Oldest {
            order.reverse();
        }
        for index in order {
            if self.is_done() {
                break;
            }
            let older = files.get(index + 1);
            match files[index].plain() {
                Some((file, now)) => self.read_plain(file, now.len(), index == 0, older)?,
                None => {
                    let starts_inside = self.starts_inside_of(older)?;
                    self.read_unpacked(files[index].unpacked(budget)?, starts_inside)?;
                }
            }
        }
        self.finish()
    }

    /// Reads a plain file in blocks of whole lines. `older` is the file before it. The engine still writes the newest file.
    fn read_plain(
        &mut self,
        file: &Arc<File>,
        size: u64,
        is_newest: bool,
        older: Option<&Rotated>,
    ) -> io::Result<()> {
        let (mut low, mut high) = (0, size);
        match self.range.from {
            RangeEnd::Newest => {
                if let Some(before) = self.range.before.and_then(|at| at.checked_add(DISORDER)) {
                    high = offset_of(self.format, file, size, before)?;
                }
            }
            RangeEnd::Oldest => {
                if let Some(after) = self.range.after.and_then(|at| at.checked_sub(DISORDER)) {
                    low = offset_of(self.format, file, size, after)?;
                }
            }
        }
        while low < high && !self.is_done() {
            let block = match self.range.from {
                RangeEnd::Newest => block_begin(self.format, file, high)?..high,
                RangeEnd::Oldest => low..block_end(self.format, file, low, size)?,
            };
            match self.range.from {
                RangeEnd::Newest => high = block.start,
                RangeEnd::Oldest => low = block.end,
            }
            let starts_inside = match block.start {
                0 => self.starts_inside_of(older)?,
                begin => self.starts_inside(&bytes_before(file, begin)?),
            };
            let mut bytes = Vec::new();
            let read = read_range(file, block.start, block.end, &mut bytes)?;
            let mut lines = self.tail();
            self.push(&mut lines, &bytes, starts_inside);
            let is_end = is_newest && block.end == size;
            let before = self.edge.take();
            self.take(lines, read, is_end);
            self.edge = self.edge.or(before);
        }
        Ok(())
    }

    /// Returns the channels on which the text after a file begins inside a line. Returns none without redaction, because only the
    /// redaction needs them.
    fn starts_inside_of(&self, older: Option<&Rotated>) -> io::Result<Vec<Channel>> {
        match older.filter(|_| self.redaction.is_on()) {
            Some(older) => {
                let (entries, _) = older.last_entries(self.format, 1, &Budget::new())?;
                Ok(self.starts_inside(&entries))
            }
            None => Ok(Vec::new()),
        }
    }

    /// Returns the channels on which the text after `entries` begins inside a line. Returns none without redaction.
    fn starts_inside(&self, entries: &[u8]) -> Vec<Channel> {
        let mut inside = Vec::new();
        if !self.redaction.is_on() {
            return inside;
        }
        let mut seen = Vec::new();
        let entries: Vec<_> = self.format.entries(entries).collect();
        for entry in entries.iter().rev() {
            let Some(entry) = self.format.parse(entry) else {
                continue;
            };
            let channel = entry.channel_of(self.tty);
            if !seen.contains(&channel) {
                seen.push(channel);
                if is_fragment(&entry.message) {
                    inside.push(channel);
                }
            }
        }
        inside
    }

    /// Whether no further line of the log can be in the answer, or the reading has done enough work.
    fn is_done(&mut self) -> bool {
        if self.examined >= MAX_EXAMINED_BYTES || Instant::now() >= self.deadline {
            self.has_more = true;
            return true;
        }
        let Some(edge) = self.edge else { return false };
        let cut = self.cut();
        let is_beyond = |limit: Option<SystemTime>| match self.range.from {
            RangeEnd::Newest => limit
                .and_then(|limit| limit.checked_sub(DISORDER))
                .is_some_and(|limit| edge < limit),
            RangeEnd::Oldest => limit
                .and_then(|limit| limit.checked_add(DISORDER))
                .is_some_and(|limit| edge > limit),
        };
        let end_of_range = match self.range.from {
            RangeEnd::Newest => self.range.after,
            RangeEnd::Oldest => self.range.before,
        };
        if is_beyond(end_of_range) {
            return true;
        }
        let is_enough = is_beyond(cut);
        self.has_more |= is_enough;
        is_enough
    }

    /// Reads a compressed file. See [`Self::push`].
    fn read_unpacked(
        &mut self,
        mut log: Unpacked,
        mut starts_inside: Vec<Channel>,
    ) -> io::Result<()> {
        let mut rest = Vec::new();
        let mut lines = self.tail();
        let before = self.edge.take();
        let mut unpacked = 0;
        loop {
            let read = read_up_to(&mut log, BLOCK_BYTES as usize, &mut rest)?;
            unpacked += read as u64;
            let whole = self.format.whole(&rest);
            self.push(
                &mut lines,
                &rest[..whole],
                std::mem::take(&mut starts_inside),
            );
            rest.drain(..whole);
            if rest.len() > MAX_ENTRY_BYTES {
                rest.clear();
            }
            if !lines.is_open() || lines.text() > MAX_ANSWER_BYTES || read == 0 {
                let done = std::mem::replace(&mut lines, self.tail());
                self.take(done, std::mem::take(&mut unpacked), false);
                self.cut();
            }
            let is_done = match self.range.from {
                RangeEnd::Oldest => self.is_done(),
                // The newest lines of this file come last.
                RangeEnd::Newest => Instant::now() >= self.deadline,
            };
            if read == 0 || is_done {
                self.edge = self.edge.or(before);
                return Ok(());
            }
        }
    }

    fn tail(&self) -> TailLines {
        TailLines::new(0, usize::MAX)
            .redacting(self.redaction)
            .cutting_at(self.range.max_line as usize)
            .keeping_all()
    }

    /// Adds entries to `lines`. On the channels `starts_inside`, the first entry continues a line. With redaction, its first word is
    /// removed, because it can be half of a secret.
    fn push(&self, lines: &mut TailLines, entries: &[u8], mut starts_inside: Vec<Channel>) {
        for entry in self.format.entries(entries) {
            let Some(entry) = self.format.parse(entry) else {
                continue;
            };
            let (channel, mut message) = (entry.channel_of(self.tty), entry.message);
            if let Some(place) = starts_inside.iter().position(|inside| *inside == channel) {
                starts_inside.swap_remove(place);
                let text = message.len() - after_timestamp(&message).len();
                message = without_first_word(&message, text);
            }
            lines.push(channel, &message);
        }
    }

    /// Adds the matching lines of `bytes` bytes of the log to `found`, and moves `edge`. If `is_end` is true, leaves out the lines
    /// that are not finished yet.
    fn take(&mut self, mut lines: TailLines, bytes: u64, is_end: bool) {
        let lines = lines.show();
        let count = match is_end {
            true => lines.iter().len() - lines.open(),
            false => lines.iter().len(),
        };
        let mut is_counted = count == 0;
        for line in lines.iter().take(count) {
            let Some(at) = moment(line) else { continue };
            self.edge = Some(match (self.edge, self.range.from) {
                (None, _) => at,
                (Some(edge), RangeEnd::Newest) => edge.min(at),
                (Some(edge), RangeEnd::Oldest) => edge.max(at),
            });
            let is_after = self.range.after.is_none_or(|after| at > after);
            let is_before = self.range.before.is_none_or(|before| at < before);
            let is_beyond_cut = self.cut.is_some_and(|cut| match self.range.from {
                RangeEnd::Newest => at < cut,
                RangeEnd::Oldest => at > cut,
            });
            is_counted |= match self.range.from {
                RangeEnd::Newest => is_before,
                RangeEnd::Oldest => is_after,
            };
            let is_in = is_after && is_before;
            self.has_more |= is_in && is_beyond_cut;
            if is_in && !is_beyond_cut && matches(self.regex.as_ref(), line) {
                self.found.push((at, line.into()));
            }
        }
        if is_counted {
            self.examined += bytes;
        }
    }

    /// Sorts the lines. If there are enough lines, removes those that are too many, and returns the time of the outermost line that
    /// stays. Lines of the same time stay together, because a further request continues at a time.
    fn cut(&mut self) -> Option<SystemTime> {
        self.found.sort_by_key(|(at, _)| *at);
        let mut text = 0;
        let mut is_within = |(_, line): &&FoundLine| {
            text += line.len();
            text <= MAX_ANSWER_BYTES
        };
        let most = self.range.lines;
        let count = match self.range.from {
            RangeEnd::Newest => self
                .found
                .iter()
                .rev()
                .take(most)
                .take_while(&mut is_within)
                .count(),
            RangeEnd::Oldest => self
                .found
                .iter()
                .take(most)
                .take_while(&mut is_within)
                .count(),
        };
        let count = count.max(1);
        if self.found.len() < most && count >= self.found.len() {
            return self.cut;
        }
        let before = self.found.len();
        let cut;
        match self.range.from {
            RangeEnd::Newest => {
                cut = self.found[before - count].0;
                let surplus = self.found.partition_point(|(at, _)| *at < cut);
                self.found.drain(..surplus);
            }
            RangeEnd::Oldest => {
                cut = self.found[count - 1].0;
                let kept = self.found.partition_point(|(at, _)| *at <= cut);
                self.found.truncate(kept);
            }
        }
        self.has_more |= self.found.len() < before;
        self.cut = Some(cut);
        self.cut
    }

    fn finish(mut self) -> io::Result<RangeLines> {
        let cut = self.cut();
        let edge = self.edge.filter(|_| self.has_more);
        // If the work was limited before there were enough lines, lines near the edge can be missing.
        let complete = edge
            .filter(|_| cut.is_none())
            .map(|edge| match self.range.from {
                RangeEnd::Newest => edge
                    .checked_add(DISORDER)
                    .filter(|at| self.range.before.is_none_or(|before| *at < before))
                    .unwrap_or(edge),
                RangeEnd::Oldest => edge
                    .checked_sub(DISORDER)
                    .filter(|at| self.range.after.is_none_or(|after| *at > after))
                    .unwrap_or(edge),
            });
        if let Some(complete) = complete {
            let from = self.range.from;
            self.found.retain(|(at, _)| match from {
                RangeEnd::Newest => *at >= complete,
                RangeEnd::Oldest => *at <= complete,
            });
        }
        let reached = cut.or(complete).filter(|_| self.has_more);
        let has_progressed = |reached: SystemTime| match self.range.from {
            RangeEnd::Newest => self.range.before.is_none_or(|before| reached < before),
            RangeEnd::Oldest => self.range.after.is_none_or(|after| reached > after),
        };
        if self.has_more && !reached.is_some_and(has_progressed) {
            return Err(io::Error::other("there is too much to read"));
        }
        Ok(RangeLines {
            reached,
            lines: self.found.into_iter().map(|(_, line)| line).collect(),
        })
    }
}

/// Returns the offset of the first line that begins at or after `near`. It is at most `end`. A long line has several entries, and
/// only the last of them ends with a line feed.
fn line_begin(format: Format, file: &File, near: u64, end: u64) -> io::Result<u64> {
    if near == 0 {
        return Ok(0);
    }
    // The entry before the line is needed too, to see whether it ends a line.
    let from = near.saturating_sub(CHUNK as u64);
    let (mut bytes, mut at) = (Vec::new(), from);
    while at < end {
        let next = end.min(at + 2 * CHUNK as u64);
        read_range(file, at, next, &mut bytes)?;
        at = next;
        let mut begin = match from {
            0 => 0,
            _ => format.entry_begin(&bytes).unwrap_or(bytes.len()),
        };
        for entry in format.entries(&bytes[begin..]) {
            begin += entry.len();
            if format.line_ends(entry) > 0 && from + begin as u64 >= near {
                return Ok(from + begin as u64);
            }
        }
        if bytes.len() > 4 * MAX_ENTRY_BYTES {
            break;
        }
    }
    // The line is too long.
    Ok(at.min(end))
}

/// Returns the last bytes before an offset of a file.
fn bytes_before(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let from = offset.saturating_sub(2 * CHUNK as u64);
    read_range(file, from, offset, &mut bytes)?;
    Ok(bytes)
}

/// Returns the offset at which the block of lines after `begin` ends.
fn block_end(format: Format, file: &File, begin: u64, size: u64) -> io::Result<u64> {
    let near = begin + BLOCK_BYTES;
    match near < size {
        true => line_begin(format, file, near, size),
        false => Ok(size),
    }
}

/// Returns the offset at which the block of lines before `end` begins.
fn block_begin(format: Format, file: &File, end: u64) -> io::Result<u64> {
    let mut length = BLOCK_BYTES;
    loop {
        let near = end.saturating_sub(length);
        let begin = line_begin(format, file, near, end)?;
        if begin < end {
            return Ok(begin);
        }
        if length >= MAX_BLOCK_BYTES {
            // The line is too long. Its end is not shown.
            return Ok(near);
        }
        length *= 4;
    }
}

#[cfg(test)]
mod tests;
