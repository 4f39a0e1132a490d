//! What the families of hardware share: a list of things that is read again once a minute, and files with one value.
//!
//! A host without such hardware pays for one look at a folder in a minute.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How often the list is read again.
pub(super) const RESCAN_INTERVAL: Duration = Duration::from_secs(60);

/// A list of things that the kernel shows in a folder.
pub(super) struct Lookup<T> {
    found: Vec<T>,
    /// When the list was read. None before the first reading.
    looked: Option<Instant>,
}

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            looked: None,
        }
    }
}

impl<T> Lookup<T> {
    /// Returns the list. Calls `find` for a new list if the list is older than a minute.
    pub(super) fn found(&mut self, find: impl FnOnce() -> Vec<T>) -> &mut [T] {
        if self.is_due() {
            self.found = find();
            self.looked = Some(Instant::now());
        }
        &mut self.found
    }

    /// Like [`Lookup::found`], but keeps the things of the old list that are also in the new list, with the data that they store.
    pub(super) fn found_and_kept(
        &mut self,
        find: impl FnOnce() -> Vec<T>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> &mut [T] {
        let old = match self.is_due() {
            true => std::mem::take(&mut self.found),
            false => Vec::new(),
        };
        self.found(find);
        for one in old {
            if let Some(new) = self.found.iter_mut().find(|new| is_same(&one, new)) {
                *new = one;
            }
        }
        &mut self.found
    }

    /// Whether the next call of [`Lookup::found`] reads a new list.
    fn is_due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= RESCAN_INTERVAL)
    }
}

/// Returns the paths of the files and folders in `folder` whose names `wanted` selects, in the order of the numbers at the end of the
/// names, then of the names. Returns at most `most` paths.
pub(super) fn entries(folder: &Path, most: usize, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut named: Vec<(u64, String)> = all
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .map(|name| (number_at_end(&name), name))
        .collect();
    named.sort();
    named.truncate(most);
    named
        .into_iter()
        .map(|(_, name)| folder.join(name))
        .collect()
}

fn number_at_end(name: &str) -> u64 {
    let start = name.trim_end_matches(|one: char| one.is_ascii_digit());
    name[start.len()..].parse().unwrap_or_default()
}

/// Whether a name is `prefix` and a number, such as `mc0`.
pub(super) fn is_numbered(name: &str, prefix: &str) -> bool {
    let number = name.strip_prefix(prefix).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the name of a file or folder.
pub(super) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Reads a file with one text. Returns none if the file cannot be read or is empty.
pub(super) fn text(file: &Path) -> Option<String> {
    let text = fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Parses the text of a file with one number.
pub(super) fn number_in<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Reads a file with one number.
pub(super) fn number<T: FromStr>(file: &Path) -> Option<T> {
    text(file)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Lookup, entries, is_numbered, name_of, number, text};

    #[test]
    fn a_list_is_read_again_only_after_a_minute() {
        let mut lookup = Lookup::default();
        assert!(lookup.is_due());
        assert_eq!(lookup.found(|| vec![1, 2]), [1, 2]);
        assert!(!lookup.is_due());
        assert_eq!(lookup.found(|| vec![3]), [1, 2]);
    }

    #[test]
    fn entries_are_sorted_by_number_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mc10", "mc2", "mc", "power", "mc2x", "mc0"] {
            fs::write(folder.path().join(name), " 7\n").unwrap();
        }
        let names = |most| {
            let found = entries(folder.path(), most, |name| is_numbered(name, "mc"));
            found.iter().map(|path| name_of(path)).collect::<Vec<_>>()
        };
        assert_eq!(names(9), ["mc0", "mc2", "mc10"]);
        assert_eq!(names(2), ["mc0", "mc2"]);
        assert_eq!(entries(Path::new("/nonexistent"), 9, |_| true).len(), 0);
    }

    #[test]
    fn a_file_with_an_odd_content_has_no_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for (content, as_text, as_number) in [
            (&b" 7\n"[..], Some("7"), Some(7_u64)),
            (b"\n", None, None),
            (b"-1\n", Some("-1"), None),
            (b"18446744073709551616", Some("18446744073709551616"), None),
            (b"\xff\n", Some("\u{fffd}"), None),
        ] {
            fs::write(&file, content).unwrap();
            assert_eq!(text(&file).as_deref(), as_text);
            assert_eq!(number(&file), as_number);
        }
        assert_eq!(text(&folder.path().join("none")), None);
    }
}
