//! The engine's own client, and the containers that a benchmark starts.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const IMAGE: &str = "system-agent-test";
/// The label by which the tests, too, know what a killed run has left behind.
const LABEL: &str = "system-agent-test";
/// The engine starts one in a third of a second.
const STARTS_AT_ONCE: usize = 4;

/// Whether there may be containers of this run.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The label of this run's containers.
pub(crate) fn label() -> String {
    format!("{LABEL}={}", std::process::id())
}

/// Starts containers that run a script, with further options of `docker run`.
pub(crate) fn start_containers(count: usize, options: &[&str], script: &str) {
    // Before the first of them, so that they are removed should one not start.
    STARTED.store(true, Ordering::SeqCst);
    let label = label();
    let run = ["run", "--detach", "--label", &label];
    let run = [&run[..], options, &[IMAGE, "sh", "-c", script]].concat();
    let left = Mutex::new(count);
    let take_one = || {
        let mut left = left.lock().unwrap();
        *left = left.checked_sub(1)?;
        Some(())
    };
    thread::scope(|scope| {
        for _ in 0..STARTS_AT_ONCE {
            scope.spawn(|| std::iter::from_fn(take_one).for_each(|()| drop(docker(&run))));
        }
    });
}

/// Removes this run's containers, whichever of them there are.
pub(crate) fn remove_containers() {
    if !STARTED.load(Ordering::SeqCst) {
        return;
    }
    let filter = format!("label={}", label());
    let ids = docker(&["ps", "--all", "--quiet", "--filter", &filter]);
    let ids: Vec<&str> = ids.lines().collect();
    if !ids.is_empty() {
        docker(&[&["rm", "--force"], &ids[..]].concat());
    }
}

/// Runs Docker's client with the machine's own engine, and yields what it printed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = client(arguments).output().expect("Docker's client starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether an engine answers.
pub(crate) fn answers() -> bool {
    let status = client(&["version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn client(arguments: &[&str]) -> Command {
    let mut client = Command::new("docker");
    client
        .env_remove("DOCKER_CONTEXT")
        .env("DOCKER_HOST", "unix:///var/run/docker.sock")
        .args(arguments)
        .stdin(Stdio::null());
    client
}
