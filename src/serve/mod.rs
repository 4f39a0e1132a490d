//! STAGE 3: connections → authenticated sessions, each fed by the aggregator.
//!
//! [`Listener`] accepts and turns away; `handshake` settles who stays;
//! [`ClientSession`] is the only owner of a connection's write side from then on.

mod connection;
mod handshake;
mod listener;
mod session;

pub use listener::{BindError, Listener, Subscriptions, Threads};
pub use session::ClientSession;
