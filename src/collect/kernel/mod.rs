//! The kernel's own figures: more than a snapshot has by default, under the names of node_exporter's collectors. They cost nothing while
//! nobody wants them: [`KernelCollector`] reads them only for a request, and at each interval while a client gets them.
//!
//! Each family has its own file.

mod arp;
mod bcache;
mod bcachefs;
mod bonding;
mod btrfs;
mod conntrack;
mod containers;
mod cpufreq;
mod devices;
mod diskstats;
mod dmi;
mod dmmultipath;
mod edac;
mod entropy;
mod family;
mod fibrechannel;
mod filefd;
mod filesystem;
mod hwmon;
mod infiniband;
mod ipvs;
mod kernel_hung;
mod lines;
mod loadavg;
mod machine;
mod mdadm;
mod meminfo;
mod net_links;
mod netclass;
mod netdev;
mod netstat;
mod nfs;
mod nvme;
mod os;
mod per_cpu;
mod power_supply;
mod pressure;
mod proc_stat;
mod process;
mod processes;
mod rapl;
mod reader;
mod schedstat;
mod selinux;
mod sockstat;
mod softnet;
mod tapestats;
mod tcpstat;
mod thermal;
mod time;
mod timex;
mod udp_queues;
mod uname;
mod vmstat;
mod watchdog;
mod xfs;
mod zfs;

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Recipient, ResponseFuture, WrapFuture,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::system::HostOptions;
use crate::messages::{KernelReading, ReadKernel, StopCollecting};
use crate::model::Kernel;
use family::{Family, Roots};
use reader::{DEADLINE, MAX_AGE, Reader};

/// Returns the families whose figures the kernel has in its memory, in the order in which they are read.
fn of_memory(roots: &Roots, options: &HostOptions) -> Vec<Box<dyn Family>> {
    let host = &options.root;
    let exclude = &options.disks_exclude;
    let [stat, cpu] = proc_stat::families(roots);
    let links = net_links::Links::shared(roots, options.networks_exclude.clone());
    vec![
        stat,
        cpu,
        Box::new(schedstat::Schedstat(roots.clone())),
        Box::new(diskstats::Diskstats::new(
            roots.clone(),
            host.clone(),
            exclude.clone(),
        )),
        Box::new(filesystem::Filesystem::new(host.clone(), exclude.clone())),
        Box::new(loadavg::Loadavg(roots.clone())),
        Box::new(filefd::Filefd(roots.clone())),
        Box::new(pressure::Pressure(roots.clone())),
        Box::new(processes::Processes(roots.clone())),
        Box::new(process::Process::new(roots.clone())),
        Box::new(entropy::Entropy(roots.clone())),
        Box::new(time::Time(roots.clone())),
        Box::new(timex::Timex),
        Box::new(selinux::Selinux {
            roots: roots.clone(),
            host: host.clone(),
        }),
        Box::new(dmi::Dmi::new(roots.clone())),
        Box::new(os::Os::new(host.clone())),
        Box::new(uname::Uname),
        Box::new(meminfo::Meminfo(roots.clone())),
        Box::new(vmstat::Vmstat(roots.clone())),
        Box::new(netdev::Netdev::new(roots, &links)),
        Box::new(netclass::Netclass(links)),
        Box::new(netstat::Netstat(roots.clone())),
        Box::new(sockstat::Sockstat(roots.clone())),
        Box::new(softnet::Softnet(roots.clone())),
        Box::new(udp_queues::UdpQueues(roots.clone())),
        Box::new(arp::Arp {
            roots: roots.clone(),
            exclude: options.networks_exclude.clone(),
        }),
        Box::new(bonding::Bonding(roots.clone())),
        Box::new(conntrack::Conntrack(roots.clone())),
        Box::new(nfs::Nfs(roots.clone())),
        Box::new(nfs::Nfsd(roots.clone())),
        Box::new(ipvs::Ipvs(roots.clone())),
        Box::new(machine::Machine::new(roots.clone())),
        Box::new(kernel_hung::KernelHung(roots.clone())),
        Box::new(per_cpu::Interrupts(roots.clone())),
        Box::new(per_cpu::Softirqs(roots.clone())),
        Box::new(tcpstat::Tcpstat(roots.clone())),
    ]
}

