//! Finds the names of the host's users in `/etc/passwd`.

use std::collections::HashMap;

use crate::settings::{FileVersion, HostRoot};

const PASSWD: &str = "/etc/passwd";
/// Maximum size of the file, in bytes.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// The users of `/etc/passwd`. A user of a directory service (LDAP, for example) is published by number. A request to such a
/// service can take long, and can load code into the agent.
pub(super) struct Users {
    root: HostRoot,
    names: HashMap<u32, String>,
    /// The state of the file when it was read. If the state differs, the file has changed.
    read: Option<FileVersion>,
}

impl Users {
    /// Creates the list of users, and does not read the file yet. `root` is the directory with the host's own files.
    pub(super) fn new(root: HostRoot) -> Self {
        Self {
            root,
            names: HashMap::new(),
            read: None,
        }
    }

    /// Reads the file again if it has changed.
    pub(super) fn refresh(&mut self) {
        let file = self.root.version(PASSWD).ok();
        if self.read != file {
            self.read = file;
            let text = self.root.read(PASSWD, MAX_SIZE).unwrap_or_default();
            self.names = parse(&text).collect();
        }
    }

    /// Returns the name of a user. If the file does not contain the user, returns the user's number.
    pub(super) fn name(&self, id: u32) -> String {
        let name = self.names.get(&id);
        name.cloned().unwrap_or_else(|| id.to_string())
    }
}

/// Parses lines of the form `name:password:number:…`.
fn parse(passwd: &str) -> impl Iterator<Item = (u32, String)> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    // Goes from the end of the file to the start. If several names have the same number, the first name in the file is then
    // inserted after the other names and replaces them.
    passwd.lines().rev().filter_map(user)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{HostRoot, Users, parse};

    #[test]
    fn the_first_of_several_names_for_one_number_is_used() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\nnobody:x:65534\n+::::\nodd:x:y\n:x:7\n";
        let users: HashMap<u32, String> = parse(passwd).collect();
        assert_eq!(
            (users.len(), users[&0].as_str(), users[&65534].as_str()),
            (2, "root", "nobody")
        );
    }

    #[test]
    fn a_user_that_is_not_in_the_file_is_named_by_number() {
        let mut users = Users::new(HostRoot::default());
        users.refresh();
        assert_eq!(users.name(0), "root");
        assert_eq!(users.name(4_000_000_001), "4000000001");
    }

    #[test]
    fn changes_of_the_user_file_are_noticed() {
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
        // `usermod` replaces the old file with a new file.
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
