//! Knows the containers that do not run. Inspects each of them once after it has stopped.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant as Deadline, timeout_at};

use super::engine::{Call, EngineError, Inspected};
use super::inspection::{INSPECTION_RETRY, INSPECTIONS_AT_ONCE};
use super::listing::ListedContainer;
use crate::messages::Stopped;
use crate::model::{StoppedContainer, Timestamp};

/// Maximum number of stopped containers that are published.
const MAX_STOPPED: usize = 256;
/// Limit on the time for the inspections after one request to the engine's follower. Further inspections follow after the next request.
const INSPECTION_TIME: Duration = Duration::from_secs(1);
/// A container that was never started is inspected again after this time. If it has no network of its own, the engine sends no event when
/// its start fails.
const NEVER_STARTED_RETRY: Duration = Duration::from_secs(60);

/// The containers that stopped last, of the newest list of all containers.
#[derive(Default)]
pub(super) struct StoppedContainers {
    entries: Vec<Entry>,
    /// Number of stopped containers that are not in `entries`.
    surplus: u64,
    published: Arc<Stopped>,
}

struct Entry {
    listed: ListedContainer,
    /// When the container stopped. Before the inspection, it is an estimate from the list.
    stopped_at: SystemTime,
    /// None if the inspection says that the container no longer exists.
    shown: Option<Arc<StoppedContainer>>,
    /// When the container must be inspected. None if it was inspected after its newest event.
    due: Option<Instant>,
    /// When the engine answered the newest inspection. None before the first inspection.
    inspected_at: Option<SystemTime>,
}

impl StoppedContainers {
    pub(super) fn published(&self) -> &Arc<Stopped> {
        &self.published
    }

