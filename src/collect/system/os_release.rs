//! Reads the name and version of the host's operating system from os-release(5).

use crate::settings::{FileVersion, HostRoot};

/// The paths of os-release(5). The first file that exists is used.
const PLACES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
/// Maximum size of the file, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The operating system, as os-release(5) describes it. The file is read again only when it has changed.
pub(super) struct OsRelease {
    root: HostRoot,
    /// The states of the files at the previous reading. A different state means that a file has changed. None before the first
    /// reading.
    read: Option<[Option<FileVersion>; 2]>,
    name: String,
}

impl OsRelease {
    pub(super) fn new(root: HostRoot) -> Self {
        Self {
            root,
            read: None,
            name: String::new(),
        }
    }

    /// Returns the name and the version of the operating system. If the file contains no name, the name is "Linux". If the file
    /// contains no version, returns only the name.
    pub(super) fn name(&mut self) -> &str {
        let mut found = [None; 2];
        for (version, place) in found.iter_mut().zip(PLACES) {
            *version = self.root.version(place).ok();
            if version.is_some() {
                break;
            }
        }
        if self.read != Some(found) {
            let mut texts = PLACES.iter().map(|place| self.root.read(place, MAX_SIZE));
            let text = texts.find_map(Result::ok).unwrap_or_default();
            self.name = parse(&text);
            self.read = Some(found);
        }
        &self.name
    }
}

fn parse(text: &str) -> String {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix('=')?;
            Some(value.trim().trim_matches(['"', '\'']))
        });
        value.filter(|value| !value.is_empty())
    };
    let name = field("NAME").unwrap_or("Linux");
    match field("VERSION_ID") {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{HostRoot, OsRelease};

    #[test]
    fn an_upgrade_is_noticed_through_symbolic_links() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for folder in ["etc/static", "usr/lib", "nix/store"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        let mut os = OsRelease::new(HostRoot::parse(root.path().to_str().unwrap()).unwrap());
        assert_eq!(os.name(), "Linux");
        fs::write(path("usr/lib/os-release"), "NAME=Old\nVERSION_ID='1'\n").unwrap();
        assert_eq!(os.name(), "Old 1");
        fs::write(
            path("nix/store/a"),
            "NAME=\"NixOS\"\nVERSION_ID=\"23.11\"\n",
        )
        .unwrap();
        symlink("/nix/store/a", path("etc/static/os-release")).unwrap();
        symlink("/etc/static/os-release", path("etc/os-release")).unwrap();
        assert_eq!(os.name(), "NixOS 23.11");
        // The file is changed in place.
        fs::write(path("nix/store/a"), "NAME=\"NixOS\"\nVERSION_ID=\"24.5\"\n").unwrap();
        assert_eq!(os.name(), "NixOS 24.5");
        // The link in the middle points to another file of the same length.
        fs::write(path("nix/store/b"), "NAME=\"NixOS\"\nVERSION_ID=\"25.5\"\n").unwrap();
        fs::remove_file(path("etc/static/os-release")).unwrap();
        symlink("/nix/store/b", path("etc/static/os-release")).unwrap();
        assert_eq!(os.name(), "NixOS 25.5");
        // A broken link counts as no file.
        fs::remove_file(path("nix/store/b")).unwrap();
        assert_eq!(os.name(), "Old 1");
        // A directory counts as no file.
        fs::remove_file(path("etc/os-release")).unwrap();
        fs::create_dir(path("etc/os-release")).unwrap();
        assert_eq!(os.name(), "Old 1");
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/os-release"), b"NAME=\"Caf\xe9\"\n").unwrap();
        let mut os = OsRelease::new(HostRoot::parse(root.path().to_str().unwrap()).unwrap());
        assert_eq!(os.name(), "Caf\u{fffd}");
    }
}
