//! Tests of odd data about one container in the engine's answers. Such data must not affect the other containers.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;

use super::launch;
use super::oddities::{self, OddEngine, Oddity};
use super::snapshots::{Snapshots, collected_at, docker_is_failing};
use super::stand_in::{Answer, StandIn};
use crate::support::{Agent, DEADLINE};

const INTERVAL: Duration = Duration::from_millis(200);

fn agent(folder: &TempDir) -> Agent {
    let host = format!("unix://{}", folder.path().join("docker.sock").display());
    launch()
        .vars(&[
            ("PUBLISH_INTERVAL", "200ms"),
            ("DOCKER_INTERVAL", "200ms"),
            ("CONTAINER_STATS", "engine"),
        ])
        .var("DOCKER_HOST", host)
        .start()
}

#[test]
#[parallel]
fn an_odd_list_entry_affects_no_other_container() {
    assert_no_other_is_affected(&oddities::of_lists());
}

#[test]
#[parallel]
fn an_odd_inspection_affects_no_other_container() {
    assert_no_other_is_affected(&oddities::of_inspections());
}

#[test]
#[parallel]
fn odd_statistics_affect_no_other_container() {
    assert_no_other_is_affected(&oddities::of_statistics());
}

fn assert_no_other_is_affected(all: &[Oddity]) {
    let folder = TempDir::new().unwrap();
    let engine = OddEngine::at(&folder.path().join("docker.sock"));
    let agent = agent(&folder);
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the good containers", DEADLINE, oddities::shows_all_good);
    for oddity in all {
        engine.show(oddity);
        oddities::wait_until_listed(&engine, DEADLINE);
        let since = SystemTime::now();
        let name = &oddity.name;
        snapshots.until(name, DEADLINE, |snapshot| {
            assert!(oddities::shows_all_good(snapshot), "{name}: {snapshot:#}");
            assert!(
                oddities::is_well_or_names_it(snapshot),
                "{name}: {:#}",
                snapshot["sources"]
            );
            // A round that began before the change can still show the previous list.
            let is_later = collected_at(snapshot, "docker").is_some_and(|at| at > since);
            let is_named = snapshot["sources"]["docker"]["error"]
                .as_str()
                .is_some_and(|error| error.contains("an entry cannot be read"));
            let is_listed = oddities::lists(snapshot, &engine.odd_id());
            is_later && is_listed == oddity.is_listed && is_named != oddity.is_listed
        });
    }
}

/// The container that is removed while the engine reads its statistics.
const REMOVED: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// A fake engine with this container list and minimal answers to other requests.
fn engine_with(folder: &TempDir, list: impl Fn() -> Answer + Send + Sync + 'static) -> StandIn {
    let socket = folder.path().join("docker.sock");
    StandIn::at(&socket, move |path| {
        let stats = r#"{"read":"2026-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":5}},"memory_stats":{"usage":5,"limit":9}}"#;
        match path.split('?').next().unwrap_or_default() {
            path if path.ends_with("/containers/json") => list(),
            path if path.ends_with("/events") => Answer::Silence,
            path if path.ends_with("/stats") && path.contains(REMOVED) => {
                Answer::Json("200 OK", "")
            }
            path if path.ends_with("/stats") => Answer::Json("200 OK", stats),
            path if path.ends_with("/json") => Answer::Json("200 OK", "{}"),
            path if path.ends_with("/logs") => Answer::Json("200 OK", ""),
            _ => Answer::Engine,
        }
    })
}

fn shows(snapshot: &Value, containers: usize) -> bool {
    let all = snapshot["containers"].as_array().unwrap();
    all.len() == containers && snapshot["sources"]["docker"]["status"] == "ok"
}

#[test]
#[parallel]
fn a_long_list_with_short_entries_is_read() {
    let folder = TempDir::new().unwrap();
    let label = "x".repeat(20 * 1024);
    let list: Vec<Value> = (0..300)
        .map(|number| {
            json!({"Id": format!("{number:012x}{number:052x}"), "Names": [format!("/c{number}")], "Labels": {"long": label}, "State": "running"})
        })
        .collect();
    let list: Arc<str> = Value::from(list).to_string().into();
    assert!(list.len() > 5 << 20);
    let _engine = engine_with(&folder, move || Answer::Body(Arc::clone(&list)));
    let agent = agent(&folder);
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("all containers", DEADLINE, |snapshot| shows(snapshot, 300));
}

