//! The agent under faults. `make faults` runs the trials. `make soak` runs the agent for half an hour while containers and
//! clients come and go.
//!
//! Each fault has its own agent, which is the real binary. An ordinary client reads every JSON line before, during and after the
//! fault ([`client`]). No snapshot may be lost, late or invalid. Each trial also has checks of its own, and prints their results
//! ([`trial`]). Arguments select faults by a part of the fault's name. Without arguments all faults run. `soak` runs only by its
//! full name.
//!
//! | variable | default | |
//! |---|---|---|
//! | `SOAK_MINUTES` | `30` | how long `soak` runs, in minutes |
//! | `FREEZE_SECONDS` | `300` | how long the engine with 50 containers is frozen, in seconds |
//! | `FUZZ_SECONDS` | `30` | how long each parser is fuzzed, in seconds |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program prints its results, and panics when a trial cannot run"
)]

mod client;
mod connections;
mod engines;
mod host;
mod mounts;
mod soak;
mod texts;
mod trial;

#[allow(dead_code, unused_imports, reason = "shared with the tests")]
#[path = "../integration/support/mod.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../integration/docker"]
mod docker {
    pub(crate) mod container;
    pub(crate) mod engine;
    pub(crate) mod oddities;
    pub(crate) mod stand_in;
}

use std::process::ExitCode;
use std::time::Instant;

use trial::Report;

/// The name of each fault and the function that runs its trials.
const FAULTS: [(&str, fn() -> Vec<Report>); 18] = [
    ("engine killed", engines::killed),
    ("engine stopped for a minute", engines::stopped),
    ("engine frozen with 50 containers", engines::frozen),
    ("engine restarted 20 times", engines::restarted),
    ("engine that answers oddly", engines::odd),
    (
        "odd values in an engine with 20 good containers",
        engines::odd_values,
    ),
    ("20,000 containers", engines::twenty_thousand),
    (
        "100 containers started and removed each second",
        engines::churn,
    ),
    ("odd texts of containers and engines", texts::of_every_kind),
    ("one container that logs as fast as it can", texts::flood),
    ("clock set back and forward", host::clock),
    ("50,000 connections", connections::crowd),
    (
        "10,000 interrupted TLS ClientHellos",
        connections::cut_short,
    ),
    ("20 mounts, 10 of them slow", mounts::slow),
    ("limit of 64 open files", host::no_descriptors),
    ("standard error closed or full", host::nowhere_to_log),
    ("32 MiB of memory", host::little_memory),
    ("host suspended", host::suspended),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut reports = Vec::new();
    if wanted.iter().any(|wanted| wanted == "soak") {
        reports.extend(soak::run());
    } else {
        let is_wanted = |name: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()))
        };
        for (name, fault) in FAULTS.iter().filter(|(name, _)| is_wanted(name)) {
            eprintln!("{name} …");
            let started = Instant::now();
            reports.extend(fault());
            eprintln!("{name}: {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    trial::print(&reports);
    if reports.iter().all(Report::passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
