//! The entries of Docker's `local` driver.
//!
//! An entry is the message `LogEntry` of the engine's file `api/types/plugins/logdriver/entry.proto`, in the encoding of Protocol
//! Buffers. Before and after it, there is its length: four bytes, the most significant byte first.

use std::time::{Duration, SystemTime};

use crate::collect::logs::entry::PlainEntry;
use crate::collect::logs::line::MAX_LINE_BYTES;
use crate::model::LogStream;

/// Limit on the length of an entry, in bytes. The engine splits long lines into fragments of 16 KiB.
const MAX_LENGTH: usize = 1024 * 1024;
/// Number of bytes of a length.
const LENGTH_BYTES: usize = 4;
/// Number of valid entries in a row that show where an entry begins.
const SURE: usize = 4;

/// The numbers of the message's fields, and of the message `PartialLogEntryMetadata`.
mod field {
    pub(super) const SOURCE: u64 = 1;
    pub(super) const TIME: u64 = 2;
    pub(super) const LINE: u64 = 3;
    pub(super) const IS_PARTIAL: u64 = 4;
    pub(super) const PARTIAL: u64 = 5;
    pub(super) const IS_LAST: u64 = 1;
}

/// One entry of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LocalEntry<'a> {
    source: &'a [u8],
    /// The time in nanoseconds after 1970.
    time: u64,
    /// The text without the line feed.
    text: &'a [u8],
    /// Whether the entry is a fragment of a long line.
    is_partial: bool,
    /// Whether the entry is the last fragment.
    is_last: bool,
}

/// The beginning of some bytes that can be an entry.
enum Frame {
    /// An entry with this content.
    Entry(usize),
    /// The beginning of an entry.
    Unfinished,
    Invalid,
}

/// Looks at the length before and after an entry, and at its first byte.
fn frame(bytes: &[u8]) -> Frame {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Frame::Unfinished;
    };
    let length = u32::from_be_bytes(*length) as usize;
    // The first field is the source. The text of a line cannot contain this byte, because it is a line feed.
    let is_first_field = |byte: &u8| *byte == 0x0a;
    if !(2..=MAX_LENGTH).contains(&length) || !rest.first().is_none_or(is_first_field) {
        return Frame::Invalid;
    }
    match rest.get(length..length + LENGTH_BYTES) {
        None => Frame::Unfinished,
        Some(again) if again == &bytes[..LENGTH_BYTES] => Frame::Entry(length),
        Some(_) => Frame::Invalid,
    }
}

/// Returns the number of bytes of the first entry. None if the entry is not complete. Bytes that are not a valid entry count as an
/// entry, up to the next valid one.
pub(super) fn entry_end(bytes: &[u8]) -> Option<usize> {
    match frame(bytes) {
        Frame::Entry(length) => Some(length + 2 * LENGTH_BYTES),
        Frame::Unfinished => None,
        Frame::Invalid => entry_begin(bytes, 1),
    }
}

/// Returns the offset of the first entry that begins at or after `from`.
pub(super) fn entry_begin(bytes: &[u8], from: usize) -> Option<usize> {
    let is_sure = |begin: &usize| {
        let mut rest = &bytes[*begin..];
        for count in 0..SURE {
            match frame(rest) {
                Frame::Entry(length) if LocalEntry::parse(rest).is_some() => {
                    rest = &rest[length + 2 * LENGTH_BYTES..];
                }
                Frame::Unfinished => return count > 0,
                Frame::Entry(_) | Frame::Invalid => return false,
            }
        }
        true
    };
    (from..bytes.len()).find(is_sure)
}

