//! Tests of the reader with complete trees of files: `/proc` and the mount points of the control groups. This file is long: it
//! has complete trees of both cgroup versions.
//!
//! The files of cgroup v1 were recorded from a container on a real kernel (6.18). The files of cgroup v2 were recorded by
//! tests/vm/guest/record.py on kernel 6.12 with Docker 26, in the virtual machine of `make test-vm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{ContainerFiles, Host, HostEnds, Kernel, KernelError};
use crate::collect::cgroup::Usage;
use crate::collect::docker::usage::{ContainerReading, CpuReading};
use crate::model::{
    BlockIo, DeviceIo, ExactContainer, GroupDirectories, InterfaceCounters, Interfaces, Pressure,
    Pressures, Stalls, Throttling,
};

const V1: &str = include_str!("../../../../tests/fixtures/cgroup-v1.txt");
const V2: &str = include_str!("../../../../tests/fixtures/cgroup-v2.txt");

const ID: &str = "a00868185cc6b5e743c7649fd58cd74cf5e3bcdeaf7397da2c51717bbdda610d";
const OTHER: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";
const PID: u32 = 4242;
const HOST_MEMORY: u64 = 8 << 30;
const HOST: Host<'_> = Host {
    memory: HOST_MEMORY,
    oom_kills: Some(7),
    ends: None,
};

/// Lines of `mountinfo`. `FOLDER` stands for the directory of the tree.
const MOUNTS_V1: &str = "\
31 23 0:28 / FOLDER/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / FOLDER/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / FOLDER/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / FOLDER/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / FOLDER/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";
const MOUNTS_OF_CPU: &str = "\
32 31 0:29 / FOLDER/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / FOLDER/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
";
/// systemd mounts the two controllers as one hierarchy.
const MOUNT_OF_CPU: &str =
    "32 31 0:29 / FOLDER/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
const MOUNT_UNIFIED: &str = "41 31 0:38 / FOLDER/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
const MOUNT_V2: &str = "35 24 0:30 / FOLDER/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";

/// A temporary directory with the directories `proc` and `cgroup`.
struct Tree(TempDir);

impl Tree {
    /// Creates a tree with these mounted file systems. The file systems are empty.
    fn mounted(mounts: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let folder = tree.0.path().to_str().unwrap();
        tree.write("proc/self/mountinfo", &mounts.replace("FOLDER", folder));
        tree
    }

    /// Creates a tree with v2 mounted, and a `group` that has all files. The container's first process is in the group `path`.
    fn v2(group: &str, path: &str) -> Self {
        let tree = Self::mounted(MOUNT_V2);
        tree.group(V2, &format!("cgroup{group}"));
        tree.process(PID, &format!("0::{path}\n"), V2);
        tree
    }

    /// Creates a tree with v1 mounted, and the group `/docker/ID` in each hierarchy.
    fn v1() -> Self {
        let tree = Self::mounted(&[MOUNTS_OF_CPU, MOUNTS_V1].concat());
        tree.groups_of_v1(|controller| controller);
        tree.process(PID, &in_v1(&format!("/docker/{ID}")), V1);
        tree
    }

    /// Writes the group `/docker/ID` in each hierarchy of v1. `mounted` returns the directory of a controller.
    fn groups_of_v1(&self, mounted: fn(&str) -> &str) {
        for (name, text) in files(V1).filter(|(name, _)| *name != "net/dev") {
            let (controller, file) = name.split_once('/').unwrap();
            let directory = mounted(controller);
            self.write(&format!("cgroup/{directory}/docker/{ID}/{file}"), text);
        }
    }

    /// Writes a group of v2 with the files of a fixture.
    fn group(&self, fixture: &str, directory: &str) {
        for (name, text) in files(fixture).filter(|(name, _)| *name != "net/dev") {
            self.write(&format!("{directory}/{name}"), text);
        }
    }

