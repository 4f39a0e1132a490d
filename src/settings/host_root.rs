//! Where the host's own files are.

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

    /// The path on the host of what is seen at this one; none where that is not the host's.
    #[must_use]
    pub fn path_on_host(&self, path: &str) -> Option<String> {
        let below = Path::new(path).strip_prefix(&self.0).ok()?;
        Some(format!("/{}", below.display()))
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
        assert_eq!(own.path_on_host("/srv").as_deref(), Some("/srv"));
        for text in ["/host", "/host/", "//host/."] {
            let host = HostRoot::parse(text).unwrap();
            assert_eq!(host.directory(), Path::new("/host"));
            assert_eq!(host.file("/etc/passwd"), Path::new("/host/etc/passwd"));
            assert_eq!(host.path_on_host("/host").as_deref(), Some("/"));
            assert_eq!(host.path_on_host("/host/a b").as_deref(), Some("/a b"));
            assert_eq!(host.path_on_host("/hostile"), None);
            assert_eq!(host.path_on_host("/"), None);
        }
        for text in ["host", "./host", "/host/../etc", "~"] {
            assert!(HostRoot::parse(text).is_err(), "{text}");
        }
    }
}
