//! The history of the last hour, in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::figures::{bare, has_system};
use crate::model::{
    CONTAINER_SERIES, ContainerEvent, DISK_USED, EventAction, HOST_SERIES, Snapshot,
    container_figures, disk_figures, host_figures,
};

/// How long figures and events are kept, in milliseconds.
const KEPT_MS: i64 = 3_600_000;
/// The least time between two stored samples of a host, in milliseconds.
const LEAST_STEP_MS: i64 = 4_500;
/// The usual time between two samples, in milliseconds.
const STEP_MS: i64 = 5_000;
/// Maximum number of series of a host.
const MAX_SERIES: usize = 4096;
/// Maximum number of hosts.
const MAX_HOSTS: usize = 1024;
/// Maximum number of stored events of a host, and of events in an answer.
const MAX_EVENTS: usize = 1000;

/// The history.
#[derive(Default)]
pub(super) struct History {
    hosts: Mutex<HashMap<String, Past>>,
}

/// The past of one host.
#[derive(Default)]
struct Past {
    times: VecDeque<i64>,
    /// The values of each series. A series has as many values as there are times. A missing value is NaN.
    series: BTreeMap<String, VecDeque<f32>>,
    events: VecDeque<Event>,
}

/// Series over the same times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Answer {
    pub(super) from_at: i64,
    pub(super) to_at: i64,
    pub(super) step_ms: i64,
    pub(super) times: Vec<i64>,
    pub(super) series: BTreeMap<String, Vec<Option<f32>>>,
}

/// Events in the order of their times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct EventsAnswer {
    pub(super) events: Vec<Event>,
    pub(super) more: bool,
}

/// An event of a container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Event {
    pub(super) at: i64,
    pub(super) container: Option<String>,
    pub(super) kind: String,
    pub(super) text: String,
    pub(super) severity: &'static str,
}

impl History {
    /// Records the figures and events of a snapshot. `at` is its time, in milliseconds since 1970.
    pub(super) fn record(&self, host: &str, snapshot: &Snapshot, at: i64) {
        let mut hosts = lock(&self.hosts);
        if !hosts.contains_key(host) && hosts.len() >= MAX_HOSTS {
            return;
        }
        let past = hosts.entry(host.to_owned()).or_default();
        for event in &snapshot.events {
            past.events.push_back(Event::from(event));
        }
        while past.events.len() > MAX_EVENTS {
            past.events.pop_front();
        }
        // After a step of the clock backwards, the samples from the future are removed.
        while past.times.back().is_some_and(|newest| *newest >= at) {
            past.times.pop_back();
            for values in past.series.values_mut() {
                values.pop_back();
            }
        }
        if past
            .times
            .back()
            .is_some_and(|newest| at - newest < LEAST_STEP_MS)
        {
            return;
        }
        let before = past.times.len();
        past.times.push_back(at);
        for (name, value) in series(snapshot) {
            if past.series.len() >= MAX_SERIES && !past.series.contains_key(&name) {
                continue;
            }
            let values = past.series.entry(name).or_default();
            values.resize(before, f32::NAN);
            values.push_back(value as f32);
        }
        for values in past.series.values_mut() {
            values.resize(before + 1, f32::NAN);
        }
        while past
            .times
            .front()
            .is_some_and(|oldest| at - oldest > KEPT_MS)
        {
            past.times.pop_front();
            for values in past.series.values_mut() {
                values.pop_front();
            }
        }
        past.series
            .retain(|_, values| values.iter().any(|value| !value.is_nan()));
        past.events.retain(|event| at - event.at <= KEPT_MS);
    }

    /// Returns series of a host between two times, with at most `points` values each.
    ///
    /// # Errors
    /// Never. A store of files can fail.
    pub(super) fn query(
        &self,
        host: &str,
        series: &[&str],
        from: i64,
        to: i64,
        points: usize,
    ) -> io::Result<Answer> {
        let points = i64::try_from(points.max(1)).unwrap_or(i64::MAX);
        let step = to.saturating_sub(from) / points;
        let step = step.max(STEP_MS);
        let hosts = lock(&self.hosts);
        let past = hosts.get(host);
        let inside = |at: i64| (from..=to).contains(&at);
        // Each step with a sample is a time. A gap is one time without values.
        let mut times: Vec<i64> = Vec::new();
        let mut place = Vec::new();
        for at in past.iter().flat_map(|past| &past.times).copied() {
            if !inside(at) {
                place.push(None);
                continue;
            }
            let start = from + (at - from) / step * step;
            if let Some(last) = times.last().copied().filter(|last| *last != start) {
                if start - last > 3 * step {
                    times.push(last + step);
                }
                times.push(start);
            } else if times.is_empty() {
                times.push(start);
            }
            place.push(Some(times.len() - 1));
        }
        let mut all = BTreeMap::new();
        for name in series {
            let mut sums = vec![(0.0_f64, 0_u32); times.len()];
            let values = past.and_then(|past| past.series.get(*name));
            for (value, place) in values.into_iter().flatten().zip(&place) {
                if let Some(sum) = place.and_then(|place| sums.get_mut(place))
                    && !value.is_nan()
                {
                    *sum = (sum.0 + f64::from(*value), sum.1 + 1);
                }
            }
            let average =
                |(sum, count): (f64, u32)| (count > 0).then(|| (sum / f64::from(count)) as f32);
            all.insert((*name).to_owned(), sums.into_iter().map(average).collect());
        }
        Ok(Answer {
            from_at: from,
            to_at: to,
            step_ms: step,
            times,
            series: all,
        })
    }

    /// Returns the oldest events between two times, of one container or of all.
    ///
    /// # Errors
    /// Never. A store of files can fail.
    pub(super) fn events(
        &self,
        host: &str,
        from: i64,
        to: i64,
        container: Option<&str>,
    ) -> io::Result<EventsAnswer> {
        let hosts = lock(&self.hosts);
        let all = hosts.get(host).into_iter().flat_map(|past| &past.events);
        let wanted = |event: &&Event| {
            (from..=to).contains(&event.at)
                && container.is_none_or(|name| event.container.as_deref() == Some(name))
        };
        let mut events: Vec<_> = all.filter(wanted).cloned().collect();
        events.sort_by_key(|event| event.at);
        let more = events.len() > MAX_EVENTS;
        events.truncate(MAX_EVENTS);
        Ok(EventsAnswer { events, more })
    }

    /// Returns the names of all series of a host, sorted.
    ///
    /// # Errors
    /// Never. A store of files can fail.
    pub(super) fn series(&self, host: &str) -> io::Result<Vec<String>> {
        let hosts = lock(&self.hosts);
        let past = hosts.get(host).into_iter();
        Ok(past.flat_map(|past| past.series.keys().cloned()).collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The series of a snapshot: name and value. A figure that was not read is absent.
pub(super) fn series(snapshot: &Snapshot) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    let mut add = |name: String, value: Option<f64>| all.extend(value.map(|value| (name, value)));
    if has_system(snapshot) {
        for (name, value) in HOST_SERIES.iter().zip(host_figures(snapshot)) {
            add((*name).to_owned(), value);
        }
        for (mount, percent) in disk_figures(&snapshot.system) {
            add(format!("{DISK_USED}{mount}"), Some(percent));
        }
    }
    for container in snapshot.containers.iter() {
        let name = bare(&container.name);
        for (series, value) in CONTAINER_SERIES.iter().zip(container_figures(container)) {
            add(format!("container:{name}:{series}"), value);
        }
    }
    all
}
