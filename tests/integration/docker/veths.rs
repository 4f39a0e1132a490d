//! Tests which container is shown for a veth, and which interfaces count as a container's own.

use std::process::Command;

use serde_json::{Value, json};
use serial_test::parallel;

use super::container::Container;
use super::snapshots::{Snapshots, figures};
use super::{INTERVAL, launch};
use crate::support::{DEADLINE, wait};

/// Runs a shell command on the host as root.
fn host(command: &str) {
    let done = Command::new("sh").args(["-ec", command]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command}: {said}");
}

/// A container whose network is made by the test. The interface in the container has number 2, as with Docker 28 and Podman.
struct Wired {
    container: Container<'static>,
    veth: String,
}

impl Wired {
    fn run(topic: &str, inner: &str) -> Self {
        let container = Container::run(topic, &["--network", "none"], "sleep 1000");
        let veth = format!("v{}", container.short_id());
        let pid = container.inspect()["State"]["Pid"].clone();
        host(&format!(
            "ip link add {veth} type veth peer name {inner} index 2 netns {pid}
             ip link set {veth} up
             nsenter -t {pid} -n ip link set {inner} up"
        ));
        Self { container, veth }
    }
}

/// The name of the host's end of the veth of a container that the engine connected.
fn veth_of(container: &Container<'_>) -> String {
    let number = container.exec("cat /sys/class/net/eth0/iflink");
    let ours = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .find_map(|entry| {
            let path = entry.unwrap().path();
            let index = std::fs::read_to_string(path.join("ifindex")).ok()?;
            (index.trim() == number.trim()).then(|| path.file_name().unwrap().to_owned())
        });
    ours.unwrap().into_string().unwrap()
}

fn veth<'s>(snapshot: &'s Value, name: &str) -> Option<&'s Value> {
    let mut network = snapshot["system"]["network"].as_array().unwrap().iter();
    network.find(|one| one["name"] == name)
}

/// Whether a snapshot shows both the veth and the container. Fails if the snapshot shows both and the veth does not have the
/// container's name.
fn names(snapshot: &Value, veth_name: &str, container: &str) -> bool {
    let (Some(veth), Some(_)) = (veth(snapshot, veth_name), figures(snapshot, container)) else {
        return false;
    };
    if veth["up"] == false {
        // Docker has not connected it yet. The container is shown as it was before its restart.
        return false;
    }
    assert_eq!(veth["container"], container, "{veth_name}: {veth}");
    true
}

#[test]
#[parallel]
fn every_veth_has_the_name_of_its_container_from_the_first_snapshot() {
    let before =
        ["veths-first", "veths-second"].map(|topic| Container::run(topic, &[], "sleep 1000"));
    let wired = ["veths-wired", "veths-wired-too"].map(|topic| Wired::run(topic, "eth0"));
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    // These containers were started before the agent. No container starts now.
    let mut expected: Vec<(String, String)> = before
        .iter()
        .map(|one| (veth_of(one), one.name().to_owned()))
        .chain(
            wired
                .iter()
                .map(|one| (one.veth.clone(), one.container.name().to_owned())),
        )
        .collect();
    let all = |expected: &[(String, String)], s: &Value| {
        expected
            .iter()
            .filter(|(veth, name)| names(s, veth, name))
            .count()
            == expected.len()
    };
    snapshots.until("the first four containers", DEADLINE, |s| all(&expected, s));
    // A container that starts while the agent runs.
    let newest = Container::run("veths-newest", &[], "sleep 1000");
    expected.push((veth_of(&newest), newest.name().to_owned()));
    snapshots.until("the newest container", DEADLINE, |s| all(&expected, s));
    // A restarted container gets another veth.
    newest.docker("restart", &["--time", "0"]);
    expected.pop();
    expected.push((veth_of(&newest), newest.name().to_owned()));
    snapshots.until("the veth of the restarted container", DEADLINE, |s| {
        all(&expected, s)
    });
    // A paused container keeps its veth.
    before[0].docker("pause", &[]);
    snapshots.until("the paused container", DEADLINE, |s| {
        figures(s, before[0].name()).is_some_and(|one| one["status"] == "paused")
            && all(&expected, s)
    });
    before[0].docker("unpause", &[]);
}

