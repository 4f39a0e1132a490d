//! The formats of log files: how a file is divided into entries, and what an entry says.

use std::path::Path;
use std::time::SystemTime;

use super::json_file;
use super::local;
use crate::collect::logs::entry::{Entry, PlainEntry};

/// The format of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Docker's `json-file` driver.
    JsonFile,
    /// Docker's `local` driver. Docker also writes this format as a cache for drivers that send logs to another host.
    Local,
}

impl Format {
    /// Returns the format of the log file at `path`. The drivers give their files different names.
    pub(super) fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        match name.as_encoded_bytes().ends_with(json_file::SUFFIX) {
            true => Self::JsonFile,
            false => Self::Local,
        }
    }

    /// Returns the number of bytes of the first entry. None if the entry is not complete. The first `searched` bytes were searched
    /// before, without a result. Bytes that are not a valid entry count as an entry, up to the next valid one.
    pub(super) fn entry_end(self, bytes: &[u8], searched: usize) -> Option<usize> {
        match self {
            Self::JsonFile => {
                memchr::memchr(b'\n', &bytes[searched..]).map(|end| searched + end + 1)
            }
            Self::Local => local::entry_end(bytes),
        }
    }

    /// Returns the offset at which an entry begins, if the bytes can begin in the middle of an entry. None if there is no such entry.
    pub(super) fn entry_begin(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::JsonFile => memchr::memchr(b'\n', bytes).map(|end| end + 1),
            Self::Local => local::entry_begin(bytes, 0),
        }
    }

    /// Returns the complete entries. Some of them can be invalid.
    pub(super) fn entries(self, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let (entry, rest) = bytes.split_at(self.entry_end(bytes, 0)?);
            bytes = rest;
            Some(entry)
        })
    }

    /// Returns the number of bytes of the complete entries at the beginning.
    pub(super) fn whole(self, bytes: &[u8]) -> usize {
        match self {
            Self::JsonFile => memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1),
            Self::Local => self.entries(bytes).map(<[u8]>::len).sum(),
        }
    }

    /// Parses an entry. Returns none if the bytes are not a valid entry.
    pub(super) fn parse(self, entry: &[u8]) -> Option<Entry> {
        match self {
            Self::JsonFile => json_file::parse(entry),
            Self::Local => {
                let entry = local::LocalEntry::parse(entry)?;
                Some(Entry {
                    stream: entry.stream(),
                    message: entry.message(),
                })
            }
        }
    }

    /// Parses an entry whose text can be copied. Returns none if the entry is of another kind.
    pub(super) fn parse_plain(self, entry: &[u8]) -> Option<PlainEntry<'_>> {
        match self {
            Self::JsonFile => json_file::parse_plain(entry),
            Self::Local => local::LocalEntry::parse(entry)?.plain(),
        }
    }

    /// Returns when an entry was written. None if the bytes are not a valid entry.
    pub(super) fn time_of(self, entry: &[u8]) -> Option<SystemTime> {
        match self {
            Self::JsonFile => json_file::time_of(entry),
            Self::Local => local::LocalEntry::parse(entry)?.time(),
        }
    }

    /// Returns how many of the complete entries end a line.
    pub(super) fn line_ends(self, bytes: &[u8]) -> usize {
        match self {
            Self::JsonFile => json_file::line_ends(bytes),
            Self::Local => {
                let entries = self.entries(bytes).filter_map(local::LocalEntry::parse);
                entries.filter(local::LocalEntry::ends_line).count()
            }
        }
    }
}
