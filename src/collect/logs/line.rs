//! One log line: its stored bytes, and the text that is shown. This module redacts the text.

use std::borrow::Cow;

use memchr::memmem;

use crate::model::{DEFAULT_MAX_LINE, LogStream};
use crate::settings::Redaction;

/// Limit on the text of a line, in bytes, without the timestamp, unless a client asks for more. The engine's fragments have this
/// length. They are longer if the engine has replaced invalid bytes. So a truncated line shows only text of its first fragment.
pub(super) const MAX_LINE_BYTES: usize = DEFAULT_MAX_LINE as usize;
/// Maximum length of a timestamp and the space after it, in bytes: `2024-01-01T12:00:00.123456789+01:00 `.
pub(super) const MAX_TIMESTAMP_BYTES: usize = 36;
/// Limit on the incomplete word that is removed from a line, in bytes. The word is removed because it can be half of a secret.
const MAX_WORD_BYTES: usize = 4 * 1024;
/// The text at the end of a line that was truncated at [`MAX_LINE_BYTES`].
pub(super) const TRUNCATED: &str = crate::model::CUT_LINE;

/// Returns the limit on the stored bytes of a line: its timestamp, its text, a second timestamp, and one byte. The second timestamp
/// is for a console, which has a timestamp between two fragments. The extra byte shows whether there is more text.
pub(super) fn max_raw_bytes(max_line: usize) -> usize {
    max_line + 2 * MAX_TIMESTAMP_BYTES + 1
}

/// Returns the text at the end of a line that was truncated at `max_line` bytes.
fn cut_mark(max_line: usize) -> Cow<'static, str> {
    match max_line {
        MAX_LINE_BYTES => TRUNCATED.into(),
        _ => format!(" … [line cut at {max_line} bytes]").into(),
    }
}

/// A line that was not shown yet, or that waits for its end.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// `TIMESTAMP text`, without the line feed.
    pub(super) raw: Vec<u8>,
    /// Whether the line had more bytes than were stored.
    pub(super) truncated: bool,
    /// Whether the line comes from a terminal. A terminal ends its lines with `\r\n`. The `\r` and the `\n` can be in different
    /// messages.
    pub(super) terminal: bool,
    /// Whether the line comes from a console's stream. In such a stream, there is a timestamp before each fragment.
    pub(super) console: bool,
    /// Whether the beginning of the line is missing.
    pub(super) headless: bool,
    pub(super) stream: LogStream,
}

impl Line {
    /// Returns the line as it is shown, cut at `max_line` bytes. `whole` is false if the line waits for its end.
    pub(super) fn finished(
        &self,
        redaction: &Redaction,
        whole: bool,
        max_line: usize,
    ) -> Cow<'_, str> {
        let start = self.raw.len() - after_timestamp(&self.raw).len();
        let end = self.raw.len().min(start + max_line);
        let mut rest = &self.raw[end..];
        if self.console {
            // The timestamp of the next fragment is not part of the text.
            rest = after_timestamp(rest);
        }
        if self.terminal {
            rest = rest.strip_suffix(b"\r").unwrap_or(rest);
        }
        let truncated = self.truncated || !rest.is_empty();
        let kept = match &self.raw[..end] {
            kept if truncated => &kept[..kept.len() - unfinished(kept)],
            [kept @ .., b'\r'] if self.terminal => kept,
            kept => kept,
        };
        if !redaction.is_on() {
            let line = lossy(kept);
            return if truncated {
                Cow::from(line.into_owned() + &cut_mark(max_line))
            } else {
                line
            };
        }
        let kept = if truncated || !whole {
            without_last_word(kept, start)
        } else {
            kept
        };
        let kept = match self.headless {
            true => String::from_utf8_lossy(&without_first_word(kept, start))
                .into_owned()
                .into(),
            false => lossy(kept),
        };
        let line = redacted(kept, redaction);
        if truncated {
            Cow::from(line.into_owned() + &cut_mark(max_line))
        } else {
            line
        }
    }
}

