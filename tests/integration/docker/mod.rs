//! Docker: the real engine and real containers, what they do while the agent streams, and an engine's faults.
//!
//! Everything here needs a Docker engine at the local socket; what starts an engine of its own needs root too.
//! `SKIP_DOCKER=1 make test` leaves this module out, by its name.

mod changes;
mod check;
mod contained;
mod container;
mod details;
mod engine;
mod events;
mod faults;
mod figures;
mod load;
mod logs;
mod many;
mod metadata;
mod nats;
mod networks;
mod news;
mod odd;
mod odd_logs;
mod oddities;
mod outages;
mod pace;
mod podman;
mod privileges;
mod proxy;
mod remote;
mod scraped;
mod silent;
mod snapshots;
mod stand_in;
mod veths;
mod watched;
mod ways;

use std::time::Duration;

use crate::support::Launch;

/// The interval of every actor in these tests, unless a test says otherwise.
const INTERVAL: Duration = Duration::from_secs(1);

/// How soon after its return the engine must be seen again.
const RECOVERY: Duration = Duration::from_secs(15);

/// The daemon with Docker, at the local socket, every [`INTERVAL`].
fn launch() -> Launch {
    Launch::new().vars(&[
        ("DOCKER_ENABLED", "true"),
        ("PUBLISH_INTERVAL", "1s"),
        ("SYSTEM_INTERVAL", "1s"),
        ("DOCKER_INTERVAL", "1s"),
        ("LOG_INTERVAL", "1s"),
    ])
}

/// Fails unless `ours` is within 10 % of `theirs`.
fn assert_close(what: &str, ours: f64, theirs: f64) {
    let off = (ours - theirs).abs();
    assert!(off <= theirs.abs() / 10.0, "{what}: {ours}, but {theirs}");
}