    /// Writes a process that is in these groups, with the network of a fixture.
    fn process(&self, pid: u32, cgroup: &str, fixture: &str) {
        self.write(&format!("proc/{pid}/cgroup"), cgroup);
        self.write(&format!("proc/{pid}/net/dev"), file(fixture, "net/dev"));
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn open(&self, id: &str, own_network: bool) -> Result<ContainerFiles, KernelError> {
        Kernel::new(&self.path("proc"))?.open(id, PID, own_network)
    }

    /// Returns the CPU time and the figures of the container `id`.
    fn read(&self, id: &str) -> (u64, Usage) {
        read(&self.open(id, true).unwrap())
    }
}

fn read(files: &ContainerFiles) -> (u64, Usage) {
    let ContainerReading { cpu, usage, .. } = read_since(files, None);
    assert!(cpu.received.is_some());
    let usage = Usage {
        // The directories are different in each tree.
        group: None,
        ..Arc::unwrap_or_clone(usage)
    };
    (cpu.usage_ns, usage)
}

fn read_since(files: &ContainerFiles, before: Option<&ContainerReading>) -> ContainerReading {
    let mut buffer = Vec::new();
    files.read(before, false, &mut buffer, &HOST).unwrap()
}

/// Like [`read_since`], on a host where the kernel has killed `oom_kills` processes.
fn read_on(files: &ContainerFiles, before: &ContainerReading, oom_kills: u64) -> ContainerReading {
    let host = Host {
        oom_kills: Some(oom_kills),
        ..HOST
    };
    let read = files.read(Some(before), false, &mut Vec::new(), &host);
    read.unwrap()
}

/// A container on a host with the ends of its two interfaces.
struct Ends {
    tree: Tree,
    host: HostEnds,
    files: ContainerFiles,
}

impl Ends {
    /// Returns it with its second reading, which has read the container's table.
    fn new() -> (Self, ContainerReading) {
        let group = format!("/docker/{ID}");
        let tree = Tree::v2(&group, &group);
        let table = tree.path("proc/self/net/dev");
        let files = tree.open(ID, true).unwrap();
        let mut ends = Self {
            host: HostEnds::without_reports(table.to_str().unwrap()),
            tree,
            files,
        };
        ends.write_host(1);
        ends.host.read();
        let own = vec![ends.host.add_end(0), ends.host.add_end(1)];
        let first = ends.read(None);
        ends.files.network.as_ref().unwrap().set_own_ends(own);
        let second = ends.read(Some(first));
        (ends, second)
    }

    fn write_host(&self, bytes: u64) {
        let table = format!("Inter-|\n face |bytes\n vetha: {bytes} 1\n vethb: 2 1\n");
        self.tree.write("proc/self/net/dev", &table);
    }

    /// Writes the received bytes of the first interface of the container.
    fn write(&self, bytes: u64) {
        let table = file(V2, "net/dev").replacen("1392", &bytes.to_string(), 1);
        self.tree.write(&format!("proc/{PID}/net/dev"), &table);
    }

    /// Reads the container 600 ms after `before`.
    fn read(&self, before: Option<ContainerReading>) -> ContainerReading {
        let before = before.map(|before| earlier(before, Duration::from_millis(600)));
        let host = Host {
            ends: Some(&self.host),
            ..HOST
        };
        let read = self
            .files
            .read(before.as_ref(), false, &mut Vec::new(), &host);
        read.unwrap()
    }
}

fn received(reading: &ContainerReading) -> u64 {
    reading.usage.network.get("eth0").unwrap().rx_bytes
}

#[test]
fn the_table_of_a_container_is_read_when_the_counters_of_the_hosts_ends_have_changed() {
    let (mut ends, before) = Ends::new();
    assert_eq!(received(&before), 1392);
    ends.write(2000);
    let before = ends.read(Some(before));
    assert_eq!(received(&before), 1392);
    ends.write_host(2);
    ends.host.read();
    let before = ends.read(Some(before));
    assert_eq!(received(&before), 2000);
    // The engine has reported a change of the container.
    ends.write(3000);
    let changed = ContainerReading {
        rare_at: None,
        ..before
    };
    assert_eq!(received(&ends.read(Some(changed))), 3000);
}

#[test]
fn counters_that_the_hosts_ends_do_not_show_are_read_each_time() {
    let (ends, before) = Ends::new();
    ends.write(2000);
    // The previous reading is so old that the next one would be more than a minute after the reading of the table.
    let old = earlier(before, Duration::from_secs(31));
    let network = ends.files.network.as_ref().unwrap();
    network.set_read_earlier(Duration::from_secs(31));
    let before = ends.read(Some(old));
    assert_eq!(received(&before), 2000);
    ends.write(3000);
    assert_eq!(received(&ends.read(Some(before))), 3000);
}

#[test]
fn a_table_without_traffic_is_not_read_in_each_round_after_a_minute() {
    let (ends, before) = Ends::new();
    // This reading has rates, and the next one reads the table.
    let before = ends.read(Some(earlier(before, Duration::from_secs(5))));
    let rate = |reading: &ContainerReading| {
        let eth0 = reading.usage.network.get("eth0").unwrap();
        eth0.rx_bytes_per_second
    };
    assert_eq!(rate(&before), Some(0.0));
    let old = earlier(before, Duration::from_secs(31));
    let network = ends.files.network.as_ref().unwrap();
    network.set_read_earlier(Duration::from_secs(31));
    let before = ends.read(Some(old));
    assert_eq!((received(&before), rate(&before)), (1392, Some(0.0)));
    ends.write(3000);
    assert_eq!(received(&ends.read(Some(before))), 1392);
}

#[test]
fn a_further_interface_without_an_end_on_the_host_is_read_each_time() {
    let (ends, mut before) = Ends::new();
    let table = file(V2, "net/dev");
    let line = table.lines().last().unwrap().replace("eth1", "eth2");
    let write = |bytes: &str| {
        let table = format!("{table}{}\n", line.replace("1392", bytes));
        ends.tree.write(&format!("proc/{PID}/net/dev"), &table);
    };
    write("1392");
    // The engine reports that the container has joined a network.
    before.rare_at = None;
    let mut before = ends.read(Some(before));
    for bytes in [2000, 3000] {
        write(&bytes.to_string());
        before = ends.read(Some(before));
        assert_eq!(before.usage.network.get("eth2").unwrap().rx_bytes, bytes);
    }
}

/// Returns the same reading, with its times moved back by `by`.
fn earlier(reading: ContainerReading, by: Duration) -> ContainerReading {
    let before = |at: Option<Instant>| at.and_then(|at| at.checked_sub(by));
    ContainerReading {
        usage_at: before(reading.usage_at),
        details_at: before(reading.details_at),
        rare_at: before(reading.rare_at),
        cpu: CpuReading {
            received: before(reading.cpu.received),
            ..reading.cpu
        },
        ..reading
    }
}

/// Returns the names and texts of the files in a fixture. The fixture has the format of `tail -n +1 FILE…`.
fn files(fixture: &str) -> impl Iterator<Item = (&str, &str)> {
    let files = fixture.split("==> ").skip(1);
    files.map(|file| file.split_once(" <==\n").unwrap())
}

fn file<'a>(fixture: &'a str, name: &str) -> &'a str {
    files(fixture).find(|(one, _)| *one == name).unwrap().1
}

