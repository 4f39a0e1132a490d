//! What happens to containers.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Something that happened to a container. Source: the engine's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// When, by the engine's clock.
    pub time: Timestamp,
    /// What.
    pub action: EventAction,
    /// The container's name, without the slash.
    pub container: String,
    /// The first 12 hex digits of the container's id.
    pub id: String,
    /// The image that it was made from.
    pub image: String,
    /// Of `die`: the exit status of its first process, 128 + n where signal n ended it. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Of `health_status`: what it is now, `healthy` or `unhealthy`. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Of `rename`: its name before, without the slash. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
}

/// What can happen to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventAction {
    /// It was started.
    Start,
    /// It ended.
    Die,
    /// The kernel killed one of its processes for want of memory.
    Oom,
    /// Its health check found that it is well, or no longer so.
    HealthStatus,
    /// It was told to restart, and has done so.
    Restart,
    /// Its processes were frozen.
    Pause,
    /// They were thawed.
    Unpause,
    /// It was removed.
    Destroy,
    /// It was given another name.
    Rename,
    /// One that a later version knows.
    #[serde(untagged)]
    Other(String),
}

/// The newest events, numbered: which of them a client has been sent is one number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    newest: VecDeque<ContainerEvent>,
    end: u64,
}

impl Events {
    /// How many events are kept.
    pub const MOST: usize = 256;

    /// Takes in one more; the oldest goes where there are too many.
    pub fn push(&mut self, event: ContainerEvent) {
        if self.newest.len() == Self::MOST {
            self.newest.pop_front();
        }
        self.newest.push_back(event);
        self.end += 1;
    }

    /// How many there have been.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Those that are kept, oldest first.
    pub fn newest(&self) -> impl Iterator<Item = &ContainerEvent> {
        self.newest.iter()
    }

    /// Those after the first `position`, oldest first, and how many of them are no longer kept.
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
    fn the_newest_are_kept_and_the_rest_counted() {
        let mut events = Events::default();
        let after = |events: &Events, position| {
            let (kept, dropped) = events.after(position);
            (kept.cloned().collect::<Vec<_>>(), dropped)
        };
        assert_eq!(after(&events, 0), (vec![], 0));
        for second in 0..300 {
            events.push(event(second));
        }
        assert_eq!(events.end(), 300);
        assert_eq!(after(&events, 298), (vec![event(298), event(299)], 0));
        assert_eq!(after(&events, 300), (vec![], 0));
        assert_eq!(after(&events, 301), (vec![], 0));
        let (kept, dropped) = after(&events, 10);
        assert_eq!((kept.len(), &kept[0], dropped), (256, &event(44), 34));
    }
}
