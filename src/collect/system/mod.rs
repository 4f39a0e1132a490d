//! The source "system": [`SystemCollector`] reads the host. A metric family is the code that reads figures of one kind, for
//! example memory. Each metric family has its own file.

mod agent;
mod btrfs;
pub(in crate::collect) mod clock;
mod conntrack;
mod containers;
mod cpu;
mod cpu_frequency;
mod cpu_throttle;
mod disk_io;
pub(in crate::collect) mod disks;
mod edac;
mod entropy;
mod family;
mod file_handles;
mod gpu;
mod guest;
mod host;
mod kept_files;
mod load;
mod lookup;
mod memory;
mod network;
mod nvme;
mod os_release;
mod power_supply;
mod pressure;
mod proc_stat;
mod process;
mod process_choice;
mod process_files;
mod process_io;
mod raid;
mod root_disk;
mod sampler;
pub(in crate::collect) mod sensors;
mod space;
mod units;
mod uptime;
mod users;
mod virtualization;
mod volumes;
mod zfs;

pub use kept_files::most_kept_files;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::blocking::Blocking;
use super::docker::Containers;
use super::{Collector, Round, Source};
use crate::messages::SystemSample;
use crate::model::SystemMetrics;
use crate::settings::{CollectSettings, Collectors, HostRoot, Patterns, Redaction};
use containers::ContainerNames;
use family::{AnyFamily, Failures, entry};
use gpu::Gpus;
use sampler::Sampler;
use units::{UnitGroups, Units};
use users::Users;

/// Returns all metric families, in the order in which they are read.
fn families(options: &HostOptions) -> Vec<Box<dyn AnyFamily>> {
    let HostOptions {
        top_processes,
        root,
        disks_exclude,
        networks_exclude,
        commands,
        units,
        collectors: _,
    } = options;
    vec![
        entry(memory::Memory::default()),
        entry(cpu::Cpus::default()),
        // Must come after memory, because each process is published with its share of the host's memory, and after cpu, because the CPU
        // time of the host shows whether idle processes must be read.
        entry(process::Processes::new(
            *top_processes,
            Users::new(root.clone()),
            commands.clone(),
        )),
        entry(
            network::Interfaces::new(Path::new("/sys/class/net")).without(networks_exclude.clone()),
        ),
        entry(disk_io::Devices::new(Path::new("/sys/block")).without(disks_exclude.clone())),
        entry(root_disk::RootDisk::new(root.clone())),
        entry(disks::Disks::new(root.clone()).without(disks_exclude.clone())),
        entry(load::Load::default()),
        entry(uptime::Uptime::default()),
        entry(sensors::Sensors::new(Path::new("/sys/class/hwmon"))),
        entry(pressure::HostPressure::default()),
        entry(file_handles::FileHandles::default()),
        entry(raid::RaidArrays::default()),
        entry(power_supply::PowerSupplies::new(Path::new(
            "/sys/class/power_supply",
        ))),
        entry(UnitGroups::new(*units)),
        entry(conntrack::Conntrack::new(Path::new(
            "/proc/sys/net/netfilter",
        ))),
        entry(entropy::Entropy::new(Path::new("/proc/sys/kernel/random"))),
        entry(clock::Clock),
        // Must come after cpu, because the snapshot lists the frequencies in the order of the cores.
        entry(cpu_frequency::CpuFrequencies::new(Path::new(
            "/sys/devices/system/cpu",
        ))),
        entry(cpu_throttle::Throttles::new(Path::new(
            "/sys/devices/system/cpu",
        ))),
        entry(edac::MemoryControllers::new(Path::new(
            "/sys/devices/system/edac/mc",
        ))),
        entry(zfs::Zfs::new(Path::new("/proc/spl/kstat/zfs"))),
        entry(btrfs::Btrfs::new(Path::new("/sys/fs/btrfs"))),
        entry(nvme::NvmeControllers::new(Path::new("/sys/class/nvme"))),
    ]
}

/// What the source reads of the host.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// The length of each published list of processes: by CPU use, by memory and by I/O.
    pub top_processes: usize,
    /// The directory with the host's own files.
    pub root: HostRoot,
    /// Mount points and devices that are left out.
    pub disks_exclude: Patterns,
    /// Network interfaces that are left out.
    pub networks_exclude: Patterns,
    /// The collectors of the kernel's own figures that are on although they are off by default.
    pub collectors: Collectors,
    /// The parts of command lines that are replaced. None if command lines are not published.
    pub commands: Option<Redaction>,
    /// The number of published units of systemd. 0 switches the list of units off. Failed units are always published.
    pub units: usize,
}

impl From<&CollectSettings> for HostOptions {
    fn from(settings: &CollectSettings) -> Self {
        Self {
            top_processes: settings.top_processes,
            root: settings.host_root.clone(),
            disks_exclude: settings.disks_exclude.clone(),
            networks_exclude: settings.networks_exclude.clone(),
            collectors: settings.collectors.clone(),
            commands: settings
                .process_commands
                .then(|| settings.log_redact.clone()),
            units: settings.units,
        }
    }
}

/// The actor that reads the host once a round.
pub type SystemCollector = Collector<HostSource>;

/// The host as a source.
pub struct HostSource {
    options: HostOptions,
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
    /// Creates the source. `interval` is the time between two rounds. `containers` are the known containers. If a process runs in
    /// a known container, the lists of processes name the container.
    #[must_use]
    pub fn new(options: HostOptions, interval: Duration, containers: Option<Containers>) -> Self {
        Self {
            units: Units::new(options.units > 0),
            options,
            containers,
            stand_for: super::stand_for(interval),
            sampler: Blocking::new("the host", None),
            gpus: Gpus::new(
                Path::new("/sys/bus/pci/devices"),
                Path::new("/sys/class/drm"),
            ),
            last: Arc::default(),
        }
    }
}

impl Source for HostSource {
    const NAME: &'static str = "system";

    type Sample = SystemSample;

    type News = ();

    async fn collect(&mut self) -> Round<SystemSample> {
        let options = self.options.clone();
        let containers = self.containers.clone();
        let names = move || {
            let known = containers.as_ref().map(Containers::known);
            known.map(ContainerNames::new).unwrap_or_default()
        };
        let (stand_for, last) = (self.stand_for, Arc::clone(&self.last));
        let read = self.sampler.read(move |sampler| {
            let new = || Sampler::new(options, stand_for);
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
                self.units.add_states(&mut metrics.units).await;
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
