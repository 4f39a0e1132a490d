//! Where the host's own files are.

mod resolve;

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory in which the host's root is seen: `/`, or where a container has it mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

impl Default for HostRoot {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl HostRoot {
    /// An absolute path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        // Not whether it is there: what cannot be read there is told with each reading.
        if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
            return Err("not an absolute path; accepted: the directory that the host's root is mounted at, such as /host".to_owned());
        }
        Ok(Self(path.components().collect()))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Where the file is seen that has this path on the host.
    #[must_use]
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens the regular file that has this path on the host, for reading. Symbolic links are followed as they are on the
    /// host: an absolute one leads to a file below its root. Does not block.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let file: File = resolve::open_below(&self.0, path.as_ref())?.into();
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    /// The text of such a file, at most so many bytes of it.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(&self, path: impl AsRef<Path>, most: u64) -> io::Result<String> {
        let mut text = Vec::new();
        self.open(path)?.take(most).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Tells whether such a file is still the one, and says the same, that it did.
    ///
    /// # Errors
    /// Why there is none.
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

    /// The path on the host of what is seen at this one; none where that is not the host's.
    #[must_use]
    pub fn path_on_host(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.0).ok()?;
        Some(Path::new("/").join(below))
    }
}

/// Differs between two files, and once a file has been written to.
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
    fn the_hosts_files_are_below_it() {
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
