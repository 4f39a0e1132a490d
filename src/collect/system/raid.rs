//! Reads the RAID arrays of the kernel's `md` driver.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::family::{MetricFamily, Round};
use crate::model::RaidArray;

/// A host without arrays looks for them again after this time.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of arrays.
const MAX_ARRAYS: usize = 256;

/// The metric family. Source: `/proc/mdstat`.
#[derive(Default)]
pub(super) struct RaidArrays {
    /// When the host was found to have no arrays. None while it has some.
    without_since: Option<Instant>,
}

/// Why the arrays cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /proc/mdstat")]
pub(super) struct RaidError(#[from] io::Error);

impl MetricFamily for RaidArrays {
    const NAME: &'static str = "raid";

    type Figures = Vec<RaidArray>;
    type Error = RaidError;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<RaidArray>, RaidError> {
        if self
            .without_since
            .is_some_and(|since| since.elapsed() < RESCAN_INTERVAL)
        {
            return Ok(Vec::new());
        }
        let arrays = match fs::read("/proc/mdstat") {
            Ok(text) => parse(&String::from_utf8_lossy(&text)),
            // The kernel has the file only while the driver is loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        self.without_since = arrays.is_empty().then(Instant::now);
        Ok(arrays)
    }

    fn publish(&mut self, arrays: Vec<RaidArray>, round: &mut Round<'_>) {
        round.metrics.raid = arrays;
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.raid.clone_from(&round.last.raid);
    }
}

/// Parses the file. Its format is in `md_seq_show` and `status_resync` of the kernel's `drivers/md/md.c`. An array has a first line
/// such as `md0 : active raid1 sda1[0] sdb1[1](F)`, and further lines that begin with a space.
fn parse(mdstat: &str) -> Vec<RaidArray> {
    let mut arrays: Vec<RaidArray> = Vec::new();
    let mut is_array = false;
    for line in mdstat.lines() {
        if line.starts_with(char::is_whitespace) {
            if let Some(array) = arrays.last_mut().filter(|_| is_array) {
                add_details(array, line);
            }
        } else if !line.is_empty() {
            let array = first_line(line).filter(|_| arrays.len() < MAX_ARRAYS);
            is_array = array.is_some();
            arrays.extend(array);
        }
    }
    arrays
}

fn first_line(line: &str) -> Option<RaidArray> {
    let (device, rest) = line.split_once(" : ")?;
    let mut words = rest.split_ascii_whitespace();
    let state = words
        .next()
        .filter(|state| ["active", "inactive", "broken"].contains(state))?;
    let mut array = RaidArray {
        device: device.trim().to_owned(),
        state: state.to_owned(),
        ..RaidArray::default()
    };
    let (mut disks, mut failed) = (0, 0);
    for word in words {
        if word.contains('[') {
            disks += 1;
            failed += u64::from(word.ends_with("(F)"));
            array.disks_spare += u64::from(word.ends_with("(S)"));
        } else if !word.starts_with('(') {
            array.level = Some(word.to_owned());
        }
    }
    // An array without redundancy has no counts in its further lines.
    array.disks_failed = failed;
    match state {
        "active" => (array.disks_required, array.disks_active) = (disks, disks),
        // Newer kernels report an array that has lost too many disks as broken.
        "broken" => (array.disks_required, array.disks_active) = (disks, disks - failed),
        _ => {}
    }
    Some(array)
}

fn add_details(array: &mut RaidArray, line: &str) {
    let mut words = line.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    if let (Ok(blocks), Some("blocks")) = (first.parse(), words.next()) {
        array.blocks = blocks;
        if let Some((required, active)) = words.find_map(|word| pair(word, '[', ']'))
            && array.state != "inactive"
        {
            (array.disks_required, array.disks_active) = (required, active);
        }
        return;
    }
    // Either a line such as `[=>...]  recovery =  8.5% (16775552/195310144) finish=17.0min`, or `resync=DELAYED`.
    let states = [
        ("recovery", "recovering"),
        ("resync", "resync"),
        ("check", "check"),
        ("reshape", "reshape"),
    ];
    let running = line.split_ascii_whitespace().find_map(|word| {
        let word = word.split('=').next()?;
        states.iter().find(|(name, _)| *name == word)
    });
    if let Some((_, state)) = running {
        array.state = (*state).to_owned();
        let done = line
            .split_ascii_whitespace()
            .find_map(|word| pair(word, '(', ')'));
        array.blocks_synced = Some(done.map_or(0, |(done, _)| done));
    }
}

/// Parses two numbers in brackets, such as `[2/1]`.
fn pair(word: &str, open: char, close: char) -> Option<(u64, u64)> {
    let inner = word.strip_prefix(open)?.strip_suffix(close)?;
    let (one, other) = inner.split_once('/')?;
    Some((one.parse().ok()?, other.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{MAX_ARRAYS, parse};
    use crate::model::RaidArray;

    fn array(text: &str) -> RaidArray {
        let mut arrays = parse(text);
        assert_eq!(arrays.len(), 1, "{text}");
        arrays.remove(0)
    }

    #[test]
    fn a_recovering_array_is_degraded() {
        let text = "Personalities : [raid1]\n\
            md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]\n      \
            195310144 blocks [2/1] [U_]\n      \
            [=>...................]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec\n\n\
            unused devices: <none>\n";
        let array = array(text);
        let expected = RaidArray {
            device: "md6".to_owned(),
            level: Some("raid1".to_owned()),
            state: "recovering".to_owned(),
            disks_required: 2,
            disks_active: 1,
            disks_failed: 1,
            disks_spare: 1,
            blocks: 195_310_144,
            blocks_synced: Some(16_775_552),
        };
        assert_eq!(array, expected);
        assert!(array.is_degraded());
    }

    #[test]
    fn each_state_is_recognized() {
        let raid = "md1 : active raid1 sda[0] sdb[1]\n      100 blocks super 1.2 [2/2] [UU]\n";
        for (more, state, synced) in [
            ("", "active", None),
            (
                "      [=>...]  resync =  8.5% (17/100) finish=1min\n",
                "resync",
                Some(17),
            ),
            (
                "      [=>...]  check =  8.5% (17/100) finish=1min\n",
                "check",
                Some(17),
            ),
            (
                "      [=>...]  reshape =  8.5% (17/100) finish=1min\n",
                "reshape",
                Some(17),
            ),
            ("      resync=DELAYED\n", "resync", Some(0)),
            ("      resync=PENDING\n", "resync", Some(0)),
            ("      recovery=DELAYED\n", "recovering", Some(0)),
            (
                "      bitmap: 0/30 pages [0KB], 65536KB chunk\n",
                "active",
                None,
            ),
        ] {
            let array = array(&format!("{raid}{more}"));
            assert_eq!(
                (array.state.as_str(), array.blocks_synced),
                (state, synced),
                "{more}"
            );
        }
    }

    #[test]
    fn arrays_without_redundancy_and_inactive_arrays_are_read() {
        let striped = array(
            "md10 : active (auto-read-only) raid0 sda1[0] sdb1[1]\n       314159265 blocks 64k chunks\n",
        );
        assert_eq!((striped.disks_required, striped.disks_active), (2, 2));
        assert_eq!(striped.level.as_deref(), Some("raid0"));
        assert!(!striped.is_degraded());
        let broken =
            array("md0 : broken raid1 sda1[0](F) sdb1[1](F)\n      100 blocks [2/0] [__]\n");
        assert_eq!((broken.state.as_str(), broken.disks_active), ("broken", 0));
        assert!(broken.is_degraded());
        let broken = array("md0 : broken raid0 sda1[0] sdb1[1](F)\n      100 blocks 512k chunks\n");
        assert_eq!((broken.disks_required, broken.disks_active), (2, 1));
        let inactive = array(
            "md219 : inactive sdb[2](S) sdc[1](S) sda[0](S)\n        7932 blocks super external:imsm\n",
        );
        assert_eq!((inactive.disks_required, inactive.disks_active), (0, 0));
        assert_eq!(
            (inactive.disks_spare, inactive.blocks, inactive.level),
            (3, 7932, None)
        );
    }

    /// Compares all arrays of node_exporter's fixture with its metrics.
    #[test]
    fn odd_arrays_are_read_as_node_exporter_reads_them() {
        let arrays = parse(include_str!("../../../tests/fixtures/node_exporter/mdstat"));
        let metrics = include_str!("../../../tests/fixtures/node_exporter/md-metrics.txt");
        let mut compared = 0;
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let label = |name: &str| {
                let (_, rest) = series.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let device = label("device").unwrap();
            let array = arrays.iter().find(|array| array.device == device);
            let array = array.unwrap_or_else(|| panic!("{device} is missing"));
            let metric = series.split('{').next().unwrap();
            let ours = match (metric, label("state")) {
                ("node_md_disks", Some("active")) => array.disks_active,
                ("node_md_disks", Some("failed")) => array.disks_failed,
                ("node_md_disks", Some("spare")) => array.disks_spare,
                ("node_md_disks_required", None) => array.disks_required,
                ("node_md_blocks", None) => array.blocks,
                ("node_md_blocks_synced", None) => array.blocks_synced.unwrap_or(array.blocks),
                ("node_md_state", Some(state)) => u64::from(array.state == state),
                _ => panic!("unknown series: {series}"),
            };
            assert_eq!(ours as f64, value.parse::<f64>().unwrap(), "{series}");
            compared += 1;
        }
        assert_eq!((arrays.len(), compared), (17, 17 * 11));
    }

    #[test]
    fn fuzz_mdstat() {
        let seed = "md6 : active raid1 sdb2[2](F) sda2[0]\n      195 blocks [2/1] [U_]\n      [=>]  recovery =  8.5% (1/195)\n";
        crate::fuzzing::run("mdstat", &[seed.as_bytes()], |bytes| {
            let arrays = parse(&String::from_utf8_lossy(bytes));
            assert!(arrays.len() <= MAX_ARRAYS);
        });
    }
}
