//! The reader on whole trees of files: everything below `/proc` and the control groups' mount
//! points that it asks for, from a container's first process to its figures. This file is long: it has whole trees, of both versions.
//!
//! The files of v1 were recorded from a container on a real kernel (6.18), those of v2 on another (6.12, Docker 26, in the
//! virtual machine of `make test-vm`, by tests/vm/guest/record.py).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{ContainerFiles, Kernel, KernelError};
use crate::collect::docker::usage::{ContainerReading, CpuReading, Usage};
use crate::model::{BlockIo, InterfaceCounters, Pressure, Pressures, Stalls, Throttling};

const V1: &str = include_str!("../../../../tests/fixtures/cgroup-v1.txt");
const V2: &str = include_str!("../../../../tests/fixtures/cgroup-v2.txt");

const ID: &str = "a00868185cc6b5e743c7649fd58cd74cf5e3bcdeaf7397da2c51717bbdda610d";
const OTHER: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";
const PID: u32 = 4242;
const HOST_MEMORY: u64 = 8 << 30;

/// As `mountinfo` shows what is mounted: `FOLDER` stands for the tree's own.
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
/// As systemd mounts them: one hierarchy of both.
const MOUNT_OF_CPU: &str =
    "32 31 0:29 / FOLDER/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
const MOUNT_UNIFIED: &str = "41 31 0:38 / FOLDER/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
const MOUNT_V2: &str = "35 24 0:30 / FOLDER/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";

/// A `proc` and a `cgroup` of a test's own, in a temporary folder.
struct Tree(TempDir);

impl Tree {
    /// With these file systems mounted, and nothing in them.
    fn mounted(mounts: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let folder = tree.0.path().to_str().unwrap();
        tree.write("proc/self/mountinfo", &mounts.replace("FOLDER", folder));
        tree
    }

    /// With v2 mounted, and a group that has all files, whose processes are in `path`.
    fn v2(group: &str, path: &str) -> Self {
        let tree = Self::mounted(MOUNT_V2);
        tree.group(V2, &format!("cgroup{group}"));
        tree.process(PID, &format!("0::{path}\n"), V2);
        tree
    }

    /// With v1 mounted, and the group `/docker/ID` in each hierarchy.
    fn v1() -> Self {
        let tree = Self::mounted(&[MOUNTS_OF_CPU, MOUNTS_V1].concat());
        tree.groups_of_v1(|controller| controller);
        tree.process(PID, &in_v1(&format!("/docker/{ID}")), V1);
        tree
    }

    /// A group in each hierarchy of v1, where `mounted` says.
    fn groups_of_v1(&self, mounted: fn(&str) -> &str) {
        for (name, text) in files(V1).filter(|(name, _)| *name != "net/dev") {
            let (controller, file) = name.split_once('/').unwrap();
            let directory = mounted(controller);
            self.write(&format!("cgroup/{directory}/docker/{ID}/{file}"), text);
        }
    }

    /// A group of v2 with the files of a fixture.
    fn group(&self, fixture: &str, directory: &str) {
        for (name, text) in files(fixture).filter(|(name, _)| *name != "net/dev") {
            self.write(&format!("{directory}/{name}"), text);
        }
    }

    /// A process in these groups, with the network of a fixture.
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

    /// The CPU time and the figures of the container `id`.
    fn read(&self, id: &str) -> (u64, Usage) {
        read(&self.open(id, true).unwrap())
    }
}

fn read(files: &ContainerFiles) -> (u64, Usage) {
    let ContainerReading { cpu, usage, .. } = read_since(files, None);
    assert!(cpu.received.is_some());
    (cpu.usage_ns, Arc::unwrap_or_clone(usage))
}

fn read_since(files: &ContainerFiles, before: Option<&ContainerReading>) -> ContainerReading {
    let mut buffer = Vec::new();
    files.read(before, false, &mut buffer, HOST_MEMORY).unwrap()
}

/// As if a reading had been taken so much earlier.
fn earlier(reading: ContainerReading, by: Duration) -> ContainerReading {
    let before = |at: Option<Instant>| at.and_then(|at| at.checked_sub(by));
    ContainerReading {
        usage_at: before(reading.usage_at),
        cpu: CpuReading {
            received: before(reading.cpu.received),
            ..reading.cpu
        },
        ..reading
    }
}

