//! The agent's own log: structured events on stderr.

use std::io::{self, Write};
use std::panic;
use std::process;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::settings::{LogFormat, TelemetrySettings};

/// Lines that wait for a reader of stderr that is slow or gone; further ones are dropped, as a
/// log must never hold up the daemon.
const WAITING_LINES: usize = 8192;

/// Starts the log. What is still waiting is written when the guard is dropped.
pub fn start(settings: &TelemetrySettings) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(io::stderr());
    // The settings have checked it.
    let filter: Targets = settings.filter.parse().unwrap_or_default();
    let events = match settings.format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(writer).boxed(),
    };
    // Of the agent's own events alone: at `trace` the NATS client's show what it proves itself with.
    let own = filter_fn(|event| event.target().starts_with(env!("CARGO_CRATE_NAME")));
    tracing_subscriber::registry()
        .with(events.with_filter(filter.and(own)))
        .init();
    guard
}

/// Makes a panic end the process at once, non-zero, after saying where it happened: a supervisor
/// restarts the agent, where an agent without one of its actors would limp on silently.
///
/// The panic's own text is left out: it may quote what was being processed.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        let thread = std::thread::current();
        let event = serde_json::json!({
            "level": "ERROR",
            "message": "agent panicked",
            "place": place,
            "thread": thread.name(),
        });
        let _ = writeln!(io::stderr(), "{event}");
        process::abort();
    }));
}
