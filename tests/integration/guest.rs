//! Tests of the agent in a container that it measures as its machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use serial_test::serial;

use crate::support::prometheus::{get, metrics_of};
use crate::support::{Agent, CONTAINER, DEADLINE, Launch, Watch, kernel, wait};

const MIB: f64 = 1024.0 * 1024.0;
const LIMIT: u64 = 256 << 20;

/// A control group of v1 in each of the hierarchies of [`Groups::CONTROLLERS`]. Removed on drop.
struct Groups {
    name: String,
}

impl Groups {
    const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "cpuset"];

    /// Returns none if this machine does not have the hierarchies, or if the test may not create groups.
    fn create() -> Option<Self> {
        let name = format!("system-agent-guest-{}", std::process::id());
        let groups = Self { name };
        for controller in Self::CONTROLLERS {
            fs::create_dir(groups.folder(controller)).ok()?;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            groups.set("cpuset", file, &all_of_host(file));
        }
        Some(groups)
    }

    fn folder(&self, controller: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(&self.name)
    }

    fn set(&self, controller: &str, file: &str, value: &str) {
        fs::write(self.folder(controller).join(file), value).unwrap();
    }

    fn text(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.folder(controller).join(file)).unwrap()
    }

    /// A command that runs a program in the groups and in the namespaces of a container, after a script. `is_namespaced` says
    /// whether the container has a namespace of control groups.
    fn launcher(&self, is_namespaced: bool, script: &str) -> Vec<String> {
        let (all, name) = (Self::CONTROLLERS.join(" "), &self.name);
        let enter = format!(
            "for c in {all}; do echo $$ >/sys/fs/cgroup/$c/{name}/cgroup.procs; done; exec \"$@\""
        );
        let mounts = if is_namespaced {
            format!(
                "mount -t tmpfs none /sys/fs/cgroup
                 for c in {all}; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c none /sys/fs/cgroup/$c; done"
            )
        } else {
            // As Docker mounts the groups of v1.
            format!(
                "mount -t tmpfs none /mnt
                 for c in {all}; do mkdir /mnt/$c; mount --bind /sys/fs/cgroup/$c/{name} /mnt/$c; done
                 mount --rbind /mnt /sys/fs/cgroup"
            )
        };
        let script = format!("{mounts}\n{script}\nexec \"$@\"");
        let container = CONTAINER
            .into_iter()
            .filter(|word| is_namespaced || *word != "--cgroup");
        let before = ["sh", "-ec", &enter, "sh"].into_iter().chain(container);
        let words = before.chain(["sh", "-ec", &script, "sh"]);
        words.map(str::to_owned).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for controller in Self::CONTROLLERS {
            let folder = self.folder(controller);
            // The processes end a little later than their parent.
            let removed = || (fs::remove_dir(&folder).is_ok() || !folder.exists()).then_some(());
            if wait::within(DEADLINE, removed).is_none() {
                eprintln!("cannot remove {}", folder.display());
            }
        }
    }
}

