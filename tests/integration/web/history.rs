//! The history of the page on disk, with real agents.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::Value;
use serial_test::parallel;

use super::browser::PageServer;
use crate::support::{Agent, DEADLINE, Launch, Namespace, wait};

const FAST: [(&str, &str); 3] = [
    ("PUBLISH_INTERVAL", "1s"),
    ("SYSTEM_INTERVAL", "1s"),
    // Only the server's own history counts.
    ("HISTORY", "0"),
];

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn start(agents: &[&Agent], folder: &Path) -> PageServer {
    let hosts: Vec<_> = agents.iter().map(|one| one.address().to_string()).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    PageServer::start(&hosts, &[("WEB_HISTORY_FOLDER", folder.to_str().unwrap())])
}

/// Returns the times of the figures of the CPU since `from`, each with whether there is a figure.
fn times(server: &PageServer, agent: &Agent, from: i64) -> Vec<(i64, bool)> {
    let path = format!(
        "/api/v1/hosts/{}/history?series=cpu&points=5000&from={from}&to={}",
        agent.address(),
        now()
    );
    let answer = server.json(&path);
    let times = answer["times"].as_array().unwrap().iter();
    let figures = answer["series"]["cpu"].as_array().unwrap().iter();
    times
        .zip(figures)
        .map(|(at, figure)| (at.as_i64().unwrap(), figure.is_number()))
        .collect()
}

fn known(server: &PageServer, agent: &Agent, from: i64) -> Vec<i64> {
    let all = times(server, agent, from).into_iter();
    all.filter(|(_, is_known)| *is_known)
        .map(|(at, _)| at)
        .collect()
}

