use std::path::Path;

use super::{Answer, History, HistorySettings, Retention, WINDOW_MS};
use crate::model::{self, HistoryColumn, Snapshot};

/// 2026-01-01, the beginning of an hour.
pub(super) const START: i64 = 1_767_225_600_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
const STEP: i64 = 5000;
pub(super) const HOST: &str = "alpha:9000";

pub(super) fn settings(folder: &Path) -> HistorySettings {
    HistorySettings {
        folder: Some(folder.to_owned()),
        limit: 1 << 30,
        retention: Retention::default(),
    }
}

pub(super) fn open(folder: &Path) -> History {
    History::open(&settings(folder)).unwrap()
}

/// Records a snapshot with this figure of the CPU.
pub(super) fn record(history: &History, at: i64, cpu: f64) {
    let mut snapshot = Snapshot::recorded();
    let mut system = (*snapshot.system).clone();
    system.cpu_percent[0] = cpu;
    snapshot.system = system.into();
    snapshot.events.clear();
    snapshot.containers = Vec::new().into();
    history.record(HOST, &snapshot, at);
}

/// Records a snapshot every [`STEP`] from `from` to before `to`, with the number of minutes since [`START`] as the figure of the
/// CPU. Writes once a minute.
pub(super) fn run(history: &History, from: i64, to: i64) {
    for at in (from..to).step_by(STEP as usize) {
        record(history, at, minute(at));
        if at % MINUTE == 0 {
            history.write(at, true);
        }
    }
    history.write(to + 3000, true);
}

fn minute(at: i64) -> f64 {
    ((at - START) / MINUTE) as f64
}

pub(super) fn cpu(history: &History, from: i64, to: i64, points: usize) -> Answer {
    history.query(HOST, &["cpu"], from, to, points).unwrap()
}

/// The figures of the CPU with their times.
pub(super) fn figures(answer: &Answer) -> Vec<(i64, Option<f32>)> {
    let times = answer.times.iter().copied();
    times.zip(answer.series["cpu"].iter().copied()).collect()
}

#[test]
fn a_server_that_was_killed_has_all_figures_after_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 25 * MINUTE);
    let before = cpu(&history, START, START + HOUR, 3600);
    assert_eq!(before.times.len(), 25 * 12, "{before:?}");
    // Nothing is written on drop, as if the server was killed.
    drop(history);
    let history = open(folder.path());
    assert_eq!(cpu(&history, START, START + HOUR, 3600), before);
    // The window goes on, and is killed again.
    run(&history, START + 25 * MINUTE, START + 28 * MINUTE);
    drop(history);
    let history = open(folder.path());
    let after = cpu(&history, START, START + HOUR, 3600);
    assert_eq!(after.times.len(), 28 * 12);
    run(&history, START + 28 * MINUTE, START + 31 * MINUTE);
    let whole = cpu(&history, START, START + HOUR, 3600);
    assert_eq!(whole.times.len(), 31 * 12);
    for (at, figure) in figures(&whole) {
        assert_eq!(figure, Some(minute(at) as f32), "{at}");
    }
    drop(history);
    assert_eq!(cpu(&open(folder.path()), START, START + HOUR, 3600), whole);
}

#[test]
fn each_range_has_the_averages_of_its_steps_up_to_the_newest_sample() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let end = START + 3 * HOUR + 4 * MINUTE;
    run(&history, START, end);
    let ranges = [
        (10 * MINUTE, 120),
        (HOUR, 60),
        (3 * HOUR, 180),
        (3 * HOUR, 18),
        (3 * HOUR, 3),
        (3 * HOUR, 7),
    ];
    for (range, points) in ranges {
        let from = end - range;
        let answer = cpu(&history, from, end, points);
        let figures = figures(&answer);
        let count = range / answer.step_ms;
        assert!(
            (count - 1..=count + 1).contains(&(figures.len() as i64)),
            "{range} {points}: {answer:?}"
        );
        for (at, figure) in &figures {
            // The middle of the step, in minutes. The figure grows by one in each minute.
            let middle = (at + (at + answer.step_ms).min(end) - 2 * START) as f64 / 2.0;
            let expected = middle / MINUTE as f64 - 0.5;
            // An average can begin and end a quarter of a step earlier or later than the step.
            let tolerance = 0.5 + answer.step_ms as f64 / MINUTE as f64 / 4.0;
            let figure = f64::from(figure.expect("there is no gap"));
            assert!(
                (figure - expected).abs() <= tolerance,
                "{range} {points} {at}: {figure} {expected}"
            );
        }
        let newest = figures.last().unwrap().0;
        assert!(
            end - newest <= 2 * answer.step_ms,
            "{range} {points}: {answer:?}"
        );
    }
    // At full resolution, each step has exactly its samples.
    let answer = cpu(&history, START + 2 * HOUR, START + 3 * HOUR, 60);
    for (at, figure) in figures(&answer) {
        assert_eq!(figure, Some(minute(at) as f32), "{at}");
    }
}

