//! The figures of a container, compared with `docker stats`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serial_test::{parallel, serial};

use super::container::{Container, Stats};
use super::snapshots::{Snapshots, figure, figures, shows};
use super::{INTERVAL, assert_close, launch};
use crate::support::{DEADLINE, wait};

const MIB: f64 = 1024.0 * 1024.0;

#[test]
#[serial]
fn half_a_core_is_50_percent() {
    let container = Container::run("half-core", &["--cpus", "0.5"], "while :; do :; done");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| shows(s, name));

    // The period of the CPU quota, 100 ms, makes both values vary. The test compares averages over the same seconds.
    snapshots.fresh();
    let dockers = [(); 3].map(|()| container.stats().cpu_percent);
    let measured = snapshots.arrived();
    let ours: Vec<f64> = measured
        .iter()
        .map(|snapshot| figure(snapshot, name, "cpu_percent"))
        .collect();
    let mean = |figures: &[f64]| figures.iter().sum::<f64>() / figures.len() as f64;
    let seen = format!("cpu_percent of {ours:?}, docker stats {dockers:?}");
    assert_close(&seen, mean(&ours), mean(&dockers));
    assert_close(&seen, mean(&ours), 50.0);
}

#[test]
#[serial]
fn a_busy_container_is_busy_in_the_first_snapshot_that_shows_it() {
    let container = Container::run("busy", &[], "while :; do :; done");
    let agent = launch().var("DOCKER_INTERVAL", "10s").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let first = snapshots.until("the container", DEADLINE, |s| figures(s, name).is_some());
    let percent = figure(&first, name, "cpu_percent");
    assert!(
        (50.0..=110.0).contains(&percent),
        "the busy container shows {percent} %"
    );
}

/// Returns the values of `docker stats` and a snapshot from a time at which Docker's memory value changes by at most 2 %. At
/// other times the two cannot be compared, because the kernel frees pages at any time and updates its counters some seconds
/// later.
fn while_memory_holds_still(
    container: &Container,
    snapshots: &mut Snapshots,
) -> (Stats, serde_json::Value) {
    let mut before = container.stats();
    wait::until("a memory value that does not change", DEADLINE, || {
        let snapshot = snapshots.fresh();
        let after = container.stats();
        let change = (after.memory_usage - before.memory_usage).abs();
        let stats = std::mem::replace(&mut before, after);
        (change <= stats.memory_usage / 50.0).then_some((stats, snapshot))
    })
}

#[test]
#[parallel]
fn held_memory_is_counted_against_its_limit() {
    let container = Container::run(
        "memory",
        &["--memory", "64m", "--tmpfs", "/hold:size=48m"],
        "dd if=/dev/zero of=/hold/40m bs=1M count=40; echo held; sleep 1000",
    );
    container.wait_for_line("held");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| shows(s, name));

    let (stats, snapshot) = while_memory_holds_still(&container, &mut snapshots);
    let usage = figure(&snapshot, name, "memory_usage");
    assert_close("memory_usage, docker stats", usage, stats.memory_usage);
    assert_close("memory_usage, MiB held", usage / MIB, 40.0);
    let limit = figure(&snapshot, name, "memory_limit");
    assert_eq!(limit, 64.0 * MIB);
    assert_eq!(stats.memory_limit, limit);
    let configured = container.inspect()["HostConfig"]["Memory"].as_f64();
    assert_eq!(configured, Some(limit));
    let percent = figure(&snapshot, name, "memory_percent");
    assert_close(
        "memory_percent, own figures",
        percent,
        usage / limit * 100.0,
    );
    assert_close(
        "memory_percent, docker stats",
        percent,
        stats.memory_percent,
    );
}

#[test]
#[parallel]
fn file_cache_is_not_memory_in_use() {
    let container = Container::run(
        "cache",
        &["--memory", "64m"],
        "dd if=/dev/zero of=/tmp/30m bs=1M count=30; sync; echo written; sleep 1000",
    );
    container.wait_for_line("written");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| shows(s, name));

    let (stats, snapshot) = while_memory_holds_still(&container, &mut snapshots);
    let usage = figure(&snapshot, name, "memory_usage");
    assert_close("memory_usage, docker stats", usage, stats.memory_usage);
    assert!(
        usage < 10.0 * MIB,
        "memory_usage is {usage} bytes, although 30 MiB are file cache"
    );
}

