//! Tests of agents that cannot see all that the kernel and the engine know about containers, for example because of missing
//! permissions.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::container::Container;
use super::engine::LOCAL_SOCKET;
use super::snapshots::{Snapshots, figures, healthy, lines, metadata, shows};
use super::{INTERVAL, launch};
use crate::support::{DEADLINE, Launch};

/// Debian's user `nobody`. This user owns no files.
const NOBODY: &str = "65534";

/// A command that hides the control groups from the agent with another mount and starts the agent, and a part of the reason that
/// the agent states.
const COVERED_GROUPS: (&[&str], &str) = (
    &[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"",
        "sh",
    ],
    "/sys/fs/cgroup/",
);

/// A command that starts the agent without mounted control groups, and a part of the reason that the agent states.
const NO_GROUPS: (&[&str], &str) = (
    &[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "umount --recursive /sys/fs/cgroup && exec \"$@\"",
        "sh",
    ],
    "its control group is not visible to the agent",
);

/// A command that starts the agent so that it sees only its own processes, and a part of the reason that the agent states.
const NO_PROCESSES: (&[&str], &str) = (
    &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
    "/proc/",
);

/// Options that set limits, so that all figures exist.
const LIMITED: [&str; 4] = ["--cpus", "1", "--memory", "64m"];

