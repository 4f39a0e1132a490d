//! GPUs, of which there are none where tests run: a library with the driver's functions stands in for the driver.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;

use crate::support::{Launch, PATIENCE, schema};

/// A folder with the library.
fn driver() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nvml.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output();
    let compiled = compiled.expect("a C compiler");
    assert!(compiled.status.success(), "{compiled:?}");
    folder
}

fn gpus(snapshot: &Value) -> Option<&Value> {
    snapshot["system"].get("gpus")
}

#[test]
#[parallel]
fn gpus_are_what_their_driver_says() {
    let driver = driver();
    let finished = Launch::new()
        .var("LD_LIBRARY_PATH", driver.path())
        .args(["snapshot"])
        .run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let snapshot = schema::snapshot(&finished.stdout[0]);
    let expected = json!([
        {
            "index": 0, "name": "NVIDIA A100-SXM4-40GB", "busy_percent": 87.0, "memory_used": 10240.0,
            "memory_total": 40960.0, "celsius": 64.0, "watts": 312.45
        },
        { "index": 1, "name": "NVIDIA T400", "memory_used": 1.0, "memory_total": 2048.0, "celsius": 38.0 }
    ]);
    assert_eq!(gpus(&snapshot), Some(&expected));
}

#[test]
#[parallel]
fn without_a_driver_there_are_none() {
    let finished = Launch::new().args(["snapshot"]).run();
    let snapshot = schema::snapshot(&finished.stdout[0]);
    assert_eq!(gpus(&snapshot), None);
    assert_eq!(snapshot["sources"]["system"]["status"], "ok");
}

#[test]
#[parallel]
fn a_driver_that_hangs_takes_nothing_but_its_own_figures() {
    let driver = driver();
    let agent = Launch::new()
        .var("LD_LIBRARY_PATH", driver.path())
        .var("NVML_HANGS", "1")
        .var("PUBLISH_INTERVAL", "1s")
        .var("SYSTEM_INTERVAL", "1s")
        .start();
    let mut client = agent.login();
    // The first waits for it, for a second.
    let first = client.snapshot();
    assert_eq!(gpus(&first), None);
    assert_eq!(first["sources"]["system"]["status"], "ok");
    let took = |snapshot: &Value| {
        snapshot["sources"]["system"]["duration_ms"]
            .as_u64()
            .unwrap()
    };
    client.snapshot_where("a reading that does not wait", PATIENCE, |s| took(s) < 700);
    for _ in 0..4 {
        let next = client.snapshot();
        assert_eq!(gpus(&next), None);
        assert_eq!(next["sources"]["system"]["status"], "ok");
        assert!(took(&next) < 700, "{next}");
    }
}
