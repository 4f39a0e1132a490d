//! Docker's client, and the containers that a benchmark starts.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const IMAGE: &str = "system-agent-test";
/// The label of the containers. The tests use the same label, so the tests also remove containers that a killed benchmark left
/// behind.
const LABEL: &str = "system-agent-test";
/// Number of containers that start at the same time. The engine needs a third of a second for each container.
const STARTS_AT_ONCE: usize = 4;

/// Whether this run has started containers.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The label of this run's containers.
pub(crate) fn label() -> String {
    format!("{LABEL}={}", std::process::id())
}

/// Starts containers that run a script, with further options of `docker run`.
pub(crate) fn start_containers(count: usize, options: &[&str], script: &str) {
    // Set before the first start, so that containers are removed also when a later start fails.
    STARTED.store(true, Ordering::SeqCst);
    let label = label();
    let run = || {
        // Docker can give the name of a removed container to another container.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{label}-{number}").replace('=', "-");
        let run = ["run", "--detach", "--label", &label, "--name", &name];
        docker(&[&run[..], options, &[IMAGE, "sh", "-c", script]].concat());
    };
    let left = Mutex::new(count);
    let take_one = || {
        let mut left = left.lock().unwrap();
        *left = left.checked_sub(1)?;
        Some(())
    };
    thread::scope(|scope| {
        for _ in 0..STARTS_AT_ONCE {
            scope.spawn(|| std::iter::from_fn(take_one).for_each(|()| run()));
        }
    });
}

/// Starts a container with a name of its own that runs a script, with further options of `docker run`. Returns its name.
pub(crate) fn start_container(purpose: &str, options: &[&str], script: &str) -> String {
    STARTED.store(true, Ordering::SeqCst);
    let label = label();
    let name = format!("{label}-{purpose}").replace('=', "-");
    let run = ["run", "--detach", "--label", &label, "--name", &name];
    docker(&[&run[..], options, &[IMAGE, "sh", "-c", script]].concat());
    name
}

/// Removes all containers of this run.
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

/// Runs Docker's client with the machine's own engine. Returns the output.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = client(arguments)
        .output()
        .expect("cannot start Docker's client");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether the engine answers.
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
