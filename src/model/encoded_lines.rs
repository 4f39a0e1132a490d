//! Log lines as JSON text. Each log line is encoded once, when it is read.

use std::fmt::Write as _;
use std::ops::Range;

use super::{LogStream, StderrLines};

/// Log lines as JSON. Each log line is encoded only once, because the next reading and each snapshot copy the encoded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedLines {
    /// A JSON array of strings.
    json: Box<str>,
    /// The offset in `json` at which each log line starts. One more entry comes after the final log line. Between two entries
    /// there is a log line, and the comma or bracket after it.
    begins: Box<[u32]>,
    /// The log lines that come from stderr. On the wire, there is no such information.
    stderr: StderrLines,
    /// The number of log lines, at the end, that are not finished yet. A container can write a long log line in several pieces.
    open: usize,
}

/// Builds [`EncodedLines`] line by line.
#[derive(Debug)]
pub struct LinesBuilder {
    json: String,
    begins: Vec<u32>,
    stderr: StderrLines,
}

impl Default for LinesBuilder {
    fn default() -> Self {
        Self {
            json: "[".to_owned(),
            begins: vec![1],
            stderr: StderrLines::default(),
        }
    }
}

impl LinesBuilder {
    /// Adds a log line that has no character that JSON must escape: not `"`, `\\` or a control character. The log line is the
    /// concatenation of `parts`.
    pub fn push_plain(&mut self, parts: [&str; 3], stream: LogStream) {
        if stream == LogStream::Stderr {
            self.stderr.insert(self.count());
        }
        self.json.push('"');
        for part in parts {
            self.json.push_str(part);
        }
        self.json.push('"');
        self.end_line();
    }

    /// Adds log lines that are already encoded.
    pub fn extend(&mut self, lines: &EncodedLines) {
        self.stderr
            .extend(self.count(), &lines.stderr, 0..lines.count());
        for line in lines.iter() {
            self.json.push_str(line);
            self.end_line();
        }
    }

    /// Returns the number of log lines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.begins.len() - 1
    }

    /// Returns the number of bytes of all log lines.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.json.len()
    }

    /// Finishes the log lines. The last `open` log lines are not finished yet.
    #[must_use]
    pub fn finish(mut self, open: usize) -> EncodedLines {
        if self.count() > 0 {
            self.json.pop();
        }
        self.json.push(']');
        self.stderr.shrink();
        EncodedLines {
            json: self.json.into(),
            begins: self.begins.into(),
            stderr: self.stderr,
            open,
        }
    }

    fn end_line(&mut self) {
        self.json.push(',');
        self.begins
            .push(u32::try_from(self.json.len()).unwrap_or(u32::MAX));
    }
}

impl EncodedLines {
    /// Joins old and new log lines. The old log lines are the range `kept` of `before`, and only their encoded text is copied.
    /// The new log lines are `lines`. Those in `stderr`, by their index in `lines`, come from stderr. The final `open` log lines are
    /// not finished yet.
    #[must_use]
    pub fn following(
        before: &Self,
        kept: Range<usize>,
        lines: &[impl AsRef<str>],
        stderr: &StderrLines,
        open: usize,
    ) -> Self {
        let (copied, begin) = (before.text(kept.clone()), before.begin(kept.start));
        let text: usize = lines.iter().map(|line| line.as_ref().len()).sum();
        let escapes: usize = lines.iter().map(|line| escapes_in(line.as_ref())).sum();
        // This is the exact length, so the conversion to `Box<str>` does not copy the text. Each line has two quotation marks, and a comma or
        // bracket after it.
        let length =
            copied.len() + usize::from(!kept.is_empty()) + text + escapes + lines.len() * 3;
        let mut json = String::with_capacity(length + 1 + usize::from(length == 0));
        let mut begins = Vec::with_capacity(lines.len());
        json.push('[');
        if !kept.is_empty() {
            json.push_str(copied);
            json.push(',');
        }
        for line in lines {
            json.push('"');
            match escapes {
                0 => json.push_str(line.as_ref()),
                _ => push_escaped(&mut json, line.as_ref()),
            }
            json.push('"');
            json.push(',');
            begins.push(u32::try_from(json.len()).unwrap_or(u32::MAX));
        }
        let mut all_stderr = StderrLines::default();
        all_stderr.extend(0, &before.stderr, kept.clone());
        all_stderr.extend(kept.len(), stderr, 0..lines.len());
        all_stderr.shrink();
        let moved = |at: &u32| at + 1 - begin as u32;
        let before = before.begins[kept.start..=kept.end].iter().map(moved);
        let begins: Box<[u32]> = before.chain(begins).collect();
        if begins.len() > 1 {
            json.pop();
        }
        json.push(']');
        Self {
            json: json.into(),
            begins,
            stderr: all_stderr,
            open,
        }
    }

    /// Returns the log lines, each as a JSON string.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        (0..self.count()).map(|line| self.text(line..line + 1))
    }

    /// Returns the number of log lines.
    pub(super) fn count(&self) -> usize {
        self.begins.len() - 1
    }

    /// Returns all log lines as a JSON array of strings.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// Returns the number of log lines, at the end, that are not finished yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Returns the stream of the log line with an index.
    #[must_use]
    pub fn stream_of(&self, line: usize) -> LogStream {
        self.stderr.stream_of(line)
    }

    /// Returns the JSON strings of a range of log lines, separated by commas.
    pub(super) fn text(&self, lines: Range<usize>) -> &str {
        let text = match lines.is_empty() {
            true => None,
            // Leaves out the comma or bracket after the final log line.
            false => self
                .json
                .get(self.begin(lines.start)..self.begin(lines.end) - 1),
        };
        text.unwrap_or_default()
    }

    /// Returns the offset in `json` at which a log line starts.
    fn begin(&self, line: usize) -> usize {
        self.begins.get(line).map_or(0, |begin| *begin as usize)
    }
}

