//! Tests of the history with faults: wrong clocks, full disks, damage and gaps.

use std::path::Path;

use rusqlite::Connection;

use super::samples::Samples;
use super::tests::{
    DAY, HOST, HOUR, MINUTE, START, cpu, figures, open, past, record, run, settings,
};
use super::{History, WINDOW_MS, lock};
use crate::model::{self, HistoryColumn};

/// Another connection to the database.
fn connect(folder: &Path) -> Connection {
    Connection::open(folder.join("history.db")).unwrap()
}

/// Makes writing fail, as on a full disk, or possible again.
fn set_full(folder: &Path, is_full: bool) {
    let sql = match is_full {
        true => {
            "CREATE TRIGGER no_journal BEFORE INSERT ON journal BEGIN SELECT RAISE(FAIL, 'full'); END;
             CREATE TRIGGER no_blocks BEFORE INSERT ON blocks BEGIN SELECT RAISE(FAIL, 'full'); END;"
        }
        false => "DROP TRIGGER no_journal; DROP TRIGGER no_blocks;",
    };
    connect(folder).execute_batch(sql).unwrap();
}

/// The times of the history between two times, as minutes since [`START`].
fn minutes(history: &History, from: i64, to: i64, points: usize) -> Vec<i64> {
    let times = cpu(history, from, to, points).times.into_iter();
    times.map(|at| (at - START) / MINUTE).collect()
}

fn gaps(history: &History, from: i64, to: i64, points: usize) -> usize {
    let answer = cpu(history, from, to, points);
    assert!(answer.times.len() > 10, "{answer:?}");
    figures(&answer)
        .iter()
        .filter(|(_, figure)| figure.is_none())
        .count()
}

#[test]
fn a_first_write_that_fails_loses_nothing_of_the_run_before() {
    let folder = tempfile::tempdir().unwrap();
    run(&open(folder.path()), START, START + 8 * MINUTE);
    let history = open(folder.path());
    set_full(folder.path(), true);
    let up = START + 2 * HOUR;
    record(&history, up, 1.0);
    history.write(up, true);
    assert!(history.trouble().is_some());
    set_full(folder.path(), false);
    run(&history, up + 5000, up + 12 * MINUTE);
    assert_eq!(history.trouble(), None);
    drop(history);
    assert_eq!(
        minutes(&open(folder.path()), START, START + 3 * HOUR, 90)[0],
        0
    );
}

#[test]
fn what_was_on_disk_before_the_disk_was_full_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 8 * MINUTE);
    set_full(folder.path(), true);
    run(&history, START + 8 * MINUTE, START + 90 * MINUTE);
    set_full(folder.path(), false);
    run(&history, START + 90 * MINUTE, START + 91 * MINUTE);
    // The store tries again after a pause.
    let tried = std::time::Instant::now();
    while history.trouble().is_some() || lock(&history.memory).closed.len() > 1 {
        assert!(tried.elapsed().as_secs() < 20, "{:?}", history.trouble());
        std::thread::sleep(std::time::Duration::from_millis(100));
        history.write(START + 91 * MINUTE, true);
    }
    let shown = minutes(&history, START, START + 91 * MINUTE, 45);
    // The first window was on disk. The last hour was in memory.
    assert!(shown[0] <= 2, "{shown:?}");
    assert!(shown.contains(&40) || shown.contains(&41), "{shown:?}");
}

#[test]
fn a_clock_that_is_behind_for_a_moment_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 9 * MINUTE);
    history.write(START - 30 * MINUTE, true);
    drop(history);
    let history = open(folder.path());
    history.write(START - 30 * MINUTE, true);
    run(&history, START + 9 * MINUTE, START + 25 * MINUTE);
    assert_eq!(
        cpu(&history, START, START + 25 * MINUTE, 5000).times.len(),
        25 * 12
    );
}

#[test]
fn a_clock_that_is_ahead_for_a_moment_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(&open(folder.path()), START, START + 125 * MINUTE);
    let history = open(folder.path());
    // The writer does not delete before the clock was right for an hour.
    history.write(START + 3650 * DAY, false);
    run(&history, START + 126 * MINUTE, START + 3 * HOUR);
    assert_eq!(minutes(&history, START, START + 3 * HOUR, 18)[0], 0);
}

#[test]
fn samples_from_the_future_hide_no_live_samples() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 5 * MINUTE);
    run(&history, START + 65 * MINUTE, START + 72 * MINUTE);
    run(&history, START + 12 * MINUTE, START + 64 * MINUTE);
    let to = START + 64 * MINUTE;
    let newest = cpu(&history, to - 5 * MINUTE, to, 300).times.pop().unwrap();
    assert!(newest > to - 20_000, "{newest} {to}");
}

