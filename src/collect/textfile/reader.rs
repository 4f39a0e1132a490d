//! Reads the files of a directory. A file is read again only if it has changed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use tracing::warn;

use super::merge::Merged;
use super::parse::parse;
use crate::model::{TextFamily, Textfile, Textfiles, Timestamp};

/// Limit on the number of files.
const MAX_FILES: usize = 256;
/// Limit on the bytes of a file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Limit on the bytes of all files together.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The end of a file's name.
const SUFFIX: &[u8] = b".prom";
const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// The file must not be a link. Opening a named pipe must not block.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// The reader of a directory.
pub(super) struct Reader {
    folder: PathBuf,
    /// Whether the agent itself has a metric with this name.
    is_published: fn(&str) -> bool,
    /// The state of the directory at the newest reading. None if the next reading must read again.
    seen: Option<Seen>,
    /// The families of the files that were read, by the name of the file.
    read: BTreeMap<OsString, (Stamp, Result<Families, FileError>)>,
    newest: Arc<Textfiles>,
}

type Families = Vec<Arc<TextFamily>>;
type Seen = Result<(BTreeMap<OsString, Stamp>, bool), Errno>;

/// The version of a file. It changes if the file is replaced, written to, or gets another owner or mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Clone, thiserror::Error)]
enum FileError {
    /// The file can become readable without a change of the file.
    #[error("cannot be read: {0}")]
    Read(std::io::ErrorKind),
    /// The file was removed after the directory was listed.
    #[error("was removed")]
    Removed,
    #[error("{0}")]
    Refused(String),
}

impl FileError {
    fn refused(reason: &str) -> Self {
        Self::Refused(reason.to_owned())
    }
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error.kind())
    }
}

impl Reader {
    pub(super) fn new(folder: PathBuf, is_published: fn(&str) -> bool) -> Self {
        Self {
            folder,
            is_published,
            seen: None,
            read: BTreeMap::new(),
            newest: Arc::default(),
        }
    }

    /// Reads the files that have changed. Returns the same reading as before if nothing has changed. Logs each new problem.
    pub(super) fn read(&mut self) -> Arc<Textfiles> {
        let began = Instant::now();
        let opened = rustix::fs::open(&self.folder, FOLDER_FLAGS, Mode::empty());
        let listed = opened.and_then(|folder| Ok((list(&folder)?, folder)));
        let (seen, folder) = match listed {
            Ok((files, folder)) => (Ok(files), Some(folder)),
            Err(error) => (Err(error), None),
        };
        if self.seen.as_ref() == Some(&seen) {
            return Arc::clone(&self.newest);
        }
        let mut textfiles = self.read_changed(&seen, folder.as_ref());
        textfiles.duration = began.elapsed();
        self.log(&textfiles);
        let has_failed = |(_, read): &(Stamp, Result<Families, FileError>)| {
            matches!(read, Err(FileError::Read(_) | FileError::Removed))
        };
        self.seen = (!self.read.values().any(has_failed)).then_some(seen);
        self.newest = Arc::new(textfiles);
        Arc::clone(&self.newest)
    }

    fn read_changed(&mut self, seen: &Seen, folder: Option<&OwnedFd>) -> Textfiles {
        let mut before = std::mem::take(&mut self.read);
        let mut merged = Merged::default();
        let directory = self.folder.display().to_string();
        let (Ok((files, is_cut)), Some(folder)) = (seen, folder) else {
            let kind = match seen {
                Err(error) => std::io::Error::from(*error).kind(),
                Ok(_) => std::io::ErrorKind::Other,
            };
            return Textfiles::failed(directory, format!("cannot be read: {kind}"));
        };
        let mut all = match is_cut {
            true => {
                let error = format!("more than {MAX_FILES} files, the others are left out");
                Textfiles::failed(directory, error).files
            }
            false => Vec::new(),
        };
        let mut bytes = 0;
        for (name, stamp) in files {
            let mut file = Textfile {
                file: self.folder.join(name).display().to_string(),
                mtime: stamp.mtime(),
                ..Textfile::default()
            };
            bytes += stamp.size.min(MAX_FILE_BYTES);
            if bytes > MAX_BYTES {
                let error = format!("all files together are larger than {MAX_BYTES} bytes");
                file.error = Some(error);
                all.push(file);
                continue;
            }
            let same = before.remove(name);
            let same = same.filter(|(read, _)| read == stamp).map(|(_, read)| read);
            let families = match same {
                Some(Ok(same)) => Ok(same),
                Some(Err(FileError::Refused(reason))) => Err(FileError::Refused(reason)),
                _ => read_file(folder, name),
            };
            let added = match &families {
                Ok(families) => merged.add(&file.file, families, self.is_published),
                Err(error) => Err(error.to_string()),
            };
            file.is_used = added.is_ok();
            match added {
                Ok(added) => (file.metrics, file.error) = (added.families, added.error),
                Err(error) => file.error = Some(error),
            }
            let is_removed = matches!(families, Err(FileError::Removed));
            // The families of a file that is not used would only take memory. The file is read again after the next change.
            if file.is_used || families.is_err() {
                self.read.insert(name.clone(), (*stamp, families));
            }
            if !is_removed {
                all.push(file);
            }
        }
        Textfiles {
            families: merged.into_families(),
            files: all,
            ..Textfiles::default()
        }
    }

