//! The table of `/proc/net/dev`, of the host's or of a container's network namespace.

/// One interface and its counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface<'t> {
    pub(super) name: &'t str,
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

/// The interfaces in a table; lines that are no interface's are left out.
pub(super) fn parse(table: &str) -> impl Iterator<Item = Interface<'_>> {
    table.lines().filter_map(parse_line)
}

fn parse_line(line: &str) -> Option<Interface<'_>> {
    // The name may itself contain a colon (an alias, `eth0:1`); no counter does.
    let (name, counters) = line.rsplit_once(':')?;
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
        name: name.trim(),
        received: way()?,
        sent: way()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Counters, parse};

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 18446744073709551615    1001    0    0    0     0          0         0   100200    1002    0    0    0     0       0          0
enp3s0:123456789 4321 1 2 3 4 5 6 987654321 1234 7 8 9 0 0 0
eth0:1: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0
";

    #[test]
    fn reads_counters_however_they_are_spaced() {
        let interfaces: Vec<_> = parse(TABLE).collect();
        let names: Vec<_> = interfaces.iter().map(|i| i.name).collect();
        assert_eq!(names, ["lo", "enp3s0", "eth0:1"]);
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
            assert_eq!(parse(table).count(), 0);
        }
    }

    proptest! {
        #[test]
        fn no_table_panics(table in "(\\PC|\n|:| |[0-9])*") {
            parse(&table).count();
        }
    }

    #[test]
    fn fuzz_net_dev() {
        crate::fuzzing::run("net_dev", &[TABLE.as_bytes()], |bytes| {
            parse(&String::from_utf8_lossy(bytes)).count();
        });
    }
}
