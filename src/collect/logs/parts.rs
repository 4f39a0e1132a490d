//! Finds the parts of a log that come after an offset, in the log's newest file and in its rotated files.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::format::Format;
use super::offset::{beginning_of, fingerprint_of, is_in};
use super::part::LogPart;
use super::rotated::{Rotated, rotated_files};
use super::search::offset_of;
use super::unpacked::Budget;
use crate::model::FileOffset;

/// Returns the parts of the log after the offset `at`, oldest first. None if no file of the log has this offset. `file` is the
/// newest file of the log, and `now` its metadata.
pub(super) fn since(
    path: &Path,
    at: &FileOffset,
    file: &Arc<File>,
    now: &Metadata,
    budget: &Budget,
) -> io::Result<Option<Vec<LogPart>>> {
    let newest = |from| LogPart::Plain {
        file: Arc::clone(file),
        from,
        to: now.len(),
    };
    // `is_in` compares the contents, because a copy can have replaced the file.
    if is_in(at, file, now)? {
        return Ok(Some(vec![newest(at.offset)]));
    }
    let mut parts = vec![newest(0)];
    for rotated in rotated_files(path, now.ino()) {
        let rotated = rotated?;
        let found = rotated.continues(at, budget)?;
        parts.push(rotated.part(if found { at.offset } else { 0 }, budget)?);
        if found {
            parts.reverse();
            return Ok(Some(parts));
        }
    }
    Ok(None)
}

/// Returns the parts of the log that were written at or after a time, oldest first, and the place at which they begin. None if they
/// begin in a compressed file, which cannot be searched. `file` is the newest file of the log, and `now` its metadata.
pub(super) fn after_time(
    path: &Path,
    time: SystemTime,
    file: &Arc<File>,
    now: &Metadata,
) -> io::Result<Option<(Vec<LogPart>, FileOffset)>> {
    let newest = Rotated::newest(Arc::clone(file), now.clone());
    let mut older = rotated_files(path, now.ino());
    let (mut current, mut parts) = (newest, Vec::new());
    loop {
        let Some((file, now)) = current.plain() else {
            return Ok(None);
        };
        let offset = offset_of(Format::of(path), file, now.len(), time)?;
        parts.push(LogPart::Plain {
            file: Arc::clone(file),
            from: offset,
            to: now.len(),
        });
        let next = match offset {
            0 => older.next().transpose()?,
            _ => None,
        };
        let Some(next) = next else {
            let at = FileOffset {
                inode: now.ino(),
                offset,
                fingerprint: fingerprint_of(file, now, offset)?,
            };
            parts.reverse();
            return Ok(Some((parts, at)));
        };
        current = next;
    }
}

/// Returns all parts of the log, oldest first, and the beginning of the oldest file. `file` is the newest file of the log, and
/// `now` its metadata.
pub(super) fn all(
    path: &Path,
    file: &Arc<File>,
    now: &Metadata,
    budget: &Budget,
) -> io::Result<(Vec<LogPart>, FileOffset)> {
    let mut parts = vec![LogPart::Plain {
        file: Arc::clone(file),
        from: 0,
        to: now.len(),
    }];
    let mut oldest = beginning_of(now);
    for rotated in rotated_files(path, now.ino()) {
        let rotated = rotated?;
        oldest = rotated.beginning();
        parts.push(rotated.part(0, budget)?);
    }
    parts.reverse();
    Ok((parts, oldest))
}