/// The files of a fixture, which has them as `tail -n +1 FILE…` prints them: name and text.
fn files(fixture: &str) -> impl Iterator<Item = (&str, &str)> {
    let files = fixture.split("==> ").skip(1);
    files.map(|file| file.split_once(" <==\n").unwrap())
}

fn file<'a>(fixture: &'a str, name: &str) -> &'a str {
    files(fixture).find(|(one, _)| *one == name).unwrap().1
}

/// `/proc/PID/cgroup` on a host with v1, v2 beside it, as recorded.
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
        network: BTreeMap::from([interface("eth0", [1086, 0, 13, 0])]).into(),
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
        network: BTreeMap::from([
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
fn a_container_whose_process_is_in_a_group_below_is_measured_as_a_whole() {
    // A container that runs systemd, and podman, which keeps its own process beside it.
    for (group, below) in [
        (format!("/system.slice/docker-{ID}.scope"), "/init.scope"),
        (format!("/docker/{ID}"), "/system.slice/cron.service"),
        (format!("/machine.slice/libpod-{ID}.scope"), "/container"),
    ] {
        let path = format!("{group}{below}");
        let tree = Tree::v2(&group, &path);
        // A part of the whole, which has the same files.
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
    // The outer one's includes it, wherever its first process has gone.
    assert_eq!(tree.read(OTHER).1.memory, Some(99_999_744));
}

#[test]
fn v1_is_read_from_a_directory_per_controller() {
    assert_eq!(Tree::v1().read(ID), usage_v1());
}

#[test]
fn v1_is_read_where_controllers_share_a_directory() {
    let tree = Tree::mounted(&[MOUNT_OF_CPU, MOUNTS_V1].concat());
    tree.groups_of_v1(|controller| match controller {
        "cpu" | "cpuacct" => "cpu,cpuacct",
        other => other,
    });
    let cgroup = in_v1(&format!("/docker/{ID}"));
    let shared = format!("1:cpu,cpuacct:/docker/{ID}\n");
    let apart = format!("2:cpuacct:/docker/{ID}\n1:cpu:/docker/{ID}\n");
    assert!(cgroup.contains(&apart));
    tree.process(PID, &cgroup.replace(&apart, &shared), V1);
    assert_eq!(tree.read(ID), usage_v1());
}

#[test]
fn v1_is_preferred_to_a_v2_beside_it() {
    let tree = Tree::mounted(&[MOUNT_UNIFIED, MOUNTS_OF_CPU, MOUNTS_V1].concat());
    tree.groups_of_v1(|controller| controller);
    tree.process(PID, &in_v1(&format!("/docker/{ID}")), V1);
    // Recorded: without controllers a group of v2 has little else.
    let unified = format!("cgroup/unified/docker/{ID}");
    let cpu_stat = "usage_usec 295045\nuser_usec 263572\nsystem_usec 31473\nnice_usec 0\n";
    tree.write(&format!("{unified}/cpu.stat"), cpu_stat);
    tree.write(&format!("{unified}/cgroup.controllers"), "");
    assert_eq!(tree.read(ID), usage_v1());
    // Not even one that has more.
    tree.group(V2, &unified);
    assert_eq!(tree.read(ID), usage_v1());
}

#[test]
fn controllers_that_are_not_there_leave_their_figures_out() {
    // A rootless engine is often given the controllers of memory and nothing else.
    let group =
        format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope");
    let tree = Tree::v2(&group, &group);
    let absent = Usage {
        pids: None,
        block_io: None,
        throttling: None,
        ..usage_v2().1
    };
    tree.remove(&format!("cgroup{group}/io.stat"));
    tree.remove(&format!("cgroup{group}/pids.current"));
    let cpu_stat = "usage_usec 30038098\nuser_usec 8238049\nsystem_usec 21800049\nnice_usec 0\n";
    tree.write(&format!("cgroup{group}/cpu.stat"), cpu_stat);
    assert_eq!(tree.read(ID), (usage_v2().0, absent));

    // A kernel that was started with cgroup_disable=memory.
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
        ..usage_v2().1
    };
    assert_eq!(tree.read(ID), (usage_v2().0, absent));

    let tree = Tree::v1();
    let absent = Usage {
        pids: None,
        block_io: None,
        throttling: None,
        ..usage_v1().1
    };
    for controller in ["cpu", "pids", "blkio"] {
        fs::remove_dir_all(tree.path(&format!("cgroup/{controller}"))).unwrap();
    }
    assert_eq!(tree.read(ID), (usage_v1().0, absent));
}

#[test]
fn without_cpu_time_or_with_a_part_of_the_memory_a_container_cannot_be_measured() {
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
fn a_container_without_a_limit_may_have_the_hosts_memory() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    tree.write(&format!("cgroup{group}/memory.max"), "max\n");
    assert_eq!(tree.read(ID).1.memory_limit, HOST_MEMORY);

    let tree = Tree::v1();
    let limit = format!("cgroup/memory/docker/{ID}/memory.limit_in_bytes");
    // What the kernel has for no limit: as many bytes as there can be pages.
    tree.write(&limit, "9223372036854771712\n");
    assert_eq!(tree.read(ID).1.memory_limit, HOST_MEMORY);
}

#[test]
fn no_io_yet_is_0_and_not_absent() {
    let nothing = BlockIo {
        read_ops: Some(0),
        write_ops: Some(0),
        ..BlockIo::default()
    };
    let tree = Tree::v1();
    for file in ["io_service_bytes", "io_serviced"] {
        let path = format!("cgroup/blkio/docker/{ID}/blkio.throttle.{file}_recursive");
        tree.write(&path, "Total 0\n");
    }
    assert_eq!(tree.read(ID).1.block_io, Some(nothing));
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    tree.write(&format!("cgroup{group}/io.stat"), "");
    assert_eq!(tree.read(ID).1.block_io, Some(nothing));
}

#[test]
fn texts_of_any_length_are_read_whole() {
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
    assert_eq!(usage.network["eth999"].rx_bytes, 999);
}

#[test]
fn what_is_read_is_as_it_is_now() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let files = tree.open(ID, true).unwrap();
    let mut buffer = Vec::new();
    let mut memory = |text: &str| {
        tree.write(&format!("cgroup{group}/memory.current"), text);
        let ContainerReading { usage, .. } =
            files.read(None, false, &mut buffer, HOST_MEMORY).unwrap();
        usage.memory
    };
    assert_eq!(memory("99999744\n"), Some(99_999_744));
    // Nothing of a longer text before it is left.
    assert_eq!(memory("8192\n"), Some(8192));
}

#[test]
fn an_agent_that_sees_a_part_of_the_hierarchy_reads_what_is_in_it() {
    let mounts = MOUNT_V2.replace("0:30 / FOLDER", "0:30 /docker FOLDER");
    let tree = Tree::mounted(&mounts);
    tree.group(V2, &format!("cgroup/{ID}"));
    tree.process(PID, &format!("0::/docker/{ID}\n"), V2);
    assert_eq!(tree.read(ID), usage_v2());

    for elsewhere in [
        format!("0::/other/{ID}\n"),
        // As an agent in a control-group namespace of its own sees another's group.
        format!("0::/../../docker/{ID}\n"),
        // As a container in a namespace of its own would see itself.
        "0::/\n".to_owned(),
    ] {
        tree.process(PID, &elsewhere, V2);
        let refused = tree.open(ID, true).unwrap_err();
        assert!(matches!(refused, KernelError::Invisible), "{refused}");
    }
}

#[test]
fn another_process_with_the_same_id_is_refused() {
    // One that has taken the id over, in another container; or the engine is on another host,
    // where the container's first process happens to have the id of one of this host's.
    let other = format!("/docker/{OTHER}");
    for path in [&other, "/user.slice/user-0.slice/session-1.scope"] {
        let tree = Tree::v2(path, path);
        let refused = tree.open(ID, true).unwrap_err();
        assert!(matches!(refused, KernelError::Ended), "{path}: {refused}");
        // The same files serve whoever they belong to.
        assert!(path != other || tree.open(OTHER, true).is_ok());
    }
    let tree = Tree::v1();
    let refused = tree.open(OTHER, true).unwrap_err();
    assert!(matches!(refused, KernelError::Ended), "{refused}");
}

#[test]
fn a_process_or_a_host_without_files_is_refused_with_the_missing_file() {
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
fn only_a_network_of_its_own_is_a_containers() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let networks = |own_network| read(&tree.open(ID, own_network).unwrap()).1.network.len();
    // Where networks cannot be told apart, what the engine says counts.
    assert_eq!((networks(true), networks(false)), (2, 0));
    // The agent's own has the same interfaces, and is another one.
    tree.write("proc/self/net/dev", file(V2, "net/dev"));
    assert_eq!((networks(true), networks(false)), (2, 0));
    // By way of another container it may have the host's.
    let theirs = format!("proc/{PID}/net/dev");
    tree.remove(&theirs);
    fs::hard_link(tree.path("proc/self/net/dev"), tree.path(&theirs)).unwrap();
    assert_eq!(networks(true), 0);
}

#[test]
fn interfaces_of_other_names_count_where_there_is_none_of_the_engines() {
    let group = format!("/docker/{ID}");
    let tree = Tree::v2(&group, &group);
    let table = file(V2, "net/dev");
    let names = |table: &str| -> Vec<String> {
        tree.write(&format!("proc/{PID}/net/dev"), table);
        tree.read(ID).1.network.keys().cloned().collect()
    };
    assert_eq!(names(&table.replace("eth1", "tun0")), ["eth0"]);
    let others = table.replace("eth0", " en0").replace("eth1", " en1");
    assert_eq!(names(&others), ["en0", "en1"]);
    // A tunnel carries the same bytes once more.
    let others = table.replace("eth0", " en0").replace("eth1", "tun0");
    assert_eq!(names(&others), ["en0"]);
}

/// What there is to a second reading that comes so long after the first, with this CPU time and memory, where there
/// were 7 processes by the first and are 8 since.
struct Second {
    after: Duration,
    cpu: &'static str,
    memory: &'static str,
    /// Whether the container had done nothing before the first either.
    idle: bool,
    lends: bool,
}

/// Of a container that does nothing, at intervals of 100 ms.
const QUIET: Second = Second {
    after: Duration::from_millis(100),
    cpu: "usage_usec 30038098",
    memory: "18018304\n",
    idle: true,
    lends: false,
};

impl Second {
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
        let stat = file(V2, "cpu.stat").replace(QUIET.cpu, self.cpu);
        tree.write(&format!("cgroup{group}/cpu.stat"), &stat);
        tree.write(&format!("cgroup{group}/memory.current"), self.memory);
        tree.write(&format!("cgroup{group}/pids.current"), "5\n");
        let now = files.read(Some(&before), self.lends, &mut Vec::new(), HOST_MEMORY);
        let now = now.unwrap();
        assert!(now.cpu.received > before.cpu.received);
        now.usage.pids
    }
}

