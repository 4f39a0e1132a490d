//! System Agent: measures a Linux host and its Docker containers, and streams complete snapshots as JSON lines to every
//! authenticated TCP client.
//!
//! Data flows in one direction, through three stages:
//!
//! ```text
//!  collect                         aggregate                publish
//!  SystemCollector ──┐
//!  DockerCollector ──┼─ Collected ─▶ Aggregator ─ Delivery ─▶ ClientSession ─▶ client
//!  LogCollector    ──┘               one encoding   │         one per connection
//!                                                   └──────▶  NatsPublisher, OtlpPublisher, HTTP server
//! ```
//!
//! * [`settings`]: reads and checks the environment variables. Reports all problems together.
//! * [`model`]: the snapshot as plain serde types.
//! * [`messages`]: all messages between actors.
//! * [`collect`]: stage 1, one actor for each source, each at its own interval.
//! * [`aggregate`]: stage 2. At each tick, once per publish interval, it composes a snapshot from the newest figures.
//! * [`published`]: the snapshot that stage 2 gives to all outputs, and the encoding of that snapshot.
//! * [`publish`]: stage 3. Each output has a folder: the socket, the HTTP server for Prometheus, and the publishers to NATS and to
//!   OpenTelemetry. The socket has one actor for each client.
//! * [`app`]: the daemon. It connects the stages, handles signals and stops everything in order. `announcement` writes the log
//!   events at the start.
//! * [`check`], [`snapshot`], [`update`], [`watch`] and [`web`]: the other commands. `feeds` receives the snapshots that `watch` and `web` show.
//! * [`client`]: a client library for agents.
//! * [`command_line`]: commands, arguments and help texts.
//! * [`renewal`]: reloads keys and certificates while the agent runs.
//! * [`supervisor`]: notifies systemd.
//! * `backoff`: calculates the pauses between retries.
//! * `http_connection`: connects to an HTTP server.
//! * [`secrets`]: protects the secrets in the memory of the process.
//! * [`privileges`]: gives up a privilege that the agent does not need.
//! * [`telemetry`]: the agent's own log.
//!
//! A stage imports `settings`, `model`, `messages`, `published`, `supervisor`, `backoff` and `http_connection`, but no other stage.
//! Stages exchange messages. [`app`] gives each stage the recipients of its messages. An actor contains little code and calls plain functions.

pub mod aggregate;
mod announcement;
pub mod app;
mod backoff;
pub mod check;
pub mod client;
pub mod collect;
pub mod command_line;
#[cfg(any(feature = "watch", feature = "web"))]
mod feeds;
#[cfg(test)]
mod fuzzing;
mod hash;
mod http_connection;
mod memory;
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
pub mod update;
#[cfg(feature = "watch")]
pub mod watch;
#[cfg(feature = "web")]
pub mod web;
