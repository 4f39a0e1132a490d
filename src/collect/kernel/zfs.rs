//! Reads the statistics of ZFS: the cache, the pools and their data sets. The states of the pools are in the snapshot.

use std::path::Path;

use super::family::{Family, FamilyError, Roots, Rows, names_in, read_file};

/// The files with statistics of the whole module. Some versions of ZFS lack some of them.
const FILES: [&str; 11] = [
    "abdstats",
    "arcstats",
    "dbufstats",
    "dmu_tx",
    "dnodestats",
    "fm",
    "vdev_cache_stats",
    "vdev_mirror_stats",
    "xuio_stats",
    "zfetchstats",
    "zil",
];
/// Maximum number of pools.
const MAX_POOLS: usize = 64;
/// Maximum number of data sets.
const MAX_DATASETS: usize = 2048;

/// The family. Source: `/proc/spl/kstat/zfs`.
pub(super) struct Zfs(pub(super) Roots);

impl Family for Zfs {
    fn name(&self) -> &'static str {
        "zfs"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("spl/kstat/zfs");
        // All pools have folders. All other entries are files.
        let names = names_in(&folder)?;
        let row = rows.add([]);
        for file in FILES
            .iter()
            .filter(|file| names.iter().any(|name| name == *file))
        {
            let text = read_file(&folder.join(file))?;
            for (name, value) in statistics(&text) {
                row.figure(format!("{file}.{name}"), value);
            }
        }
        let mut left = MAX_DATASETS;
        let pools = names.iter().filter(|name| folder.join(name).is_dir());
        for pool in pools.take(MAX_POOLS) {
            read_pool(&folder.join(pool), pool, &mut left, rows);
        }
        Ok(())
    }
}

/// Reads a pool and its data sets. While a pool is exported, its files vanish. `left` is the number of data sets that can still be read.
fn read_pool(folder: &Path, pool: &str, left: &mut usize, rows: &mut Rows) {
    let names = names_in(folder).unwrap_or_default();
    // ZFS 2.1 and later do not have this file.
    if names.iter().any(|name| name == "io")
        && let Ok(text) = read_file(&folder.join("io"))
    {
        let row = rows.add([("zpool", pool)]);
        for (name, value) in totals(&text) {
            row.figure(format!("io.{name}"), value);
        }
    }
    for name in names.iter().filter(|name| name.starts_with("objset-")) {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Ok(text) = read_file(&folder.join(name)) else {
            continue;
        };
        let Some(dataset) = dataset_name(&text) else {
            continue;
        };
        let row = rows.add([("dataset", dataset), ("zpool", pool)]);
        for (name, value) in statistics(&text) {
            row.figure(format!("objset.{name}"), value);
        }
    }
}

/// Parses lines such as `hits                            4    8772612`: name, type and value. The types 3 and 4 are numbers.
fn statistics(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, kind, value) = (words.next()?, words.next()?, words.next()?);
        let value = match kind {
            "3" => value.parse::<i64>().ok()? as f64,
            "4" => value.parse::<u64>().ok()? as f64,
            _ => return None,
        };
        // The first line of the file is numbers.
        name.starts_with(|one: char| one.is_ascii_alphabetic())
            .then_some((name, value))
    })
}

/// Parses a line with names, and a line with the values.
fn totals(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("nread"));
    let names = lines.next().unwrap_or_default().split_ascii_whitespace();
    let values = lines.next().unwrap_or_default().split_ascii_whitespace();
    let pairs = names.zip(values);
    pairs.filter_map(|(name, value)| Some((name, value.parse::<u64>().ok()? as f64)))
}

/// Returns the name of the data set from a line such as `dataset_name                    7    pool1/home`. The name can have spaces.
fn dataset_name(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("dataset_name"))?;
    let (_, name) = line.trim_start().split_once(' ')?;
    Some(name.trim_start())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Zfs};

    #[test]
    fn the_module_its_pools_and_data_sets_are_read() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("spl/kstat/zfs/{name}");
        write_files(
            folder.path(),
            &[
                (
                    &file("zil"),
                    "8 1 0x01 13 624 66665 77777\nname                            type data\n\
                    zil_commit_count                4    10\nzil_text 7 word\n",
                ),
                (&file("unknown"), "name type data\nnew 4 1\n"),
                (
                    &file("pool3/io"),
                    "12 3 0x00 1 80 79205351707403 395818011156865\nnread    nwritten\n1884160  3206144\n",
                ),
                (
                    &file("pool3/objset-2"),
                    "24 1 0x01 7 2160 221611904716 7145015038451\nname                            type data\n\
                    dataset_name                    7    pool3/dataset with  space\n\
                    nread                           4    28\n",
                ),
                (&file("pool3/state"), "ONLINE\n"),
            ],
        );
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "zil.zil_commit_count 10",
            "zpool=pool3 io.nread 1884160",
            "zpool=pool3 io.nwritten 3206144",
            "dataset=pool3/dataset with  space zpool=pool3 objset.nread 28",
        ];
        assert_eq!(lines_of(&mut Zfs(roots)), expected);
    }
}