/// Returns `/proc/PID/cgroup` as recorded on a host with v1 and v2.
fn in_v1(path: &str) -> String {
    let controllers = "9:name=systemd 8:pids 7:blkio 6:freezer 5:devices 4:memory 3:cpuset \
                       2:cpuacct 1:cpu 0:";
    let lines = controllers.split(' ');
    lines.map(|line| format!("{line}:{path}\n")).collect()
}

fn usage_v1() -> (u64, Usage) {
    let usage = Usage {
        memory: Some(4_128_768),
        inactive_file: 3_219_456,
        memory_limit: 67_108_864,
        rss: Some(53_248),
        cache: Some(3_321_856),
        kernel: Some(421_888),
        oom_kills: Some(2),
        pressure: None,
        pids: Some(1),
        block_io: Some(BlockIo {
            read_bytes: 9_121_792,
            write_bytes: 14_942_208,
            read_ops: Some(192),
            write_ops: Some(102),
            ..BlockIo::default()
        }),
        throttling: Some(Throttling {
            periods: 11,
            throttled_periods: 5,
            throttled_ns: 218_129_967,
        }),
        exact: Arc::new(ExactContainer {
            bursts: Some((0, 0)),
            mapped_file: Some(0),
            swap: Some(0),
            active_file: Some(102_400),
            inactive_file: Some(3_219_456),
            file_dirty: Some(0),
            file_writeback: Some(0),
            page_faults: Some(2278),
            major_page_faults: Some(2),
            refaults_file: Some(180),
            refaults_anon: Some(0),
            devices: vec![DeviceIo {
                number: (254, 0),
                read_bytes: 9_121_792,
                write_bytes: 14_942_208,
                read_ops: 192,
                write_ops: 102,
            }],
            ..ExactContainer::default()
        }),
        network: Interfaces::from_iter([interface("eth0", [1086, 0, 13, 0])]).into(),
        ..Usage::default()
    };
    (295_045_679, usage)
}

fn usage_v2() -> (u64, Usage) {
    let usage = Usage {
        memory: Some(18_018_304),
        inactive_file: 8_392_704,
        memory_limit: 67_108_864,
        rss: Some(8_687_616),
        cache: Some(8_478_720),
        kernel: Some(663_552),
        oom_kills: Some(1),
        pressure: Some(Pressures {
            cpu: Some(pressure(
                ([53.22, 60.68, 26.26], 97_583_336),
                ([52.65, 59.36, 25.7], 95_685_718),
            )),
            memory: Some(pressure(
                ([0.0, 0.21, 0.1], 432_782),
                ([0.0, 0.18, 0.07], 385_598),
            )),
            io: Some(pressure(
                ([0.0, 0.03, 0.0], 74_606),
                ([0.0, 0.0, 0.0], 15_027),
            )),
        }),
        pids: Some(4),
        block_io: Some(BlockIo {
            read_bytes: 8_478_720,
            write_bytes: 8_388_608,
            read_ops: Some(68),
            write_ops: Some(14),
            ..BlockIo::default()
        }),
        throttling: Some(Throttling {
            periods: 1465,
            throttled_periods: 1457,
            throttled_ns: 183_019_555_000,
        }),
        exact: Arc::new(ExactContainer {
            cpu_modes_ns: Some((8_238_049_000, 21_800_049_000)),
            bursts: Some((0, 0)),
            mapped_file: Some(0),
            active_file: Some(86_016),
            inactive_file: Some(8_392_704),
            file_dirty: Some(0),
            file_writeback: Some(0),
            page_faults: Some(36_808),
            major_page_faults: Some(3),
            pages_scanned: Some(2048),
            pages_reclaimed: Some(2048),
            refaults_file: Some(0),
            refaults_anon: Some(0),
            high_events: Some(0),
            max_events: Some(145),
            devices: vec![DeviceIo {
                number: (254, 0),
                read_bytes: 8_478_720,
                write_bytes: 8_388_608,
                read_ops: 68,
                write_ops: 14,
            }],
            ..ExactContainer::default()
        }),
        network: Interfaces::from_iter([
            interface("eth0", [1392, 0, 16, 0]),
            interface("eth1", [1392, 0, 16, 0]),
        ])
        .into(),
        ..Usage::default()
    };
    (30_038_098_000, usage)
}