#[test]
#[parallel]
fn without_a_limit_the_hosts_memory_is_the_limit() {
    let container = Container::run("no-limit", &[], "sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let snapshot = snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let limit = figure(&snapshot, name, "memory_limit");
    let total = snapshot["system"]["memory_total"].as_f64().unwrap();
    // The two values differ only by pages and by rounding to MiB.
    assert!(
        (limit / MIB - total).abs() < 1.0,
        "limit {limit}, host {total} MiB"
    );
}

#[test]
#[parallel]
fn traffic_is_counted_per_interface_and_direction() {
    const TO_CONTAINER: usize = 8 * 1024 * 1024;
    const FROM_CONTAINER: usize = 4 * 1024 * 1024;
    let container = Container::run(
        "traffic",
        &[],
        &format!(
            "nc -l -p 5000 -e sh -c 'cat >/dev/null; head -c {FROM_CONTAINER} /dev/zero'; sleep 1000"
        ),
    );
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let before = snapshots.until("the container", DEADLINE, |s| shows(s, name));
    assert!(
        counter(&before, name, "rx_bytes") < 100_000.0,
        "traffic before the test: {before:#}"
    );

    let address = container.inspect()["NetworkSettings"]["IPAddress"].clone();
    let ip = address
        .as_str()
        .expect("the container has no address")
        .parse()
        .expect("expected an IP address");
    let received = exchange(SocketAddr::new(ip, 5000), TO_CONTAINER);
    assert_eq!(received, FROM_CONTAINER);

    let stats = container.stats();
    let snapshot = snapshots.fresh();
    let figure = |field| counter(&snapshot, name, field);
    assert_close(
        "rx_bytes, bytes sent to the container",
        figure("rx_bytes"),
        TO_CONTAINER as f64,
    );
    assert_close(
        "tx_bytes, bytes sent by the container",
        figure("tx_bytes"),
        FROM_CONTAINER as f64,
    );
    assert_close("rx_bytes, docker stats", figure("rx_bytes"), stats.received);
    assert_close("tx_bytes, docker stats", figure("tx_bytes"), stats.sent);
    for field in ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"] {
        let file = format!("cat /sys/class/net/eth0/statistics/{field}");
        let kernels: f64 = container.exec(&file).parse().expect("expected a counter");
        assert_close(field, figure(field), kernels);
    }
}

