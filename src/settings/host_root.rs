//! `HOST_ROOT`: the directory below which the agent finds the host's files.

mod resolve;

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory at which the agent sees the host's root: `/`, or the mount point of the host's root in the agent's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

impl Default for HostRoot {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl HostRoot {
    /// Reads an absolute path without `..`.
    ///
    /// # Errors
    /// Fails if the path is not absolute, or contains `..`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        // The directory is not checked here. If it does not exist, each reading of a file reports an error.
        if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
            return Err("not an absolute path, or contains ..; accepted: the directory at which the host's root is mounted, such as /host".to_owned());
        }
        Ok(Self(path.components().collect()))
    }

    /// The directory at which the agent sees the host's root.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The path at which the agent sees a file of the host. `path` is the path on the host.
    #[must_use]
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens a regular file of the host for reading. `path` is the path on the host. Follows symbolic links as the host
    /// does: an absolute link starts at the host's root. If `path` is a named pipe, fails without waiting for a writer.
    ///
    /// # Errors
    /// Fails if the file cannot be opened, or is not a regular file.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let file: File = resolve::open_below(&self.0, path.as_ref())?.into();
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    /// Reads the text of a file of the host, up to `most` bytes. Replaces bytes that are not UTF-8 with a replacement character.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or read, or is not a regular file.
    pub fn read(&self, path: impl AsRef<Path>, most: u64) -> io::Result<String> {
        let mut text = Vec::new();
        self.open(path)?.take(most).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns the version of a file of the host. The version changes when the file is replaced or written to.
    ///
    /// # Errors
    /// Fails if the file cannot be found, or is not a regular file.
    pub fn version(&self, path: impl AsRef<Path>) -> io::Result<FileVersion> {
        let file = if *self == Self::default() {
            fs::metadata(path)?
        } else {
            self.open(path)?.metadata()?
        };
        if !file.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(FileVersion::of(&file))
    }

    /// Converts a path that the agent uses into the path on the host. Returns none if `path` is not below the host's root.
    #[must_use]
    pub fn path_on_host(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.0).ok()?;
        Some(Path::new("/").join(below))
    }
}

/// Device, inode, size and times of a file. Different files have different versions. Writing to a file changes the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion([u64; 3], [i64; 4]);

impl FileVersion {
    fn of(file: &Metadata) -> Self {
        Self(
            [file.dev(), file.ino(), file.size()],
            [
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::HostRoot;

    #[test]
    fn paths_on_the_host_are_below_the_hosts_root() {
        let own = HostRoot::default();
        assert_eq!(own.file("/etc/passwd"), Path::new("/etc/passwd"));
        assert_eq!(
            own.path_on_host(Path::new("/srv")).as_deref(),
            Some(Path::new("/srv"))
        );
        for text in ["/host", "/host/", "//host/."] {
            let host = HostRoot::parse(text).unwrap();
            assert_eq!(host.directory(), Path::new("/host"));
            assert_eq!(host.file("/etc/passwd"), Path::new("/host/etc/passwd"));
            assert_eq!(
                host.path_on_host(Path::new("/host")).as_deref(),
                Some(Path::new("/"))
            );
            assert_eq!(
                host.path_on_host(Path::new("/host/a b")).as_deref(),
                Some(Path::new("/a b"))
            );
            assert_eq!(host.path_on_host(Path::new("/hostile")), None);
            assert_eq!(host.path_on_host(Path::new("/")), None);
        }
        for text in ["host", "./host", "/host/../etc", "~"] {
            assert!(HostRoot::parse(text).is_err(), "{text}");
        }
    }
}
