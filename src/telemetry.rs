//! Writes the agent's own log: structured events on stderr. Also makes the process abort after a panic.

use std::io::{self, Write};
use std::panic;
use std::process;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::settings::{LogFormat, TelemetrySettings};

/// Maximum number of log events that wait because the reader of stderr is slow. Further events are dropped, because the log must
/// never delay the daemon.
const MAX_WAITING: usize = 2048;

/// Starts the log. When the guard is dropped, the log writes the events that still wait.
pub fn start(settings: &TelemetrySettings) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING)
        .thread_name("log")
        .finish(io::stderr());
    // The settings have checked the filter, so parsing cannot fail.
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
    // Logs only the agent's own events, because events of the NATS library at the level `trace` contain secrets.
    let own = filter_fn(|event| event.target().starts_with(env!("CARGO_CRATE_NAME")));
    tracing_subscriber::registry()
        .with(events.with_filter(filter.and(own)))
        .init();
    guard
}

/// Makes a panic log its place in the code and then abort the process. The supervisor then restarts the agent. Without the
/// abort, the agent would continue without one of its actors.
///
/// The text of the panic is not logged, because it can contain data that was being processed.
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
