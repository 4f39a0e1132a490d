//! The agent's TCP socket: authenticates connections and sends snapshots to clients.
//!
//! [`Listener`] accepts connections. `admission` decides which connections are refused or evicted. `handshake` authenticates a
//! connection. After that, only [`ClientSession`] writes to the connection. The aggregator sends the snapshots to the session.
//! `range` answers clients that ask for older log lines.

mod connection;
mod handshake;
mod listener;
mod range;
mod session;

pub use listener::{Listener, Threads};
pub use range::RANGE_READINGS;
pub use session::{ClientSession, Subscriptions};
