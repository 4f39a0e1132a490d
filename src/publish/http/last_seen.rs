//! Remembers the containers of earlier scrapes for a while after their end.
//!
//! An alert rule for ended containers compares the time with `container_last_seen`. cAdvisor's samples have time stamps, so
//! Prometheus returns the final sample of a container for five minutes. The agent's samples have none, and Prometheus drops a
//! series at once when the sample is missing. Therefore, the sample stays for the same time.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::Snapshot;
use crate::publish::figures::ended::EndedContainer;

/// How long a container stays after its end. Prometheus returns old samples for this time by default.
const KEPT: Duration = Duration::from_secs(300);
/// Maximum number of ended containers. Older ones are dropped.
const MAX_ENDED: usize = 256;

/// The containers of the newest scrapes, by the path of the control group.
#[derive(Default)]
pub(super) struct LastSeen(Mutex<HashMap<String, EndedContainer>>);

impl LastSeen {
    /// Takes the containers of a snapshot. Returns the containers that earlier snapshots had and this one does not have.
    pub(super) fn update(&self, snapshot: &Snapshot) -> Arc<[EndedContainer]> {
        let Some(now) = snapshot.sources.docker.collected_at else {
            return Arc::default();
        };
        // A lock is poisoned only by a panic, and a panic ends the process.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for one in snapshot.containers.iter() {
            match known.get_mut(&one.group.path) {
                Some(known) if known.has_name(one) => known.seen = now,
                _ => {
                    let seen = EndedContainer::new(one, now);
                    known.insert(one.group.path.clone(), seen);
                }
            }
        }
        known.retain(|_, one| {
            let age = now.0.duration_since(one.seen.0);
            age.is_ok_and(|age| age <= KEPT)
        });
        let ended = known.iter().filter(|(_, one)| one.seen != now);
        let mut ended: Vec<_> = ended
            .map(|(path, one)| (path.clone(), one.clone()))
            .collect();
        ended.sort_by(|(path, one), (other_path, other)| {
            (Reverse(one.seen.0), path).cmp(&(Reverse(other.seen.0), other_path))
        });
        for (path, _) in ended.drain(MAX_ENDED.min(ended.len())..) {
            known.remove(&path);
        }
        ended.into_iter().map(|(_, one)| one).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{KEPT, LastSeen, MAX_ENDED, Snapshot};
    use crate::model::{ControlGroup, Timestamp};

    /// A snapshot of containers with these ids, this many seconds after the recorded one.
    fn snapshot(ids: &[String], seconds: u64) -> Snapshot {
        let mut snapshot = Snapshot::recorded();
        let recorded = snapshot.containers[0].clone();
        let containers = ids.iter().map(|id| {
            let mut one = recorded.clone();
            one.name = format!("/{id}").into();
            one.group = Arc::new(ControlGroup {
                path: format!("/docker/{id}"),
                directories: None,
            });
            one
        });
        snapshot.containers = containers.collect::<Vec<_>>().into();
        let at = &mut snapshot.sources.docker.collected_at;
        *at = at.map(|Timestamp(at)| Timestamp(at + Duration::from_secs(seconds)));
        snapshot
    }

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn a_container_stays_for_five_minutes_after_its_end() {
        let seen = LastSeen::default();
        let first = snapshot(&ids(&["a", "b"]), 0);
        assert_eq!(seen.update(&first).len(), 0);
        // The same snapshot again.
        assert_eq!(seen.update(&first).len(), 0);
        for seconds in [5, KEPT.as_secs()] {
            let ended = seen.update(&snapshot(&ids(&["a"]), seconds));
            assert_eq!(ended.len(), 1);
            assert!(format!("{ended:?}").contains("/docker/b"));
            assert_eq!(Some(ended[0].seen), first.sources.docker.collected_at);
        }
        assert_eq!(seen.update(&snapshot(&ids(&["a"]), 301)).len(), 0);
        // It runs again, and ends again.
        assert_eq!(seen.update(&snapshot(&ids(&["a", "b"]), 302)).len(), 0);
        assert_eq!(seen.update(&snapshot(&ids(&["b"]), 303)).len(), 1);
    }

    #[test]
    fn the_newest_ended_containers_stay() {
        let seen = LastSeen::default();
        for number in 0..2 * MAX_ENDED {
            let one = [format!("{number:03}")];
            let ended = seen.update(&snapshot(&one, number as u64 / 4));
            assert!(ended.len() <= MAX_ENDED);
        }
        let ended = seen.update(&snapshot(&[], 2 * MAX_ENDED as u64 / 4));
        assert_eq!(ended.len(), MAX_ENDED);
        assert!(format!("{:?}", ended[0]).contains("/docker/508"));
    }
}
