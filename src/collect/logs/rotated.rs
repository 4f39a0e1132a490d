//! The older files of a log: `PATH.1` is the youngest of them, and any may be compressed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::entries::{last_entries, line_ends};
use super::open;
use super::part::LogPart;
use super::position::Position;
use super::unpacked::{Budget, Unpacked};

/// A rotated file, or its compressed form.
pub(super) struct Rotated {
    file: File,
    metadata: Metadata,
    compressed: bool,
}

impl Rotated {
    /// None where there is no such file that could be the log's.
    pub(super) fn open(path: &Path, number: u32) -> io::Result<Option<Self>> {
        for (suffix, compressed) in [("", false), (".gz", true)] {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}{suffix}"));
            match open::open(&PathBuf::from(name)) {
                Ok((file, metadata)) => {
                    return Ok(Some(Self {
                        file,
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

    /// Whether a position is in this file: by its contents, as it may be a copy.
    pub(super) fn continues(&self, at: &Position, budget: &Budget) -> io::Result<bool> {
        if !self.compressed {
            return at.is_in(&self.file, &self.metadata);
        }
        let mut log = self.unpacked(budget)?;
        let before = at.offset - at.seam.len() as u64;
        let skipped = io::copy(&mut (&mut log).take(before), &mut io::sink())?;
        let mut seam = Vec::new();
        log.take(at.seam.len() as u64).read_to_end(&mut seam)?;
        Ok(skipped == before && !seam.is_empty() && seam == at.seam)
    }

    pub(super) fn part(self, from: u64, budget: &Budget) -> io::Result<LogPart> {
        if !self.compressed {
            let (file, to) = (self.file, self.metadata.len());
            return Ok(LogPart::Plain { file, from, to });
        }
        let log = self.unpacked(budget)?;
        Ok(LogPart::Compressed { log, from })
    }

    /// Its end with whole entries: see [`last_entries`].
    pub(super) fn last_entries(
        &self,
        wanted: usize,
        budget: &Budget,
    ) -> io::Result<(Vec<u8>, usize)> {
        if !self.compressed {
            return last_entries(&self.file, self.metadata.len(), wanted);
        }
        let entries = self.unpacked(budget)?.newest_entries()?;
        if budget.is_spent() {
            // Where it ends is not known.
            return Ok((Vec::new(), 0));
        }
        let ends = line_ends(&entries);
        Ok((entries, ends))
    }

    /// From its beginning.
    fn unpacked(&self, budget: &Budget) -> io::Result<Unpacked> {
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

    use super::{Budget, Rotated, Unpacked};
    use crate::collect::logs::unpacked::MOST_UNPACKED;

    #[test]
    fn a_file_that_unpacks_to_more_than_anybody_needs_is_not_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut packed = GzEncoder::new(
            File::create(folder.path().join("log.1.gz")).unwrap(),
            Compression::fast(),
        );
        let zeros = vec![0; 1 << 20];
        for _ in 0..MOST_UNPACKED / zeros.len() as u64 + 2 {
            packed.write_all(&zeros).unwrap();
        }
        packed.finish().unwrap();
        let rotated = Rotated::open(&path, 1).unwrap().unwrap();
        let budget = Budget::new();
        assert_eq!(rotated.last_entries(10, &budget).unwrap(), (Vec::new(), 0));
        assert!(budget.is_spent());
        // Nothing more of it, nor of any other.
        let mut rest = Vec::new();
        let read = rotated.unpacked(&budget).unwrap().read_to_end(&mut rest);
        assert_eq!(read.unwrap(), 0);
    }

    #[test]
    fn what_is_damaged_ends_there() {
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
