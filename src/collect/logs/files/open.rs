//! Opens the files of a container's log. The path comes from the engine, and the agent does not trust the path. The agent opens
//! only the log files of that container.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

/// Number of hexadecimal digits in a container's id.
const ID_DIGITS: usize = 64;
/// The end of the name of a log file of the `json-file` driver.
const JSON_SUFFIX: &str = "-json.log";
/// The log file of the `local` driver, in the folder of the container.
const LOCAL: &str = "local-logs/container.log";
/// The log file that the engine writes for drivers that send logs to another host, in the folder of the container.
const CACHED: &str = "container-cached.log";
const FOLDER_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::PATH)
    .union(OFlags::DIRECTORY);
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Checks that `path` is the log of the container `id`. If it is not, returns the reason.
pub(super) fn refusal(path: &Path, id: &str) -> Option<&'static str> {
    if !is_id(id) {
        return Some("the container's id does not have 64 hexadecimal digits");
    }
    if !is_plain(path) {
        return Some("the log path from the engine is not absolute or contains `..`");
    }
    match paths(Path::new(id), id)
        .iter()
        .any(|own| path.ends_with(own))
    {
        true => None,
        false => Some("the log path from the engine does not belong to this container"),
    }
}

/// Whether `folder` is the folder of the container `id`.
pub(super) fn is_folder_of(folder: &Path, id: &str) -> bool {
    is_id(id) && is_plain(folder) && folder.ends_with(id)
}

fn is_id(id: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    id.len() == ID_DIGITS && id.bytes().all(is_digit)
}

/// Whether a path is absolute and has no `..`.
fn is_plain(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain)
}

/// Returns the log files that a container can have. `folder` is the folder of the container. See [`Format`](super::format::Format).
pub(super) fn paths(folder: &Path, id: &str) -> [PathBuf; 3] {
    [
        folder.join(format!("{id}{JSON_SUFFIX}")),
        folder.join(LOCAL),
        folder.join(CACHED),
    ]
}

/// Returns the log file of a container, if its driver is neither `json-file` nor one whose logs only the engine can read.
pub(super) fn path_of_driver(driver: &str, folder: &Path) -> Option<PathBuf> {
    match driver {
        "" | "none" | "json-file" | "journald" => None,
        "local" => Some(folder.join(LOCAL)),
        _ => Some(folder.join(CACHED)),
    }
}

/// Opens a file of a log for reading. The file must be a regular file with one hard link. The file and its folder must not be
/// symbolic links. Directories above the folder can be links, because Docker's data root can be elsewhere. Does not block the
/// thread, even if there is a named pipe at the path.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let opened = match folder.parent() {
        // The log of the driver `local` is in a folder of the container's folder, which must not be a link either.
        Some(container)
            if Path::new(LOCAL)
                .parent()
                .is_some_and(|local| folder.ends_with(local)) =>
        {
            let container = rustix::fs::open(container, FOLDER_FLAGS, Mode::empty());
            let local = folder.file_name().unwrap_or_default();
            container.and_then(|container| {
                rustix::fs::openat(&container, local, FOLDER_FLAGS, Mode::empty())
            })
        }
        _ => rustix::fs::open(folder, FOLDER_FLAGS, Mode::empty()),
    };
    let folder = opened.map_err(open_error)?;
    let file = rustix::fs::openat(&folder, name, FILE_FLAGS, Mode::empty());
    let file = File::from(file.map_err(open_error)?);
    let metadata = file.metadata()?;
    check(&metadata)?;
    Ok((file, metadata))
}

/// Works like [`open`], but needs fewer system calls if the file still has the inode number `inode`. An earlier call has checked
/// that file.
pub(super) fn open_again(path: &Path, inode: Option<u64>) -> io::Result<(File, Metadata)> {
    if inode.is_some()
        && let Ok(file) = rustix::fs::open(path, FILE_FLAGS, Mode::empty())
    {
        let file = File::from(file);
        let metadata = file.metadata()?;
        if Some(metadata.ino()) == inode && check(&metadata).is_ok() {
            return Ok((file, metadata));
        }
    }
    open(path)
}

/// Returns the metadata of a log file without opening it.
pub(super) fn look_at(path: &Path) -> io::Result<Metadata> {
    let metadata = std::fs::symlink_metadata(path)?;
    check(&metadata)?;
    Ok(metadata)
}

/// Whether there is something at `path`. True if the agent cannot tell.
pub(super) fn exists(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Limit on the bytes of a container's configuration.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Whether a container has a TTY, from the configuration that Docker stores in the container's folder. False if it cannot be read.
pub(super) fn has_terminal(folder: &Path) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Stored {
        config: Config,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        tty: bool,
    }
    let read = || {
        let (file, _) = open(&folder.join("config.v2.json")).ok()?;
        let mut text = Vec::new();
        file.take(MAX_CONFIG_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice::<Stored>(&text).ok()
    };
    read().is_some_and(|stored| stored.config.tty)
}

/// Whether an error means that the file does not exist, or that the file cannot be a log. A retry does not help.
pub(super) fn is_no_log(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
    )
}

fn open_error(error: Errno) -> io::Error {
    // The kernel returns ENOTDIR for a folder that is a symbolic link, and ENXIO for a socket.
    let reason = match error {
        Errno::LOOP => "it is a symbolic link",
        Errno::NOTDIR => "its directory is a symbolic link or not a directory",
        Errno::NXIO | Errno::NODEV => "it is not a regular file",
        _ => return error.into(),
    };
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    let reason = if !metadata.is_file() {
        "it is not a regular file"
    } else if metadata.nlink() > 1 {
        "it has more than one hard link"
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

    use super::{is_folder_of, look_at, open, refusal};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn only_the_path_of_the_containers_own_log_is_accepted() {
        let other = ID.replace('0', "f");
        let named = |path: &str| refusal(Path::new(path), ID);
        assert_eq!(
            named(&format!("/var/lib/docker/containers/{ID}/{ID}-json.log")),
            None
        );
        assert_eq!(named(&format!("/{ID}/{ID}-json.log")), None);
        for path in super::paths(&Path::new("/data/containers").join(ID), ID) {
            assert_eq!(named(path.to_str().unwrap()), None);
        }
        assert!(is_folder_of(&Path::new("/containers").join(ID), ID));
        assert!(!is_folder_of(&Path::new("/containers/..").join(ID), ID));
        assert!(!is_folder_of(Path::new(ID), ID));
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
            format!("/containers/{other}/local-logs/container.log"),
            format!("/containers/{ID}/container.log"),
            format!("/containers/{ID}/x/local-logs/container.log"),
            format!("/containers/{other}/container-cached.log"),
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
            assert!(
                !is_folder_of(&Path::new("/containers").join(id), id),
                "{id}"
            );
        }
    }

    /// Creates a folder like the engine's folder for a container. Returns the root and the path of the log file.
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
    fn the_data_root_can_be_a_link_but_the_containers_folder_cannot() {
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
        let local = root.path().join(ID).join("local-logs");
        fs::create_dir(&local).unwrap();
        fs::write(local.join("container.log"), "text").unwrap();
        assert!(!refuses(&local.join("container.log")));
        let linked = elsewhere.path().join(ID).join("local-logs/container.log");
        assert!(refuses(&linked));
    }

    #[test]
    fn only_a_regular_file_is_opened_and_the_call_does_not_block() {
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