/// Returns by how many bytes a text becomes longer when it is encoded as a JSON string. Does not count the quotation marks.
fn escapes_in(text: &str) -> usize {
    // There is no branch in the loop, so that the compiler uses vector instructions.
    let longer = |byte: u8| {
        let is_control = byte < b' ';
        let has_letter = (8..=13).contains(&byte) & (byte != 11);
        let is_special = (byte == b'"') | (byte == b'\\') | has_letter;
        usize::from(is_special) + 5 * usize::from(is_control & !has_letter)
    };
    text.bytes().map(longer).sum()
}

/// Appends a text with the escapes of JSON, as `serde_json` writes them.
fn push_escaped(json: &mut String, text: &str) {
    let mut rest = text;
    let must_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    while let Some(place) = rest.bytes().position(must_escape) {
        let (before, after) = rest.split_at(place);
        json.push_str(before);
        match after.as_bytes()[0] {
            b'"' => json.push_str("\\\""),
            b'\\' => json.push_str("\\\\"),
            b'\x08' => json.push_str("\\b"),
            b'\t' => json.push_str("\\t"),
            b'\n' => json.push_str("\\n"),
            b'\x0c' => json.push_str("\\f"),
            b'\r' => json.push_str("\\r"),
            control => {
                // Writing text to memory never fails.
                let _ = write!(json, "\\u{control:04x}");
            }
        }
        rest = &after[1..];
    }
    json.push_str(rest);
}

impl Default for EncodedLines {
    fn default() -> Self {
        Self {
            json: "[]".into(),
            begins: [1].into(),
            stderr: StderrLines::default(),
            open: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{EncodedLines, LinesBuilder, escapes_in};
    use crate::model::LogStream::{self, Stderr, Stdout};

    fn encoded(lines: &[(&str, LogStream)], open: usize) -> EncodedLines {
        following(&EncodedLines::default(), 0..0, lines, open)
    }

    fn following(
        before: &EncodedLines,
        kept: Range<usize>,
        lines: &[(&str, LogStream)],
        open: usize,
    ) -> EncodedLines {
        let texts: Vec<&str> = lines.iter().map(|(text, _)| *text).collect();
        let stderr = lines.iter().map(|(_, stream)| *stream).collect();
        EncodedLines::following(before, kept, &texts, &stderr, open)
    }

    /// Returns the text and the stream of each log line.
    fn shown(lines: &EncodedLines) -> Vec<(String, LogStream)> {
        let texts = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        let streams = (0..lines.count()).map(|line| lines.stream_of(line));
        texts.zip(streams).collect()
    }

    #[test]
    fn built_log_lines_equal_encoded_log_lines() {
        let mut builder = LinesBuilder::default();
        assert_eq!(LinesBuilder::default().finish(0), EncodedLines::default());
        builder.push_plain(["a", " ", "b"], Stderr);
        builder.extend(&encoded(&[("\"c\n", Stdout), ("ä", Stderr)], 0));
        builder.push_plain(["", "", ""], Stdout);
        assert_eq!(builder.count(), 4);
        let all = [
            ("a b", Stderr),
            ("\"c\n", Stdout),
            ("ä", Stderr),
            ("", Stdout),
        ];
        let built = builder.finish(1);
        assert_eq!(built, encoded(&all, 1));
        let all = all.map(|(text, stream)| (text.to_owned(), stream));
        assert_eq!(shown(&built), all);
    }

    #[test]
    fn the_json_text_does_not_depend_on_the_streams() {
        let stdout = encoded(&[("a", Stdout), ("b", Stdout)], 0);
        let mixed = encoded(&[("a", Stdout), ("b", Stderr)], 0);
        assert_ne!(stdout, mixed);
        assert_eq!(stdout.json(), mixed.json());
    }

    #[test]
    fn each_character_is_encoded_as_by_serde_json() {
        for character in (0..=0x2ff).chain([0x2028, 0xfffd, 0x1f600]) {
            let character = char::from_u32(character).unwrap();
            for text in [String::from(character), format!("before {character} after")] {
                let lines = encoded(&[(&text, Stdout)], 0);
                assert_eq!(lines.json(), serde_json::to_string(&[&text]).unwrap());
                assert_eq!(escapes_in(&text), lines.json().len() - text.len() - 4);
            }
        }
    }

    #[test]
    fn copied_log_lines_equal_newly_encoded_log_lines() {
        let all = [
            ("a", Stdout),
            ("b\n\"", Stderr),
            ("", Stderr),
            ("ä\u{1}", Stdout),
            ("e", Stderr),
        ];
        for count in 0..=all.len() {
            let before = encoded(&all[..count], 0);
            for from in 0..=count {
                for to in from..=count {
                    for more in 0..=all.len() - to {
                        let new = &all[to..to + more];
                        let followed = following(&before, from..to, new, 1);
                        let expected = &all[from..to + more];
                        assert_eq!(followed, encoded(expected, 1), "{count} {from} {to} {more}");
                        let expected = expected.iter();
                        let expected = expected.map(|(text, stream)| ((*text).to_owned(), *stream));
                        assert_eq!(shown(&followed), expected.collect::<Vec<_>>());
                    }
                }
            }
        }
    }
}
