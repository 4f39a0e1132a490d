//! The entries of a log file. An entry is a JSON object on a line of its own. This module finds entries, counts line ends and
//! parses single entries. It does not merge the fragments of long lines.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;

use super::line::MAX_LINE_BYTES;
use super::tail::Channel;

/// Limit on the bytes of a log that one reading parses. In older bytes, the reading only counts lines. The limit is six times the
/// text that the agent stores of a container, because an escaped byte has six bytes in JSON.
pub(super) const MAX_PARSED_BYTES: u64 = 6 * 1024 * 1024;
/// Limit on an unfinished entry, in bytes. A valid entry is much shorter, because the engine splits long lines into fragments of
/// 16 KiB.
pub(super) const MAX_ENTRY_BYTES: usize = 1024 * 1024;
/// Number of bytes that are read from a log at a time.
pub(super) const CHUNK: usize = 64 * 1024;
/// Number of bytes at the end of a log that the first search covers. Each later search covers four times as many bytes.
const FIRST_LOOK: u64 = 32 * 1024;
/// Maximum size of a timestamp and the space after it, in bytes.
const TIMESTAMP_BYTES: usize = 36;
/// The bytes that show that an entry ends a line: the line feed of the text, the closing quote, and the next key.
const LINE_END: &[u8] = br#"\n","stream""#;
/// The bytes before the timestamp.
pub(super) const TIME: &[u8] = br#"","time":""#;

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
    /// Parses an entry. Returns none if the bytes are not an entry.
    pub(super) fn parse(entry: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(entry).ok()
    }

    /// Returns the channel of the entry. `tty` tells whether the container has a TTY.
    pub(super) fn channel_of(&self, tty: bool) -> Channel {
        match &*self.stream {
            _ if tty => Channel::Terminal,
            "stderr" => Channel::Stderr,
            _ => Channel::Stdout,
        }
    }

    /// Returns the entry as a message `TIMESTAMP text`, as the engine prints it.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.log.len() + TIMESTAMP_BYTES);
        push_timestamp(&mut message, &self.time);
        message.push(b' ');
        message.extend_from_slice(self.log.as_bytes());
        message
    }
}

/// The text and the timestamp of an entry that is a whole line, and whose text has no escape sequence except the line feed at its
/// end. Most entries are of this kind. Their text is the same in the log file and in the JSON of a snapshot, so it is only copied.
pub(super) struct PlainEntry<'a> {
    pub(super) text: &'a str,
    time: &'a str,
}

impl<'a> PlainEntry<'a> {
    /// Reads an entry as the engine writes it. Returns none if the entry is of another kind.
    pub(super) fn parse(entry: &'a [u8]) -> Option<Self> {
        let entry = entry.strip_prefix(br#"{"log":""#)?.strip_suffix(br#""}"#)?;
        // The timestamp is the last field.
        let near = entry.len().saturating_sub(TIME.len() + TIMESTAMP_BYTES);
        let end = near + memchr::memmem::rfind(&entry[near..], TIME)?;
        let (entry, time) = (&entry[..end], &entry[end + TIME.len()..]);
        let text = [br#"\n","stream":"stdout"#, br#"\n","stream":"stderr"#]
            .iter()
            .find_map(|end| entry.strip_suffix(*end))?;
        let is_escaped = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        let is_time =
            |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b':' | b'.' | b'T' | b'Z');
        let is_plain =
            text.len() < MAX_LINE_BYTES && !text.iter().any(is_escaped) && time.iter().all(is_time);
        Some(Self {
            text: std::str::from_utf8(text).ok().filter(|_| is_plain)?,
            time: std::str::from_utf8(time).ok()?,
        })
    }

    /// Returns the timestamp as the engine prints it, and a space.
    pub(super) fn timestamp(&self) -> String {
        let mut timestamp = Vec::with_capacity(TIMESTAMP_BYTES);
        push_timestamp(&mut timestamp, self.time);
        timestamp.push(b' ');
        // The bytes are those of text.
        String::from_utf8(timestamp).unwrap_or_default()
    }
}

/// Appends a timestamp with nine digits after the point, as the engine prints it. The log file omits zeros at the end.
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

/// Counts the line ends in entries that arrive in pieces.
pub(super) struct LineEnds {
    found: usize,
    /// The last bytes of the previous piece. A line end can begin in these bytes and continue in the next piece.
    last: Vec<u8>,
}

impl LineEnds {
    /// Begins to count after `rest`, which contains the beginning of an entry.
    pub(super) fn after(rest: &[u8]) -> Self {
        let mut ends = Self {
            found: 0,
            last: Vec::new(),
        };
        ends.take(rest);
        ends
    }

