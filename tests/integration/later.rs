//! Tests with snapshots of a later version. Unknown fields and values are not errors.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::{Value, json};
use serial_test::parallel;
use system_agent::client::Connector;
use system_agent::model::{EventAction, InterfaceKind, PortProtocol, SourceStatus, Status, Via};
use system_agent::settings::ApiKey;

use crate::support::{KEY, Terminal};
use crate::watching::LARGE;

/// Fields with a fixed set of values.
const ENUM_FIELDS: [&str; 7] = ["status", "via", "kind", "action", "Type", "state", "health"];
/// Objects whose keys are names from the host.
const BY_NAME: [&str; 4] = ["logs", "logs_dropped", "labels", "network"];

/// A snapshot of a later version. It has unknown values in [`ENUM_FIELDS`], and more fields in every object.
fn later() -> Value {
    let text = include_str!("../fixtures/snapshot.json");
    let mut snapshot: Value = serde_json::from_str(text).unwrap();
    snapshot["events"] = json!([{
        "time": "2026-01-01T11:59:00.000Z", "action": "die", "container": "db", "id": "db", "image": "postgres:16",
    }]);
    snapshot["agent"]["version"] = json!("9.0.0");
    snapshot["docker_meta"][0]["ports"] = json!([{"PrivatePort": 80, "Type": "tcp"}]);
    for source in ["system", "docker", "logs"] {
        snapshot["sources"][source]["via"] = json!("kernel");
    }
    make_later("", &mut snapshot);
    snapshot
}

fn make_later(name: &str, value: &mut Value) {
    match value {
        Value::String(word) if ENUM_FIELDS.contains(&name) => "later".clone_into(word),
        Value::Array(all) => all.iter_mut().for_each(|one| make_later("", one)),
        Value::Object(fields) => {
            for (name, field) in &mut *fields {
                make_later(name, field);
            }
            if !BY_NAME.contains(&name) {
                fields.insert("a_later_field".to_owned(), json!({"with": [1, "a list"]}));
            }
        }
        _ => {}
    }
}

/// A fake agent of a later version. The fake agent sends this line again and again to every client.
fn agent(line: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let line = line.clone();
            thread::spawn(move || {
                let mut key = String::new();
                BufReader::new(stream.try_clone().unwrap())
                    .read_line(&mut key)
                    .unwrap();
                while stream.write_all(line.as_bytes()).is_ok() {
                    thread::sleep(std::time::Duration::from_millis(200));
                }
            });
        }
    });
    address
}

#[test]
#[parallel]
fn unknown_values_are_read_and_shown_unchanged() {
    let snapshot = later();
    let address = agent(format!("{snapshot}\n"));
    let connector = Connector::new(&address.to_string(), &ApiKey::new("", KEY).unwrap());
    let read = actix::System::new().block_on(async {
        let mut snapshots = connector.connect().await.unwrap();
        snapshots.next().await.unwrap()
    });
    let word = || "later".to_owned();
    assert_eq!(read.status, Status::Other(word()));
    for (_, source) in read.sources.named() {
        assert_eq!(source.status, SourceStatus::Other(word()));
        assert_eq!(source.via, Some(Via::Other(word())));
    }
    let kinds: Vec<_> = read
        .system
        .network
        .iter()
        .map(|one| one.kind.clone())
        .collect();
    assert!(
        kinds.contains(&Some(InterfaceKind::Other(word()))),
        "{kinds:?}"
    );
    assert_eq!(read.events[0].action, EventAction::Other(word()));
    let mut ports = read.docker_meta.iter().flat_map(|meta| meta.ports.iter());
    assert_eq!(ports.next().unwrap().protocol, PortProtocol::Other(word()));
    // Unknown values are written again unchanged.
    let again = serde_json::to_value(&read).unwrap();
    for (name, field) in ["status", "sources", "events"].map(|name| (name, &again[name])) {
        let text = field.to_string();
        assert_eq!(
            text.matches("\"later\"").count(),
            snapshot[name].to_string().matches("\"later\"").count(),
            "{text}"
        );
    }

    let address = address.to_string();
    let terminal = Terminal::watch(LARGE, &[&address], &[("API_KEY", KEY)]);
    terminal.shows(&["s old", "docker later"]);
    terminal.press(&["Tab", "Tab", "Tab", "Tab"]);
    terminal.shows(&["KIND", "later"]);
    terminal.press(&["Tab"]);
    terminal.shows(&["EVENT", "later"]);
}

#[test]
#[parallel]
fn times_are_shown_in_utc_in_every_time_zone() {
    let mut snapshot = later();
    snapshot["events"][0]["action"] = json!("die");
    let address = agent(format!("{snapshot}\n")).to_string();
    let terminal = Terminal::watch(
        LARGE,
        &[&address],
        &[("API_KEY", KEY), ("TZ", "Asia/Kolkata")],
    );
    terminal.shows(&["s old"]);
    for _ in 0..5 {
        terminal.press(&["Tab"]);
    }
    terminal.shows(&["TIME (UTC)", "2026-01-01T11:59:00Z"]);
}
