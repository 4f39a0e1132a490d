//! What a container uses, as `docker stats` shows it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serial_test::{parallel, serial};

use super::container::Container;
use super::snapshots::{Snapshots, figure, figures, shows};
use super::{INTERVAL, assert_close, launch};
use crate::support::{PATIENCE, wait};

const MIB: f64 = 1024.0 * 1024.0;

#[test]
#[serial]
fn half_a_core_is_50_percent() {
    let container = Container::run("half-core", &["--cpus", "0.5"], "while :; do :; done");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", PATIENCE, |s| shows(s, name));

    // The quota's period of 100 ms makes both waver: averages over the same seconds.
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
    let first = snapshots.until("the container", PATIENCE, |s| figures(s, name).is_some());
    let percent = figure(&first, name, "cpu_percent");
    assert!(
        (50.0..=110.0).contains(&percent),
        "{percent} %, but it is busy"
    );
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
    snapshots.until("the container", PATIENCE, |s| shows(s, name));

    let stats = container.stats();
    let snapshot = snapshots.fresh();
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
    snapshots.until("the container", PATIENCE, |s| shows(s, name));

    let stats = container.stats();
    let usage = figure(&snapshots.fresh(), name, "memory_usage");
    assert_close("memory_usage, docker stats", usage, stats.memory_usage);
    assert!(
        usage < 10.0 * MIB,
        "{usage} bytes: 30 MiB of it are file cache"
    );
}

#[test]
#[parallel]
fn without_a_limit_the_hosts_memory_is_the_limit() {
    let container = Container::run("no-limit", &[], "sleep 1000");
    let agent = launch().start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let snapshot = snapshots.until("the container", PATIENCE, |s| shows(s, name));
    let limit = figure(&snapshot, name, "memory_limit");
    let total = snapshot["system"]["memory_total"].as_f64().unwrap();
    // Pages and rounded MiB, no more.
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
    let before = snapshots.until("the container", PATIENCE, |s| shows(s, name));
    assert!(
        counter(&before, name, "rx_bytes") < 100_000.0,
        "no traffic yet: {before:#}"
    );

    let address = container.inspect()["NetworkSettings"]["IPAddress"].clone();
    let ip = address
        .as_str()
        .expect("an address")
        .parse()
        .expect("an IP address");
    let received = exchange(SocketAddr::new(ip, 5000), TO_CONTAINER);
    assert_eq!(received, FROM_CONTAINER);

    let stats = container.stats();
    let snapshot = snapshots.fresh();
    let figure = |field| counter(&snapshot, name, field);
    assert_close(
        "rx_bytes, sent to it",
        figure("rx_bytes"),
        TO_CONTAINER as f64,
    );
    assert_close(
        "tx_bytes, sent by it",
        figure("tx_bytes"),
        FROM_CONTAINER as f64,
    );
    assert_close("rx_bytes, docker stats", figure("rx_bytes"), stats.received);
    assert_close("tx_bytes, docker stats", figure("tx_bytes"), stats.sent);
    for field in ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"] {
        let file = format!("cat /sys/class/net/eth0/statistics/{field}");
        let kernels: f64 = container.exec(&file).parse().expect("a counter");
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
    let snapshot = snapshots.until("the container", PATIENCE, |s| shows(s, name));
    let network = &figures(&snapshot, name).unwrap()["network"];
    assert_eq!(
        network.as_object().map(serde_json::Map::len),
        Some(0),
        "{network}"
    );
}

/// A counter of the container's one interface.
fn counter(snapshot: &serde_json::Value, name: &str, field: &str) -> f64 {
    let container = figures(snapshot, name).expect("the container");
    let value = container["network"]["eth0"][field].as_f64();
    value.unwrap_or_else(|| panic!("no eth0 {field} in {container:#}"))
}

/// Sends so many bytes and counts what comes back until the end.
fn exchange(peer: SocketAddr, bytes: usize) -> usize {
    let timeout = Duration::from_secs(1);
    let connect = || TcpStream::connect_timeout(&peer, timeout).ok();
    let mut stream = wait::until("the container listens", PATIENCE, connect);
    stream.write_all(&vec![0; bytes]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    received.len()
}