#[test]
#[parallel]
fn a_container_in_anothers_network_has_no_veth_of_its_own() {
    let owner = Container::run("veths-owner", &[], "sleep 1000");
    let mode = format!("container:{}", owner.name());
    let sharer = Container::run("veths-sharer", &["--network", &mode], "sleep 1000");
    let on_host = Container::run("veths-host", &["--network", "host"], "sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let own = veth_of(&owner);
    let snapshot = snapshots.until("all three containers", DEADLINE, |s| {
        let shown = |one: &Container<'_>| figures(s, one.name()).is_some();
        shown(&sharer) && shown(&on_host) && names(s, &own, owner.name())
    });
    for interface in snapshot["system"]["network"].as_array().unwrap() {
        for other in [&sharer, &on_host] {
            assert_ne!(interface["container"], other.name(), "{interface}");
        }
    }
}

#[test]
#[parallel]
fn the_kind_of_an_interface_decides_whether_it_counts() {
    // The first container has only an interface with an unusual name. The second container has such an interface in addition to
    // `eth0`. The second container also has interfaces that carry the same bytes again, and these interfaces must not count.
    let alone = Wired::run("veths-alone", "lan0");
    let beside = Container::run("veths-beside", &[], "sleep 1000");
    let pid = beside.inspect()["State"]["Pid"].clone();
    let veth = format!("v{}", beside.short_id());
    host(&format!(
        "ip link add {veth} type veth peer name mesh0 netns {pid}
         ip link set {veth} up
         nsenter -t {pid} -n sh -ec '
             ip link set mesh0 up
             ip link add link eth0 name eth0.7 type macvlan
             ip link add br5 type bridge
             ip link add a0 type ifb
             ip link add b0 type veth peer name b1
             ip link set a0 up
             ip link set b0 up'"
    ));
    let agent = launch().var("CONTAINER_STATS", "kernel").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let shown = |s: &Value, name: &str| -> Option<Vec<String>> {
        let network = figures(s, name)?["network"].as_object()?;
        Some(network.keys().cloned().collect())
    };
    let snapshot = snapshots.until("both containers", DEADLINE, |s| {
        shown(s, alone.container.name()).is_some() && shown(s, beside.name()).is_some()
    });
    assert_eq!(shown(&snapshot, alone.container.name()).unwrap(), ["lan0"]);
    assert_eq!(shown(&snapshot, beside.name()).unwrap(), ["eth0", "mesh0"]);
    // The interface is renamed while the agent runs.
    host(&format!(
        "nsenter -t {pid} -n sh -ec 'ip link set mesh0 down; ip link set mesh0 name lan7; ip link set lan7 up'"
    ));
    snapshots.until("the new name of the interface", DEADLINE, |s| {
        shown(s, beside.name()).is_some_and(|names| names == ["eth0", "lan7"])
    });
}

/// After a process has given up the user root, the next round shows the new user of the process.
#[test]
#[parallel]
fn a_process_that_drops_root_shows_its_new_user_within_a_round() {
    let users = "root:x:0:0::/:/bin/sh\\nnobody:x:65534:65534::/:/bin/sh\\n";
    let script = format!(
        "printf '{users}' > /etc/passwd
         until [ -e /tmp/drop ]; do :; done
         exec su -s /bin/sh nobody -c 'while :; do :; done'"
    );
    let container = Container::run("veths-drops", &[], &script);
    let pid = container.inspect()["State"]["Pid"].clone();
    let agent = launch().var("TOP_PROCESSES", "3").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let user = |s: &Value| {
        let list = s["system"]["top_processes"].as_array().unwrap();
        list.iter()
            .find(|one| one["pid"] == pid)
            .map(|one| one["user"].clone())
    };
    let root = json!("root");
    snapshots.until("a process of root", DEADLINE, |s| {
        user(s).as_ref() == Some(&root)
    });
    container.exec("touch /tmp/drop");
    wait::until("the process to drop root", DEADLINE, || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mut lines = status.lines();
        lines.find(|line| line.starts_with("Uid:\t") && !line.starts_with("Uid:\t0\t"))?;
        Some(())
    });
    // Two snapshots can have been on their way already.
    snapshots.next();
    snapshots.next();
    let shown = user(&snapshots.next());
    assert_eq!(shown, Some(json!("nobody")));
}
