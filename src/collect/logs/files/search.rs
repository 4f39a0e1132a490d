//! Finds the place in log files at which the lines of a given time begin.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::entries::read_range;
use super::format::Format;
use crate::collect::logs::entry::MAX_ENTRY_BYTES;

/// Number of bytes that are searched entry by entry, after the binary search.
const LAST_BYTES: u64 = 64 * 1024;
/// Number of bytes that are read to find one entry. An entry is rarely longer.
const LOOK_BYTES: u64 = 4 * 1024;

/// Returns the offset of the first entry that was written at or after a time. If there is none, returns the offset after the last
/// complete entry. `size` is the size of the file in bytes.
///
/// The entries of a file are in the order of their times, unless the host's clock was set back. Then the result is the beginning of
/// an entry near such a place.
pub(super) fn offset_of(
    format: Format,
    file: &Arc<File>,
    size: u64,
    time: SystemTime,
) -> io::Result<u64> {
    let (mut low, mut high) = (0, size);
    while high - low > LAST_BYTES {
        let middle = low + (high - low) / 2;
        match entry_after(format, file, middle, high)? {
            Some((begin, at)) if at < time => low = begin,
            _ => high = middle,
        }
    }
    // `high` can be inside an entry, so the search also covers this entry.
    let end = size.min(high + MAX_ENTRY_BYTES as u64);
    let mut bytes = Vec::new();
    read_range(file, low, end, &mut bytes)?;
    let mut begin = 0;
    for entry in format.entries(&bytes) {
        if format.time_of(entry).is_some_and(|at| at >= time) {
            break;
        }
        begin += entry.len();
    }
    Ok(low + begin as u64)
}

/// Returns the offset and the time of the first entry that begins after `from` and ends before `to`.
fn entry_after(
    format: Format,
    file: &Arc<File>,
    from: u64,
    to: u64,
) -> io::Result<Option<(u64, SystemTime)>> {
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to && bytes.len() <= 2 * MAX_ENTRY_BYTES {
        let next = to.min(at + LOOK_BYTES);
        read_range(file, at, next, &mut bytes)?;
        at = next;
        let Some(mut begin) = format.entry_begin(&bytes) else {
            continue;
        };
        for entry in format.entries(&bytes[begin..]) {
            if let Some(time) = format.time_of(entry) {
                return Ok(Some((from + begin as u64, time)));
            }
            begin += entry.len();
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::super::format::Format;
    use super::super::local;
    use super::offset_of;

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
    }

    fn entry(format: Format, milliseconds: u64, text: &str) -> Vec<u8> {
        let at = at(milliseconds);
        match format {
            Format::JsonFile => {
                let time = OffsetDateTime::from(at).format(&Rfc3339).unwrap();
                format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
                    .into()
            }
            Format::Local => {
                let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                local::tests::entry("stdout", since.as_nanos() as u64, text.as_bytes(), None)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_first_entry_of_a_time_is_found(
            steps in proptest::collection::vec((0..2000_u64, 0..4000_usize), 0..300),
            wanted in 0..400_000_u64,
            unfinished in any::<bool>(),
            is_local in any::<bool>(),
        ) {
            let format = if is_local { Format::Local } else { Format::JsonFile };
            let (mut text, mut now, mut expected) = (Vec::new(), 0, None);
            for (step, length) in steps {
                now += step;
                if now >= wanted {
                    expected.get_or_insert(text.len());
                }
                text.extend(entry(format, now, &"x".repeat(length)));
            }
            let expected = expected.unwrap_or(text.len()) as u64;
            if unfinished {
                text.extend(&entry(format, now, "beginning of an entry")[..25]);
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let file = Arc::new(File::open(file.path()).unwrap());
            prop_assert_eq!(offset_of(format, &file, text.len() as u64, at(wanted)).unwrap(), expected);
        }
    }
}
