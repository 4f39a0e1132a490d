//! The source "system": [`SystemCollector`] reads the host. A metric family is the code that reads figures of one kind, for
//! example memory. Each metric family has its own file.

mod agent;
mod containers;
mod cpu;
mod disk_io;
mod disks;
mod family;
mod file_handles;
mod gpu;
mod host;
mod kept_files;
mod load;
mod memory;
mod network;
mod os_release;
mod pressure;
mod proc_stat;
mod process;
mod root_disk;
mod sampler;
mod space;
mod temperatures;
mod units;
mod uptime;
mod users;

pub use kept_files::most_kept_files;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::blocking::Blocking;
use super::docker::Containers;
use super::{Collector, Round, Source};
use crate::messages::SystemSample;
use crate::model::SystemMetrics;
use crate::settings::HostRoot;
use containers::ContainerNames;
use family::{AnyFamily, Failures, entry};
use gpu::Gpus;
use sampler::Sampler;
use units::Units;
use users::Users;

/// Returns all metric families, in the order in which they are read.
fn families(top_processes: usize, root: &HostRoot) -> Vec<Box<dyn AnyFamily>> {
    vec![
        entry(memory::Memory::default()),
        entry(cpu::Cpus::default()),
        // Must come after memory, because each process is published with its share of the host's memory.
        entry(process::Processes::new(
            top_processes,
            Users::new(root.clone()),
        )),
        entry(network::Interfaces::new(Path::new("/sys/class/net"))),
        entry(disk_io::Devices::new(Path::new("/sys/block"))),
        entry(root_disk::RootDisk::new(root.clone())),
        entry(disks::Disks::new(root.clone())),
        entry(load::Load::default()),
        entry(uptime::Uptime::default()),
        entry(temperatures::Sensors::new(Path::new("/sys/class/hwmon"))),
        entry(pressure::HostPressure),
        entry(file_handles::FileHandles),
    ]
}

/// The actor that reads the host once a round.
pub type SystemCollector = Collector<HostSource>;

/// The host as a source.
pub struct HostSource {
    top_processes: usize,
    root: HostRoot,
    containers: Option<Containers>,
    /// Maximum age of the figures that are published for a failed family.
    stand_for: Duration,
    sampler: Blocking<Option<Sampler>, (SystemSample, Failures)>,
    units: Units,
    gpus: Gpus,
    /// The metrics of the previous round.
    last: Arc<SystemMetrics>,
}

impl HostSource {
    /// Creates the source. The source publishes two lists of processes, each with `top_processes` processes: by CPU use and by
    /// memory. `root` is the directory with the host's own files. `interval` is the time between two rounds. `containers` are
    /// the known containers. If a process runs in a known container, the lists name the container.
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

    type News = ();

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
                    Err(reason) => failures.note("failed_units", &reason.to_string()),
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
