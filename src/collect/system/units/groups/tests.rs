//! Tests with trees of files. tests/integration/units.rs has tests with real control groups.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::{MIN_CPU_INTERVAL, UnitGroups};
use crate::collect::system::containers::ContainerNames;
use crate::collect::system::family::{MetricFamily as _, Round};
use crate::model::{SystemMetrics, Unit};

const V2: &str = include_str!("../../../../../tests/fixtures/cgroup-v2.txt");

/// A host with `/proc` and the mounted control groups in a directory.
struct Host {
    root: TempDir,
    family: UnitGroups,
}

impl Host {
    fn new(published: usize, mounts: &str) -> Self {
        let root = TempDir::new().unwrap();
        let mounts = mounts.replace("ROOT", root.path().to_str().unwrap());
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::create_dir_all(root.path().join("cgroup")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), mounts).unwrap();
        let family = UnitGroups {
            proc: root.path().join("proc"),
            ..UnitGroups::new(published)
        };
        Self { root, family }
    }

    fn v2(published: usize) -> Self {
        Self::new(
            published,
            "35 24 0:30 / ROOT/cgroup rw - cgroup2 cgroup2 rw\n",
        )
    }

    /// Writes a file of a group.
    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join("cgroup").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Creates a unit that has all files of a recorded group.
    fn unit(&self, path: &str) {
        for file in V2.split("==> ").skip(1) {
            let (name, text) = file.split_once(" <==\n").unwrap();
            self.write(&format!("{path}/{name}"), text);
        }
    }

    /// Sets the CPU time of a unit, in milliseconds.
    fn uses(&self, path: &str, milliseconds: u64) {
        let text = format!("usage_usec {}\nuser_usec 0\n", milliseconds * 1000);
        self.write(&format!("{path}/cpu.stat"), &text);
    }

    fn read(&mut self) -> Vec<Unit> {
        // Every reading of a test is a new one.
        if let Some((_, at)) = &mut self.family.newest {
            *at -= MIN_CPU_INTERVAL;
        }
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        let round = Round::new(&names, &last, Duration::ZERO);
        self.family.read(&round).unwrap()
    }

    fn names(&mut self) -> Vec<String> {
        self.read().into_iter().map(|unit| unit.name).collect()
    }
}

#[test]
fn the_busiest_units_are_published_with_all_figures() {
    let mut host = Host::v2(2);
    for name in ["a", "b", "c"] {
        host.unit(&format!("system.slice/{name}.service"));
    }
    assert_eq!(host.read().len(), 2);
    host.uses("system.slice/c.service", 40_000_000);
    host.uses("system.slice/b.service", 30_100_000);
    let units = host.read();
    assert_eq!(units.len(), 2);
    let c = &units[0];
    assert_eq!((&*c.name, &*units[1].name), ("c.service", "b.service"));
    assert_eq!(c.cpu_usage_ns, Some(40_000_000_000_000));
    assert!(units.iter().all(|unit| unit.cpu_percent > Some(0.0)));
    assert_eq!(c.memory, Some(18_018_304));
    assert_eq!((c.tasks, c.oom_kills), (Some(4), Some(1)));
    let io = c.block_io.unwrap();
    assert_eq!((io.read_bytes, io.write_bytes), (8_478_720, 8_388_608));
    let pressure = c.pressure.unwrap().cpu.unwrap();
    assert!((pressure.some.avg10 - 53.22).abs() < 1e-9);
    // Without use of the CPU, the units are sorted by their memory.
    host.write("system.slice/a.service/memory.current", "99000000\n");
    assert_eq!(host.names()[0], "a.service");
}

#[test]
fn rates_are_those_between_two_readings_of_a_published_unit() {
    let mut host = Host::v2(5);
    host.unit("init.scope");
    let io = host.read()[0].block_io.unwrap();
    assert_eq!(io.write_bytes_per_second, None);
    host.uses("init.scope", 31_000);
    host.write(
        "init.scope/io.stat",
        "8:0 rbytes=8478720 wbytes=9388608 rios=68 wios=14\n",
    );
    let unit = host.read().remove(0);
    let io = unit.block_io.unwrap();
    assert_eq!(io.read_bytes_per_second, Some(0.0));
    assert!(io.write_bytes_per_second > Some(0.0));
}

#[test]
fn the_files_of_an_idle_unit_are_not_read_in_each_round() {
    let mut host = Host::v2(5);
    host.unit("init.scope");
    for file in ["cpu", "memory", "io"] {
        host.write(
            &format!("init.scope/{file}.pressure"),
            "some avg10=0.00 avg60=0.00 avg300=1.00 total=7\n",
        );
    }
    // The first reading has no rates. The second reading has the rates of the idle unit.
    host.read();
    host.read();
    host.write("init.scope/pids.current", "9\n");
    assert_eq!(host.read()[0].tasks, Some(4));
    // The unit uses CPU time, so its figures can have changed.
    host.uses("init.scope", 99_000);
    assert_eq!(host.read()[0].tasks, Some(9));
    // While a pressure falls, the figures are read again.
    host.write(
        "init.scope/cpu.pressure",
        "some avg10=0.00 avg60=0.50 avg300=1.00 total=7\n",
    );
    host.uses("init.scope", 99_100);
    host.read();
    host.write("init.scope/pids.current", "5\n");
    assert_eq!(host.read()[0].tasks, Some(5));
}

