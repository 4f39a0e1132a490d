//! The two ways to read a container's figures: the kernel's files and the engine's API.

use serde_json::Value;
use serial_test::{parallel, serial};

use super::container::Container;
use super::snapshots::{Snapshots, figure, figures, shows};
use super::{INTERVAL, launch};
use crate::support::DEADLINE;

/// Fails unless the values of both ways differ by at most 2 % or by at most `slack`.
pub(super) fn assert_same(what: &str, kernel: f64, engine: f64, slack: f64) {
    let off = (kernel - engine).abs();
    assert!(
        off <= (engine.abs() * 0.02).max(slack),
        "{what}: {kernel} from the kernel, {engine} from the engine"
    );
}

fn mean(snapshots: &[Value], name: &str, field: &str) -> f64 {
    let sum: f64 = snapshots.iter().map(|s| figure(s, name, field)).sum();
    sum / snapshots.len() as f64
}

#[test]
#[serial]
fn kernel_and_engine_give_the_same_figures_under_load() {
    let busy = Container::run("ways-busy", &["--cpus", "0.5"], "while :; do :; done");
    let holder = Container::run(
        "ways-memory",
        &["--memory", "64m", "--tmpfs", "/hold:size=48m"],
        "dd if=/dev/zero of=/hold/30m bs=1M count=30; dd if=/dev/zero of=/tmp/x bs=1M count=8; sleep 1000",
    );
    let [kernel, engine] =
        ["kernel", "engine"].map(|way| launch().var("CONTAINER_STATS", way).start());
    let [mut kernel, mut engine] = [&kernel, &engine].map(|agent| Snapshots::of(agent, INTERVAL));
    for snapshots in [&mut kernel, &mut engine] {
        snapshots.until("both containers", DEADLINE, |s| {
            shows(s, busy.name()) && shows(s, holder.name())
        });
    }
    // From here on, the snapshots of both agents are from the same seconds.
    engine.arrived();
    kernel.arrived();
    let by_engine = engine.take(8);
    let by_kernel = kernel.arrived();
    assert!(by_kernel.len() >= 6, "{} snapshots", by_kernel.len());

    // The engine reads its values at its own times, so only the means are comparable.
    let cpu = |snapshots| mean(snapshots, busy.name(), "cpu_percent");
    assert_same("cpu_percent", cpu(&by_kernel), cpu(&by_engine), 1.0);
    let (kernel, engine) = (by_kernel.last().unwrap(), by_engine.last().unwrap());
    for field in ["memory_usage", "memory_limit", "memory_percent", "pids"] {
        let of = |snapshot| figure(snapshot, holder.name(), field);
        assert_same(field, of(kernel), of(engine), 0.0);
    }
    let of = |snapshot, what: &str| figures(snapshot, holder.name()).unwrap()[what].clone();
    assert_eq!(of(kernel, "block_io"), of(engine, "block_io"));
    assert_eq!(of(kernel, "network"), of(engine, "network"));
    let throttled = |snapshot| {
        figures(snapshot, busy.name()).unwrap()["throttling"]["throttled_periods"].as_f64()
    };
    // There are ten periods a second. The newest readings of the two ways can be two seconds apart.
    assert_same(
        "throttled",
        throttled(kernel).unwrap(),
        throttled(engine).unwrap(),
        25.0,
    );
    assert_eq!(kernel["sources"]["docker"]["via"], "kernel");
    assert_eq!(kernel["sources"]["docker"]["via_reason"], Value::Null);
    assert_eq!(engine["sources"]["docker"]["via"], "engine");
    assert_eq!(
        engine["sources"]["docker"]["via_reason"],
        "CONTAINER_STATS is engine"
    );
}

