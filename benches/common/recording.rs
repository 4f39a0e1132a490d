//! Records a real snapshot of this host with the agent.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::agent::{self, KEY, TIMEOUT};
use super::engine::{remove_containers, start_containers};

/// Records the JSON line of a snapshot with this number of containers. `options` has the options of the client.
pub(crate) fn record(binary: &Path, options: &str, containers: usize) -> String {
    if containers > 0 {
        eprintln!("starting {containers} containers");
        start_containers(containers, &[], "sleep 1d");
    }
    let settings: &[(&str, &str)] = match containers {
        0 => &[("DOCKER_ENABLED", "false"), ("LOG_LINES", "0")],
        _ => &[("LOG_LINES", "0")],
    };
    let (agent, mut stream) = agent::start(binary, settings);
    writeln!(stream, "{KEY} {options}").unwrap();
    let mut lines = BufReader::new(stream);
    let started = Instant::now();
    let line = loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let snapshot: Value = serde_json::from_str(&line).expect("expected a snapshot");
        if number_of_containers(&snapshot) >= containers && snapshot["status"] == "ok" {
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
    line
}

pub(crate) fn number_of_containers(snapshot: &Value) -> usize {
    snapshot["containers"].as_array().map_or(0, Vec::len)
}
