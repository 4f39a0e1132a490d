//! Reads the number of connections that the kernel tracks.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{Lookup, number_in};
use crate::collect::kernel_file::KernelFile;
use crate::model;

/// The metric family. Source: `nf_conntrack_count` and `nf_conntrack_max` in `/proc/sys/net/netfilter`. The kernel has the files only
/// while its module `nf_conntrack` is loaded.
pub(super) struct Conntrack {
    folder: PathBuf,
    /// The files with the number of connections and with its limit, if they exist.
    files: Lookup<[KernelFile; 2]>,
}

impl MetricFamily for Conntrack {
    const NAME: &'static str = "conntrack";

    type Figures = Option<model::Conntrack>;
    /// The family never fails: a host that does not track connections has no figures.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Option<model::Conntrack>, Infallible> {
        let Self { files, folder } = self;
        let find = || {
            let files = ["nf_conntrack_count", "nf_conntrack_max"].map(|file| folder.join(file));
            let exist = files.iter().all(|file| file.exists());
            exist
                .then(|| files.map(KernelFile::new))
                .into_iter()
                .collect()
        };
        let read = |[count, limit]: &mut [KernelFile; 2]| {
            Some(model::Conntrack {
                entries: number_in(count.read().ok()?)?,
                limit: number_in(limit.read().ok()?)?,
            })
        };
        Ok(files.found(find).first_mut().and_then(read))
    }

    fn publish(&mut self, conntrack: Option<model::Conntrack>, round: &mut Round<'_>) {
        round.metrics.conntrack = conntrack;
    }
}

impl Conntrack {
    /// Creates the family. `folder` is `/proc/sys/net/netfilter`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: Lookup::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Conntrack;
    use crate::collect::system::family::read_once;
    use crate::model;

    #[test]
    fn the_figures_are_those_of_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let mut conntrack = Conntrack::new(folder.path());
        assert_eq!(read_once(&mut conntrack), None);
        // Values of node_exporter's fixtures.
        fs::write(folder.path().join("nf_conntrack_count"), "123\n").unwrap();
        fs::write(folder.path().join("nf_conntrack_max"), "65536\n").unwrap();
        // The family looks again only after a minute.
        assert_eq!(read_once(&mut conntrack), None);
        let mut conntrack = Conntrack::new(folder.path());
        let expected = model::Conntrack {
            entries: 123,
            limit: 65_536,
        };
        assert_eq!(read_once(&mut conntrack), Some(expected));
        fs::write(folder.path().join("nf_conntrack_max"), "many\n").unwrap();
        assert_eq!(read_once(&mut conntrack), None);
    }

    #[test]
    fn this_host_has_the_figures_if_it_tracks_connections() {
        let folder = Path::new("/proc/sys/net/netfilter");
        let read = read_once(&mut Conntrack::new(folder));
        let limit = fs::read_to_string(folder.join("nf_conntrack_max"));
        let limit = limit.ok().map(|limit| limit.trim().parse().unwrap());
        assert_eq!(read.map(|read| read.limit), limit);
    }
}
