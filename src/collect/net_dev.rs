//! Parses the table of network interfaces, `/proc/net/dev`. The table belongs to the host's network namespace or to a
//! container's. This module does not open or read the file.

use std::collections::{BTreeMap, BTreeSet};

use super::decimal::decimals;

/// A network interface and its counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface<'t> {
    /// The name as bytes, because a name is not always valid UTF-8.
    pub(super) name: &'t [u8],
    pub(super) received: Counters,
    pub(super) sent: Counters,
}

/// The counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) drops: u64,
}

/// Parses a table. Skips lines that do not describe an interface. While interfaces are added and removed, the kernel sometimes
/// lists an interface twice. In this case, the first line counts.
pub(super) fn parse(table: &[u8]) -> Vec<Interface<'_>> {
    let mut known = BTreeSet::new();
    let interfaces = lines(table).filter_map(|(name, counters)| parse_counters(name, counters));
    interfaces.filter(|one| known.insert(one.name)).collect()
}

/// Returns the lines of a table that have a name, each as the name and the text of the counters.
pub(super) fn lines(table: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        // Splits at the last colon, because a name can contain a colon (the alias `eth0:1`).
        let colon = memchr::memrchr(b':', line)?;
        Some((line[..colon].trim_ascii(), &line[colon + 1..]))
    })
}

fn parse_counters<'t>(name: &'t [u8], counters: &[u8]) -> Option<Interface<'t>> {
    let mut counters = decimals(counters);
    let mut way = || {
        let mut next = || counters.next()?;
        let way = Counters {
            bytes: next()?,
            packets: next()?,
            errors: next()?,
            drops: next()?,
        };
        // Skips `fifo frame compressed multicast` (received) or `fifo colls carrier compressed` (sent).
        counters.nth(3)??;
        Some(way)
    };
    Some(Interface {
        name,
        received: way()?,
        sent: way()?,
    })
}

/// Returns the names of interfaces as a snapshot has them. In a name that is not UTF-8, U+FFFD replaces each invalid byte. If two
/// names become equal, the escaped bytes are added in parentheses, after a space. Each result is unique, because the name of an
/// interface never has a space.
pub(super) fn published_names<'t>(names: impl Iterator<Item = &'t [u8]>) -> Vec<String> {
    let names: Vec<&[u8]> = names.collect();
    let mut published: Vec<String> = names
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let is_odd = |name: &[u8]| std::str::from_utf8(name).is_err();
    if !names.iter().any(|name| is_odd(name)) {
        return published;
    }
    let mut shared = BTreeMap::<String, usize>::new();
    for name in &published {
        *shared.entry(name.clone()).or_default() += 1;
    }
    for (name, published) in names.iter().zip(&mut published) {
        if shared.get(published).is_some_and(|count| *count > 1) && is_odd(name) {
            *published = format!("{published} ({})", name.escape_ascii());
        }
    }
    published
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Counters, parse, published_names};

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 18446744073709551615    1001    0    0    0     0          0         0   100200    1002    0    0    0     0       0          0
enp3s0:123456789 4321 1 2 3 4 5 6 987654321 1234 7 8 9 0 0 0
eth0:1: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0
";

    #[test]
    fn counters_are_read_with_any_spacing() {
        let interfaces = parse(TABLE.as_bytes());
        let names: Vec<_> = interfaces.iter().map(|i| i.name).collect();
        assert_eq!(names, [&b"lo"[..], b"enp3s0", b"eth0:1"]);
        assert_eq!(interfaces[0].received.bytes, u64::MAX);
        let card = &interfaces[1];
        let counters = |bytes, packets, errors, drops| Counters {
            bytes,
            packets,
            errors,
            drops,
        };
        assert_eq!(card.received, counters(123_456_789, 4321, 1, 2));
        assert_eq!(card.sent, counters(987_654_321, 1234, 7, 8));
    }

    #[test]
    fn an_invalid_line_is_skipped() {
        for table in [
            "",
            "eth0: 1 2 3\n",
            "eth0: a b c d e f g h i j k l m n o p\n",
        ] {
            assert_eq!(parse(table.as_bytes()).len(), 0);
        }
    }

    proptest! {
        #[test]
        fn no_table_panics(table in "(\\PC|\n|:| |[0-9])*") {
            parse(table.as_bytes());
        }

        #[test]
        fn published_names_are_unique(names: std::collections::BTreeSet<[u8; 2]>) {
            // The kernel refuses names with a space.
            let names: Vec<_> = names.iter().filter(|name| !name.contains(&b' ')).collect();
            let published = published_names(names.iter().map(|name| &name[..]));
            let different: std::collections::BTreeSet<_> = published.iter().collect();
            prop_assert_eq!(different.len(), names.len());
        }
    }

    #[test]
    fn invalid_bytes_in_a_name_are_replaced_and_the_name_stays_unique() {
        let published = |names: &[&[u8]]| published_names(names.iter().copied());
        assert_eq!(published(&[b"eth0", b"a\xe9"]), ["eth0", "a\u{fffd}"]);
        assert_eq!(
            published(&[b"a\xe8", b"a\xe9", "a\u{fffd}".as_bytes(), b"b\xe9"]),
            [
                "a\u{fffd} (a\\xe8)",
                "a\u{fffd} (a\\xe9)",
                "a\u{fffd}",
                "b\u{fffd}"
            ]
        );
    }

    #[test]
    fn an_interface_that_is_listed_twice_counts_once() {
        let table = b"a: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\nb: 2 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n\
            a: 3 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n";
        let bytes: Vec<_> = parse(table).iter().map(|one| one.received.bytes).collect();
        assert_eq!(bytes, [1, 2]);
    }

    #[test]
    fn fuzz_net_dev() {
        crate::fuzzing::run("net_dev", &[TABLE.as_bytes()], |bytes| {
            let interfaces = parse(bytes);
            published_names(interfaces.iter().map(|one| one.name));
        });
    }
}
