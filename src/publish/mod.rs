//! STAGE 3: the outputs. The outputs are the socket, HTTP, NATS and OpenTelemetry, and each output has its own folder. The aggregator passes
//! snapshots to the outputs.
//!
//! Outputs read no source. `on_request` asks collectors for figures that are not in every snapshot. `figures` is the table of metrics. `admission` limits connections. `server_tls` is TLS with the
//! servers of outputs.

pub mod admission;
mod figures;
pub mod http;
#[cfg(test)]
mod metrics_page;
#[cfg(feature = "nats")]
pub mod nats;
pub mod on_request;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(any(feature = "nats", feature = "otlp"))]
mod server_tls;
pub mod socket;

pub(crate) use figures::collectors::is_published;
