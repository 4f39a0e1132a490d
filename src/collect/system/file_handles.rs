//! Reads the number of open files on the whole host.

use std::io;

use super::family::{MetricFamily, Round};
use crate::collect::kernel_file::KernelFile;
use crate::model;

/// The metric family. Source: `/proc/sys/fs/file-nr`.
pub(super) struct FileHandles {
    file: KernelFile,
}

impl Default for FileHandles {
    fn default() -> Self {
        Self {
            file: KernelFile::new("/proc/sys/fs/file-nr"),
        }
    }
}

/// Why the number of open files cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileHandlesError {
    #[error("cannot read /proc/sys/fs/file-nr")]
    Read(#[from] io::Error),
    #[error("cannot read /proc/sys/fs/file-nr: invalid data")]
    Parse,
}

impl MetricFamily for FileHandles {
    const NAME: &'static str = "file_handles";

    type Figures = model::FileHandles;
    type Error = FileHandlesError;

    fn read(&mut self, _round: &Round<'_>) -> Result<model::FileHandles, FileHandlesError> {
        parse(&String::from_utf8_lossy(self.file.read()?)).ok_or(FileHandlesError::Parse)
    }

    fn publish(&mut self, handles: model::FileHandles, round: &mut Round<'_>) {
        round.metrics.file_handles = Some(handles);
    }
}

/// Parses `1504 0 9223372036854775807`, with tabs between the numbers. The numbers are the allocated files, the free files
/// (always 0 in Linux 2.6 and later), and the limit.
fn parse(file_nr: &str) -> Option<model::FileHandles> {
    let mut fields = file_nr.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (allocated, free, max) = (next()?, next()?, next()?);
    Some(model::FileHandles {
        open: allocated.saturating_sub(free),
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::model::FileHandles;

    #[test]
    fn open_files_are_the_allocated_files_without_the_free_files() {
        let handles = |open, max| Some(FileHandles { open, max });
        let unlimited = 9_223_372_036_854_775_807;
        assert_eq!(
            parse("1504\t0\t9223372036854775807\n"),
            handles(1504, unlimited)
        );
        assert_eq!(parse("3000 500 1615276\n"), handles(2500, 1_615_276));
        for text in ["", "1504\n", "1504 0\n", "a b c\n", "-1 0 5\n"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
