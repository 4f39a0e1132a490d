//! A part of a log: a range of a plain file, a compressed file, or bytes that were already read.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use super::offset::is_in;
use super::unpacked::Unpacked;
use crate::model::FileOffset;

/// A part of a log, up to the end of a file.
pub(super) enum LogPart {
    /// The bytes of a plain file from an offset to the end that its metadata has.
    Plain {
        file: Arc<File>,
        now: Box<Metadata>,
        from: u64,
    },
    /// The unpacked bytes of a compressed file, from an offset to the end.
    Compressed {
        log: Unpacked,
        from: u64,
        inode: u64,
    },
    /// Bytes that were already read. The part begins at the cursor.
    Read(io::Cursor<Vec<u8>>),
}

impl LogPart {
    /// Returns the number of bytes. Returns 0 for a compressed file, because its unpacked size is not known.
    pub(super) fn plain_bytes(&self) -> u64 {
        match self {
            Self::Plain { now, from, .. } => now.len().saturating_sub(*from),
            Self::Compressed { .. } => 0,
            Self::Read(new) => new.get_ref().len() as u64 - new.position(),
        }
    }

    /// Returns the inode number of the part's file. Returns 0 for bytes that were already read.
    pub(super) fn inode(&self) -> u64 {
        match self {
            Self::Plain { now, .. } => now.ino(),
            Self::Compressed { inode, .. } => *inode,
            Self::Read(_) => 0,
        }
    }

    /// Whether the offset `at` is in the part's file. Compares the inode number and the fingerprint, because a new file can have the
    /// inode number of a deleted file.
    pub(super) fn has(&self, at: &FileOffset) -> io::Result<bool> {
        let Self::Plain { file, now, .. } = self else {
            return Ok(false);
        };
        Ok(now.ino() == at.inode && is_in(at, file, now)?)
    }

    /// Returns the offset in the file at which the part begins. Returns 0 for bytes that were already read.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Plain { from, .. } | Self::Compressed { from, .. } => *from,
            Self::Read(_) => 0,
        }
    }

    /// Reads the part, and before it the last `before` bytes of the file before the part.
    pub(super) fn reader(self, before: usize) -> Box<dyn Read> {
        let before = before as u64;
        let begins_earlier = match self {
            Self::Plain { file, now, from } => {
                let from = from - before;
                Self::Plain { file, now, from }
            }
            Self::Compressed { log, from, inode } => {
                let from = from - before;
                Self::Compressed { log, from, inode }
            }
            Self::Read(mut new) => {
                new.set_position(new.position() - before);
                Self::Read(new)
            }
        };
        begins_earlier.split(u64::MAX).1
    }

    /// Splits the part in two pieces. The second piece has the last `parsed` bytes, which are parsed. The first piece has the
    /// earlier bytes, in which lines are only counted. If there are no earlier bytes, the first piece is none. A compressed file
    /// is not split. It is parsed, or, if `parsed` is 0, its lines are only counted.
    pub(super) fn split(self, parsed: u64) -> (Option<Box<dyn Read>>, Box<dyn Read>) {
        match self {
            Self::Plain { file, now, from } => {
                let to = now.len();
                let range = |at, to| Range {
                    file: Arc::clone(&file),
                    at,
                    to,
                };
                let middle = to.saturating_sub(parsed);
                if middle <= from {
                    return (None, Box::new(range(from, to)));
                }
                (
                    Some(Box::new(range(from, middle))),
                    Box::new(range(middle, to)),
                )
            }
            Self::Compressed { mut log, from, .. } => {
                // Skips the bytes before the offset. This copy cannot fail, because `Unpacked` returns no errors.
                let _ = io::copy(&mut (&mut log).take(from), &mut io::sink());
                if parsed == 0 {
                    return (Some(Box::new(log)), Box::new(io::empty()));
                }
                (None, Box::new(log))
            }
            // These bytes are few, so all of them are parsed.
            Self::Read(new) => (None, Box::new(new)),
        }
    }
}

/// The bytes of a file between two offsets.
struct Range {
    file: Arc<File>,
    at: u64,
    to: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let limit = buffer.len().min(left);
        if limit == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..limit], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
