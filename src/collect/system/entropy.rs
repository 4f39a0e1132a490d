//! Reads the entropy of the kernel's random number generator.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{Lookup, number};
use crate::model;

/// The size of the pool with Linux 5.18 and later, in bits. With this size, the available entropy is always 256 bits once the generator
/// is ready. Source: the kernel's `drivers/char/random.c`.
const CONSTANT_POOL: u64 = 256;

/// The metric family. Source: `entropy_avail` and `poolsize` in `/proc/sys/kernel/random`.
pub(super) struct Entropy {
    folder: PathBuf,
    /// The size of the pool in bits. Empty if the figures are constant.
    pool: Lookup<u64>,
}

impl MetricFamily for Entropy {
    const NAME: &'static str = "entropy";

    type Figures = Option<model::Entropy>;
    /// The family never fails: it has no figures if the files cannot be read.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Option<model::Entropy>, Infallible> {
        let Self { folder, pool } = self;
        let find = || {
            let bits = number(&folder.join("poolsize"));
            bits.filter(|bits| *bits > CONSTANT_POOL)
                .into_iter()
                .collect()
        };
        let read = |pool_bits: &u64| {
            Some(model::Entropy {
                available_bits: number(&folder.join("entropy_avail"))?,
                pool_bits: *pool_bits,
            })
        };
        Ok(pool.found(find).first().and_then(read))
    }

    fn publish(&mut self, entropy: Option<model::Entropy>, round: &mut Round<'_>) {
        round.metrics.entropy = entropy;
    }
}

impl Entropy {
    /// Creates the family. `folder` is `/proc/sys/kernel/random`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            pool: Lookup::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Entropy;
    use crate::collect::system::family::read_once;
    use crate::model;

    #[test]
    fn only_a_pool_whose_entropy_changes_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let read = |available: &str, pool: &str| {
            fs::write(folder.path().join("entropy_avail"), available).unwrap();
            fs::write(folder.path().join("poolsize"), pool).unwrap();
            read_once(&mut Entropy::new(folder.path()))
        };
        // Values of node_exporter's fixtures.
        let expected = model::Entropy {
            available_bits: 1337,
            pool_bits: 4096,
        };
        assert_eq!(read("1337\n", "4096\n"), Some(expected));
        assert_eq!(read("256\n", "256\n"), None);
        assert_eq!(read("-1\n", "4096\n"), None);
        assert_eq!(read("1\n", "much\n"), None);
    }
}
