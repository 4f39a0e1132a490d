//! Cuts an answer into the pieces that are read each by itself, while it arrives: entries of a list, or lines.
//!
//! An answer is never whole in memory. A piece beyond its bound is passed over, and the pieces after it are read.

use super::json::Nesting;

/// Of a piece that is too long this much is kept, so that its id can be told.
const BEGINNING: usize = 1024;

/// A piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Whole(&'a [u8]),
    /// The beginning of one that is longer than its bound.
    TooLong(&'a [u8]),
}

/// Why an answer is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAList {
    #[error("the answer is not a list")]
    Other,
    #[error("the answer ends before its list does")]
    TooShort,
}

/// A piece while it arrives.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    /// How much of it has come, kept or not.
    length: usize,
    most: usize,
}

impl Pending {
    fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            length: 0,
            most,
        }
    }

    fn push(&mut self, more: &[u8]) {
        let room = self.most.saturating_sub(self.length);
        self.bytes.extend_from_slice(&more[..room.min(more.len())]);
        self.length = self.length.saturating_add(more.len());
    }

    /// Gives away what has come, and begins the next one.
    fn take(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if self.length > self.most {
            let beginning = BEGINNING.min(self.bytes.len());
            each(Piece::TooLong(&self.bytes[..beginning]));
            // One of that size is rare: its memory is not kept.
            self.bytes = Vec::new();
        } else {
            each(Piece::Whole(self.bytes.trim_ascii()));
            self.bytes.clear();
        }
        self.length = 0;
    }
}

/// The entries of a JSON list.
#[derive(Debug)]
pub(super) struct Entries {
    stage: Stage,
    nesting: Nesting,
    pending: Pending,
    /// Whether there was an entry, or a comma.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the list, with how many bytes of white space.
    Before(usize),
    /// In the word `null`, which some engines write for an empty list, with what is left of it.
    Null(&'static [u8]),
    Within,
    After,
}

impl Entries {
    /// The most white space before a list.
    const MOST_SPACE: usize = 1024;

    /// Of entries of at most so many bytes each.
    pub(super) fn new(most: usize) -> Self {
        Self {
            stage: Stage::Before(0),
            nesting: Nesting::default(),
            pending: Pending::new(most),
            begun: false,
        }
    }

    /// Takes the next bytes, and gives away the entries that end in them.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Piece<'_>),
    ) -> Result<(), NotAList> {
        // Where the part of the pending entry that is not yet kept begins.
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
                        // White space, and the mark that some servers put before a text.
                        b' ' | b'\n' | b'\r' | b'\t' | 0xef | 0xbb | 0xbf
                            if space < Self::MOST_SPACE =>
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
                // Whatever follows is no part of the list.
                Stage::After => break,
            }
        }
        if self.stage == Stage::Within {
            self.pending.push(&bytes[from..]);
        }
        Ok(())
    }

    /// Whether nothing that follows matters.
    pub(super) fn is_complete(&self) -> bool {
        self.stage == Stage::After
    }

    /// The answer has ended.
    pub(super) fn end(&self) -> Result<(), NotAList> {
        match self.stage {
            Stage::After => Ok(()),
            Stage::Before(_) => Err(NotAList::Other),
            Stage::Null(_) | Stage::Within => Err(NotAList::TooShort),
        }
    }
}

/// The lines of a stream.
#[derive(Debug)]
pub(super) struct Lines(Pending);

impl Lines {
    /// Of at most so many bytes each.
    pub(super) fn new(most: usize) -> Self {
        Self(Pending::new(most))
    }

    /// Takes the next bytes, and gives away the lines that end in them, but for empty ones.
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

    /// The entries, with `…` for one that is too long, of an answer that comes in chunks of this size.
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
    fn a_list_is_cut_into_its_entries_wherever_chunks_end() {
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
    fn what_is_no_list_is_told_from_one_that_is_cut_short() {
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
    fn a_line_that_is_too_long_costs_no_other() {
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
