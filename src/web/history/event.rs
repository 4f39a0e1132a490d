//! Events of containers, as sentences.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::model::{ContainerEvent, EventAction};
use crate::web::figures::bare;

/// Events in the order of their times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::web) struct EventsAnswer {
    pub(in crate::web) events: Vec<Event>,
    /// Whether there are later events in the range, which are left out.
    pub(in crate::web) more: bool,
}

/// An event of a container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::web) struct Event {
    /// In milliseconds since 1970, by the clock of the container's host.
    pub(in crate::web) at: i64,
    pub(in crate::web) container: Option<String>,
    pub(in crate::web) kind: String,
    pub(in crate::web) text: String,
    pub(in crate::web) severity: &'static str,
}

impl From<&ContainerEvent> for Event {
    fn from(event: &ContainerEvent) -> Self {
        let name = bare(&event.container);
        let (kind, text, severity) = match &event.action {
            EventAction::Start => ("start", format!("{name} started"), "info"),
            EventAction::Die => match event.exit_code {
                Some(code @ 1..) => ("die", format!("{name} exited with code {code}"), "warning"),
                Some(code) => ("die", format!("{name} exited with code {code}"), "info"),
                None => ("die", format!("{name} exited"), "info"),
            },
            EventAction::Oom => ("oom", format!("{name} ran out of memory"), "critical"),
            EventAction::HealthStatus => {
                let health = event.health.as_deref().unwrap_or("of unknown health");
                let severity = if health == "unhealthy" {
                    "warning"
                } else {
                    "info"
                };
                ("health", format!("{name} is {health}"), severity)
            }
            EventAction::Restart => ("restart", format!("{name} was restarted"), "info"),
            EventAction::Pause => ("pause", format!("{name} was paused"), "info"),
            EventAction::Unpause => ("unpause", format!("{name} runs again"), "info"),
            EventAction::Destroy => ("destroy", format!("{name} was removed"), "info"),
            EventAction::Rename => ("rename", format!("{name} was renamed"), "info"),
            EventAction::Other(other) => (other.as_str(), format!("{name}: {other}"), "info"),
        };
        let since_1970 = event.time.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: since_1970.as_millis() as i64,
            container: Some(name.to_owned()),
            kind: kind.to_owned(),
            text,
            severity,
        }
    }
}
