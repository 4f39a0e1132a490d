//! The subjects that agents publish on, and what is in them.

use std::fmt::Write;

/// The snapshots, and the events, of all hosts.
pub(super) const SNAPSHOTS: &str = "agents.*.snapshot";
pub(super) const EVENTS: &str = "agents.*.events";

/// The longest token that is taken for a host's, in bytes: names are shorter, even with each byte escaped.
const LONGEST: usize = 1024;

/// A container's log lines, of one host.
pub(super) fn logs(host: &str, container: &str) -> String {
    format!("agents.{host}.logs.{}", token(container))
}

/// Whose a subject is: the token of its host.
pub(super) fn host(subject: &str) -> Option<&str> {
    let host = subject.strip_prefix("agents.")?.split('.').next()?;
    (!host.is_empty() && host.len() <= LONGEST).then_some(host)
}

/// A name as a part of a subject: other bytes than ASCII letters, digits, `-` and `_` as `%` and two hex digits; a lone `%` for
/// a name that is empty.
pub(super) fn token(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'-' | b'_' => token.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => token.push(char::from(byte)),
            // Writing to memory does not fail.
            _ => drop(write!(token, "%{byte:02X}")),
        }
    }
    token
}

/// The name that a token is made of; the token itself where it is made of none.
pub(super) fn name(of: &str) -> String {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{host, logs, name, token};

    #[test]
    fn names_become_tokens() {
        for (plain, escaped) in [
            ("web-1", "web-1"),
            ("db_2.example.org", "db_2%2Eexample%2Eorg"),
            ("häuser *>", "h%C3%A4user%20%2A%3E"),
            ("%", "%25"),
        ] {
            assert_eq!(token(plain), escaped);
            assert_eq!(name(escaped), plain);
        }
        assert_eq!(token(""), "%");
        // What no name becomes stands for itself.
        for odd in ["%", "%2", "%zz", "a%C3", "%é"] {
            assert_eq!(name(odd), odd);
        }
    }

    #[test]
    fn subjects_tell_the_host() {
        assert_eq!(host("agents.web-1.snapshot"), Some("web-1"));
        assert_eq!(host("agents..snapshot"), None);
        assert_eq!(host("other.web-1.snapshot"), None);
        assert_eq!(host(&format!("agents.{}.snapshot", "a".repeat(2000))), None);
        assert_eq!(logs("web-1", "a.b"), "agents.web-1.logs.a%2Eb");
    }

    proptest! {
        #[test]
        fn any_name_comes_back(any in "\\PC{1,40}") {
            let escaped = token(&any);
            prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_%".contains(&byte)));
            prop_assert_eq!(name(&escaped), any);
        }

        #[test]
        fn any_token_has_a_name(any: String) {
            name(&any);
        }
    }
}
