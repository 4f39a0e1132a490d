//! The table of the kernel's own figures: what each is called in Prometheus. The names, types and labels are those of node_exporter.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use super::MetricKind;
use crate::model::{Kernel, KernelFamily, KernelRow};

/// A row of the table. A `*` in `field` stands for any text. The same text then replaces each `*` in `name` and `help`.
pub(in crate::publish) struct KernelMetric {
    /// The name of the kernel's family.
    pub(in crate::publish) family: &'static str,
    /// The name that the kernel gives to the figure.
    pub(in crate::publish) field: &'static str,
    /// The name in Prometheus, without the suffix `_total` of a counter.
    pub(in crate::publish) name: &'static str,
    pub(in crate::publish) kind: MetricKind,
    pub(in crate::publish) help: &'static str,
}

const fn row(
    family: &'static str,
    field: &'static str,
    kind: MetricKind,
    name: &'static str,
    help: &'static str,
) -> KernelMetric {
    KernelMetric {
        family,
        field,
        name,
        kind,
        help,
    }
}

/// Families with more devices than the snapshot has. If there are kernel figures, they replace the snapshot's metrics of the same names.
const REPLACING: [&str; 4] = ["netdev", "netclass", "diskstats", "hwmon"];

use MetricKind::{Counter, Gauge, Unknown};

/// The first row that fits a figure is used.
#[rustfmt::skip]
const TABLE: &[KernelMetric] = &[
    row("meminfo", "HugePages_*", Gauge, "node_memory_HugePages_*", "Memory information field HugePages_*"),
    row("meminfo", "*", Gauge, "node_memory_*_bytes", "Memory information field *, in bytes"),
    row("vmstat", "*", Unknown, "node_vmstat_*", "Field * of /proc/vmstat"),
    row("thermal_zone", "temp", Gauge, "node_thermal_zone_temp", "Temperature of the thermal zone, in Celsius"),
    row("machine", "scrape_error", Gauge, "machine_scrape_error", "Whether the size of the host could not be read"),
    row("machine", "cpu_cores", Gauge, "machine_cpu_cores", "Number of cores, with each thread of a core counted"),
    row("machine", "cpu_physical_cores", Gauge, "machine_cpu_physical_cores", "Number of physical cores"),
    row("machine", "cpu_sockets", Gauge, "machine_cpu_sockets", "Number of processors"),
    row("machine", "memory_bytes", Gauge, "machine_memory_bytes", "Total memory of the host, in bytes"),
    row("machine", "swap_bytes", Gauge, "machine_swap_bytes", "Total swap space of the host, in bytes"),
    row("thermal_zone", "*_state", Gauge, "node_cooling_device_*_state", "State of the cooling device: how much it cools, or the highest state"),
    row("netdev", "*", Counter, "node_network_*", "Counter * of the network interface"),
    row("netclass", "up", Gauge, "node_network_up", "Whether the network interface is up"),
    row("netclass", "info", Gauge, "node_network_info", "Addresses and states of the network interface, as labels. The value is always 1"),
    row("netclass", "carrier_changes", Counter, "node_network_carrier_changes", "How often the network interface has got or lost its link"),
    row("netclass", "carrier_*_changes", Counter, "node_network_carrier_*_changes", "How often the link of the network interface has gone *"),
    row("netclass", "*", Gauge, "node_network_*", "Property * of the network interface"),
    row("netstat", "*", Unknown, "node_netstat_*", "Field * of /proc/net/netstat, snmp or snmp6"),
    row("sockstat", "sockets_used", Gauge, "node_sockstat_sockets_used", "Sockets in use"),
    row("sockstat", "*", Gauge, "node_sockstat_*", "Field * of /proc/net/sockstat or sockstat6"),
    row("softnet", "processed", Counter, "node_softnet_processed", "Packets that the CPU processed"),
    row("softnet", "dropped", Counter, "node_softnet_dropped", "Packets that the CPU dropped because its queue was full"),
    row("softnet", "times_squeezed", Counter, "node_softnet_times_squeezed", "How often the CPU had packets left when its time or budget ended"),
    row("softnet", "cpu_collision", Counter, "node_softnet_cpu_collision", "How often another CPU held the lock of the device while this CPU wanted to send"),
    row("softnet", "received_rps", Counter, "node_softnet_received_rps", "How often another CPU woke the CPU to process packets"),
    row("softnet", "flow_limit_count", Counter, "node_softnet_flow_limit_count", "How often the flow limit was reached"),
    row("softnet", "backlog_len", Gauge, "node_softnet_backlog_len", "Packets in the queue of the CPU"),
    row("udp_queues", "queues", Gauge, "node_udp_queues", "Bytes in the queues of UDP sockets"),
    row("arp", "entries", Gauge, "node_arp_entries", "Neighbors in the ARP table, by network interface"),
    row("bonding", "slaves", Gauge, "node_bonding_slaves", "Network interfaces that belong to the bond"),
    row("bonding", "active", Gauge, "node_bonding_active", "Network interfaces of the bond that have a link"),
    row("conntrack", "*", Gauge, "node_nf_conntrack_stat_*", "Field * of /proc/net/stat/nf_conntrack, the sum of all CPUs"),
    row("nfs", "packets", Counter, "node_nfs_packets", "Packets of the NFS client, by transport protocol"),
    row("nfs", "requests", Counter, "node_nfs_requests", "Requests of the NFS client, by version of NFS and method"),
    row("nfs", "*", Counter, "node_nfs_*", "Counter * of the NFS client"),
    row("nfsd", "packets", Counter, "node_nfsd_packets", "Packets of the NFS server, by transport protocol"),
    row("nfsd", "requests", Counter, "node_nfsd_requests", "Requests of the NFS server, by version of NFS and method"),
    row("nfsd", "rpc_errors", Counter, "node_nfsd_rpc_errors", "Invalid calls to the NFS server, by kind of error"),
    row("nfsd", "server_threads", Gauge, "node_nfsd_server_threads", "Threads of the NFS server"),
    row("nfsd", "read_ahead_cache_size_blocks", Gauge, "node_nfsd_read_ahead_cache_size_blocks", "Size of the read-ahead cache of the NFS server, in blocks"),
    row("nfsd", "*", Counter, "node_nfsd_*", "Counter * of the NFS server"),
    row("ipvs", "backend_*", Gauge, "node_ipvs_backend_*", "Figure * of the backend, by service and address"),
    row("ipvs", "*", Counter, "node_ipvs_*", "Counter * of the load balancer IPVS"),
];

