//! Finds the parts of a log that come after an offset, in the log's newest file and in its rotated files.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::offset::{beginning_of, fingerprint_of, is_in};
use super::part::LogPart;
use super::rotated::Rotated;
use super::search::offset_of;
use super::unpacked::Budget;
use crate::model::FileOffset;

/// Maximum number of rotated files that a reading opens.
pub(super) const MAX_ROTATED_FILES: u32 = 100;

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
    let mut missing = 0;
    let mut parts = vec![newest(0)];
    let mut seen = vec![now.ino()];
    for number in 1..=MAX_ROTATED_FILES {
        let Some(rotated) = Rotated::open(path, number)? else {
            // While the engine renames the rotated files, one file can be missing for a moment.
            missing += 1;
            if missing > 1 {
                break;
            }
            continue;
        };
        let inode = rotated.inode();
        // The log was rotated during this search, so a file that was already opened appears again under its next name.
        if seen.contains(&inode) {
            continue;
        }
        seen.push(inode);
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
    let (mut file, mut now) = (Arc::clone(file), now.clone());
    let mut parts = Vec::new();
    let mut seen = Vec::new();
    for number in 1..=MAX_ROTATED_FILES {
        let offset = offset_of(&file, now.len(), time)?;
        if !seen.contains(&now.ino()) {
            seen.push(now.ino());
            parts.push(LogPart::Plain {
                file: Arc::clone(&file),
                from: offset,
                to: now.len(),
            });
        }
        let older = match Rotated::open(path, number)? {
            // The log was rotated during this search, so a file that was already opened appears again under its next name.
            Some(older) if seen.contains(&older.inode()) => continue,
            older => older,
        };
        let (true, Some(older)) = (offset == 0, older) else {
            let at = FileOffset {
                inode: now.ino(),
                offset,
                fingerprint: fingerprint_of(&file, &now, offset)?,
            };
            parts.reverse();
            return Ok(Some((parts, at)));
        };
        match older.plain() {
            Some((plain, metadata)) => (file, now) = (Arc::new(plain), metadata),
            None => return Ok(None),
        }
    }
    Ok(None)
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
    let mut seen = vec![now.ino()];
    let mut oldest = beginning_of(now);
    for number in 1..=MAX_ROTATED_FILES {
        let Some(rotated) = Rotated::open(path, number)? else {
            break;
        };
        if !seen.contains(&rotated.inode()) {
            seen.push(rotated.inode());
            oldest = rotated.beginning();
            parts.push(rotated.part(0, budget)?);
        }
    }
    parts.reverse();
    Ok((parts, oldest))
}