#[test]
fn an_outage_is_a_gap_in_each_range() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let (down, up) = (START + 70 * MINUTE, START + 130 * MINUTE);
    run(&history, START, down);
    run(&history, up, START + 4 * HOUR);
    for points in [2000, 600, 240, 60, 12] {
        let answer = cpu(&history, START, START + 4 * HOUR, points);
        let figures = figures(&answer);
        let gaps: Vec<_> = figures
            .iter()
            .filter(|(_, figure)| figure.is_none())
            .collect();
        assert_eq!(gaps.len(), 1, "{points}: {figures:?}");
        // A time is the beginning of a step, or of an average of a minute.
        let first = down - answer.step_ms.max(MINUTE);
        assert!((first..up).contains(&gaps[0].0), "{points}: {gaps:?}");
        let inside = |at: i64| at >= down + 10 * MINUTE && at + answer.step_ms <= up;
        assert!(
            figures
                .iter()
                .all(|(at, figure)| !inside(*at) || figure.is_none())
        );
    }
    // Two minutes without a sample are a gap at a step of a minute.
    run(&history, START + 4 * HOUR + 2 * MINUTE, START + 6 * HOUR);
    let answer = cpu(&history, START + 3 * HOUR, START + 5 * HOUR, 120);
    assert_eq!(
        figures(&answer)
            .iter()
            .filter(|(_, figure)| figure.is_none())
            .count(),
        1
    );
}