fn pressure(some: ([f64; 3], u64), full: ([f64; 3], u64)) -> Pressure {
    let stalls = |([avg10, avg60, avg300], total_us): ([f64; 3], u64)| Stalls {
        avg10,
        avg60,
        avg300,
        total_us,
    };
    Pressure {
        some: stalls(some),
        full: Some(stalls(full)),
    }
}

fn interface(
    name: &str,
    [rx_bytes, tx_bytes, rx_packets, tx_packets]: [u64; 4],
) -> (String, InterfaceCounters) {
    let counters = InterfaceCounters {
        rx_bytes,
        tx_bytes,
        rx_packets,
        tx_packets,
        ..InterfaceCounters::default()
    };
    (name.to_owned(), counters)
}

#[test]
fn v2_is_read_under_every_driver_and_parent() {
    for group in [
        format!("/system.slice/docker-{ID}.scope"),
        format!("/docker/{ID}"),
        format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
        format!("/my.slice/my-parent.slice/docker-{ID}.scope"),
        format!("/my-parent/{ID}"),
    ] {
        assert_eq!(Tree::v2(&group, &group).read(ID), usage_v2(), "{group}");
    }
}

#[test]
fn the_path_and_the_directories_of_the_group_are_known() {
    let group = |tree: &Tree| {
        let reading = read_since(&tree.open(ID, true).unwrap(), None);
        reading.usage.group.clone().unwrap()
    };
    let scope = format!("/machine.slice/libpod-{ID}.scope");
    let tree = Tree::v2(&scope, &format!("{scope}/container"));
    let found = group(&tree);
    assert_eq!(found.path, scope);
    let directory = tree.path(&format!("cgroup{scope}"));
    assert_eq!(found.directories, Some(GroupDirectories::V2(directory)));
    let tree = Tree::v1();
    let found = group(&tree);
    assert_eq!(found.path, format!("/docker/{ID}"));
    let directory = |name: &str| Some(tree.path(&format!("cgroup/{name}/docker/{ID}")));
    let directories = GroupDirectories::V1 {
        cpuacct: directory("cpuacct"),
        memory: directory("memory"),
    };
    assert_eq!(found.directories, Some(directories));
}

#[test]
fn a_container_whose_process_is_in_a_subgroup_is_measured_as_a_whole() {
    // Two containers that run systemd, and a container of Podman.
    for (group, below) in [
        (format!("/system.slice/docker-{ID}.scope"), "/init.scope"),
        (format!("/docker/{ID}"), "/system.slice/cron.service"),
        (format!("/machine.slice/libpod-{ID}.scope"), "/container"),
    ] {
        let path = format!("{group}{below}");
        let tree = Tree::v2(&group, &path);
        // The subgroup has the same files, with smaller figures.
        tree.group(V2, &format!("cgroup{path}"));
        tree.write(&format!("cgroup{path}/memory.current"), "4096\n");
        tree.write(&format!("cgroup{path}/cpu.stat"), "usage_usec 1\n");
        assert_eq!(tree.read(ID), usage_v2(), "{path}");
    }
}

#[test]
fn a_container_of_an_engine_in_a_container_has_its_own_figures() {
    let outer = format!("/docker/{OTHER}");
    let inner = format!("{outer}/docker/{ID}");
    let tree = Tree::v2(&inner, &inner);
    tree.group(V2, &format!("cgroup{outer}"));
    tree.write(&format!("cgroup{outer}/memory.current"), "99999744\n");
    assert_eq!(tree.read(ID), usage_v2());
    // The outer container's figures include the inner container, even if the first process is in the inner group.
    assert_eq!(tree.read(OTHER).1.memory, Some(99_999_744));
}

#[test]
fn v1_is_read_with_a_directory_per_controller() {
    assert_eq!(Tree::v1().read(ID), usage_v1());
}

#[test]
fn v1_is_read_if_controllers_share_a_directory() {
    let tree = Tree::mounted(&[MOUNT_OF_CPU, MOUNTS_V1].concat());
    tree.groups_of_v1(|controller| match controller {
        "cpu" | "cpuacct" => "cpu,cpuacct",
        other => other,
    });
    let cgroup = in_v1(&format!("/docker/{ID}"));
    let shared = format!("1:cpu,cpuacct:/docker/{ID}\n");
    let separate = format!("2:cpuacct:/docker/{ID}\n1:cpu:/docker/{ID}\n");
    assert!(cgroup.contains(&separate));
    tree.process(PID, &cgroup.replace(&separate, &shared), V1);
    assert_eq!(tree.read(ID), usage_v1());
}

