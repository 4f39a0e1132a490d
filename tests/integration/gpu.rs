//! Tests of GPU figures. The test machine needs no GPU, because a small library replaces the driver's library (NVML).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use serial_test::parallel;
use tempfile::TempDir;

use crate::support::{DEADLINE, Launch, Namespace, schema, wait};

/// Compiles the replacement library into a new folder.
fn driver() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nvml.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output();
    let compiled = compiled.expect("cannot start cc, the C compiler");
    assert!(compiled.status.success(), "{compiled:?}");
    folder
}

fn gpus(snapshot: &Value) -> Option<&Value> {
    snapshot["system"].get("gpus")
}

#[test]
#[parallel]
fn gpu_figures_match_the_driver() {
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

/// Creates the files in which the kernel describes an NVIDIA PCI device. `control` and `status` are its power state.
fn pci_gpu(devices: &Path, address: &str, control: &str, status: &str) {
    let folder = devices.join(address);
    fs::create_dir_all(folder.join("power")).unwrap();
    for (file, text) in [
        ("vendor", "0x10de"),
        ("class", "0x030000"),
        ("power/control", control),
        ("power/runtime_status", status),
    ] {
        fs::write(folder.join(file), format!("{text}\n")).unwrap();
    }
}

/// NVML wakes suspended GPUs when a program opens NVML. So the agent must not open NVML while the GPUs sleep.
#[test]
#[parallel]
fn a_sleeping_gpu_is_not_woken() {
    let driver = driver();
    let devices = tempfile::tempdir().unwrap();
    let log = driver.path().join("log");
    let [first, second] = ["0000:01:00.0", "0000:02:00.0"];
    pci_gpu(devices.path(), first, "auto", "suspended");
    pci_gpu(devices.path(), second, "auto", "suspended");
    let script = format!(
        "mount --bind {} /sys/bus/pci/devices",
        devices.path().display()
    );
    let namespace = Namespace::start(&["mount"], &script);
    let agent = Launch::new()
        .launched_by(namespace.enter())
        .var("LD_LIBRARY_PATH", driver.path())
        .var("NVML_LOG", &log)
        .var("PUBLISH_INTERVAL", "200ms")
        .var("SYSTEM_INTERVAL", "200ms")
        .start();
    let mut client = agent.login();
    let asleep = |index: u32, name: &str| json!({"index": index, "name": name, "asleep": true});
    let all_asleep = json!([asleep(0, ""), asleep(1, "")]);
    client.snapshot_where("two sleeping GPUs", DEADLINE, |s| {
        gpus(s) == Some(&all_asleep)
    });
    for _ in 0..5 {
        assert_eq!(gpus(&client.snapshot()), Some(&all_asleep));
    }
    assert!(!log.exists(), "the agent opened the library");

    // The second GPU wakes up. The first GPU stays suspended.
    fs::write(
        devices.path().join(second).join("power/runtime_status"),
        "active\n",
    )
    .unwrap();
    let one = |s: &Value| gpus(s).is_some_and(|gpus| gpus[1]["celsius"] == 38.0);
    let one = client.snapshot_where("one GPU that is awake", DEADLINE, one);
    assert_eq!(gpus(&one).unwrap()[0], asleep(0, ""));
    assert_eq!(gpus(&one).unwrap()[1]["name"], "NVIDIA T400");
    let opened = wait::until("the library's log", DEADLINE, || {
        let opened = fs::read_to_string(&log).ok()?;
        opened.ends_with('\n').then_some(opened)
    });
    assert!(
        opened.lines().all(|what| what == "none" || what == second),
        "{opened}"
    );

    // When this GPU sleeps again, the agent still knows the name of the GPU.
    fs::write(
        devices.path().join(second).join("power/runtime_status"),
        "suspended\n",
    )
    .unwrap();
    let known = json!([asleep(0, ""), asleep(1, "NVIDIA T400")]);
    client.snapshot_where("two sleeping GPUs again", DEADLINE, |s| {
        gpus(s) == Some(&known)
    });
    let before = fs::metadata(&log).unwrap().len();
    for _ in 0..3 {
        client.snapshot();
    }
    assert_eq!(fs::metadata(&log).unwrap().len(), before);
}

#[test]
#[parallel]
fn without_a_driver_there_are_no_gpus() {
    let finished = Launch::new().args(["snapshot"]).run();
    let snapshot = schema::snapshot(&finished.stdout[0]);
    assert_eq!(gpus(&snapshot), None);
    assert_eq!(snapshot["sources"]["system"]["status"], "ok");
}

#[test]
#[parallel]
fn a_driver_that_hangs_loses_only_the_gpu_figures() {
    let driver = driver();
    let agent = Launch::new()
        .var("LD_LIBRARY_PATH", driver.path())
        .var("NVML_HANGS", "1")
        .var("PUBLISH_INTERVAL", "1s")
        .var("SYSTEM_INTERVAL", "1s")
        .start();
    let mut client = agent.login();
    // The first round waits one second for the driver.
    let first = client.snapshot();
    assert_eq!(gpus(&first), None);
    assert_eq!(first["sources"]["system"]["status"], "ok");
    let took = |snapshot: &Value| {
        snapshot["sources"]["system"]["duration_ms"]
            .as_u64()
            .unwrap()
    };
    client.snapshot_where("a round that does not wait", DEADLINE, |s| took(s) < 700);
    for _ in 0..4 {
        let next = client.snapshot();
        assert_eq!(gpus(&next), None);
        assert_eq!(next["sources"]["system"]["status"], "ok");
        assert!(took(&next) < 700, "{next}");
    }
}
