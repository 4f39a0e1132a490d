//! STAGE 3: connections → authenticated sessions, each fed by the aggregator.
//!
//! `inbound` accepts connections, for [`Listener`] and for Prometheus. `admission` refuses those beyond the limits, of which
//! `pending`, `tls_handshakes` and `failed_keys` keep account. `handshake` authenticates the others. From then on
//! [`ClientSession`] is the only owner of a connection's write side.

mod address_prefix;
mod admission;
mod connection;
mod failed_keys;
mod first_input;
mod handshake;
mod inbound;
mod listener;
mod log_limit;
mod metrics;
mod pending;
mod session;
mod tls_handshakes;

pub use inbound::BindError;
pub use listener::{Listener, Threads};
pub use metrics::{MOST_SCRAPERS, Metrics};
pub use pending::{ConnectionLimits, MAX_PENDING};
pub use session::{ClientSession, Subscriptions};