    /// Returns the number of line ends so far.
    pub(super) fn found(&self) -> usize {
        self.found
    }

    fn take(&mut self, piece: &[u8]) {
        self.last.extend_from_slice(piece);
        self.found += line_ends(&self.last);
        let kept = self.last.len().saturating_sub(LINE_END.len() - 1);
        self.last.drain(..kept);
    }

    /// Counts the line ends up to the end of `entries`.
    pub(super) fn count(&mut self, mut entries: impl Read) -> io::Result<()> {
        let mut piece = Vec::with_capacity(CHUNK);
        while (&mut entries).take(CHUNK as u64).read_to_end(&mut piece)? > 0 {
            self.take(&piece);
            piece.clear();
        }
        Ok(())
    }

    /// Counts the line ends up to the end of the current entry. Leaves the bytes that were read after that entry in `rest`.
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

/// Returns how many entries end a line. Searches for [`LINE_END`] and does not parse the entries.
pub(super) fn line_ends(entries: &[u8]) -> usize {
    memchr::memmem::find_iter(entries, LINE_END).count()
}

/// Returns whole entries at the end of a file, and the number of line ends in them. Searches backwards. The search ends when it
/// has found `wanted` line ends, at the beginning of the file, or at [`MAX_PARSED_BYTES`].
pub(super) fn last_entries(file: &File, size: u64, wanted: usize) -> io::Result<(Vec<u8>, usize)> {
    let mut look = FIRST_LOOK;
    loop {
        let from = size.saturating_sub(look);
        let mut chunk = Vec::new();
        read_range(file, from, size, &mut chunk)?;
        if from > 0 {
            // The chunk can begin in the middle of an entry. The rest of this entry is removed.
            let begin = chunk.iter().position(|byte| *byte == b'\n');
            chunk.drain(..begin.map_or(chunk.len(), |end| end + 1));
        }
        let ends = line_ends(&chunk);
        if ends >= wanted || from == 0 || look >= MAX_PARSED_BYTES {
            return Ok((chunk, ends));
        }
        look = (look * 4).min(MAX_PARSED_BYTES);
    }
}

/// Appends the bytes between two offsets to `into`. Returns the number of bytes. If the file ends early, the number is smaller.
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
    use proptest::prelude::*;

    use super::{Entry, PlainEntry, push_timestamp};

    fn as_plain(entry: &str) -> Option<String> {
        let plain = PlainEntry::parse(entry.as_bytes())?;
        Some(plain.timestamp() + plain.text)
    }

    #[test]
    fn only_whole_lines_without_escape_sequences_are_plain() {
        let entry = |log: &str, rest: &str| format!("{{\"log\":\"{log}\",{rest}}}");
        let usual = r#""stream":"stderr","time":"2024-01-01T12:00:00.5Z""#;
        let text = "2024-01-01T12:00:00.500000000Z ä <b>".to_owned();
        assert_eq!(as_plain(&entry("ä <b>\\n", usual)), Some(text));
        for log in [
            "no end",
            "a\\tb\\n",
            "a\\\\n",
            "\\u003c\\n",
            "a\"b\\n",
            "tty\\r\\n",
            "a\u{1}\\n",
        ] {
            assert_eq!(as_plain(&entry(log, usual)), None, "{log}");
        }
        for rest in [
            r#""stream":"stdout","attrs":{"a":"b"},"time":"2024-01-01T12:00:00Z""#,
            r#""time":"2024-01-01T12:00:00Z""#,
            r#""stream":"stdout","time":"x\"y""#,
            r#""stream":"stdout""#,
        ] {
            assert_eq!(as_plain(&entry("a\\n", rest)), None, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_entry_is_read_as_by_the_json_parser(text in "[ -~äß\\t\"\\\\]{0,40}", digits in 0..10_usize) {
            let log = serde_json::to_string(&format!("{text}\n")).unwrap();
            let fraction = format!(".{}", "123456789".get(..digits).unwrap_or("5"));
            let entry = format!(r#"{{"log":{log},"stream":"stdout","time":"2024-01-01T12:00:00{fraction}Z"}}"#);
            if let Some(plain) = as_plain(&entry) {
                let message = Entry::parse(entry.as_bytes()).unwrap().message();
                prop_assert_eq!(plain + "\n", String::from_utf8(message).unwrap());
            } else {
                prop_assert!(text.contains(['\t', '"', '\\']));
            }
        }
    }

    #[test]
    fn timestamps_have_nine_digits_after_the_point() {
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
