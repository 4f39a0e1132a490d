//! STAGE 1: reading the host, the engine and the logs.
//!
//! One folder per source, each with its actor in `mod.rs` and its plain logic beside it. An
//! actor here is a shell around `schedule::run`, which reads its source round after round and
//! publishes what comes of it.

mod backoff;
pub mod docker;
pub mod logs;
mod schedule;
pub mod system;

pub use schedule::{Round, Source, collect_once};

use std::error::Error;

/// An error with all its causes, which libraries often keep to themselves.
#[must_use]
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
