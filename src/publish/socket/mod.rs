//! The agent's socket: connections → authenticated sessions, each fed by the aggregator.
//!
//! The `entrance` accepts and turns away, for [`Listener`] and for the HTTP server; `handshake` settles who stays, of those for whom
//! the `lobby` has room; [`ClientSession`] is the only owner of a connection's write side from then on.

mod connection;
pub(super) mod door;
pub(super) mod entrance;
mod handshake;
pub(super) mod hello;
pub(super) mod inbound;
mod listener;
pub(super) mod lobby;
pub(super) mod origin;
mod session;
mod throttle;

pub use inbound::BindError;
pub use listener::{Listener, Subscriptions, Threads};
pub use lobby::{MOST_WAITING, Room};
pub use session::ClientSession;
