//! One reading of the host, from what is kept between readings.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::system::uname;
use sysinfo::System;
use tracing::trace;

use super::os_release::OsRelease;
use super::users::Users;
use super::{ContainerNames, cpu, disk_io, disks, memory, network, process, temperatures};
use crate::collect::pressure;
use crate::messages::SystemSample;
use crate::model::{
    DiskIo, Exact, HostInfo, LoadAverage, NetworkInterface, Pressures, SystemMetrics, figure,
};
use crate::settings::HostRoot;

/// How far apart the first two readings are: the kernel counts CPU in ticks of 10 ms, so that
/// the first figures are good to some 4 %.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// How much time the processes' figures are over at least, for the same reason: where rounds come faster, they stay
/// as they are for some.
const PROCESSES_AFTER: Duration = Duration::from_millis(400);
const MIB: f64 = 1_048_576.0;

/// Why the host could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file that every Linux host has.
    #[error("cannot read {what}")]
    Unreadable {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// What sysinfo reads.
    #[error("cannot read {what}")]
    Sysinfo {
        what: &'static str,
        #[source]
        source: sysinfo::Error,
    },
}

/// Reads the host; keeps what the next reading compares with.
pub(super) struct Sampler {
    cpus: cpu::Cpus,
    processes: process::Processes,
    /// What came of the last pass over the processes, and when that was.
    last_pass: Option<(process::Read, Instant)>,
    interfaces: network::Interfaces,
    devices: disk_io::Devices,
    disks: disks::Disks,
    sensors: temperatures::Sensors,
    /// When counters were read last.
    read_at: Instant,
    host: Arc<HostInfo>,
    os: OsRelease,
    root: HostRoot,
}

impl Sampler {
    /// Takes the reading that the first sample is compared with, and lets some time pass, so
    /// that not even the first sample has rates of 0. Blocks.
    pub(super) fn new(top_processes: usize, root: HostRoot) -> Result<Self, Error> {
        let users = Users::new(root.clone());
        let processes = process::Processes::new(top_processes, users);
        let mut sampler = Self {
            cpus: cpu::Cpus::default(),
            processes: processes.map_err(unreadable("/proc"))?,
            last_pass: None,
            interfaces: network::Interfaces::new(Path::new("/sys/class/net")),
            devices: disk_io::Devices::new(Path::new("/sys/block")),
            disks: disks::Disks::new(root.clone()).map_err(unreadable("/proc/self/mountinfo"))?,
            sensors: temperatures::Sensors::new(Path::new("/sys/class/hwmon")),
            read_at: Instant::now(),
            host: Arc::default(),
            os: OsRelease::new(root.clone()),
            root,
        };
        let nobody = ContainerNames::default();
        sampler.cpus.read().map_err(unreadable("/proc/stat"))?;
        let processes = sampler.processes.read(0, &nobody);
        processes.map_err(unreadable("/proc"))?;
        sampler.counters()?;
        thread::sleep(FIRST_INTERVAL);
        Ok(sampler)
    }

    /// Reads everything once. Blocks.
    pub(super) fn sample(&mut self, names: &ContainerNames) -> Result<SystemSample, Error> {
        let memory = timed("memory", memory::read).map_err(unreadable("/proc/meminfo"))?;
        let load = timed("cpu", || self.cpus.read()).map_err(unreadable("/proc/stat"))?;
        let processes = timed("processes", || self.processes(memory.total, names))?;
        let (network, disk_io) = self.counters()?;
        self.refresh_host(load.cpus, load.boot_time);
        let (disk_used, disk_total) =
            disks::root(&self.root).map_err(unreadable("the host's root directory"))?;
        let disks = timed("disks", || self.disks.read());
        let averages = System::load_average().map_err(sysinfo("/proc/loadavg"))?;
        let temperatures = timed("temperatures", || self.sensors.read());
        let mib = |bytes: u64| figure(bytes as f64 / MIB, 2);
        let swap = memory.swap.unwrap_or_default();
        let exact = Exact {
            cpu_seconds: load.seconds,
            memory_total: memory.total,
            memory_available: memory.available,
            memory_cached: memory.cached,
            swap_total: swap.0,
            swap_used: swap.1,
            sensors: self.sensors.named(),
        };
        let metrics = SystemMetrics {
            exact,
            cpu_percent: [load.percent],
            cpu_cores: load.cores,
            cpu_times: Some(load.times),
            memory_used: mib(memory.total - memory.available),
            memory_total: mib(memory.total),
            memory_available: Some(mib(memory.available)),
            memory_cached: memory.cached.map(mib),
            swap_used: memory.swap.map(|(_, used)| mib(used)),
            swap_total: memory.swap.map(|(total, _)| mib(total)),
            disk_used,
            disk_total,
            disks: disks.map_err(unreadable("/proc/self/mountinfo"))?,
            disk_io,
            uptime: System::uptime().map_err(sysinfo("/proc/uptime"))?,
            load_avg: LoadAverage {
                one: figure(averages.one, 2),
                five: figure(averages.five, 2),
                fifteen: figure(averages.fifteen, 2),
            },
            network,
            pressure: timed("pressure", pressure),
            temperatures,
            // Asked of others: see `HostSource`.
            failed_units: None,
            gpus: None,
            processes: Some(processes.counts),
            top_processes: processes.busiest,
            top_memory: processes.largest,
        };
        Ok(SystemSample {
            metrics: Arc::new(metrics),
            host: Arc::clone(&self.host),
            agent: processes.agent,
        })
    }

