//! One reading of the host, from what is kept between readings.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::system::uname;
use sysinfo::System;

use super::family::{Failures, Standing};
use super::os_release::OsRelease;
use super::users::Users;
use super::{ContainerNames, cpu, disk_io, disks, memory, network, process, temperatures};
use crate::collect::pressure;
use crate::messages::{AgentUsage, SystemSample};
use crate::model::{
    Disk, DiskIo, Exact, ExactMemory, HostInfo, LoadAverage, NetworkInterface, Pressures,
    SystemMetrics, Temperature, figure,
};
use crate::settings::HostRoot;

/// How far apart the first two readings are: the kernel counts CPU in ticks of 10 ms, so that
/// the first figures are good to some 4 %.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// How much time the processes' figures are over at least, for the same reason: where rounds come faster, they stay
/// as they are for some.
const PROCESSES_AFTER: Duration = Duration::from_millis(400);
const MIB: f64 = 1_048_576.0;

/// Why a family could not be read.
#[derive(Debug, thiserror::Error)]
enum Error {
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
    own: process::OwnUsage,
    /// What came of the last pass over the processes, and when that was.
    last_pass: Option<(process::Read, Instant)>,
    interfaces: network::Interfaces,
    devices: disk_io::Devices,
    disks: disks::Disks,
    sensors: temperatures::Sensors,
    /// When the counters of interfaces and of devices were read last.
    network_at: Instant,
    devices_at: Instant,
    host: Arc<HostInfo>,
    os: OsRelease,
    root: HostRoot,
    standing: Always,
    /// How long the last figures of a family that fails are published.
    stand_for: Duration,
}

/// The figures that every snapshot has.
#[derive(Default)]
struct Always {
    cpu_percent: Standing<f64>,
    memory: Standing<memory::Memory>,
    root_disk: Standing<(f64, f64)>,
    uptime: Standing<u64>,
    load: Standing<LoadAverage>,
    network: Standing<()>,
    busiest: Standing<()>,
}

/// What was read of each family in a round; none of those that could not be read.
struct Families {
    memory: Option<memory::Memory>,
    /// The memory of this round, or the last one that stands.
    standing_memory: Option<memory::Memory>,
    /// Whether there was a reading that `cpu` is compared with.
    had_cpu: bool,
    cpu: Option<cpu::Load>,
    processes: Option<process::Read>,
    network: Option<Vec<NetworkInterface>>,
    disk_io: Option<Vec<DiskIo>>,
    root_disk: Option<(f64, f64)>,
    disks: Option<Vec<Disk>>,
    load: Option<LoadAverage>,
    uptime: Option<u64>,
    temperatures: Option<Vec<Temperature>>,
    pressure: Option<Option<Pressures>>,
}

impl Sampler {
    /// Takes the reading that the first sample is compared with, and lets some time pass, so
    /// that not even the first sample has rates of 0. Blocks.
    ///
    /// The last figures of a family that fails are published for `stand_for`.
    pub(super) fn new(top_processes: usize, root: HostRoot, stand_for: Duration) -> Self {
        let users = Users::new(root.clone());
        let mut sampler = Self {
            cpus: cpu::Cpus::default(),
            processes: process::Processes::new(top_processes, users),
            own: process::OwnUsage::default(),
            last_pass: None,
            interfaces: network::Interfaces::new(Path::new("/sys/class/net")),
            devices: disk_io::Devices::new(Path::new("/sys/block")),
            disks: disks::Disks::new(root.clone()),
            sensors: temperatures::Sensors::new(Path::new("/sys/class/hwmon")),
            network_at: Instant::now(),
            devices_at: Instant::now(),
            host: Arc::default(),
            os: OsRelease::new(root.clone()),
            root,
            standing: Always::default(),
            stand_for,
        };
        // What cannot be read here is named when it is read for the first sample.
        let _ = sampler.cpus.read();
        let _ = sampler.processes.read(0, &ContainerNames::default());
        let _ = sampler.own.read();
        let mut unnamed = Failures::default();
        sampler.network(&mut unnamed);
        sampler.disk_io(&mut unnamed);
        thread::sleep(FIRST_INTERVAL);
        sampler
    }

    /// Reads every family once, and says which could not be read. `last` is what was published last. Blocks.
    pub(super) fn sample(
        &mut self,
        names: &ContainerNames,
        last: &SystemMetrics,
    ) -> (SystemSample, Failures) {
        let mut failures = Failures::default();
        let read = self.read(names, &mut failures);
        self.refresh_host(read.cpu.as_ref(), &mut failures);
        let agent = AgentUsage {
            engine_cpu_percent: read
                .processes
                .as_ref()
                .and_then(|processes| processes.engine_cpu_percent),
            ..failures
                .read("agent", || self.own.read())
                .unwrap_or_default()
        };
        let sample = SystemSample {
            metrics: Arc::new(self.compose(read, last)),
            host: Arc::clone(&self.host),
            agent,
        };
        (sample, failures)
    }

