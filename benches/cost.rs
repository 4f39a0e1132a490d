//! What the agent costs its host: `make bench`.
//!
//! With 0, 10 and 50 containers that each log a line a second, and one client at the default intervals, it measures the
//! agent's CPU time and memory, the CPU time that it induces in the Docker engine (over what the same engine
//! with the same containers uses without an agent, measured just before), and how soon after its start a client has the
//! first complete snapshot. `BENCH_SECONDS` is the length of each measurement, 60 by default.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

const KEY: &str = "benchmark-key-of-no-worth";
const IMAGE: &str = "system-agent-test";
/// The label by which the tests, too, know what a killed run has left behind.
const LABEL: &str = "system-agent-test";
/// A tick of the CPU times in /proc: Linux shows 100 a second on every platform of ours.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long the agent may take until its first complete snapshot.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let window = Duration::from_secs(std::env::var("BENCH_SECONDS").map_or(60, |seconds| {
        let parsed = seconds.parse();
        parsed.expect("BENCH_SECONDS is a whole number of seconds")
    }));
    let rows: Vec<Row> = [0, 10, 50]
        .map(|containers| Row::measure(containers, window))
        .into();
    print(&rows, window);
}

/// What was measured at one number of containers.
struct Row {
    containers: usize,
    /// CPU seconds per minute.
    agent: f64,
    /// CPU seconds per minute of the engine without an agent.
    engine_idle: f64,
    /// CPU seconds per minute of the engine with an agent.
    engine: f64,
    rss_mib: f64,
    peak_rss_mib: f64,
    first_snapshot: Duration,
    /// Whether others used the engine meanwhile.
    disturbed: bool,
}

impl Row {
    fn measure(containers: usize, window: Duration) -> Self {
        eprintln!("{containers} containers: starting them");
        let _containers = Containers::start(containers);
        let since = unix_seconds() + 1;
        eprintln!(
            "{containers} containers: {} s without the agent",
            window.as_secs()
        );
        let engine_idle = Load::over(window, engine_processes);

        eprintln!("{containers} containers: {} s with it", window.as_secs());
        let (agent, first_snapshot) = Agent::start(containers);
        let pid = agent.process.id();
        let before = Load::now(&[pid]);
        let engine = Load::over(window, engine_processes);
        let own = Load::now(&[pid]).since(&before);
        let disturbed = containers_started_since(since);
        Self {
            containers,
            agent: own.per_minute(window),
            engine_idle: engine_idle.per_minute(window),
            engine: engine.per_minute(window),
            rss_mib: memory_mib(pid, "VmRSS:"),
            peak_rss_mib: memory_mib(pid, "VmHWM:"),
            first_snapshot,
            disturbed,
        }
    }
}

fn print(rows: &[Row], window: Duration) {
    let cores = thread::available_parallelism().expect("a number of cores");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let engine = docker(&["version", "--format", "{{.Server.Version}}"]);
    let cgroup = docker(&["info", "--format", "{{.CgroupVersion}}"]);
    println!();
    println!(
        "System Agent {}, default intervals, one client, {} s a measurement",
        env!("CARGO_PKG_VERSION"),
        window.as_secs()
    );
    println!(
        "{cores} cores, Linux {}, Docker {engine}, cgroup v{cgroup}; CPU in seconds per minute",
        kernel.trim()
    );
    println!();
    println!(
        "| containers | agent CPU | engine CPU idle | engine CPU added | RSS MiB | peak RSS MiB | first snapshot s |"
    );
    println!(
        "|-----------:|----------:|----------------:|-----------------:|--------:|-------------:|-----------------:|"
    );
    for row in rows {
        println!(
            "| {:10} | {:9.2} | {:15.2} | {:16.2} | {:7.1} | {:12.1} | {:16.2} |",
            row.containers,
            row.agent,
            row.engine_idle,
            row.engine - row.engine_idle,
            row.rss_mib,
            row.peak_rss_mib,
            row.first_snapshot.as_secs_f64(),
        );
    }
    for row in rows.iter().filter(|row| row.disturbed) {
        println!();
        println!(
            "DISTURBED at {} containers: others were started on this engine, measure again",
            row.containers
        );
    }
}

/// Whether any container was started since then: not by this benchmark, which starts its own before it measures.
fn containers_started_since(since: u64) -> bool {
    let (since, until) = (since.to_string(), unix_seconds().to_string());
    let window = ["events", "--since", &since, "--until", &until];
    let only = ["--filter", "event=start", "--format", "{{.ID}}"];
    !docker(&[&window[..], &only].concat()).is_empty()
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_secs()
}

