//! The table of `/proc/net/dev`, of the host's or of a container's network namespace.

use crate::model::NetworkInterface;

/// The interfaces in a table; lines that are no interface's are left out.
pub(super) fn parse(table: &str) -> impl Iterator<Item = NetworkInterface> {
    table.lines().filter_map(parse_line)
}

fn parse_line(line: &str) -> Option<NetworkInterface> {
    // The name may itself contain a colon (an alias, `eth0:1`); no counter does.
    let (name, counters) = line.rsplit_once(':')?;
    let mut counters = counters.split_ascii_whitespace().map(str::parse::<u64>);
    let bytes_recv = counters.next()?.ok()?;
    let packets_recv = counters.next()?.ok()?;
    // After six more of the receiving side: errs drop fifo frame compressed multicast.
    let bytes_sent = counters.nth(6)?.ok()?;
    let packets_sent = counters.next()?.ok()?;
    Some(NetworkInterface {
        name: name.trim().to_owned(),
        bytes_sent,
        bytes_recv,
        packets_sent,
        packets_recv,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 18446744073709551615    1001    0    0    0     0          0         0   100200    1002    0    0    0     0       0          0
enp3s0:123456789 4321 1 2 3 4 5 6 987654321 1234 0 0 0 0 0 0
eth0:1: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0
";

    #[test]
    fn reads_counters_however_they_are_spaced() {
        let interfaces: Vec<_> = parse(TABLE).collect();
        let names: Vec<_> = interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["lo", "enp3s0", "eth0:1"]);
        assert_eq!(interfaces[0].bytes_recv, u64::MAX);
        let card = &interfaces[1];
        assert_eq!(
            (
                card.bytes_recv,
                card.packets_recv,
                card.bytes_sent,
                card.packets_sent
            ),
            (123_456_789, 4321, 987_654_321, 1234)
        );
    }

    #[test]
    fn leaves_out_what_is_no_interface() {
        for table in ["", "eth0: 1 2 3\n", "eth0: a b c d e f g h i j\n"] {
            assert_eq!(parse(table).count(), 0);
        }
    }
}
