//! The problems of a host for the page: what its newest snapshot shows, and what only its recent past shows.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use super::figures::bare;
use super::millis;
use crate::feeds::problems::{Kind, Parts, problems};
use crate::feeds::share::share;
use crate::feeds::text::{self, Level};
use crate::model::{ContainerEvent, EventAction, Snapshot};

/// Maximum number of problems of one host.
const MAX_PROBLEMS: usize = 64;
/// Maximum length of the text of a problem, in characters.
const LONGEST_TEXT: usize = 200;
/// Maximum number of events of a host that the rules look at.
const MAX_EVENTS: usize = 256;
/// A container that ran out of memory is a problem for this time, in milliseconds.
const OOM_MS: i64 = 3_600_000;
/// A container is in a crash loop if it exits this often within [`LOOP_MS`].
const LOOP_EXITS: usize = 3;
const LOOP_MS: i64 = 600_000;
/// The time over which the growth of a file system is measured, and the least such time, in milliseconds.
const GROWTH_MS: i64 = 1_800_000;
const LEAST_GROWTH_MS: i64 = 600_000;
/// The time between two samples of a file system, in milliseconds.
const GROWTH_STEP_MS: i64 = 30_000;
/// A file system that is full within this time is a problem, in hours.
const FULL_WITHIN_HOURS: f64 = 4.0;
/// Maximum number of file systems whose growth is measured.
const MAX_MOUNTS: usize = 64;

/// A problem of a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Problem {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) container: Option<String>,
    pub(super) severity: &'static str,
    pub(super) text: String,
    pub(super) since_at: i64,
}

/// What the rules remember of a host.
#[derive(Default)]
pub(super) struct Memory {
    /// When each problem began.
    since: HashMap<String, i64>,
    events: VecDeque<ContainerEvent>,
    /// The used share of each mount point over time.
    growth: HashMap<String, VecDeque<(i64, f64)>>,
}

/// A problem before it has a time.
struct Found {
    key: String,
    container: Option<String>,
    is_critical: bool,
    text: String,
    since: Option<i64>,
}

