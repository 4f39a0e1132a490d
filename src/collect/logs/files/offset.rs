//! Identifies offsets in log files, also after a file was renamed, copied or compressed.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use super::entries::read_range;
use crate::hash::fnv;
use crate::model::FileOffset;

/// Number of bytes before an offset that the fingerprint covers. They show whether a file was emptied and has grown again.
pub(super) const FINGERPRINT_BYTES: usize = 64;

/// Returns the number of bytes before an offset that its fingerprint covers.
pub(super) fn bytes_before(offset: u64) -> usize {
    usize::try_from(offset).map_or(FINGERPRINT_BYTES, |offset| offset.min(FINGERPRINT_BYTES))
}

/// Returns the fingerprint of the offset after `bytes`. Only the last bytes count. They are the end of an entry, and usually no
/// other entry has the same bytes.
///
/// The hash must not change, because a client can give a fingerprint back to a later version of the agent.
pub(super) fn fingerprint(bytes: &[u8]) -> u32 {
    let last = &bytes[bytes.len().saturating_sub(FINGERPRINT_BYTES)..];
    fnv(last)
}

/// Returns the offset 0 of a file. Its fingerprint is a hash of the time when the file was created, because a new file can have the
/// inode number of a deleted file. If the file system does not store this time, it is a hash of the inode number.
pub(super) fn beginning_of(now: &Metadata) -> FileOffset {
    let created = now.created().ok();
    let created = created.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let identity = created.map_or(u128::from(now.ino()), |since| since.as_nanos());
    FileOffset {
        inode: now.ino(),
        offset: 0,
        fingerprint: fnv(&identity.to_le_bytes()),
    }
}

/// Reads the bytes before an offset, and returns its fingerprint. `now` is the metadata of the file.
pub(super) fn fingerprint_of(file: &File, now: &Metadata, offset: u64) -> io::Result<u32> {
    if offset == 0 {
        return Ok(beginning_of(now).fingerprint);
    }
    let before = bytes_before(offset);
    let mut bytes = Vec::with_capacity(before);
    read_range(file, offset - before as u64, offset, &mut bytes)?;
    Ok(fingerprint(&bytes))
}

/// Whether a file has the fingerprint of the offset `at`.
pub(super) fn is_in(at: &FileOffset, file: &File, now: &Metadata) -> io::Result<bool> {
    Ok(at.offset <= now.len() && at.fingerprint == fingerprint_of(file, now, at.offset)?)
}
