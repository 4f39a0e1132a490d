//! The agent as its users meet it: the real binary, real sockets, real processes.
//!
//! Every module is one topic; `support` is the harness they share. Each snapshot that a test reads is validated
//! against `config/snapshot.schema.json`, and everything an agent prints is searched for its API key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what it saw"
)]

mod commands;
mod configuration;
mod credentials;
mod docker;
mod docs;
mod examples;
mod expiry;
mod families;
mod figures;
mod fleet;
mod gpu;
mod guessing;
mod health_checks;
mod hellos;
mod host;
mod later;
mod layers;
mod metrics;
mod mounts;
mod nats;
mod nats_examples;
mod odd_host;
mod options;
mod protocol;
mod self_signed;
mod shutdown;
#[path = "../../benches/fleet/simulator.rs"]
mod simulator;
mod slow;
mod streaming;
mod supervisor;
mod support;
mod telemetry;
mod tls;
mod units;
mod watching;
mod whitelist;
