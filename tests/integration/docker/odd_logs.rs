//! Tests of logs on odd hosts: log paths that lead to other files, very long log lines, and changes between the two ways to read
//! a log.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::container::Container;
use super::launch;
use super::news::{Account, NEW_LOGS, Reader, writer};
use super::snapshots::{Snapshots, lines};
use super::stand_in::{Answer, StandIn};
use crate::support::{Agent, DEADLINE, Launch, wait};

/// The interval at which the agents of these tests read logs and publish.
const OFTEN: Duration = Duration::from_millis(200);

/// A text that no snapshot can contain.
const SECRET: &str = "the secret of another file";

/// A fake engine in front of the real one. The fake engine records the requests for logs, and can replace inspections of
/// containers.
pub(super) struct Watched {
    _engine: StandIn,
    folder: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    /// Starts the fake engine. For these container ids, `inspections` replaces the inspections of the real engine.
    pub(super) fn with_inspections(inspections: Vec<(String, Arc<str>)>) -> Self {
        let folder = TempDir::new().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let engine = StandIn::at(&folder.path().join("docker.sock"), move |path| {
            if path.contains("/logs?") {
                noted.lock().unwrap().push(path.to_owned());
            }
            let replaced = |(id, replaced): &(String, Arc<str>)| {
                path.contains(&format!("/{id}/json"))
                    .then(|| replaced.clone())
            };
            inspections
                .iter()
                .find_map(replaced)
                .map_or(Answer::Engine, Answer::Body)
        });
        Self {
            _engine: engine,
            folder,
            asked,
        }
    }

    pub(super) fn launch(&self) -> Launch {
        let socket = self.folder.path().join("docker.sock");
        launch()
            .vars(&[("LOG_INTERVAL", "200ms"), ("PUBLISH_INTERVAL", "200ms")])
            .var("DOCKER_HOST", format!("unix://{}", socket.display()))
    }

    /// The number of requests for a container's log.
    pub(super) fn asked(&self, container: &Container<'_>) -> usize {
        let id = id_of(container);
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|path| path.contains(&id)).count()
    }

    /// The number of log lines (`tail`) in each request for a container's log.
    fn tails(&self, container: &Container<'_>) -> Vec<usize> {
        let id = id_of(container);
        let asked = self.asked.lock().unwrap();
        let of_it = asked.iter().filter(|path| path.contains(&id));
        let tail = |path: &String| {
            // A request for the whole log has no tail.
            let (_, tail) = path.split_once("tail=")?;
            let tail = tail.split('&').next().unwrap();
            Some(tail.parse().expect("expected a number"))
        };
        of_it.filter_map(tail).collect()
    }
}

fn id_of(container: &Container<'_>) -> String {
    container.inspect()["Id"].as_str().unwrap().to_owned()
}

/// The file that holds the container's log.
fn file_of(container: &Container<'_>) -> PathBuf {
    container.inspect()["LogPath"].as_str().unwrap().into()
}

/// Waits for a snapshot with exactly these log lines of a container.
fn wait_for_lines(snapshots: &mut Snapshots, name: &str, expected: &[String]) -> Value {
    snapshots.until("the lines of the container", DEADLINE, |snapshot| {
        lines(snapshot, name).is_some_and(|lines| lines == expected)
    })
}