#[test]
fn v1_is_preferred_if_both_versions_are_mounted() {
    let tree = Tree::mounted(&[MOUNT_UNIFIED, MOUNTS_OF_CPU, MOUNTS_V1].concat());
    tree.groups_of_v1(|controller| controller);
    tree.process(PID, &in_v1(&format!("/docker/{ID}")), V1);
    // As in the recording: a group of v2 without controllers has only a few files.
    let unified = format!("cgroup/unified/docker/{ID}");
    let cpu_stat = "usage_usec 295045\nuser_usec 263572\nsystem_usec 31473\nnice_usec 0\n";
    tree.write(&format!("{unified}/cpu.stat"), cpu_stat);
    tree.write(&format!("{unified}/cgroup.controllers"), "");
    assert_eq!(tree.read(ID), usage_v1());
    // v1 is preferred even if the group of v2 has all files.
    tree.group(V2, &unified);
    assert_eq!(tree.read(ID), usage_v1());
}

#[test]
fn the_figures_of_absent_controllers_are_omitted() {
    // A rootless engine often has only the memory controller.
    let group =
        format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope");
    let tree = Tree::v2(&group, &group);
    let absent = Usage {
        pids: None,
        block_io: None,
        throttling: None,
        exact: Arc::new(ExactContainer {
            bursts: None,
            devices: Vec::new(),
            ..Arc::unwrap_or_clone(usage_v2().1.exact)
        }),
        ..usage_v2().1
    };
    tree.remove(&format!("cgroup{group}/io.stat"));
    tree.remove(&format!("cgroup{group}/pids.current"));
    let cpu_stat = "usage_usec 30038098\nuser_usec 8238049\nsystem_usec 21800049\nnice_usec 0\n";
    tree.write(&format!("cgroup{group}/cpu.stat"), cpu_stat);
    assert_eq!(tree.read(ID), (usage_v2().0, absent));

    // The kernel was started with cgroup_disable=memory.
    let tree = Tree::v2(&group, &group);
    for file in ["current", "stat", "max", "events", "pressure"] {
        tree.remove(&format!("cgroup{group}/memory.{file}"));
    }
    let pressure = usage_v2().1.pressure.map(|pressure| Pressures {
        memory: None,
        ..pressure
    });
    let absent = Usage {
        memory: None,
        inactive_file: 0,
        memory_limit: HOST_MEMORY,
        rss: None,
        cache: None,
        kernel: None,
        oom_kills: None,
        pressure,
        exact: Arc::new(ExactContainer {
            cpu_modes_ns: usage_v2().1.exact.cpu_modes_ns,
            bursts: Some((0, 0)),
            devices: usage_v2().1.exact.devices.clone(),
            ..ExactContainer::default()
        }),
        ..usage_v2().1
    };
    assert_eq!(tree.read(ID), (usage_v2().0, absent));

    let tree = Tree::v1();
    let absent = Usage {
        pids: None,
        block_io: None,
        throttling: None,
        exact: Arc::new(ExactContainer {
            bursts: None,
            devices: Vec::new(),
            ..Arc::unwrap_or_clone(usage_v1().1.exact)
        }),
        ..usage_v1().1
    };
    for controller in ["cpu", "pids", "blkio"] {
        fs::remove_dir_all(tree.path(&format!("cgroup/{controller}"))).unwrap();
    }
    assert_eq!(tree.read(ID), (usage_v1().0, absent));
}

#[test]
fn a_container_without_cpu_time_or_with_incomplete_memory_files_is_refused() {
    let group = format!("/docker/{ID}");
    for needed in ["cpu.stat", "memory.stat", "memory.max"] {
        let tree = Tree::v2(&group, &group);
        let path = tree.path(&format!("cgroup{group}/{needed}"));
        fs::remove_file(&path).unwrap();
        let refused = tree.open(ID, true).unwrap_err().to_string();
        assert!(refused.starts_with(path.to_str().unwrap()), "{refused}");
    }
}

#[test]
fn the_limit_of_a_container_without_a_limit_is_the_hosts_memory() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    tree.write(&format!("cgroup{group}/memory.max"), "max\n");
    assert_eq!(tree.read(ID).1.memory_limit, HOST_MEMORY);

    let tree = Tree::v1();
    let limit = format!("cgroup/memory/docker/{ID}/memory.limit_in_bytes");
    // This number is the kernel's value for no limit: the largest number of bytes in whole pages.
    tree.write(&limit, "9223372036854771712\n");
    assert_eq!(tree.read(ID).1.memory_limit, HOST_MEMORY);
}

/// Writes a file with the I/O of the container, with cgroup v1.
fn write_io(tree: &Tree, file: &str, text: &str) {
    let path = format!("cgroup/blkio/docker/{ID}/blkio.throttle.{file}_recursive");
    tree.write(&path, text);
}