    /// The processes, from a pass over them unless there has just been one.
    fn processes(
        &mut self,
        host_memory: u64,
        names: &ContainerNames,
    ) -> Result<process::Read, Error> {
        let now = Instant::now();
        if let Some((read, at)) = &self.last_pass
            && now - *at < PROCESSES_AFTER
        {
            return Ok(read.clone());
        }
        let read = self.processes.read(host_memory, names);
        let read = read.map_err(unreadable("/proc"))?;
        self.last_pass = Some((read.clone(), now));
        Ok(read)
    }

    /// What has rates.
    fn counters(&mut self) -> Result<(Vec<NetworkInterface>, Vec<DiskIo>), Error> {
        let now = Instant::now();
        let seconds = (now - std::mem::replace(&mut self.read_at, now)).as_secs_f64();
        let network = timed("network", || self.interfaces.read(seconds));
        let network = network.map_err(unreadable("/proc/net/dev"))?;
        let disk_io = timed("disk_io", || self.devices.read(seconds));
        Ok((network, disk_io.map_err(unreadable("/proc/diskstats"))?))
    }

    /// Each of these may change while the agent runs: the host's name, its CPUs, its version in an upgrade, and when it
    /// booted, by its clock, as that is set.
    fn refresh_host(&mut self, cpus: u32, boot_time: u64) {
        let uname = uname();
        let now = HostInfo {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            os: self.os.name().to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            cpus,
            boot_time,
        };
        if *self.host != now {
            self.host = Arc::new(now);
        }
    }
}

/// Reads a family of figures, and says in the log how long that took: what a round costs is for all to see.
fn timed<T>(family: &'static str, read: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let figures = read();
    trace!(
        family,
        duration_us = started.elapsed().as_micros() as u64,
        "read"
    );
    figures
}

/// Source: `/proc/pressure`.
fn pressure() -> Option<Pressures> {
    pressure::of_each(|resource| {
        let text = fs::read_to_string(Path::new("/proc/pressure").join(resource)).ok()?;
        pressure::parse(&text)
    })
}

fn unreadable(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Unreadable { what, source }
}

fn sysinfo(what: &'static str) -> impl FnOnce(sysinfo::Error) -> Error {
    move |source| Error::Sysinfo { what, source }
}

#[cfg(test)]
mod tests {
    use super::{ContainerNames, HostRoot, Sampler};

    #[test]
    fn the_first_reading_is_already_true() {
        let sample = Sampler::new(5, HostRoot::default())
            .and_then(|mut sampler| sampler.sample(&ContainerNames::default()))
            .unwrap();
        assert!(sample.metrics.memory_total > 0.0);
        assert!(sample.metrics.memory_used < sample.metrics.memory_total);
        assert!(sample.metrics.disk_used < sample.metrics.disk_total);
        assert!(sample.metrics.uptime > 0);
        assert!(
            sample
                .metrics
                .network
                .iter()
                .any(|interface| interface.name == "lo")
        );
        assert_eq!(sample.metrics.top_processes.len(), 5);
        assert!(sample.agent.memory_rss > 0);
        assert!(sample.host.cpus > 0);
        assert!(sample.host.boot_time > 0);
    }
}