#[test]
#[parallel]
fn a_log_path_that_leads_elsewhere_is_not_read_and_delays_no_other_log() {
    let root = TempDir::new().unwrap();
    let secret = root.path().join("secret");
    fs::write(&secret, json_line(SECRET)).unwrap();
    type Make<'m> = &'m dyn Fn(&Path);
    let kinds: [(&str, Make<'_>); 6] = [
        ("fifo", &|path| make_fifo(path)),
        ("link", &|path| symlink(&secret, path).unwrap()),
        ("zero", &|path| symlink("/dev/zero", path).unwrap()),
        ("folder", &|path| fs::create_dir(path).unwrap()),
        ("hard", &|path| fs::hard_link(&secret, path).unwrap()),
        ("swapped", &|path| {
            fs::write(path, json_line("as it was")).unwrap();
        }),
    ];
    let script = |kind: &str| format!("echo the {kind}; sleep 1000");
    let containers = kinds.map(|(kind, _)| Container::run("odd-log", &[], &script(kind)));
    let mut inspections = Vec::new();
    let mut paths = Vec::new();
    for (container, (kind, make)) in containers.iter().zip(kinds) {
        container.wait_for_line(kind);
        let id = id_of(container);
        let path = root.path().join(format!("{id}/{id}-json.log"));
        fs::create_dir(path.parent().unwrap()).unwrap();
        make(&path);
        inspections.push((id, at_path(container, &path)));
        paths.push(path);
    }
    // A path to another container's file, and a path to a file of no container.
    for (kind, path) in [("foreign", &paths[5]), ("none", &secret)] {
        let container = Container::run("odd-log", &[], &script(kind));
        container.wait_for_line(kind);
        inspections.push((id_of(&container), at_path(&container, path)));
        assert_shown_by_the_engine(&inspections, &container);
    }
    let other = Container::run(
        "odd-log",
        &[],
        "i=0; while :; do i=$((i + 1)); echo line $i; sleep 0.1; done",
    );
    let watched = Watched::with_inspections(inspections);
    let agent = watched.launch().start();
    let mut snapshots = Snapshots::of(&agent, OFTEN);
    for container in &containers[..5] {
        let snapshot = wait_for_lines(&mut snapshots, container.name(), &container.logs());
        assert!(
            !snapshot["logs"].to_string().contains(SECRET),
            "{snapshot:#}"
        );
    }
    let swapped = containers[5].name();
    snapshots.until("the log lines of the first file", DEADLINE, |snapshot| {
        lines(snapshot, swapped).is_some_and(|lines| lines[0].ends_with("as it was"))
    });
    fs::remove_file(&paths[5]).unwrap();
    make_fifo(&paths[5]);
    wait_for_lines(&mut snapshots, swapped, &containers[5].logs());
    // The log lines of the other container arrive all the time.
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, other.name());
    let end = Instant::now() + DEADLINE;
    while reader.account.lines < 20 {
        assert!(Instant::now() < end, "{} lines", reader.account.lines);
        reader.read();
    }
    assert_eq!(reader.account.dropped, 0);
}

/// Starts an agent with a fake engine that has these inspections. Fails unless the agent shows the log that the real engine has.
fn assert_shown_by_the_engine(inspections: &[(String, Arc<str>)], container: &Container<'_>) {
    let watched = Watched::with_inspections(inspections.to_vec());
    let agent = watched.launch().start();
    let mut snapshots = Snapshots::of(&agent, OFTEN);
    wait_for_lines(&mut snapshots, container.name(), &container.logs());
}

fn json_line(text: &str) -> String {
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.5Z\"}}\n")
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The engine's inspection of a container, with another path of the log file.
fn at_path(container: &Container<'_>, path: &Path) -> Arc<str> {
    let mut inspection = container.inspect();
    inspection["LogPath"] = path.to_str().unwrap().into();
    inspection.to_string().into()
}

/// Shell function that waits until a file exists.
const WAIT: &str = "wait_for() { while [ ! -e /$1 ]; do sleep 0.1; done; }; ";

