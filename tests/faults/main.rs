//! The agent under faults: `make faults`, and for half an hour with everything coming and going: `make soak`.
//!
//! Each fault has an agent of its own, the real binary, and an ordinary client that reads every line from before the fault
//! until after it ([`client`]): none may be lost, late or invalid. What else is expected of the agent is said, measured and
//! judged line by line ([`trial`]). Arguments pick faults by a part of their name; with none, all of them are run. `soak` is
//! run by its whole name only.
//!
//! | variable | default | |
//! |---|---|---|
//! | `SOAK_MINUTES` | `30` | how long `soak` runs |
//! | `FREEZE_SECONDS` | `300` | how long the engine with 50 containers is frozen |
//! | `FUZZ_SECONDS` | `30` | how long each parser is fuzzed |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is shown is the purpose; what cannot be tried fails by panicking"
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

/// What can be tried, and how.
const FAULTS: [(&str, fn() -> Vec<Report>); 18] = [
    ("engine killed", engines::killed),
    ("engine stopped for a minute", engines::stopped),
    ("engine frozen with 50 containers", engines::frozen),
    ("engine restarted 20 times", engines::restarted),
    ("engine that answers oddly", engines::odd),
    ("odd values beside 20 good containers", engines::odd_values),
    ("20,000 containers", engines::twenty_thousand),
    ("containers by the hundred each second", engines::churn),
    ("text of every kind", texts::of_every_kind),
    ("a log without measure", texts::flood),
    ("clock set back and forward", host::clock),
    ("50,000 connections", connections::crowd),
    ("10,000 cut-short hellos", connections::cut_short),
    ("20 mounts, 10 of them slow", mounts::slow),
    ("no descriptors left", host::no_descriptors),
    ("nowhere to log to", host::nowhere_to_log),
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
