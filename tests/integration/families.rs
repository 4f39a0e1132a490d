//! Metric families that cannot be read: each costs its own figures only, and `sources.system` names it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use serial_test::parallel;

use crate::support::prometheus::{get, metrics_of};
use crate::support::{Launch, Namespace, PATIENCE};

/// A family, the file that it is read from, what the file holds instead (none: nobody may read it), its figures that are absent
/// then, and a series that is.
struct Fault {
    family: &'static str,
    file: &'static str,
    holds: Option<&'static [u8]>,
    absent: &'static [&'static str],
    series: &'static str,
}

const FAULTS: [Fault; 8] = [
    Fault {
        family: "memory",
        file: "/proc/meminfo",
        holds: None,
        absent: &["memory_available", "memory_cached", "swap_total"],
        series: "node_memory_MemTotal_bytes",
    },
    Fault {
        family: "memory",
        file: "/proc/meminfo",
        holds: Some(b"\xff\x00MemTotal: lots kB\n"),
        absent: &["memory_available"],
        series: "node_memory_MemAvailable_bytes",
    },
    Fault {
        family: "cpu",
        file: "/proc/stat",
        holds: None,
        absent: &["cpu_cores", "cpu_times"],
        series: "node_cpu_seconds_total",
    },
    Fault {
        family: "cpu",
        file: "/proc/stat",
        holds: Some(b"cpu  1 2 three\n"),
        absent: &["cpu_cores", "cpu_times"],
        series: "node_cpu_seconds_total",
    },
    Fault {
        family: "disk_io",
        file: "/proc/diskstats",
        holds: None,
        absent: &["disk_io"],
        series: "node_disk_read_bytes_total",
    },
    Fault {
        family: "load",
        file: "/proc/loadavg",
        holds: None,
        absent: &[],
        series: "node_load1",
    },
    Fault {
        family: "load",
        file: "/proc/loadavg",
        holds: Some(b"much\n"),
        absent: &[],
        series: "node_load15",
    },
    Fault {
        family: "pressure",
        file: "/proc/pressure/memory",
        holds: None,
        absent: &[],
        series: "system_agent_no_such_series",
    },
];

/// A file that root may not read in a user namespace: there it owns none of the kernel's own.
const CLOSED: &str = "/proc/sys/vm/drop_caches";
const FAST: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")];

