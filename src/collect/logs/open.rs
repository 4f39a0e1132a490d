//! Opening the files of a log. Their path is the engine's word: nothing else than that container's log is opened.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How many hexadecimal digits a container's id has.
const ID_DIGITS: usize = 64;
const LOG_SUFFIX: &str = "-json.log";
const OF_FOLDER: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::PATH)
    .union(OFlags::DIRECTORY);
const OF_FILE: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Why a path is not that of the log of the container `id`, if it is not.
pub(super) fn refusal(path: &Path, id: &str) -> Option<&'static str> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if id.len() != ID_DIGITS || !id.bytes().all(is_digit) {
        return Some("the container's id is none of Docker's");
    }
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Some("the engine names a log by a path that is not absolute");
    }
    let name = path.file_name().and_then(OsStr::to_str);
    let name = name.and_then(|name| name.strip_suffix(LOG_SUFFIX));
    let folder = path.parent().and_then(Path::file_name);
    if name != Some(id) || folder != Some(OsStr::new(id)) {
        return Some("the engine names a file that is not this container's log");
    }
    None
}

/// Opens a file of a log for reading. Neither it nor its folder may be a link, and only a regular file of one name will do.
/// The way to the folder may have links: a data root may be elsewhere. Never blocks on what is put in the file's place.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = rustix::fs::open(folder, OF_FOLDER, Mode::empty()).map_err(not_followed)?;
    let file = rustix::fs::openat(&folder, name, OF_FILE, Mode::empty());
    let file = File::from(file.map_err(not_followed)?);
    let metadata = file.metadata()?;
    check(&metadata)?;
    Ok((file, metadata))
}

/// As [`open`], with fewer system calls where it is still the file of this number: that one was opened before.
pub(super) fn open_again(path: &Path, inode: Option<u64>) -> io::Result<(File, Metadata)> {
    if inode.is_some()
        && let Ok(file) = rustix::fs::open(path, OF_FILE, Mode::empty())
    {
        let file = File::from(file);
        let metadata = file.metadata()?;
        if Some(metadata.ino()) == inode && check(&metadata).is_ok() {
            return Ok((file, metadata));
        }
    }
    open(path)
}

/// What is known of a file of a log without opening it.
pub(super) fn look_at(path: &Path) -> io::Result<Metadata> {
    let metadata = std::fs::symlink_metadata(path)?;
    check(&metadata)?;
    Ok(metadata)
}

/// Whether an error says that there is no file, or none that could be a log: another try would not help.
pub(super) fn is_no_log(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
    )
}

fn not_followed(error: Errno) -> io::Error {
    // A folder that is a link is refused with ENOTDIR, a socket with ENXIO.
    let reason = match error {
        Errno::LOOP => "a symbolic link",
        Errno::NOTDIR => "its folder is no folder, or a symbolic link",
        Errno::NXIO | Errno::NODEV => "not a regular file",
        _ => return error.into(),
    };
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    let reason = if !metadata.is_file() {
        "not a regular file"
    } else if metadata.nlink() > 1 {
        "has another name elsewhere"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{look_at, open, refusal};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn only_a_path_that_names_the_container_is_accepted() {
        let other = ID.replace('0', "f");
        let named = |path: &str| refusal(Path::new(path), ID);
        assert_eq!(
            named(&format!("/var/lib/docker/containers/{ID}/{ID}-json.log")),
            None
        );
        assert_eq!(named(&format!("/{ID}/{ID}-json.log")), None);
        for path in [
            String::new(),
            "/".to_owned(),
            "/etc/shadow".to_owned(),
            format!("/{ID}-json.log"),
            format!("containers/{ID}/{ID}-json.log"),
            format!("/containers/../{ID}/{ID}-json.log"),
            format!("/containers/{other}/{ID}-json.log"),
            format!("/containers/{ID}/{other}-json.log"),
            format!("/containers/{ID}/{ID}-json.log.1"),
            format!("/containers/{ID}/x{ID}-json.log"),
        ] {
            assert!(named(&path).is_some(), "{path}");
        }
        for id in [
            "",
            "0123",
            &ID[1..],
            &ID.to_uppercase(),
            &ID.replace('0', "/"),
        ] {
            let path = format!("/containers/{id}/{id}-json.log");
            assert!(refusal(Path::new(&path), id).is_some(), "{id}");
        }
    }

    /// A folder as the engine has one for each container, and the place of its log.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(ID);
        fs::create_dir(&folder).unwrap();
        (root, folder.join(format!("{ID}-json.log")))
    }

    fn refuses(path: &Path) -> bool {
        let began = Instant::now();
        let refused = open(path).is_err();
        assert!(began.elapsed() < Duration::from_secs(2));
        refused
    }

    #[test]
    fn a_data_root_may_be_behind_a_link_but_not_the_container() {
        let (root, path) = place();
        fs::write(&path, "text").unwrap();
        assert!(!refuses(&path) && look_at(&path).is_ok());
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("docker");
        symlink(root.path(), &link).unwrap();
        let log = format!("{ID}/{ID}-json.log");
        assert!(!refuses(&link.join(&log)));
        // The container's own folder is a link.
        symlink(root.path().join(ID), elsewhere.path().join(ID)).unwrap();
        assert!(refuses(&elsewhere.path().join(&log)));
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened_and_nothing_blocks() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        let with = |make: &dyn Fn(&Path)| {
            let (root, path) = place();
            make(&path);
            assert!(refuses(&path) && look_at(&path).is_err());
            drop(root);
        };
        with(&|path| symlink(secret.path(), path).unwrap());
        with(&|path| symlink("/dev/zero", path).unwrap());
        with(&|path| symlink("/proc/kmsg", path).unwrap());
        with(&|path| fs::create_dir(path).unwrap());
        with(&|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap());
        with(&|path| mknodat(CWD, path, FileType::Socket, Mode::RUSR, 0).unwrap());
        with(&|path| {
            fs::write(path, "text").unwrap();
            fs::hard_link(path, path.with_extension("other")).unwrap();
        });
        with(&|_| {});
    }
}
