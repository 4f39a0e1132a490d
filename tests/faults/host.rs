//! Faults of a host.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::docker::container::Container;
use crate::support::{Agent, KEY, Launch, net};
use crate::trial::{INTERVAL, Report, Trial, launch};

/// The path of Debian's libfaketime.
fn faketime() -> String {
    format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1",
        std::env::consts::ARCH
    )
}

/// Returns the figures of a snapshot that are impossibly high. A change of the clock must not cause such figures.
fn impossible(snapshot: &Value) -> Vec<String> {
    let mut impossible = Vec::new();
    let mut look = |what: String, value: &Value, max: f64| {
        if value.as_f64().is_some_and(|value| value > max) {
            impossible.push(format!("{what} {value}"));
        }
    };
    let cores = snapshot["host"]["cpus"].as_f64().unwrap_or(1.0);
    look(
        "cpu_percent".to_owned(),
        &snapshot["system"]["cpu_percent"][0],
        100.0,
    );
    look(
        "agent.cpu_percent".to_owned(),
        &snapshot["agent"]["cpu_percent"],
        100.0 * cores,
    );
    for interface in snapshot["system"]["network"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for rate in [
            "bytes_recv_per_second",
            "bytes_sent_per_second",
            "rx_bytes_per_second",
            "tx_bytes_per_second",
        ] {
            look(
                format!("{rate} of {}", interface["name"]),
                &interface[rate],
                1e10,
            );
        }
    }
    for process in snapshot["system"]["top_processes"]
        .as_array()
        .into_iter()
        .flatten()
    {
        look(
            format!("cpu of {}", process["name"]),
            &process["cpu"],
            105.0 * cores,
        );
    }
    for container in snapshot["containers"].as_array().into_iter().flatten() {
        look(
            format!("cpu_percent of {}", container["name"]),
            &container["cpu_percent"],
            105.0 * cores,
        );
    }
    impossible
}