#[test]
fn a_container_without_io_has_0_bytes_and_not_an_absent_figure() {
    let nothing = BlockIo {
        read_ops: Some(0),
        write_ops: Some(0),
        ..BlockIo::default()
    };
    let tree = Tree::v1();
    for file in ["io_service_bytes", "io_serviced"] {
        write_io(&tree, file, "Total 0\n");
    }
    assert_eq!(tree.read(ID).1.block_io, Some(nothing));
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    tree.write(&format!("cgroup{group}/io.stat"), "");
    assert_eq!(tree.read(ID).1.block_io, Some(nothing));
}

#[test]
fn a_text_of_any_length_is_read_completely() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let devices = 0..1000_u64;
    let io_stat: String = devices
        .clone()
        .map(|n| format!("8:{n} rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"))
        .collect();
    let net_dev: String = devices
        .map(|n| format!("  eth{n}: {n} 1 0 0 0 0 0 0 2 3 0 0 0 0 0 0\n"))
        .collect();
    tree.write(&format!("cgroup{group}/io.stat"), &io_stat);
    tree.write(&format!("proc/{PID}/net/dev"), &net_dev);
    let (_, usage) = tree.read(ID);
    assert_eq!(usage.block_io.unwrap().write_ops, Some(2000));
    assert_eq!(usage.network.len(), 1000);
    assert_eq!(usage.network.get("eth999").unwrap().rx_bytes, 999);
}

#[test]
fn each_reading_has_the_current_text() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let files = tree.open(ID, true).unwrap();
    let mut buffer = Vec::new();
    let mut memory = |text: &str| {
        tree.write(&format!("cgroup{group}/memory.current"), text);
        let ContainerReading { usage, .. } = files.read(None, false, &mut buffer, &HOST).unwrap();
        usage.memory
    };
    assert_eq!(memory("99999744\n"), Some(99_999_744));
    // No bytes of the previous, longer text remain.
    assert_eq!(memory("8192\n"), Some(8192));
}

#[test]
fn an_agent_that_sees_a_part_of_the_hierarchy_reads_the_groups_in_it() {
    let mounts = MOUNT_V2.replace("0:30 / FOLDER", "0:30 /docker FOLDER");
    let tree = Tree::mounted(&mounts);
    tree.group(V2, &format!("cgroup/{ID}"));
    tree.process(PID, &format!("0::/docker/{ID}\n"), V2);
    assert_eq!(tree.read(ID), usage_v2());

    for other_group in [
        format!("0::/other/{ID}\n"),
        // If the agent has its own cgroup namespace, the path of another container's group begins like this.
        format!("0::/../../docker/{ID}\n"),
        // If a container has its own cgroup namespace, the container sees its own group like this.
        "0::/\n".to_owned(),
    ] {
        tree.process(PID, &other_group, V2);
        let refused = tree.open(ID, true).unwrap_err();
        assert!(matches!(refused, KernelError::GroupNotVisible), "{refused}");
    }
}

#[test]
fn a_process_of_another_container_with_the_same_id_is_refused() {
    // The kernel has reused the process id for another container. Or the engine is on another host, and a process on this host
    // has the same id by chance.
    let other = format!("/docker/{OTHER}");
    for path in [&other, "/user.slice/user-0.slice/session-1.scope"] {
        let tree = Tree::v2(path, path);
        let refused = tree.open(ID, true).unwrap_err();
        assert!(
            matches!(refused, KernelError::ProcessNotVisible),
            "{path}: {refused}"
        );
        // The files can be opened for the container to which they belong.
        assert!(path != other || tree.open(OTHER, true).is_ok());
    }
    let tree = Tree::v1();
    let refused = tree.open(OTHER, true).unwrap_err();
    assert!(
        matches!(refused, KernelError::ProcessNotVisible),
        "{refused}"
    );
}

#[test]
fn the_error_for_a_missing_file_names_the_file() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    fs::remove_dir_all(tree.path(&format!("proc/{PID}"))).unwrap();
    let refused = tree.open(ID, true).unwrap_err().to_string();
    assert!(refused.contains("4242/cgroup: "), "{refused}");
    let refused = Kernel::new(Path::new("/nonexistent")).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("/nonexistent/self/mountinfo: ")
    );
}

#[test]
fn only_a_containers_own_network_is_counted() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let networks = |own_network| read(&tree.open(ID, own_network).unwrap()).1.network.len();
    // If the networks cannot be compared, the engine's information counts.
    assert_eq!((networks(true), networks(false)), (2, 0));
    // The agent's own network has interfaces with the same names, but it is a different network.
    tree.write("proc/self/net/dev", file(V2, "net/dev"));
    assert_eq!((networks(true), networks(false)), (2, 0));
    // If a container shares another container's network, this network can be the host's network.
    let theirs = format!("proc/{PID}/net/dev");
    tree.remove(&theirs);
    fs::hard_link(tree.path("proc/self/net/dev"), tree.path(&theirs)).unwrap();
    assert_eq!(networks(true), 0);
}

