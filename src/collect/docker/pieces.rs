//! Splits an answer into pieces while it arrives. A piece is an entry of a JSON list, or a line of the event stream.
//!
//! Memory never holds the whole answer. If a piece is longer than its limit, only the beginning of the piece is stored. Later
//! pieces are read normally.

use super::json::Nesting;

/// Number of bytes that are stored of a piece that is too long. The container's id is usually in these bytes.
const KEPT_BEGINNING: usize = 1024;

/// A piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Whole(&'a [u8]),
    /// The beginning of a piece that is longer than its limit.
    TooLong(&'a [u8]),
}

/// Why an answer is not a complete list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAList {
    #[error("the answer is not a list")]
    Other,
    #[error("the answer ends in the middle of the list")]
    TooShort,
}

/// The piece that is arriving.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    /// Number of bytes of the piece that have arrived, including bytes that were not stored.
    length: usize,
    limit: usize,
}

impl Pending {
    fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            length: 0,
            limit,
        }
    }

    fn push(&mut self, more: &[u8]) {
        let room = self.limit.saturating_sub(self.length);
        self.bytes.extend_from_slice(&more[..room.min(more.len())]);
        self.length = self.length.saturating_add(more.len());
    }

    /// Passes the piece to `each` and starts the next piece.
    fn take(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if self.length > self.limit {
            let beginning = KEPT_BEGINNING.min(self.bytes.len());
            each(Piece::TooLong(&self.bytes[..beginning]));
            // Such long pieces are rare, so their memory is freed.
            self.bytes = Vec::new();
        } else {
            each(Piece::Whole(self.bytes.trim_ascii()));
            self.bytes.clear();
        }
        self.length = 0;
    }
}

/// Splits a JSON list into its entries.
#[derive(Debug)]
pub(super) struct Entries {
    stage: Stage,
    nesting: Nesting,
    pending: Pending,
    /// Whether the list had an entry or a comma.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The list has not begun. The number counts the bytes of white space.
    Before(usize),
    /// Inside the word `null`, which some engines write for an empty list. The bytes are the expected end of the word.
    Null(&'static [u8]),
    Within,
    After,
}

impl Entries {
    /// Maximum number of bytes of white space before a list.
    const MAX_SPACE: usize = 1024;

    /// `limit` is the maximum length of an entry, in bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            stage: Stage::Before(0),
            nesting: Nesting::default(),
            pending: Pending::new(limit),
            begun: false,
        }
    }

    /// Takes the next bytes of the answer. Calls `each` for every entry that ends in these bytes.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Piece<'_>),
    ) -> Result<(), NotAList> {
        // Index of the first byte that is not in `pending` yet.
        let mut from = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            match self.stage {
                Stage::Within => {
                    let ends = self.nesting.is_outside() && matches!(byte, b',' | b']');
                    if !ends {
                        self.nesting.pass(byte);
                        continue;
                    }
                    self.pending.push(&bytes[from..at]);
                    from = at + 1;
                    self.begun |= byte == b',' || !self.pending.bytes.trim_ascii().is_empty();
                    if byte == b']' {
                        self.stage = Stage::After;
                    }
                    if self.begun {
                        self.pending.take(&mut each);
                    }
                }
                Stage::Before(space) => {
                    self.stage = match byte {
                        b'[' => Stage::Within,
                        b'n' => Stage::Null(b"ull"),
                        // These bytes are white space, or the byte order mark that some servers write before a text.
                        b' ' | b'\n' | b'\r' | b'\t' | 0xef | 0xbb | 0xbf
                            if space < Self::MAX_SPACE =>
                        {
                            Stage::Before(space + 1)
                        }
                        _ => return Err(NotAList::Other),
                    };
                    from = at + 1;
                }
                Stage::Null(rest) => {
                    self.stage = match rest.split_first() {
                        Some((first, [])) if *first == byte => Stage::After,
                        Some((first, rest)) if *first == byte => Stage::Null(rest),
                        _ => return Err(NotAList::Other),
                    };
                }
                // Bytes after the list are ignored.
                Stage::After => break,
            }
        }
        if self.stage == Stage::Within {
            self.pending.push(&bytes[from..]);
        }
        Ok(())
    }

    /// Whether the list is complete. Bytes after the list are ignored.
    pub(super) fn is_complete(&self) -> bool {
        self.stage == Stage::After
    }

    /// Checks at the end of the answer that the list is complete.
    pub(super) fn end(&self) -> Result<(), NotAList> {
        match self.stage {
            Stage::After => Ok(()),
            Stage::Before(_) => Err(NotAList::Other),
            Stage::Null(_) | Stage::Within => Err(NotAList::TooShort),
        }
    }
}

