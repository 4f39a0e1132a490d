//! Tests of networks that a container joins, leaves and shares. A snapshot shows the current interfaces of the container.

use serde_json::Value;
use serial_test::parallel;

use super::container::{Container, unique_name};
use super::engine::Engine;
use super::snapshots::{Snapshots, figures};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

/// A network of the machine's own engine. Removed on drop. All containers of the network must be removed earlier.
struct Network(String);

impl Network {
    fn create(topic: &str) -> Self {
        let name = unique_name(topic);
        Engine::local().docker(["network", "create", &name]);
        Self(name)
    }

    fn join(&self, container: &Container<'_>) {
        self.docker("connect", container);
    }

    fn leave(&self, container: &Container<'_>) {
        self.docker("disconnect", container);
    }

    fn docker(&self, verb: &str, container: &Container<'_>) {
        Engine::local().docker(["network", verb, &self.0, container.name()]);
    }
}

const COUNTERS: [&str; 4] = ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"];

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Engine::local().try_docker(["network", "rm", &self.0]);
    }
}

/// The names of a container's interfaces in a snapshot. `None` if the snapshot does not show the container.
fn shown(snapshot: &Value, container: &Container<'_>) -> Option<Vec<String>> {
    let network = figures(snapshot, container.name())?["network"].as_object()?;
    Some(network.keys().cloned().collect())
}

/// The names of the interfaces that the container itself sees, without loopback.
fn own(container: &Container<'_>) -> Vec<String> {
    let table = container.exec("cat /proc/net/dev");
    let names = table.lines().filter_map(|line| line.split_once(':'));
    let mut names: Vec<_> = names.map(|(name, _)| name.trim().to_owned()).collect();
    names.retain(|name| name != "lo");
    names.sort();
    names
}

#[test]
#[parallel]
fn a_container_shows_its_current_networks() {
    let networks = ["networks-first", "networks-second"].map(Network::create);
    let [first, second] = &networks;
    let container = Container::run("networks-moves", &["--network", &first.0], "sleep 1000");
    let agents = ["kernel", "engine"].map(|way| launch().var("CONTAINER_STATS", way).start());
    let mut streams = agents
        .each_ref()
        .map(|agent| Snapshots::of(agent, INTERVAL));

    let mut follow = |count: usize| {
        // The engine numbers the interfaces: eth0, eth1, and eth2 after the container joins the first network again.
        let expected = own(&container);
        assert_eq!(expected.len(), count, "{expected:?}");
        for snapshots in &mut streams {
            let what = format!("the interfaces {expected:?}");
            let follows = |s: &Value| shown(s, &container).as_ref() == Some(&expected);
            snapshots.until(&what, DEADLINE, follows);
        }
    };
    follow(1);
    second.join(&container);
    follow(2);
    first.leave(&container);
    follow(1);
    second.leave(&container);
    follow(0);
    first.join(&container);
    follow(1);
    // A network can only be removed when no container is in it.
    drop(container);
}

#[test]
#[parallel]
fn a_network_that_a_container_joins_later_is_shown() {
    let network = Network::create("networks-late");
    let container = Container::run("networks-none", &["--network", "none"], "sleep 1000");
    let agents = ["kernel", "engine"].map(|way| launch().var("CONTAINER_STATS", way).start());
    let mut streams = agents
        .each_ref()
        .map(|agent| Snapshots::of(agent, INTERVAL));
    let mut until_shown = |what: &str, expected: &[String]| {
        for snapshots in &mut streams {
            let follows = |s: &Value| shown(s, &container).is_some_and(|names| names == expected);
            snapshots.until(what, DEADLINE, follows);
        }
    };
    until_shown("no interface", &[]);
    Engine::local().docker(["network", "disconnect", "none", container.name()]);
    network.join(&container);
    assert_eq!(own(&container), ["eth0"]);
    until_shown("its interface", &own(&container));
    drop(container);
}

/// Returns the kernel's counters of an interface, read inside the container.
fn kernels(container: &Container<'_>, interface: &str) -> Vec<f64> {
    let files = COUNTERS.map(|counter| format!("/sys/class/net/{interface}/statistics/{counter}"));
    let text = container.exec(&format!("cat {}", files.join(" ")));
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Fails unless each counter of a new snapshot is between those of the kernel before and after it.
fn assert_current(snapshots: &mut Snapshots, container: &Container<'_>, interface: &str) -> f64 {
    let before = kernels(container, interface);
    let snapshot = snapshots.fresh();
    let after = kernels(container, interface);
    let shown = &figures(&snapshot, container.name()).unwrap()["network"][interface];
    for (at, counter) in COUNTERS.iter().enumerate() {
        let shown = shown[counter].as_f64().unwrap();
        let fits = (before[at]..=after[at]).contains(&shown);
        assert!(
            fits,
            "{interface}, {counter}: {shown}, not {before:?} to {after:?}"
        );
    }
    before[0]
}

/// The agent does not read the table of a container while the host's ends of its interfaces have the same counters.
#[test]
#[parallel]
fn traffic_after_a_quiet_time_is_shown_at_once() {
    // Removed after the container.
    let network = Network::create("quiet");
    let container = Container::run("quiet-network", &[], "sleep 1000");
    let agent = launch().var("CONTAINERS_INCLUDE", container.name()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the container", DEADLINE, |s| {
        figures(s, container.name()).is_some()
    });
    let ping = |interface: &str| {
        let gateway = format!(
            "ip -4 addr show {interface} | awk '/inet/ {{ sub(\"[.][0-9]+/.*\", \".1\", $2); print $2 }}'"
        );
        container.exec(&format!("ping -c 3 -i 0.1 -s 500 $({gateway})"));
    };
    for interface in ["eth0", "eth1"] {
        if interface == "eth1" {
            network.join(&container);
            snapshots.until("the second network", DEADLINE, |s| {
                figures(s, container.name()).is_some_and(|it| it["network"]["eth1"].is_object())
            });
        }
        for _ in 0..3 {
            let quiet = assert_current(&mut snapshots, &container, interface);
            snapshots.fresh();
            ping(interface);
            let sent = assert_current(&mut snapshots, &container, interface) - quiet;
            assert!(sent >= 3.0 * 500.0, "only {sent} bytes");
        }
    }
}

#[test]
#[parallel]
fn no_container_shows_the_interfaces_of_the_host() {
    let host = Container::run("networks-host", &["--network", "host"], "sleep 1000");
    let shared = format!("container:{}", host.name());
    let joined = Container::run("networks-joined", &["--network", &shared], "sleep 1000");
    assert!(
        own(&joined).len() > 1,
        "the container has the host's interfaces"
    );
    for way in ["kernel", "engine"] {
        let agent = launch().var("CONTAINER_STATS", way).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let both = |s: &Value| shown(s, &host).is_some() && shown(s, &joined).is_some();
        let first = snapshots.until("both containers", DEADLINE, both);
        for snapshot in [first].into_iter().chain(snapshots.take(2)) {
            for container in [&host, &joined] {
                let none = Vec::<String>::new();
                assert_eq!(shown(&snapshot, container), Some(none), "{way}");
            }
        }
    }
}
