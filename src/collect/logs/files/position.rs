//! Records how far the newest file of a log was read. Detects whether the file has only grown after that.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::entries::{CHUNK, read_range};
use super::offset::{beginning_of, bytes_before, fingerprint};
use super::part::LogPart;
use crate::model::FileOffset;

/// How far the newest file of a log was read. The agent looks at the file without opening it. So a container that
/// logs nothing costs one system call per round.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) at: FileOffset,
    /// When the file was last modified: seconds and nanoseconds.
    written: (i64, i64),
    /// The unfinished entry at the end of the file.
    pub(super) rest: Vec<u8>,
}

/// The new bytes of a file. They are read together with the fingerprint before them, to save a system call.
pub(super) struct Growth {
    /// The bytes of the fingerprint, followed by the new bytes.
    bytes: Vec<u8>,
    /// The number of bytes of the fingerprint.
    before: usize,
}

impl Position {
    /// Returns the position at the end of a file. `rest` is the unfinished entry there.
    pub(super) fn at_end(now: &Metadata, fingerprint: u32, rest: Vec<u8>) -> Self {
        Self {
            at: FileOffset {
                inode: now.ino(),
                offset: now.len(),
                fingerprint,
            },
            written: written(now),
            rest,
        }
    }

    /// Whether a file is the same as at the previous reading.
    pub(super) fn is_at(&self, now: &Metadata) -> bool {
        (self.at.inode, self.at.offset, self.written) == (now.ino(), now.len(), written(now))
    }
}

impl Growth {
    /// Reads the new bytes of a file. Returns none if there are more new bytes than [`CHUNK`], or if the file was replaced or
    /// emptied.
    pub(super) fn read(at: &Position, file: &File, now: &Metadata) -> io::Result<Option<Self>> {
        let at = &at.at;
        let new = now.len().checked_sub(at.offset);
        let new = new.filter(|new| (1..=CHUNK as u64).contains(new) && at.inode == now.ino());
        let Some(new) = new else { return Ok(None) };
        let before = bytes_before(at.offset);
        let mut bytes = Vec::with_capacity(before + new as usize);
        let from = at.offset - before as u64;
        let read = read_range(file, from, now.len(), &mut bytes)?;
        let known = match at.offset {
            0 => beginning_of(now).fingerprint,
            _ => fingerprint(&bytes[..before]),
        };
        let whole = read == before as u64 + new && known == at.fingerprint;
        Ok(whole.then_some(Self { bytes, before }))
    }

    /// Returns the fingerprint for the next position.
    pub(super) fn fingerprint(&self) -> u32 {
        fingerprint(&self.bytes)
    }

    pub(super) fn part(self) -> LogPart {
        let mut new = io::Cursor::new(self.bytes);
        new.set_position(self.before as u64);
        LogPart::Read(new)
    }
}

fn written(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}
