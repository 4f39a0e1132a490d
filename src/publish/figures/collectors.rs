//! Which of node_exporter's collectors has a metric of the snapshot. A scraper can choose collectors with `collect[]` and `exclude[]`.

use super::{families, kernel};
use crate::messages::WantedFamilies;

/// The beginnings of the metrics' names, and the collectors. The first beginning that fits decides.
const COLLECTORS: [(&str, &str); 29] = [
    ("node_cpu_frequency", "cpufreq"),
    ("node_cpu_scaling", "cpufreq"),
    ("node_cpu", "cpu"),
    ("node_load", "loadavg"),
    ("node_memory", "meminfo"),
    ("node_filesystem", "filesystem"),
    ("node_disk", "diskstats"),
    ("node_network_speed", "netclass"),
    ("node_network", "netdev"),
    ("node_pressure", "pressure"),
    ("node_hwmon", "hwmon"),
    ("node_filefd", "filefd"),
    ("node_nf_conntrack", "conntrack"),
    ("node_entropy", "entropy"),
    ("node_timex", "timex"),
    ("node_drm", "drm"),
    ("node_edac", "edac"),
    ("node_zfs", "zfs"),
    ("node_btrfs", "btrfs"),
    ("node_nvme", "nvme"),
    ("node_md", "mdadm"),
    ("node_power_supply", "powersupplyclass"),
    ("node_systemd", "systemd"),
    ("node_os", "os"),
    ("node_uname", "uname"),
    ("node_boot_time", "stat"),
    ("node_processes", "processes"),
    ("container", "containers"),
    ("", "agent"),
];

/// Returns the collector of a metric of the snapshot.
pub(in crate::publish) fn collector_of(metric: &str) -> &'static str {
    let fits = COLLECTORS
        .iter()
        .find(|(start, _)| metric.starts_with(start));
    fits.map_or("agent", |(_, collector)| collector)
}

/// The name of the collector that reads text files. Its metrics are written by hand.
pub(in crate::publish) const TEXTFILE: &str = "textfile";

/// The metrics that are not in a table.
const OTHERS: [&str; 4] = [
    "node_scrape_collector_duration_seconds",
    "node_scrape_collector_success",
    "node_textfile_mtime_seconds",
    "node_textfile_scrape_error",
];

/// Whether the agent itself can have a metric with this name. Text files cannot have it.
pub(crate) fn is_published(name: &str) -> bool {
    let name = name.strip_suffix("_total").unwrap_or(name);
    OTHERS.contains(&name) || families().any(|family| family.name == name) || kernel::can_have(name)
}

/// Returns the names of all collectors, sorted.
fn names() -> Vec<&'static str> {
    let of_snapshot = COLLECTORS.iter().map(|(_, collector)| *collector);
    let mut names: Vec<_> = of_snapshot.chain(kernel::families()).collect();
    names.push(TEXTFILE);
    names.sort_unstable();
    names.dedup();
    names
}

/// The collectors that a scraper wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::publish) enum Choice {
    All,
    /// Only these.
    Only(Vec<String>),
    /// All but these.
    Without(Vec<String>),
}

impl Choice {
    /// Reads the query of a scrape, such as `collect[]=cpu&collect[]=meminfo`. Ignores other parameters.
    ///
    /// # Errors
    /// Fails for an unknown collector, and if the query has both `collect[]` and `exclude[]`. The error says what is accepted.
    pub(in crate::publish) fn from_query(query: &str) -> Result<Self, String> {
        let (mut only, mut without) = (Vec::new(), Vec::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let list = match &*name {
                "collect[]" => &mut only,
                "exclude[]" => &mut without,
                _ => continue,
            };
            let names = names();
            if !names.contains(&&*value) {
                return Err(format!(
                    "unknown collector; accepted: {}\n",
                    names.join(", ")
                ));
            }
            if !list.iter().any(|known| *known == value) {
                list.push(value.into_owned());
            }
        }
        match (only.is_empty(), without.is_empty()) {
            (true, true) => Ok(Self::All),
            (false, true) => Ok(Self::Only(only)),
            (true, false) => Ok(Self::Without(without)),
            (false, false) => Err("use either collect[] or exclude[], not both\n".to_owned()),
        }
    }

    /// Whether the scraper wants this collector.
    pub(in crate::publish) fn has(&self, collector: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == collector),
            Self::Without(names) => names.iter().all(|name| name != collector),
        }
    }

    /// Returns the families of the kernel's own figures to read.
    pub(in crate::publish) fn kernel_families(&self) -> WantedFamilies {
        match self {
            Self::All => WantedFamilies::Default,
            Self::Only(names) => {
                let is_family = |name: &&String| kernel::families().any(|family| family == **name);
                WantedFamilies::Only(names.iter().filter(is_family).cloned().collect())
            }
            Self::Without(names) => WantedFamilies::Without(names.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, WantedFamilies, collector_of, is_published, names};
    use crate::publish::figures::families;

    #[test]
    fn every_metric_of_a_node_has_a_collector() {
        for family in families() {
            let is_of_node = family.name.starts_with("node_");
            let collector = collector_of(family.name);
            assert_eq!(
                is_of_node,
                !["agent", "containers"].contains(&collector),
                "{}",
                family.name
            );
        }
    }

    #[test]
    fn text_files_cannot_have_the_names_of_the_agents_own_metrics() {
        for name in [
            "node_load1",
            "node_cpu_seconds_total",
            "node_vmstat_pgfault",
            "node_memory_Active_anon_bytes",
            "node_textfile_scrape_error",
        ] {
            assert!(is_published(name), "{name}");
        }
        for name in ["smartmon_device_info", "node_reboot_required", "a_total"] {
            assert!(!is_published(name), "{name}");
        }
    }

    #[test]
    fn a_query_chooses_collectors() {
        let choice = Choice::from_query("collect[]=cpu&collect%5B%5D=vmstat&x=1").unwrap();
        assert!(choice.has("cpu") && choice.has("vmstat") && !choice.has("meminfo"));
        let chosen = ["cpu", "vmstat"].map(str::to_owned).into();
        assert_eq!(choice.kernel_families(), WantedFamilies::Only(chosen));
        let choice = Choice::from_query("exclude[]=cpu").unwrap();
        assert!(!choice.has("cpu") && choice.has("agent"));
        let left_out = vec!["cpu".to_owned()];
        assert_eq!(choice.kernel_families(), WantedFamilies::Without(left_out));
        assert_eq!(Choice::from_query(""), Ok(Choice::All));
        let error = Choice::from_query("collect[]=many").unwrap_err();
        assert!(
            error.contains("meminfo") && !error.contains("many"),
            "{error}"
        );
        assert!(Choice::from_query("collect[]=cpu&exclude[]=cpu").is_err());
        assert!(names().is_sorted());
    }
}
