//! The agent's socket: connections → authenticated sessions, each fed by the aggregator.
//!
//! [`Listener`] accepts connections that `admission` lets in. `handshake` authenticates them. From then on [`ClientSession`] is the
//! only owner of a connection's write side.

mod connection;
mod handshake;
mod listener;
mod session;

pub use listener::{Listener, Threads};
pub use session::{ClientSession, Subscriptions};
