use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{Cores, Group, Guest, GuestMemory, HostSize, Lxcfs, keyed, own_groups};

const GIB: u64 = 1 << 30;
const HOST: HostSize = HostSize {
    memory: 8 * GIB,
    cpus: 8,
};
/// The mounts of a container with cgroup v2, as LXC, systemd-nspawn and Docker make them.
const V2: &str = "\
300 200 0:50 / / rw - overlay overlay rw
301 300 0:51 / /proc rw - proc proc rw
302 300 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate
";
/// The mounts of a container of Docker with cgroup v1, which has no namespace of control groups.
const V1: &str = "\
300 200 0:50 / / rw - overlay overlay rw
302 300 0:60 / /sys/fs/cgroup rw - tmpfs tmpfs rw
303 302 0:29 /docker/0123 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
304 302 0:31 /docker/0123 /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset
305 302 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
306 302 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
const V1_GROUPS: &str =
    "5:memory:/docker/0123\n3:cpuset:/docker/0123\n2:cpu,cpuacct:/docker/0123\n0::/\n";

/// Writes files, and returns a guest whose groups are their folder.
fn guest(v2: bool, files: &[(&str, &str)]) -> (TempDir, Guest) {
    let folder = TempDir::new().unwrap();
    for (file, text) in files {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let group = || {
        let path = folder.path().to_owned();
        Some(if v2 { Group::V2(path) } else { Group::V1(path) })
    };
    let guest = Guest {
        memory: group(),
        cpu: group(),
        cpuset: group(),
        cpuacct: group(),
        lxcfs: Lxcfs::default(),
    };
    (folder, guest)
}

/// The shape of these files is in the kernel's `Documentation/admin-guide/cgroup-v2.rst`.
const V2_FILES: [(&str, &str); 7] = [
    ("memory.max", "1073741824\n"),
    ("memory.current", "536870912\n"),
    (
        "memory.stat",
        "anon 209715200\nfile 300000000\nkernel 1\ninactive_file 104857600\nslab_reclaimable 5000\n",
    ),
    ("memory.swap.max", "max\n"),
    ("memory.swap.current", "4096\n"),
    ("cpu.max", "150000 100000\n"),
    (
        "cpu.stat",
        "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_periods 0\n",
    ),
];

#[test]
fn the_limits_and_figures_of_v2_are_read() {
    let (folder, guest) = guest(true, &V2_FILES);
    let figures = guest.compare(HOST).unwrap();
    let memory = GuestMemory {
        limit: GIB,
        used: 536_870_912 - 104_857_600,
        cached: Some(300_005_000),
        swap: Some((u64::MAX, 4096)),
    };
    assert_eq!(figures.memory, Some(memory));
    assert!(figures.computes_load);
    let cpu = figures.cpu.unwrap();
    assert_eq!((cpu.usable, cpu.cpus(), cpu.cores.clone()), (1.5, 2, None));
    let seconds = [3, 2, 1].map(Duration::from_secs);
    assert_eq!([cpu.used, cpu.user, cpu.system], seconds);
    // The set of cores is smaller than the quota. The cores are those of the guest.
    let set = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
    set("cpuset.cpus.effective", "3\n");
    let cpu = guest.compare(HOST).unwrap().cpu.unwrap();
    assert_eq!((cpu.usable, cpu.cpus()), (1.0, 1));
    let cores = cpu.cores.unwrap();
    assert!(cores.contains(3) && !cores.contains(2));
    // A limit can disappear while the guest runs.
    set("memory.max", "max\n");
    assert_eq!(guest.compare(HOST).unwrap().memory, None);
    set("cpuset.cpus.effective", "0-7\n");
    set("cpu.max", "max 100000\n");
    assert_eq!(guest.compare(HOST), None);
}

/// The shape of these files is in the kernel's `Documentation/admin-guide/cgroup-v1`.
#[test]
fn the_limits_and_figures_of_v1_are_read() {
    let stat = "cache 1\ninactive_file 2\nhierarchical_memory_limit 1073741824\nhierarchical_memsw_limit 1610612736\n\
                total_cache 300000000\ntotal_inactive_file 104857600\ntotal_swap 4096\n";
    let files = [
        // The limit of a group above is smaller.
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.usage_in_bytes", "536870912\n"),
        ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
        ("memory.stat", stat),
        ("cpu.cfs_quota_us", "-1\n"),
        ("cpu.cfs_period_us", "100000\n"),
        ("cpuset.cpus", "0-7\n"),
        ("cpuset.effective_cpus", "0,2-3\n"),
        ("cpuacct.usage", "3000000000\n"),
        ("cpuacct.stat", "user 200\nsystem 100\n"),
    ];
    let (folder, guest) = guest(false, &files);
    let figures = guest.compare(HOST).unwrap();
    let memory = GuestMemory {
        limit: GIB,
        used: 536_870_912 - 104_857_600,
        cached: Some(300_000_000),
        swap: Some((GIB / 2, 4096)),
    };
    assert_eq!(figures.memory, Some(memory));
    let cpu = figures.cpu.unwrap();
    assert_eq!((cpu.usable, cpu.cpus()), (3.0, 3));
    assert!(cpu.cores.is_some());
    let seconds = [3, 2, 1].map(Duration::from_secs);
    assert_eq!([cpu.used, cpu.user, cpu.system], seconds);
    fs::write(folder.path().join("cpu.cfs_quota_us"), "50000\n").unwrap();
    let cpu = guest.compare(HOST).unwrap().cpu.unwrap();
    assert_eq!((cpu.usable, cpu.cpus(), cpu.cores), (0.5, 1, None));
    // Without swap accounting there are no figures of swap.
    fs::remove_file(folder.path().join("memory.memsw.limit_in_bytes")).unwrap();
    fs::write(folder.path().join("memory.stat"), "total_cache 1\n").unwrap();
    fs::write(folder.path().join("memory.limit_in_bytes"), "4096\n").unwrap();
    let memory = guest.compare(HOST).unwrap().memory.unwrap();
    assert_eq!((memory.limit, memory.swap), (4096, None));
}

#[test]
fn a_container_without_smaller_limits_is_no_guest() {
    for files in [
        &[][..],
        &[("memory.max", "8589934592\n"), ("memory.current", "4096\n")],
        &[("memory.max", "0\n"), ("memory.current", "4096\n")],
        &[
            ("cpu.max", "800000 100000\n"),
            ("cpuset.cpus.effective", "\n"),
        ],
        &[("cpu.max", "0 0\n"), ("cpuset.cpus.effective", "x\n")],
        // The use of the CPU is not known.
        &[("cpu.max", "50000 100000\n")],
    ] {
        let (_folder, guest) = guest(true, files);
        assert_eq!(guest.compare(HOST), None, "{files:?}");
    }
}

#[test]
fn files_that_lxcfs_provides_are_not_replaced() {
    let (_folder, mut guest) = guest(true, &V2_FILES);
    // Recorded with lxcfs 5.0.3.
    let lxcfs = "166 301 0:43 /proc/FILE /proc/FILE rw,nosuid,nodev,relatime - fuse.lxcfs lxcfs rw,user_id=0,group_id=0,allow_other\n";
    let table = ["meminfo", "loadavg"]
        .map(|file| lxcfs.replace("FILE", file))
        .concat();
    let found = Guest::of(format!("{V2}{table}").as_bytes(), "0::/\n");
    let expected = Lxcfs {
        meminfo: true,
        stat: false,
        loadavg: true,
    };
    assert_eq!(found.lxcfs, expected);
    guest.lxcfs = found.lxcfs;
    let figures = guest.compare(HOST).unwrap();
    assert_eq!((figures.memory, figures.computes_load), (None, false));
    assert!(figures.cpu.is_some());
    // Another /proc hides these files.
    let hidden = format!("{V2}{table}500 301 0:71 / /proc rw - proc proc rw\n");
    assert_eq!(Guest::of(hidden.as_bytes(), "").lxcfs, Lxcfs::default());
    // lxcfs also provides the files of containers without limits. Such a container has a load of its own.
    let unlimited = Guest {
        lxcfs: Lxcfs {
            meminfo: true,
            ..Lxcfs::default()
        },
        ..Guest::default()
    };
    let figures = unlimited.compare(HOST).unwrap();
    assert_eq!(
        (figures.memory, figures.cpu, figures.computes_load),
        (None, None, true)
    );
}

#[test]
fn the_own_groups_are_found() {
    let v2 = |path: &str| Some(Group::V2(path.into()));
    let v1 = |path: &str| Some(Group::V1(path.into()));
    // A namespace of control groups.
    let found = Guest::of(V2.as_bytes(), "0::/\n");
    assert_eq!(
        (found.memory, found.cpuacct),
        (v2("/sys/fs/cgroup"), v2("/sys/fs/cgroup"))
    );
    // The host's namespace.
    let found = Guest::of(V2.as_bytes(), "0::/lxc/7\n");
    assert_eq!(found.cpu, v2("/sys/fs/cgroup/lxc/7"));
    let found = Guest::of(V1.as_bytes(), V1_GROUPS);
    assert_eq!(found.memory, v1("/sys/fs/cgroup/memory"));
    assert_eq!(found.cpuset, v1("/sys/fs/cgroup/cpuset"));
    assert_eq!(found.cpu, v1("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(found.cpuacct, found.cpu);
    // The mounts show the groups of another container, or those above a namespace.
    let other = Guest::of(V1.as_bytes(), &V1_GROUPS.replace("0123", "4567"));
    assert_eq!(
        (other.cpu, other.cpuset),
        (v2("/sys/fs/cgroup/unified"), v2("/sys/fs/cgroup/unified"))
    );
    let above = V2.replace("0:30 / ", "0:30 /.. ");
    assert_eq!(Guest::of(above.as_bytes(), "0::/\n"), Guest::default());
    assert_eq!(Guest::of(V2.as_bytes(), "0::/../other\n"), Guest::default());
    assert_eq!(Guest::of(b"", ""), Guest::default());
}

#[test]
fn in_a_namespace_the_own_groups_are_the_roots() {
    let root = TempDir::new().unwrap();
    let proc = root.path().join("proc");
    fs::create_dir_all(proc.join("1")).unwrap();
    fs::create_dir_all(proc.join("self/ns")).unwrap();
    let text = "4:memory:/init.scope\n0::/odd:name\nodd\n";
    fs::write(proc.join("1/cgroup"), text).unwrap();
    let link = proc.join("self/ns/cgroup");
    std::os::unix::fs::symlink("cgroup:[4026532251]", &link).unwrap();
    assert_eq!(own_groups(root.path()), "0:memory:/\n0::/\n");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("cgroup:[4026531835]", &link).unwrap();
    assert_eq!(own_groups(root.path()), text);
    assert_eq!(own_groups(Path::new("/nowhere")), "");
}

#[test]
fn lists_of_cores_are_read() {
    let cores = Cores::parse("0-3,8\n").unwrap();
    assert_eq!(cores.count(), 5);
    let own = |core| cores.contains(core);
    assert_eq!([0, 3, 4, 8, 9].map(own), [true, true, false, true, false]);
    for text in ["", "\n", "x", "3-1", "1,,2", "-1", "4294967296"] {
        assert_eq!(Cores::parse(text), None, "{text}");
    }
}

#[test]
fn fuzz_guest() {
    let texts = V2_FILES.map(|(_, text)| text.as_bytes());
    let seeds = [
        &texts[..],
        &[V1.as_bytes(), V1_GROUPS.as_bytes(), b"0-3,8\n"],
    ]
    .concat();
    let (folder, v2) = guest(true, &[]);
    let (other, v1) = guest(false, &[]);
    let names = V2_FILES.map(|(file, _)| file);
    crate::fuzzing::run("guest", &seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = Guest::of(V1.as_bytes(), &text);
        let _ = Guest::of(bytes, V1_GROUPS);
        let _ = (
            keyed(&text, "user"),
            Cores::parse(&text).map(|cores| cores.count()),
        );
        for file in names.into_iter().chain(["cpuset.cpus.effective"]) {
            fs::write(folder.path().join(file), bytes).unwrap();
        }
        for file in [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "memory.stat",
            "cpu.cfs_quota_us",
        ] {
            fs::write(other.path().join(file), bytes).unwrap();
        }
        for guest in [&v1, &v2] {
            if let Some(cpu) = guest.compare(HOST).and_then(|figures| figures.cpu) {
                assert!(cpu.usable > 0.0 && cpu.cpus() > 0);
            }
        }
    });
}