/// What every snapshot has of families that are well, whichever one is not.
fn is_well(snapshot: &Value, family: &str, but: &str) -> bool {
    let system = &snapshot["system"];
    family == but
        || match family {
            "memory" => system["memory_available"].as_f64() > Some(0.0),
            "cpu" => system["cpu_times"].is_object(),
            "processes" => system["processes"]["total"].as_u64() > Some(1),
            "network" => system["network"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            "uptime" => system["uptime"].as_u64() > Some(0),
            "disks" => system["disks"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            _ => true,
        }
}

#[test]
#[parallel]
fn a_family_that_cannot_be_read_costs_only_its_own_figures() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("odd");
    for fault in &FAULTS {
        if !Path::new(fault.file).exists() {
            // A kernel without this file cannot have this fault.
            println!("not tried: this kernel has no {}", fault.file);
            continue;
        }
        let stands_in = match fault.holds {
            Some(text) => {
                fs::write(&odd, text).unwrap();
                odd.as_path()
            }
            None => Path::new(CLOSED),
        };
        let script = format!("mount --bind {} {}", stands_in.display(), fault.file);
        let namespace = Namespace::start(&["mount"], &script);
        let agent = Launch::new()
            .by(namespace.enter())
            .vars(&FAST)
            .var("METRICS_PORT", "0")
            .start();
        let told = |snapshot: &Value| {
            let error = snapshot["sources"]["system"]["error"].as_str();
            error.is_some_and(|error| error.contains(&format!("{}: ", fault.family)))
        };
        let snapshot = agent.login().snapshot_where(fault.family, PATIENCE, told);
        let families = ["memory", "cpu", "processes", "network", "uptime", "disks"];
        for family in families {
            assert!(
                is_well(&snapshot, family, fault.family),
                "{family} beside {}: {snapshot}",
                fault.family
            );
        }
        for figure in fault.absent {
            assert_eq!(snapshot["system"].get(figure), None, "{figure}");
        }
        assert!(
            snapshot["agent"]["memory_rss"].as_u64() > Some(1 << 20),
            "{snapshot}"
        );
        let scraped = get(metrics_of(&agent), "/metrics", &[]).body;
        assert!(
            !scraped.lines().any(|line| line.starts_with(fault.series)),
            "{}",
            fault.series
        );
        assert!(scraped.contains("node_uname_info"));
    }
}

/// The last figures of a family stand for a while, its rates are over the whole time, and all is well once it can be read again.
#[test]
#[parallel]
fn a_family_that_can_be_read_again_is_well_again() {
    let folder = tempfile::tempdir().unwrap();
    let [meminfo, disks] = ["meminfo", "diskstats"].map(|file| folder.path().join(file));
    let well = |sectors: u64| {
        fs::copy("/proc/meminfo", &meminfo).unwrap();
        let line = format!("8 0 sda 10 0 {sectors} 0 10 0 100 0 0 10 10\n");
        fs::write(&disks, line).unwrap();
    };
    well(1000);
    fs::create_dir(folder.path().join("sda")).unwrap();
    let script = format!(
        "mount --bind {} /proc/meminfo
         mount --bind {} /proc/diskstats
         mount --bind {} /sys/block",
        meminfo.display(),
        disks.display(),
        folder.path().display()
    );
    let namespace = Namespace::start(&["mount"], &script);
    let agent = Launch::new().by(namespace.enter()).vars(&FAST).start();
    let mut client = agent.login();
    let is_ok = |s: &Value| s["sources"]["system"]["status"] == "ok";
    let before = client.snapshot_where("all is well", PATIENCE, is_ok);
    let total = before["system"]["memory_total"].clone();
    fs::write(&meminfo, "odd\n").unwrap();
    fs::write(&disks, "odd\n").unwrap();
    let failing = client.snapshot_where("a failing family", PATIENCE, |s| !is_ok(s));
    assert_eq!(failing["status"], "degraded");
    assert_eq!(failing["system"]["memory_total"], total);
    assert_eq!(failing["system"].get("memory_available"), None);
    well(1000);
    let mut after = client.snapshot_where("all is well again", PATIENCE, is_ok);
    for _ in 0..3 {
        assert_eq!(after["system"]["memory_total"], total);
        for disk in after["system"]["disk_io"].as_array().into_iter().flatten() {
            assert_eq!(disk["read_bytes_per_second"], 0.0, "{disk}");
        }
        after = client.snapshot();
    }
}

/// With `hidepid` an agent sees only its own process. A total of 1 would be wrong.
#[test]
#[parallel]
fn processes_that_are_hidden_are_no_figures() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    for option in ["1", "2"] {
        let mounted = format!("mount -t proc -o hidepid={option} proc /proc && exec \"$0\" \"$@\"");
        let as_root = ["unshare", "--mount", "sh", "-c", &mounted];
        let as_nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let agent = Launch::new()
            .by(as_root.iter().chain(&as_nobody))
            .vars(&FAST)
            .start();
        let told = |s: &Value| {
            let error = s["sources"]["system"]["error"].as_str();
            error.is_some_and(|error| error.contains("processes: ") && error.contains("hidepid"))
        };
        let mut client = agent.login();
        let hidden = client.snapshot_where("hidden processes", PATIENCE, told);
        assert_eq!(hidden["system"].get("processes"), None);
        assert_eq!(hidden["system"]["top_processes"], serde_json::json!([]));
        assert_eq!(hidden["system"].get("top_memory"), None);
        assert!(hidden["system"]["memory_available"].as_f64() > Some(0.0));
        assert!(
            hidden["agent"]["memory_rss"].as_u64() > Some(1 << 20),
            "{hidden}"
        );
        drop(agent);
        // As root it sees all.
        let agent = Launch::new().by(as_root).start();
        let all = agent.login().snapshot();
        assert!(
            all["system"]["processes"]["total"].as_u64() > Some(1),
            "{all}"
        );
        assert_eq!(all["sources"]["system"]["status"], "ok");
    }
}
