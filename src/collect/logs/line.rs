//! One line of a log: what is kept of it, and how it is shown.

use std::borrow::Cow;

use crate::settings::Redaction;

/// The longest text of a line, in bytes, without its timestamp. The engine's fragments are as
/// long (longer, where it has replaced bytes), so that the first one fills a line that is cut.
pub(super) const LONGEST_LINE: usize = 16 * 1024;
/// The longest timestamp with its space: `2024-01-01T12:00:00.123456789+01:00 `.
pub(super) const LONGEST_TIMESTAMP: usize = 36;
/// What is kept of a line: its timestamp, its text and, of a console's, the timestamp in between
/// and one byte more, which tell whether there is more text.
pub(super) const MOST_OF_A_LINE: usize = LONGEST_LINE + 2 * LONGEST_TIMESTAMP + 1;
/// How much of a line that was cut is left out at most, so that no half of a secret is shown, in bytes.
const LONGEST_WORD: usize = 4 * 1024;
/// What a line that was cut ends with.
pub(super) const CUT: &str = " … [line cut at 16 KiB]";

/// A line that was not shown yet, or waits for its end.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// `TIMESTAMP text`, without the end of the line.
    pub(super) raw: Vec<u8>,
    /// Whether it had more than is kept.
    pub(super) cut: bool,
    /// Whether it is a terminal's, which ends its lines with `\r\n`; the halves may be in two
    /// messages.
    pub(super) terminal: bool,
    /// Whether it is a console's, with its fragments' timestamps in between.
    pub(super) console: bool,
    /// Whether its beginning is out of reach.
    pub(super) headless: bool,
}

impl Line {
    /// As it is shown, whether it is `whole` or waits for its end.
    pub(super) fn finished(&self, redaction: &Redaction, whole: bool) -> Cow<'_, str> {
        let start = self.raw.len() - after_timestamp(&self.raw).len();
        let end = self.raw.len().min(start + LONGEST_LINE);
        let mut rest = &self.raw[end..];
        if self.console {
            // The next fragment's timestamp is no text.
            rest = after_timestamp(rest);
        }
        if self.terminal {
            rest = rest.strip_suffix(b"\r").unwrap_or(rest);
        }
        let cut = self.cut || !rest.is_empty();
        let kept = match &self.raw[..end] {
            kept if cut => &kept[..kept.len() - unfinished(kept)],
            [kept @ .., b'\r'] if self.terminal => kept,
            kept => kept,
        };
        if !redaction.is_on() {
            let line = String::from_utf8_lossy(kept);
            return if cut { line + CUT } else { line };
        }
        let kept = if cut || !whole {
            without_last_word(kept, start)
        } else {
            kept
        };
        let kept = match self.headless {
            true => String::from_utf8_lossy(&without_first_word(kept, start))
                .into_owned()
                .into(),
            false => String::from_utf8_lossy(kept),
        };
        let line = redacted(kept, redaction);
        if cut { line + CUT } else { line }
    }
}

/// A line without what is taken out of its text.
fn redacted<'l>(line: Cow<'l, str>, redaction: &Redaction) -> Cow<'l, str> {
    let start = line.len() - after_timestamp(line.as_bytes()).len();
    match redaction.apply(line[start..].into()) {
        Cow::Borrowed(_) => line,
        Cow::Owned(text) => (line[..start].to_owned() + &text).into(),
    }
}

/// A line up to its last white space, as far as that is near its end: what follows may be half of what would be taken out as
/// a whole. `start` is where its text begins.
fn without_last_word(line: &[u8], start: usize) -> &[u8] {
    let nearest = line.len().saturating_sub(LONGEST_WORD).max(start);
    let space = line[nearest..].iter().rposition(u8::is_ascii_whitespace);
    let end = nearest + space.unwrap_or(0);
    &line[..end - unfinished(&line[..end])]
}

/// A line without what its text begins with, up to the first white space as far as that is near: it may be half of what would be
/// taken out as a whole.
fn without_first_word(line: &[u8], start: usize) -> Vec<u8> {
    let start = start.min(line.len());
    let text = &line[start..];
    let near = &text[..text.len().min(LONGEST_WORD)];
    let end = near.iter().position(u8::is_ascii_whitespace);
    [&line[..start], &text[end.unwrap_or(near.len())..]].concat()
}

/// Whether a message `TIMESTAMP text` is a piece of a line, of which more follows.
pub(super) fn is_fragment(message: &[u8]) -> bool {
    !message.ends_with(b"\n") && after_timestamp(message).len() >= LONGEST_LINE
}

/// What follows the timestamp and its space; all of it where there is none.
pub(super) fn after_timestamp(message: &[u8]) -> &[u8] {
    let head = &message[..message.len().min(LONGEST_TIMESTAMP)];
    match head.iter().position(|byte| *byte == b' ') {
        Some(space) if head[..space].contains(&b'T') => &message[space + 1..],
        _ => message,
    }
}

/// How many bytes at the end begin a UTF-8 character without ending it.
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