#[test]
fn units_come_and_go() {
    let mut host = Host::v2(5);
    host.unit("system.slice/a.service");
    assert_eq!(host.names(), ["a.service"]);
    host.unit("system.slice/b.service");
    host.unit("other.slice/c.service");
    let mut names = host.names();
    names.sort();
    assert_eq!(names, ["a.service", "b.service", "c.service"]);
    fs::remove_dir_all(host.root.path().join("cgroup/system.slice/a.service")).unwrap();
    fs::remove_dir_all(host.root.path().join("cgroup/other.slice")).unwrap();
    assert_eq!(host.names(), ["b.service"]);
    assert_eq!(host.family.known.len(), 1);
}

#[test]
fn a_controller_that_is_enabled_later_is_seen_at_the_next_search() {
    let mut host = Host::v2(5);
    host.unit("init.scope");
    let current = host.root.path().join("cgroup/init.scope/memory.current");
    fs::rename(&current, current.with_extension("off")).unwrap();
    assert_eq!(host.read()[0].memory, None);
    fs::rename(current.with_extension("off"), &current).unwrap();
    // Another unit makes the family search the groups. This does not open the files of known units again.
    host.unit("system.slice/other.service");
    let init = |units: Vec<Unit>| units.into_iter().find(|unit| unit.name == "init.scope");
    assert_eq!(init(host.read()).unwrap().memory, None);
    host.family.reopened = None;
    host.uses("init.scope", 99_000);
    let unit = init(host.read()).unwrap();
    assert_eq!(unit.memory, Some(18_018_304));
    // The reading before is still known.
    assert!(unit.cpu_percent > Some(0.0));
}

#[test]
fn with_few_files_all_units_are_read_too() {
    let mut host = Host::v2(3);
    host.family.max_kept = 11;
    for number in 0..9 {
        host.unit(&format!("system.slice/{number}.service"));
    }
    for round in 0..3_u64 {
        for number in 0..9 {
            let used = 31_000_000 + round * 1000 * number;
            host.uses(&format!("system.slice/{number}.service"), used);
        }
        let units = host.read();
        assert_eq!(units.len(), 3);
        assert!(units.iter().all(|unit| unit.tasks == Some(4)));
        let kept: usize = host
            .family
            .known
            .values()
            .map(super::KnownUnit::kept_files)
            .sum();
        assert!(kept <= 11, "{kept} files are open");
        if round > 0 {
            let names: Vec<_> = units.iter().map(|unit| &*unit.name).collect();
            assert_eq!(names, ["8.service", "7.service", "6.service"]);
        }
    }
}

#[test]
fn with_v1_a_unit_has_the_figures_that_the_host_counts() {
    let mut host = Host::new(
        5,
        "35 31 0:32 / ROOT/cgroup/memory rw - cgroup cgroup rw,memory\n\
         36 31 0:33 / ROOT/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         39 31 0:36 / ROOT/cgroup/pids rw - cgroup cgroup rw,pids\n\
         40 31 0:37 / ROOT/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
         41 31 0:38 / ROOT/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    );
    for unit in ["system.slice/a.service", "system.slice/b.service"] {
        host.write(&format!("systemd/{unit}/cgroup.procs"), "1\n");
    }
    // By default systemd counts memory and tasks, but not CPU time.
    host.write(
        "memory/system.slice/a.service/memory.usage_in_bytes",
        "4096\n",
    );
    host.write(
        "memory/system.slice/a.service/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    );
    host.write("pids/system.slice/a.service/pids.current", "7\n");
    host.write("cpu,cpuacct/system.slice/b.service/cpuacct.usage", "5000\n");
    let units = host.read();
    let unit = |name: &str| units.iter().find(|unit| unit.name == name).unwrap();
    let a = unit("a.service");
    assert_eq!((a.cpu_usage_ns, a.memory), (None, Some(4096)));
    assert_eq!((a.tasks, a.oom_kills, a.block_io), (Some(7), Some(3), None));
    let b = unit("b.service");
    assert_eq!((b.cpu_usage_ns, b.memory), (Some(5000), None));
}

#[test]
fn a_host_without_systemd_has_no_units() {
    assert!(Host::new(5, "").read().is_empty());
    let mut without_units = Host::v2(5);
    fs::create_dir_all(without_units.root.path().join("cgroup/docker")).unwrap();
    assert!(without_units.read().is_empty());
    let mut off = Host::v2(0);
    off.unit("init.scope");
    assert!(off.read().is_empty());
}

#[test]
fn odd_files_are_no_failure() {
    let mut host = Host::v2(5);
    host.unit("system.slice/a.service");
    host.write("system.slice/odd.service/cpu.stat", "odd\n");
    host.unit("system.slice/half.service");
    host.write("system.slice/half.service/io.stat", "odd=1 = x\n");
    host.write("system.slice/half.service/pids.current", "");
    let mut names = host.names();
    names.sort();
    assert_eq!(names, ["a.service", "half.service"]);
}
