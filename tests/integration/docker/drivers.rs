//! Tests of the logging drivers `local` and `journald`, of drivers that send logs elsewhere, and of logs that only the engine can read.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use serial_test::parallel;

use super::container::Container;
use super::launch;
use super::live::assert_short_containers_deliver_all;
use super::news::writer;
use super::odd_logs::Watched;
use super::ranges::{assert_pages_have_all_lines, assert_pages_of_agent_have_all_lines};
use super::resume::{Shipper, newest_line};
use super::snapshots::{Snapshots, lines};
use crate::support::{Agent, DEADLINE, wait};

/// Small files, which the driver compresses when it rotates them.
const ROTATED: [&str; 6] = [
    "--log-driver",
    "local",
    "--log-opt",
    "max-size=200k",
    "--log-opt",
    "max-file=5",
];

/// Reads a log while the agent is killed and started again three times. Then stops the container and reads up to its newest line.
/// Fails if a line is missing or repeated. `running` is the first agent, and `start` starts the others.
fn read_through_restarts(
    shipper: &mut Shipper,
    container: &Container<'_>,
    mut running: Agent,
    start: impl Fn() -> Agent,
) {
    for _ in 0..3 {
        shipper.read_for(&running, Duration::from_secs(3));
        running.signal(Signal::SIGKILL);
        running.exit(DEADLINE);
        running = start();
    }
    container.docker("kill", &["--signal", "STOP"]);
    let newest = newest_line(container);
    shipper.read_until_line(&running, newest);
    shipper.check();
}

#[test]
#[parallel]
fn a_client_of_the_driver_local_continues_after_a_restart_of_the_agent() {
    let container = writer("drivers-local", &ROTATED, 20, "0.2");
    container.wait_for_line_with("line 1 ");
    let watched = Watched::with_inspections(Vec::new());
    let start = || {
        let variables = [("LOG_LINES", "5"), ("LOG_INTERVAL", "500ms")];
        watched.launch().vars(&variables).start()
    };
    for mut shipper in [
        Shipper::new(container.name()),
        Shipper::live(container.name()),
    ] {
        read_through_restarts(&mut shipper, &container, start(), start);
        container.docker("kill", &["--signal", "CONT"]);
        let count = shipper.lines.len();
        assert!(count > 1500, "only {count} lines");
    }
    assert_eq!(watched.asked(&container), 0, "the engine was asked");
}

#[test]
#[parallel]
fn older_lines_of_the_driver_local_can_be_read_in_pages() {
    assert_pages_have_all_lines("drivers-pages", &["--log-driver", "local"]);
}

#[test]
#[parallel]
fn a_container_of_300_ms_with_the_driver_local_delivers_its_lines() {
    let driver = ["--log-driver", "local"];
    assert_short_containers_deliver_all(&[&[&driver[..], &["--rm"]].concat(), &driver]);
}

#[test]
#[parallel]
fn the_log_of_a_driver_that_sends_it_elsewhere_is_read_from_the_engines_cache() {
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        "syslog-address=udp://127.0.0.1:9",
    ];
    let script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo end; sleep 1000";
    let container = Container::run("drivers-syslog", &options, script);
    container.wait_for_line("end");
    let watched = Watched::with_inspections(Vec::new());
    let agent = watched.launch().start();
    let mut snapshots = Snapshots::of(&agent, Duration::from_secs(1));
    let name = container.name();
    let is_whole = |shown: &Vec<String>| shown.len() == 3;
    let snapshot = snapshots.until("the log lines", DEADLINE, |snapshot| {
        lines(snapshot, name).as_ref().is_some_and(is_whole)
    });
    assert_eq!(lines(&snapshot, name).unwrap(), container.logs());
    assert_eq!(watched.asked(&container), 0, "the engine was asked");
}

#[test]
#[parallel]
fn a_log_that_only_the_engine_can_read_loses_no_line() {
    let rotation = ["--log-opt", "max-size=500k", "--log-opt", "max-file=5"];
    let container = writer("drivers-calls", &rotation, 20, "0.2");
    container.wait_for_line_with("line 1 ");
    let start = || {
        launch()
            .vars(&[("LOG_LINES", "5"), ("LOG_INTERVAL", "500ms")])
            .vars(&[("CONTAINER_STATS", "engine"), ("PUBLISH_INTERVAL", "500ms")])
            .start()
    };
    let mut shipper = Shipper::new(container.name());
    read_through_restarts(&mut shipper, &container, start(), start);
    let count = shipper.lines.len();
    assert!(count > 1500, "only {count} lines");
}

