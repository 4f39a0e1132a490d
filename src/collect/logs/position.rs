//! How far the newest file of a log has been read.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::entries::{CHUNK, read_range};
use super::part::LogPart;

/// How much is kept to tell growth from a file that was emptied and has grown again.
const SEAM: u64 = 64;

/// How far the newest file has been read. It is opened anew when it has grown: a container that
/// logs nothing costs one system call a round, and none costs a descriptor.
#[derive(Debug)]
pub(super) struct Position {
    inode: u64,
    pub(super) offset: u64,
    /// What stands before the offset, and when the file was written to last: a file that was
    /// emptied and has grown again has other contents there.
    pub(super) seam: Vec<u8>,
    written: (i64, i64),
    /// An entry whose end was not written yet.
    pub(super) rest: Vec<u8>,
}

/// What a file has more than before, where that is as little as most often: read at once with the
/// seam that it follows.
pub(super) struct Growth {
    bytes: Vec<u8>,
    seam: usize,
}

impl Position {
    /// At the end of a file. `rest` is an entry whose end was not written yet.
    pub(super) fn at_end(now: &Metadata, seam: Vec<u8>, rest: Vec<u8>) -> Self {
        Self {
            inode: now.ino(),
            offset: now.len(),
            seam,
            written: written(now),
            rest,
        }
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// The last bytes before an offset: an entry's end, whose timestamp is like no other's.
    pub(super) fn seam_of(file: &File, offset: u64) -> io::Result<Vec<u8>> {
        let mut seam = Vec::with_capacity(SEAM as usize);
        read_range(file, offset.saturating_sub(SEAM), offset, &mut seam)?;
        Ok(seam)
    }

    /// Whether a file is as it was when it was read last.
    pub(super) fn is_at(&self, now: &Metadata) -> bool {
        (self.inode, self.offset, self.written) == (now.ino(), now.len(), written(now))
    }

    /// Whether a file has the contents that stand before this position.
    pub(super) fn is_in(&self, file: &File, now: &Metadata) -> io::Result<bool> {
        if self.seam.is_empty() {
            return Ok(self.inode == now.ino());
        }
        Ok(self.offset <= now.len() && self.seam == Self::seam_of(file, self.offset)?)
    }
}

impl Growth {
    /// None where it is much, or where the file is not what it was.
    pub(super) fn read(at: &Position, file: &File, now: &Metadata) -> io::Result<Option<Self>> {
        let new = now.len().checked_sub(at.offset);
        let new = new.filter(|new| *new <= CHUNK as u64 && at.inode == now.ino());
        let Some(new) = new else { return Ok(None) };
        let seam = at.seam.len();
        let mut bytes = Vec::with_capacity(seam + new as usize);
        let from = at.offset - seam as u64;
        let read = read_range(file, from, now.len(), &mut bytes)?;
        let whole = read == seam as u64 + new && bytes.starts_with(&at.seam);
        Ok(whole.then_some(Self { bytes, seam }))
    }

    /// What the next growth follows.
    pub(super) fn seam(&self) -> Vec<u8> {
        let before = self.bytes.len().saturating_sub(SEAM as usize);
        self.bytes[before..].to_vec()
    }

    pub(super) fn part(self) -> LogPart {
        let mut new = io::Cursor::new(self.bytes);
        new.set_position(self.seam as u64);
        LogPart::Read(new)
    }
}

fn written(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}
