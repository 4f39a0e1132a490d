//! The names of the host's users.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The users of `/etc/passwd`. Those that only a directory service knows go by their numbers: asking it may take
/// long, and may load code into this process.
pub(super) struct Users {
    passwd: PathBuf,
    names: HashMap<u32, String>,
    /// The file that they are from, and when it was written.
    read: Option<(u64, i64, i64)>,
}

impl Users {
    /// Those in a file as `/etc/passwd` is one.
    pub(super) fn new(passwd: PathBuf) -> Self {
        Self {
            passwd,
            names: HashMap::new(),
            read: None,
        }
    }

    /// A user's name, or the number.
    pub(super) fn name(&mut self, id: u32) -> String {
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        // Only who is not known may have been added since.
        let file = fs::metadata(&self.passwd).ok();
        let file = file.map(|file| (file.ino(), file.mtime(), file.mtime_nsec()));
        if self.read != file {
            self.read = file;
            let text = fs::read(&self.passwd).unwrap_or_default();
            self.names = parse(&String::from_utf8_lossy(&text)).collect();
        }
        self.names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
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

    use super::{Users, parse};

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
        let mut users = Users::new("/etc/passwd".into());
        assert_eq!(users.name(0), "root");
        assert_eq!(users.name(4_000_000_001), "4000000001");
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