#[test]
fn old_figures_stay_as_averages_and_the_oldest_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention::default();
    let history = open(folder.path());
    // One sample an hour for 38 days, then one in ten minutes.
    let days = 40;
    for window in (0..days * 144).filter(|window| window % 6 == 0 || *window > (days - 2) * 144) {
        let at = START + window * WINDOW_MS + 1000;
        record(&history, at, window as f64);
        history.write(at, true);
    }
    let end = START + days * DAY;
    history.write(end + 3000, true);
    let store = rusqlite::Connection::open(folder.path().join("history.db")).unwrap();
    let oldest = |tier: i64| -> i64 {
        let sql = "SELECT min(start) FROM blocks WHERE tier = ?1";
        store.query_row(sql, [tier], |row| row.get(0)).unwrap()
    };
    let ages = [0, 1, 2, 3].map(|tier| (end - oldest(tier)) / HOUR);
    assert!((1..=2).contains(&ages[0]), "{ages:?}");
    assert!((24..=26).contains(&ages[1]), "{ages:?}");
    assert!((30 * 24..=32 * 24).contains(&ages[2]), "{ages:?}");
    assert!(ages[3] >= 40 * 24, "{ages:?}");
    let journal: i64 = store
        .query_row("SELECT count(*) FROM journal", [], |row| row.get(0))
        .unwrap();
    assert!(journal <= 1, "{journal}");
    // All 40 days are in one answer.
    let answer = cpu(&history, START, end, 5000);
    let shown = figures(&answer);
    let shown: Vec<_> = shown
        .iter()
        .filter_map(|(at, figure)| Some((at, (*figure)?)))
        .collect();
    assert!(
        shown.len() as i64 > (days - 2) * 24 + 2 * 120 - 5,
        "{}",
        shown.len()
    );
    let expected = |at: &i64| ((at - START) / WINDOW_MS) as f32;
    for (at, figure) in shown {
        assert!((figure - expected(at)).abs() <= 6.0, "{at}: {figure}");
    }
    // A smaller limit deletes the oldest blocks.
    let pages = "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)";
    let size = || {
        4096 * store
            .query_row(pages, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let limit = size() * 2 / 3;
    drop(history);
    let history = History::open(&HistorySettings {
        folder: Some(folder.path().to_owned()),
        limit: limit as u64,
        retention,
    })
    .unwrap();
    record(&history, end + 1000, 1.0);
    history.write(end + 1000, true);
    history.write(end + WINDOW_MS + 3000, true);
    assert!(
        size() > limit / 3 && size() <= limit,
        "{} of {limit}",
        size()
    );
    let answer = cpu(&history, START, end + DAY, 5000);
    let newest = *answer.times.last().unwrap();
    assert!(
        answer.times[0] > START && newest + answer.step_ms > end,
        "{newest}"
    );
}

/// A message of an agent's history.
pub(super) fn past(times: &[i64], host: Option<f32>, container: &str) -> model::History {
    let column = |figure: f32| HistoryColumn(times.iter().map(|_| Some(figure)).collect());
    let host = host.map(|figure| ("cpu".to_owned(), column(figure)));
    let of_container = [("cpu".to_owned(), column(1.5))].into_iter().collect();
    model::History {
        interval_ms: STEP as u64,
        times: times.iter().map(|at| *at as u64).collect(),
        host: host.into_iter().collect(),
        containers: [(container.to_owned(), of_container)].into_iter().collect(),
    }
}

#[test]
fn an_agents_history_fills_the_time_without_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let (down, up) = (START + 15 * MINUTE, START + 22 * MINUTE);
    run(&history, START, down);
    drop(history);
    let history = open(folder.path());
    history.write(up, true);
    // The agent's clock is an hour behind, and its samples are not at the times of the server's samples.
    let times: Vec<i64> = (up - 10 * MINUTE..up)
        .step_by(STEP as usize)
        .map(|at| at + 400 - HOUR)
        .collect();
    let messages = [past(&times, Some(77.0), "/web"), past(&times, None, "db")];
    history.fill(HOST, &messages, HOUR, up);
    run(&history, up, START + 31 * MINUTE);
    let names = ["cpu", "container:web:cpu", "container:db:cpu"];
    let answer = history
        .query(HOST, &names, START, START + 31 * MINUTE, 5000)
        .unwrap();
    let shown = figures(&answer);
    assert!(
        shown.iter().all(|(_, figure)| figure.is_some()),
        "{shown:?}"
    );
    for (at, figure) in &shown {
        let filled = (down..up).contains(at);
        assert_eq!(
            *figure,
            Some(if filled { 77.0 } else { minute(*at) as f32 }),
            "{at}"
        );
    }
    // What the server has measured is not replaced.
    for name in ["container:web:cpu", "container:db:cpu"] {
        let known = answer.series[name].iter().flatten().count();
        assert_eq!(known as i64, (up - down) / STEP, "{name}");
    }
    // Another connection sends the same figures again: nothing changes.
    history.fill(HOST, &messages, HOUR, up);
    history.write(START + 31 * MINUTE + 5000, true);
    assert_eq!(
        history
            .query(HOST, &names, START, START + 31 * MINUTE, 5000)
            .unwrap(),
        answer
    );
}

#[test]
fn events_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let mut snapshot = Snapshot::recorded();
    for (action, seconds) in [("start", 1), ("die", 2), ("oom", 3)] {
        let event = serde_json::json!({
            "time": format!("2026-01-01T00:00:0{seconds}Z"), "id": "0123456789ab", "container": "/web",
            "action": action, "exit_code": null, "image": "web:1",
        });
        snapshot.events.push(serde_json::from_value(event).unwrap());
    }
    let at = |event: &model::ContainerEvent| crate::web::millis(event.time.0);
    let first = snapshot.events.iter().map(at).min().unwrap();
    let last = snapshot.events.iter().map(at).max().unwrap();
    history.record(HOST, &snapshot, last + 1000);
    let fresh = history.events(HOST, first, last, None).unwrap();
    assert_eq!(fresh.events.len(), snapshot.events.len());
    history.write(last + 1000, true);
    history.record(HOST, &snapshot, last + 6000);
    history.write(last + 6000, true);
    drop(history);
    let history = open(folder.path());
    let stored = history.events(HOST, first, last, None).unwrap();
    assert_eq!(stored, fresh);
    let name = stored.events[0].container.clone().unwrap();
    let of_one = history.events(HOST, first, last, Some(&name)).unwrap();
    assert!(
        of_one
            .events
            .iter()
            .all(|event| event.container.as_ref() == Some(&name))
    );
    assert!(
        history
            .events(HOST, last + 1, last + 2, None)
            .unwrap()
            .events
            .is_empty()
    );
    assert!(
        history
            .events("other", first, last, None)
            .unwrap()
            .events
            .is_empty()
    );
}

