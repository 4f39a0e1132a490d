//! System Agent: measures a Linux host and its Docker containers and streams complete
//! snapshots, as JSON lines, to every authenticated TCP client.
//!
//! Data flows one way, and the modules say so, in this order:
//!
//! ```text
//!  collect                         aggregate                publish
//!  SystemCollector ──┐
//!  DockerCollector ──┼─ Collected ─▶ Aggregator ─ Delivery ─▶ ClientSession ─▶ client
//!  LogCollector    ──┘               one encoding   │         one per connection
//!                                                   └──────▶  NatsPublisher, HTTP server
//! ```
//!
//! * [`settings`]: the environment, checked; all problems at once.
//! * [`model`]: the snapshot, as plain serde types.
//! * [`messages`]: everything that actors tell one another.
//! * [`collect`]: stage 1, one actor per source, each at its own interval.
//! * [`aggregate`]: stage 2, the newest of each source, composed and encoded once a tick.
//! * [`published`]: the snapshot of a tick, as every output is handed it.
//! * [`publish`]: stage 3, one folder an output: the socket with one actor per authenticated client, the HTTP server for
//!   Prometheus, what is published to a NATS server.
//! * [`app`]: the daemon: wiring, signals, the order of stopping; `announcement` is what it says first.
//! * [`check`], [`snapshot`] and [`watch`]: the commands beside the daemon.
//! * [`client`]: a client of agents.
//! * [`command_line`]: what can be said there.
//! * [`renewal`]: keys and certificates that change meanwhile.
//! * [`supervisor`]: what systemd is told; `backoff`: pauses between tries at something that fails.
//! * [`secrets`] and [`telemetry`]: what the process keeps to itself, and its log.
//!
//! A stage imports `settings`, `model`, `messages`, `published`, `supervisor` and `backoff`, and no other stage: stages meet as
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
pub mod messages;
pub mod model;
pub mod privileges;
pub mod publish;
pub mod published;
#[cfg(test)]
mod recorded;
pub mod renewal;
pub mod secrets;
pub mod settings;
pub mod snapshot;
pub mod supervisor;
pub mod telemetry;
#[cfg(feature = "watch")]
pub mod watch;