impl Memory {
    /// Returns the problems that a snapshot and the past show, the worst and newest first. `at` is the time of the snapshot.
    pub(super) fn problems(&mut self, host: &str, snapshot: &Snapshot, at: i64) -> Vec<Problem> {
        for event in &snapshot.events {
            if self.events.len() == MAX_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event.clone());
        }
        let mut killed = self.killed(at);
        let mut shown = problems(&Parts::from(snapshot));
        // One sentence for each container.
        shown.retain(|problem| {
            let is_of = |one: &&mut Found| one.container == problem.container;
            let killed = killed.iter_mut().find(is_of);
            match killed.filter(|_| problem.kind == Kind::Down) {
                Some(killed) => {
                    killed.text.push_str(" and is down");
                    false
                }
                None => true,
            }
        });
        let mut found: Vec<Found> = shown
            .into_iter()
            .map(|problem| Found {
                key: format!("{:?}:{}", problem.kind, problem.subject).to_lowercase(),
                container: problem.container,
                is_critical: problem.level == Level::Bad,
                text: problem.text,
                since: problem.since.map(|since| millis(since.0)),
            })
            .collect();
        found.extend(killed);
        found.extend(self.crash_loops(at));
        found.extend(self.filling(snapshot, at));
        self.dated(host, found, at)
    }

    /// Gives each problem a stable id and the time at which it began.
    fn dated(&mut self, host: &str, found: Vec<Found>, at: i64) -> Vec<Problem> {
        let mut since = HashMap::new();
        let mut all = Vec::new();
        for mut one in found {
            one.key.truncate(one.key.floor_char_boundary(256));
            while since.contains_key(&one.key) {
                one.key.push('+');
            }
            let known = self.since.get(&one.key).copied();
            let began = one.since.or(known).unwrap_or(at);
            since.insert(one.key.clone(), began);
            all.push(Problem {
                id: format!("{host}/{}", one.key),
                host: host.to_owned(),
                container: one.container,
                severity: if one.is_critical {
                    "critical"
                } else {
                    "warning"
                },
                text: crate::feeds::brief::cut(one.text, LONGEST_TEXT),
                since_at: began,
            });
            if all.len() == MAX_PROBLEMS {
                break;
            }
        }
        self.since = since;
        sort(&mut all);
        all
    }

    /// The containers that ran out of memory.
    fn killed(&self, at: i64) -> Vec<Found> {
        let mut counts: Vec<(&str, usize, i64)> = Vec::new();
        for event in &self.events {
            let time = millis(event.time.0);
            if event.action != EventAction::Oom || at - time > OOM_MS {
                continue;
            }
            let name = bare(&event.container);
            match counts.iter_mut().find(|(one, ..)| *one == name) {
                Some((_, count, newest)) => (*count, *newest) = (*count + 1, time.max(*newest)),
                None => counts.push((name, 1, time)),
            }
        }
        let of = |(name, count, newest): (&str, usize, i64)| {
            let dies = self.events.iter().rev();
            let mut dies = dies.filter(|one| {
                one.action == EventAction::Die
                    && bare(&one.container) == name
                    && millis(one.time.0) >= newest - 1000
            });
            let exit = dies.find_map(|one| one.exit_code);
            let exit = exit.map(|code| format!("exit {code}"));
            let often = (count > 1).then(|| format!("{count} times in an hour"));
            let more: Vec<_> = exit.into_iter().chain(often).collect();
            let more = match more.is_empty() {
                true => String::new(),
                false => format!(" ({})", more.join(", ")),
            };
            Found {
                key: format!("oom:{name}"),
                container: Some(name.to_owned()),
                is_critical: true,
                text: format!("{} was OOM-killed{more}", text::plain(name)),
                since: Some(newest),
            }
        };
        counts.into_iter().map(of).collect()
    }

    /// The containers that exit again and again.
    fn crash_loops(&self, at: i64) -> Vec<Found> {
        let mut exits: Vec<(&str, usize, i64, Option<i64>)> = Vec::new();
        for event in &self.events {
            let time = millis(event.time.0);
            if event.action != EventAction::Die || at - time > LOOP_MS {
                continue;
            }
            let name = bare(&event.container);
            match exits.iter_mut().find(|(one, ..)| *one == name) {
                Some((_, count, _, code)) => (*count, *code) = (*count + 1, event.exit_code),
                None => exits.push((name, 1, time, event.exit_code)),
            }
        }
        let exits = exits
            .into_iter()
            .filter(|(_, count, ..)| *count >= LOOP_EXITS);
        let of = |(name, count, first, code): (&str, usize, i64, Option<i64>)| {
            let code = code.map_or(String::new(), |code| format!(", last code {code}"));
            let plain = text::plain(name);
            Found {
                key: format!("loop:{name}"),
                container: Some(name.to_owned()),
                is_critical: true,
                text: format!("{plain} exits again and again ({count} exits in 10 min{code})"),
                since: Some(first),
            }
        };
        exits.map(of).collect()
    }

    /// The file systems that will be full soon, if they grow on as in the last half hour.
    fn filling(&mut self, snapshot: &Snapshot, at: i64) -> Vec<Found> {
        let disks = &snapshot.system.disks;
        self.growth
            .retain(|mount, _| disks.iter().any(|disk| disk.mount == *mount));
        let mut found = Vec::new();
        for disk in disks.iter().take(MAX_MOUNTS) {
            let (Some(used), Some(total)) = (disk.used, disk.total) else {
                continue;
            };
            let samples = self.growth.entry(disk.mount.clone()).or_default();
            if samples.back().is_some_and(|(newest, _)| *newest > at) {
                samples.clear();
            }
            if samples
                .back()
                .is_none_or(|(newest, _)| at - newest >= GROWTH_STEP_MS)
            {
                samples.push_back((at, used));
            }
            while samples
                .front()
                .is_some_and(|(oldest, _)| at - oldest > GROWTH_MS)
            {
                samples.pop_front();
            }
            let Some((since, before)) = samples.front().copied() else {
                continue;
            };
            let hours = (at - since) as f64 / 3_600_000.0;
            let per_hour = (used - before) / hours.max(f64::MIN_POSITIVE);
            let free = disk.available.unwrap_or(total - used);
            let left = free / per_hour;
            if at - since >= LEAST_GROWTH_MS && per_hour > 0.0 && left < FULL_WITHIN_HOURS {
                let mount = text::plain(&disk.mount);
                let percent = share(used, total);
                found.push(Found {
                    key: format!("fills:{}", disk.mount),
                    container: None,
                    is_critical: false,
                    text: format!(
                        "{mount} fills in about {} ({percent:.0} %, +{per_hour:.1} GiB/h)",
                        about(left)
                    ),
                    since: None,
                });
            }
        }
        found
    }
}

/// A time in hours, in words.
fn about(hours: f64) -> String {
    match hours {
        1.5.. => format!("{hours:.0} h"),
        _ => format!("{:.0} min", (hours * 60.0).max(1.0)),
    }
}