    /// Logs the problems that the newest reading did not have.
    fn log(&self, now: &Textfiles) {
        let known: HashSet<_> = self.newest.problems().collect();
        for (file, error) in now.problems().filter(|one| !known.contains(one)) {
            warn!(file, error, "figures of a text file left out");
        }
    }
}

/// Returns the text files of a directory, and whether there are more files than the limit.
fn list(folder: &OwnedFd) -> Result<(BTreeMap<OsString, Stamp>, bool), Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.ends_with(SUFFIX) {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    let is_cut = names.len() > MAX_FILES;
    names.truncate(MAX_FILES);
    let mut files = BTreeMap::new();
    for name in names {
        match rustix::fs::statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => drop(files.insert(name, Stamp::of(&stat))),
            // The file was removed after the directory was listed.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((files, is_cut))
}

/// Reads and parses a file. The file must be a regular file, and only root and the agent's own user may write to it.
fn read_file(folder: &OwnedFd, name: &OsString) -> Result<Families, FileError> {
    let opened = rustix::fs::openat(folder, name.as_os_str(), FILE_FLAGS, Mode::empty());
    let file = File::from(opened.map_err(|error| match error {
        Errno::LOOP => FileError::refused("is a symbolic link"),
        Errno::NOENT => FileError::Removed,
        Errno::NXIO | Errno::NODEV => FileError::refused("is not a regular file"),
        error => std::io::Error::from(error).into(),
    })?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::refused("is not a regular file"));
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if ![0, user].contains(&metadata.uid()) {
        return Err(FileError::refused(
            "belongs to a user other than root and the agent's own user",
        ));
    }
    let is_own_group = [0, group].contains(&metadata.gid());
    let forbidden = if is_own_group { 0o002 } else { 0o022 };
    if metadata.mode() & forbidden != 0 {
        return Err(FileError::refused("other users can write to it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let reason = format!("is larger than {MAX_FILE_BYTES} bytes");
        return Err(FileError::Refused(reason));
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::refused("is not UTF-8"))?;
    let families = parse(&text).map_err(|error| FileError::Refused(error.to_string()))?;
    Ok(families.into_iter().map(Arc::new).collect())
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// Returns the time of the last change. None if it is too far in the future or in the past for the system's clock.
    fn mtime(&self) -> Option<Timestamp> {
        let (seconds, nanoseconds) = self.modified;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let at = match seconds < 0 {
            true => SystemTime::UNIX_EPOCH.checked_sub(whole),
            false => SystemTime::UNIX_EPOCH.checked_add(whole),
        };
        let fraction = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
        at?.checked_add(fraction).map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::path::Path;
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant, SystemTime};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{MAX_FILE_BYTES, MAX_FILES, Reader, Stamp};
    use crate::model::{Textfile, Textfiles};

    fn reader(folder: &Path) -> Reader {
        Reader::new(folder.to_owned(), |name| name.starts_with("node_"))
    }

    fn names(textfiles: &Textfiles) -> Vec<&str> {
        let families = textfiles.families.iter();
        families.map(|family| family.name.as_str()).collect()
    }

    fn errors(textfiles: &Textfiles) -> Vec<&str> {
        textfiles.problems().map(|(_, error)| error).collect()
    }

    #[test]
    fn a_file_is_read_again_only_if_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.prom");
        fs::write(&path, "a 1\n").unwrap();
        fs::write(folder.path().join("b.prom.tmp"), "b 1\n").unwrap();
        let mut reader = reader(folder.path());
        let first = reader.read();
        assert_eq!(names(&first), ["a"]);
        assert_eq!(first.files[0].file, path.display().to_string());
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(first.files[0].mtime.unwrap().0, mtime);
        assert_eq!(first.files[0].metrics[0].help, None);
        let help = first.families[0].help.as_deref().unwrap();
        assert!(help.starts_with("Metric of the file "), "{help}");
        assert!(Arc::ptr_eq(&first, &reader.read()));
        fs::rename(
            folder.path().join("b.prom.tmp"),
            folder.path().join("b.prom"),
        )
        .unwrap();
        let second = reader.read();
        assert_eq!(names(&second), ["a", "b"]);
        // The file that has not changed was not parsed again.
        assert_eq!(first.files[0], second.files[0]);
        fs::write(&path, "broken\n").unwrap();
        let third = reader.read();
        assert_eq!(names(&third), ["b"]);
        let used: Vec<_> = third.files.iter().map(|file| file.is_used).collect();
        assert_eq!(used, [false, true]);
        assert_eq!(third.files[0].metrics, []);
        assert_eq!(errors(&third), ["line 1: invalid value"]);
        assert!(Arc::ptr_eq(&third, &reader.read()));
        fs::write(&path, "a 2\n").unwrap();
        let mended = reader.read();
        assert_eq!((names(&mended), errors(&mended)), (vec!["a", "b"], vec![]));
        fs::remove_file(&path).unwrap();
        let fewer = reader.read();
        assert_eq!((names(&fewer), fewer.files.len()), (vec!["b"], 1));
        assert_eq!(errors(&fewer), Vec::<&str>::new());
    }

    #[test]
    fn a_directory_can_be_created_later() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("textfile");
        let mut reader = reader(&folder);
        let missing = reader.read();
        let directory = Textfile {
            file: folder.display().to_string(),
            error: Some("cannot be read: entity not found".to_owned()),
            ..Textfile::default()
        };
        assert_eq!(missing.files, [directory]);
        assert!(Arc::ptr_eq(&missing, &reader.read()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.prom"), "a 1\n").unwrap();
        let read = reader.read();
        assert_eq!((names(&read), errors(&read)), (vec!["a"], vec![]));
        fs::remove_dir_all(&folder).unwrap();
        let gone = reader.read();
        assert_eq!((names(&gone), errors(&gone).len()), (vec![], 1));
    }

    #[test]
    fn only_regular_files_that_other_users_cannot_write_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("secret"), "secret 1\n").unwrap();
        symlink(path("secret"), path("link.prom")).unwrap();
        fs::create_dir(path("folder.prom")).unwrap();
        mknodat(CWD, path("pipe.prom"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::write(path("writable.prom"), "writable 1\n").unwrap();
        fs::set_permissions(path("writable.prom"), Permissions::from_mode(0o666)).unwrap();
        fs::write(path("binary.prom"), b"a{b=\"\xff\"} 1\n").unwrap();
        fs::write(
            path("large.prom"),
            "#".repeat(MAX_FILE_BYTES as usize) + "\n",
        )
        .unwrap();
        fs::write(path("own.prom"), "own 1\nnode_load1 1\n").unwrap();
        let mut reasons = vec![
            ("binary", "is not UTF-8"),
            ("folder", "is not a regular file"),
            ("large", "is larger than 1048576 bytes"),
            ("link", "is a symbolic link"),
            (
                "own",
                "the metric node_load1 is a metric of the agent itself",
            ),
            ("pipe", "is not a regular file"),
            ("writable", "other users can write to it"),
        ];
        if rustix::process::geteuid().is_root() {
            fs::write(path("foreign.prom"), "foreign 1\n").unwrap();
            chown(path("foreign.prom"), Some(12345), None).unwrap();
            let reason = "belongs to a user other than root and the agent's own user";
            reasons.insert(2, ("foreign", reason));
        }
        let began = Instant::now();
        let read = reader(folder.path()).read();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(names(&read), ["own"]);
        let problems = read.problems().map(|(file, error)| {
            let name = Path::new(file).file_stem().unwrap();
            (name.to_str().unwrap(), error)
        });
        let problems: Vec<_> = problems.collect();
        assert_eq!(problems, reasons);
    }

    #[test]
    fn the_number_of_files_is_limited() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MAX_FILES {
            let name = format!("{number:03}.prom");
            fs::write(folder.path().join(name), format!("a{number} 1\n")).unwrap();
        }
        let read = reader(folder.path()).read();
        assert_eq!(read.families.len(), MAX_FILES);
        let problems: Vec<_> = read.problems().collect();
        let path = folder.path().display().to_string();
        let error = "more than 256 files, the others are left out";
        assert_eq!(problems, [(path.as_str(), error)]);
        assert_eq!(read.files.len(), MAX_FILES + 1);
    }

    #[test]
    fn a_file_left_out_for_its_size_is_read_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let many =
            |name: &str| -> String { (0..15_000).map(|at| format!("{name}{at} 1\n")).collect() };
        fs::write(folder.path().join("a.prom"), many("a")).unwrap();
        fs::write(folder.path().join("b.prom"), many("b")).unwrap();
        let mut reader = reader(folder.path());
        let first = reader.read();
        assert_eq!((first.families.len(), errors(&first).len()), (15_000, 1));
        assert!(Arc::ptr_eq(&first, &reader.read()));
        fs::write(folder.path().join("a.prom"), "a 1\n").unwrap();
        let second = reader.read();
        assert_eq!((second.families.len(), errors(&second).len()), (15_001, 0));
    }

    /// A file is written as the documents say: to another name, which then replaces the file.
    #[test]
    fn a_file_that_is_replaced_while_it_is_read_is_read_whole() {
        const SAMPLES: usize = 2000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let replace = move |version: u32| {
            let text: String = (0..SAMPLES)
                .map(|at| format!("a{{at=\"{at}\"}} {version}\n"))
                .collect();
            fs::write(path.join("a.new"), text).unwrap();
            fs::rename(path.join("a.new"), path.join("a.prom")).unwrap();
        };
        replace(0);
        let end = Instant::now() + Duration::from_secs(2);
        let writer = thread::spawn(move || {
            let mut version = 0;
            while Instant::now() < end {
                version += 1;
                replace(version);
            }
        });
        let mut reader = reader(folder.path());
        let mut versions = Vec::new();
        while !writer.is_finished() {
            let read = reader.read();
            assert_eq!(errors(&read), Vec::<&str>::new());
            let samples = &read.files[0].metrics[0].samples;
            assert_eq!(samples.len(), SAMPLES);
            let first = samples[0].value;
            assert!(samples.iter().all(|sample| sample.value == first));
            if versions.last() != Some(&first) {
                versions.push(first);
            }
        }
        writer.join().unwrap();
        assert!(versions.is_sorted() && versions.len() > 10, "{versions:?}");
    }

    /// A program that removes its file before it writes a new one is no error.
    #[test]
    fn a_file_that_is_removed_while_it_is_read_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.prom");
        let end = Instant::now() + Duration::from_secs(2);
        let writer = thread::spawn(move || {
            while Instant::now() < end {
                let unfinished = path.with_extension("new");
                fs::write(&unfinished, "a 1\n").unwrap();
                fs::rename(&unfinished, &path).unwrap();
                fs::remove_file(&path).unwrap();
            }
        });
        let mut reader = reader(folder.path());
        let (mut with, mut without) = (0, 0);
        while !writer.is_finished() {
            let read = reader.read();
            assert_eq!(errors(&read), Vec::<&str>::new());
            match read.files.is_empty() {
                true => without += 1,
                false => with += 1,
            }
        }
        writer.join().unwrap();
        assert!(with > 0 && without > 0, "{with} {without}");
    }

    #[test]
    fn a_time_of_any_file_can_be_written() {
        let at = |modified| {
            let stamp = Stamp {
                inode: (0, 0),
                size: 0,
                modified,
                changed: (0, 0),
            };
            stamp.mtime().map(|time| time.0)
        };
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(
            at((1, 500_000_000)),
            Some(epoch + Duration::from_millis(1500))
        );
        assert_eq!(
            at((-1, 500_000_000)),
            Some(epoch - Duration::from_millis(500))
        );
        for seconds in [i64::MIN, i64::MAX] {
            if let Some(time) = at((seconds, 999_999_999)) {
                let json = serde_json::to_string(&crate::model::Timestamp(time)).unwrap();
                assert_eq!(json, "\"1970-01-01T00:00:00.000Z\"");
            }
        }
    }
}
