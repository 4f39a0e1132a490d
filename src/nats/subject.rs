//! What messages are called: `agents.<host>.snapshot`, `agents.<host>.events` and `agents.<host>.logs.<container>`.

use std::fmt::Write as _;
use std::sync::Arc;

/// What events and log lines are published as, of every agent: what a stream keeps.
pub(super) const KEPT: [&str; 2] = ["agents.*.events", "agents.*.logs.>"];

/// The subjects of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subjects {
    host: String,
}

impl Subjects {
    pub(super) fn of(host: &str) -> Self {
        Self { host: token(host) }
    }

    /// The host's name as it is in subjects.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn snapshot(&self) -> String {
        format!("agents.{}.snapshot", self.host)
    }

    pub(super) fn events(&self) -> Arc<str> {
        format!("agents.{}.events", self.host).into()
    }

    pub(super) fn logs(&self, container: &str) -> Arc<str> {
        format!("agents.{}.logs.{}", self.host, token(container)).into()
    }
}

/// A name as one token of a subject: every byte but ASCII letters, digits, `-` and `_` as `%XX`, so that no two names are the
/// same and none has a dot, a wildcard or white space. No name at all is `%`.
fn token(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            token.push(char::from(byte));
        } else {
            // Writing to memory does not fail.
            let _ = write!(token, "%{byte:02X}");
        }
    }
    token
}

/// Whether a pattern with wildcards has this subject, by NATS's rules: `*` is one token, `>` one or more at the end.
pub(super) fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{KEPT, Subjects, covers, token};

    #[test]
    fn a_name_is_one_token() {
        for (name, expected) in [
            ("web-1_A", "web-1_A"),
            ("db.example.org", "db%2Eexample%2Eorg"),
            ("a b*c>d%", "a%20b%2Ac%3Ed%25"),
            ("ä/\n", "%C3%A4%2F%0A"),
            ("", "%"),
        ] {
            assert_eq!(token(name), expected);
        }
        let subjects = Subjects::of("web.1");
        assert_eq!(subjects.snapshot(), "agents.web%2E1.snapshot");
        assert_eq!(&*subjects.events(), "agents.web%2E1.events");
        assert_eq!(&*subjects.logs("a.b"), "agents.web%2E1.logs.a%2Eb");
    }

    #[test]
    fn patterns_have_what_nats_says() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("a.b.c", "a.b", false),
            (">", "a.b", true),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    proptest! {
        #[test]
        fn names_are_told_apart_and_kept(names in prop::collection::hash_set(".*", 1..20)) {
            let mut seen = HashMap::new();
            for name in names {
                let token = token(&name);
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_%".contains(c);
                prop_assert!(!token.is_empty() && token.chars().all(plain), "{token}");
                let subjects = Subjects::of(&name);
                prop_assert!(covers(KEPT[0], &subjects.events()));
                prop_assert!(covers(KEPT[1], &subjects.logs(&name)));
                prop_assert!(!KEPT.iter().any(|kept| covers(kept, &subjects.snapshot())));
                let before = seen.insert(token, name.clone());
                prop_assert!(before.is_none(), "{before:?} and {name:?}");
            }
        }
    }
}
