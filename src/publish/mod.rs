//! STAGE 3: everything that leaves the agent, one folder an output. Each is handed snapshots as they are in the model.

pub mod admission;
mod figures;
pub mod http;
#[cfg(feature = "nats")]
pub mod nats;
pub mod socket;