#[test]
fn an_old_fill_does_not_replace_averages() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 3 * HOUR);
    let before = cpu(&history, START, START + 2 * HOUR, 6);
    // The second pair is older than what an agent keeps. The samples of the first pair are deleted already.
    for at in [START + 89 * MINUTE, START + 29 * MINUTE] {
        let times = [at, at + 5000];
        let end = START + 3 * HOUR;
        history.fill(HOST, &[past(&times, Some(9000.0), "web")], 0, end);
    }
    history.write(START + 3 * HOUR + 5000, true);
    assert_eq!(cpu(&history, START, START + 2 * HOUR, 6), before);
}

#[test]
fn a_fill_loses_no_sample_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    // The agent keeps one sample in 5 s and sends one each second.
    let message = past(&[START + 1000, START + 6000], Some(1.0), "web");
    history.fill(HOST, &[message], 0, START + 8000);
    for second in 10..500 {
        record(&history, START + second * 1000, 1.0);
    }
    history.write(START + 500_000, true);
    let before = cpu(&history, START, START + 10 * MINUTE, 5000);
    // The two pauses at the beginning are gaps.
    assert_eq!(before.times.len(), 492 + 2);
    drop(history);
    let history = open(folder.path());
    assert_eq!(cpu(&history, START, START + 10 * MINUTE, 5000), before);
    history.write(START + 10 * MINUTE + 3000, true);
    assert_eq!(cpu(&history, START, START + 10 * MINUTE, 5000), before);
}

#[test]
fn the_fill_of_many_hosts_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let now = START + 10 * MINUTE - 1000;
    let times: Vec<u64> = (START..now).step_by(5000).map(|at| at as u64).collect();
    let column = |seed: usize| {
        let figure = |row: usize| ((row * 7919 + seed * 104_729) % 1000) as f32 * 1234.567;
        HistoryColumn((0..times.len()).map(|row| Some(figure(row))).collect())
    };
    let series = |container: usize| {
        let all = model::CONTAINER_SERIES.iter().enumerate();
        all.map(|(number, name)| ((*name).to_owned(), column(container * 7 + number)))
            .collect()
    };
    let message = model::History {
        interval_ms: 5000,
        times: times.clone(),
        host: [("cpu".to_owned(), column(1))].into_iter().collect(),
        containers: (0..10)
            .map(|one| (format!("web-{one}"), series(one)))
            .collect(),
    };
    let name = |number: usize| format!("host{number}");
    for number in 0..100 {
        history.fill(&name(number), std::slice::from_ref(&message), 0, now);
        if lock(&history.memory).is_busy() {
            history.write(now, true);
        }
    }
    history.write(now, true);
    drop(history);
    let history = open(folder.path());
    let has_all = |number: usize| {
        let answer = history.query(&name(number), &["cpu"], START, now, 5000);
        answer.unwrap().times.len() == times.len()
    };
    assert_eq!((0..100).filter(|number| has_all(*number)).count(), 100);
}

#[test]
fn an_agent_with_a_long_interval_has_no_false_gaps() {
    for (interval, range, points) in [(5 * MINUTE, 12 * HOUR, 360), (30 * MINUTE, 5 * DAY, 360)] {
        let folder = tempfile::tempdir().unwrap();
        let history = open(folder.path());
        for at in (START..START + range).step_by(interval as usize) {
            record(&history, at + 1000, 1.0);
            history.write(at + 1000, true);
        }
        assert_eq!(
            gaps(&history, START, START + range, points),
            0,
            "{interval}"
        );
    }
    // The interval changes.
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 20 * MINUTE);
    for at in (START + 20 * MINUTE..START + 50 * MINUTE).step_by(MINUTE as usize) {
        record(&history, at, 1.0);
        history.write(at, true);
    }
    assert_eq!(gaps(&history, START, START + 50 * MINUTE, 300), 0);
}

#[test]
fn a_range_with_few_samples_around_an_outage_has_the_gap() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    let (down, up) = (START + 20 * MINUTE, START + 24 * MINUTE);
    run(&history, START, down);
    run(&history, up, START + 50 * MINUTE);
    let answer = cpu(&history, down - 10_000, up + 2000, 300);
    let shown = figures(&answer);
    assert!(
        shown.iter().any(|(_, figure)| figure.is_none()),
        "{shown:?}"
    );
}