    /// Whether a container must be inspected now.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        self.entries.iter().any(|one| one.is_due(now))
    }

    /// Whether a stopped container has this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.entries.iter().any(|one| one.listed.id == id)
    }

    /// Makes a container due that left its networks at the time `left`, unless it was inspected after that. Returns whether the container is
    /// known. The engine answers no inspection while it starts or stops the container, so an answer after `left` has the new state.
    pub(super) fn inspect_after(&mut self, id: &str, left: SystemTime) -> bool {
        let entry = self.entries.iter_mut().find(|one| one.listed.id == id);
        let Some(entry) = entry else { return false };
        if entry.inspected_at.is_none_or(|at| at < left) {
            entry.due = Some(Instant::now());
        }
        true
    }

    /// Replaces the containers by those of a new list of all containers, and keeps what is known about them. `surplus` is the number of
    /// stopped containers that are missing in `listed`. `has_changed` tells whether a container had an event or ran at the previous
    /// list. With `all_due`, all containers have possibly changed.
    pub(super) fn take_list(
        &mut self,
        listed: Vec<ListedContainer>,
        surplus: usize,
        has_changed: impl Fn(&str) -> bool,
        all_due: bool,
    ) {
        let all = listed.len() + surplus;
        let before = self.entries.drain(..);
        let mut before: HashMap<_, _> = before.map(|one| (one.listed.id.clone(), one)).collect();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let entries = listed.into_iter().map(|listed| {
            let known = before.remove(&listed.id);
            let has_changed = has_changed(&listed.id);
            let stopped_at = match &known {
                _ if has_changed => wall,
                Some(known) => known.stopped_at,
                None => stopped_at(&listed, wall),
            };
            let is_same = known.as_ref().is_some_and(|known| known.is_same(&listed));
            let due = match &known {
                Some(known) if is_same && !has_changed && !all_due => known.due,
                _ => Some(now),
            };
            let inspected_at = known.as_ref().and_then(|known| known.inspected_at);
            // Until the inspection, the previous facts stay published.
            let shown = match known {
                Some(known) if is_same => known.shown,
                _ => Some(Arc::new(shown(&listed, None))),
            };
            Entry {
                listed,
                stopped_at,
                shown,
                due,
                inspected_at,
            }
        });
        self.entries = entries.collect();
        self.sort();
        self.entries.truncate(MAX_STOPPED);
        self.surplus = (all - self.entries.len()) as u64;
    }

    /// Inspects the containers that are due, for at most [`INSPECTION_TIME`]. Returns the ids of the containers that run again. They stay
    /// published as stopped until a new list has them as running, so that they are always published.
    pub(super) async fn inspect(&mut self, call: &Call) -> Vec<String> {
        let now = Instant::now();
        let due = self.entries.iter().filter(|one| one.is_due(now));
        let due: Vec<String> = due.map(|one| one.listed.id.clone()).collect();
        let end = Deadline::now() + INSPECTION_TIME;
        let mut asked = Vec::new();
        let mut answers = Vec::new();
        {
            let inspected = stream::iter(due)
                .map(|id| {
                    asked.push(id.clone());
                    async move {
                        let answer = call.inspect(&id).await;
                        (id, answer, SystemTime::now())
                    }
                })
                .buffer_unordered(INSPECTIONS_AT_ONCE);
            let mut inspected = std::pin::pin!(inspected);
            while let Ok(Some(answer)) = timeout_at(end, inspected.next()).await {
                answers.push(answer);
            }
        }
        // A container whose inspection hangs must not delay each request.
        self.retry_later(&asked);
        let mut running = Vec::new();
        for (id, answer, at) in answers {
            if self.take_answer(&id, answer, at) {
                running.push(id);
            }
        }
        self.sort();
        running
    }

    fn retry_later(&mut self, ids: &[String]) {
        let later = Some(Instant::now() + INSPECTION_RETRY);
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        for one in &mut self.entries {
            if asked.contains(one.listed.id.as_str()) {
                one.due = later;
            }
        }
    }

    /// Returns whether the container runs again.
    fn take_answer(
        &mut self,
        id: &str,
        answer: Result<Inspected, EngineError>,
        at: SystemTime,
    ) -> bool {
        let entry = self.entries.iter_mut().find(|one| one.listed.id == id);
        let Some(entry) = entry else { return false };
        entry.inspected_at = Some(at);
        match answer {
            Ok(inspected) if inspected.pid > 0 => {
                entry.due = None;
                return true;
            }
            Err(EngineError::Gone) => (entry.shown, entry.due) = (None, None),
            // The inspection is tried again later. The previous facts stay published.
            Err(_) => {}
            Ok(inspected) => {
                let new = shown(&entry.listed, Some(&inspected));
                let finished = new.finished_at.map(|at| at.0);
                let was_started = new.started_at.is_some() || new.error.is_some();
                entry.stopped_at = finished.unwrap_or_else(|| created(&entry.listed));
                if entry.shown.as_deref() != Some(&new) {
                    entry.shown = Some(Arc::new(new));
                }
                entry.due = (!was_started).then(|| Instant::now() + NEVER_STARTED_RETRY);
            }
        }
        false
    }

    fn sort(&mut self) {
        self.entries.sort_unstable_by(|one, other| {
            let order = |one: &Entry| Reverse(one.stopped_at);
            order(one)
                .cmp(&order(other))
                .then_with(|| one.listed.id.cmp(&other.listed.id))
        });
    }

    /// Publishes the stopped containers. Leaves out `running`, the ids of the running containers: the list of running containers can be
    /// newer than the list of all containers.
    pub(super) fn publish(&mut self, running: &HashSet<&str>) {
        let stopped = self
            .entries
            .iter()
            .filter(|one| !running.contains(one.listed.id.as_str()))
            .filter_map(|one| one.shown.as_ref());
        let stopped: Vec<_> = stopped.cloned().collect();
        let before = &self.published;
        let is_unchanged = before.surplus == self.surplus
            && before.containers.len() == stopped.len()
            && stopped
                .iter()
                .zip(before.containers.iter())
                .all(|(now, before)| Arc::ptr_eq(now, before));
        if !is_unchanged {
            self.published = Arc::new(Stopped {
                containers: Arc::new(stopped),
                surplus: self.surplus,
            });
        }
    }
}

