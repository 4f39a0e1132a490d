//! Tests of disks and networks under load. The kernel's files and the engine's API must both count the bytes that were really
//! written, read or sent.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use serial_test::serial;

use super::container::Container;
use super::engine::Engine;
use super::snapshots::{Snapshots, figures};
use super::ways::assert_same;
use super::{INTERVAL, launch};
use crate::support::{DEADLINE, wait};

const MIB: f64 = 1024.0 * 1024.0;

/// A figure of a container, by its JSON pointer. `None` if the snapshot does not show the container.
fn number(snapshot: &Value, container: &Container<'_>, pointer: &str) -> Option<f64> {
    figures(snapshot, container.name())?
        .pointer(pointer)?
        .as_f64()
}

/// The disk that holds the engine's data, as a path for `docker run`. `None` if the data is not on a single disk.
pub(super) fn disk() -> Option<String> {
    let root = Engine::local().docker(["info", "--format", "{{.DockerRootDir}}"]);
    let device = fs::metadata(root)
        .expect("cannot find the engine's data")
        .dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // The engine accepts limits for whole disks only.
    let whole = if device.join("partition").exists() {
        device.parent()?
    } else {
        &device
    };
    Some(format!("/dev/{}", whole.file_name()?.to_str()?))
}

#[test]
#[serial]
fn kernel_and_engine_count_the_same_disk_traffic() {
    // The test uses direct input and output, which bypass the page cache. The kernel writes the page cache to the disk later, and
    // cgroup v1 counts this for no container. Some kernels count only for control groups with a limit. The limit also makes the
    // load last long enough.
    let limits = disk().map(|disk| [format!("{disk}:16mb"), format!("{disk}:16mb")]);
    let mut options = vec!["--volume", "/load"];
    if let Some([read, write]) = &limits {
        options.extend(["--device-read-bps", read, "--device-write-bps", write]);
    }
    let container = Container::run(
        "load-disk",
        &options,
        "until [ -e /go ]; do sleep 0.1; done
         dd if=/dev/zero of=/load/file bs=1M count=80 oflag=direct
         dd if=/load/file of=/dev/null bs=1M count=64 iflag=direct
         echo done; sleep 1000",
    );
    let agents = ["kernel", "engine"].map(|way| launch().var("CONTAINER_STATS", way).start());
    let mut streams = agents
        .each_ref()
        .map(|agent| Snapshots::of(agent, INTERVAL));
    for snapshots in &mut streams {
        let idle = |s: &Value| number(s, &container, "/block_io/write_bytes") == Some(0.0);
        snapshots.until("the idle container", DEADLINE, idle);
    }
    container.exec("touch /go");
    for snapshots in &mut streams {
        let part = |s: &Value| {
            let written = number(s, &container, "/block_io/write_bytes");
            written.is_some_and(|bytes| bytes > 0.0 && bytes < 80.0 * MIB)
        };
        snapshots.until("some written bytes", DEADLINE, part);
    }
    container.wait_for_line("done");
    let [kernel, engine] = streams.each_mut().map(Snapshots::fresh);
    for (figure, moved) in [("write_bytes", 80.0 * MIB), ("read_bytes", 64.0 * MIB)] {
        let pointer = format!("/block_io/{figure}");
        let [kernel, engine] =
            [&kernel, &engine].map(|s| number(s, &container, &pointer).expect("expected a number"));
        assert_same(figure, kernel, engine, 0.0);
        // The tolerance is for the program file, which the kernel can also have read from the disk.
        assert_same(&format!("{figure}, by dd"), kernel, moved, 4.0 * MIB);
    }
    for figure in ["read_ops", "write_ops"] {
        let pointer = format!("/block_io/{figure}");
        let [kernel, engine] =
            [&kernel, &engine].map(|s| number(s, &container, &pointer).expect("expected a number"));
        assert!(kernel >= 60.0, "{figure}: {kernel}");
        assert_same(figure, kernel, engine, 0.0);
    }
}

#[test]
#[serial]
fn kernel_and_engine_count_the_same_network_traffic() {
    let receiver = Container::run(
        "load-receiver",
        &[],
        "nc -l -p 9 -e dd of=/dev/null bs=1M; echo received; sleep 1000",
    );
    let address = receiver.docker("inspect", &["--format", "{{.NetworkSettings.IPAddress}}"]);
    let send = format!(
        "until dd if=/dev/zero bs=1M count=300 | nc {address} 9; do sleep 0.1; done; sleep 1000"
    );
    let sender = Container::run("load-sender", &[], &send);
    let agents = ["kernel", "engine"].map(|way| launch().var("CONTAINER_STATS", way).start());
    let mut streams = agents
        .each_ref()
        .map(|agent| Snapshots::of(agent, INTERVAL));
    receiver.wait_for_line("received");

    // Other hosts on the bridge can still send a packet now and then.
    let same = || {
        let [kernel, engine] = streams.each_mut().map(|snapshots| {
            let snapshot = snapshots.fresh();
            let network = |container: &Container<'_>| {
                let mut network = figures(&snapshot, container.name()).unwrap()["network"].clone();
                // Each agent computes its rates over its own interval, so they differ.
                for counters in network.as_object_mut().unwrap().values_mut() {
                    let counters = counters.as_object_mut().unwrap();
                    counters.retain(|name, _| !name.ends_with("_per_second"));
                }
                network
            };
            [&receiver, &sender].map(network)
        });
        let own = [&receiver, &sender].map(counters);
        (kernel == engine && kernel == own).then_some(kernel)
    };
    let [received, sent] = wait::until("the same counters everywhere", DEADLINE, same);
    for carried in [&received["eth0"]["rx_bytes"], &sent["eth0"]["tx_bytes"]] {
        // The headers of the packets count in addition to the data.
        let bytes = carried.as_f64().unwrap();
        assert!((300.0 * MIB..320.0 * MIB).contains(&bytes), "{bytes}");
    }
}

/// The counters of `eth0` as the container itself sees them, in the format of a snapshot.
fn counters(container: &Container<'_>) -> Value {
    let line = container.exec("grep eth0: /proc/net/dev");
    let (_, counters) = line.split_once(':').expect("expected a name and counters");
    let counters: Vec<u64> = counters
        .split_ascii_whitespace()
        .map(|counter| counter.parse().unwrap())
        .collect();
    serde_json::json!({"eth0": {
        "rx_bytes": counters[0], "rx_packets": counters[1],
        "tx_bytes": counters[8], "tx_packets": counters[9],
    }})
}
