//! STAGE 3: connections → authenticated sessions, each fed by the aggregator.
//!
//! The `entrance` accepts and turns away, for [`Listener`] and for Prometheus; `handshake` settles who stays, of those for whom
//! the `lobby` has room; [`ClientSession`] is the only owner of a connection's write side from then on.

mod connection;
mod door;
mod entrance;
mod handshake;
mod hello;
mod inbound;
mod listener;
mod lobby;
mod metrics;
mod origin;
mod session;
mod throttle;

pub use inbound::BindError;
pub use listener::{Listener, Subscriptions, Threads};
pub use lobby::{MOST_WAITING, Room};
pub use metrics::{MOST_SCRAPERS, Metrics};
pub use session::ClientSession;