/// Containers that log a line a second. Removed on drop.
struct Containers(Vec<String>);

impl Containers {
    fn start(count: usize) -> Self {
        let label = format!("{LABEL}={}", std::process::id());
        let script = "while :; do echo a line of the benchmark; sleep 1; done";
        let run = ["run", "--detach", "--network", "none", "--label", &label];
        let run = [&run[..], &[IMAGE, "sh", "-c", script]].concat();
        // A few at a time: the engine starts one in a third of a second.
        let left = Mutex::new(count);
        let take_one = || {
            let mut left = left.lock().unwrap();
            *left = left.checked_sub(1)?;
            Some(())
        };
        let start_some = || -> Vec<String> {
            std::iter::from_fn(|| take_one().map(|()| docker(&run))).collect()
        };
        thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(start_some));
            let started = threads.into_iter().flat_map(|t| t.join().unwrap());
            Self(started.collect())
        })
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let remove = ["rm", "--force"].into_iter();
            let all: Vec<&str> = remove.chain(self.0.iter().map(String::as_str)).collect();
            docker(&all);
        }
    }
}

/// The agent, with one client that reads it. Killed on drop.
struct Agent {
    process: Child,
}

impl Agent {
    /// Starts it and waits for the first snapshot with every container in every section; says how long that took.
    fn start(containers: usize) -> (Self, Duration) {
        let port = free_port();
        let started = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_system-agent"))
            .env_clear()
            .env("API_KEY", KEY)
            .env("SOCKET_PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent's binary starts");
        let mut agent = Self { process };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect(address) {
                break stream;
            }
            let ended = agent.process.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "the agent ended at its start: {ended:?}");
            assert!(started.elapsed() < PATIENCE, "nothing listens on {address}");
            thread::sleep(Duration::from_millis(2));
        };
        stream.write_all(format!("{KEY}\n").as_bytes()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream).lines();
        loop {
            let line = lines.next().expect("the agent streams").unwrap();
            let snapshot: Value = serde_json::from_str(&line).expect("JSON");
            if is_complete(&snapshot, containers) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "not complete: {line}");
        }
        let took = started.elapsed();
        // The client reads on until the agent ends.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        (agent, took)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_complete(snapshot: &Value, containers: usize) -> bool {
    let len = |value: &Value| value.as_array().map_or(0, Vec::len);
    let logs = snapshot["logs"].as_object().map_or(0, serde_json::Map::len);
    // Others' containers may run beside ours.
    snapshot["status"] == "ok"
        && len(&snapshot["containers"]) >= containers
        && len(&snapshot["docker_meta"]) >= containers
        && logs >= containers
}

/// CPU time of processes, in ticks, by process id.
struct Load(BTreeMap<u32, u64>);

impl Load {
    fn now(pids: &[u32]) -> Self {
        let of = |&pid: &u32| Some((pid, cpu_ticks(pid)?));
        Self(pids.iter().filter_map(of).collect())
    }

    /// What the processes use within `window`.
    fn over(window: Duration, pids: impl Fn() -> Vec<u32>) -> Self {
        let before = Self::now(&pids());
        thread::sleep(window);
        Self::now(&pids()).since(&before)
    }

    /// What was used since `before`; a process that was not there then counts from its start.
    fn since(&self, before: &Self) -> Self {
        let used = |(pid, ticks): (&u32, &u64)| (*pid, ticks - before.0.get(pid).unwrap_or(&0));
        Self(self.0.iter().map(used).collect())
    }

    fn per_minute(&self, window: Duration) -> f64 {
        let ticks: u64 = self.0.values().sum();
        let seconds = ticks as f64 / TICKS_PER_SECOND;
        seconds * 60.0 / window.as_secs_f64()
    }
}

/// dockerd, containerd and the containers' shims.
fn engine_processes() -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse().ok()
    });
    let is_engine = |pid: &u32| {
        let comm = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
        comm.is_ok_and(|comm| comm.trim() == "dockerd" || comm.starts_with("containerd"))
    };
    pids.filter(is_engine).collect()
}

/// `utime`, `stime`, and those of the children it has waited for: fields 14 to 17 of /proc/<pid>/stat.
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let times = after_name.split(' ').skip(11).take(4);
    times.map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// A size in /proc/<pid>/status.
fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.expect("the field").trim().trim_end_matches(" kB");
    kib.parse::<f64>().expect("a size") / 1024.0
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs Docker's client with the machine's own engine, and yields what it printed.
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .env_remove("DOCKER_CONTEXT")
        .env("DOCKER_HOST", "unix:///var/run/docker.sock")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("Docker's client starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