    /// Reads every family once.
    fn read(&mut self, names: &ContainerNames, failures: &mut Failures) -> Families {
        let memory = failures.read("memory", || {
            memory::read().map_err(unreadable("/proc/meminfo"))
        });
        // Processes are published with their share of it.
        let standing_memory = self.standing.memory.now(memory, self.stand_for);
        let host_memory = standing_memory.map_or(0, |memory| memory.total);
        let had_cpu = self.cpus.have_been_read();
        Families {
            memory,
            standing_memory,
            had_cpu,
            cpu: failures.read("cpu", || self.cpus.read().map_err(unreadable("/proc/stat"))),
            processes: self.processes(host_memory, names, failures),
            network: self.network(failures),
            disk_io: self.disk_io(failures),
            root_disk: failures.read("root_disk", || {
                disks::root(&self.root).map_err(unreadable("the host's root directory"))
            }),
            disks: failures.read("disks", || {
                let disks = self.disks.read();
                disks.map_err(unreadable("/proc/self/mountinfo"))
            }),
            load: failures.read("load", load_average),
            uptime: failures.read("uptime", uptime),
            temperatures: failures.read("temperatures", || Ok::<_, Error>(self.sensors.read())),
            pressure: failures.read("pressure", pressure),
        }
    }

    /// The metrics of a round. The fields that every snapshot has keep their last figures where a family has none.
    fn compose(&mut self, read: Families, last: &SystemMetrics) -> SystemMetrics {
        let (stand_for, standing) = (self.stand_for, &mut self.standing);
        let mib = |bytes: u64| figure(bytes as f64 / MIB, 2);
        let memory = read.memory;
        let swap = memory.and_then(|memory| memory.swap);
        let root_disk = standing.root_disk.now(read.root_disk, stand_for);
        let (disk_used, disk_total) = root_disk.unwrap_or_default();
        let (cores, times, percent, seconds) = match read.cpu {
            Some(cpu) if read.had_cpu => {
                (cpu.cores, Some(cpu.times), Some(cpu.percent), cpu.seconds)
            }
            // What the CPUs have done since no reading is not known.
            Some(cpu) => (Vec::new(), None, None, cpu.seconds),
            None => Default::default(),
        };
        let percent = standing.cpu_percent.now(percent, stand_for);
        let network_stands = standing
            .network
            .now(read.network.as_ref().map(|_| ()), stand_for);
        let stale_network = || {
            let without_rates = last.network.iter().map(NetworkInterface::without_rates);
            network_stands.map(|()| without_rates.collect())
        };
        let (counts, busiest, largest) = match read.processes {
            Some(read) => (Some(read.counts), Some(read.busiest), read.largest),
            None => (None, None, Vec::new()),
        };
        let busiest_stand = standing
            .busiest
            .now(busiest.as_ref().map(|_| ()), stand_for);
        let busiest = busiest.or_else(|| busiest_stand.map(|()| last.top_processes.clone()));
        SystemMetrics {
            exact: Exact {
                cpu_seconds: seconds,
                memory: memory.map(|memory| ExactMemory {
                    total: memory.total,
                    available: memory.available,
                    cached: memory.cached,
                    swap_total: swap.unwrap_or_default().0,
                    swap_used: swap.unwrap_or_default().1,
                }),
                load_avg: read.load,
                sensors: self.sensors.named(),
            },
            cpu_percent: [percent.unwrap_or_default()],
            cpu_cores: cores,
            cpu_times: times,
            memory_used: read
                .standing_memory
                .map_or(0.0, |memory| mib(memory.total - memory.available)),
            memory_total: read.standing_memory.map_or(0.0, |memory| mib(memory.total)),
            memory_available: memory.map(|memory| mib(memory.available)),
            memory_cached: memory.and_then(|memory| memory.cached).map(mib),
            swap_used: swap.map(|(_, used)| mib(used)),
            swap_total: swap.map(|(total, _)| mib(total)),
            disk_used,
            disk_total,
            disks: read.disks.unwrap_or_default(),
            disk_io: read.disk_io.unwrap_or_default(),
            uptime: standing
                .uptime
                .now(read.uptime, stand_for)
                .unwrap_or_default(),
            load_avg: standing.load.now(read.load, stand_for).unwrap_or_default(),
            network: read.network.or_else(stale_network).unwrap_or_default(),
            pressure: read.pressure.flatten(),
            temperatures: read.temperatures.unwrap_or_default(),
            // Asked of others: see `HostSource`.
            failed_units: None,
            gpus: None,
            processes: counts,
            top_processes: busiest.unwrap_or_default(),
            top_memory: largest,
        }
    }

    /// The processes, from a pass over them unless there has just been one.
    fn processes(
        &mut self,
        host_memory: u64,
        names: &ContainerNames,
        failures: &mut Failures,
    ) -> Option<process::Read> {
        let now = Instant::now();
        if let Some((read, at)) = &self.last_pass
            && now - *at < PROCESSES_AFTER
        {
            return Some(read.clone());
        }
        let read = failures.read("processes", || {
            let read = self.processes.read(host_memory, names);
            read.map_err(unreadable("/proc"))
        });
        self.last_pass = read.clone().map(|read| (read, now));
        read
    }

