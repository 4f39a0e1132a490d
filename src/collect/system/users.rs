//! The names of the host's users.

use std::collections::HashMap;

use crate::settings::{FileVersion, HostRoot};

const PASSWD: &str = "/etc/passwd";
/// The most of it that is read, in bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// The users of `/etc/passwd`. Those that only a directory service knows go by their numbers: asking it may take
/// long, and may load code into this process.
pub(super) struct Users {
    root: HostRoot,
    names: HashMap<u32, String>,
    /// The file that they are from.
    read: Option<FileVersion>,
}

impl Users {
    /// Those of the host.
    pub(super) fn new(root: HostRoot) -> Self {
        Self {
            root,
            names: HashMap::new(),
            read: None,
        }
    }

    /// Reads the file again if it has changed: a user may have been added, renamed or removed.
    pub(super) fn refresh(&mut self) {
        let file = self.root.version(PASSWD).ok();
        if self.read != file {
            self.read = file;
            let text = self.root.read(PASSWD, MOST).unwrap_or_default();
            self.names = parse(&text).collect();
        }
    }

    /// A user's name, or the number.
    pub(super) fn name(&self, id: u32) -> String {
        let name = self.names.get(&id);
        name.cloned().unwrap_or_else(|| id.to_string())
    }
}

/// `name:password:number:…`
fn parse(passwd: &str) -> impl Iterator<Item = (u32, String)> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    // Of several names of a number the first counts: they are taken in last.
    passwd.lines().rev().filter_map(user)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{HostRoot, Users, parse};

    #[test]
    fn the_first_name_of_a_number_counts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\nnobody:x:65534\n+::::\nodd:x:y\n:x:7\n";
        let users: HashMap<u32, String> = parse(passwd).collect();
        assert_eq!(
            (users.len(), users[&0].as_str(), users[&65534].as_str()),
            (2, "root", "nobody")
        );
    }

    #[test]
    fn who_is_not_in_the_file_goes_by_the_number() {
        let mut users = Users::new(HostRoot::default());
        users.refresh();
        assert_eq!(users.name(0), "root");
        assert_eq!(users.name(4_000_000_001), "4000000001");
    }

    #[test]
    fn users_that_are_renamed_added_or_removed_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        std::fs::create_dir_all(path("etc")).unwrap();
        let mut users = Users::new(HostRoot::parse(root.path().to_str().unwrap()).unwrap());
        let mut names = || {
            users.refresh();
            [7, 8].map(|id| users.name(id))
        };
        assert_eq!(names(), ["7", "8"]);
        std::fs::write(path("passwd"), "ann:x:7:7:::\n").unwrap();
        std::os::unix::fs::symlink("/passwd", path("etc/passwd")).unwrap();
        assert_eq!(names(), ["ann", "8"]);
        // As `usermod` does it: another file takes the place of the old.
        std::fs::write(path("new"), "bob:x:7:7:::\ncat:x:8:8:::\n").unwrap();
        std::fs::rename(path("new"), path("passwd")).unwrap();
        assert_eq!(names(), ["bob", "cat"]);
        std::fs::remove_file(path("passwd")).unwrap();
        assert_eq!(names(), ["7", "8"]);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_user_is_nameless(passwd in "(\\PC|\n|:|[0-9])*") {
            prop_assert!(parse(&passwd).all(|(_, name)| !name.is_empty()));
        }
    }

    #[test]
    fn fuzz_passwd() {
        let seed = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n+::::\n";
        crate::fuzzing::run("passwd", &[seed], |bytes| {
            assert!(parse(&String::from_utf8_lossy(bytes)).all(|(_, name)| !name.is_empty()));
        });
    }
}
