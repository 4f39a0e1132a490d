//! STAGE 3: the outputs. The outputs are the socket, HTTP and NATS, and each output has its own folder. The aggregator passes
//! snapshots to the outputs.
//!
//! Outputs read no source. `figures` is the table of metrics. `admission` limits connections.

pub mod admission;
mod figures;
pub mod http;
#[cfg(test)]
mod metrics_page;
#[cfg(feature = "nats")]
pub mod nats;
pub mod socket;

pub(crate) use figures::collectors::is_published;