/// Splits a stream into its lines.
#[derive(Debug)]
pub(super) struct Lines(Pending);

impl Lines {
    /// `limit` is the maximum length of a line, in bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self(Pending::new(limit))
    }

    /// Takes the next bytes of the stream. Calls `each` for every line that ends in these bytes, except for empty lines.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.0.push(&rest[..end]);
            rest = &rest[end + 1..];
            self.0.take(|line| {
                if line != Piece::Whole(b"") {
                    each(line);
                }
            });
        }
        self.0.push(rest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Entries, Lines, NotAList, Piece};

    /// Splits an answer that arrives in chunks of `chunk` bytes into its entries. `…` stands for an entry that is too long.
    fn entries(answer: &[u8], chunk: usize) -> Result<Vec<String>, NotAList> {
        let mut entries = Entries::new(20);
        let mut found = Vec::new();
        for chunk in answer.chunks(chunk) {
            entries.push(chunk, |piece| found.push(shown(piece)))?;
        }
        entries.end()?;
        Ok(found)
    }

    fn shown(piece: Piece<'_>) -> String {
        match piece {
            Piece::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Piece::TooLong(_) => "…".to_owned(),
        }
    }

    #[test]
    fn a_list_is_split_into_its_entries_with_chunks_of_any_size() {
        for (answer, expected) in [
            (
                &br#"[{"a":1},{"b":[2,3]}]"#[..],
                &[r#"{"a":1}"#, r#"{"b":[2,3]}"#][..],
            ),
            (b" [ 1 , \"x,]\" , null ]\n", &["1", "\"x,]\"", "null"]),
            (br#"["\"],",2]"#, &[r#""\"],""#, "2"]),
            (b"[]", &[]),
            (b" [ ] ", &[]),
            (b"null", &[]),
            (b"\xef\xbb\xbf[1]", &["1"]),
            (b"[,1,]", &["", "1", ""]),
            (br#"[1,{"long":"0123456789012345"},2]"#, &["1", "…", "2"]),
            (
                b"[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]],3]",
                &["…", "3"],
            ),
            (b"[1]{\"more\":[2]}", &["1"]),
        ] {
            for chunk in [1, 2, 3, 7, 1000] {
                let found = entries(answer, chunk).unwrap();
                assert_eq!(found, expected, "{answer:?} by {chunk}");
            }
        }
    }

    #[test]
    fn an_answer_that_is_not_a_list_differs_from_an_incomplete_list() {
        for other in [
            &b"<html>[1]"[..],
            b"",
            b"{}",
            b"\x1f\x8b",
            b"nil",
            &[b' '; 2000],
        ] {
            assert_eq!(entries(other, 3), Err(NotAList::Other), "{other:?}");
        }
        for short in [&b"["[..], b"[1", b"[1,", b"[{\"a\":\"]", b"nul"] {
            assert_eq!(entries(short, 3), Err(NotAList::TooShort), "{short:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_does_not_affect_other_lines() {
        let text = b"{1}\r\n\n0123456789012345678901234567890123456789\n {2}\nunfinished";
        for chunk in [1, 2, 5, 1000] {
            let mut lines = Lines::new(20);
            let mut found = Vec::new();
            for chunk in text.chunks(chunk) {
                lines.push(chunk, |piece| found.push(shown(piece)));
            }
            assert_eq!(found, ["{1}", "…", "{2}"]);
            assert!(lines.0.bytes.capacity() < 64);
        }
    }

    #[test]
    fn fuzz_pieces() {
        let seeds: [&[u8]; 3] = [
            br#"[{"Id":"0123","Names":["/a"]},{"b":"\"]"},[1,[2]],null]"#,
            b"{\"a\":1}\n{\"b\":2}\r\n",
            b" \xef\xbb\xbf[[[]],{}]",
        ];
        crate::fuzzing::run("pieces", &seeds, |bytes| {
            let mut counts = [0, 0, 0];
            for (count, chunk) in counts.iter_mut().zip([1, 3, usize::MAX]) {
                let mut entries = Entries::new(64 * 1024);
                let complete = bytes
                    .chunks(chunk)
                    .try_for_each(|chunk| entries.push(chunk, |_| *count += 1));
                let complete = complete.and_then(|()| entries.end()).is_ok();
                if let Ok(Value::Array(strict)) = serde_json::from_slice(bytes) {
                    assert!(complete && *count == strict.len());
                }
                let mut lines = Lines::new(50);
                bytes.chunks(chunk).for_each(|chunk| {
                    lines.push(chunk, |piece| match piece {
                        Piece::Whole(line) | Piece::TooLong(line) => assert!(line.len() <= 50),
                    });
                });
            }
            assert!(counts.iter().all(|count| *count == counts[0]));
        });
    }
}