/// Works like [`String::from_utf8_lossy`], and needs a fraction of its time for a text that is valid, as almost all are.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// Redacts the text of a line. Does not change the timestamp.
fn redacted<'l>(line: Cow<'l, str>, redaction: &Redaction) -> Cow<'l, str> {
    let start = line.len() - after_timestamp(line.as_bytes()).len();
    match redaction.apply(line[start..].into()) {
        Cow::Borrowed(_) => line,
        Cow::Owned(text) => (line[..start].to_owned() + &text).into(),
    }
}

/// Returns the line without its last word. If the word is longer than [`MAX_WORD_BYTES`], removes only that many bytes. The word
/// can be half of a secret, which the redaction would not find. The text begins at `start`.
fn without_last_word(line: &[u8], start: usize) -> &[u8] {
    let nearest = line.len().saturating_sub(MAX_WORD_BYTES).max(start);
    let space = line[nearest..].iter().rposition(u8::is_ascii_whitespace);
    let end = nearest + space.unwrap_or(0);
    &line[..end - unfinished(&line[..end])]
}

/// Returns the line without the first word of its text. If the word is longer than [`MAX_WORD_BYTES`], removes only that many
/// bytes. The word can be half of a secret, which the redaction would not find. The text begins at `start`.
pub(super) fn without_first_word(line: &[u8], start: usize) -> Vec<u8> {
    let start = start.min(line.len());
    let text = &line[start..];
    let near = &text[..text.len().min(MAX_WORD_BYTES)];
    let end = near.iter().position(u8::is_ascii_whitespace);
    [&line[..start], &text[end.unwrap_or(near.len())..]].concat()
}

/// Whether a message `TIMESTAMP text` is a fragment of a line, and more fragments follow.
pub(super) fn is_fragment(message: &[u8]) -> bool {
    !message.ends_with(b"\n") && after_timestamp(message).len() >= MAX_LINE_BYTES
}

/// Returns the number of messages of the engine in a line of a console. Each fragment begins with the timestamp of the line. The
/// engine's fragments are longer than [`MAX_LINE_BYTES`] if it has replaced invalid bytes.
pub(super) fn fragments(line: &[u8]) -> usize {
    let text = after_timestamp(line);
    let timestamp = &line[..line.len() - text.len()];
    if timestamp.is_empty() {
        return 1;
    }
    let (mut text, mut count) = (text, 1);
    while let Some(further) = text.get(MAX_LINE_BYTES..)
        && let Some(at) = memmem::find(further, timestamp)
    {
        text = &further[at + timestamp.len()..];
        count += 1;
    }
    count
}

/// Returns the text after the timestamp and its space. If there is no timestamp, returns the whole message.
pub(super) fn after_timestamp(message: &[u8]) -> &[u8] {
    let head = &message[..message.len().min(MAX_TIMESTAMP_BYTES)];
    match head.iter().position(|byte| *byte == b' ') {
        Some(space) if head[..space].contains(&b'T') => &message[space + 1..],
        _ => message,
    }
}

/// Returns the number of bytes at the end that belong to an incomplete UTF-8 character.
fn unfinished(text: &[u8]) -> usize {
    let back = text.len().min(3);
    let end = &text[text.len() - back..];
    match end.iter().rposition(|byte| *byte >= 0xC0) {
        Some(start) => {
            let needed = match end[start] {
                0xF0.. => 4,
                0xE0.. => 3,
                _ => 2,
            };
            let have = back - start;
            if have < needed { have } else { 0 }
        }
        None => 0,
    }
}

/// Whether the text of a line, which is a JSON string `"TIMESTAMP text"`, matches. Without a regular expression, each line matches.
pub(super) fn matches(regex: Option<&regex::Regex>, line: &str) -> bool {
    let Some(regex) = regex else { return true };
    let line: String = serde_json::from_str(line).unwrap_or_default();
    let text = line.split_once(' ').map_or("", |(_, text)| text);
    regex.is_match(text)
}