#[test]
#[parallel]
fn the_first_log_lines_of_a_silent_container_come_through_the_api() {
    let script = format!(
        "{WAIT} wait_for first; for i in 1 2 3; do echo line $i; done
         wait_for second; for i in 4 5 6; do echo line $i; done; sleep 1000"
    );
    for driver in ["json-file", "local"] {
        let watched = Watched::with_inspections(Vec::new());
        let agent = watched.launch().var("CONTAINER_STATS", "engine").start();
        let mut reader = Reader::new(agent.connect(), NEW_LOGS, "");
        reader.read();
        let container = Container::run("odd-silent", &["--log-driver", driver], &script);
        container.name().clone_into(&mut reader.account.name);
        let end = Instant::now() + DEADLINE;
        while watched.tails(&container).len() < 3 {
            assert!(Instant::now() < end, "the agent does not request the log");
            reader.read();
        }
        container.exec("touch /first");
        while reader.account.last != Some(3) {
            assert!(Instant::now() < end, "{driver}: {:?}", reader.account.last);
            reader.read();
        }
        container.exec("touch /second");
        while reader.account.last != Some(6) {
            assert!(Instant::now() < end, "{driver}: {:?}", reader.account.last);
            reader.read();
        }
        assert_eq!((reader.account.lines, reader.account.dropped), (6, 0));
    }
}

#[test]
#[parallel]
fn a_log_line_of_60_mib_is_read_once_and_truncated() {
    let script = format!(
        "{WAIT} head -c 60m /dev/zero | tr '\\0' x; touch /written; wait_for go; echo; echo line 1; echo line 2; sleep 1000"
    );
    for way in ["engine", "auto"] {
        let watched = Watched::with_inspections(Vec::new());
        let variables = [("CONTAINER_STATS", way), ("LOG_LINES", "400")];
        let agent = watched.launch().vars(&variables).start();
        let container = Container::run("odd-long", &[], &script);
        let mut other = Reader::new(agent.connect(), NEW_LOGS, container.name());
        other.account.name.clear();
        let beside = writer("odd-beside", &[], 10, "0.5");
        beside.name().clone_into(&mut other.account.name);
        let mut snapshots = Snapshots::of(&agent, OFTEN);
        let is_cut = |line: &String| line.ends_with("[line cut at 16 KiB]");
        snapshots.until("the truncated log line", DEADLINE, |snapshot| {
            lines(snapshot, container.name())
                .is_some_and(|lines| lines.len() == 1 && is_cut(&lines[0]))
        });
        wait::until(
            "the container to write the whole log line",
            DEADLINE,
            || {
                let written = container.exec("[ ! -e /written ] || echo yes");
                (written == "yes").then_some(())
            },
        );
        // From now on the agent requests only a few log lines, or no log lines.
        let before = watched.tails(&container).len();
        let mut rounds = 0;
        snapshots.until(
            "fifteen snapshots with the same log line",
            DEADLINE,
            |snapshot| {
                let lines = lines(snapshot, container.name())
                    .expect("the snapshot has no log lines of the container");
                assert!(
                    lines.len() == 1 && is_cut(&lines[0]),
                    "{} lines",
                    lines.len()
                );
                assert_eq!(snapshot["sources"]["logs"]["status"], "ok");
                rounds += 1;
                rounds >= 15 && (way == "auto" || watched.tails(&container).len() > before + 8)
            },
        );
        let asked = watched.tails(&container);
        let late = &asked[(before + 3).min(asked.len())..];
        assert!(late.iter().all(|tail| *tail <= 4), "{asked:?}");
        // When the agent finds more new messages than it requested, it requests all of them, once. It does so again for a client.
        let whole = watched.asked(&container) - asked.len();
        assert!(whole <= 2, "{whole} requests for the whole log");
        let mut client = agent.connect();
        client.send(format!("{} {NEW_LOGS}\n", crate::support::KEY));
        client.line().expect("expected a snapshot with the tail");
        container.exec("touch /go");
        let mut new: Vec<String> = Vec::new();
        let end = Instant::now() + DEADLINE;
        while new.len() < 2 {
            assert!(Instant::now() < end, "{new:?}");
            let line = client.line().expect("no snapshot: the stream has ended");
            let snapshot: Value = serde_json::from_str(&line).unwrap();
            assert!(
                snapshot["logs_dropped"][container.name()].is_null(),
                "{snapshot}"
            );
            new.extend(lines(&snapshot, container.name()).unwrap_or_default());
        }
        let texts: Vec<_> = new
            .iter()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(texts, ["line 1", "line 2"]);
        while other.account.lines < 100 {
            assert!(Instant::now() < end, "{} lines", other.account.lines);
            other.read();
        }
        assert_eq!(other.account.dropped, 0);
    }
}