    /// The interfaces. Their rates are over the time since they were read last, also after they could not be.
    fn network(&mut self, failures: &mut Failures) -> Option<Vec<NetworkInterface>> {
        let now = Instant::now();
        let seconds = (now - self.network_at).as_secs_f64();
        let read = failures.read("network", || {
            let read = self.interfaces.read(seconds);
            read.map_err(unreadable("/proc/net/dev"))
        });
        if read.is_some() {
            self.network_at = now;
        }
        read
    }

    /// The block devices. Their rates are over the time since they were read last, also after they could not be.
    fn disk_io(&mut self, failures: &mut Failures) -> Option<Vec<DiskIo>> {
        let now = Instant::now();
        let seconds = (now - self.devices_at).as_secs_f64();
        let read = failures.read("disk_io", || {
            let read = self.devices.read(seconds);
            read.map_err(unreadable("/proc/diskstats"))
        });
        if read.is_some() {
            self.devices_at = now;
        }
        read
    }

    /// Each of these may change while the agent runs: the host's name, its CPUs, its version in an upgrade, and when it
    /// booted, by its clock, as that is set. What cannot be read stays as it was.
    fn refresh_host(&mut self, cpu: Option<&cpu::Load>, failures: &mut Failures) {
        let boot_time = cpu.and_then(|cpu| cpu.boot_time);
        if cpu.is_some() && boot_time.is_none() {
            failures.note("boot_time", "/proc/stat does not tell it");
        }
        let uname = uname();
        let now = HostInfo {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            os: self.os.name().to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            cpus: cpu.map_or(self.host.cpus, |cpu| cpu.cpus),
            boot_time: boot_time.unwrap_or(self.host.boot_time),
        };
        if *self.host != now {
            self.host = Arc::new(now);
        }
    }
}

/// Source: `/proc/pressure`; none where the kernel does not have it, or it is switched off.
fn pressure() -> Result<Option<Pressures>, Error> {
    let mut failed = None;
    let pressures =
        pressure::of_each(
            |resource| match fs::read(Path::new("/proc/pressure").join(resource)) {
                Ok(text) => pressure::parse(&String::from_utf8_lossy(&text)),
                Err(error) => {
                    failed.get_or_insert(error);
                    None
                }
            },
        );
    match failed {
        Some(error) if !is_not_offered(&error) => Err(unreadable("/proc/pressure")(error)),
        _ => Ok(pressures),
    }
}

/// Whether the kernel does not offer a file at all.
fn is_not_offered(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

/// Source: `/proc/loadavg`.
fn load_average() -> Result<LoadAverage, Error> {
    let text = fs::read("/proc/loadavg").and_then(|text| {
        let parsed = parse_load(&String::from_utf8_lossy(&text));
        parsed.ok_or(io::ErrorKind::InvalidData.into())
    });
    text.map_err(unreadable("/proc/loadavg"))
}

/// `0.52 0.58 0.59 1/467 12345`: the averages come first.
fn parse_load(loadavg: &str) -> Option<LoadAverage> {
    let mut fields = loadavg.split_ascii_whitespace();
    let mut next = || {
        let average: f64 = fields.next()?.parse().ok()?;
        (average.is_finite() && average >= 0.0).then(|| figure(average, 2))
    };
    Some(LoadAverage {
        one: next()?,
        five: next()?,
        fifteen: next()?,
    })
}

/// Source: `/proc/uptime`, by way of sysinfo, which takes a file that it cannot read for 0.
fn uptime() -> Result<u64, Error> {
    match System::uptime() {
        Ok(0) => Err(unreadable("/proc/uptime")(
            io::ErrorKind::InvalidData.into(),
        )),
        Ok(seconds) => Ok(seconds),
        Err(source) => Err(Error::Sysinfo {
            what: "/proc/uptime",
            source,
        }),
    }
}

fn unreadable(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Unreadable { what, source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ContainerNames, HostRoot, Sampler, SystemMetrics, parse_load};

    #[test]
    fn load_averages_are_three_numbers_or_none() {
        let load = parse_load("0.52 0.58 1.591 1/467 12345\n").unwrap();
        assert_eq!((load.one, load.five, load.fifteen), (0.52, 0.58, 1.59));
        for text in [
            "",
            "much\n",
            "0.5 0.5",
            "0.5 x 0.5",
            "NaN 0 0",
            "-1 0 0",
            "inf 0 0",
        ] {
            assert!(parse_load(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_first_reading_is_already_true() {
        let mut sampler = Sampler::new(5, HostRoot::default(), Duration::from_secs(30));
        let (sample, failures) =
            sampler.sample(&ContainerNames::default(), &SystemMetrics::default());
        assert_eq!(failures.error(), None);
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
