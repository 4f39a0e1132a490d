//! The snapshot that the hosts publish.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::recording::{number_of_containers, record as record_line};
use crate::plan::Plan;

/// The options for the recorded snapshot. The hosts publish the same sections.
const OPTIONS: &str = r#"{"sections":["system","containers","docker_meta"]}"#;

/// Records a snapshot of this host in a file. Returns the path of the file.
pub(crate) fn record(plan: &Plan) -> PathBuf {
    let line = record_line(&plan.agent, OPTIONS, plan.containers);
    let compressed = zstd::encode_all(line.as_bytes(), 1).unwrap();
    let snapshot: Value = serde_json::from_str(&line).unwrap();
    println!(
        "a snapshot of this host with {} containers: {} bytes as JSON, {} bytes as zstd",
        number_of_containers(&snapshot),
        line.len(),
        compressed.len()
    );
    let file = plan.directory.path().join("snapshot.json");
    fs::write(&file, line).unwrap();
    file
}
