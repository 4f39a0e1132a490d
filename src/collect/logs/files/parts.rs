//! Finds the parts of a log that come after an offset, in the log's newest file and in its rotated files.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::entries::{CHUNK, read_range};
use super::format::Format;
use super::offset::{beginning_of, fingerprint_of, is_in};
use super::part::LogPart;
use super::rotated::{Rotated, rotated_files};
use super::search::offset_of;
use super::unpacked::Budget;
use crate::collect::logs::entry::{DISORDER, MAX_ENTRY_BYTES};
use crate::collect::logs::seen::{fingerprint_of_message, identity};
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
    if let Some(time) = at.time() {
        return after_message(path, time, at.fingerprint, file, now);
    }
    let newest = |from| LogPart::Plain {
        file: Arc::clone(file),
        now: Box::new(now.clone()),
        from,
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

/// Returns the parts of the log after the message that was written at about this time and has this fingerprint, oldest first. None
/// if there is no such message, or if it is in a compressed file.
fn after_message(
    path: &Path,
    time: SystemTime,
    message: u32,
    file: &Arc<File>,
    now: &Metadata,
) -> io::Result<Option<Vec<LogPart>>> {
    let (from, to) = (time.checked_sub(DISORDER), time.checked_add(DISORDER * 2));
    let (Some(from), Some(to)) = (from, to) else {
        return Ok(None);
    };
    let Some((mut parts, _)) = after_time(path, from, file, now)? else {
        return Ok(None);
    };
    let format = Format::of(path);
    let (mut bytes, mut found) = (Vec::new(), None);
    'search: for (index, part) in parts.iter().enumerate() {
        let LogPart::Plain { file, now, from } = part else {
            continue;
        };
        let (mut at, mut read) = (*from, *from);
        bytes.clear();
        while read < now.len() {
            let next = now.len().min(read + CHUNK as u64);
            read += read_range(file, read, next, &mut bytes)?;
            let whole = format.whole(&bytes);
            for entry in format.entries(&bytes[..whole]) {
                at += entry.len() as u64;
                let Some(parsed) = format.parse(entry) else {
                    continue;
                };
                if fingerprint_of_message(identity(&parsed.message)) == message {
                    found = Some((index, at));
                    break 'search;
                }
                if format.time_of(entry).is_some_and(|time| time > to) {
                    break 'search;
                }
            }
            bytes.drain(..whole);
            if read < next || bytes.len() > MAX_ENTRY_BYTES {
                break;
            }
        }
    }
    let Some((index, begin)) = found else {
        return Ok(None);
    };
    parts.drain(..index);
    if let Some(LogPart::Plain { from, .. }) = parts.first_mut() {
        *from = begin;
    }
    Ok(Some(parts))
}

/// Returns the parts of the log that were written at or after a time, oldest first, and the place at which they begin. None if they
/// begin in a compressed file, which cannot be searched. `file` is the newest file of the log, and `now` its metadata.
pub(super) fn after_time(
    path: &Path,
    time: SystemTime,
    file: &Arc<File>,
    now: &Metadata,
) -> io::Result<Option<(Vec<LogPart>, FileOffset)>> {
    let (parts, at, is_complete) = plain_after_time(path, time, file, now)?;
    Ok(is_complete.then_some((parts, at)))
}

/// Works like [`after_time`], but leaves out compressed files. Also returns whether there is nothing to leave out.
pub(super) fn plain_after_time(
    path: &Path,
    time: SystemTime,
    file: &Arc<File>,
    now: &Metadata,
) -> io::Result<(Vec<LogPart>, FileOffset, bool)> {
    let mut older = rotated_files(path, now.ino());
    let (mut file, mut now, mut parts) = (Arc::clone(file), now.clone(), Vec::new());
    loop {
        let offset = offset_of(Format::of(path), &file, now.len(), time)?;
        parts.push(LogPart::Plain {
            file: Arc::clone(&file),
            now: Box::new(now.clone()),
            from: offset,
        });
        let next = match offset {
            0 => older.next().transpose()?,
            _ => None,
        };
        let plain = next.as_ref().and_then(Rotated::plain);
        let Some((older_file, metadata)) = plain else {
            let fingerprint = fingerprint_of(&file, &now, offset)?;
            let at = FileOffset {
                inode: now.ino(),
                offset,
                fingerprint,
            };
            parts.reverse();
            return Ok((parts, at, next.is_none()));
        };
        (file, now) = (Arc::clone(older_file), metadata.clone());
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
        now: Box::new(now.clone()),
        from: 0,
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
