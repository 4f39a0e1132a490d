//! Tests of the figures of units, with real control groups in the places where systemd makes them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use serial_test::{parallel, serial};

use super::unit;
use crate::support::{Agent, Client, DEADLINE, Launch, wait};

/// The control group of a unit, in each hierarchy. On drop, its processes are killed and the group is removed.
pub(super) struct UnitGroup {
    /// One directory with cgroup v2, one for each controller with v1.
    directories: Vec<PathBuf>,
    processes: Vec<Child>,
}

/// Returns the mount points of systemd's hierarchy and of the hierarchies with figures.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut v1 = Vec::new();
    let mut v2 = Vec::new();
    for mount in mounts.lines() {
        let (before, after) = mount.split_once(" - ").unwrap();
        let point = PathBuf::from(before.split(' ').nth(4).unwrap());
        let mut after = after.split(' ');
        let (kind, options) = (after.next().unwrap(), after.nth(1).unwrap());
        let wanted = ["name=systemd", "cpu", "cpuacct", "memory", "pids", "blkio"];
        if kind == "cgroup" && options.split(',').any(|one| wanted.contains(&one)) {
            v1.push(point);
        } else if kind == "cgroup2" {
            v2.push(point);
        }
    }
    let has_systemd = |point: &PathBuf| point.ends_with("systemd");
    if v1.iter().any(has_systemd) { v1 } else { v2 }
}

impl UnitGroup {
    /// Creates the group `name` in a slice of its own.
    pub(super) fn new(name: &str) -> Self {
        let directories = hierarchies().into_iter().map(|hierarchy| {
            let slice = hierarchy.join(format!("agenttest{}.slice", std::process::id()));
            let directory = slice.join(name);
            fs::create_dir_all(&directory).unwrap_or_else(|error| {
                panic!(
                    "cannot make {}: {error} (the test needs root)",
                    directory.display()
                )
            });
            for parent in [&hierarchy, &slice] {
                for controller in ["+cpu", "+memory", "+pids", "+io"] {
                    // Only v2 has this file. A controller can be in use by v1.
                    let _ = fs::write(parent.join("cgroup.subtree_control"), controller);
                }
            }
            directory
        });
        Self {
            directories: directories.collect(),
            processes: Vec::new(),
        }
    }