#[test]
#[parallel]
fn a_container_that_is_removed_during_the_call_for_its_statistics_is_no_failure() {
    let folder = TempDir::new().unwrap();
    let _engine = engine_with(&folder, || {
        let list = json!([{"Id": "a".repeat(64)}, {"Id": REMOVED}]);
        Answer::Body(list.to_string().into())
    });
    let agent = agent(&folder);
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the other container", DEADLINE, |snapshot| {
        shows(snapshot, 1)
    });
    for snapshot in snapshots.take(3) {
        assert!(shows(&snapshot, 1), "{snapshot:#}");
    }
}

#[test]
#[parallel]
fn an_answer_is_read_byte_by_byte_and_with_a_byte_order_mark() {
    let folder = TempDir::new().unwrap();
    let list = format!(
        "\u{feff} [{{\"Id\":\"{}\"}}, null ,{{\"Id\":\"{}\",\"State\":\"quo\\\"ted,]\"}}]\n",
        "a".repeat(64),
        "b".repeat(64)
    );
    let chunks: String = list
        .as_bytes()
        .iter()
        .map(|byte| format!("1\r\n{}\r\n", char::from(*byte)))
        .collect();
    // Each byte of the text is a chunk of its own, also inside a character of several bytes.
    let chunks: Vec<u8> = chunks.chars().map(|byte| u32::from(byte) as u8).collect();
    let _engine = engine_with(&folder, move || {
        let chunks = chunks.clone();
        Answer::Stream(Arc::new(move |client| {
            client.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for chunk in chunks.chunks(6) {
                client.write_all(chunk)?;
            }
            client.write_all(b"0\r\n\r\n")
        }))
    });
    let agent = agent(&folder);
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let seen = snapshots.until("both containers", DEADLINE, |snapshot| {
        snapshot["containers"].as_array().unwrap().len() == 2
    });
    let error = seen["sources"]["docker"]["error"].as_str().unwrap();
    assert!(
        error.ends_with("an entry cannot be read: it has no id"),
        "{error}"
    );
}