/// Sorts problems, the worst and newest first.
pub(super) fn sort(problems: &mut [Problem]) {
    problems.sort_by(|one, other| {
        let critical = |problem: &Problem| problem.severity == "critical";
        let by_severity = critical(other).cmp(&critical(one));
        let by_time = other.since_at.cmp(&one.since_at);
        by_severity
            .then(by_time)
            .then_with(|| one.id.cmp(&other.id))
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::Memory;
    use crate::model::{ContainerEvent, EventAction, Snapshot, Timestamp};

    const NOW: i64 = 1_700_000_000_000;

    fn event(action: EventAction, seconds_ago: u64, exit_code: Option<i64>) -> ContainerEvent {
        ContainerEvent {
            time: Timestamp(
                UNIX_EPOCH + Duration::from_millis(NOW as u64) - Duration::from_secs(seconds_ago),
            ),
            action,
            container: "web".to_owned(),
            id: "0123456789ab".to_owned(),
            image: "nginx".to_owned(),
            exit_code,
            health: None,
            renamed_from: None,
        }
    }

    fn quiet() -> Snapshot {
        let mut snapshot = Snapshot::recorded();
        snapshot.stopped = Arc::default();
        snapshot.system = Arc::default();
        snapshot
    }

    #[test]
    fn a_container_that_ran_out_of_memory_is_named_with_its_exit_code() {
        let mut memory = Memory::default();
        let mut snapshot = quiet();
        snapshot.events = vec![
            event(EventAction::Oom, 300, None),
            event(EventAction::Oom, 240, None),
            event(EventAction::Die, 240, Some(137)),
        ];
        let found = memory.problems("h", &snapshot, NOW);
        let one = found.iter().find(|one| one.id == "h/oom:web").unwrap();
        assert_eq!(
            one.text,
            "web was OOM-killed (exit 137, 2 times in an hour)"
        );
        assert_eq!((one.severity, one.since_at), ("critical", NOW - 240_000));
        // If it is also down, one sentence says both.
        let stopped = serde_json::json!([{
            "id": "0123456789ab", "name": "/web", "image": "nginx", "state": "exited", "exit_code": 137, "oom_killed": true,
            "restart_policy": "always",
        }]);
        snapshot.stopped = Arc::new(serde_json::from_value(stopped).unwrap());
        snapshot.events.clear();
        let both = memory.problems("h", &snapshot, NOW);
        assert_eq!(both.len(), 1, "{both:?}");
        assert_eq!(
            both[0].text,
            "web was OOM-killed (exit 137, 2 times in an hour) and is down"
        );
        snapshot.stopped = Arc::default();
        // An hour later it is no problem any more.
        snapshot.events.clear();
        let later = memory.problems("h", &snapshot, NOW + 3_600_000);
        assert!(later.iter().all(|one| one.id != "h/oom:web"), "{later:?}");
    }

    #[test]
    fn a_crash_loop_needs_three_exits_in_ten_minutes() {
        let mut memory = Memory::default();
        let mut snapshot = quiet();
        let is_looping = |memory: &mut Memory, snapshot: &Snapshot| {
            let found = memory.problems("h", snapshot, NOW);
            found.into_iter().find(|one| one.id == "h/loop:web")
        };
        snapshot.events = vec![
            event(EventAction::Die, 700, Some(1)),
            event(EventAction::Die, 100, Some(1)),
            event(EventAction::Die, 50, Some(1)),
        ];
        assert_eq!(is_looping(&mut memory, &snapshot), None);
        snapshot.events = vec![event(EventAction::Die, 1, Some(2))];
        let text = is_looping(&mut memory, &snapshot).unwrap().text;
        assert_eq!(
            text,
            "web exits again and again (3 exits in 10 min, last code 2)"
        );
    }

    #[test]
    fn a_file_system_that_grows_is_a_problem_before_it_is_full() {
        let mut memory = Memory::default();
        let mut snapshot = quiet();
        let mut at_minute = |minute: i64, used: f64| {
            let system = Arc::make_mut(&mut snapshot.system);
            system.disks = vec![crate::model::Disk {
                mount: "/var".to_owned(),
                used: Some(used),
                total: Some(100.0),
                available: Some(100.0 - used),
                ..Default::default()
            }];
            let found = memory.problems("h", &snapshot, NOW + minute * 60_000);
            let found = found.into_iter().find(|one| one.id == "h/fills:/var");
            found.map(|one| (one.text, one.since_at))
        };
        assert_eq!(at_minute(0, 50.0), None);
        assert_eq!(at_minute(5, 55.0), None, "five minutes are too short");
        let (text, since) = at_minute(10, 60.0).unwrap();
        assert_eq!(text, "/var fills in about 40 min (60 %, +60.0 GiB/h)");
        assert_eq!(since, NOW + 600_000);
        assert_eq!(
            at_minute(11, 61.0).unwrap().1,
            since,
            "the problem keeps its time"
        );
        assert_eq!(at_minute(40, 61.0), None);
    }
}
