//! The entries of Docker's `json-file` driver. An entry is a JSON object on a line of its own.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Deserialize;

use crate::collect::logs::entry::{Entry, PlainEntry};
use crate::collect::logs::line::MAX_LINE_BYTES;
use crate::model::{LogStream, time_of as parse_time};

/// The end of the name of such a file.
pub(super) const SUFFIX: &[u8] = b"-json.log";
/// Maximum size of a timestamp and the space after it, in bytes.
const TIMESTAMP_BYTES: usize = 36;
/// The bytes that show that an entry ends a line: the line feed of the text, the closing quote, and the next key.
const LINE_END: &[u8] = br#"\n","stream""#;
/// The bytes before the timestamp.
const TIME: &[u8] = br#"","time":""#;

/// One entry of a log.
#[derive(Deserialize)]
struct JsonEntry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl<'a> JsonEntry<'a> {
    /// Parses an entry. Returns none if the bytes are not an entry.
    fn parse(entry: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(entry).ok()
    }

    fn stream(&self) -> LogStream {
        match &*self.stream {
            "stderr" => LogStream::Stderr,
            _ => LogStream::Stdout,
        }
    }

    fn message(&self) -> Vec<u8> {
        message(&self.time, &self.log, "")
    }
}

/// An entry that is a whole line, and whose text has no escape sequence except the line feed at its end.
struct Plain<'a> {
    text: &'a str,
    time: &'a str,
    stream: LogStream,
}

/// Parses an entry. Returns none if the bytes are not an entry.
pub(super) fn parse(entry: &[u8]) -> Option<Entry> {
    // The JSON parser needs several times as long for a plain entry.
    if let Some(Plain { text, time, stream }) = Plain::parse(entry) {
        let message = message(time, text, "\n");
        return Some(Entry { stream, message });
    }
    let entry = JsonEntry::parse(entry)?;
    Some(Entry {
        stream: entry.stream(),
        message: entry.message(),
    })
}

/// Returns the message `TIMESTAMP text`, as the engine prints it. `end` is appended to the text.
fn message(time: &str, text: &str, end: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(TIMESTAMP_BYTES + text.len() + end.len());
    push_timestamp(&mut message, time);
    message.push(b' ');
    message.extend_from_slice(text.as_bytes());
    message.extend_from_slice(end.as_bytes());
    message
}

/// Parses an entry that is a whole line, and whose text has no escape sequence except the line feed at its end. Such a text is the
/// same in the log file and in the JSON of a snapshot. Returns none if the entry is of another kind.
pub(super) fn parse_plain(entry: &[u8]) -> Option<PlainEntry<'_>> {
    let Plain { text, time, stream } = Plain::parse(entry)?;
    Some(PlainEntry {
        text,
        // The bytes are those of text.
        timestamp: String::from_utf8(message(time, "", "")).unwrap_or_default(),
        stream,
    })
}

