//! The subjects of messages. The subjects are `agents.<host>.snapshot`, `agents.<host>.events` and
//! `agents.<host>.logs.<container>`.
//!
//! The dots of a subject separate its tokens. The token of a host or container is its name, with escaped special characters.

use std::fmt::Write as _;
use std::sync::Arc;

/// The subjects of the snapshots of all hosts.
pub(crate) const SNAPSHOTS: &str = "agents.*.snapshot";
/// The subjects of the events of all hosts.
pub(crate) const EVENTS: &str = "agents.*.events";

/// The name of the stream that stores the events and log lines of all agents.
pub(crate) const STREAM: &str = "AGENTS";
/// The subjects that the stream stores: the events and log lines of all hosts.
pub(super) const KEPT: [&str; 2] = [EVENTS, "agents.*.logs.>"];

/// The name of the header with the number of log lines or events that were dropped before this message.
pub(crate) const DROPPED: &str = "System-Agent-Dropped";

/// Limit on the length of a host's token, in bytes. The token of a real host name is shorter, even if each byte is escaped.
const MAX_HOST_LENGTH: usize = 1024;

/// Returns the subject of a container's log lines. `host` is the host's token.
pub(crate) fn logs(host: &str, container: &str) -> String {
    format!("agents.{host}.logs.{}", token(container))
}

/// Returns the token of the host in a subject. Returns None if the subject has no valid token of a host. Servers also forward
/// messages with wildcards in their subjects, and a wildcard is not a valid token.
pub(crate) fn host(subject: &str) -> Option<&str> {
    let host = subject.strip_prefix("agents.")?.split('.').next()?;
    let is_token = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'%'));
    (is_token && !host.is_empty() && host.len() <= MAX_HOST_LENGTH).then_some(host)
}

/// The subjects of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subjects {
    host: String,
}

impl Subjects {
    pub(super) fn of(host: &str) -> Self {
        Self { host: token(host) }
    }

    /// Returns the token of the host's name.
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
        logs(&self.host, container).into()
    }
}

/// Converts a name into one token of a subject. ASCII letters, digits, `-` and `_` stay. Every other byte becomes `%XX`.
///
/// Different names have different tokens. No token has a dot, a wildcard or white space. The token of an empty name is `%`.
pub(crate) fn token(name: &str) -> String {
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

/// Returns the name that belongs to a token. Returns the token itself if no name belongs to the token.
pub(crate) fn name(of: &str) -> String {
    let mut name = Vec::with_capacity(of.len());
    let mut rest = of.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| char::from(digit?).to_digit(16));
        match digits {
            [Some(high), Some(low)] => name.push((high * 16 + low) as u8),
            _ => return of.to_owned(),
        }
    }
    String::from_utf8(name).unwrap_or_else(|_| of.to_owned())
}

/// Whether a pattern with wildcards matches a subject, by the rules of NATS: `*` is one token, and `>` is one or more tokens at
/// the end.
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

    use super::{KEPT, Subjects, covers, host, logs, name, token};

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
    fn a_host_is_a_token_of_a_name() {
        for (subject, expected) in [
            ("agents.web-1.snapshot", Some("web-1")),
            ("agents.web%2E1.logs.app", Some("web%2E1")),
            ("agents.*.snapshot", None),
            ("agents.>", None),
            ("agents.a b.snapshot", None),
            ("agents..snapshot", None),
            ("others.web-1.snapshot", None),
        ] {
            assert_eq!(host(subject), expected, "{subject}");
        }
    }

    #[test]
    fn patterns_match_subjects_by_the_rules_of_nats() {
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
        fn different_names_have_different_tokens_and_the_stream_stores_their_subjects(names in prop::collection::hash_set(".*", 1..20)) {
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

    #[test]
    fn a_token_is_converted_back_to_its_name() {
        for (plain, escaped) in [
            ("web-1", "web-1"),
            ("db_2.example.org", "db_2%2Eexample%2Eorg"),
            ("häuser *>", "h%C3%A4user%20%2A%3E"),
            ("%", "%25"),
        ] {
            assert_eq!(token(plain), escaped);
            assert_eq!(name(escaped), plain);
        }
        // A token that belongs to no name is returned unchanged.
        for odd in ["%", "%2", "%zz", "a%C3", "%é"] {
            assert_eq!(name(odd), odd);
        }
    }

    #[test]
    fn a_subject_contains_the_token_of_the_host() {
        assert_eq!(host("agents.web-1.snapshot"), Some("web-1"));
        assert_eq!(host("agents..snapshot"), None);
        assert_eq!(host("other.web-1.snapshot"), None);
        assert_eq!(host(&format!("agents.{}.snapshot", "a".repeat(2000))), None);
        assert_eq!(logs("web-1", "a.b"), "agents.web-1.logs.a%2Eb");
    }

    proptest! {
        #[test]
        fn any_name_is_converted_to_a_token_and_back(any in "\\PC{1,40}") {
            let escaped = token(&any);
            prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_%".contains(&byte)));
            prop_assert_eq!(name(&escaped), any);
        }

        #[test]
        fn no_text_makes_the_conversion_of_a_token_fail(any: String) {
            name(&any);
        }
    }
}
