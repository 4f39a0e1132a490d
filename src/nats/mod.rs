//! Beside stage 3: snapshots, events and log lines → a NATS server, of its own accord.
//!
//! [`NatsPublisher`] subscribes to the aggregator as a session does, twice: for snapshots, of which the newest goes out and no
//! other waits, and for what is new of events and logs, which waits in a `queue` until a server has it. `link` is the connection,
//! `delivery` publishes one message, `news` takes a snapshot apart, `subject` names what is published.

mod delivery;
mod link;
mod news;
mod publisher;
mod queue;
pub(crate) mod subject;
mod tls;

pub(crate) use link::{options, reason};
pub use publisher::{NatsPublisher, Subscriptions};
