//! Events of containers, such as a start or an exit.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// An event of a container. Source: the engine's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// The time of the event, by the engine's clock.
    pub time: Timestamp,
    /// The kind of event.
    pub action: EventAction,
    /// The container's name, without the slash.
    pub container: String,
    /// The first 12 hex digits of the container's id.
    pub id: String,
    /// The image from which the container was created.
    pub image: String,
    /// Only for `die`: the exit status of the container's first process. The status is 128 + n if signal n ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Only for `health_status`: the new state, `healthy` or `unhealthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Only for `rename`: the container's old name, without the slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventAction {
    /// The container was started.
    Start,
    /// The container ended.
    Die,
    /// The kernel killed a process of the container because of too little memory.
    Oom,
    /// The result of the container's health check changed.
    HealthStatus,
    /// The container was restarted on request.
    Restart,
    /// The container was paused.
    Pause,
    /// The container was resumed.
    Unpause,
    /// The container was removed.
    Destroy,
    /// The container was renamed.
    Rename,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}

/// The newest events. Events are numbered. So the position of a client is a single number: the number of events that the client
/// has received or missed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    newest: VecDeque<ContainerEvent>,
    end: u64,
    old: u64,
}

impl Events {
    /// Maximum number of events that are stored.
    pub const MOST: usize = 256;

    /// Adds an event. If [`Events::MOST`] events are already stored, drops the oldest event. `is_old` tells whether the event
    /// happened before the agent started.
    pub fn push(&mut self, event: ContainerEvent, is_old: bool) {
        if self.newest.len() == Self::MOST {
            self.newest.pop_front();
        }
        self.newest.push_back(event);
        self.end += 1;
        self.old += u64::from(is_old);
    }

    /// Returns the number of events that happened before the agent started. They are the first events. Only clients that resume an
    /// earlier connection get them.
    #[must_use]
    pub fn old(&self) -> u64 {
        self.old
    }

    /// Returns the number of all events so far, including dropped events.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the stored events, oldest first.
    pub fn newest(&self) -> impl DoubleEndedIterator<Item = &ContainerEvent> + ExactSizeIterator {
        self.newest.iter()
    }

    /// Returns the last of the first `position` events. None if it is no longer stored.
    #[must_use]
    pub fn before(&self, position: u64) -> Option<&ContainerEvent> {
        let from_end = usize::try_from(self.end.checked_sub(position)?).ok()?;
        self.newest.iter().rev().nth(from_end)
    }

    /// Returns the events after the first `position` events: the events that are still stored, oldest first, and the number of
    /// events that were dropped.
    pub fn after(&self, position: u64) -> (impl Iterator<Item = &ContainerEvent>, u64) {
        let new = self.end.saturating_sub(position);
        let kept = usize::try_from(new).map_or(self.newest.len(), |new| new.min(self.newest.len()));
        let old = self.newest.len() - kept;
        (self.newest.iter().skip(old), new - kept as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{ContainerEvent, EventAction, Events};
    use crate::model::Timestamp;

    fn event(second: u64) -> ContainerEvent {
        ContainerEvent {
            time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(second)),
            action: EventAction::Start,
            container: "web".to_owned(),
            id: "0123456789ab".to_owned(),
            image: "nginx".to_owned(),
            exit_code: None,
            health: None,
            renamed_from: None,
        }
    }

    #[test]
    fn the_newest_events_are_stored_and_the_dropped_events_are_counted() {
        let mut events = Events::default();
        let after = |events: &Events, position| {
            let (kept, dropped) = events.after(position);
            (kept.cloned().collect::<Vec<_>>(), dropped)
        };
        assert_eq!(after(&events, 0), (vec![], 0));
        for second in 0..300 {
            events.push(event(second), false);
        }
        assert_eq!(events.end(), 300);
        assert_eq!(after(&events, 298), (vec![event(298), event(299)], 0));
        assert_eq!(after(&events, 300), (vec![], 0));
        assert_eq!(after(&events, 301), (vec![], 0));
        let (kept, dropped) = after(&events, 10);
        assert_eq!((kept.len(), &kept[0], dropped), (256, &event(44), 34));
    }
}