#[test]
#[parallel]
fn an_answer_that_is_not_a_list_is_an_error() {
    let entry = format!("{{\"Id\":\"{}\"}}", "a".repeat(64));
    let whole = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let answers = [
        whole("<html>[]</html>"),
        whole("{\"message\":\"no\"}"),
        whole("\u{1f}\u{8b}\u{8}"),
        whole(""),
        whole(&format!("[{entry},")),
        whole(&format!("[{entry}")),
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec(),
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[".to_vec(),
    ];
    for answer in answers {
        let folder = TempDir::new().unwrap();
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let _engine = engine_with(&folder, move || {
            let answer = answer.clone();
            Answer::Stream(Arc::new(move |client| client.write_all(&answer)))
        });
        let agent = agent(&folder);
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let failing = snapshots.until(&shown, DEADLINE, docker_is_failing);
        let error = failing["sources"]["docker"]["error"].as_str().unwrap();
        assert!(error.starts_with("list containers: "), "{shown}: {error}");
    }
}

#[test]
#[parallel]
fn an_unreadable_event_does_not_end_the_event_stream() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("docker.sock");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let _engine = StandIn::at(&socket, move |path| {
        match path.split('?').next().unwrap_or_default() {
            path if path.ends_with("/events") => {
                counted.fetch_add(1, Ordering::SeqCst);
                Answer::Stream(Arc::new(|client| {
                    client
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
                    let start = |number: u64| {
                        // A time in the year 2200. Events of the past are not published.
                        let time = 7_258_118_400_000_000_000 + number;
                        let name = format!("c{number}");
                        json!({"Action": "start", "timeNano": time, "Actor": {"ID": "a".repeat(64), "Attributes": {"name": name}}})
                    };
                    let odd: [Vec<u8>; 10] = [
                        b"{".to_vec(),
                        b"null".to_vec(),
                        b"<html>".to_vec(),
                        b"\xff\xfe\0".to_vec(),
                        b"[1,2".to_vec(),
                        br#"{"Action":7,"Actor":[],"time":"x"}"#.to_vec(),
                        br#"{"Action":"start","Actor":{"ID":5,"Attributes":null},"timeNano":-1}"#
                            .to_vec(),
                        br#"{"Type":"future","Action":{"a":1},"scope":"galaxy"}"#.to_vec(),
                        "[".repeat(300_000).into_bytes(),
                        vec![b'x'; 3 << 20],
                    ];
                    for (number, odd) in (0..).zip(odd) {
                        // The end of a JSON line falls inside a chunk, and the end of a chunk inside a JSON line.
                        let lines = [
                            &odd[..],
                            b"\n",
                            start(number).to_string().as_bytes(),
                            b"\r\n",
                        ]
                        .concat();
                        let half = lines.len() - 20;
                        client.write_all(&lines[..half])?;
                        client.flush()?;
                        client.write_all(&lines[half..])?;
                    }
                    // Keeps the connection open until the agent closes it.
                    io::copy(client, &mut io::sink()).map(drop)
                }))
            }
            path if path.ends_with("/containers/json") => Answer::Json("200 OK", "[]"),
            _ => Answer::Engine,
        }
    });
    let agent = agent(&folder);
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let mut names = Vec::new();
    snapshots.until("ten events", DEADLINE, |snapshot| {
        for event in snapshot["events"].as_array().unwrap() {
            names.push(event["container"].as_str().unwrap().to_owned());
        }
        names.len() >= 10
    });
    assert_eq!(
        names,
        (0..10)
            .map(|number| format!("c{number}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "the agent must read all events from one connection"
    );
}

/// The agent runs as a user without access to the engine's socket.
#[test]
#[parallel]
fn the_error_of_a_denied_socket_names_the_group() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("system-agent");
    fs::copy(env!("CARGO_BIN_EXE_system-agent"), &binary).unwrap();
    let socket = folder.path().join("docker.sock");
    let _engine = StandIn::at(&socket, |_| Answer::Engine);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    let denied = || {
        let host = format!("unix://{}", socket.display());
        let launcher = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ]
        .map(str::to_owned);
        launch()
            .var("DOCKER_HOST", host)
            .copy(&binary)
            .launched_by(launcher)
    };
    let hint = "must run as root or in the group that owns the socket (docker)";
    let agent = denied().start();
    let mut snapshots = Snapshots::of(&agent, super::INTERVAL);
    let failing = snapshots.until("the fault", DEADLINE, docker_is_failing);
    let error = failing["sources"]["docker"]["error"].as_str().unwrap();
    assert!(error.contains(hint), "{error}");
    let checked = denied().args(["check"]).run();
    let line = checked
        .stdout
        .iter()
        .find(|line| line.starts_with("FAIL Docker"));
    assert!(line.is_some_and(|line| line.contains(hint)), "{checked:#?}");
}

/// The agent must not request `/version`, because Podman needs seconds for the answer on a slow machine. The agent cannot use a
/// fixed old version, because Docker 29 no longer accepts the oldest API versions.
#[test]
#[parallel]
fn the_api_version_comes_from_the_ping() {
    for (head, expected) in [
        ("Api-Version: 1.41\r\n", "/v1.41/"),
        ("Api-Version: 1.99\r\n", "/v1.53/"),
        (
            "Api-Version: 1.41\r\nLibpod-API-Version: 5.0.0\r\n",
            "%22paused%22",
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("docker.sock");
        let lists = Arc::new(std::sync::Mutex::new(String::new()));
        let asked = Arc::clone(&lists);
        let _engine = StandIn::at(&socket, move |path| match path {
            "/version" => Answer::Silence,
            path if path.ends_with("/_ping") => {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\nConnection: close\r\n\r\nOK"
                );
                Answer::Stream(Arc::new(move |client| client.write_all(answer.as_bytes())))
            }
            // The list of all containers is too long to be read in time. So the agent reads the list of running containers.
            path if path.contains("/containers/json?all=true") => Answer::Silence,
            path if path.contains("/containers/json") => {
                path.clone_into(&mut asked.lock().unwrap());
                Answer::Json("200 OK", "[]")
            }
            _ => Answer::Silence,
        });
        let agent = agent(&folder);
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        snapshots.until("an empty list", DEADLINE, |snapshot| shows(snapshot, 0));
        let asked = lists.lock().unwrap().clone();
        assert!(asked.contains(expected), "{asked}");
    }
}
