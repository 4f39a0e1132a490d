//! A real snapshot, as an agent publishes it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::{self, KEY, PATIENCE};
use crate::common::engine::{remove_containers, start_containers};
use crate::plan::Plan;

/// What is published.
const OPTIONS: &str = r#"{"sections":["system","containers","docker_meta"]}"#;

/// The file that holds one.
pub(crate) fn record(plan: &Plan) -> PathBuf {
    if plan.containers > 0 {
        eprintln!("starting {} containers", plan.containers);
        start_containers(plan.containers, &[], "sleep 1d");
    }
    let settings: &[(&str, &str)] = match plan.containers {
        0 => &[("DOCKER_ENABLED", "false"), ("LOG_LINES", "0")],
        _ => &[("LOG_LINES", "0")],
    };
    let (agent, mut stream) = agent::start(&plan.agent, settings);
    writeln!(stream, "{KEY} {OPTIONS}").unwrap();
    let mut lines = BufReader::new(stream);
    let started = Instant::now();
    let line = loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let snapshot: Value = serde_json::from_str(&line).expect("a snapshot");
        let containers = snapshot["containers"].as_array().map_or(0, Vec::len);
        if containers >= plan.containers && snapshot["status"] == "ok" {
            break line;
        }
        assert!(started.elapsed() < PATIENCE, "no complete snapshot: {line}");
        thread::sleep(Duration::from_millis(10));
    };
    drop(agent);
    remove_containers();
    let packed = zstd::encode_all(line.as_bytes(), 1).unwrap();
    println!(
        "a snapshot of this host, with {} containers: {} bytes, as zstd {}",
        serde_json::from_str::<Value>(&line).unwrap()["containers"]
            .as_array()
            .map_or(0, Vec::len),
        line.len(),
        packed.len()
    );
    let file = plan.directory.path().join("snapshot.json");
    fs::write(&file, line).unwrap();
    file
}