    /// Runs a shell command in the group.
    pub(super) fn run(&mut self, command: &str) {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for directory in &self.directories {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.processes.push(child);
    }

    /// Returns the text of the first of these files that the group has.
    fn text(&self, files: &[&str]) -> String {
        let paths = files
            .iter()
            .flat_map(|file| self.directories.iter().map(move |one| one.join(file)));
        paths
            .filter_map(|path| fs::read_to_string(path).ok())
            .next()
            .unwrap_or_else(|| panic!("the group has none of {files:?}"))
    }

    fn set(&self, files: &[&str], value: &str) {
        let is_set = self
            .directories
            .iter()
            .flat_map(|one| files.iter().map(move |file| one.join(file)))
            .any(|path| path.exists() && fs::write(path, value).is_ok());
        assert!(is_set, "none of {files:?} can be written");
    }

    /// Returns the CPU time, in nanoseconds.
    fn cpu_ns(&self) -> u64 {
        let text = self.text(&["cpuacct.usage", "cpu.stat"]);
        match text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))
        {
            Some(micros) => micros.parse::<u64>().unwrap() * 1000,
            None => text.trim().parse().unwrap(),
        }
    }

    fn kill(&mut self) {
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
        for directory in &self.directories {
            // Children of the shells.
            let pids = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

impl Drop for UnitGroup {
    fn drop(&mut self) {
        self.kill();
        for directory in &self.directories {
            // The kernel removes a group some time after its processes.
            for _ in 0..500 {
                match fs::remove_dir(directory) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        thread::sleep(Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
            // Fails while other tests use the slice.
            let _ = directory.parent().map(fs::remove_dir);
        }
    }
}

fn agent() -> Agent {
    Launch::new()
        .vars(&[
            ("SYSTEM_INTERVAL", "500ms"),
            ("PUBLISH_INTERVAL", "500ms"),
            ("UNITS", "1000"),
            ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus"),
        ])
        .start()
}

fn snapshot_of(client: &mut Client, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let snapshot = client.snapshot_where(name, DEADLINE, |s| unit(s, name).is_some_and(&wanted));
    unit(&snapshot, name).unwrap().clone()
}

#[test]
#[parallel]
fn the_figures_of_a_unit_are_those_of_its_control_group() {
    let name = "figures.service";
    let mut group = UnitGroup::new(name);
    group.run("while :; do :; done");
    group.run("sleep 1000");
    let agent = agent();
    let mut client = agent.login();
    let busy = snapshot_of(&mut client, name, |unit| {
        unit["cpu_percent"].as_f64() > Some(20.0)
    });
    let now = group.cpu_ns();
    // The snapshot is at most some seconds old, and two processes use at most two cores.
    let used = busy["cpu_usage_ns"].as_u64().unwrap();
    assert!(used <= now && used > 0, "{used} > {now}");
    let next = snapshot_of(&mut client, name, |unit| {
        unit["cpu_usage_ns"].as_u64() > Some(now)
    });
    assert!(next["cpu_usage_ns"].as_u64().unwrap() <= group.cpu_ns());
    assert!(busy["cpu_percent"].as_f64().unwrap() < 130.0, "{busy}");
    // The loop, the shell of `sleep`, and `sleep`. Some shells replace themselves by the last command.
    let tasks: u64 = group.text(&["pids.current"]).trim().parse().unwrap();
    assert!((2..=3).contains(&tasks));
    assert_eq!(busy["tasks"].as_u64(), Some(tasks));
    let current = |group: &UnitGroup| -> u64 {
        let text = group.text(&["memory.usage_in_bytes", "memory.current"]);
        text.trim().parse().unwrap()
    };
    let memory = next["memory"].as_u64().unwrap();
    let now = current(&group);
    assert!(memory.abs_diff(now) <= 512 * 1024, "{memory} and {now}");
}

#[test]
#[parallel]
fn writing_and_lack_of_memory_are_counted() {
    let name = "io.service";
    let mut group = UnitGroup::new(name);
    group.run("sleep 1000");
    let agent = agent();
    let mut client = agent.login();
    snapshot_of(&mut client, name, |unit| unit["cpu_percent"].is_f64());
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let path = file.path().display();
    group.run(&format!(
        "dd if=/dev/zero of={path} bs=1M count=8 oflag=direct conv=notrunc 2>/dev/null"
    ));
    let written = |unit: &Value| unit["block_io"]["write_bytes"].as_u64();
    let unit = snapshot_of(&mut client, name, |unit| written(unit) >= Some(8 << 20));
    assert!(written(&unit).unwrap() < 9 << 20, "{unit}");
    assert_eq!(unit["oom_kills"], 0);
    group.set(&["memory.limit_in_bytes", "memory.max"], "16777216");
    // Without swap, `tail` needs more memory than the limit.
    let _ = fs::write(group.directories[0].join("memory.swap.max"), "0");
    group.run("tail /dev/zero");
    let unit = snapshot_of(&mut client, name, |unit| {
        unit["oom_kills"].as_u64() >= Some(1)
    });
    let killed = group.text(&["memory.oom_control", "memory.events"]);
    let killed = killed
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    assert_eq!(killed, Some(&*unit["oom_kills"].to_string()));
}

#[test]
#[parallel]
fn a_unit_that_starts_again_has_the_figures_of_its_new_group() {
    let name = "again.service";
    let mut group = UnitGroup::new(name);
    group.run("while :; do :; done");
    let agent = agent();
    let mut client = agent.login();
    let second = 1_000_000_000;
    snapshot_of(&mut client, name, |unit| {
        unit["cpu_usage_ns"].as_u64() > Some(second)
    });
    drop(group);
    let mut group = UnitGroup::new(name);
    group.run("sleep 1000");
    let again = snapshot_of(&mut client, name, |unit| {
        unit["cpu_usage_ns"].as_u64() < Some(second)
    });
    let percent = again["cpu_percent"].as_f64().unwrap_or(0.0);
    assert!((0.0..100.0).contains(&percent), "{again}");
    drop(group);
    client.snapshot_where("without the unit", DEADLINE, |s| unit(s, name).is_none());
}

#[test]
#[serial]
fn of_500_units_the_busiest_50_are_published() {
    let groups: Vec<UnitGroup> = (0..500)
        .map(|number| UnitGroup::new(&format!("many-{number}.service")))
        .collect();
    let mut busy = UnitGroup::new("many-busy.service");
    busy.run("while :; do :; done");
    let agent = Launch::new()
        .vars(&[
            ("SYSTEM_INTERVAL", "1s"),
            ("PUBLISH_INTERVAL", "1s"),
            ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus"),
        ])
        .start();
    let mut client = agent.login();
    let snapshot = client.snapshot_where("the busy unit", DEADLINE, |s| {
        let units = s["system"]["units"].as_array();
        units.is_some_and(|units| {
            let mut first = units.iter().take(5);
            first.any(|unit| {
                unit["name"] == "many-busy.service" && unit["cpu_percent"].as_f64() > Some(20.0)
            })
        })
    });
    assert_eq!(snapshot["system"]["units"].as_array().unwrap().len(), 50);
    assert_eq!(snapshot["sources"]["system"]["status"], "ok");
    let files = fs::read_dir(format!("/proc/{}/fd", agent.pid()))
        .unwrap()
        .count();
    assert!(files < 1024 + 400, "{files} files are open");
    drop(groups);
}

#[test]
#[parallel]
fn churn_of_units_is_no_failure() {
    let mut steady = UnitGroup::new("churn-steady.service");
    steady.run("while :; do :; done");
    let agent = agent();
    let mut client = agent.login();
    let name = "churn-steady.service";
    snapshot_of(&mut client, name, |unit| unit["cpu_percent"].is_f64());
    for round in 0..8 {
        let mut groups: Vec<UnitGroup> = (0..20)
            .map(|number| UnitGroup::new(&format!("churn-{round}-{number}.service")))
            .collect();
        let last = groups.last_mut().unwrap();
        last.run("sleep 1000");
        let ends = Path::new(&last.directories[0])
            .file_name()
            .unwrap()
            .to_owned();
        let ends = ends.to_str().unwrap();
        client.snapshot_where("the new units", DEADLINE, |s| unit(s, ends).is_some());
        drop(groups);
        let snapshot = client.snapshot_where("without them", DEADLINE, |s| unit(s, ends).is_none());
        assert_eq!(snapshot["sources"]["system"]["status"], "ok");
        let steady = unit(&snapshot, name).unwrap();
        assert!(steady["cpu_percent"].as_f64() > Some(5.0), "{steady}");
    }
    wait::until("no unit of the test", DEADLINE, || {
        let snapshot = client.snapshot();
        let units = snapshot["system"]["units"].as_array().unwrap();
        let is_left = |unit: &Value| unit["name"].as_str().unwrap().starts_with("churn-0");
        (!units.iter().any(is_left)).then_some(())
    });
}