#[test]
fn nothing_is_shown_before_the_first_sample() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START + 55 * MINUTE, START + 75 * MINUTE);
    for points in [600, 150, 30] {
        let first = minutes(&history, START, START + 75 * MINUTE, points)[0];
        assert!(first >= 50, "{points}: {first}");
    }
    // Nor inside an outage.
    run(&history, START + 130 * MINUTE, START + 160 * MINUTE);
    let shown = minutes(&history, START + 90 * MINUTE, START + 160 * MINUTE, 600);
    assert!(shown[0] >= 129, "{shown:?}");
}

#[test]
fn averages_of_minutes_that_are_kept_longest_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.retention.hour = std::time::Duration::from_secs(3600);
    let history = History::open(&settings).unwrap();
    for window in 0..10 * 144_i64 {
        record(&history, START + window * WINDOW_MS + 1000, 1.0);
        history.write(START + window * WINDOW_MS + 1000, true);
    }
    let end = START + 10 * DAY;
    history.write(end + 3000, true);
    // Steps of 4 hours need averages of hours, which exist only for the last week.
    assert!(minutes(&history, START, end, 72)[0] < 5 * 60);
}

#[test]
fn a_damaged_block_costs_only_its_own_figures() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    for second in 0..3 * 3600_i64 {
        let at = START + second * 1000;
        let figures = [
            ("cpu", (at % 7919) as f32 * 1.1),
            ("load1", (at % 104_729) as f32),
        ];
        lock(&history.memory).add(HOST, at, 500, figures.into_iter());
        if at % MINUTE == 0 {
            history.write(at, true);
        }
    }
    history.write(START + 3 * HOUR + 3000, true);
    drop(history);
    let other = connect(folder.path());
    other
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let sql = "SELECT samples FROM blocks WHERE tier = 0 ORDER BY start DESC LIMIT 1 OFFSET 1";
    let block: Vec<u8> = other.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(other);
    let file = folder.path().join("history.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let part = &block[block.len() / 2..block.len() / 2 + 24];
    let at = bytes
        .windows(part.len())
        .position(|one| one == part)
        .unwrap();
    let page = at / 4096 * 4096;
    bytes[page..page + 4096].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();
    let history = open(folder.path());
    let hour = cpu(&history, START + 2 * HOUR, START + 3 * HOUR, 3600);
    assert!(
        // A page has at most two blocks of this size.
        (2300..3100).contains(&hour.times.len()),
        "{:?}",
        minutes(&history, START + 2 * HOUR, START + 3 * HOUR, 60)
    );
}

#[test]
fn damage_that_cannot_be_renamed_is_mended_later() {
    let folder = tempfile::tempdir().unwrap();
    run(&open(folder.path()), START, START + 25 * MINUTE);
    let history = open(folder.path());
    // No name for the damaged database is free.
    let file = folder.path().join("history.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(7);
    std::fs::write(&file, &bytes).unwrap();
    for name in ["history.db.damaged", "history.db.damaged-5"] {
        std::fs::create_dir_all(folder.path().join(name).join("folder")).unwrap();
    }
    for number in 2..5 {
        std::fs::write(
            folder.path().join(format!("history.db.damaged-{number}")),
            "",
        )
        .unwrap();
    }
    run(&history, START + 25 * MINUTE, START + 45 * MINUTE);
    assert!(history.trouble().is_some());
    std::fs::remove_dir_all(folder.path().join("history.db.damaged")).unwrap();
    run(&history, START + 45 * MINUTE, START + 65 * MINUTE);
    assert_eq!(history.trouble(), None);
    assert!(minutes(&history, START, START + 65 * MINUTE, 5000).contains(&50));
}

#[test]
fn free_pages_are_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let history = open(folder.path());
    run(&history, START, START + 11 * MINUTE);
    let other = connect(folder.path());
    let junk = "CREATE TABLE junk (bytes BLOB);
        INSERT INTO junk SELECT randomblob(4000) FROM (
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i FROM n);
        DROP TABLE junk;";
    other.execute_batch(junk).unwrap();
    run(&history, START + 11 * MINUTE, START + 41 * MINUTE);
    let free: i64 = other
        .query_row("PRAGMA freelist_count", [], |row| row.get(0))
        .unwrap();
    assert!(free <= 600, "{free}");
}

#[test]
fn with_many_short_containers_the_newest_are_kept() {
    let mut week = Samples::default();
    for hour in 0..24_i64 {
        let names: Vec<String> = match hour {
            ..20 => (0..300)
                .map(|one| format!("container:job{hour}-{one}:cpu"))
                .collect(),
            _ => vec!["container:new:cpu".to_owned()],
        };
        let all = names.iter().map(String::as_str).chain(["cpu"]);
        week.replace(hour * HOUR, all.map(|name| (name, 1.0)));
        week.limit(4096);
    }
    assert!(week.column("container:new:cpu").is_some() && week.column("cpu").is_some());
}
