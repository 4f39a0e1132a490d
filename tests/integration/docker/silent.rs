//! Tests of an engine that does not answer, and of a kernel file that hangs. Without answers from the engine, the agent must
//! still publish the figures from the kernel. If a kernel file hangs, the agent must still publish the data from the engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::container::Container;
use super::engine::{LOCAL_SOCKET, PrivateEngine};
use super::snapshots::{
    Snapshots, docker_is_failing, figures, healthy, is_fresh, lines, mentions, metadata, shows,
};
use super::stand_in::{Answer, StandIn};
use super::{INTERVAL, RECOVERY, launch};
use crate::support::{Agent, DEADLINE};

/// Snapshots must show within this time that the engine does not answer.
const NOTICE: Duration = Duration::from_secs(10);
/// When the engine does not report that a container has ended, snapshots must show the end within this time.
const EXIT: Duration = Duration::from_secs(4);
/// A private engine has no bridge network.
const NO_NETWORK: &[&str] = &["--network", "none"];
/// A script that writes ten log lines a second.
const TALKS: &str = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done";

fn first_process(container: &Container<'_>) -> u32 {
    let pid = container.inspect()["State"]["Pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

fn end(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGKILL).expect("the process has ended");
}

/// The open files of an agent whose paths contain one of these texts.
fn open_files(agent: &Agent, of: &[&str]) -> Vec<PathBuf> {
    let folder = format!("/proc/{}/fd", agent.pid());
    let files = fs::read_dir(folder).unwrap();
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let is_its = |target: &PathBuf| {
        let target = target.to_string_lossy();
        of.iter().any(|part| target.contains(part))
    };
    targets.filter(is_its).collect()
}

/// Fails unless the container's figures and logs stay fresh. The log does not grow while the engine is silent, because the engine
/// writes the log file.
fn assert_stays_fresh(snapshots: &mut Snapshots, container: &str) {
    for snapshot in snapshots.take(6) {
        assert!(docker_is_failing(&snapshot), "{snapshot:#}");
        let health = &snapshot["sources"]["docker"];
        let error = health["error"].as_str().unwrap();
        assert!(error.contains("containers as listed at 20"), "{error}");
        for source in ["docker", "logs"] {
            assert!(is_fresh(&snapshot, source, INTERVAL), "{snapshot:#}");
        }
        assert_eq!(snapshot["sources"]["logs"]["status"], "ok");
        assert!(shows(&snapshot, container), "{snapshot:#}");
        let lines = lines(&snapshot, container).unwrap_or_default();
        assert!(!lines.is_empty(), "{snapshot:#}");
    }
}

#[test]
#[parallel]
fn figures_logs_and_exits_are_followed_while_the_engine_is_silent() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let run = |topic: &str| Container::run_on(private.engine(), topic, NO_NETWORK, TALKS);
    let [stays, ends, paused] = ["stays", "ends", "paused"].map(run);
    paused.docker("pause", &[]);
    let pid = first_process(&ends);
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &_| {
        [&stays, &ends, &paused]
            .iter()
            .all(|one| healthy(s) && shows(s, one.name()))
    };
    snapshots.until("the containers", RECOVERY, up);
    let its = [&*format!("/proc/{pid}/"), ends.short_id()];
    assert!(!open_files(&agent, &its).is_empty());

    let hang = private.freeze();
    let noticed = |s: &Value| {
        assert!(is_fresh(s, "docker", INTERVAL), "{s:#}");
        assert!(shows(s, stays.name()), "{s:#}");
        docker_is_failing(s)
    };
    snapshots.until("the engine's silence", NOTICE, noticed);
    assert_stays_fresh(&mut snapshots, stays.name());
    end(pid);
    let gone = |s: &Value| !mentions(s, ends.name());
    snapshots.until("the exit", EXIT, gone);
    let mut open = open_files(&agent, &its);
    // The log stays open for a minute, so that its last lines can be read after the container is removed.
    open.retain(|path| !path.to_string_lossy().ends_with("-json.log"));
    assert!(open.is_empty(), "{open:?}");
    assert_stays_fresh(&mut snapshots, stays.name());
    let snapshot = snapshots.next();
    assert!(
        gone(&snapshot) && shows(&snapshot, paused.name()),
        "{snapshot:#}"
    );

    drop(hang);
    let back = |s: &Value| {
        assert!(shows(s, stays.name()), "{s:#}");
        healthy(s) && gone(s)
    };
    snapshots.until("the engine to answer again", RECOVERY, back);
}

#[test]
#[parallel]
fn the_containers_of_a_killed_engine_are_still_measured() {
    let mut private = PrivateEngine::prepare();
    private.start_with_image();
    let options = [NO_NETWORK, &["--restart", "always"]].concat();
    let name = Container::run_on(private.engine(), "orphan", &options, TALKS).keep();
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let up = |s: &_| healthy(s) && shows(s, &name);
    snapshots.until("the container", RECOVERY, up);

    private.kill();
    snapshots.until("the engine's absence", NOTICE, docker_is_failing);
    assert_stays_fresh(&mut snapshots, &name);
    private.start();
    snapshots.until("the engine's return", RECOVERY, up);
}

