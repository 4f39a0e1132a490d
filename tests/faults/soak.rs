//! Half an hour with everything coming and going: what does the agent keep that it should not?

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::docker::container::Container;
use crate::support::{KEY, wait};
use crate::trial::{Report, Trial, Usage, launch};

/// Containers that stay.
const CONTAINERS: usize = 10;
/// How often the agent is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long everything may take to be as it will be.
const WARM_UP: f64 = 0.25;
/// The most that memory may grow in a minute, in percent.
const SLOPE: f64 = 0.1;

/// What clients ask for, in turn.
const OPTIONS: [&str; 5] = [
    "",
    r#" {"sections":["system"]}"#,
    r#" {"logs":"new"}"#,
    r#" {"encoding":"zstd","every":2}"#,
    r#" {"sections":["containers","events"],"every":3}"#,
];

pub(crate) fn run() -> Vec<Report> {
    let minutes: f64 = std::env::var("SOAK_MINUTES").map_or(30.0, |minutes| {
        minutes.parse().expect("SOAK_MINUTES is a number")
    });
    let script = "while :; do echo a line of a container that stays; sleep 1; done";
    let _stay: Vec<_> = (0..CONTAINERS)
        .map(|_| Container::run("stays", &[], script))
        .collect();
    let mut trial = Trial::start("soak", launch().var("DOCKER_ENABLED", "true"));
    let ended = AtomicBool::new(false);
    let (containers, clients) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let goes_on = || !ended.load(Ordering::Relaxed);
    let readings: Vec<(f64, Usage)> = thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                let container = Container::run("goes", &[], "seq 100; sleep 1000");
                thread::sleep(Duration::from_secs(1));
                drop(container);
                containers.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            for options in OPTIONS.iter().cycle() {
                if !goes_on() {
                    return;
                }
                let mut client = trial.agent.connect();
                // Every now and then one without the key.
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
            thread::sleep(LOOK);
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
        slope <= SLOPE,
        format!("memory {mean:.1} MiB, {slope:+.3} % a minute (at most {SLOPE})"),
    );
    for (what, figures) in [
        ("open files", of(|usage| usage.files as f64)),
        ("threads", of(|usage| usage.threads as f64)),
    ] {
        let half = figures.len() / 2;
        let most = |figures: &[(f64, f64)]| {
            figures
                .iter()
                .map(|(_, figure)| *figure)
                .fold(0.0, f64::max)
        };
        let (first, second) = (most(&figures[..half]), most(&figures[half..]));
        trial.check(
            second <= first * 1.05 + 2.0,
            format!("{what}: at most {first}, then {second}"),
        );
    }
    // Those that are still connected leave.
    let own = trial.before.files + 40;
    wait::until("the clients' end", Duration::from_secs(30), || {
        (trial.usage().files < own).then_some(())
    });
    vec![trial.end()]
}

/// By how much the second figure grows with the first, by least squares.
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
