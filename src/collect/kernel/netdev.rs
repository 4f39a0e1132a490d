//! Reads the counters of the network interfaces.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::family::{Family, FamilyError, Roots, Rows, read_file};
use super::net_links::Links;
use crate::collect::links::{Netlink, attributes, int};
use crate::collect::net_dev::published_names;

/// The constants are from `linux/rtnetlink.h` and `linux/if_link.h`.
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const IFLA_STATS_LINK_64: u16 = 1;
/// The bit for `IFLA_STATS_LINK_64` in the mask of a request.
const LINK_64: u32 = 1;
/// The number of counters in a `struct rtnl_link_stats64` since Linux 4.6.
const COUNTERS: usize = 24;

/// The counters of an interface: the names, and the places in a `struct rtnl_link_stats64` whose sum is the counter.
const FIGURES: [(&str, &[usize]); 17] = [
    ("receive_bytes", &[2]),
    ("receive_packets", &[0]),
    ("receive_errs", &[4]),
    ("receive_drop", &[6, 15]),
    ("receive_fifo", &[14]),
    ("receive_frame", &[10, 11, 12, 13]),
    ("receive_compressed", &[21]),
    ("receive_multicast", &[8]),
    ("transmit_bytes", &[3]),
    ("transmit_packets", &[1]),
    ("transmit_errs", &[5]),
    ("transmit_drop", &[7]),
    ("transmit_fifo", &[18]),
    ("transmit_colls", &[9]),
    ("transmit_carrier", &[16, 17, 19, 20]),
    ("transmit_compressed", &[22]),
    ("receive_nohandler", &[23]),
];
/// The number of counters in `/proc/net/dev`: the first ones in [`FIGURES`].
const IN_FILE: usize = 16;

/// The family. Source: rtnetlink(7), or `/proc/net/dev` if the kernel does not allow it.
pub(super) struct Netdev {
    path: PathBuf,
    links: Arc<Mutex<Links>>,
}

impl Netdev {
    pub(super) fn new(roots: &Roots, links: &Arc<Mutex<Links>>) -> Self {
        Self {
            path: roots.proc.join("net/dev"),
            links: Arc::clone(links),
        }
    }

    /// Reads the counters with netlink. The answer has the indexes of the interfaces, and the list of the interfaces has their names.
    fn ask(&self, rows: &mut Rows) -> io::Result<()> {
        let mut links = Links::lock(&self.links);
        let links = links.read()?;
        let counters = ask_counters()?;
        let names = published_names(links.iter().map(|link| &link.name[..]));
        for (link, name) in links.iter().zip(names) {
            let Some(counters) = counters.get(&link.index) else {
                continue;
            };
            let row = rows.add([("device", &name)]);
            for (name, places) in FIGURES {
                let sum = places.iter().map(|place| counters[*place]);
                row.figure(name, sum.fold(0, u64::wrapping_add) as f64);
            }
        }
        Ok(())
    }

    /// Reads the counters from the text of `/proc/net/dev`.
    fn take_in(&self, text: &[u8], rows: &mut Rows) {
        let links = Links::lock(&self.links);
        let lines = text.split(|byte| *byte == b'\n').filter_map(parse_line);
        // While interfaces are added and removed, the kernel sometimes lists one twice.
        let mut known = HashSet::new();
        let lines = lines.filter(|(name, _)| !links.excludes(name) && known.insert(*name));
        let table: Vec<_> = lines.collect();
        let names = published_names(table.iter().map(|(name, _)| *name));
        for ((_, counters), name) in table.iter().zip(names) {
            let row = rows.add([("device", &name)]);
            for ((name, _), counter) in FIGURES.iter().zip(counters) {
                row.figure(*name, *counter);
            }
        }
    }
}

impl Family for Netdev {
    fn name(&self) -> &'static str {
        "netdev"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        if self.ask(rows).is_err() {
            let text = read_file(&self.path)?;
            self.take_in(text.as_bytes(), rows);
        }
        Ok(())
    }
}

/// Asks the kernel for the counters of all interfaces, by index.
fn ask_counters() -> io::Result<HashMap<u32, [u64; COUNTERS]>> {
    let mut body = vec![0; 8];
    body.extend(LINK_64.to_ne_bytes());
    let counters = Netlink::open()?.list(RTM_GETSTATS, &body, |kind, body| {
        parse_counters(body).filter(|_| kind == RTM_NEWSTATS)
    })?;
    Ok(counters.into_iter().collect())
}