impl Entry {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Whether the list still has the facts that are published.
    fn is_same(&self, listed: &ListedContainer) -> bool {
        self.listed.name == listed.name
            && self.listed.meta.state == listed.meta.state
            && self.listed.meta.image == listed.meta.image
    }
}

/// Estimates when a container of the list stopped, from the engine's text such as `Exited (137) 3 hours ago`. A container that was never
/// started has the time of its creation.
fn stopped_at(listed: &ListedContainer, now: SystemTime) -> SystemTime {
    let stopped = ago(&listed.meta.status).and_then(|ago| now.checked_sub(ago));
    stopped.unwrap_or_else(|| created(listed))
}

fn created(listed: &ListedContainer) -> SystemTime {
    let since_1970 = Duration::from_secs(listed.meta.created.unsigned_abs());
    let created = SystemTime::UNIX_EPOCH.checked_add(since_1970);
    created.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn ago(status: &str) -> Option<Duration> {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (_, text) = status.strip_suffix(" ago")?.split_once(") ")?;
    let mut words = text.split(' ').rev();
    let seconds = match words.next()?.trim_end_matches('s') {
        "second" => 1,
        "minute" => MINUTE,
        "hour" => HOUR,
        "day" => DAY,
        "week" => 7 * DAY,
        "month" => 30 * DAY,
        "year" => 365 * DAY,
        _ => return None,
    };
    // `About an hour`, `Less than a second`.
    let count: u64 = match words.next()? {
        "a" | "an" => 1,
        number => number.parse().ok()?,
    };
    Some(Duration::from_secs(seconds.checked_mul(count)?))
}

/// Adds running containers that have ended, although the engine has not reported it yet. Their exit codes and times are not known.
pub(super) fn with_ended<'c>(
    stopped: &Stopped,
    ended: impl Iterator<Item = (&'c ListedContainer, Option<&'c Inspected>)>,
) -> Stopped {
    let ended = ended.map(|(listed, inspected)| {
        Arc::new(StoppedContainer {
            state: "exited".to_owned(),
            health: None,
            health_output: None,
            ..shown(listed, inspected)
        })
    });
    let mut containers: Vec<_> = ended.chain(stopped.containers.iter().cloned()).collect();
    let surplus = containers.len().saturating_sub(MAX_STOPPED);
    containers.truncate(MAX_STOPPED);
    Stopped {
        containers: Arc::new(containers),
        surplus: stopped.surplus + surplus as u64,
    }
}

