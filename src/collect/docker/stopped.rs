//! Knows the containers that do not run. Inspects each of them once after it has stopped.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};

use super::engine::{Call, EngineError, Inspected};
use super::inspection::INSPECTIONS_AT_ONCE;
use super::listing::ListedContainer;
use crate::messages::Stopped;
use crate::model::{StoppedContainer, Timestamp};

/// Maximum number of stopped containers that are published, and that are inspected after one reading of the container list.
const MAX_STOPPED: usize = 256;

/// The stopped containers of the newest list of all containers.
#[derive(Default)]
pub(super) struct StoppedContainers {
    /// The containers that are published, by id.
    known: HashMap<String, Known>,
    published: Arc<Stopped>,
}

/// A container that is published.
struct Known {
    listed: ListedContainer,
    shown: Arc<StoppedContainer>,
    /// False if the inspection failed. It is tried again after the next reading of the list.
    is_inspected: bool,
}

impl StoppedContainers {
    pub(super) fn published(&self) -> &Arc<Stopped> {
        &self.published
    }

    /// Replaces the stopped containers by those of a new list. Inspects the containers that have stopped or changed since the
    /// previous list, and further ones if fewer than [`MAX_STOPPED`] are known. `surplus` is the number of stopped containers that
    /// are missing in `listed`. `is_due` tells whether a container has changed or has run at the previous list.
    pub(super) async fn update(
        &mut self,
        call: &Call,
        listed: Vec<ListedContainer>,
        surplus: usize,
        is_due: impl Fn(&str) -> bool,
    ) {
        let all = listed.len() + surplus;
        let due = self.due(listed, is_due);
        let inspected: Vec<_> = stream::iter(due)
            .map(|listed| async {
                let inspected = call.inspect(&listed.id).await;
                (listed, inspected)
            })
            .buffer_unordered(INSPECTIONS_AT_ONCE)
            .collect()
            .await;
        self.add(inspected);
        self.publish(all);
    }

    /// Forgets the containers that are not in the list. Returns those to inspect.
    fn due(
        &mut self,
        listed: Vec<ListedContainer>,
        is_due: impl Fn(&str) -> bool,
    ) -> Vec<ListedContainer> {
        let mut before = std::mem::take(&mut self.known);
        let (mut due, mut others) = (Vec::new(), Vec::new());
        for listed in listed {
            let is_due = is_due(&listed.id);
            match before.remove(&listed.id) {
                Some(one) if !is_due && one.is_current(&listed) => {
                    self.known.insert(listed.id.clone(), one);
                }
                Some(_) => due.push(listed),
                None if is_due => due.push(listed),
                None => others.push(listed),
            }
        }
        due.truncate(MAX_STOPPED);
        others.truncate(MAX_STOPPED.saturating_sub(self.known.len() + due.len()));
        due.extend(others);
        due
    }

    fn add(&mut self, inspected: Vec<(ListedContainer, Result<Inspected, EngineError>)>) {
        let inspected = inspected.into_iter();
        let new = inspected.filter_map(|(listed, inspected)| Known::new(listed, inspected));
        self.known
            .extend(new.map(|one| (one.listed.id.clone(), one)));
    }

    /// Publishes the containers that stopped last, and forgets the others. `all` is the number of all stopped containers.
    fn publish(&mut self, all: usize) {
        let mut newest: Vec<_> = self.known.drain().map(|(_, one)| one).collect();
        newest.sort_unstable_by(|one, other| one.order().cmp(&other.order()));
        newest.truncate(MAX_STOPPED);
        let surplus = all.saturating_sub(newest.len()) as u64;
        let is_unchanged = self.published.surplus == surplus
            && self.published.containers.len() == newest.len()
            && newest
                .iter()
                .zip(self.published.containers.iter())
                .all(|(one, published)| Arc::ptr_eq(&one.shown, published));
        if !is_unchanged {
            let shown = newest.iter().map(|one| Arc::clone(&one.shown));
            self.published = Arc::new(Stopped {
                containers: Arc::new(shown.collect()),
                surplus,
            });
        }
        let known = newest.into_iter();
        self.known = known.map(|one| (one.listed.id.clone(), one)).collect();
    }
}