#[test]
#[parallel]
fn kernel_and_engine_show_the_same_networks() {
    let own = Container::run("ways-own", &[], "sleep 1000");
    let shared = format!("container:{}", own.name());
    let others = [
        Container::run("ways-shared", &["--network", &shared], "sleep 1000"),
        Container::run("ways-host", &["--network", "host"], "sleep 1000"),
        Container::run("ways-none", &["--network", "none"], "sleep 1000"),
    ];
    let [kernel, engine] = ["kernel", "engine"].map(|way| {
        let agent = launch().var("CONTAINER_STATS", way).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let all = |s: &Value| others.iter().all(|one| figures(s, one.name()).is_some());
        snapshots.until("all containers", DEADLINE, all)
    });
    let interfaces = |snapshot: &Value, container: &Container<'_>| -> Vec<String> {
        let network = figures(snapshot, container.name()).unwrap()["network"].clone();
        network.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(interfaces(&kernel, &own), ["eth0"]);
    for container in others.iter().chain([&own]) {
        assert_eq!(
            interfaces(&kernel, container),
            interfaces(&engine, container),
            "{}",
            container.name()
        );
    }
}

#[test]
#[serial]
fn changes_of_a_running_container_are_followed() {
    let mut container = Container::run("ways-changes", &["--memory", "64m"], "while :; do :; done");
    let agent = launch().var("CONTAINER_STATS", "kernel").start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name().to_owned();
    snapshots.until("the container", DEADLINE, |s| figures(s, &name).is_some());

    container.docker("update", &["--memory", "96m", "--memory-swap", "192m"]);
    let limit = |s: &Value| figures(s, &name).is_some_and(|f| f["memory_limit"] == 96 << 20);
    snapshots.until("the new limit", DEADLINE, limit);

    // After a restart the container has other files, and its CPU counter starts again at 0. The CPU figure must stay plausible.
    container.docker("restart", &["--time", "0"]);
    for snapshot in snapshots.take(5) {
        if figures(&snapshot, &name).is_some() {
            let percent = figure(&snapshot, &name, "cpu_percent");
            assert!((0.0..=130.0).contains(&percent), "{percent}");
        }
    }
    let busy =
        |s: &Value| figures(s, &name).is_some_and(|f| f["cpu_percent"].as_f64() > Some(50.0));
    snapshots.until("the busy container after the restart", DEADLINE, busy);

    container.docker("pause", &[]);
    let paused = |s: &Value| {
        figures(s, &name).is_some_and(|f| f["status"] == "paused" && f["cpu_percent"] == 0.0)
    };
    snapshots.until("the paused container", DEADLINE, paused);
    container.docker("unpause", &[]);

    container.rename("ways-renamed");
    let renamed = container.name().to_owned();
    let snapshot = snapshots.until("the new name", DEADLINE, |s| figures(s, &renamed).is_some());
    assert_eq!(snapshot["sources"]["docker"]["via"], "kernel");
}

#[test]
#[parallel]
fn rotation_under_load_loses_no_log_line() {
    // About 40 bytes per log line and 100 KiB per file. The engine rotates after some 1000 lines.
    let container = Container::run(
        "ways-rotation",
        &["--log-opt", "max-size=100k", "--log-opt", "max-file=3"],
        "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); echo line $i; done; sleep 1000",
    );
    let agent = launch()
        .vars(&[("LOG_LINES", "200"), ("LOG_INTERVAL", "100ms")])
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let newest =
        |s: &Value| super::snapshots::lines(s, name).and_then(|lines| lines.last().cloned());
    let complete = |s: &Value| newest(s).is_some_and(|line| line.ends_with("line 20000"));
    loop {
        let snapshot = snapshots.until("log lines", DEADLINE, |s| newest(s).is_some());
        let lines = super::snapshots::lines(&snapshot, name).unwrap();
        let numbers: Vec<u32> = lines
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!(gap, None, "{numbers:?}");
        if complete(&snapshot) {
            assert_eq!(numbers.len(), 200);
            assert_eq!(snapshot["sources"]["logs"]["status"], "ok");
            break;
        }
    }
}