#[test]
#[parallel]
fn no_log_line_is_repeated_when_the_way_to_read_a_log_changes() {
    let container = writer("odd-ways", &[], 10, "0.4");
    container.wait_for_line_with("line 1 ");
    let watched = Watched::with_inspections(Vec::new());
    let agent = watched.launch().var("LOG_LINES", "400").start();
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    let mut read_until = |what: &str, condition: &dyn Fn() -> bool| {
        let begin = reader.account.lines;
        let end = Instant::now() + DEADLINE;
        while !condition() || reader.account.lines < begin + 200 {
            assert!(Instant::now() < end, "{what}");
            reader.read();
        }
    };
    let file = file_of(&container);
    let other_name = file.with_extension("other");
    for _ in 0..2 {
        let before = watched.tails(&container).len();
        read_until("log lines from the file", &|| true);
        assert_eq!(
            watched.tails(&container).len(),
            before,
            "the agent reads the file and must not request the log"
        );
        // The agent does not read a file that has a second name.
        fs::hard_link(&file, &other_name).unwrap();
        read_until("log lines through the engine's API", &|| {
            watched.tails(&container).len() > before + 2
        });
        fs::remove_file(&other_name).unwrap();
        let mut last = 0;
        wait::until("the agent to read the file again", DEADLINE, || {
            let now = watched.tails(&container).len();
            let same = std::mem::replace(&mut last, now) == now;
            std::thread::sleep(OFTEN * 4);
            same.then_some(())
        });
    }
    read_until("log lines", &|| true);
    assert_eq!((reader.account.skipped, reader.account.dropped), (0, 0));
}

#[test]
#[parallel]
fn no_log_line_is_repeated_or_lost_without_file_descriptors() {
    let rotation = ["--log-opt", "max-size=20k", "--log-opt", "max-file=20"];
    // After a rotation, the agent must open another file.
    let container = writer("odd-descriptors", &rotation, 10, "0.4");
    container.wait_for_line_with("line 1 ");
    let watched = Watched::with_inspections(Vec::new());
    let agent = watched.launch().var("LOG_LINES", "1000").start();
    let mut reader = Reader::new(agent.connect(), NEW_LOGS, container.name());
    let end = Instant::now() + DEADLINE * 2;
    for _ in 0..2 {
        let begin = reader.account.lines;
        while reader.account.lines < begin + 200 {
            assert!(Instant::now() < end, "{} lines", reader.account.lines);
            reader.read();
        }
        let usual = set_descriptors(&agent, "3");
        let mut failing = 0;
        while failing < 4 {
            assert!(Instant::now() < end, "the source does not fail");
            let snapshot: Value = serde_json::from_str(&reader.read()).unwrap();
            failing += usize::from(snapshot["sources"]["logs"]["status"] == "failing");
        }
        set_descriptors(&agent, &usual);
    }
    let begin = reader.account.lines;
    while reader.account.lines < begin + 200 {
        assert!(Instant::now() < end, "{} lines", reader.account.lines);
        reader.read();
    }
    assert_eq!((reader.account.skipped, reader.account.dropped), (0, 0));
}

