//! Tests an engine behind TCP, as behind a socket proxy. The agent shows the same figures as with the local socket.

use serde_json::Value;
use serial_test::parallel;

use super::container::Container;
use super::snapshots::{Snapshots, figure, healthy, lines, metadata, shows};
use super::stand_in::tcp_pipe_to_engine;
use super::{INTERVAL, assert_close, launch};
use crate::support::DEADLINE;

#[test]
#[parallel]
fn an_engine_behind_tcp_gives_the_same_snapshot_as_the_local_socket() {
    let options = ["--memory", "64m", "--tmpfs", "/hold:size=48m"];
    let script = "dd if=/dev/zero of=/hold/40m bs=1M count=40 2>/dev/null; echo held; sleep 1000";
    let plain = Container::run("tcp", &options, script);
    let terminal = Container::run(
        "tcp-tty",
        &["--tty"],
        "echo 'äöü'; echo; echo end; sleep 1000",
    );
    plain.wait_for_line("held");
    terminal.wait_for_line("end");

    let host = format!("tcp://127.0.0.1:{}", tcp_pipe_to_engine());
    let remote = launch().var("DOCKER_HOST", host).start();
    let local = launch().start();
    let both = |s: &Value| healthy(s) && shows(s, plain.name()) && shows(s, terminal.name());
    let [remote, local] = [remote, local].map(|agent| {
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        snapshots.until("both containers", DEADLINE, both)
    });

    for container in [&plain, &terminal] {
        let name = container.name();
        assert_eq!(lines(&remote, name).unwrap(), container.logs());
        assert_eq!(lines(&remote, name), lines(&local, name));
        let of = |snapshot| {
            let mut meta = metadata(snapshot, name).unwrap().clone();
            // Only this field changes with time.
            meta["status"].take();
            meta
        };
        assert_eq!(of(&remote), of(&local));
    }
    let usage = |snapshot| figure(snapshot, plain.name(), "memory_usage");
    assert_close("memory_usage", usage(&remote), usage(&local));
}