fn shown(listed: &ListedContainer, inspected: Option<&Inspected>) -> StoppedContainer {
    let (meta, end) = (&listed.meta, inspected.map(|inspected| &inspected.end));
    let started_at = inspected.and_then(|inspected| inspected.started_at);
    let error = end.and_then(|end| end.error.clone());
    // The engine reports the exit code 0 for a container that was never started.
    let has_ended = started_at.is_some() || error.is_some();
    StoppedContainer {
        id: (*meta.id).to_owned(),
        name: (*listed.name).to_owned(),
        image: (*meta.image).to_owned(),
        state: (*meta.state).to_owned(),
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
        one_off: inspected.is_some_and(Inspected::is_one_off),
        health: inspected.and_then(|inspected| inspected.health.status.clone()),
        health_output: inspected.and_then(|inspected| inspected.health.output.clone()),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use serde_json::json;

    use super::{MAX_STOPPED, StoppedContainers, ago};
    use crate::collect::docker::engine::{EngineError, Inspected};
    use crate::collect::docker::inspected::End;
    use crate::collect::docker::json::Json;
    use crate::collect::docker::listing::ListedContainer;

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    fn number(id: &str) -> usize {
        usize::from_str_radix(id, 16).unwrap()
    }

    fn listed(number: usize, name: &str, status: &str) -> ListedContainer {
        let entry = json!({"Id": id(number), "Names": [name], "State": "exited", "Created": 5, "Status": status});
        ListedContainer::read(&Json::parse(entry.to_string().as_bytes()).unwrap()).unwrap()
    }

    /// The inspection of a container that stopped this number of hours ago.
    fn ended(hours: usize) -> Inspected {
        let at = SystemTime::now() - Duration::from_secs(3600 * hours as u64);
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

    /// Passes a list to `stopped`. A container with the number n stopped n hours ago. Returns the numbers of the containers that were
    /// inspected.
    fn update(
        stopped: &mut StoppedContainers,
        numbers: &[usize],
        changed: &[usize],
        all_due: bool,
    ) -> Vec<usize> {
        let list = numbers
            .iter()
            .map(|&number| listed(number, "/x", &format!("Exited (3) {number} hours ago")));
        let has_changed = |id: &str| changed.contains(&number(id));
        stopped.take_list(list.collect(), 0, has_changed, all_due);
        let now = Instant::now();
        let due = stopped.entries.iter().filter(|one| one.is_due(now));
        let due: Vec<_> = due.map(|one| number(&one.listed.id)).collect();
        for number in &due {
            let hours = if changed.contains(number) { 0 } else { *number };
            stopped.take_answer(&id(*number), Ok(ended(hours)), SystemTime::now());
        }
        stopped.sort();
        stopped.publish(&HashSet::new());
        due
    }

    fn shown(stopped: &StoppedContainers) -> Vec<usize> {
        let entries = stopped.entries.iter();
        entries.map(|one| number(&one.listed.id)).collect()
    }

    #[test]
    fn a_container_is_inspected_once_after_each_stop() {
        let mut stopped = StoppedContainers::default();
        assert_eq!(update(&mut stopped, &[1, 2], &[], false), [1, 2]);
        let first = Arc::clone(stopped.published());
        assert_eq!(update(&mut stopped, &[1, 2], &[], false), [0; 0]);
        assert!(Arc::ptr_eq(&first, stopped.published()));
        assert_eq!(update(&mut stopped, &[1, 2, 3], &[3], false), [3]);
        assert_eq!(shown(&stopped), [3, 1, 2]);
        assert_eq!(update(&mut stopped, &[1, 2, 3], &[], true), [3, 1, 2]);
        // The name in the list has changed.
        let list = vec![listed(1, "/new", ""), listed(2, "/x", "")];
        stopped.take_list(list, 0, |_| false, false);
        let now = Instant::now();
        let due = stopped.entries.iter().filter(|one| one.is_due(now));
        assert_eq!(
            due.map(|one| number(&one.listed.id)).collect::<Vec<_>>(),
            [1]
        );
    }

    #[test]
    fn the_containers_that_stopped_last_are_published() {
        let mut stopped = StoppedContainers::default();
        // The list has the newest container first, and not the one that stopped last.
        let all: Vec<usize> = (1..=300).rev().collect();
        let expected: Vec<usize> = (1..=256).collect();
        for all_due in [false, true] {
            assert_eq!(update(&mut stopped, &all, &[], all_due), expected);
            assert_eq!(shown(&stopped), expected);
            assert_eq!(stopped.published().surplus, 44);
        }
        // The containers without a place are not inspected again and again.
        assert_eq!(update(&mut stopped, &all, &[], false), [0; 0]);
        // A container that stops gets a place, wherever it is in the list.
        assert_eq!(update(&mut stopped, &all, &[290], false), [290]);
        assert_eq!(
            (shown(&stopped)[0], shown(&stopped).len()),
            (290, MAX_STOPPED)
        );
        // If containers are removed, others take their places.
        let left: Vec<usize> = (101..=300).collect();
        let inspected = update(&mut stopped, &left, &[], false);
        assert!(
            inspected.iter().all(|number| *number >= 256) && inspected.len() == 44,
            "{inspected:?}"
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
    fn a_failed_start_is_inspected_once() {
        let mut stopped = StoppedContainers::default();
        let now = SystemTime::now();
        assert!(!stopped.inspect_after(&id(1), now));
        assert_eq!(update(&mut stopped, &[1], &[], false), [1]);
        // The container left its network when it stopped, before the inspection.
        assert!(stopped.inspect_after(&id(1), now - Duration::from_secs(1)));
        assert!(!stopped.is_due());
        assert!(stopped.inspect_after(&id(1), SystemTime::now()));
        assert!(stopped.is_due());
        stopped.take_answer(&id(1), Ok(ended(1)), SystemTime::now());
        assert!(!stopped.is_due());
        // A container that was never started is inspected again later.
        stopped.take_answer(&id(1), Ok(Inspected::default()), SystemTime::now());
        assert!(!stopped.is_due() && stopped.entries[0].due.is_some());
    }

    #[test]
    fn a_failed_inspection_keeps_what_is_known_and_is_tried_again_later() {
        let mut stopped = StoppedContainers::default();
        let failed = || Err(EngineError::Deadline { call: "inspect" });
        let list = || vec![listed(1, "/x", "")];
        let exit_code = |stopped: &mut StoppedContainers| {
            stopped.publish(&HashSet::new());
            stopped.published().containers[0].exit_code
        };
        stopped.take_list(list(), 0, |_| false, false);
        stopped.retry_later(&[id(1)]);
        stopped.take_answer(&id(1), failed(), SystemTime::now());
        assert_eq!((exit_code(&mut stopped), stopped.is_due()), (None, false));
        stopped.take_answer(&id(1), Ok(ended(1)), SystemTime::now());
        assert_eq!(exit_code(&mut stopped), Some(3));
        stopped.take_list(list(), 0, |_| true, false);
        assert!(stopped.is_due());
        stopped.retry_later(&[id(1)]);
        stopped.take_answer(&id(1), failed(), SystemTime::now());
        assert_eq!(
            (exit_code(&mut stopped), stopped.is_due()),
            (Some(3), false)
        );
        // A pause remains a pause after the next list.
        stopped.take_list(list(), 0, |_| false, false);
        assert!(!stopped.is_due() && stopped.has(&id(1)));
    }

    #[test]
    fn a_container_that_runs_or_is_gone_is_not_published() {
        let mut stopped = StoppedContainers::default();
        let list = || {
            vec![
                listed(1, "/x", ""),
                listed(2, "/x", ""),
                listed(3, "/x", ""),
            ]
        };
        stopped.take_list(list(), 0, |_| false, false);
        let running = Inspected {
            pid: 5,
            ..Inspected::default()
        };
        let at = SystemTime::now();
        assert!(stopped.take_answer(&id(1), Ok(running), at));
        assert!(!stopped.take_answer(&id(2), Err(EngineError::Gone), at));
        assert!(!stopped.take_answer(&id(3), Ok(ended(1)), at));
        let count = |stopped: &mut StoppedContainers, running: &[&str]| {
            stopped.publish(&running.iter().copied().collect());
            (
                stopped.published().containers.len(),
                stopped.published().surplus,
            )
        };
        // The container that runs again is published until a list has it as running.
        assert_eq!(count(&mut stopped, &[]), (2, 0));
        assert_eq!(count(&mut stopped, &[&id(1), &id(3)]), (0, 0));
        assert!(!stopped.is_due());
    }

    #[test]
    fn the_text_of_the_engine_tells_when_a_container_stopped() {
        for (status, seconds) in [
            ("Exited (0) Less than a second ago", Some(1)),
            ("Exited (137) 5 seconds ago", Some(5)),
            ("Exited (1) About a minute ago", Some(60)),
            ("Exited (1) About an hour ago", Some(3600)),
            ("Exited (0) 3 weeks ago", Some(3 * 7 * 86_400)),
            ("Exited (0) 2 years ago", Some(2 * 365 * 86_400)),
            ("Exited (0) 99999999999999999 years ago", None),
            ("Created", None),
            ("Exited (0)", None),
            ("Up 5 minutes", None),
            ("", None),
        ] {
            assert_eq!(ago(status), seconds.map(Duration::from_secs), "{status}");
        }
    }
}