/// Parses a `struct if_stats_msg` and the attribute after it.
fn parse_counters(body: &[u8]) -> Option<(u32, [u64; COUNTERS])> {
    let index = int(body.get(4..)?)? as u32;
    let (_, value) = attributes(body.get(12..)?).find(|(kind, _)| *kind == IFLA_STATS_LINK_64)?;
    let (numbers, _) = value.get(..COUNTERS * 8)?.as_chunks();
    let mut counters = [0; COUNTERS];
    for (counter, bytes) in counters.iter_mut().zip(numbers) {
        *counter = u64::from_ne_bytes(*bytes);
    }
    Some((index, counters))
}

/// Parses a line of `/proc/net/dev`: the name and the counters. Returns none for other lines.
fn parse_line(line: &[u8]) -> Option<(&[u8], Vec<f64>)> {
    // The name can have a colon.
    let colon = line.iter().rposition(|byte| *byte == b':')?;
    let counters = std::str::from_utf8(&line[colon + 1..]).ok()?;
    let counters = counters.split_ascii_whitespace().take(IN_FILE);
    let counters: Vec<f64> = counters
        .map(|word| word.parse().ok())
        .collect::<Option<_>>()?;
    (counters.len() == IN_FILE).then_some((line[..colon].trim_ascii(), counters))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::family::tests::lines_of;
    use super::{
        COUNTERS, FIGURES, Family, FamilyError, IN_FILE, Links, Netdev, Roots, Rows,
        parse_counters, parse_line,
    };
    use crate::settings::Patterns;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 435303245 1832522    0    0    0     0          0         0 435303245 1832522    0    0    0     0       0          0
eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
veth0a: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
    lo: 5 5    0    0    0     0          0         0 5 5    0    0    0     0       0          0
";

    fn netdev(exclude: &str) -> Netdev {
        let exclude = Patterns::parse(exclude, "names").unwrap();
        let roots = Roots::default();
        Netdev::new(&roots, &Links::shared(&roots, exclude))
    }

    /// The family for an agent that cannot use netlink.
    struct FromFile;

    impl Family for FromFile {
        fn name(&self) -> &'static str {
            "netdev"
        }

        fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
            netdev("veth*").take_in(TABLE.as_bytes(), rows);
            Ok(())
        }
    }

    #[test]
    fn the_file_has_all_counters_but_one() {
        let lines = lines_of(&mut FromFile);
        assert_eq!(lines.len(), 2 * IN_FILE);
        assert_eq!(lines[0], "device=lo receive_bytes 435303245");
        for (place, (name, _)) in FIGURES[..IN_FILE].iter().enumerate() {
            let expected = format!("device=eth0:1 {name} {}", place + 1);
            assert_eq!(lines[IN_FILE + place], expected);
        }
    }

    #[test]
    fn counters_are_the_sums_that_the_file_has() {
        let mut body = vec![0; 4];
        body.extend(7_u32.to_ne_bytes());
        body.extend([0; 4]);
        body.extend((4 + 8 * COUNTERS as u16).to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        for counter in 0..COUNTERS as u64 {
            body.extend((1_u64 << counter).to_ne_bytes());
        }
        let (index, counters) = parse_counters(&body).unwrap();
        assert_eq!((index, counters[23]), (7, 1 << 23));
        assert_eq!(parse_counters(&body[..body.len() - 1]), None);
        // Each counter belongs to one figure.
        let places = FIGURES.iter().flat_map(|(_, places)| *places);
        let mut places: Vec<usize> = places.copied().collect();
        places.sort_unstable();
        assert_eq!(places, (0..COUNTERS).collect::<Vec<_>>());
    }

    #[test]
    fn this_host_counts_as_its_file_does() {
        let received = || {
            let table = fs::read("/proc/net/dev").unwrap();
            let mut lines = table.split(|byte| *byte == b'\n').filter_map(parse_line);
            lines.find(|(name, _)| *name == b"lo").unwrap().1[0]
        };
        let before = received();
        let lines = lines_of(&mut netdev("veth*"));
        let after = received();
        let lo = lines
            .iter()
            .find_map(|line| line.strip_prefix("device=lo receive_bytes "));
        let now: f64 = lo.unwrap().parse().unwrap();
        assert!((before..=after).contains(&now), "{before} {now} {after}");
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("device=lo receive_nohandler "))
        );
        assert!(!lines.iter().any(|line| line.contains("veth")));
        assert!(
            !lines_of(&mut netdev("lo"))
                .iter()
                .any(|line| line.contains("=lo "))
        );
    }
}
