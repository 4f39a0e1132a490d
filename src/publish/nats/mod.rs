//! Publishes snapshots, events and log lines to a NATS server.
//!
//! [`NatsPublisher`] gets every snapshot from the aggregator. It publishes the newest snapshot, and skips a snapshot if a newer
//! snapshot exists. New events and log lines wait in a `queue` until a server has confirmed them.
//!
//! `link` opens the connection. `delivery` publishes one message. `news`
//! splits events and log lines into messages. `subject` has the names of the subjects.

mod delivery;
mod link;
mod news;
mod publisher;
mod queue;
#[cfg_attr(
    not(any(feature = "watch", feature = "web")),
    allow(
        dead_code,
        reason = "only the terminal view uses all functions of this module"
    )
)]
pub(crate) mod subject;

#[cfg(any(feature = "watch", feature = "web"))]
pub(crate) use link::{options, reason};
pub use publisher::NatsPublisher;
