//! Reads the states of ZFS pools, and the cache of ZFS.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{self, Lookup, text};
use crate::model::{self, ZfsArc, ZfsPool};

/// Maximum number of pools.
const MAX_POOLS: usize = 64;
/// Maximum length of a state. Longer text is no state.
const LONGEST_STATE: usize = 32;

/// The metric family. Source: `/proc/spl/kstat/zfs`. OpenZFS creates the files in `module/zfs/spa_stats.c` and `module/zfs/arc.c`. To
/// read the state of a pool waits for no lock, so a suspended pool delays nothing.
pub(super) struct Zfs {
    folder: PathBuf,
    /// The folder, and the files with the states of the pools. Empty if the module is not loaded.
    found: Lookup<Vec<PathBuf>>,
}

impl MetricFamily for Zfs {
    const NAME: &'static str = "zfs";

    type Figures = Option<model::Zfs>;
    /// The family never fails: it leaves out a pool that cannot be read. While a pool is exported, its files vanish.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Option<model::Zfs>, Infallible> {
        let Self { folder, found } = self;
        let found = found.found(|| find(folder));
        Ok(found.first().map(|states| model::Zfs {
            pools: states.iter().filter_map(|file| pool(file)).collect(),
            arc: text(&folder.join("arcstats")).and_then(|text| arc(&text)),
        }))
    }

    fn publish(&mut self, zfs: Option<model::Zfs>, round: &mut Round<'_>) {
        round.metrics.zfs = zfs;
    }
}

impl Zfs {
    /// Creates the family. `folder` is `/proc/spl/kstat/zfs`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            found: Lookup::default(),
        }
    }
}

/// Returns one list with the files of the pools' states, or nothing if ZFS is not loaded.
fn find(folder: &Path) -> Vec<Vec<PathBuf>> {
    if !folder.exists() {
        return Vec::new();
    }
    // A pool has a folder. All other entries are files.
    let mut states: Vec<_> = lookup::entries(folder, usize::MAX, |_| true)
        .into_iter()
        .map(|folder| folder.join("state"))
        .filter(|state| state.exists())
        .collect();
    states.sort();
    states.truncate(MAX_POOLS);
    vec![states]
}

fn pool(state_file: &Path) -> Option<ZfsPool> {
    let state = text(state_file)?.to_ascii_lowercase();
    let is_state =
        state.len() <= LONGEST_STATE && state.bytes().all(|byte| byte.is_ascii_lowercase());
    is_state.then(|| ZfsPool {
        name: state_file.parent().map(lookup::name_of).unwrap_or_default(),
        state,
    })
}

/// Parses lines such as `c_max                           4    8367976448`: name, type and value. The types 3 and 4 are numbers.
fn arc(arcstats: &str) -> Option<ZfsArc> {
    let value = |wanted: &str| {
        arcstats.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let is_wanted = words.next()? == wanted && ["3", "4"].contains(&words.next()?);
            is_wanted.then(|| words.next()?.parse().ok()).flatten()
        })
    };
    Some(ZfsArc {
        size: value("size")?,
        target: value("c")?,
        target_max: value("c_max")?,
        hits: value("hits")?,
        misses: value("misses")?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Zfs, arc};
    use crate::collect::system::family::read_once;
    use crate::model::{self, ZfsArc, ZfsPool};

    const ARCSTATS: &str = include_str!("../../../tests/fixtures/node_exporter/arcstats");

    /// The values that node_exporter publishes for its fixture.
    const ARC: ZfsArc = ZfsArc {
        size: 1_603_939_792,
        target: 1_643_208_777,
        target_max: 8_367_976_448,
        hits: 8_772_612,
        misses: 604_635,
    };

    #[test]
    fn pools_and_the_cache_are_read_as_node_exporter_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let zfs = folder.path().join("zfs");
        assert_eq!(read_once(&mut Zfs::new(&zfs)), None);
        // The pools of node_exporter's fixtures, a pool with an odd state, and a pool of a version without states.
        for (pool, state) in [
            ("pool1", Some("ONLINE\n")),
            ("pool2", Some("SUSPENDED\n")),
            ("poolz1", Some("DEGRADED\n")),
            ("odd", Some("\u{1}\n")),
            ("old", None),
        ] {
            fs::create_dir_all(zfs.join(pool)).unwrap();
            if let Some(state) = state {
                fs::write(zfs.join(pool).join("state"), state).unwrap();
            }
        }
        let pool = |name: &str, state: &str| ZfsPool {
            name: name.to_owned(),
            state: state.to_owned(),
        };
        let mut expected = model::Zfs {
            pools: vec![
                pool("pool1", "online"),
                pool("pool2", "suspended"),
                pool("poolz1", "degraded"),
            ],
            arc: None,
        };
        let mut family = Zfs::new(&zfs);
        assert_eq!(read_once(&mut family).as_ref(), Some(&expected));
        fs::write(zfs.join("arcstats"), ARCSTATS).unwrap();
        fs::remove_dir_all(zfs.join("pool2")).unwrap();
        expected.arc = Some(ARC);
        expected.pools.remove(1);
        assert_eq!(read_once(&mut family).as_ref(), Some(&expected));
    }

    #[test]
    fn statistics_without_a_figure_are_no_statistics() {
        assert_eq!(arc(ARCSTATS), Some(ARC));
        assert_eq!(arc(&ARCSTATS.replace("\nmisses ", "\nmissing ")), None);
        assert_eq!(arc(""), None);
    }

    #[test]
    fn fuzz_zfs() {
        crate::fuzzing::run("zfs", &[ARCSTATS.as_bytes()], |bytes| {
            let _ = arc(&String::from_utf8_lossy(bytes));
        });
    }
}