#[test]
#[parallel]
fn a_restart_with_live_restore_hides_no_container() {
    let mut private = PrivateEngine::prepare().with("--live-restore");
    private.start_with_image();
    let name = Container::run_on(private.engine(), "restored", NO_NETWORK, TALKS).keep();
    let agent = launch().var("DOCKER_HOST", private.engine().host()).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the container", RECOVERY, |s| healthy(s) && shows(s, &name));
    let uptime = |s: &Value| figures(s, &name).unwrap()["uptime"].as_u64().unwrap();
    let mut before = 0;
    let mut stays = |s: &Value| {
        assert!(shows(s, &name), "{s:#}");
        assert!(is_fresh(s, "docker", INTERVAL), "{s:#}");
        assert!(uptime(s) >= before, "the container has restarted");
        before = uptime(s);
    };

    // Without live-restore, dockerd would stop its containers here.
    private.stop();
    snapshots.until("the engine's absence", NOTICE, |s| {
        stays(s);
        docker_is_failing(s)
    });
    snapshots.take(4).iter().for_each(&mut stays);
    private.start();
    snapshots.until("the engine's return", RECOVERY, |s| {
        stays(s);
        healthy(s)
    });
    snapshots.take(3).iter().for_each(&mut stays);
}

#[test]
#[parallel]
fn an_unanswered_inspection_does_not_hide_the_container() {
    let container = Container::run("inspected", &["--network", "none"], TALKS);
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let hangs = Arc::new(AtomicBool::new(false));
    let rule = {
        let hangs = Arc::clone(&hangs);
        let its = container.short_id().to_owned();
        move |path: &str| {
            let is_inspection = path.contains(&its) && path.contains("/json");
            if is_inspection && hangs.load(Ordering::SeqCst) {
                Answer::Silence
            } else {
                Answer::Engine
            }
        }
    };
    let _stand_in = StandIn::before(Path::new(LOCAL_SOCKET), &socket, rule);
    let host = format!("unix://{}", socket.display());
    let agent = launch().var("DOCKER_HOST", host).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    snapshots.until("the container", DEADLINE, |s| healthy(s) && shows(s, name));

    hangs.store(true, Ordering::SeqCst);
    container.docker("update", &["--cpu-shares", "512"]);
    let reports = |s: &Value| {
        assert!(shows(s, name) && is_fresh(s, "docker", INTERVAL), "{s:#}");
        let error = s["sources"]["docker"]["error"].as_str();
        error.is_some_and(|error| error.contains("inspect"))
    };
    snapshots.until("the inspection without an answer", NOTICE, reports);
    for snapshot in snapshots.take(4) {
        assert!(reports(&snapshot), "{snapshot:#}");
    }
    hangs.store(false, Ordering::SeqCst);
    let back = |s: &Value| {
        assert!(shows(s, name), "{s:#}");
        healthy(s)
    };
    snapshots.until("an answered inspection", Duration::from_secs(30), back);
}

/// The path of a file in a process's control group. With cgroup v1, this is the control group of the memory controller.
fn control_file(pid: u32, file: &str) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |line: &str| line.splitn(3, ':').nth(2).unwrap().to_owned();
    let v1 = groups.lines().find(|line| line.contains(":memory:"));
    let (mount, group) = match v1 {
        Some(line) => ("/sys/fs/cgroup/memory", path(line)),
        None => ("/sys/fs/cgroup", path(groups.lines().last().unwrap())),
    };
    Path::new(mount).join(&group[1..]).join(file)
}

#[test]
#[parallel]
fn a_kernel_file_that_hangs_delays_neither_logs_nor_events() {
    let hung = Container::run("hung-file", &["--network", "none"], "sleep 1000");
    let talks = Container::run("talks", &["--network", "none"], TALKS);
    // Mounts a FIFO over a kernel file, for the agent only. Opening the FIFO blocks.
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let file = control_file(first_process(&hung), "memory.stat");
    let mount = format!(
        "mount --bind {} {} && exec \"$@\"",
        fifo.display(),
        file.display()
    );
    let private = ["unshare", "--mount", "--propagation", "private"];
    let launcher = [&private[..], &["sh", "-c", &mount, "sh"]].concat();
    let agent = launch().launched_by(launcher).start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let reports = |s: &Value| {
        let error = s["sources"]["docker"]["error"].as_str();
        error.is_some_and(|error| error.contains("takes more than"))
    };
    snapshots.until("the file that hangs", NOTICE, reports);

    let comes = Container::run("comes", &["--network", "none"], "echo here; sleep 1000");
    let mut events = Vec::new();
    let its_start = |snapshot: &Value| {
        let all = snapshot["events"].as_array().unwrap();
        events.extend(all.iter().cloned());
        events
            .iter()
            .any(|one| one["container"] == comes.name() && one["action"] == "start")
    };
    snapshots.until("the start of the new container", INTERVAL * 4, its_start);
    let its_line =
        |s: &Value| metadata(s, comes.name()).is_some() && lines(s, comes.name()).is_some();
    snapshots.until(
        "the metadata and the log of the new container",
        INTERVAL * 4,
        its_line,
    );
    let mut newest = Vec::new();
    for snapshot in snapshots.take(4) {
        assert!(is_fresh(&snapshot, "logs", INTERVAL), "{snapshot:#}");
        assert_eq!(
            figures(&snapshot, hung.name()),
            None,
            "a hung container has no figures"
        );
        newest.push(lines(&snapshot, talks.name()).and_then(|mut lines| lines.pop()));
    }
    assert!(newest.last() > newest.first(), "{newest:?}");
}