impl<'a> LocalEntry<'a> {
    /// Parses an entry. Returns none if the bytes do not begin with a valid entry.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let Frame::Entry(length) = frame(bytes) else {
            return None;
        };
        let mut entry = Self::default();
        let mut fields = Fields(&bytes[LENGTH_BYTES..LENGTH_BYTES + length]);
        while let Some(field) = fields.next()? {
            match field {
                (field::SOURCE, Value::Bytes(source)) => entry.source = source,
                (field::TIME, Value::Number(time)) => entry.time = time,
                (field::LINE, Value::Bytes(text)) => entry.text = text,
                (field::IS_PARTIAL, Value::Number(value)) => entry.is_partial = value != 0,
                (field::PARTIAL, Value::Bytes(partial)) => {
                    let mut fields = Fields(partial);
                    while let Some(field) = fields.next()? {
                        if let (field::IS_LAST, Value::Number(value)) = field {
                            entry.is_last = value != 0;
                        }
                    }
                }
                _ => {}
            }
        }
        Some(entry)
    }

    pub(super) fn stream(&self) -> LogStream {
        match self.source {
            b"stderr" => LogStream::Stderr,
            _ => LogStream::Stdout,
        }
    }

    /// Returns when the entry was written.
    pub(super) fn time(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(self.time))
    }

    /// Returns the timestamp as the engine prints it, and a space.
    fn timestamp(&self) -> String {
        let time = self.time().unwrap_or(SystemTime::UNIX_EPOCH);
        format!("{} ", humantime::format_rfc3339_nanos(time))
    }

    /// Whether the entry is the end of a line.
    pub(super) fn ends_line(&self) -> bool {
        !self.is_partial || self.is_last
    }

    /// Returns the entry as a message `TIMESTAMP text`, as the engine prints it.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = self.timestamp().into_bytes();
        message.reserve_exact(self.text.len() + 1);
        message.extend_from_slice(self.text);
        if self.ends_line() {
            message.push(b'\n');
        }
        message
    }

    /// Returns the entry, if its text can be copied to JSON.
    pub(super) fn plain(&self) -> Option<PlainEntry<'a>> {
        let is_escaped = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        let is_plain = !self.is_partial
            && self.text.len() < MAX_LINE_BYTES
            && !self.text.iter().any(is_escaped);
        let text = std::str::from_utf8(self.text).ok().filter(|_| is_plain)?;
        Some(PlainEntry {
            text,
            timestamp: self.timestamp(),
            stream: self.stream(),
        })
    }
}

/// The fields of a message in the encoding of Protocol Buffers.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of a fixed size. The messages have no such fields.
    Other,
}