/// Returns the families whose figures come from the drivers of devices, in the order in which they are read.
fn of_hardware(roots: &Roots) -> Vec<Box<dyn Family>> {
    vec![
        Box::new(hwmon::Hwmon::new(roots)),
        Box::new(thermal::Thermal(roots.clone())),
        Box::new(cpufreq::Cpufreq::new(roots)),
        Box::new(edac::Edac(roots.clone())),
        Box::new(mdadm::Mdadm(roots.clone())),
        Box::new(power_supply::PowerSupply(roots.clone())),
        Box::new(nvme::Nvme(roots.clone())),
        Box::new(rapl::Rapl::new(roots)),
        Box::new(watchdog::Watchdog(roots.clone())),
        Box::new(zfs::Zfs(roots.clone())),
        Box::new(xfs::Xfs(roots.clone())),
        Box::new(btrfs::Btrfs(roots.clone())),
        Box::new(bcache::Bcache(roots.clone())),
        Box::new(bcachefs::Bcachefs(roots.clone())),
        Box::new(tapestats::Tapestats(roots.clone())),
        Box::new(fibrechannel::Fibrechannel(roots.clone())),
        Box::new(infiniband::Infiniband(roots.clone())),
        Box::new(dmmultipath::Dmmultipath(roots.clone())),
    ]
}

/// The actor that reads the kernel's own figures, for clients and for requests.
pub struct KernelCollector {
    /// A request waits while another request reads.
    reader: Arc<Mutex<Reader>>,
    interval: Duration,
    /// Whether clients want the figures.
    wanted: watch::Receiver<bool>,
    sink: Recipient<KernelReading>,
}

impl KernelCollector {
    /// Creates the collector. While `wanted` is true, it reads the figures every `interval` and publishes them to `sink`. It
    /// leaves out the devices and interfaces that `options` leave out.
    #[must_use]
    pub fn new(
        interval: Duration,
        options: &HostOptions,
        wanted: watch::Receiver<bool>,
        sink: Recipient<KernelReading>,
    ) -> Self {
        let roots = Roots::default();
        let reader = Reader::new(
            of_memory(&roots, options),
            of_hardware(&roots),
            options.collectors.clone(),
        );
        Self {
            reader: Arc::new(Mutex::new(reader)),
            interval,
            wanted,
            sink,
        }
    }
}

impl Actor for KernelCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let rounds = publish_while_wanted(
            Arc::clone(&self.reader),
            self.interval,
            self.wanted.clone(),
            self.sink.clone(),
        );
        ctx.spawn(rounds.into_actor(self));
    }
}

impl Handler<StopCollecting> for KernelCollector {
    type Result = ();

