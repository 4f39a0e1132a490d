//! Records how far the newest file of a log was read. Detects whether the file has only grown after that.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::entries::{CHUNK, read_range};
use super::part::LogPart;

/// Number of bytes before the position that the agent stores. They show whether a file was emptied and has grown again.
const FINGERPRINT_BYTES: u64 = 64;

/// How far the newest file of a log was read. The agent does not keep the file open, and opens it again when it has grown. So a
/// container that logs nothing costs one system call per round. No container costs a file descriptor.
#[derive(Debug)]
pub(super) struct Position {
    inode: u64,
    pub(super) offset: u64,
    /// The bytes before the offset. A file that was emptied and has grown again has other bytes there.
    pub(super) fingerprint: Vec<u8>,
    /// When the file was last modified: seconds and nanoseconds.
    written: (i64, i64),
    /// The unfinished entry at the end of the file.
    pub(super) rest: Vec<u8>,
}

/// The new bytes of a file. They are read together with the fingerprint before them, to save a system call.
pub(super) struct Growth {
    /// The fingerprint, followed by the new bytes.
    bytes: Vec<u8>,
    /// The length of the fingerprint.
    fingerprint: usize,
}

impl Position {
    /// Returns the position at the end of a file. `rest` is the unfinished entry there.
    pub(super) fn at_end(now: &Metadata, fingerprint: Vec<u8>, rest: Vec<u8>) -> Self {
        Self {
            inode: now.ino(),
            offset: now.len(),
            fingerprint,
            written: written(now),
            rest,
        }
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Reads the last bytes before an offset. These bytes are the end of an entry, and usually no other entry has the same bytes.
    pub(super) fn fingerprint_of(file: &File, offset: u64) -> io::Result<Vec<u8>> {
        let mut fingerprint = Vec::with_capacity(FINGERPRINT_BYTES as usize);
        read_range(
            file,
            offset.saturating_sub(FINGERPRINT_BYTES),
            offset,
            &mut fingerprint,
        )?;
        Ok(fingerprint)
    }

    /// Whether a file is the same as at the previous reading.
    pub(super) fn is_at(&self, now: &Metadata) -> bool {
        (self.inode, self.offset, self.written) == (now.ino(), now.len(), written(now))
    }

    /// Whether a file has the same bytes before this position. If there are no such bytes, compares the inodes.
    pub(super) fn is_in(&self, file: &File, now: &Metadata) -> io::Result<bool> {
        if self.fingerprint.is_empty() {
            return Ok(self.inode == now.ino());
        }
        Ok(
            self.offset <= now.len()
                && self.fingerprint == Self::fingerprint_of(file, self.offset)?,
        )
    }
}

impl Growth {
    /// Reads the new bytes of a file. Returns none if there are more new bytes than [`CHUNK`], or if the file was replaced or
    /// emptied.
    pub(super) fn read(at: &Position, file: &File, now: &Metadata) -> io::Result<Option<Self>> {
        let new = now.len().checked_sub(at.offset);
        let new = new.filter(|new| *new <= CHUNK as u64 && at.inode == now.ino());
        let Some(new) = new else { return Ok(None) };
        let fingerprint = at.fingerprint.len();
        let mut bytes = Vec::with_capacity(fingerprint + new as usize);
        let from = at.offset - fingerprint as u64;
        let read = read_range(file, from, now.len(), &mut bytes)?;
        let whole = read == fingerprint as u64 + new && bytes.starts_with(&at.fingerprint);
        Ok(whole.then_some(Self { bytes, fingerprint }))
    }

    /// Returns the fingerprint for the next position.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let before = self.bytes.len().saturating_sub(FINGERPRINT_BYTES as usize);
        self.bytes[before..].to_vec()
    }

    pub(super) fn part(self) -> LogPart {
        let mut new = io::Cursor::new(self.bytes);
        new.set_position(self.fingerprint as u64);
        LogPart::Read(new)
    }
}

fn written(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}
