//! The table of `/proc/net/dev`, of the host's or of a container's network namespace.

use std::collections::{BTreeMap, BTreeSet};

/// One interface and its counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface<'t> {
    /// Not every name is UTF-8.
    pub(super) name: &'t [u8],
    pub(super) received: Counters,
    pub(super) sent: Counters,
}

/// What went one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) drops: u64,
}

/// The interfaces in a table; lines that are no interface's are left out. The kernel may tell of one twice while others come
/// and go: the first counts.
pub(super) fn parse(table: &[u8]) -> Vec<Interface<'_>> {
    let mut known = BTreeSet::new();
    let lines = table.split(|byte| *byte == b'\n').filter_map(parse_line);
    lines.filter(|one| known.insert(one.name)).collect()
}

fn parse_line(line: &[u8]) -> Option<Interface<'_>> {
    // The name may itself contain a colon (an alias, `eth0:1`); no counter does.
    let colon = line.iter().rposition(|byte| *byte == b':')?;
    let counters = std::str::from_utf8(&line[colon + 1..]).ok()?;
    let mut counters = counters.split_ascii_whitespace().map(str::parse::<u64>);
    let mut way = || {
        let mut next = || counters.next()?.ok();
        let way = Counters {
            bytes: next()?,
            packets: next()?,
            errors: next()?,
            drops: next()?,
        };
        // fifo frame compressed multicast, or fifo colls carrier compressed.
        counters.nth(3)?.ok()?;
        Some(way)
    };
    Some(Interface {
        name: line[..colon].trim_ascii(),
        received: way()?,
        sent: way()?,
    })
}

/// What interfaces are called in a snapshot. A name that is not UTF-8 has its odd bytes replaced; where that makes it
/// equal to another, the bytes follow. No name of an interface has a space.
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
    fn reads_counters_however_they_are_spaced() {
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
    fn leaves_out_what_is_no_interface() {
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
        fn no_two_names_are_published_alike(names: std::collections::BTreeSet<[u8; 2]>) {
            // None that the kernel refuses.
            let names: Vec<_> = names.iter().filter(|name| !name.contains(&b' ')).collect();
            let published = published_names(names.iter().map(|name| &name[..]));
            let different: std::collections::BTreeSet<_> = published.iter().collect();
            prop_assert_eq!(different.len(), names.len());
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_replaced_and_told_from_others() {
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
    fn an_interface_that_is_told_of_twice_counts_once() {
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
