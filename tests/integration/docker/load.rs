//! Disks and networks under load: both ways to a container's figures count what was really moved.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use serial_test::serial;

use super::container::Container;
use super::engine::Engine;
use super::snapshots::{Snapshots, figures};
use super::ways::assert_same;
use super::{INTERVAL, launch};
use crate::support::{PATIENCE, wait};

const MIB: f64 = 1024.0 * 1024.0;

/// One number of a container's figures, by its path in them; none while it is not shown.
fn number(snapshot: &Value, container: &Container<'_>, pointer: &str) -> Option<f64> {
    figures(snapshot, container.name())?
        .pointer(pointer)?
        .as_f64()
}

/// The disk of the engine's data, as `docker run` takes it; none where it is no single one.
fn disk() -> Option<String> {
    let root = Engine::local().docker(["info", "--format", "{{.DockerRootDir}}"]);
    let device = fs::metadata(root).expect("the engine's data").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // Limits are a whole disk's.
    let whole = if device.join("partition").exists() {
        device.parent()?
    } else {
        &device
    };
    Some(format!("/dev/{}", whole.file_name()?.to_str()?))
}

#[test]
#[serial]
fn both_ways_count_what_disks_do() {
    // Past the page cache: v1 would count its writing back for nobody. Some kernels count only for groups with a
    // limit, so there is one, which also makes the load last.
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
        snapshots.until("the idle container", PATIENCE, idle);
    }
    container.exec("touch /go");
    for snapshots in &mut streams {
        let part = |s: &Value| {
            let written = number(s, &container, "/block_io/write_bytes");
            written.is_some_and(|bytes| bytes > 0.0 && bytes < 80.0 * MIB)
        };
        snapshots.until("some of what is written", PATIENCE, part);
    }
    container.wait_for_line("done");
    let [kernel, engine] = streams.each_mut().map(Snapshots::fresh);
    for (figure, moved) in [("write_bytes", 80.0 * MIB), ("read_bytes", 64.0 * MIB)] {
        let pointer = format!("/block_io/{figure}");
        let [kernel, engine] =
            [&kernel, &engine].map(|s| number(s, &container, &pointer).expect("a number"));
        assert_same(figure, kernel, engine, 0.0);
        // The program itself was perhaps read from the disk, too.
        assert_same(&format!("{figure}, by dd"), kernel, moved, 4.0 * MIB);
    }
    for figure in ["read_ops", "write_ops"] {
        let pointer = format!("/block_io/{figure}");
        let [kernel, engine] =
            [&kernel, &engine].map(|s| number(s, &container, &pointer).expect("a number"));
        assert!(kernel >= 60.0, "{figure}: {kernel}");
        assert_same(figure, kernel, engine, 0.0);
    }
}

#[test]
#[serial]
fn both_ways_count_what_networks_carry() {
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

    // Neighbours may still say hello, now and then.
    let same = || {
        let [kernel, engine] = streams.each_mut().map(|snapshots| {
            let snapshot = snapshots.fresh();
            let network = |container: &Container<'_>| {
                let mut network = figures(&snapshot, container.name()).unwrap()["network"].clone();
                // Rates are of each one's own interval.
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
    let [received, sent] = wait::until("the same counters everywhere", PATIENCE, same);
    for carried in [&received["eth0"]["rx_bytes"], &sent["eth0"]["tx_bytes"]] {
        // Beside what was sent there is what carried it: headers of packets.
        let bytes = carried.as_f64().unwrap();
        assert!((300.0 * MIB..320.0 * MIB).contains(&bytes), "{bytes}");
    }
}

/// The counters of a container's `eth0` by its own account, as they are published.
fn counters(container: &Container<'_>) -> Value {
    let line = container.exec("grep eth0: /proc/net/dev");
    let (_, counters) = line.split_once(':').expect("a name and counters");
    let counters: Vec<u64> = counters
        .split_ascii_whitespace()
        .map(|counter| counter.parse().unwrap())
        .collect();
    serde_json::json!({"eth0": {
        "rx_bytes": counters[0], "rx_packets": counters[1],
        "tx_bytes": counters[8], "tx_packets": counters[9],
    }})
}