#[test]
#[parallel]
fn a_silent_container_that_only_the_engine_can_read_loses_none_of_its_first_lines() {
    let agent = launch()
        .vars(&[("LOG_LINES", "5"), ("CONTAINER_STATS", "engine")])
        .start();
    let script = "while [ ! -e /go ]; do sleep 0.1; done
        for i in $(seq 1 1000); do echo line $i; done; sleep 1000";
    for options in [&[][..], &["--tty"]] {
        let container = Container::run("drivers-silent", options, script);
        let mut shipper = Shipper::new(container.name());
        shipper.read_for(&agent, Duration::from_secs(3));
        assert!(shipper.lines.is_empty());
        container.exec("touch /go");
        shipper.read_until_line(&agent, 1000);
        shipper.check();
        assert_eq!(shipper.lines.len(), 1000, "{options:?}");
    }
}

#[test]
#[parallel]
fn older_lines_of_a_log_that_only_the_engine_can_read_come_in_pages() {
    let agent = launch().var("CONTAINER_STATS", "engine");
    assert_pages_of_agent_have_all_lines(agent, "drivers-called-pages", &[], 2000);
}

/// A systemd-journald, unless the host runs one. Ends on drop.
pub(super) struct Journald(Option<Child>);

impl Journald {
    pub(super) fn start() -> Self {
        let socket = Path::new("/run/systemd/journal/socket");
        let accepts = || UnixDatagram::unbound().unwrap().connect(socket).is_ok();
        if accepts() {
            return Self(None);
        }
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _ = fs::remove_file(socket);
        let child = Command::new("/lib/systemd/systemd-journald")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let journald = Self(Some(child));
        wait::until("the journal", DEADLINE, || accepts().then_some(()));
        journald
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
#[parallel]
fn the_log_of_the_driver_journald_is_read_from_the_journal() {
    let _journald = Journald::start();
    let driver = ["--log-driver", "journald"];
    let watched = Watched::with_inspections(Vec::new());
    let start = || {
        let variables = [("LOG_LINES", "5"), ("LOG_INTERVAL", "500ms")];
        watched.launch().vars(&variables).start()
    };
    // Fragments of a long line, both streams, and bytes that are not UTF-8.
    let script =
        "echo one; sleep 0.1; echo two >&2; sleep 0.1; head -c 40000 /dev/zero | tr '\\0' x; echo
        printf 'a\\377b\\n'; echo; sleep 1000";
    let odd = Container::run("drivers-journal-odd", &driver, script);
    let terminal = [&driver[..], &["--tty"]].concat();
    let terminal = Container::run(
        "drivers-journal-tty",
        &terminal,
        "echo one; echo two; sleep 1000",
    );
    // By default, journald drops messages of a service that writes more than 10,000 in 30 s.
    let container = writer("drivers-journal", &driver, 20, "0.5");
    container.wait_for_line_with("line 1 ");
    let running = start();
    let mut snapshots = Snapshots::of(&running, Duration::from_millis(200));
    let is_whole = |snapshot: &Value, of: &Container<'_>, count| {
        lines(snapshot, of.name()).is_some_and(|lines| lines.len() == count)
    };
    let snapshot = snapshots.until("the log lines", DEADLINE, |snapshot| {
        is_whole(snapshot, &odd, 5) && is_whole(snapshot, &terminal, 2)
    });
    let shown = lines(&snapshot, odd.name()).unwrap();
    let texts: Vec<_> = shown.iter().map(|line| &line[31..]).collect();
    let long = format!("{} … [line cut at 16 KiB]", "x".repeat(16 * 1024));
    // `assert_eq!` would print a very long text.
    assert!(texts[2] == long, "the line has {} bytes", texts[2].len());
    let short = [texts[0], texts[1], texts[3], texts[4]];
    assert_eq!(short, ["one", "two", "a\u{fffd}b", ""]);
    assert_eq!(shown[..2], odd.logs()[..2]);
    assert_eq!(lines(&snapshot, terminal.name()).unwrap(), terminal.logs());

    let mut shipper = Shipper::new(container.name());
    read_through_restarts(&mut shipper, &container, running, start);
    let count = shipper.lines.len();
    assert!(count > 600, "only {count} lines");
    for container in [&odd, &terminal, &container] {
        assert_eq!(watched.asked(container), 0, "the engine was asked");
    }
}
