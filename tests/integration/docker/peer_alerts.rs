//! Alert rules for node_exporter: each fires on the agent's figures when it fires on node_exporter's.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serial_test::serial;
use tempfile::TempDir;

use super::container::Container;
use super::launch;
use crate::support::node_exporter::NodeExporter;
use crate::support::prometheus::{Job, Prometheus, metrics_of};
use crate::support::{Busy, wait};

const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/prometheus-peer-rules.yml"
);

/// Opens files and sockets, sends data to itself, sends datagrams to a port without a program, and connects to a program that accepts no
/// connection.
const TRAFFIC: &str = r"
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
kept = [open('/dev/null') for _ in range(3000)]
server = socket.create_server(('127.0.0.1', 0))
for _ in range(200):
    kept.append(socket.create_connection(server.getsockname()))
    kept.append(server.accept()[0])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
deaf = socket.create_server(('127.0.0.1', 0), backlog=0)
for _ in range(8):
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(deaf.getsockname())
    kept.append(one)
while True:
    kept[3000].sendall(b'x' * 65536)
    received = 0
    while received < 65536:
        received += len(kept[3001].recv(65536))
    udp.sendto(b'x', ('127.0.0.1', 9))
    time.sleep(0.02)
";

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.unwrap().success(), "{program} {arguments:?}");
}

/// A program in a process group of its own. Ended on drop, with all processes that it has started.
pub(super) struct Background(Child);

impl Background {
    pub(super) fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new("setsid")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("cannot start setsid"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        run("kill", &["-KILL", "--", &format!("-{}", self.0.id())]);
        let _ = self.0.wait();
    }
}

/// A tmpfs. Unmounted on drop.
pub(super) struct Tmpfs(TempDir);

impl Tmpfs {
    pub(super) fn mount(options: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", path]);
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file of this many bytes. Writes less if the file system has less space.
    pub(super) fn fill(&self, bytes: usize) {
        let _ = std::fs::write(self.0.path().join("file"), vec![1; bytes]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

/// A pair of interfaces that are down. Removed on drop.
struct Interfaces;

impl Interfaces {
    fn create() -> Self {
        let pair = [
            "link", "add", "satest0", "type", "veth", "peer", "name", "satest1",
        ];
        run("ip", &pair);
        Self
    }
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        run("ip", &["link", "delete", "satest0"]);
    }
}

/// The names of the alerts that fire for a job, each with its labels.
fn firing(prometheus: &Prometheus, job: &str) -> BTreeSet<String> {
    let query = format!("ALERTS{{alertstate=\"firing\",job=\"{job}\"}}");
    let alerts = prometheus.query(&query).into_iter();
    let text = |(labels, _): (serde_json::Value, f64)| {
        let labels = labels.as_object().unwrap().iter();
        let labels = labels.filter(|(name, _)| *name != "job" && *name != "instance");
        labels
            .map(|(name, value)| format!("{name}={value} "))
            .collect()
    };
    alerts.map(text).collect()
}

#[test]
#[serial]
fn every_provoked_alert_fires_on_our_figures_as_on_those_of_node_exporter() {
    let agent = launch().var("METRICS_PORT", "0").start();
    let exporter = NodeExporter::start();
    let how = Vec::new();
    let job = |name, target| Job {
        name,
        target,
        how: &how,
    };
    let jobs = [
        job("ours", metrics_of(&agent)),
        job("theirs", exporter.address),
    ];
    let prometheus = Prometheus::with_rules(&jobs, &[Path::new(RULES)]);

    let cores = thread::available_parallelism().unwrap().get();
    let _busy: Vec<Busy> = (0..=cores).map(|_| Busy::in_background()).collect();
    let _forks = Background::start("sh", &["-c", "while :; do /bin/true; done"]);
    let full = Tmpfs::mount("size=2m");
    full.fill(4 << 20);
    let inodes = Tmpfs::mount("size=1m,nr_inodes=20");
    for number in 0..19 {
        let _ = std::fs::write(inodes.0.path().join(number.to_string()), "");
    }
    let _readonly = Tmpfs::mount("size=4m,ro");
    let shared = Tmpfs::mount("size=64m");
    shared.fill(60 << 20);
    let _interfaces = Interfaces::create();
    let _traffic = Background::start("python3", &["-c", TRAFFIC]);
    let disk = TempDir::new().unwrap();
    let writes = format!(
        "while :; do dd if=/dev/zero of={}/file bs=4k count=50 oflag=dsync; done",
        disk.path().display()
    );
    let _writes = Background::start("sh", &["-c", &writes]);
    let memory = ["--memory", "16m", "--memory-swap", "16m"];
    let _oom = Container::run("alerts-oom", &memory, "sleep 6; tail /dev/zero; sleep 1000");

    let rules = std::fs::read_to_string(RULES).unwrap();
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() >= 15);
    let mut seen = String::new();
    let agree = || {
        let (ours, theirs) = (firing(&prometheus, "ours"), firing(&prometheus, "theirs"));
        let is_firing = |name: &&&str| {
            let label = format!("alertname=\"{name}\"");
            theirs.iter().any(|alert| alert.contains(&label))
        };
        let silent: Vec<_> = names.iter().filter(|name| !is_firing(name)).collect();
        let is_equal = silent.is_empty() && ours == theirs;
        seen = format!("not provoked: {silent:?}; ours: {ours:#?}; theirs: {theirs:#?}");
        is_equal.then_some(())
    };
    let agreed = wait::within(Duration::from_secs(45), agree);
    assert!(agreed.is_some(), "{seen}");
}