impl<'a> Fields<'a> {
    /// Returns the number and the value of the next field. `Some(None)` after the last field. None if the bytes are invalid.
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * place).min(63);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::{LocalEntry, LogStream, entry_begin, entry_end};

    fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }

    fn push_bytes(bytes: &mut Vec<u8>, field: u64, value: &[u8]) {
        push_varint(bytes, field << 3 | 2);
        push_varint(bytes, value.len() as u64);
        bytes.extend_from_slice(value);
    }

    /// Writes an entry as the engine writes it. `last` is none for a whole line, else whether it is the last fragment.
    pub(in crate::collect::logs) fn entry(
        source: &str,
        time: u64,
        text: &[u8],
        last: Option<bool>,
    ) -> Vec<u8> {
        let mut message = Vec::new();
        push_bytes(&mut message, 1, source.as_bytes());
        push_varint(&mut message, 2 << 3);
        push_varint(&mut message, time);
        if !text.is_empty() {
            push_bytes(&mut message, 3, text);
        }
        if let Some(last) = last {
            message.extend([4 << 3, 1]);
            let mut partial = Vec::new();
            if last {
                partial.extend([1 << 3, 1]);
            }
            push_bytes(&mut partial, 2, b"0123456789abcdef");
            partial.extend([3 << 3, 1]);
            push_bytes(&mut message, 5, &partial);
        }
        let length = (message.len() as u32).to_be_bytes();
        [&length[..], &message, &length].concat()
    }

    fn shown(entry: &[u8]) -> Option<(String, LogStream)> {
        let entry = LocalEntry::parse(entry)?;
        let message = String::from_utf8_lossy(&entry.message()).into_owned();
        Some((message, entry.stream()))
    }

    #[test]
    fn an_entry_of_the_engine_is_read() {
        // Written by Docker 20.10: `hello` on the standard output.
        let hello = b"\0\0\0\x19\n\x06stdout\x10\xbf\xa6\xdc\xae\xa7\x89\x98\xf6\x18\x1a\x05hello\0\0\0\x19";
        assert_eq!(
            shown(hello),
            Some((
                "2026-11-29T01:37:04.334861119Z hello\n".to_owned(),
                LogStream::Stdout
            ))
        );
        assert_eq!(entry_end(hello), Some(hello.len()));
        let text = |last| shown(&entry("stderr", 0, b"a", last)).unwrap();
        let line = |text: &str| {
            (
                format!("1970-01-01T00:00:00.000000000Z {text}"),
                LogStream::Stderr,
            )
        };
        assert_eq!(text(None), line("a\n"));
        assert_eq!(text(Some(false)), line("a"));
        assert_eq!(text(Some(true)), line("a\n"));
        assert_eq!(shown(&entry("stdout", 0, b"", None)).unwrap().0.len(), 32);
    }

    #[test]
    fn only_whole_lines_without_special_characters_are_plain() {
        let plain = |text: &str, last| {
            let entry = entry("stderr", 5, text.as_bytes(), last);
            let plain = LocalEntry::parse(&entry)?.plain()?;
            Some((plain.timestamp + plain.text, plain.stream))
        };
        let line = "1970-01-01T00:00:00.000000005Z ä <b>".to_owned();
        assert_eq!(plain("ä <b>", None), Some((line, LogStream::Stderr)));
        assert_eq!(plain("a", Some(true)), None);
        for text in ["a\"b", "a\\b", "a\tb", "a\r", &"x".repeat(16 * 1024)] {
            assert_eq!(plain(text, None), None, "{text}");
        }
        assert!(
            LocalEntry::parse(&entry("stdout", 5, b"\xff", None))
                .unwrap()
                .plain()
                .is_none()
        );
    }

    #[test]
    fn damaged_bytes_end_where_the_next_entry_begins() {
        let [first, second] =
            ["first", "second"].map(|text| entry("stdout", 7, text.as_bytes(), None));
        for damage in 0..first.len() {
            let mut damaged = first.clone();
            damaged[damage] ^= 0x55;
            // The damaged length can be larger. Then the following entries show that it is wrong.
            let bytes = [&damaged[..], &second.repeat(1000)].concat();
            let end = entry_end(&bytes).unwrap();
            assert_eq!(shown(&bytes[end..]), shown(&second), "{damage}");
        }
        assert_eq!(entry_end(&first[..first.len() - 1]), None);
        assert_eq!(
            LocalEntry::parse(&entry("stdout", 7, b"x", None))
                .unwrap()
                .time(),
            Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(7))
        );
    }

    proptest! {
        /// From any offset, the search finds the next entry.
        #[test]
        fn the_next_entry_is_found(
            texts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..60), any::<bool>()), 6..20),
            skipped in 0..200_usize,
        ) {
            let mut begins = Vec::new();
            let mut bytes = Vec::new();
            for (text, is_err) in &texts {
                begins.push(bytes.len());
                bytes.extend(entry(if *is_err { "stderr" } else { "stdout" }, 9, text, None));
            }
            let skipped = skipped.min(begins[begins.len() - 5]);
            let expected = begins.iter().copied().find(|begin| *begin >= skipped);
            prop_assert_eq!(entry_begin(&bytes, skipped), expected);
        }

        /// Any bytes are read without a panic.
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (entry_end(&bytes), LocalEntry::parse(&bytes));
            let length = (bytes.len() as u32).to_be_bytes();
            let framed = [&length[..], &bytes, &length].concat();
            let _ = (entry_end(&framed), shown(&framed));
        }
    }
}