#[test]
fn who_does_nothing_is_asked_for_less() {
    assert_eq!(QUIET.pids(), Some(4));
    let others = [
        Second {
            idle: false,
            ..QUIET
        },
        Second {
            lends: true,
            ..QUIET
        },
        Second {
            cpu: "usage_usec 30038099",
            ..QUIET
        },
        Second {
            memory: "18022400\n",
            ..QUIET
        },
        // By the next reading it would be more than a second old.
        Second {
            after: Duration::from_millis(500),
            ..QUIET
        },
        Second {
            after: Duration::from_millis(850),
            ..QUIET
        },
    ];
    for second in others {
        assert_eq!(second.pids(), Some(5));
    }
}

#[test]
fn rates_are_over_the_time_between_what_was_read() {
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
    let rate =
        |reading: &ContainerReading| reading.usage.network["eth0"].rx_bytes_per_second.unwrap();
    assert!(
        (9000.0..=10_000.0).contains(&rate(&second)),
        "{}",
        rate(&second)
    );
    assert_eq!(second.usage.throttled_percent, Some(0.0));
    let io = |reading: &ContainerReading| reading.usage.block_io.unwrap().write_bytes_per_second;
    assert_eq!((io(&first), io(&second)), (None, Some(0.0)));
    assert!(second.idle);

    // Once nothing moves, all is read once more, and then stands.
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