/// Sets the soft limit of file descriptors of a running agent. Returns the previous soft limit.
fn set_descriptors(agent: &Agent, soft: &str) -> String {
    let prlimit = |arguments: &[&str]| {
        let pid = agent.pid().to_string();
        let done = Command::new("prlimit")
            .args(["--pid", &pid])
            .args(arguments)
            .output();
        let done = done.expect("cannot start prlimit (Debian package util-linux)");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    let before = prlimit(&["--nofile", "--noheadings", "--raw", "--output", "SOFT"]);
    prlimit(&[&format!("--nofile={soft}:")]);
    before
}

/// Shell functions: `line` writes the next numbered line, `lines COUNT` several, and `long BYTES` one with this much more text.
const NUMBERED: &str = "line() { i=$((i + 1)); echo \"line $i\"; }
    long() { i=$((i + 1)); printf \"line $i \"; head -c $1 /dev/zero | tr '\\0' x; echo; }
    lines() { for _ in $(seq $1); do line; done; }; i=0";

/// Bursts of 202 lines, which are more than the agent stores. The names say where the long lines are.
const BURSTS: [(&str, &str); 6] = [
    ("first", "long 40000; lines 201"),
    ("middle", "lines 101; long 40000; lines 100"),
    ("late", "lines 195; long 40000; lines 6"),
    ("last", "lines 201; long 40000"),
    (
        "several",
        "lines 178; long 40000; long 100000; lines 10; long 200000; lines 9; long 500000; lines 1",
    ),
    // With `line 191 ` before it, the second text has exactly 16 KiB, and the fourth has 32 KiB.
    (
        "exact",
        "lines 189; long 16374; long 16375; lines 2; long 32759; lines 2; long 32760; lines 5",
    ),
];

/// Fails unless each line of each burst arrives at a client, from containers with these options. Each container first writes the
/// lines of the script `first`, if there is one.
fn assert_bursts_arrive(variables: &[(&str, &str)], options: &[&str], first: Option<&str>) {
    let containers = BURSTS.map(|(place, burst)| {
        let first = first.unwrap_or(":");
        let script = format!("{WAIT} {NUMBERED}; {first}; wait_for go; {burst}; sleep 1000");
        Container::run(&format!("odd-burst-{place}"), options, &script)
    });
    let watched = Watched::with_inspections(Vec::new());
    let agent = watched
        .launch()
        .vars(&[("CONTAINER_STATS", "engine"), ("LOG_LINES", "20")])
        .vars(variables)
        .start();
    let (before, count) = match first {
        Some(_) => (Some(1), 203),
        None => (None, 202),
    };
    for container in &containers {
        let name = container.name();
        let mut reader = Reader::new(agent.connect(), NEW_LOGS, name);
        reader.read();
        let end = Instant::now() + DEADLINE;
        while watched.asked(container) < 3 || reader.account.last != before {
            assert!(Instant::now() < end, "{name}: the log is not read");
            reader.read();
        }
        container.exec("touch /go");
        while reader.account.last != Some(count) {
            let Account { lines, last, .. } = &reader.account;
            assert!(Instant::now() < end, "{name}: {lines} lines up to {last:?}");
            reader.read();
        }
        let Account { lines, dropped, .. } = reader.account;
        assert_eq!((lines, dropped), (count, 0), "{name}");
    }
}

#[test]
#[parallel]
fn a_burst_with_long_lines_arrives_whole_by_calls_to_the_engine() {
    for options in [&["--tty"][..], &[]] {
        for first in [Some("line"), None] {
            assert_bursts_arrive(&[], options, first);
        }
    }
}

#[test]
#[parallel]
fn a_burst_with_long_lines_arrives_whole_with_the_driver_local() {
    // Not with a TTY: for this driver, Docker 20.10 leaves out the line feed of a long line, so the next line is a part of it.
    assert_bursts_arrive(&[], &["--log-driver", "local"], Some("line"));
}

#[test]
#[parallel]
fn a_burst_with_long_lines_arrives_whole_with_redaction() {
    let redaction = [("LOG_REDACT", "password=\\S+")];
    assert_bursts_arrive(&redaction, &["--tty"], Some("line"));
}
