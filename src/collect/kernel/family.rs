//! Defines what a family of the kernel's own figures is, and reads the families.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::collect::causes::with_causes;
use crate::model::{KernelFamily, KernelRow, KernelStatus};

/// Maximum number of rows of a family. More rows are left out. A host with 128 CPUs has 200 interrupts for each CPU.
const MAX_ROWS: usize = 32_768;

/// Code that reads figures of one kind.
///
/// To add a family, write a file with its `Family`, and add it to the list in [`super`] and to the table in
/// `src/publish/figures/kernel.rs`.
pub(super) trait Family: Send {
    /// The name of node_exporter's collector with the same figures.
    fn name(&self) -> &'static str;

    /// Reads the figures into `rows`. Blocks the thread while it reads files of the kernel.
    ///
    /// # Errors
    /// Fails if the host does not have the figures, or if a file of the kernel cannot be read or is invalid.
    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError>;

    /// Like [`Family::read`], but also reads the figures that cost much. The request or `METRICS_COLLECTORS` names the family.
    ///
    /// # Errors
    /// Fails like [`Family::read`].
    fn read_by_name(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        self.read(rows)
    }

    /// Whether the family is read only if the request or `METRICS_COLLECTORS` names it.
    fn is_off_by_default(&self) -> bool {
        false
    }
}

/// The directories with the kernel's files. Tests use other directories.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    pub(super) proc: PathBuf,
    pub(super) sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
        }
    }
}

/// Why a family has no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum FamilyError {
    #[error("this host does not have the figures")]
    Absent,
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read {}: invalid data", path.display())]
    Parse { path: PathBuf },
    #[error("cannot list the TCP sockets")]
    Sockets(#[source] io::Error),
}

impl FamilyError {
    /// Returns the error for a file with an invalid part.
    pub(super) fn parse(path: &Path) -> Self {
        Self::Parse {
            path: path.to_owned(),
        }
    }
}

/// The rows of a family that is being read.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<KernelRow>);

impl Rows {
    /// Adds a row with these labels, for its figures.
    pub(super) fn add<const N: usize>(
        &mut self,
        labels: [(&'static str, &str); N],
    ) -> &mut KernelRow {
        // One more row than the limit takes the figures that are left out.
        self.0.truncate(MAX_ROWS);
        self.0.push(KernelRow {
            labels: labels.map(|(name, value)| (name, value.to_owned())).into(),
            figures: Vec::new(),
        });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// Reads a file of the kernel as text. Replaces bytes that are not UTF-8.
///
/// # Errors
/// Fails with [`FamilyError::Absent`] if the file does not exist, or if the kernel or the hardware does not support it.
pub(super) fn read_file(path: &Path) -> Result<String, FamilyError> {
    let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads a number from a file that has only this number. Returns none if the file does not exist, cannot be read or is invalid: the files
/// of a device differ from driver to driver.
pub(super) fn read_number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Reads the text of a file with one line, without spaces at both ends. Returns none if the file does not exist or cannot be read.
pub(super) fn read_text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Returns the names in a directory of the kernel, sorted.
///
/// # Errors
/// Fails with [`FamilyError::Absent`] if the directory does not exist.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, FamilyError> {
    let entries = fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    Ok(names)
}

/// Like [`names_in`], but returns no names if the directory does not exist. node_exporter finds these devices by a pattern, so for it a host
/// without them is read successfully.
///
/// # Errors
/// Fails if the directory cannot be read.
pub(super) fn names_if_any(folder: &Path) -> Result<Vec<String>, FamilyError> {
    match names_in(folder) {
        Err(FamilyError::Absent) => Ok(Vec::new()),
        names => names,
    }
}

pub(super) fn read_error(path: &Path, source: io::Error) -> FamilyError {
    const UNSUPPORTED: [i32; 3] = [libc::ENODEV, libc::ENXIO, libc::EOPNOTSUPP];
    let is_unsupported = source
        .raw_os_error()
        .is_some_and(|code| UNSUPPORTED.contains(&code));
    if source.kind() == io::ErrorKind::NotFound || is_unsupported {
        return FamilyError::Absent;
    }
    FamilyError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Reads a family. `is_named` says whether the request or a setting names it. A family that fails has no rows.
pub(super) fn read(family: &mut dyn Family, is_named: bool) -> KernelFamily {
    let began = Instant::now();
    let mut rows = Rows::default();
    let read = match is_named {
        true => family.read_by_name(&mut rows),
        false => family.read(&mut rows),
    };
    let status = match read {
        Ok(()) => KernelStatus::Read,
        Err(FamilyError::Absent) => KernelStatus::Absent,
        Err(error) => KernelStatus::Failed(with_causes(&error)),
    };
    let Rows(mut rows) = rows;
    rows.truncate(MAX_ROWS);
    if status != KernelStatus::Read {
        rows.clear();
    }
    KernelFamily {
        name: family.name(),
        status,
        duration: began.elapsed(),
        rows,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Family, FamilyError, MAX_ROWS, Rows, read, read_file};
    use crate::model::KernelStatus;

    /// Reads a family. Returns each figure as a line with the labels, the name and the value, such as `device=eth0 mtu 1500`.
    pub(in super::super) fn lines_of(family: &mut dyn Family) -> Vec<String> {
        let read = read(family, false);
        assert_eq!(read.status, KernelStatus::Read);
        let rows = read.rows.iter();
        rows.flat_map(|row| {
            row.figures.iter().map(|(name, value)| {
                let labels = row.labels.iter();
                let labels: String = labels
                    .map(|(label, value)| format!("{label}={value} "))
                    .collect();
                format!("{labels}{name} {value}")
            })
        })
        .collect()
    }

    /// Writes files below a directory. Each file is a path and its text.
    pub(in super::super) fn write_files(folder: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    struct Scripted(fn(&mut Rows) -> Result<(), FamilyError>);

    impl Family for Scripted {
        fn name(&self) -> &'static str {
            "scripted"
        }

        fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
            (self.0)(rows)
        }
    }

    #[test]
    fn a_family_that_fails_has_no_rows() {
        let missing = |rows: &mut Rows| {
            rows.add([]).figure("first", 1.0);
            read_file(Path::new("/proc/missing")).map(drop)
        };
        let missing = read(&mut Scripted(missing), false);
        assert_eq!(
            (missing.status, missing.rows.len()),
            (KernelStatus::Absent, 0)
        );
        let failed = |_: &mut Rows| read_file(Path::new("/proc")).map(drop);
        let failed = read(&mut Scripted(failed), false);
        let KernelStatus::Failed(error) = failed.status else {
            panic!("{:?}", failed.status);
        };
        assert!(error.starts_with("cannot read /proc: "), "{error}");
    }

    #[test]
    fn the_number_of_rows_is_limited() {
        let many = |rows: &mut Rows| {
            for number in 0..MAX_ROWS + 5 {
                rows.add([("device", &number.to_string())])
                    .figure("number", number as f64);
            }
            Ok(())
        };
        let read = read(&mut Scripted(many), false);
        assert_eq!(read.rows.len(), MAX_ROWS);
        assert_eq!(read.rows[MAX_ROWS - 1].figures[0].1, (MAX_ROWS - 1) as f64);
    }
}
