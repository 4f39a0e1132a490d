//! Tests of the size of the writable layer (`CONTAINER_SIZES_INTERVAL`), and of environment variables as labels (`CONTAINER_ENV`).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use serial_test::parallel;
use tempfile::TempDir;

use super::container::{Container, size};
use super::engine::Engine;
use super::snapshots::{Snapshots, figures, healthy, shows};
use super::stand_in::{Answer, StandIn};
use super::{INTERVAL, launch};
use crate::support::prometheus::{complaints, get, metrics_of};
use crate::support::{Agent, DEADLINE};

/// The samples of a metric of a container, as `/metrics` shows them.
fn samples(agent: &Agent, metric: &str, container: &str) -> Vec<String> {
    let body = get(metrics_of(agent), "/metrics", &[]).body;
    assert_eq!(complaints(&body), [""; 0]);
    let name = format!("name=\"{container}\"");
    let is_its = |line: &&str| line.starts_with(&format!("{metric}{{")) && line.contains(&name);
    body.lines().filter(is_its).map(str::to_owned).collect()
}

fn value(samples: &[String]) -> f64 {
    let [sample] = samples else {
        panic!("not exactly one sample: {samples:?}");
    };
    let (_, value) = sample.rsplit_once(' ').unwrap();
    value.parse().unwrap()
}

/// A fake engine that counts the requests for sizes, and does not answer them if `is_silent`.
fn counting(folder: &TempDir, is_silent: bool) -> (StandIn, Arc<AtomicUsize>, String) {
    let socket = folder.path().join("docker.sock");
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let engine = StandIn::at(&socket, move |path| {
        if path.contains("size=") {
            count.fetch_add(1, Ordering::SeqCst);
            if is_silent {
                return Answer::Silence;
            }
        }
        Answer::Engine
    });
    (engine, requests, format!("unix://{}", socket.display()))
}

#[test]
#[parallel]
fn the_size_of_the_writable_layer_is_that_of_docker_ps() {
    // The volume and the log do not count.
    let container = Container::run(
        "sized",
        &["--volume", "/data"],
        "dd if=/dev/zero of=/own bs=1000 count=5000; dd if=/dev/zero of=/data/other bs=1000 count=9000; echo done; sleep 1000",
    );
    let unchanged = Container::run("unchanged", &[], "sleep 1000");
    container.wait_for_line("done");
    let agent = launch()
        .vars(&[("METRICS_PORT", "0"), ("CONTAINER_SIZES_INTERVAL", "1m")])
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    let name = container.name();
    let of = |snapshot: &Value, name: &str| {
        figures(snapshot, name).and_then(|one| one["disk_used"].as_u64())
    };
    let snapshot = snapshots.until("the size", DEADLINE, |s| of(s, name).is_some());
    let used = of(&snapshot, name).unwrap();
    assert!((5_000_000..5_100_000).contains(&used), "{used}");
    assert_eq!(of(&snapshot, unchanged.name()), Some(0));

    let inspected = container.docker("inspect", &["--size", "--format", "{{.SizeRw}}"]);
    assert_eq!(inspected, used.to_string());
    // Both commands round to three digits.
    let engine = Engine::local();
    let listed = engine.docker(["ps", "--size", "--format", "{{.Names}} {{.Size}}"]);
    let listed = listed.lines().find_map(|line| line.strip_prefix(name));
    let listed = listed.unwrap().split_whitespace().next().unwrap();
    let usage = engine.docker(["system", "df", "--verbose", "--format", "{{json .}}"]);
    let usage: Value = serde_json::from_str(&usage).unwrap();
    let all = usage["Containers"].as_array().unwrap();
    let usage = all.iter().find(|one| one["Names"] == *name).unwrap();
    let usage = usage["Size"].as_str().unwrap().split(' ').next().unwrap();
    for theirs in [size(listed), size(usage)] {
        assert!((theirs - used as f64).abs() <= theirs / 200.0, "{theirs}");
    }

    let samples = samples_of_layer(&agent, name);
    assert_eq!(value(&samples[0]), used as f64);
    let root = engine.docker(["info", "--format", "{{.DockerRootDir}}"]);
    let df = Command::new("df")
        .args(["--output=source,size", "-B1", &root])
        .output()
        .unwrap();
    let df = String::from_utf8(df.stdout).unwrap();
    let (device, size) = df.lines().nth(1).unwrap().trim().split_once(' ').unwrap();
    let label = format!("device=\"{device}\"");
    for sample in samples.iter().flatten() {
        assert!(sample.contains(&label), "{label}: {sample}");
    }
    // The container has no limit of its own.
    assert_eq!(value(&samples[1]), size.trim().parse::<f64>().unwrap());
}