#[test]
fn a_damaged_database_is_renamed_and_a_new_history_begins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    let history = open(folder.path());
    run(&history, START, START + 25 * MINUTE);
    drop(history);
    // The first page is overwritten.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..200].fill(7);
    std::fs::write(&file, &bytes).unwrap();
    let history = open(folder.path());
    assert!(cpu(&history, START, START + HOUR, 600).times.is_empty());
    assert_eq!(
        std::fs::read(folder.path().join("history.db.damaged")).unwrap(),
        bytes
    );
    run(&history, START, START + 25 * MINUTE);
    assert_eq!(
        cpu(&history, START, START + HOUR, 2000).times.len(),
        25 * 12
    );
    drop(history);
    // The pages of the blocks are overwritten while the server runs.
    let history = open(folder.path());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(7);
    std::fs::write(&file, &bytes).unwrap();
    run(&history, START + 25 * MINUTE, START + 45 * MINUTE);
    run(&history, START + 45 * MINUTE, START + 65 * MINUTE);
    assert_eq!(history.trouble(), None);
    let newest = cpu(&history, START + 50 * MINUTE, START + 65 * MINUTE, 2000);
    assert_eq!(newest.times.len(), 15 * 12);
}

#[test]
fn only_one_server_uses_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let error = History::open(&settings(folder.path())).unwrap_err();
    assert_eq!(error.to_string(), "another server uses this folder");
    drop(history);
    open(folder.path());
}

#[test]
fn without_a_folder_the_last_hour_stays_in_memory() {
    let history = History::open(&HistorySettings {
        folder: None,
        limit: 0,
        retention: Retention::default(),
    })
    .unwrap();
    run(&history, START, START + 2 * HOUR);
    let answer = cpu(&history, START, START + 2 * HOUR, 5000);
    let first = answer.times[0];
    assert!(
        (START + 50 * MINUTE..=START + HOUR).contains(&first),
        "{first}"
    );
    assert_eq!(answer.times.len() as i64, (START + 2 * HOUR - first) / STEP);
}

#[test]
fn a_step_of_the_clock_loses_no_later_sample() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 5 * MINUTE);
    // The clock is a day ahead for a moment, and at 1970 for another.
    run(&history, START + DAY, START + DAY + MINUTE);
    run(&history, 1000, MINUTE);
    run(&history, START + 5 * MINUTE, START + 25 * MINUTE);
    let later = START + 5 * MINUTE;
    let answer = cpu(&history, later, START + 25 * MINUTE, 5000);
    assert_eq!(answer.times.len(), 20 * 12);
    // The samples from before became older than an hour for a moment. Their averages are left.
    let answer = cpu(&history, START, START + 25 * MINUTE, 5000);
    let shown = figures(&answer);
    assert_eq!(
        shown.iter().filter(|(at, _)| *at < later).count(),
        5,
        "{shown:?}"
    );
    assert!(
        shown.iter().all(|(_, figure)| figure.is_some()),
        "{shown:?}"
    );
}

#[test]
fn figures_of_a_failing_source_are_not_recorded() {
    let history = History::open(&HistorySettings {
        folder: None,
        limit: 0,
        retention: Retention::default(),
    })
    .unwrap();
    let mut snapshot = Snapshot::recorded();
    let old = snapshot.timestamp.0 - std::time::Duration::from_secs(120);
    snapshot.sources.docker.collected_at = Some(model::Timestamp(old));
    history.record(HOST, &snapshot, START);
    let names = history.series(HOST).unwrap();
    assert!(names.iter().any(|name| name == "cpu"), "{names:?}");
    let of_docker = |name: &&String| name.starts_with("container");
    assert_eq!(names.iter().filter(of_docker).collect::<Vec<_>>(), [""; 0]);
}
