//! The name and version of the host's operating system.

use crate::settings::{FileVersion, HostRoot};

/// Where os-release(5) is: the first that is there counts.
const PLACES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
/// The most of it that is read, in bytes.
const MOST: u64 = 64 * 1024;

/// What os-release says, read again once it has changed.
pub(super) struct OsRelease {
    root: HostRoot,
    /// What was read; none before the first time.
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

    /// Name and version, as far as they are told.
    pub(super) fn name(&mut self) -> &str {
        let mut found = [None; 2];
        for (version, place) in found.iter_mut().zip(PLACES) {
            *version = self.root.version(place).ok();
            if version.is_some() {
                break;
            }
        }
        if self.read != Some(found) {
            let mut texts = PLACES.iter().map(|place| self.root.read(place, MOST));
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
    fn an_upgrade_is_seen_by_whatever_link_the_file_is_found() {
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
        // In place.
        fs::write(path("nix/store/a"), "NAME=\"NixOS\"\nVERSION_ID=\"24.5\"\n").unwrap();
        assert_eq!(os.name(), "NixOS 24.5");
        // Another file, of the same length, by the link in the middle.
        fs::write(path("nix/store/b"), "NAME=\"NixOS\"\nVERSION_ID=\"25.5\"\n").unwrap();
        fs::remove_file(path("etc/static/os-release")).unwrap();
        symlink("/nix/store/b", path("etc/static/os-release")).unwrap();
        assert_eq!(os.name(), "NixOS 25.5");
        // A link that leads nowhere is none.
        fs::remove_file(path("nix/store/b")).unwrap();
        assert_eq!(os.name(), "Old 1");
        // Not a file: nothing is waited for.
        fs::remove_file(path("etc/os-release")).unwrap();
        fs::create_dir(path("etc/os-release")).unwrap();
        assert_eq!(os.name(), "Old 1");
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/os-release"), b"NAME=\"Caf\xe9\"\n").unwrap();
        let mut os = OsRelease::new(HostRoot::parse(root.path().to_str().unwrap()).unwrap());
        assert_eq!(os.name(), "Caf\u{fffd}");
    }
}