#[test]
fn interfaces_with_other_names_count_if_no_interface_has_a_default_name() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let table = file(V2, "net/dev");
    let names = |table: &str| -> Vec<String> {
        tree.write(&format!("proc/{PID}/net/dev"), table);
        tree.read(ID).1.network.keys().cloned().collect()
    };
    assert_eq!(names(&table.replace("eth1", "tun0")), ["eth0"]);
    let changed = table.replace("eth0", " en0").replace("eth1", " en1");
    assert_eq!(names(&changed), ["en0", "en1"]);
    // A tunnel carries the same bytes a second time.
    let changed = table.replace("eth0", " en0").replace("eth1", "tun0");
    assert_eq!(names(&changed), ["en0"]);
}

/// A second reading of a container. The number of processes changes from 4 to 5 between the two readings.
struct Second {
    /// The time between the two readings.
    after: Duration,
    /// The CPU time at the second reading, as a line of `cpu.stat`.
    cpu: &'static str,
    /// The text of `memory.current` at the second reading.
    memory: &'static str,
    /// Whether the container was also idle before the first reading.
    idle: bool,
    shares_network: bool,
}

/// The second reading of an idle container, with an interval of 100 ms.
const IDLE: Second = Second {
    after: Duration::from_millis(100),
    cpu: "usage_usec 30038098",
    memory: "18018304\n",
    idle: true,
    shares_network: false,
};

impl Second {
    /// Returns the number of processes in the second reading. It is 4 if the second reading reuses the old figures, and 5 if it
    /// reads the files.
    fn pids(&self) -> Option<u64> {
        let group = format!("/docker/{ID}");
        let tree = Tree::v2(&group, &group);
        let files = tree.open(ID, true).unwrap();
        let mut before = read_since(&files, None);
        if self.idle {
            before = read_since(&files, Some(&before));
        }
        assert_eq!((before.usage.pids, before.idle), (Some(4), self.idle));
        let before = earlier(before, self.after);
        let stat = file(V2, "cpu.stat").replace(IDLE.cpu, self.cpu);
        tree.write(&format!("cgroup{group}/cpu.stat"), &stat);
        tree.write(&format!("cgroup{group}/memory.current"), self.memory);
        tree.write(&format!("cgroup{group}/pids.current"), "5\n");
        let now = files.read(Some(&before), self.shares_network, &mut Vec::new(), &HOST);
        let now = now.unwrap();
        assert!(now.cpu.received > before.cpu.received);
        now.usage.pids
    }
}

#[test]
fn most_files_of_an_idle_container_are_not_read_again() {
    assert_eq!(IDLE.pids(), Some(4));
    let changed = [
        Second {
            idle: false,
            ..IDLE
        },
        Second {
            shares_network: true,
            ..IDLE
        },
        Second {
            cpu: "usage_usec 30038099",
            ..IDLE
        },
        Second {
            memory: "18022400\n",
            ..IDLE
        },
        // At the next reading, the figures would be older than one second.
        Second {
            after: Duration::from_millis(500),
            ..IDLE
        },
        Second {
            after: Duration::from_millis(850),
            ..IDLE
        },
    ];
    for second in changed {
        assert_eq!(second.pids(), Some(5));
    }
}

#[test]
fn figures_of_a_busy_container_that_change_rarely_are_read_again_when_they_can_have_changed() {
    let tree = Tree::v1();
    let files = tree.open(ID, true).unwrap();
    let write = |file: &str, text: &str| {
        let (controller, name) = file.split_once('/').unwrap();
        tree.write(&format!("cgroup/{controller}/docker/{ID}/{name}"), text);
    };
    write(
        "cpu/cpu.stat",
        "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
    );
    // A container with a CPU limit has no periods at its first reading, so that reading is not reused.
    let first = read_since(&files, None);
    assert_eq!(first.rare_at, None);
    write("cpuacct/cpuacct.usage", "1\n");
    let first = read_since(&files, Some(&first));
    assert!(first.rare_at.is_some());
    let limit = first.usage.memory_limit;
    assert_eq!(first.usage.oom_kills, Some(2));
    write(
        "cpu/cpu.stat",
        "nr_periods 9\nnr_throttled 0\nthrottled_time 0\n",
    );
    write("memory/memory.limit_in_bytes", "4096\n");
    write("memory/memory.oom_control", "oom_kill 3\n");
    let mut busy_until = 0;
    let mut busy = || {
        busy_until += 1_000_000;
        write("cpuacct/cpuacct.usage", &format!("99{busy_until}\n"));
    };
    let rare = |reading: &ContainerReading| {
        let usage = &reading.usage;
        let periods = usage.throttling.map(|throttling| throttling.periods);
        (usage.memory_limit, periods, usage.oom_kills)
    };
    busy();
    let second = read_on(&files, &first, 7);
    assert_eq!(rare(&second), (limit, Some(0), Some(2)));
    assert_eq!(second.rare_at, first.rare_at);
    // The kernel has killed a process of the host. It can be one of this container.
    busy();
    let third = read_on(&files, &second, 8);
    assert_eq!(rare(&third), (limit, Some(0), Some(3)));
    // The figures get too old.
    busy();
    let old = earlier(third.clone(), Duration::from_secs(10));
    assert_eq!(rare(&read_on(&files, &old, 8)), (4096, Some(9), Some(3)));
    // The engine reports a change of the container.
    let changed = ContainerReading {
        rare_at: None,
        ..third
    };
    busy();
    let fourth = read_on(&files, &changed, 8);
    assert_eq!(rare(&fourth), (4096, Some(9), Some(3)));
    // With a CPU limit, the throttling is read each time.
    write(
        "cpu/cpu.stat",
        "nr_periods 19\nnr_throttled 0\nthrottled_time 0\n",
    );
    busy();
    let fifth = read_on(&files, &fourth, 8);
    assert_eq!(rare(&fifth), (4096, Some(19), Some(3)));
    assert_eq!(fifth.rare_at, fourth.rare_at);
    // The age of these figures also counts when the container becomes idle.
    let idle = ContainerReading {
        idle: true,
        ..fifth
    };
    write("memory/memory.limit_in_bytes", "8192\n");
    assert_eq!(rare(&read_on(&files, &idle, 8)).0, 4096);
    let old = earlier(idle, Duration::from_secs(10));
    assert_eq!(rare(&read_on(&files, &old, 8)).0, 8192);
}

