//! Faults of the host's file systems.

use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::fuse::{Fuse, GIB, mounted};
use crate::trial::{INTERVAL, Report, Trial, launch};

/// The time that each slow file system takes for an answer, in seconds.
const DELAYS: [f64; 10] = [0.2, 0.2, 0.5, 0.5, 0.9, 1.5, 1.5, 3.0, 3.0, 5.0];
const FAST: usize = 10;
/// The agent publishes one snapshot per second. In each window of this number of snapshots, each slow file system must have
/// figures at least once.
const WINDOW: usize = 15;
const WINDOWS: usize = 4;

/// The age of the host's figures at the time of the snapshot.
fn age(snapshot: &Value) -> Duration {
    let time = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        humantime::parse_rfc3339(text).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let collected = time(&snapshot["sources"]["system"]["collected_at"]);
    let made = time(&snapshot["timestamp"]);
    made.duration_since(collected).unwrap_or_default()
}

/// Whether the snapshot has figures of the file system with this size in GiB.
fn is_measured(snapshot: &Value, gib: usize) -> bool {
    let disks = snapshot["system"]["disks"].as_array();
    let total = |disk: &Value| disk["total"].as_f64() == Some(gib as f64);
    disks.is_some_and(|disks| {
        disks
            .iter()
            .any(|disk| disk["type"] == "fuse.test" && total(disk))
    })
}

/// Runs a trial with twenty mounts. The first ten of them are slow.
pub(crate) fn slow() -> Vec<Report> {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<Fuse<'_>> = (0..DELAYS.len() + FAST)
        .map(|number| Fuse {
            point: folder
                .path()
                .join(format!("m/{number:02}"))
                .display()
                .to_string(),
            kind: "fuse.test",
            source: "one of many",
            blocks: ((number as u32 + 1) * GIB, GIB),
            delay: DELAYS.get(number).copied().unwrap_or_default(),
        })
        .collect();
    let namespace = mounted(folder.path(), &all, "");
    let mut trial = Trial::start(
        "20 mounts, 10 of them slow",
        launch().launched_by(namespace.enter()),
    );
    let before = trial.client.count();
    thread::sleep(INTERVAL * (WINDOW * WINDOWS) as u32);
    let snapshots: Vec<Value> = trial.client.since(before, |lines| {
        lines.iter().map(|line| line.snapshot.clone()).collect()
    });
    let oldest = snapshots.iter().map(age).max().unwrap_or_default();
    trial.at_most(
        "maximum age of the figures",
        oldest.as_secs_f64(),
        2.0 * INTERVAL.as_secs_f64(),
        "s",
    );
    let fast = DELAYS.len() + 1..=DELAYS.len() + FAST;
    let without = |snapshot: &&Value| !fast.clone().all(|gib| is_measured(snapshot, gib));
    let without = snapshots.iter().filter(without).count();
    trial.check(
        without == 0,
        format!(
            "{without} of {} snapshots without all fast file systems",
            snapshots.len()
        ),
    );
    let mut starved = Vec::new();
    for window in snapshots.chunks_exact(WINDOW) {
        let is_starved = |number: &usize| !window.iter().any(|one| is_measured(one, number + 1));
        starved.extend((0..DELAYS.len()).filter(is_starved));
    }
    trial.check(
        starved.is_empty(),
        format!("slow file systems without figures for {WINDOW} s: {starved:?}"),
    );
    let threads = std::fs::read_dir(format!("/proc/{}/task", trial.agent.pid()))
        .unwrap()
        .count();
    trial.at_most("threads", threads as f64, 40.0, "");
    vec![trial.end()]
}
