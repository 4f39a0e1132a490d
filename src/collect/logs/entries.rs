//! The entries of a log file: where they end, and what one says.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;

use super::tail::Channel;

/// The most that is parsed of a log at a time, in bytes: the text that is kept of a container, six
/// times as long where every byte of it is escaped. Of what is before that, only lines are counted.
pub(super) const MOST_PARSED: u64 = 6 * 1024 * 1024;
/// How much is read of a log at a time, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;
/// The first look at the end of a log, in bytes; later ones are four times as long each.
const FIRST_LOOK: u64 = 32 * 1024;
/// Room for a timestamp and its space in a message, in bytes.
const TIMESTAMP: usize = 36;
/// How an entry that ends a line ends: the text's line feed stands before the quote.
const LINE_END: &[u8] = br#"\n","stream""#;

/// One entry of a log.
#[derive(Deserialize)]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// None where it is no entry.
    pub(super) fn parse(entry: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(entry).ok()
    }

    /// Where it comes from, in a container without a TTY.
    pub(super) fn channel(&self) -> Channel {
        match &*self.stream {
            "stderr" => Channel::Stderr,
            _ => Channel::Stdout,
        }
    }

    /// `TIMESTAMP text`, as the engine prints it.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.log.len() + TIMESTAMP);
        push_timestamp(&mut message, &self.time);
        message.push(b' ');
        message.extend_from_slice(self.log.as_bytes());
        message
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

/// Counts the ends of lines in entries that come in pieces.
pub(super) struct LineEnds {
    found: usize,
    /// The end of what was counted, which may be the beginning of a line's end.
    last: Vec<u8>,
}

impl LineEnds {
    /// Behind an entry's beginning.
    pub(super) fn after(rest: &[u8]) -> Self {
        let mut ends = Self {
            found: 0,
            last: Vec::new(),
        };
        ends.take(rest);
        ends
    }

    /// How many there were.
    pub(super) fn found(&self) -> usize {
        self.found
    }

    fn take(&mut self, piece: &[u8]) {
        self.last.extend_from_slice(piece);
        self.found += line_ends(&self.last);
        let kept = self.last.len().saturating_sub(LINE_END.len() - 1);
        self.last.drain(..kept);
    }

    pub(super) fn count(&mut self, mut entries: impl Read) -> io::Result<()> {
        let mut piece = Vec::with_capacity(CHUNK);
        while (&mut entries).take(CHUNK as u64).read_to_end(&mut piece)? > 0 {
            self.take(&piece);
            piece.clear();
        }
        Ok(())
    }

    /// Counts to the end of the entry that has begun; leaves in `rest` what was read beyond it.
    pub(super) fn count_to_entry(
        &mut self,
        mut entries: impl Read,
        rest: &mut Vec<u8>,
    ) -> io::Result<()> {
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
pub(super) fn read_range(file: &File, from: u64, to: u64, into: &mut Vec<u8>) -> io::Result<u64> {
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
    use super::push_timestamp;

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
}
