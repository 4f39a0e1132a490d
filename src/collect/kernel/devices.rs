//! What the families of devices share: a list of devices that is read again once a minute, and files with one value.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a list of devices is read again.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of bytes that are read from a file with one value.
const MAX_VALUE: usize = 256;

/// A list of devices, with their values that rarely change.
pub(super) struct Cached<T> {
    found: Vec<T>,
    /// When the list was read. None before the first reading.
    looked: Option<Instant>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            looked: None,
        }
    }
}

impl<T> Cached<T> {
    /// Returns the list. Calls `find` for a new list if the list is older than a minute.
    pub(super) fn found(&mut self, find: impl FnOnce() -> Vec<T>) -> &mut [T] {
        if self.looked.is_none_or(|at| at.elapsed() >= RESCAN_INTERVAL) {
            self.found = find();
            self.looked = Some(Instant::now());
        }
        &mut self.found
    }
}

/// Reads the text of a file with one value, with one call. Returns none if the file cannot be read. A driver without a value fails, and
/// some drivers fail with `EAGAIN`.
pub(super) fn value(path: &Path) -> Option<String> {
    let mut bytes = [0; MAX_VALUE];
    let length = File::open(path).ok()?.read(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    Some(text.trim().to_owned())
}

/// Like [`value`], but returns none for an empty text.
pub(super) fn filled(path: &Path) -> Option<String> {
    value(path).filter(|text| !text.is_empty())
}

/// Reads a number from a file with one value.
pub(super) fn number(path: &Path) -> Option<f64> {
    let number: f64 = value(path)?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// Returns the number in a name such as `mc0` with the prefix `mc`.
pub(super) fn numbered<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    let number = name.strip_prefix(prefix)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(number)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{Cached, number, numbered, value};
    use crate::collect::kernel::family::tests::write_files;

    #[test]
    fn a_list_is_read_once_a_minute() {
        let mut cached = Cached::default();
        assert_eq!(cached.found(|| vec![1]), [1]);
        assert_eq!(cached.found(|| vec![2]), [1]);
    }

    #[test]
    fn a_file_has_one_value() {
        let folder = TempDir::new().unwrap();
        let long = "9".repeat(300);
        write_files(
            folder.path(),
            &[("one", " 12\n"), ("bad", "nan"), ("long", &long)],
        );
        assert_eq!(number(&folder.path().join("one")), Some(12.0));
        assert_eq!(number(&folder.path().join("bad")), None);
        assert_eq!(number(folder.path()), None);
        assert_eq!(value(&folder.path().join("long")).unwrap().len(), 256);
        assert_eq!(numbered("mc12", "mc"), Some("12"));
        assert_eq!(numbered("mcx", "mc"), None);
    }
}
