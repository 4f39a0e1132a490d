//! Integration tests: they start the agent's real binary and talk to it through real sockets.
//!
//! Each module has the tests of one topic. All modules share the harness in `support`. The harness validates each
//! snapshot against `config/snapshot.schema.json` and fails a test whose agent prints its API key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by a panic and prints what it found"
)]

mod commands;
mod configuration;
mod credentials;
mod dashboards;
mod docker;
mod docs;
mod examples;
mod expiry;
mod families;
mod figures;
mod fleet;
mod gpu;
mod guessing;
mod guest;
mod health_checks;
mod hellos;
mod history;
mod host;
mod later;
mod layers;
mod metrics;
mod mounts;
mod nats;
mod nats_examples;
mod node_exporter;
mod odd_host;
mod options;
mod otlp;
mod pages;
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
mod textfile;
mod tls;
mod top_io;
mod units;
mod update;
mod virtualization;
mod watching;
mod web;
mod whitelist;