impl<'a> Plain<'a> {
    /// Parses an entry. Returns none if it is of another kind.
    fn parse(entry: &'a [u8]) -> Option<Self> {
        let entry = entry.strip_suffix(b"\n").unwrap_or(entry);
        let entry = entry.strip_prefix(br#"{"log":""#)?.strip_suffix(br#""}"#)?;
        // The timestamp is the last field.
        let (entry, time) = entry.split_at(memchr::memrchr(b'"', entry)? + 1);
        let entry = entry.strip_suffix(TIME)?;
        let (text, stream) = [
            (br#"\n","stream":"stdout"#, LogStream::Stdout),
            (br#"\n","stream":"stderr"#, LogStream::Stderr),
        ]
        .into_iter()
        .find_map(|(end, stream)| Some((entry.strip_suffix(end)?, stream)))?;
        let is_escaped = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        let is_time =
            |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b':' | b'.' | b'T' | b'Z');
        let is_plain =
            text.len() < MAX_LINE_BYTES && !text.iter().any(is_escaped) && time.iter().all(is_time);
        if !is_plain {
            return None;
        }
        Some(Self {
            text: std::str::from_utf8(text).ok()?,
            time: std::str::from_utf8(time).ok()?,
            stream,
        })
    }
}

/// Appends a timestamp with nine digits after the point, as the engine prints it. The log file omits zeros at the end.
fn push_timestamp(message: &mut Vec<u8>, time: &str) {
    let time = time.as_bytes();
    let zone = memchr::memchr2(b'Z', b'+', time).unwrap_or(time.len());
    let point = memchr::memchr(b'.', &time[..zone]);
    let fraction = point.map_or(&[][..], |point| &time[point + 1..zone]);
    message.extend_from_slice(&time[..point.unwrap_or(zone)]);
    message.push(b'.');
    message.extend_from_slice(fraction);
    message.resize(message.len() + 9_usize.saturating_sub(fraction.len()), b'0');
    message.extend_from_slice(&time[zone..]);
}

/// Returns how many entries end a line. Searches for [`LINE_END`] and does not parse the entries.
pub(super) fn line_ends(entries: &[u8]) -> usize {
    memchr::memmem::find_iter(entries, LINE_END).count()
}

/// Returns when an entry was written. None if the bytes are not an entry.
pub(super) fn time_of(entry: &[u8]) -> Option<SystemTime> {
    let begin = memchr::memmem::rfind(entry, TIME)? + TIME.len();
    let length = memchr::memchr(b'"', &entry[begin..])?;
    parse_time(std::str::from_utf8(&entry[begin..begin + length]).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Entry, JsonEntry, LogStream, MAX_LINE_BYTES, parse, parse_plain, push_timestamp, time_of,
    };

    fn as_plain(entry: &str) -> Option<(String, LogStream)> {
        let plain = parse_plain(entry.as_bytes())?;
        Some((plain.timestamp + plain.text, plain.stream))
    }

    #[test]
    fn only_whole_lines_without_escape_sequences_are_plain() {
        let entry = |log: &str, rest: &str| format!("{{\"log\":\"{log}\",{rest}}}");
        let usual = r#""stream":"stderr","time":"2024-01-01T12:00:00.5Z""#;
        let text = "2024-01-01T12:00:00.500000000Z ä <b>".to_owned();
        let expected = Some((text, LogStream::Stderr));
        assert_eq!(as_plain(&entry("ä <b>\\n", usual)), expected);
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

    /// Every entry is read as by the JSON parser, whatever kind it is.
    fn check(entry: &[u8]) {
        let parsed = JsonEntry::parse(entry).map(|parsed| Entry {
            stream: parsed.stream(),
            message: parsed.message(),
        });
        assert_eq!(parse(entry), parsed, "{}", entry.escape_ascii());
    }

    /// Entries of all kinds, with and without the line feed at the end.
    fn samples() -> Vec<Vec<u8>> {
        let time = r#""time":"2024-01-01T12:00:00.5Z""#;
        let stdout = format!(r#""stream":"stdout",{time}"#);
        let logs = [
            "whole\\n",
            "a part",
            "\\n",
            "",
            "tty\\r\\n",
            "\\\"\\u003c\\\\n\\n",
            "ä ß\\n",
        ];
        let mut samples: Vec<Vec<u8>> = logs
            .iter()
            .map(|log| format!(r#"{{"log":"{log}",{stdout}}}"#).into_bytes())
            .collect();
        let rests = [
            format!(r#""stream":"stderr",{time}"#),
            format!(r#""stream":"other",{time}"#),
            format!(r#""stream":"stdout","attrs":{{"a":"b"}},{time}"#),
            format!(r#"{time},"stream":"stdout""#),
            format!(r#"{stdout},{time}"#),
            r#""stream":"stdout","time":"""#.to_owned(),
            r#""stream":"stdout","time":"2024-01-01T12:00:00.123456789123456789123456789+01:00""#
                .to_owned(),
            r#""stream":"stdout","time":"yesterday""#.to_owned(),
            time.to_owned(),
        ];
        samples.extend(
            rests
                .iter()
                .map(|rest| format!(r#"{{"log":"a\n",{rest}}}"#).into_bytes()),
        );
        for length in [MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1] {
            let log = "x".repeat(length);
            samples.push(format!(r#"{{"log":"{log}\n",{stdout}}}"#).into_bytes());
        }
        samples.push([b"{\"log\":\"\xff\\n\",", stdout.as_bytes(), b"}"].concat());
        let with_end = |one: &Vec<u8>| [one, &b"\n"[..]].concat();
        samples.extend(samples.clone().iter().map(with_end));
        samples
    }

    #[test]
    fn entries_of_all_kinds_are_read_as_by_the_json_parser() {
        let samples = samples();
        samples.iter().for_each(|one| check(one));
        let plain = samples.iter().filter(|one| parse_plain(one).is_some());
        assert_eq!(plain.count(), 2 * 7);
    }

    #[test]
    fn fuzz_json_entries() {
        let samples = samples();
        let seeds: Vec<&[u8]> = samples.iter().map(|one| &one[..]).collect();
        crate::fuzzing::run("json_entries", &seeds, check);
    }

    proptest! {
        #[test]
        fn an_entry_with_a_wrong_byte_is_read_as_by_the_json_parser(
            which in 0..samples().len(), at: prop::sample::Index, byte: u8, inserts: bool,
        ) {
            let mut entry = samples().swap_remove(which);
            let at = at.index(entry.len());
            match inserts {
                true => entry.insert(at, byte),
                false => entry[at] = byte,
            }
            check(&entry);
        }

        #[test]
        fn a_plain_entry_is_read_as_by_the_json_parser(text in "[ -~äß\\t\"\\\\]{0,40}", digits in 0..10_usize, is_stderr: bool) {
            let log = serde_json::to_string(&format!("{text}\n")).unwrap();
            let fraction = format!(".{}", "123456789".get(..digits).unwrap_or("5"));
            let written = if is_stderr { "stderr" } else { "stdout" };
            let entry = format!(r#"{{"log":{log},"stream":"{written}","time":"2024-01-01T12:00:00{fraction}Z"}}"#);
            let parsed = JsonEntry::parse(entry.as_bytes()).unwrap();
            let read = parse(entry.as_bytes()).unwrap();
            prop_assert_eq!((read.message, read.stream), (parsed.message(), parsed.stream()));
            if let Some((plain, stream)) = as_plain(&entry) {
                prop_assert_eq!(plain + "\n", String::from_utf8(parsed.message()).unwrap());
                prop_assert_eq!((stream, stream.name()), (parsed.stream(), written));
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

    #[test]
    fn only_an_entry_has_a_time() {
        let entry = r#"{"log":"text\n","stream":"stdout","time":"2024-01-01T12:00:00.5Z"}"#;
        let time = humantime::parse_rfc3339("2024-01-01T12:00:00.5Z").unwrap();
        assert_eq!(time_of(entry.as_bytes()), Some(time));
        for text in ["", "text", r#"{"log":"a","time":"yesterday"}"#] {
            assert_eq!(time_of(text.as_bytes()), None, "{text}");
        }
    }
}
