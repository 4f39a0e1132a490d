//! Tests of metric families that fail. When a family fails, only the figures of this family are missing, and `sources.system`
//! names the family.

use std::fs;
use std::path::Path;

use serde_json::Value;
use serial_test::parallel;

use crate::support::prometheus::{get, metrics_of};
use crate::support::{DEADLINE, Launch, Namespace};

/// One fault of a metric family. `holds` replaces the content of `file`. If `holds` is `None`, the agent may not read the file.
/// During the fault, the figures in `absent` and the Prometheus series `series` must be missing.
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

/// A file that root may not read in a user namespace, because the files of the kernel belong to the host's root.
const CLOSED: &str = "/proc/sys/vm/drop_caches";
const FAST: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")];

/// Whether the figures of `family` are in the snapshot. Also returns true for the family that is expected to fail.
fn is_complete(snapshot: &Value, family: &str, failing_family: &str) -> bool {
    let system = &snapshot["system"];
    family == failing_family
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
fn a_failing_family_loses_only_its_own_figures() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("odd");
    for fault in &FAULTS {
        if !Path::new(fault.file).exists() {
            // This kernel does not have the file.
            println!("skipped: this kernel has no {}", fault.file);
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
            .launched_by(namespace.enter())
            .vars(&FAST)
            .var("METRICS_PORT", "0")
            .start();
        let names_family = |snapshot: &Value| {
            let error = snapshot["sources"]["system"]["error"].as_str();
            error.is_some_and(|error| error.contains(&format!("{}: ", fault.family)))
        };
        let snapshot = agent
            .login()
            .snapshot_where(fault.family, DEADLINE, names_family);
        let families = ["memory", "cpu", "processes", "network", "uptime", "disks"];
        for family in families {
            assert!(
                is_complete(&snapshot, family, fault.family),
                "{family} is missing while {} fails: {snapshot}",
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

/// While the families fail, the required figures keep their previous values. After the families have recovered, the first rates
/// cover the whole time of the fault.
#[test]
#[parallel]
fn a_family_recovers_when_its_files_are_readable_again() {
    let folder = tempfile::tempdir().unwrap();
    let [meminfo, disks] = ["meminfo", "diskstats"].map(|file| folder.path().join(file));
    let write_good = |sectors: u64| {
        fs::copy("/proc/meminfo", &meminfo).unwrap();
        let line = format!("8 0 sda 10 0 {sectors} 0 10 0 100 0 0 10 10\n");
        fs::write(&disks, line).unwrap();
    };
    write_good(1000);
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
    let agent = Launch::new()
        .launched_by(namespace.enter())
        .vars(&FAST)
        .start();
    let mut client = agent.login();
    let is_ok = |s: &Value| s["sources"]["system"]["status"] == "ok";
    let before = client.snapshot_where("a good snapshot", DEADLINE, is_ok);
    let total = before["system"]["memory_total"].clone();
    fs::write(&meminfo, "odd\n").unwrap();
    fs::write(&disks, "odd\n").unwrap();
    let failing = client.snapshot_where("a failing family", DEADLINE, |s| !is_ok(s));
    assert_eq!(failing["status"], "degraded");
    assert_eq!(failing["system"]["memory_total"], total);
    assert_eq!(failing["system"].get("memory_available"), None);
    write_good(1000);
    let mut after = client.snapshot_where("a good snapshot again", DEADLINE, is_ok);
    for _ in 0..3 {
        assert_eq!(after["system"]["memory_total"], total);
        for disk in after["system"]["disk_io"].as_array().into_iter().flatten() {
            assert_eq!(disk["read_bytes_per_second"], 0.0, "{disk}");
        }
        after = client.snapshot();
    }
}

/// With `hidepid`, an agent sees only its own processes. A total of 1 would be wrong.
#[test]
#[parallel]
fn with_hidden_processes_there_are_no_process_figures() {
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
            .launched_by(as_root.iter().chain(&as_nobody))
            .vars(&FAST)
            .start();
        let names_family = |s: &Value| {
            let error = s["sources"]["system"]["error"].as_str();
            error.is_some_and(|error| error.contains("processes: ") && error.contains("hidepid"))
        };
        let mut client = agent.login();
        let hidden = client.snapshot_where("hidden processes", DEADLINE, names_family);
        assert_eq!(hidden["system"].get("processes"), None);
        assert_eq!(hidden["system"]["top_processes"], serde_json::json!([]));
        assert_eq!(hidden["system"].get("top_memory"), None);
        assert!(hidden["system"]["memory_available"].as_f64() > Some(0.0));
        assert!(
            hidden["agent"]["memory_rss"].as_u64() > Some(1 << 20),
            "{hidden}"
        );
        drop(agent);
        // An agent that runs as root sees all processes.
        let agent = Launch::new().launched_by(as_root).start();
        let all = agent.login().snapshot();
        assert!(
            all["system"]["processes"]["total"].as_u64() > Some(1),
            "{all}"
        );
        assert_eq!(all["sources"]["system"]["status"], "ok");
    }
}
