//! System Agent: measures a Linux host and its Docker containers and streams complete
//! snapshots, as JSON lines, to every authenticated TCP client.
//!
//! Data flows one way, and the modules say so, in this order:
//!
//! ```text
//!  collect                         aggregate                serve
//!  SystemCollector ──┐
//!  DockerCollector ──┼─ Collected ─▶ Aggregator ─ Delivery ─▶ ClientSession ─▶ client
//!  LogCollector    ──┘               one encoding   │         one per connection
//!                                                   │         nats
//!                                                   └──────▶  NatsPublisher ─▶ server
//! ```
//!
//! * [`settings`]: the environment, checked; all problems at once.
//! * [`model`]: the snapshot, as plain serde types.
//! * [`messages`]: everything that actors tell one another.
//! * [`collect`]: stage 1, one actor per source, each at its own interval.
//! * [`aggregate`]: stage 2, the newest of each source, composed and encoded once a tick.
//! * [`serve`]: stage 3, the socket and one actor per authenticated client.
//! * [`nats`]: beside it, what is published to a NATS server.
//! * [`app`]: the daemon: wiring, signals, the order of stopping; `announcement` is what it says first.
//! * [`check`], [`snapshot`] and [`watch`]: the commands beside the daemon.
//! * [`client`]: a client of agents.
//! * [`command_line`]: what can be said there.
//! * [`renewal`]: keys and certificates that change meanwhile.
//! * [`supervisor`]: what systemd is told; `backoff`: pauses between tries at something that fails.
//! * [`memory`], [`secrets`] and [`telemetry`]: the process's allocator, what it keeps to itself, and its log.
//!
//! A stage imports `settings`, `model`, `messages`, `supervisor` and `backoff`, and no other stage: stages meet as
//! recipients of messages, wired in [`app`]. An actor is a thin shell around plain functions.

pub mod aggregate;
mod announcement;
pub mod app;
mod backoff;
pub mod check;
pub mod client;
pub mod collect;
pub mod command_line;
#[cfg(test)]
mod fuzzing;
pub mod memory;
pub mod messages;
pub mod model;
pub mod nats;
pub mod privileges;
pub mod renewal;
pub mod secrets;
pub mod serve;
pub mod settings;
pub mod snapshot;
pub mod supervisor;
pub mod telemetry;
pub mod watch;