#[test]
#[parallel]
fn a_container_without_a_network_has_no_counters() {
    let container = Container::run("no-network", &["--network", "none"], "sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let snapshot = snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let network = &figures(&snapshot, name).unwrap()["network"];
    assert_eq!(
        network.as_object().map(serde_json::Map::len),
        Some(0),
        "{network}"
    );
}

/// A counter of `eth0`, the container's only interface.
fn counter(snapshot: &serde_json::Value, name: &str, field: &str) -> f64 {
    let container = figures(snapshot, name).expect("the snapshot does not show the container");
    let value = container["network"]["eth0"][field].as_f64();
    value.unwrap_or_else(|| panic!("no eth0 {field} in {container:#}"))
}

/// Sends `bytes` bytes. Returns the number of bytes that come back until the end of the stream.
fn exchange(peer: SocketAddr, bytes: usize) -> usize {
    let timeout = Duration::from_secs(1);
    let connect = || TcpStream::connect_timeout(&peer, timeout).ok();
    let mut stream = wait::until("the container to listen", DEADLINE, connect);
    stream.write_all(&vec![0; bytes]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    received.len()
}

/// The value of a key in a file of the container's control group, of cgroup v1 or v2.
fn group_value(container: &Container, v1: &str, v2: &str, key: &str) -> f64 {
    let text = container.exec(&format!(
        "cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"
    ));
    let value = text.lines().find_map(|line| match key {
        "" => Some(line),
        key => line.strip_prefix(key)?.strip_prefix(' '),
    });
    value.and_then(|value| value.parse().ok()).unwrap()
}

#[test]
#[serial]
fn raw_counters_match_the_percentages() {
    let container = Container::run("raw", &["--cpus", "0.5"], "while :; do :; done");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let used = || group_value(&container, "cpuacct/cpuacct.usage", "cpu.stat", "");
    let before = used();
    let measured = snapshots.take(5);
    let ours = |at: usize, field: &str| figure(&measured[at], name, field);
    let after = used();
    let (first, last) = (ours(1, "cpu_usage_ns"), ours(4, "cpu_usage_ns"));
    assert!(
        before <= last && first < last && last <= after,
        "{before} {first} {last} {after}"
    );
    // Each snapshot covers one second at half a core. The percentages and the counters must match.
    let percent: f64 = (2..5).map(|at| ours(at, "cpu_percent")).sum();
    assert_close("cpu_usage_ns", (last - first) / 1e9 * 100.0, percent);
    // The container needs a whole core in each period, and the limit is half a core.
    assert!(ours(4, "throttled_percent") > 80.0);
    assert_eq!(ours(4, "cpu_limit"), 0.5);
}

#[test]
#[parallel]
fn memory_is_split_by_its_use() {
    let container = Container::run(
        "breakdown",
        &["--memory", "96m"],
        "dd if=/dev/zero of=/tmp/24m bs=1M count=24; x=$(head -c 8000000 /dev/zero | tr '\\0' x); \
         echo held; while :; do sleep 1000; done",
    );
    container.wait_for_line("held");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let snapshot = snapshots.fresh();
    let stat = |v1: &str, v2: &str| {
        let text = container.exec(
            "cat /sys/fs/cgroup/memory/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory.stat",
        );
        let of = |key: &str| {
            let value = |line: &str| {
                line.strip_prefix(key)?
                    .strip_prefix(' ')?
                    .parse::<f64>()
                    .ok()
            };
            text.lines().find_map(value)
        };
        of(v1).or_else(|| of(v2)).unwrap()
    };
    // The test starts another process in the container to read the kernel's values. This process needs memory itself.
    let slack = 1.5 * MIB;
    for (field, kernel) in [
        ("memory_rss", stat("total_rss", "anon")),
        ("memory_cache", stat("total_cache", "file")),
    ] {
        let ours = figure(&snapshot, name, field);
        assert!(
            (ours - kernel).abs() <= slack,
            "{field}: {ours}, but the kernel has {kernel}"
        );
    }
    // The kernel counts in batches of up to 64 pages on each core. So its values can be slightly lower than 8 MB and 24 MiB.
    assert!(figure(&snapshot, name, "memory_rss") > 4e6);
    assert!(figure(&snapshot, name, "memory_cache") > 20.0 * MIB);
    let kernel = figure(&snapshot, name, "memory_kernel");
    assert!((1.0..16.0 * MIB).contains(&kernel), "{kernel}");
    assert_eq!(figure(&snapshot, name, "oom_kills"), 0.0);
}

#[test]
#[parallel]
fn processes_that_were_killed_for_memory_are_counted() {
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    let script = "trap '' TERM; sleep 2; tail /dev/zero; tail /dev/zero; echo killed; while :; do sleep 1; done";
    let container = Container::run("oom-kills", &options, script);
    container.wait_for_line("killed");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let snapshot = snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let kernel = group_value(
        &container,
        "memory/memory.oom_control",
        "memory.events",
        "oom_kill",
    );
    assert_eq!(figure(&snapshot, name, "oom_kills"), kernel);
    assert!(kernel >= 2.0);
}

#[test]
#[serial]
fn rates_of_containers_match_their_counters() {
    let script = "gateway=$(ip route | awk '/default/ { print $3 }'); \
                  while :; do ping -c 5 -i 0.1 -s 1000 $gateway >/dev/null; done";
    let container = Container::run("rates", &[], script);
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| shows(s, name));
    let measured = snapshots.take(6);
    let time = |at: usize| {
        let text = measured[at]["sources"]["docker"]["collected_at"]
            .as_str()
            .unwrap();
        humantime::parse_rfc3339(text).unwrap()
    };
    let network = |at: usize| &figures(&measured[at], name).unwrap()["network"]["eth0"];
    let mut sent = 0.0;
    for at in 1..measured.len() {
        let seconds = time(at).duration_since(time(at - 1)).unwrap().as_secs_f64();
        for (counter, rate) in [
            ("rx_bytes", "rx_bytes_per_second"),
            ("tx_bytes", "tx_bytes_per_second"),
        ] {
            let of = |at: usize, field: &str| network(at)[field].as_f64().unwrap();
            let by_rate = of(at, rate) * seconds;
            let by_counter = of(at, counter) - of(at - 1, counter);
            assert!(
                (by_rate - by_counter).abs() <= by_counter * 0.05 + 50.0,
                "{counter}: {by_rate} bytes by the rate, {by_counter} by the counter"
            );
            sent += by_counter;
        }
    }
    assert!(sent > 5000.0, "only {sent} bytes");
}
