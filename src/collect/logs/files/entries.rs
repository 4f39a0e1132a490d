//! Finds entries in log files, and counts line ends. It does not merge the fragments of long lines.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::format::Format;
use crate::collect::logs::entry::MAX_ENTRY_BYTES;

/// Limit on the bytes of a log that one reading parses. In older bytes, the reading only counts lines. The limit is six times the
/// text that the agent stores of a container, because an escaped byte has six bytes in JSON.
pub(super) const MAX_PARSED_BYTES: u64 = 6 * 1024 * 1024;
/// Number of bytes that are read from a log at a time.
pub(super) const CHUNK: usize = 64 * 1024;
/// Number of bytes at the end of a log that the first search covers. Each later search covers four times as many bytes.
const FIRST_LOOK: u64 = 32 * 1024;

/// Counts the line ends in entries that arrive in pieces.
pub(super) struct LineEnds {
    format: Format,
    found: usize,
    /// The unfinished entry at the end of the previous piece.
    rest: Vec<u8>,
}

impl LineEnds {
    /// Begins to count after `rest`, which contains the beginning of an entry.
    pub(super) fn after(format: Format, rest: &[u8]) -> Self {
        Self {
            format,
            found: 0,
            rest: rest.to_owned(),
        }
    }

    /// Returns the number of line ends so far.
    pub(super) fn found(&self) -> usize {
        self.found
    }

    /// Counts the line ends in the complete entries of `rest`, and removes these entries.
    fn take_entries(&mut self) {
        let whole = self.format.whole(&self.rest);
        self.found += self.format.line_ends(&self.rest[..whole]);
        self.rest.drain(..whole);
        if self.rest.len() > MAX_ENTRY_BYTES {
            // This is not a valid entry.
            self.rest.clear();
        }
    }

    /// Counts the line ends up to the end of `entries`.
    pub(super) fn count(&mut self, mut entries: impl Read) -> io::Result<()> {
        while read_chunk(&mut entries, &mut self.rest)? > 0 {
            self.take_entries();
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
        loop {
            if !self.rest.is_empty()
                && let Some(end) = self.format.entry_end(&self.rest, 0)
            {
                *rest = self.rest.split_off(end);
                self.take_entries();
                return Ok(());
            }
            if self.rest.len() > MAX_ENTRY_BYTES {
                self.rest.clear();
            }
            if read_chunk(&mut entries, &mut self.rest)? == 0 {
                return Ok(());
            }
        }
    }
}

/// Appends the next [`CHUNK`] bytes to `into`. Returns their number, which is 0 at the end.
pub(super) fn read_chunk(entries: &mut impl Read, into: &mut Vec<u8>) -> io::Result<usize> {
    read_up_to(entries, CHUNK, into)
}

/// Appends the next bytes to `into`, up to `limit` bytes. Returns their number, which is 0 at the end.
pub(super) fn read_up_to(
    entries: &mut impl Read,
    limit: usize,
    into: &mut Vec<u8>,
) -> io::Result<usize> {
    // Without this, `read_to_end` reads into buffers that begin with 32 bytes and double with each read.
    into.reserve(limit);
    entries.take(limit as u64).read_to_end(into)
}

/// Returns whole entries at the end of a file, and the number of line ends in them. Searches backwards. The search ends when it
/// has found `wanted` line ends, at the beginning of the file, or at [`MAX_PARSED_BYTES`].
pub(super) fn last_entries(
    format: Format,
    file: &File,
    size: u64,
    wanted: usize,
) -> io::Result<(Vec<u8>, usize)> {
    let mut look = FIRST_LOOK;
    loop {
        let from = size.saturating_sub(look);
        let mut chunk = Vec::new();
        read_range(file, from, size, &mut chunk)?;
        if from > 0 {
            // The chunk can begin in the middle of an entry. The rest of this entry is removed.
            let begin = format.entry_begin(&chunk);
            chunk.drain(..begin.unwrap_or(chunk.len()));
        }
        let ends = format.line_ends(&chunk);
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
