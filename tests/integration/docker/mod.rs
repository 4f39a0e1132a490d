//! Tests with Docker: a real engine, real containers, changes while the agent streams, and faults of an engine.
//!
//! All tests here need a Docker engine at the local socket. Tests that start a private engine need root as well.
//! `SKIP_DOCKER=1 make test` skips this module by its name.

mod changes;
mod check;
mod contained;
mod container;
mod dashboards;
mod details;
mod disk_use;
mod drivers;
mod engine;
mod events;
mod faults;
mod figures;
mod history;
mod left_out;
mod live;
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
mod otlp;
mod otlp_receivers;
mod outages;
mod pace;
mod page;
mod peer_alerts;
mod podman;
mod privileges;
mod proxy;
mod ranges;
mod remote;
mod resume;
mod scraped;
mod silent;
mod sizes;
mod snapshots;
mod stand_in;
mod stopped;
mod veths;
mod watched;
mod ways;

use std::time::Duration;

use crate::support::Launch;

/// The interval of every source in these tests, except where a test sets another interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// After an engine returns, the agent must find the engine within this time.
const RECOVERY: Duration = Duration::from_secs(15);

/// An agent that reads the engine at the local socket every [`INTERVAL`].
fn launch() -> Launch {
    Launch::new().vars(&[
        ("DOCKER_ENABLED", "true"),
        ("PUBLISH_INTERVAL", "1s"),
        ("SYSTEM_INTERVAL", "1s"),
        ("DOCKER_INTERVAL", "1s"),
        ("LOG_INTERVAL", "1s"),
    ])
}

/// Fails unless `ours` differs from `theirs` by at most 10 %.
fn assert_close(what: &str, ours: f64, theirs: f64) {
    let off = (ours - theirs).abs();
    assert!(
        off <= theirs.abs() / 10.0,
        "{what}: expected {theirs} ± 10 %, got {ours}"
    );
}
