//! Compares the I/O of processes with the kernel's counters.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use serial_test::serial;
use tempfile::TempDir;

use crate::support::{Agent, DEADLINE};

/// The number of bytes of one write, and the pause after it.
const BLOCK: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(20);

/// A shell whose child `dd` writes [`BLOCK`] bytes to a disk every [`PAUSE`], past the page cache. When `dd` has ended, the shell
/// sleeps.
struct Writer {
    shell: Child,
    stop: Arc<AtomicBool>,
    input: Option<JoinHandle<()>>,
    /// The folder is on a disk, because a file system in memory has no I/O.
    _folder: TempDir,
}

impl Writer {
    fn start() -> Self {
        let folder = TempDir::new_in("/var/tmp").unwrap();
        let script = format!(
            "dd of={}/file bs={BLOCK} iflag=fullblock oflag=direct; sleep 100",
            folder.path().display()
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped());
        let mut shell = shell.stderr(Stdio::null()).spawn().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (input, stopped) = (shell.stdin.take().unwrap(), Arc::clone(&stop));
        let input = thread::spawn(move || feed(input, &stopped));
        Self {
            shell,
            stop,
            input: Some(input),
            _folder: folder,
        }
    }

    fn dd(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.shell.id());
        let start = Instant::now();
        loop {
            let child = fs::read_to_string(&children).unwrap();
            if let Ok(pid) = child.trim().parse() {
                return pid;
            }
            assert!(start.elapsed() < DEADLINE);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends `dd`, and waits until the shell has noticed it.
    fn end_dd(&mut self, dd: u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.input.take().unwrap().join().unwrap();
        let start = Instant::now();
        while Path::new(&format!("/proc/{dd}")).exists() {
            assert!(start.elapsed() < DEADLINE);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        if let Some(input) = self.input.take() {
            let _ = input.join();
        }
    }
}

fn feed(mut input: ChildStdin, stop: &AtomicBool) {
    let block = vec![7; BLOCK];
    while !stop.load(Ordering::Relaxed) && input.write_all(&block).is_ok() {
        thread::sleep(PAUSE);
    }
}

/// Bytes that a process has read and written, from `/proc/<pid>/io`.
fn counters(pid: u32) -> (f64, f64) {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let counter = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    (counter("read_bytes:"), counter("write_bytes:"))
}

fn entry(snapshot: &Value, pid: u32) -> Option<&Value> {
    let list = snapshot["system"]["top_io"].as_array()?;
    list.iter().find(|one| one["pid"] == pid)
}

fn written(entry: &Value) -> f64 {
    entry["write_bytes_per_second"].as_f64().unwrap()
}

const VARIABLES: [(&str, &str); 3] = [
    ("SYSTEM_INTERVAL", "1s"),
    ("PUBLISH_INTERVAL", "1s"),
    ("TOP_PROCESSES", "1000"),
];

#[test]
#[serial]
fn the_io_of_a_process_matches_the_kernels_counters() {
    let mut writer = Writer::start();
    let (dd, shell) = (writer.dd(), writer.shell.id());
    let agent = Agent::start(&VARIABLES);
    let mut client = agent.login();
    let start = Instant::now();
    while entry(&client.snapshot(), dd).is_none() {
        assert!(start.elapsed() < DEADLINE);
    }
    let (before, start) = (counters(dd), Instant::now());
    let snapshots: Vec<Value> = (0..5).map(|_| client.snapshot()).collect();
    let (after, elapsed) = (counters(dd), start.elapsed().as_secs_f64());
    let expected = (after.1 - before.1) / elapsed;
    assert!(expected > 500_000.0, "{expected}");
    let entries = snapshots.iter().map(|one| entry(one, dd).unwrap());
    let mean = entries.clone().map(written).sum::<f64>() / 5.0;
    assert!(
        (mean - expected).abs() < expected * 0.15,
        "{mean} and not {expected}"
    );
    for one in entries {
        assert_eq!((&one["name"], &one["user"]), (&"dd".into(), &"root".into()));
        assert!(one.get("unit").is_none() && one.get("container").is_none());
    }
    for snapshot in &snapshots {
        let list = snapshot["system"]["top_io"].as_array().unwrap();
        let rates: Vec<f64> = list
            .iter()
            .map(|one| written(one) + one["read_bytes_per_second"].as_f64().unwrap())
            .collect();
        assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
        assert!(rates.iter().all(|rate| *rate > 0.0), "{rates:?}");
    }

    // The kernel adds all bytes of `dd` to the counters of the shell.
    let before = counters(shell).1;
    writer.end_dd(dd);
    assert!(counters(shell).1 - before > expected * 5.0);
    for _ in 0..4 {
        let snapshot = client.snapshot();
        let own = entry(&snapshot, shell).map_or(0.0, written);
        assert!(own < expected * 3.0, "{own} for the shell");
    }
    assert!(entry(&client.snapshot(), dd).is_none());
}

#[test]
#[serial]
fn even_one_snapshot_has_the_io_of_a_process() {
    let writer = Writer::start();
    let dd = writer.dd();
    thread::sleep(Duration::from_millis(500));
    // The two readings for one snapshot are 300 ms apart, and `dd` may use no tick of CPU time in between.
    let found = (0..10).any(|_| {
        let agent = Agent::start(&VARIABLES);
        let snapshot = agent.login().snapshot();
        entry(&snapshot, dd).is_some()
    });
    assert!(found);
}