#[test]
#[parallel]
fn a_server_that_is_killed_20_times_loses_at_most_the_last_second() {
    let agents: Vec<Agent> = (0..3).map(|_| Agent::start(&FAST)).collect();
    let all: Vec<&Agent> = agents.iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let begin = now() / 1000 * 1000;
    let mut before: Vec<Vec<i64>> = vec![Vec::new(); agents.len()];
    for round in 0..20_u64 {
        let mut server = start(&all, folder.path());
        wait::until("a new sample of each host", DEADLINE, || {
            let grows = |(agent, before): (&Agent, &Vec<i64>)| {
                known(&server, agent, begin).last() > before.last()
            };
            agents.iter().zip(&before).all(grows).then_some(())
        });
        // Kills at another moment between two writes in each round.
        sleep(Duration::from_millis(100 * (round % 11)));
        for (agent, before) in agents.iter().zip(&mut before) {
            let shown = known(&server, agent, begin);
            let lost: Vec<_> = before.iter().filter(|at| !shown.contains(at)).collect();
            assert!(
                lost.is_empty(),
                "round {round}: {lost:?} of {before:?} are missing: {shown:?}"
            );
            *before = shown;
        }
        let killed = now();
        server.process.signal(Signal::SIGKILL);
        server.process.exit(DEADLINE);
        // A sample waits for at most a second until it is written. On a busy machine the thread can be late.
        for before in &mut before {
            before.retain(|at| *at < killed - 2500);
        }
    }
    let store = Connection::open(folder.path().join("history.db")).unwrap();
    let check: String = store
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

#[test]
#[parallel]
fn after_an_outage_of_the_server_an_agents_history_fills_the_gap() {
    let fast = [FAST[0], FAST[1]];
    let agent = Agent::start(&fast);
    let folder = tempfile::tempdir().unwrap();
    let begin = now();
    let server = start(&[&agent], folder.path());
    wait::until("three samples", DEADLINE, || {
        (known(&server, &agent, begin).len() >= 3).then_some(())
    });
    drop(server);
    let down = now();
    sleep(Duration::from_secs(8));
    let up = now();
    let server = start(&[&agent], folder.path());
    let shown = wait::until("samples after the outage", DEADLINE, || {
        let shown = times(&server, &agent, begin);
        let after = shown.iter().filter(|(at, _)| *at > up).count();
        (after >= 2).then_some(shown)
    });
    let inside = shown
        .iter()
        .filter(|(at, is_known)| *is_known && (down..up).contains(at));
    assert!(inside.count() >= 5, "{shown:?}");
    assert!(
        shown.iter().all(|(_, is_known)| *is_known),
        "there is a gap: {shown:?}"
    );
    // What the server had before is there once.
    let mut steps = shown.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(steps.all(|step| step >= 900), "{shown:?}");
}

fn history_error(server: &PageServer) -> Value {
    server.json("/api/v1/hosts")["history_error"].clone()
}

#[test]
#[parallel]
fn while_the_disk_is_full_the_page_says_so_and_shows_live_figures() {
    let agent = Agent::start(&FAST);
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("disk");
    fs::create_dir(&point).unwrap();
    let script = format!("mount -t tmpfs -o size=2m none '{}'", point.display());
    let namespace = Namespace::start(&["mount"], &script);
    let sh = |command: &str| {
        let enter = namespace.enter();
        let status = std::process::Command::new(&enter[0])
            .args(&enter[1..])
            .args(["sh", "-c", command])
            .current_dir("/")
            .status()
            .unwrap();
        assert!(status.success(), "{command}");
    };
    let launch = Launch::new()
        .launched_by(namespace.enter())
        .args(["web", &agent.address().to_string()])
        .var("WEB_HISTORY_FOLDER", &point);
    let begin = now();
    let server = PageServer::launch(launch.clone());
    wait::until("a sample", DEADLINE, || {
        (!known(&server, &agent, begin).is_empty()).then_some(())
    });
    assert_eq!(history_error(&server), Value::Null);
    // Fills the disk up to its last byte.
    let filler = point.join("filler");
    sh(&format!(
        "cat /dev/zero >'{}' 2>/dev/null; test -s '{0}'",
        filler.display()
    ));
    let error = wait::until("an error of the history", DEADLINE, || {
        let error = history_error(&server);
        error.is_string().then_some(error)
    });
    assert!(error.as_str().unwrap().contains("full"), "{error}");
    let told = server.process.event("the history cannot be written");
    assert_eq!(told.level(), "WARN");
    let full = now();
    // The live view and the history of the last hour go on.
    wait::until("samples of the full disk", DEADLINE, || {
        let shown = known(&server, &agent, begin);
        (shown.iter().filter(|at| **at > full).count() >= 3).then_some(())
    });
    assert_eq!(
        server.process.events("the history cannot be written").len(),
        1
    );
    sh(&format!("rm '{}'", filler.display()));
    wait::until("no error of the history", DEADLINE, || {
        history_error(&server).is_null().then_some(())
    });
    server.process.event("the history is written again");
    // The samples from the time of the full disk are stored too.
    let before = known(&server, &agent, begin);
    drop(server);
    let server = PageServer::launch(launch);
    let after = known(&server, &agent, begin);
    let old = |at: &&i64| **at < full;
    assert!(
        before.iter().filter(old).all(|at| after.contains(at)),
        "{before:?} {after:?}"
    );
    let of_full_disk = after.iter().filter(|at| **at > full).count();
    assert!(of_full_disk >= 3, "{before:?} {after:?}");
}

#[test]
#[parallel]
fn a_folder_that_cannot_be_used_is_an_error_only_if_it_was_asked_for() {
    let agent = Agent::start(&FAST);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "text").unwrap();
    let address = agent.address().to_string();
    let web = || {
        Launch::new()
            .args(["web", &address])
            .var("WEB_ADDRESS", "127.0.0.1:0")
    };
    let refused = web().var("WEB_HISTORY_FOLDER", &file).run();
    assert_ne!(refused.code(), 0);
    let said = refused.stderr.join("\n");
    let folder_error = format!("WEB_HISTORY_FOLDER: cannot use {}", file.display());
    assert!(said.contains(&folder_error), "{said}");

    let launch = web()
        .var("WEB_HISTORY_FOLDER", "")
        .var("XDG_STATE_HOME", &file);
    let server = PageServer::launch(launch);
    server
        .process
        .event("the history is not stored: only the last hour stays in memory");
    assert!(history_error(&server).is_string());
    wait::until("a sample", DEADLINE, || {
        (!known(&server, &agent, 0).is_empty()).then_some(())
    });

    // The state directory of a service.
    let state = folder.path().join("state");
    let launch = web()
        .var("WEB_HISTORY_FOLDER", "")
        .var("STATE_DIRECTORY", &state);
    let server = PageServer::launch(launch);
    assert_eq!(
        server.process.event("history opened").text("folder"),
        state.to_str().unwrap()
    );
    assert!(state.join("history.db").exists());
    assert_eq!(history_error(&server), Value::Null);
}

#[test]
#[parallel]
fn a_year_is_answered_quickly_even_without_figures() {
    let agent = Agent::start(&FAST);
    let folder = tempfile::tempdir().unwrap();
    let server = start(&[&agent], folder.path());
    wait::until("a sample", DEADLINE, || {
        (!known(&server, &agent, now() - 60_000).is_empty()).then_some(())
    });
    let begin = Instant::now();
    let year = now() - 366 * 86_400_000;
    assert!(!known(&server, &agent, year).is_empty());
    assert!(begin.elapsed() < Duration::from_secs(2));
}