    fn handle(&mut self, _: StopCollecting, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Publishes a reading every `every` while `wanted` is true. Ends with the sender of `wanted`.
async fn publish_while_wanted(
    reader: Arc<Mutex<Reader>>,
    every: Duration,
    mut wanted: watch::Receiver<bool>,
    sink: Recipient<KernelReading>,
) {
    while wanted.wait_for(|wanted| *wanted).await.is_ok() {
        // The first tick is immediate.
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while *wanted.borrow() {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = wanted.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            // The newest reading can be younger than a round and still be older than this tick.
            let kernel = reader.lock().await.read_again().await;
            sink.do_send(KernelReading(kernel));
        }
    }
}

impl Handler<ReadKernel> for KernelCollector {
    type Result = ResponseFuture<Result<Arc<Kernel>, String>>;

    fn handle(&mut self, request: ReadKernel, _: &mut Self::Context) -> Self::Result {
        let reader = Arc::clone(&self.reader);
        Box::pin(async move {
            // A request that has waited this long has probably been given up.
            let locked = timeout(DEADLINE, reader.lock()).await;
            let mut locked = locked.map_err(|_| "another reading hangs".to_owned())?;
            let kernel = locked.read(request).await;
            drop(locked);
            actix_rt::spawn(async move {
                sleep(MAX_AGE).await;
                reader.lock().await.forget_old();
            });
            Ok(kernel)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use actix::{Actor, Context, Handler};
    use tokio::sync::{mpsc, watch};
    use tokio::time::{sleep, timeout};

    use super::{
        HostOptions, KernelCollector, KernelReading, MAX_AGE, ReadKernel, Reader, Roots,
        of_hardware, of_memory,
    };
    use crate::messages::WantedFamilies;
    use crate::model::{Kernel, KernelStatus};
    use crate::settings::Collectors;

    /// A fake aggregator that passes the readings on.
    struct Sink(mpsc::UnboundedSender<KernelReading>);

    impl Actor for Sink {
        type Context = Context<Self>;
    }

    impl Handler<KernelReading> for Sink {
        type Result = ();

        fn handle(&mut self, reading: KernelReading, _: &mut Self::Context) {
            self.0.send(reading).unwrap();
        }
    }

    fn collector() -> (
        KernelCollector,
        watch::Sender<bool>,
        mpsc::UnboundedReceiver<KernelReading>,
    ) {
        let (sink, readings) = mpsc::unbounded_channel();
        let (wanted, wants) = watch::channel(false);
        let sink = Sink(sink).start().recipient();
        let collector = KernelCollector::new(
            Duration::from_millis(10),
            &HostOptions::default(),
            wants,
            sink,
        );
        (collector, wanted, readings)
    }

    #[actix::test]
    async fn figures_are_read_only_while_somebody_wants_them() {
        let (collector, wanted, mut readings) = collector();
        let address = collector.start();
        let mut next = async |wait| timeout(Duration::from_millis(wait), readings.recv()).await;
        assert!(next(100).await.is_err(), "nobody wants the figures");
        for _ in 0..2 {
            wanted.send_replace(true);
            assert!(next(5000).await.is_ok());
            assert!(next(5000).await.is_ok());
            wanted.send_replace(false);
            // A reading that has begun still comes.
            let _ = next(100).await;
            while next(100).await.is_ok() {}
        }
        let request = ReadKernel::default();
        assert!(address.send(request).await.unwrap().is_ok());
        assert!(next(100).await.is_err(), "the request is answered directly");
    }

    #[actix::test]
    async fn all_families_of_this_host_can_be_read() {
        let (collector, _wanted, _readings) = collector();
        let mut reader = collector.reader.lock().await;
        let first = reader.read(ReadKernel::default()).await;
        for family in &first.families {
            let is_failed = matches!(family.status, KernelStatus::Failed(_));
            assert!(!is_failed, "{family:?}");
        }
        let mut names: Vec<_> = first.families.iter().map(|one| one.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        let chosen = || ReadKernel {
            families: WantedFamilies::Only(vec!["vmstat".to_owned()]),
            containers: Vec::new(),
        };
        for wanted in [ReadKernel::default(), chosen()] {
            let second = reader.read(wanted).await;
            assert!(Arc::ptr_eq(&first, &second), "the reading is young enough");
        }
        sleep(MAX_AGE).await;
        let chosen = reader.read(chosen()).await;
        assert_eq!(chosen.families.len(), 1);
        assert_eq!(chosen.families[0].name, "vmstat");
    }

    #[test]
    fn the_setting_accepts_the_families_that_cost_much() {
        let roots = Roots::default();
        let mut all = of_memory(&roots, &HostOptions::default());
        all.extend(of_hardware(&roots));
        for name in Collectors::ACCEPTED {
            assert!(all.iter().any(|family| family.name() == name), "{name}");
        }
        for family in all.iter().filter(|family| family.is_off_by_default()) {
            assert!(Collectors::ACCEPTED.contains(&family.name()));
        }
    }

    /// Returns the names of the families, and the number of rows of the family `processes`.
    fn described(kernel: &Kernel) -> (Vec<&str>, Option<usize>) {
        let processes = kernel.families.iter().find(|one| one.name == "processes");
        let names = kernel.families.iter().map(|family| family.name).collect();
        (names, processes.map(|family| family.rows.len()))
    }

    #[actix::test]
    async fn expensive_families_are_read_only_by_name() {
        let roots = Roots::default();
        let reader = |collectors: &str| {
            let memory = of_memory(&roots, &HostOptions::default());
            Reader::new(
                memory,
                Vec::new(),
                Collectors::parse(collectors).unwrap_or_default(),
            )
        };
        let request = |families| ReadKernel {
            families,
            containers: Vec::new(),
        };
        let only = |name: &str| request(WantedFamilies::Only(vec![name.to_owned()]));
        let without = |name: &str| request(WantedFamilies::Without(vec![name.to_owned()]));
        let off = ["interrupts", "softirqs", "tcpstat"];
        let mut by_name = reader("");
        for wanted in [without("vmstat"), ReadKernel::default()] {
            let read = by_name.read(wanted).await;
            let (names, processes) = described(&read);
            assert!(names.iter().all(|name| !off.contains(name)), "{names:?}");
            assert_eq!(processes, Some(1), "no states of threads");
        }
        // The newest reading is young, but does not have these families.
        for name in off {
            let read = by_name.read(only(name)).await;
            assert_eq!(described(&read).0, [name]);
        }
        let read = by_name.read(only("processes")).await;
        assert!(described(&read).1 > Some(1), "{read:?}");

        // A setting names the families for all requests. A request can still leave them out.
        let mut by_setting = reader("tcpstat,processes");
        let read = by_setting.read(without("tcpstat")).await;
        let (names, _) = described(&read);
        assert!(names.contains(&"vmstat") && !names.contains(&"tcpstat"));
        let read = by_setting.read(ReadKernel::default()).await;
        let (names, processes) = described(&read);
        assert!(names.contains(&"tcpstat") && !names.contains(&"softirqs"));
        assert!(processes > Some(1));
    }
}