/// The host's cores or nodes of memory.
fn all_of_host(file: &str) -> String {
    let text = fs::read_to_string(format!("/sys/fs/cgroup/cpuset/{file}")).unwrap();
    text.trim().to_owned()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

fn collected_at(snapshot: &Value) -> SystemTime {
    let text = snapshot["sources"]["system"]["collected_at"].as_str();
    humantime::parse_rfc3339(text.unwrap()).unwrap()
}

/// The figures of the groups: memory without inactive file cache, file cache, and CPU time in seconds.
fn reading(memory: &Path, cpuacct: &Path) -> [f64; 3] {
    let usage = fs::read_to_string(memory.join("memory.usage_in_bytes")).unwrap();
    let stat = fs::read_to_string(memory.join("memory.stat")).unwrap();
    let of_stat = |key: &str| -> f64 {
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.trim().parse().unwrap()
    };
    let usage: f64 = usage.trim().parse().unwrap();
    let cpu: f64 = fs::read_to_string(cpuacct.join("cpuacct.usage"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    [
        (usage - of_stat("total_inactive_file ")) / MIB,
        of_stat("total_cache ") / MIB,
        cpu / 1e9,
    ]
}

/// The values of a series in Prometheus' format.
fn series(agent: &Agent, prefix: &str) -> Vec<f64> {
    let text = get(metrics_of(agent), "/metrics", &[]).body;
    let lines = text.lines().filter(|line| line.starts_with(prefix));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect()
}

/// A program in the container holds 64 MiB of memory and keeps its CPU busy, and another one waits.
#[test]
#[serial]
fn in_a_container_with_limits_the_figures_are_those_of_the_container() {
    let Some(groups) = Groups::create() else {
        println!("skipped: control groups of v1 cannot be created here");
        return;
    };
    groups.set("memory", "memory.limit_in_bytes", &LIMIT.to_string());
    groups.set("cpu", "cpu.cfs_quota_us", "50000");
    let program = "import time; held = b'x' * (64 << 20)\nwhile True: pass";
    let launcher = groups.launcher(true, &format!("python3 -c \"{program}\" & sleep 1000 &"));
    let (memory, cpuacct) = (groups.folder("memory"), groups.folder("cpuacct"));
    let watch = Watch::start(move || reading(&memory, &cpuacct));
    let agent = Launch::new()
        .launched_by(launcher)
        .vars(&[("SYSTEM_INTERVAL", "1500ms"), ("PUBLISH_INTERVAL", "200ms")])
        .var("METRICS_PORT", "0")
        .start();
    let mut client = agent.login();
    // By then the program holds its memory.
    let first = client.snapshot_where("the program's memory", DEADLINE, |snapshot| {
        number(&snapshot["system"]["memory_used"]) > 64.0
    });
    let began = collected_at(&first);
    let snapshot = client.snapshot_where("a later round", DEADLINE, |s| collected_at(s) > began);
    thread::sleep(Duration::from_millis(100));
    let readings = watch.finish();
    let at = |moment: SystemTime| {
        let distance = |(at, _): &&(SystemTime, [f64; 3])| match at.duration_since(moment) {
            Ok(later) => later,
            Err(earlier) => earlier.duration(),
        };
        readings.iter().min_by_key(distance).unwrap().1
    };
    let (system, host) = (&snapshot["system"], &snapshot["host"]);
    let close = |figure: &Value, expected: f64, tolerance: f64| {
        let figure = number(figure);
        assert!(
            (figure - expected).abs() <= tolerance,
            "{figure} {expected}"
        );
    };
    let [used, cached, cpu] = at(collected_at(&snapshot));
    close(&system["memory_total"], 256.0, 0.0);
    close(&system["memory_used"], used, 4.0);
    close(&system["memory_available"], 256.0 - used, 4.0);
    close(&system["memory_cached"], cached, 4.0);
    let elapsed = collected_at(&snapshot).duration_since(began).unwrap();
    // The container can use half of one core.
    let busy = (cpu - at(began)[2]) / (elapsed.as_secs_f64() * 0.5) * 100.0;
    close(&system["cpu_percent"][0], busy.min(100.0), 12.0);
    assert_eq!(system["cpu_cores"], Value::Null);
    close(&system["cpu_times"]["iowait"], 0.0, 0.0);
    assert!(number(&system["cpu_times"]["user"]) > 0.0);
    assert_eq!(host["cpus"], 1);
    // The program runs or waits for its CPU all the time.
    for span in ["1m", "5m", "15m"] {
        let load = number(&system["load_avg"][span]);
        assert!((0.9..3.5).contains(&load), "{load}");
    }
    assert_eq!(system["top_memory"][0]["name"], "python3");
    assert!(number(&system["top_memory"][0]["mem"]) > 25.0);
    assert_eq!(
        series(&agent, "node_memory_MemTotal_bytes "),
        [LIMIT as f64]
    );
    assert_eq!(series(&agent, "node_cpu_seconds_total{"), [0.0; 0]);
    // The limits change while the container runs: half of the memory, and one core without a quota.
    groups.set("memory", "memory.limit_in_bytes", &(LIMIT / 2).to_string());
    groups.set("cpu", "cpu.cfs_quota_us", "-1");
    groups.set("cpuset", "cpuset.cpus", "0");
    let changed =
        |s: &Value| s["system"]["memory_total"] == 128.0 && s["system"]["cpu_cores"].is_array();
    let snapshot = client.snapshot_where("the new limits", DEADLINE, changed);
    assert_eq!(snapshot["host"]["cpus"], 1);
    assert_eq!(snapshot["system"]["cpu_cores"].as_array().unwrap().len(), 1);
    assert_eq!(series(&agent, "node_cpu_seconds_total{").len(), 8);
    assert_eq!(groups.text("cpuset", "cpuset.effective_cpus").trim(), "0");
    // Without limits the figures are those of the host.
    groups.set("memory", "memory.limit_in_bytes", "-1");
    groups.set("cpuset", "cpuset.cpus", &all_of_host("cpuset.cpus"));
    let snapshot = client.snapshot_where("no limits", DEADLINE, |snapshot| {
        snapshot["host"]["cpus"] == kernel::cpus()
            && number(&snapshot["system"]["memory_total"]) > 256.0
    });
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let total: f64 = info
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    close(&snapshot["system"]["memory_total"], total / 1024.0, 0.01);
    let loads = fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = loads.split(' ').nth(2).unwrap().parse().unwrap();
    close(&snapshot["system"]["load_avg"]["15m"], load, 0.2);
    drop(agent);
}

/// As with Docker and cgroup v1: the container sees the host's paths of its groups.
#[test]
#[serial]
fn without_a_namespace_of_control_groups_the_figures_are_those_of_the_container_too() {
    let Some(groups) = Groups::create() else {
        println!("skipped: control groups of v1 cannot be created here");
        return;
    };
    groups.set("memory", "memory.limit_in_bytes", &LIMIT.to_string());
    groups.set("cpu", "cpu.cfs_quota_us", "50000");
    let snapshot_of = |variables: &[(&str, &str)]| -> Value {
        let launch = Launch::new().launched_by(groups.launcher(false, "true"));
        let finished = launch.vars(variables).args(["snapshot"]).run();
        assert_eq!(finished.code(), 0, "{finished:?}");
        serde_json::from_str(&finished.stdout.concat()).unwrap()
    };
    let snapshot = snapshot_of(&[]);
    assert_eq!(snapshot["system"]["memory_total"], 256.0);
    assert_eq!(snapshot["host"]["cpus"], 1);
    // The agent in the container measures the host outside of it.
    let snapshot = snapshot_of(&[("HOST_ROOT", "/proc/1/root")]);
    assert!(number(&snapshot["system"]["memory_total"]) > 256.0);
    assert_eq!(snapshot["host"]["cpus"], kernel::cpus());
    assert!(snapshot["system"]["cpu_cores"].is_array());
}