fn samples_of_layer(agent: &Agent, container: &str) -> [Vec<String>; 2] {
    ["container_fs_usage_bytes", "container_fs_limit_bytes"]
        .map(|metric| samples(agent, metric, container))
}

#[test]
#[parallel]
fn a_silent_request_for_sizes_delays_nothing_and_is_not_repeated_meanwhile() {
    let container = Container::run("unsized", &[], "sleep 1000");
    let folder = TempDir::new().unwrap();
    let (_engine, requests, host) = counting(&folder, true);
    let agent = launch()
        .var("DOCKER_HOST", host)
        .vars(&[("METRICS_PORT", "0"), ("CONTAINER_SIZES_INTERVAL", "1m")])
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the request", DEADLINE, |s| {
        shows(s, container.name()) && requests.load(Ordering::SeqCst) == 1
    });
    let later = Container::run("later", &[], "sleep 1000");
    snapshots.until("a new container", DEADLINE, |s| shows(s, later.name()));
    for snapshot in snapshots.take(5) {
        assert!(healthy(&snapshot), "{:#}", snapshot["sources"]);
        let took = snapshot["sources"]["docker"]["duration_ms"].as_u64();
        assert!(took.unwrap() < 1000, "{:#}", snapshot["sources"]);
        assert!(!snapshot["containers"].to_string().contains("disk_used"));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let [usage, limit] = samples_of_layer(&agent, container.name());
    // The size of the file system is known without the engine.
    assert!(usage.is_empty() && limit.len() == 1, "{usage:?} {limit:?}");
}

#[test]
#[parallel]
fn without_the_setting_the_engine_is_not_asked_for_sizes() {
    let container = Container::run("unasked", &[], "sleep 1000");
    let folder = TempDir::new().unwrap();
    let (_engine, requests, host) = counting(&folder, false);
    let agent = launch()
        .var("DOCKER_HOST", host)
        .vars(&[("METRICS_PORT", "0"), ("CONTAINER_SIZES_INTERVAL", "0")])
        .start();
    let mut snapshots = Snapshots::of(&agent, INTERVAL);
    snapshots.until("the container", DEADLINE, |s| shows(s, container.name()));
    for snapshot in snapshots.take(4) {
        assert!(!snapshot["containers"].to_string().contains("disk_used"));
    }
    let [usage, limit] = samples_of_layer(&agent, container.name());
    // The size of the file system is known without the engine.
    assert!(usage.is_empty() && limit.len() == 1, "{usage:?} {limit:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[test]
#[parallel]
fn only_the_chosen_environment_variables_are_labels_and_secrets_are_redacted() {
    let secret = "Vq7Lm2Xs9Rk4";
    let password = format!("DB_PASSWORD={secret}");
    let address = format!("APP_URL=db://user:{secret}@host/");
    let container = Container::run(
        "variables",
        &[
            "--env",
            "APP_Tier=front \"end\"",
            "--env",
            &address,
            "--env",
            &password,
        ],
        "sleep 1000",
    );
    let name = container.name();
    let start = |variables: &[(&str, &str)]| {
        let launch = launch().var("METRICS_PORT", "0").secret(secret);
        let agent = launch.vars(variables).start();
        let mut snapshots = Snapshots::of(&agent, INTERVAL);
        let snapshot = snapshots.until("the container", DEADLINE, |s| shows(s, name));
        // The values are only in the metrics.
        assert!(!snapshot.to_string().contains("front \\\"end"));
        let body = get(metrics_of(&agent), "/metrics", &[]).body;
        assert!(!body.contains(secret));
        samples(&agent, "container_memory_rss", name).remove(0)
    };
    let redact = r"//[^:]*:(?P<secret>[^@]+)@";
    let sample = start(&[("CONTAINER_ENV", "APP_*"), ("LOG_REDACT", redact)]);
    for label in [
        r#"container_env_app_tier="front \"end\"""#,
        r#"container_env_app_url="db://user:[redacted]@host/""#,
    ] {
        assert!(sample.contains(label), "{label}: {sample}");
    }
    assert!(!sample.contains("password"), "{sample}");
    // By default there are none.
    assert!(!start(&[]).contains("container_env_"));
}
