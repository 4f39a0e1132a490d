//! STAGE 3: connections → authenticated sessions, each fed by the aggregator.
//!
//! [`Listener`] accepts and turns away; `handshake` settles who stays, of those for whom the `lobby` has room;
//! [`ClientSession`] is the only owner of a connection's write side from then on.

mod connection;
mod door;
mod handshake;
mod listener;
mod lobby;
mod origin;
mod session;
mod throttle;

pub use listener::{BindError, Listener, Subscriptions, Threads};
pub use lobby::{MOST_WAITING, Room};
pub use session::ClientSession;
