//! Sends metrics, log lines and events to a receiver of OpenTelemetry, by OTLP over HTTP with protobuf.
//!
//! [`OtlpPublisher`] gets every snapshot from the aggregator, and passes it to two tasks: `metric_lane` sends the newest figures, and
//! `log_lane` sends each log line and event once. While a task waits for its receiver, the other task and all other outputs go on.
//!
//! `metrics` turns a snapshot into metrics, and `records` turns log lines and events into log records. `severity` reads the severity
//! and the trace of a log line. `resource` describes the host and the containers. `sender` sends a request, repeats it, and logs
//! problems. `client` is the HTTP client. `feed` passes snapshots to the tasks. `position` keeps the position in the logs over a restart.

mod attributes;
mod client;
mod feed;
mod log_lane;
mod metric_lane;
mod metrics;
mod position;
mod publisher;
mod records;
mod resource;
mod sender;
mod severity;

pub use publisher::{OtlpPublisher, SensedHost};
