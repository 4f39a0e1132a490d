//! Records a real snapshot of this host with the agent.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::{self, KEY, TIMEOUT};
use crate::common::engine::{remove_containers, start_containers};
use crate::plan::Plan;

/// The options for the recorded snapshot. The hosts publish the same sections.
const OPTIONS: &str = r#"{"sections":["system","containers","docker_meta"]}"#;

/// Records a snapshot in a file. Returns the path of the file.
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
        let snapshot: Value = serde_json::from_str(&line).expect("expected a snapshot");
        let containers = snapshot["containers"].as_array().map_or(0, Vec::len);
        if containers >= plan.containers && snapshot["status"] == "ok" {
            break line;
        }
        assert!(
            started.elapsed() < TIMEOUT,
            "the snapshot is not complete: {line}"
        );
        thread::sleep(Duration::from_millis(10));
    };
    drop(agent);
    remove_containers();
    let compressed = zstd::encode_all(line.as_bytes(), 1).unwrap();
    println!(
        "a snapshot of this host with {} containers: {} bytes as JSON, {} bytes as zstd",
        serde_json::from_str::<Value>(&line).unwrap()["containers"]
            .as_array()
            .map_or(0, Vec::len),
        line.len(),
        compressed.len()
    );
    let file = plan.directory.path().join("snapshot.json");
    fs::write(&file, line).unwrap();
    file
}