pub(crate) fn clock() -> Vec<Report> {
    let faketime = faketime();
    assert!(
        Path::new(&faketime).exists(),
        "libfaketime is missing (Debian: libfaketime)"
    );
    let folder = TempDir::new().unwrap();
    let offset = folder.path().join("offset");
    fs::write(&offset, "+0").unwrap();
    let container = Container::run("clock", &[], "while :; do echo line; sleep 1; done");
    let launch = launch().vars(&[
        ("DOCKER_ENABLED", "true"),
        ("LD_PRELOAD", &faketime),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    let mut trial = Trial::start("clock set forward and back by an hour", launch);
    let mut moved = 0;
    for set in ["+3600", "+0", "-3600", "+0"] {
        let time = |line: &crate::client::Line| {
            humantime::parse_rfc3339(line.snapshot["timestamp"].as_str().unwrap_or_default())
                .unwrap()
        };
        let before = trial.client.newest(time).unwrap();
        // Renames the new file into place, so that the agent never reads half of it.
        fs::write(folder.path().join("new"), set).unwrap();
        fs::rename(folder.path().join("new"), &offset).unwrap();
        trial.client.wait_for(10);
        let after = trial.client.newest(time).unwrap();
        let apart = after
            .duration_since(before)
            .unwrap_or_else(|error| error.duration());
        moved += usize::from(apart > Duration::from_secs(3500));
    }
    trial.check(moved == 4, format!("the clock moved {moved} of 4 times"));
    let impossible: Vec<String> = trial.client.since(1, |lines| {
        lines
            .iter()
            .flat_map(|line| impossible(&line.snapshot))
            .collect()
    });
    trial.check(
        impossible.is_empty(),
        format!("impossible figures: {impossible:?}"),
    );
    let fresh = trial
        .client
        .newest(|line| !line.snapshot["logs"][container.name()].is_null())
        .unwrap_or_default();
    trial.check(fresh, "logs present");
    vec![trial.end()]
}

pub(crate) fn no_descriptors() -> Vec<Report> {
    let launch = launch().launched_by(["prlimit", "--nofile=64:64"]);
    let mut trial = Trial::start("limit of 64 open files", launch);
    let address = trial.agent.address();
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(5));
    let connections: Vec<_> = (0..200).map(connect).collect();
    let new_client = || {
        let started = std::time::Instant::now();
        let mut client = trial.agent.login();
        client
            .line_within(Duration::from_secs(30))
            .map(|_| started.elapsed())
    };
    let (during, max) = (new_client(), trial.usage().files);
    drop(connections);
    let afterwards = new_client();
    trial.at_most("open files", max as f64, 64.0, "");
    trial.within(
        "a new client during the fault was served after",
        during,
        3.0,
    );
    trial.within(
        "a new client after the fault was served after",
        afterwards,
        3.0,
    );
    vec![trial.end()]
}

/// Runs a trial of an agent whose standard error has this redirection of the shell.
fn logging_to(name: &str, redirection: &str) -> Report {
    let script = format!("exec \"$0\" \"$@\" {redirection}");
    let launch = launch().launched_by(["sh", "-c", &script]);
    let mut trial = Trial::of(name, launch.start_on(net::free_port()));
    // Each connection adds an entry to the agent's log.
    for _ in 0..2000 {
        drop(trial.agent.connect());
    }
    trial
        .agent
        .login()
        .line_within(Duration::from_secs(10))
        .expect("no snapshot: the stream has ended");
    let growth = trial.peak_growth();
    trial.at_most("memory grew by", growth, 4.0, "MiB");
    trial.end()
}

/// Runs a trial of an agent that logs to a file on a full file system. Later the file system gets more space.
fn full_disk() -> Report {
    let folder = TempDir::new().unwrap();
    let mount = |options: &str| {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(status.unwrap().success(), "only root can mount");
    };
    mount("size=64k");
    let log = folder.path().join("log");
    let script = format!("exec \"$0\" \"$@\" 2>>{}", log.display());
    let mut trial = Trial::of(
        "full disk of the log",
        // At the level `trace` the log soon fills the file system.
        launch()
            .var("RUST_LOG", "trace")
            .launched_by(["sh", "-c", &script])
            .start_on(net::free_port()),
    );
    for _ in 0..2000 {
        drop(trial.agent.connect());
    }
    thread::sleep(Duration::from_secs(2));
    let full = fs::metadata(&log).unwrap().len();
    trial.check(
        full >= 60 * 1024,
        format!("the log has {} KiB", full / 1024),
    );
    mount("size=1m,remount");
    for _ in 0..10 {
        drop(trial.agent.connect());
    }
    thread::sleep(Duration::from_secs(2));
    let after = fs::metadata(&log).unwrap().len();
    trial.check(after > full, "the log grows when there is space again");
    let report = trial.end();
    let _ = std::process::Command::new("umount")
        .arg("-l")
        .arg(folder.path())
        .status();
    report
}

pub(crate) fn nowhere_to_log() -> Vec<Report> {
    vec![
        logging_to("standard error is closed", "2>&-"),
        logging_to("standard error is a full device", "2>/dev/full"),
        full_disk(),
    ]
}

/// A control group with a limit of memory. Removed on drop. All processes of the group must have ended by then.
struct MemoryLimit(PathBuf);

impl MemoryLimit {
    fn of(bytes: u64) -> Self {
        let name = format!("system-agent-faults-{}", std::process::id());
        let (root, file) = match Path::new("/sys/fs/cgroup/memory") {
            v1 if v1.exists() => (v1, "memory.limit_in_bytes"),
            _ => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = root.join(name);
        fs::create_dir(&group).expect("cannot make a control group: only root can limit memory");
        fs::write(group.join(file), bytes.to_string()).unwrap();
        Self(group)
    }

    fn launch(&self, launch: Launch) -> Launch {
        let script = format!(
            "echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"",
            self.0.display()
        );
        launch.launched_by(["sh", "-c", &script])
    }

    /// The peak of the group's memory, in MiB.
    fn peak(&self) -> f64 {
        let read = |file: &str| {
            fs::read_to_string(self.0.join(file))
                .ok()?
                .trim()
                .parse::<f64>()
                .ok()
        };
        read("memory.max_usage_in_bytes")
            .or_else(|| read("memory.peak"))
            .unwrap_or_default()
            / 1048576.0
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Starts clients that discard what they read. Returns a counter of JSON lines for each client.
fn readers(agent: &Agent, count: usize) -> Arc<Vec<AtomicUsize>> {
    let lines: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
    let (received, address) = (Arc::clone(&lines), agent.address());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for number in 0..count {
                let received = Arc::clone(&received);
                all.spawn(async move {
                    let mut stream = tokio::net::TcpStream::connect(address).await?;
                    stream.write_all(format!("{KEY}\n").as_bytes()).await?;
                    let mut chunk = vec![0; 64 * 1024];
                    loop {
                        let read = stream.read(&mut chunk).await?;
                        if read == 0 {
                            return std::io::Result::Ok(());
                        }
                        let ends = memchr::memchr_iter(b'\n', &chunk[..read]).count();
                        received[number].fetch_add(ends, Ordering::Relaxed);
                    }
                });
            }
            while all.join_next().await.is_some() {}
        });
    });
    lines
}

