//! The rotated files of a log. `PATH.1` is the newest rotated file. Each rotated file can be compressed, for example `PATH.1.gz`.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entries::last_entries;
use super::format::Format;
use super::offset::{beginning_of, bytes_before, fingerprint, is_in};
use super::open;
use super::part::LogPart;
use super::unpacked::{Budget, Unpacked};
use crate::model::FileOffset;

/// Maximum number of rotated files that a reading opens.
const MAX_ROTATED_FILES: u32 = 100;

/// A file of a log, plain or compressed. Usually it is a rotated file.
pub(super) struct Rotated {
    file: Arc<File>,
    metadata: Metadata,
    compressed: bool,
}

/// Opens the rotated files of a log one by one, the newest first. `newest` is the inode number of the log's newest file, which is
/// not rotated.
pub(super) fn rotated_files(path: &Path, newest: u64) -> impl Iterator<Item = io::Result<Rotated>> {
    let mut numbers = 1..=MAX_ROTATED_FILES;
    let (mut seen, mut missing) = (vec![newest], 0);
    let next = move || {
        for number in numbers.by_ref() {
            match Rotated::open(path, number).transpose() {
                Some(Ok(rotated)) => {
                    // If the log is rotated meanwhile, a file that was already opened appears again under its next name.
                    if !seen.contains(&rotated.inode()) {
                        seen.push(rotated.inode());
                        return Some(Ok(rotated));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                // While the engine renames the rotated files, one file can be missing for a moment.
                None if missing == 0 => missing = 1,
                None => return None,
            }
        }
        None
    };
    std::iter::from_fn(next)
}

/// Returns the size of the rotated files of a log together, in bytes. Does not open them. `newest` is as for [`rotated_files`].
pub(super) fn rotated_bytes(path: &Path, newest: u64) -> u64 {
    let look = |number: u32, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}{suffix}"));
        open::look_at(Path::new(&name)).ok()
    };
    let (mut seen, mut missing, mut bytes) = (vec![newest], 0, 0_u64);
    for number in 1..=MAX_ROTATED_FILES {
        match look(number, "").or_else(|| look(number, ".gz")) {
            Some(metadata) if seen.contains(&metadata.ino()) => {}
            Some(metadata) => {
                seen.push(metadata.ino());
                bytes = bytes.saturating_add(metadata.len());
            }
            None if missing == 0 => missing = 1,
            None => break,
        }
    }
    bytes
}

impl Rotated {
    /// Takes the newest file of a log, which is not rotated.
    pub(super) fn newest(file: Arc<File>, metadata: Metadata) -> Self {
        Self {
            file,
            metadata,
            compressed: false,
        }
    }

    /// Opens the rotated file with this number. Returns none if the file does not exist, or if the file cannot be a log.
    pub(super) fn open(path: &Path, number: u32) -> io::Result<Option<Self>> {
        for (suffix, compressed) in [("", false), (".gz", true)] {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}{suffix}"));
            match open::open(&PathBuf::from(name)) {
                Ok((file, metadata)) => {
                    return Ok(Some(Self {
                        file: Arc::new(file),
                        metadata,
                        compressed,
                    }));
                }
                Err(error) if open::is_no_log(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(super) fn inode(&self) -> u64 {
        self.metadata.ino()
    }

    /// Returns the file and its metadata. None if it is compressed.
    pub(super) fn plain(&self) -> Option<(&Arc<File>, &Metadata)> {
        (!self.compressed).then_some((&self.file, &self.metadata))
    }

    /// Returns the beginning of the file.
    pub(super) fn beginning(&self) -> FileOffset {
        beginning_of(&self.metadata)
    }

    /// Whether the position `at` is in this file. Compares the contents and not the inode, because the file can be a copy.
    pub(super) fn continues(&self, at: &FileOffset, budget: &Budget) -> io::Result<bool> {
        if !self.compressed {
            return is_in(at, &self.file, &self.metadata);
        }
        let mut log = self.unpacked(budget)?;
        let wanted = bytes_before(at.offset) as u64;
        let skipped = io::copy(&mut (&mut log).take(at.offset - wanted), &mut io::sink())?;
        let mut before = Vec::new();
        log.take(wanted).read_to_end(&mut before)?;
        let found = skipped + before.len() as u64;
        Ok(at.offset > 0 && found == at.offset && fingerprint(&before) == at.fingerprint)
    }

    /// Returns the contents from the offset `from` to the end of the file.
    pub(super) fn part(self, from: u64, budget: &Budget) -> io::Result<LogPart> {
        if !self.compressed {
            return Ok(LogPart::Plain {
                file: self.file,
                now: Box::new(self.metadata),
                from,
            });
        }
        let (log, inode) = (self.unpacked(budget)?, self.inode());
        Ok(LogPart::Compressed { log, from, inode })
    }

    /// Returns whole entries at the end of the file, and the number of line ends in them. See [`last_entries`].
    pub(super) fn last_entries(
        &self,
        format: Format,
        wanted: usize,
        budget: &Budget,
    ) -> io::Result<(Vec<u8>, usize)> {
        if !self.compressed {
            return last_entries(format, &self.file, self.metadata.len(), wanted);
        }
        let entries = self.unpacked(budget)?.newest_entries(format)?;
        if budget.is_spent() {
            // The end of the file was not reached, so these entries are not the last entries of the file.
            return Ok((Vec::new(), 0));
        }
        let ends = format.line_ends(&entries);
        Ok((entries, ends))
    }

    /// Unpacks the file from its beginning.
    pub(super) fn unpacked(&self, budget: &Budget) -> io::Result<Unpacked> {
        let mut file = self.file.try_clone()?;
        io::Seek::rewind(&mut file)?;
        Ok(Unpacked::of(file, budget))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::unpacked::MAX_UNPACKED_BYTES;
    use super::{Budget, Format, Rotated, Unpacked};

    #[test]
    fn a_file_that_unpacks_to_more_than_the_limit_yields_no_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut packed = GzEncoder::new(
            File::create(folder.path().join("log.1.gz")).unwrap(),
            Compression::fast(),
        );
        let zeros = vec![0; 1 << 20];
        for _ in 0..MAX_UNPACKED_BYTES / zeros.len() as u64 + 2 {
            packed.write_all(&zeros).unwrap();
        }
        packed.finish().unwrap();
        let rotated = Rotated::open(&path, 1).unwrap().unwrap();
        let budget = Budget::new();
        assert_eq!(
            rotated.last_entries(Format::JsonFile, 10, &budget).unwrap(),
            (Vec::new(), 0)
        );
        assert!(budget.is_spent());
        // No more bytes are unpacked, neither from this file nor from another file.
        let mut rest = Vec::new();
        let read = rotated.unpacked(&budget).unwrap().read_to_end(&mut rest);
        assert_eq!(read.unwrap(), 0);
    }

    #[test]
    fn a_damaged_file_ends_at_the_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.1.gz");
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"some text of a log").unwrap();
        let whole = packed.finish().unwrap();
        for (bytes, damaged) in [
            (&whole[..], false),
            (&whole[..whole.len() - 9], true),
            (b"no archive", true),
        ] {
            fs::write(&path, bytes).unwrap();
            let budget = Budget::new();
            let rotated = Rotated::open(&folder.path().join("log"), 1)
                .unwrap()
                .unwrap();
            let mut log: Unpacked = rotated.unpacked(&budget).unwrap();
            let mut text = Vec::new();
            log.read_to_end(&mut text).unwrap();
            assert!(b"some text of a log".starts_with(&text[..]));
            assert_eq!(budget.is_spent(), damaged, "{bytes:?}");
        }
    }
}
