//! One reading of the host, from what is kept between readings.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::system::uname;
use sysinfo::{MemoryRefreshKind, System};

use super::{cpu, disk, network, process};
use crate::messages::SystemSample;
use crate::model::{HostInfo, LoadAverage, SystemMetrics, figure};

/// How far apart the first two readings are: the kernel counts CPU in ticks of 10 ms, so that
/// the first figures are good to some 4 %.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
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
    system: System,
    cpus: cpu::Cpus,
    processes: process::Processes,
    host: Arc<HostInfo>,
}

impl Sampler {
    /// Takes the reading that the first sample is compared with, and lets some time pass, so
    /// that not even the first sample has rates of 0. Blocks.
    pub(super) fn new(top_processes: usize) -> Result<Self, Error> {
        let processes = process::Processes::new(top_processes).map_err(unreadable("/proc"))?;
        let mut sampler = Self {
            system: System::new().map_err(sysinfo("/proc"))?,
            cpus: cpu::Cpus::default(),
            processes,
            host: Arc::default(),
        };
        sampler.cpus.read().map_err(unreadable("/proc/stat"))?;
        sampler.processes.read(0).map_err(unreadable("/proc"))?;
        thread::sleep(FIRST_INTERVAL);
        Ok(sampler)
    }

    /// Reads everything once. Blocks.
    pub(super) fn sample(&mut self) -> Result<SystemSample, Error> {
        self.system
            .refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let memory_total = self.system.total_memory();
        let memory_used = memory_total.saturating_sub(self.system.available_memory());
        let load = self.cpus.read().map_err(unreadable("/proc/stat"))?;
        let busiest = self.processes.read(memory_total);
        let busiest = busiest.map_err(unreadable("/proc"))?;
        self.refresh_host(load.cpus)?;
        let (disk_used, disk_total) = disk::root().map_err(unreadable("/"))?;
        let averages = System::load_average().map_err(sysinfo("/proc/loadavg"))?;
        let metrics = SystemMetrics {
            cpu_percent: [figure(load.percent, 2)],
            memory_used: figure(memory_used as f64 / MIB, 2),
            memory_total: figure(memory_total as f64 / MIB, 2),
            disk_used,
            disk_total,
            uptime: System::uptime().map_err(sysinfo("/proc/uptime"))?,
            load_avg: LoadAverage {
                one: figure(averages.one, 2),
                five: figure(averages.five, 2),
                fifteen: figure(averages.fifteen, 2),
            },
            network: network::interfaces().map_err(unreadable("/proc/net/dev"))?,
            top_processes: busiest.top,
        };
        Ok(SystemSample {
            metrics: Arc::new(metrics),
            host: Arc::clone(&self.host),
            agent: busiest.agent,
        })
    }

    /// The name and the number of CPUs may change while the agent runs; the rest is read then.
    fn refresh_host(&mut self, cpus: u32) -> Result<(), Error> {
        let uname = uname();
        let hostname = uname.nodename().to_string_lossy();
        if self.host.cpus == cpus && self.host.hostname == hostname {
            return Ok(());
        }
        self.host = Arc::new(HostInfo {
            hostname: hostname.into_owned(),
            os: operating_system(),
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            cpus,
            boot_time: System::boot_time().map_err(sysinfo("/proc/stat"))?,
        });
        Ok(())
    }
}

/// Name and version, as far as `/etc/os-release` tells them.
fn operating_system() -> String {
    let name = System::name().unwrap_or_else(|_| "Linux".to_owned());
    match System::os_version() {
        Ok(version) => format!("{name} {version}"),
        Err(_) => name,
    }
}

fn unreadable(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Unreadable { what, source }
}

fn sysinfo(what: &'static str) -> impl FnOnce(sysinfo::Error) -> Error {
    move |source| Error::Sysinfo { what, source }
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn the_first_reading_is_already_true() {
        let sample = Sampler::new(5)
            .and_then(|mut sampler| sampler.sample())
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