impl Known {
    /// None if the container no longer exists or runs again.
    fn new(listed: ListedContainer, inspected: Result<Inspected, EngineError>) -> Option<Self> {
        let inspected = match inspected {
            Ok(inspected) if inspected.pid > 0 => return None,
            Err(EngineError::Gone) => return None,
            inspected => inspected.ok(),
        };
        Some(Self {
            shown: Arc::new(shown(&listed, inspected.as_ref())),
            is_inspected: inspected.is_some(),
            listed,
        })
    }

    /// Whether the container is in the list with the facts that are known.
    fn is_current(&self, listed: &ListedContainer) -> bool {
        self.is_inspected
            && self.listed.name == listed.name
            && self.listed.meta.state == listed.meta.state
            && self.listed.meta.image == listed.meta.image
    }

    /// The order of publication. A container that was never started has the place of its creation.
    fn order(&self) -> (Reverse<SystemTime>, &str) {
        let finished = self.shown.finished_at.map(|at| at.0);
        let created = Duration::from_secs(self.listed.meta.created.unsigned_abs());
        let at = finished.or_else(|| SystemTime::UNIX_EPOCH.checked_add(created));
        (
            Reverse(at.unwrap_or(SystemTime::UNIX_EPOCH)),
            &self.listed.id,
        )
    }
}