#[test]
fn operations_of_a_busy_container_are_read_again_with_new_bytes_or_when_they_get_old() {
    let tree = Tree::v1();
    let files = tree.open(ID, true).unwrap();
    let write_both = |bytes: u64, ops: u64| {
        for (file, write) in [("io_service_bytes", bytes), ("io_serviced", ops)] {
            let text = format!("254:0 Read 7\n254:0 Write {write}\nTotal 7\n");
            write_io(&tree, file, &text);
        }
    };
    let mut busy_until = 0;
    let mut read = |before: &ContainerReading| {
        busy_until += 1_000_000;
        let cpu_time = format!("cgroup/cpuacct/docker/{ID}/cpuacct.usage");
        tree.write(&cpu_time, &format!("99{busy_until}\n"));
        read_on(&files, before, 7)
    };
    let written = |reading: &ContainerReading| {
        let io = reading.usage.block_io.unwrap();
        let [device] = reading.usage.exact.devices[..] else {
            panic!("{:?}", reading.usage.exact.devices);
        };
        assert_eq!((device.read_bytes, device.read_ops), (7, 7));
        assert_eq!(io.write_bytes, device.write_bytes);
        assert_eq!(io.write_ops, Some(device.write_ops));
        (device.write_bytes, device.write_ops)
    };
    write_both(4096, 1);
    let first = read(&read_since(&files, None));
    assert!(first.rare_at.is_some());
    assert_eq!(written(&first), (4096, 1));
    // An operation without bytes, for example a flush.
    write_both(4096, 2);
    let second = read(&first);
    assert_eq!(written(&second), (4096, 1));
    let io = second.usage.block_io.unwrap();
    assert_eq!(io.write_bytes_per_second, Some(0.0));
    write_both(8192, 3);
    let third = read(&second);
    assert_eq!(written(&third), (8192, 3));
    write_both(8192, 4);
    let old = earlier(third, Duration::from_secs(10));
    assert_eq!(written(&read(&old)), (8192, 4));
}

#[test]
fn rates_use_the_time_between_two_readings_of_the_files() {
    let tree = Tree::v1();
    let files = tree.open(ID, true).unwrap();
    let first = earlier(read_since(&files, None), Duration::from_secs(200));
    let write = |file: &str, from: &str, to: &str| {
        let (path, text) = match file.split_once('/').unwrap() {
            ("net", _) => (format!("proc/{PID}/{file}"), self::file(V1, file)),
            (controller, name) => (
                format!("cgroup/{controller}/docker/{ID}/{name}"),
                self::file(V1, file),
            ),
        };
        assert!(text.contains(from), "{text}");
        tree.write(&path, &text.replacen(from, to, 1));
    };
    write("net/dev", "1086", "2001086");
    write("cpu/cpu.stat", "nr_periods 11", "nr_periods 21");
    let second = read_since(&files, Some(&first));
    let rate = |reading: &ContainerReading| {
        reading
            .usage
            .network
            .get("eth0")
            .unwrap()
            .rx_bytes_per_second
            .unwrap()
    };
    assert!(
        (9000.0..=10_000.0).contains(&rate(&second)),
        "{}",
        rate(&second)
    );
    assert_eq!(second.usage.throttled_percent, Some(0.0));
    let io = |reading: &ContainerReading| reading.usage.block_io.unwrap().write_bytes_per_second;
    assert_eq!((io(&first), io(&second)), (None, Some(0.0)));
    assert!(second.idle);

    // The first idle reading reads all files again. Later idle readings reuse the figures of the first idle reading.
    let second = earlier(second, Duration::from_millis(100));
    let third = read_since(
        &files,
        Some(&ContainerReading {
            idle: false,
            ..second
        }),
    );
    assert_eq!((rate(&third), third.usage.throttled_percent), (0.0, None));
    write("cpu/cpu.stat", "nr_periods 11", "nr_periods 31");
    let fourth = read_since(&files, Some(&third));
    assert!(Arc::ptr_eq(&third.usage, &fourth.usage));
}