/// The rows of the table by the name of their family.
static BY_FAMILY: LazyLock<BTreeMap<&str, Vec<&KernelMetric>>> = LazyLock::new(|| {
    let mut by_family: BTreeMap<&str, Vec<&KernelMetric>> = BTreeMap::new();
    for row in TABLE {
        by_family.entry(row.family).or_default().push(row);
    }
    by_family
});

/// The names of the snapshot's metrics.
static IN_SNAPSHOT: LazyLock<HashSet<&str>> =
    LazyLock::new(|| super::families().map(|family| family.name).collect());

/// Returns all rows of the table.
#[cfg(test)]
pub(in crate::publish) fn rows() -> &'static [KernelMetric] {
    TABLE
}

/// Returns the names of all families in the table.
pub(in crate::publish) fn families() -> impl Iterator<Item = &'static str> {
    BY_FAMILY.keys().copied()
}

/// A metric of a reading: its description, and its samples in all rows of the family.
pub(in crate::publish) struct KernelSamples<'k> {
    pub(in crate::publish) name: Cow<'static, str>,
    pub(in crate::publish) kind: MetricKind,
    pub(in crate::publish) help: Cow<'static, str>,
    family: &'k KernelFamily,
    field: &'k str,
}

impl<'k> KernelSamples<'k> {
    /// Returns each sample: its row, which has the labels, and its value.
    pub(in crate::publish) fn samples(&self) -> impl Iterator<Item = (&'k KernelRow, f64)> {
        let field = self.field;
        let of = move |row: &'k KernelRow| {
            let figure = row.figures.iter().find(|(name, _)| *name == field)?;
            Some((row, figure.1))
        };
        self.family.rows.iter().filter_map(of)
    }

    /// Whether the metric replaces a metric of the snapshot with the same name.
    fn replaces(&self) -> bool {
        REPLACING.contains(&self.family.name)
    }
}

/// Returns the metrics of a reading, and the names of the snapshot's metrics that they replace. Leaves out metrics that the snapshot has.
pub(in crate::publish) fn metrics(kernel: &Kernel) -> (Vec<KernelSamples<'_>>, HashSet<String>) {
    let mut replaced = HashSet::new();
    let mut all = Vec::new();
    for family in &kernel.families {
        let mut seen: HashSet<&str> = HashSet::new();
        let fields = family.rows.iter().flat_map(|row| &row.figures);
        for (field, _) in fields {
            if !seen.insert(field) {
                continue;
            }
            let Some(metric) = described(family, field) else {
                continue;
            };
            match IN_SNAPSHOT.contains(&*metric.name) {
                true if metric.replaces() => {
                    replaced.insert(metric.name.clone().into_owned());
                }
                true => continue,
                false => {}
            }
            all.push(metric);
        }
    }
    (all, replaced)
}

/// Returns the metric of a figure. None if the table does not have the figure.
fn described<'k>(family: &'k KernelFamily, field: &'k str) -> Option<KernelSamples<'k>> {
    BY_FAMILY.get(family.name)?.iter().find_map(|row| {
        let text = stars(row.field, field)?;
        let fill = |pattern: &'static str, text: &str| match pattern.contains('*') {
            true => Cow::Owned(pattern.replace('*', text)),
            false => Cow::Borrowed(pattern),
        };
        Some(KernelSamples {
            name: fill(row.name, &name_part(text)),
            kind: row.kind,
            help: fill(row.help, text),
            family,
            field,
        })
    })
}

/// Returns the text for which the `*` of a pattern stands. Returns an empty text for a pattern without `*`. Returns none if the pattern
/// does not fit.
fn stars<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
    match pattern.split_once('*') {
        Some((before, after)) => text.strip_prefix(before)?.strip_suffix(after),
        None => (pattern == text).then_some(""),
    }
}

/// Converts a name of the kernel to a part of a metric's name, as node_exporter does: `Active(anon)` becomes `Active_anon`.
fn name_part(text: &str) -> String {
    let text = text.strip_suffix(')').unwrap_or(text);
    let valid = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' => character,
        _ => '_',
    };
    text.chars().map(valid).collect()
}

#[cfg(test)]
mod tests {
    use super::{name_part, stars};

    #[test]
    fn a_star_stands_for_any_text() {
        assert_eq!(stars("HugePages_*", "HugePages_Free"), Some("Free"));
        assert_eq!(stars("*", "Active(anon)"), Some("Active(anon)"));
        assert_eq!(stars("mtu", "mtu"), Some(""));
        assert_eq!(stars("mtu", "mtus"), None);
        assert_eq!(name_part("Active(anon)"), "Active_anon");
        assert_eq!(name_part("a.b-c"), "a_b_c");
    }
}
