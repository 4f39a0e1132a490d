//! What every test stands on: the agent as a child process, clients of it, and waiting with deadlines.
#![allow(
    dead_code,
    unused_imports,
    reason = "the harness comes before the tests that use it"
)]

mod agent;
mod client;
mod lines;
pub(crate) mod net;
pub(crate) mod schema;
pub(crate) mod wait;

pub(crate) use agent::{Agent, Event, Finished, KEY, Launch};
pub(crate) use client::{Client, Ending};
pub(crate) use lines::Lines;
pub(crate) use wait::PATIENCE;
