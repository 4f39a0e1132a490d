//! The host: [`SystemCollector`] and, one file per family, what it reads.

mod containers;
mod cpu;
mod disk_io;
mod disks;
mod family;
mod gpu;
mod memory;
mod network;
mod os_release;
mod process;
mod sampler;
mod temperatures;
mod units;
mod users;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::blocking::Blocking;
use super::docker::Containers;
use super::{Collector, Round, Source};
use crate::messages::SystemSample;
use crate::model::SystemMetrics;
use crate::settings::HostRoot;
use containers::ContainerNames;
use family::Failures;
use gpu::Gpus;
use sampler::Sampler;
use units::Units;

/// Which share of all files that the process may open may be kept open for one kind of figures.
const SHARE_OF_FILES: u64 = 16;

/// Reads the host, round after round.
pub type SystemCollector = Collector<HostSource>;

/// The host as a source.
pub struct HostSource {
    top_processes: usize,
    root: HostRoot,
    containers: Option<Containers>,
    /// How long the last figures of a family that fails are published.
    stand_for: Duration,
    sampler: Blocking<Option<Sampler>, (SystemSample, Failures)>,
    units: Units,
    gpus: Gpus,
    /// What was published last.
    last: Arc<SystemMetrics>,
}

/// How many files are kept open, of as many as the process may open.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    share(limit, process::MOST_KEPT_FILES)
}

/// How many of `most` files may be kept open.
fn may_keep(most: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile).current;
    share(limit.unwrap_or(u64::MAX), most)
}

fn share(limit: u64, most: u64) -> u64 {
    (limit / SHARE_OF_FILES).min(most)
}

impl HostSource {
    /// A source that lists the `top_processes` processes that use most, and says which of `containers` they
    /// run in, as far as those are known. The host's own files are below `root`. It is read every `interval`.
    #[must_use]
    pub fn new(
        top_processes: usize,
        root: HostRoot,
        interval: Duration,
        containers: Option<Containers>,
    ) -> Self {
        Self {
            top_processes,
            root,
            containers,
            stand_for: super::stand_for(interval),
            sampler: Blocking::new("the host", None),
            units: Units::new(),
            gpus: Gpus::new(Path::new("/sys/bus/pci/devices")),
            last: Arc::default(),
        }
    }
}

impl Source for HostSource {
    const NAME: &'static str = "system";

    type Sample = SystemSample;

    async fn collect(&mut self) -> Round<SystemSample> {
        let (top_processes, root) = (self.top_processes, self.root.clone());
        let containers = self.containers.clone();
        let names = move || {
            let known = containers.as_ref().map(Containers::known);
            known.map(ContainerNames::new).unwrap_or_default()
        };
        let (stand_for, last) = (self.stand_for, Arc::clone(&self.last));
        let read = self.sampler.read(move |sampler| {
            let new = || Sampler::new(top_processes, root, stand_for);
            sampler.get_or_insert_with(new).sample(&names(), &last)
        });
        let (read, failed_units, gpus) = tokio::join!(read, self.units.read(), self.gpus.read());
        match read {
            Ok((mut sample, mut failures)) => {
                let metrics = Arc::make_mut(&mut sample.metrics);
                match failed_units {
                    Ok(units) => metrics.failed_units = units,
                    Err(reason) => failures.note("failed_units", &reason),
                }
                metrics.gpus = gpus;
                self.last = Arc::clone(&sample.metrics);
                Round {
                    error: failures.error(),
                    ..Round::whole(sample)
                }
            }
            Err(late) => Round::failed(late),
        }
    }
}