pub(crate) fn little_memory() -> Vec<Report> {
    const CLIENTS: usize = 1000;
    let containers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let script = "while :; do echo a line of a container that logs one a second; sleep 1; done";
                    let container = Container::run("memory", &["--network", "none"], script);
                    containers.lock().unwrap().push(container);
                }
            });
        }
    });
    let limit = MemoryLimit::of(32 << 20);
    // The agent uses its default intervals.
    let launch = limit.launch(Launch::new().var("DOCKER_ENABLED", "true"));
    let agent = launch.start();
    let client = crate::client::Client::of(&agent, Duration::from_secs(5));
    let mut trial = Trial::with("32 MiB, 100 containers, 1,000 clients", agent, client);
    let received = readers(&trial.agent, CLIENTS);
    thread::sleep(Duration::from_secs(60));
    let lines = || {
        received
            .iter()
            .map(|lines| lines.load(Ordering::Relaxed))
            .min()
            .unwrap_or_default()
    };
    let fewest = lines();
    trial.check(
        fewest >= 11,
        format!("each client had at least {fewest} snapshots in a minute"),
    );
    let rss = trial.usage().rss_mib;
    trial.check(
        true,
        format!(
            "RSS {rss:.1} MiB, peak of the control group {:.1} MiB",
            limit.peak()
        ),
    );
    let report = trial.end();
    drop(containers);
    vec![report]
}

pub(crate) fn suspended() -> Vec<Report> {
    let mut trial = Trial::start(
        "agent stopped for 60 s",
        launch().var("DOCKER_ENABLED", "true"),
    );
    trial.agent.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(60));
    let before = trial.client.count();
    trial.agent.signal(Signal::SIGCONT);
    let woken = std::time::Instant::now();
    trial.client.wait_for(5);
    let after: Vec<Duration> = trial.client.since(before, |lines| {
        lines.iter().map(|line| line.at - woken).collect()
    });
    trial.within("first snapshot after", after.first().copied(), 0.5);
    let at_once = after.iter().filter(|after| **after < INTERVAL).count();
    trial.check(
        at_once <= 2,
        format!("{at_once} snapshots within the first second afterwards"),
    );
    let impossible: Vec<String> = trial.client.since(before, |lines| {
        lines
            .iter()
            .flat_map(|line| impossible(&line.snapshot))
            .collect()
    });
    trial.check(
        impossible.is_empty(),
        format!("impossible figures: {impossible:?}"),
    );
    // After the pause, the schedule starts again with the second snapshot.
    vec![trial.end_since(before + 1)]
}