/// Returns a launcher that starts the agent as the systemd unit does: as an unprivileged user in the group that owns the engine's
/// socket. The folder holds a copy of the binary, which this user can read.
fn unprivileged() -> (Launch, TempDir) {
    let folder = TempDir::new().expect("cannot make a temporary folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("system-agent");
    fs::copy(env!("CARGO_BIN_EXE_system-agent"), &binary).unwrap();
    let sockets = fs::metadata(LOCAL_SOCKET).expect("cannot find the engine's socket");
    let launcher = [
        "setpriv".to_owned(),
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        format!("--groups={}", sockets.gid()),
        "--no-new-privs".to_owned(),
    ];
    (launch().copy(&binary).launched_by(launcher), folder)
}

/// Fails unless the container has all figures.
fn assert_measured(snapshot: &Value, container: &Container<'_>) {
    let figures =
        figures(snapshot, container.name()).expect("the snapshot does not show the container");
    let positive = |figure: &str| figures[figure].as_f64() > Some(0.0);
    for figure in ["memory_usage", "memory_limit", "memory_percent", "pids"] {
        assert!(positive(figure), "{figure} in {figures:#}");
    }
    assert!(figures["cpu_percent"].is_number(), "{figures:#}");
    assert!(figures["block_io"].is_object(), "{figures:#}");
    assert!(figures["throttling"].is_object(), "{figures:#}");
    let received = &figures["network"]["eth0"]["rx_bytes"];
    assert!(received.as_u64().is_some(), "{figures:#}");
}

#[test]
#[parallel]
fn an_unprivileged_agent_reads_all_figures_and_gets_logs_from_the_engine() {
    let container = Container::run("unprivileged", &LIMITED, "echo up; sleep 1000");
    container.wait_for_line("up");
    let (launch, _folder) = unprivileged();
    let agent = launch.start();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let has = |line: &str| status.lines().any(|one| one == line);
    assert!(has("CapEff:\t0000000000000000"), "{status}");

    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &Value| shows(s, container.name());
    let first = snapshots.until("the container", DEADLINE, up);
    for snapshot in [first].into_iter().chain(snapshots.take(3)) {
        assert!(healthy(&snapshot), "{snapshot:#}");
        assert_measured(&snapshot, &container);
        assert_eq!(
            lines(&snapshot, container.name()).unwrap(),
            container.logs()
        );
        let sources = &snapshot["sources"];
        // All users can read the kernel's files about a container. Only root can read the engine's log files.
        assert_eq!(sources["docker"]["via"], "kernel");
        assert_eq!(sources["logs"]["via"], "engine");
        let reason = sources["logs"]["via_reason"].as_str().unwrap();
        assert!(reason.contains("Permission denied"), "{reason:?}");
    }
}

/// A command of a container that writes to the disk all the time.
const WRITER: &str = "while dd if=/dev/zero of=/tmp/file bs=64k count=16 conv=fsync 2>/dev/null; do sleep 0.05; done";

/// Returns the entries of the list `top_io` that are about a container or its processes.
fn top_io(snapshot: &Value, container: &Container<'_>) -> Vec<Value> {
    let list = snapshot["system"]["top_io"].as_array();
    let list = list.into_iter().flatten();
    list.filter(|one| one["container"] == container.name())
        .cloned()
        .collect()
}

#[test]
#[parallel]
fn an_unprivileged_agent_shows_the_io_of_containers_and_a_privileged_agent_of_processes() {
    let container = Container::run("writer", &[], WRITER);
    let (launch, _folder) = unprivileged();
    let agent = launch.var("TOP_PROCESSES", "1000").start();
    let has_io = |s: &Value| !top_io(s, &container).is_empty();
    let snapshot =
        Snapshots::of(&agent, INTERVAL).until("the I/O of the container", DEADLINE, has_io);
    let found = top_io(&snapshot, &container);
    let [one] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(one["name"], container.name());
    let own = &figures(&snapshot, container.name()).unwrap()["block_io"];
    for rate in ["read_bytes_per_second", "write_bytes_per_second"] {
        assert_eq!(one[rate], own[rate]);
    }
    assert!(one["write_bytes_per_second"].as_f64() > Some(0.0));
    let list = snapshot["system"]["top_io"].as_array().unwrap();
    assert!(list.iter().all(|one| one.get("pid").is_none()), "{list:?}");
    let meta = metadata(&snapshot, container.name()).unwrap();
    assert!(meta.get("log_bytes").is_none(), "{meta}");

    let agent = super::launch().var("TOP_PROCESSES", "1000").start();
    let snapshot = Snapshots::of(&agent, INTERVAL).until("the I/O of a process", DEADLINE, has_io);
    let list = snapshot["system"]["top_io"].as_array().unwrap();
    assert!(list.iter().all(|one| one["pid"].is_u64()), "{list:?}");
    for one in top_io(&snapshot, &container) {
        let name = one["name"].as_str().unwrap();
        assert!(["sh", "dd", "sleep"].contains(&name), "{one}");
        assert_eq!(one["user"], "root");
    }
}

#[test]
#[parallel]
fn an_unprivileged_agent_shows_the_hosts_network_for_no_container() {
    let host = Container::run("unprivileged-host", &["--network", "host"], "sleep 1000");
    let shared = format!("container:{}", host.name());
    let options = ["--network", shared.as_str()];
    let joined = Container::run("unprivileged-joined", &options, "sleep 1000");
    let (launch, _folder) = unprivileged();
    let agent = launch.start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &Value| shows(s, host.name()) && shows(s, joined.name());
    let snapshot = snapshots.until("both containers", DEADLINE, up);
    for container in [&host, &joined] {
        let network = &figures(&snapshot, container.name()).unwrap()["network"];
        assert_eq!(*network, serde_json::json!({}), "{}", container.name());
    }
}

#[test]
#[parallel]
fn an_agent_that_does_not_see_control_groups_or_processes_asks_the_engine() {
    let container = Container::run("unseen", &LIMITED, "echo up; sleep 1000");
    container.wait_for_line("up");
    for (launcher, cause) in [COVERED_GROUPS, NO_GROUPS, NO_PROCESSES] {
        let agent = launch().launched_by(launcher).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let up = |s: &Value| shows(s, container.name());
        let first = snapshots.until("the container", DEADLINE, up);
        for snapshot in [first].into_iter().chain(snapshots.take(2)) {
            assert!(healthy(&snapshot), "{snapshot:#}");
            assert_measured(&snapshot, &container);
            let docker = &snapshot["sources"]["docker"];
            assert_eq!(docker["via"], "engine");
            let reason = docker["via_reason"].as_str().unwrap();
            assert!(reason.contains(cause), "{reason:?}");
        }
    }
}

#[test]
#[parallel]
fn an_agent_limited_to_the_kernel_says_why_it_cannot_measure() {
    let container = Container::run("forced", &[], "sleep 1000");
    for (launcher, cause) in [COVERED_GROUPS, NO_GROUPS, NO_PROCESSES] {
        let launch = launch()
            .launched_by(launcher)
            .var("CONTAINER_STATS", "kernel");
        let agent = launch.start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let failing = |s: &Value| s["sources"]["docker"]["status"] == "failing";
        let first = snapshots.until("the failing source", DEADLINE, failing);
        for snapshot in [first].into_iter().chain(snapshots.take(3)) {
            assert!(failing(&snapshot), "{snapshot:#}");
            assert_eq!(snapshot["status"], "degraded");
            assert_eq!(figures(&snapshot, container.name()), None);
            let error = snapshot["sources"]["docker"]["error"].as_str().unwrap();
            assert!(error.contains("CONTAINER_STATS is kernel"), "{error:?}");
            assert!(error.contains(cause), "{error:?}");
            // Logs do not depend on the control groups.
            assert_eq!(snapshot["sources"]["logs"]["status"], "ok");
        }
    }
}
