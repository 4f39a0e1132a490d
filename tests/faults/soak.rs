//! Runs the agent for half an hour while containers and clients come and go. Checks that memory, files and threads do not grow.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::docker::container::Container;
use crate::support::{KEY, wait};
use crate::trial::{Report, Trial, Usage, launch};

/// The number of containers that stay.
const CONTAINERS: usize = 10;
/// The interval of the readings.
const READING_INTERVAL: Duration = Duration::from_secs(10);
/// The share of the time that is left out of the checks, because the agent's caches still grow.
const WARM_UP: f64 = 0.25;
/// Limit of the growth of memory, in percent per minute.
const MAX_SLOPE: f64 = 0.1;

/// The clients use these options in turn.
const OPTIONS: [&str; 5] = [
    "",
    r#" {"sections":["system"]}"#,
    r#" {"logs":"new"}"#,
    r#" {"encoding":"zstd","every":2}"#,
    r#" {"sections":["containers","events"],"every":3}"#,
];

pub(crate) fn run() -> Vec<Report> {
    let minutes: f64 = std::env::var("SOAK_MINUTES").map_or(30.0, |minutes| {
        minutes.parse().expect("SOAK_MINUTES is not a number")
    });
    let script = "while :; do echo a line of a container that stays; sleep 1; done";
    let _stay: Vec<_> = (0..CONTAINERS)
        .map(|_| Container::run("stays", &[], script))
        .collect();
    let mut trial = Trial::start("soak", launch().var("DOCKER_ENABLED", "true"));
    let ended = AtomicBool::new(false);
    let (containers, clients) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_running = || !ended.load(Ordering::Relaxed);
    let readings: Vec<(f64, Usage)> = thread::scope(|scope| {
        scope.spawn(|| {
            while is_running() {
                let container = Container::run("goes", &[], "seq 100; sleep 1000");
                thread::sleep(Duration::from_secs(1));
                drop(container);
                containers.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            for options in OPTIONS.iter().cycle() {
                if !is_running() {
                    return;
                }
                let mut client = trial.agent.connect();
                // Every fiftieth client sends a wrong key.
                let number = clients.fetch_add(1, Ordering::Relaxed);
                let key = if number % 50 == 49 {
                    "not-the-key"
                } else {
                    KEY
                };
                let _ = client.try_send(format!("{key}{options}\n"));
                thread::sleep(Duration::from_millis(100));
                if number % 3 == 0 {
                    client.reset();
                }
            }
        });
        let began = Instant::now();
        let mut readings = Vec::new();
        while began.elapsed().as_secs_f64() < minutes * 60.0 {
            thread::sleep(READING_INTERVAL);
            readings.push((began.elapsed().as_secs_f64() / 60.0, trial.usage()));
        }
        ended.store(true, Ordering::Relaxed);
        readings
    });
    trial.check(
        true,
        format!(
            "{} containers and {} clients came and went in {minutes:.0} min",
            containers.into_inner(),
            clients.into_inner()
        ),
    );

    let settled = &readings[(readings.len() as f64 * WARM_UP) as usize..];
    let of = |figure: fn(&Usage) -> f64| -> Vec<(f64, f64)> {
        settled
            .iter()
            .map(|(minute, usage)| (*minute, figure(usage)))
            .collect()
    };
    let memory = of(|usage| usage.rss_mib);
    let mean = memory.iter().map(|(_, rss)| rss).sum::<f64>() / memory.len() as f64;
    let slope = slope(&memory) / mean * 100.0;
    trial.check(
        slope <= MAX_SLOPE,
        format!("memory {mean:.1} MiB, {slope:+.3} % a minute (at most {MAX_SLOPE})"),
    );
    for (what, figures) in [
        ("open files", of(|usage| usage.files as f64)),
        ("threads", of(|usage| usage.threads as f64)),
    ] {
        let half = figures.len() / 2;
        let max = |figures: &[(f64, f64)]| {
            figures
                .iter()
                .map(|(_, figure)| *figure)
                .fold(0.0, f64::max)
        };
        let (first, second) = (max(&figures[..half]), max(&figures[half..]));
        trial.check(
            second <= first * 1.05 + 2.0,
            format!("{what}: maximum {first} in the first half, {second} in the second half"),
        );
    }
    // Waits until the clients that are still connected have left.
    let own = trial.before.files + 40;
    wait::until("the clients to leave", Duration::from_secs(30), || {
        (trial.usage().files < own).then_some(())
    });
    vec![trial.end()]
}

/// The growth of the second value per unit of the first value, by the method of least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    covariance / variance
}