fn shown(listed: &ListedContainer, inspected: Option<&Inspected>) -> StoppedContainer {
    let (meta, end) = (&listed.meta, inspected.map(|inspected| &inspected.end));
    let started_at = inspected.and_then(|inspected| inspected.started_at);
    let error = end.and_then(|end| end.error.clone());
    // The engine reports the exit code 0 for a container that was never started.
    let has_ended = started_at.is_some() || error.is_some();
    StoppedContainer {
        id: meta.id.clone(),
        name: listed.name.clone(),
        image: meta.image.clone(),
        state: meta.state.clone(),
        exit_code: end.and_then(|end| end.exit_code).filter(|_| has_ended),
        oom_killed: end.and_then(|end| end.oom_killed),
        started_at: started_at.map(Timestamp),
        finished_at: end.and_then(|end| end.finished_at).map(Timestamp),
        // Docker reports an empty text or `no` for a container without a policy.
        restart_policy: end.map(|end| {
            end.restart_policy
                .clone()
                .unwrap_or_else(|| "no".to_owned())
        }),
        compose: inspected.and_then(Inspected::compose),
        health: inspected.and_then(|inspected| inspected.health.clone()),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::{MAX_STOPPED, StoppedContainers};
    use crate::collect::docker::engine::{EngineError, Inspected};
    use crate::collect::docker::inspected::End;
    use crate::collect::docker::json::Json;
    use crate::collect::docker::listing::ListedContainer;

    fn listed(number: usize, name: &str) -> ListedContainer {
        let entry = json!({"Id": format!("{number:064x}"), "Names": [name], "State": "exited", "Created": 5});
        ListedContainer::read(&Json::parse(entry.to_string().as_bytes()).unwrap()).unwrap()
    }

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    /// An inspection of a container that stopped at this second.
    fn ended(second: u64) -> Inspected {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        Inspected {
            started_at: Some(SystemTime::UNIX_EPOCH),
            end: End {
                exit_code: Some(3),
                finished_at: Some(at),
                ..End::default()
            },
            ..Inspected::default()
        }
    }

    /// Passes a list to `stopped`. A container with the number n stopped at second n. Returns the numbers of the inspected
    /// containers, in their order.
    fn update(stopped: &mut StoppedContainers, numbers: &[usize], due: &[usize]) -> Vec<usize> {
        let list = numbers.iter().map(|&number| listed(number, "/x"));
        let due: Vec<String> = due.iter().copied().map(id).collect();
        let inspected = stopped.due(list.collect(), |id| due.iter().any(|due| due == id));
        let number = |one: &ListedContainer| usize::from_str_radix(&one.id, 16).unwrap();
        let of = inspected.iter().map(number).collect();
        let answers = inspected.into_iter().map(|one| {
            let answer = ended(number(&one) as u64);
            (one, Ok(answer))
        });
        stopped.add(answers.collect());
        stopped.publish(numbers.len());
        of
    }

    #[test]
    fn a_container_is_inspected_once_after_each_stop() {
        let mut stopped = StoppedContainers::default();
        assert_eq!(update(&mut stopped, &[1, 2], &[]), [1, 2]);
        let first = stopped.published().clone();
        assert_eq!(update(&mut stopped, &[1, 2], &[]), [0; 0]);
        assert!(std::sync::Arc::ptr_eq(&first, stopped.published()));
        assert_eq!(update(&mut stopped, &[1, 2, 3], &[3]), [3]);
        assert_eq!(update(&mut stopped, &[1, 2, 3], &[2]), [2]);
        // After a rename, there is an event, or the name in the list differs.
        let renamed = stopped.due(vec![listed(1, "/new"), listed(2, "/x")], |_| false);
        assert_eq!(renamed, [listed(1, "/new")]);
    }

    #[test]
    fn the_containers_that_stopped_last_are_published() {
        let mut stopped = StoppedContainers::default();
        let all: Vec<usize> = (1..=300).collect();
        assert_eq!(update(&mut stopped, &all, &[]).len(), MAX_STOPPED);
        assert_eq!(stopped.published().surplus, 44);
        // The containers without a place are not inspected again and again.
        assert_eq!(update(&mut stopped, &all, &[]), [0; 0]);
        // A container that stops gets a place, wherever it is in the list.
        assert_eq!(update(&mut stopped, &all, &[290]), [290]);
        let newest = stopped.published().containers[0].finished_at.unwrap().0;
        assert_eq!(newest, SystemTime::UNIX_EPOCH + Duration::from_secs(290));
        assert_eq!(stopped.published().containers.len(), MAX_STOPPED);
        // If containers are removed, others take their places.
        let left: Vec<usize> = (101..=300).collect();
        let inspected = update(&mut stopped, &left, &[]);
        assert_eq!(
            inspected,
            (257..=300)
                .filter(|number| *number != 290)
                .collect::<Vec<_>>()
        );
        assert_eq!(
            (
                stopped.published().containers.len(),
                stopped.published().surplus
            ),
            (200, 0)
        );
    }

    #[test]
    fn a_failed_inspection_is_tried_again() {
        let mut stopped = StoppedContainers::default();
        let failed = EngineError::Deadline { call: "inspect" };
        let inspected = stopped.due(vec![listed(1, "/x"), listed(2, "/gone")], |_| false);
        let answers = [Err(failed), Err(EngineError::Gone)];
        stopped.add(inspected.into_iter().zip(answers).collect());
        stopped.publish(1);
        let shown = &stopped.published().containers;
        assert_eq!(
            (shown.len(), &*shown[0].name, shown[0].exit_code),
            (1, "/x", None)
        );
        assert_eq!(update(&mut stopped, &[1], &[]), [1]);
        assert_eq!(stopped.published().containers[0].exit_code, Some(3));
        // A container that runs again is not shown.
        let running = Inspected {
            pid: 5,
            ..Inspected::default()
        };
        let inspected = stopped.due(vec![listed(1, "/x")], |_| true);
        stopped.add(
            inspected
                .into_iter()
                .map(|one| (one, Ok(running.clone())))
                .collect(),
        );
        stopped.publish(1);
        assert!(stopped.published().containers.is_empty());
    }
}
