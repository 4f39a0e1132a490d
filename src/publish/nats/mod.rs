//! Snapshots, events and log lines → a NATS server.
//!
//! [`NatsPublisher`] is handed every snapshot by the aggregator: the newest goes out and no other waits; what is new of events and
//! logs waits in a `queue` until a server has it. `link` is the connection, `delivery` publishes one message, `news` cuts events
//! and lines into messages, `subject` names what is published.

mod delivery;
mod link;
mod news;
mod publisher;
mod queue;
#[cfg_attr(
    not(feature = "watch"),
    allow(dead_code, reason = "the terminal view reads what is published")
)]
pub(crate) mod subject;
mod tls;

#[cfg(feature = "watch")]
pub(crate) use link::{options, reason};
pub use publisher::NatsPublisher;
