use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::{Handover, LogFile, MOST_PARSED, New, ORIGIN, Seen};
use crate::model::Place;

/// An entry as the engine writes it.
fn entry(text: &str) -> String {
    let log = serde_json::to_string(text).unwrap();
    format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"2024-01-01T12:00:00.25Z\"}}\n")
}

fn append(path: &Path, entries: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(entries.as_ref()).unwrap();
}

fn numbered(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|number| entry(&format!("line {number}\n")))
        .collect()
}

/// The texts of the lines, without their timestamp.
fn texts(log: &mut LogFile) -> Vec<String> {
    let lines = shown(log);
    let text = |line: &String| {
        line.strip_prefix("2024-01-01T12:00:00.250000000Z ")
            .unwrap()
            .to_owned()
    };
    lines.iter().map(text).collect()
}

fn shown(log: &mut LogFile) -> Vec<String> {
    serde_json::from_str(&serde_json::to_string(&log.lines()).unwrap()).unwrap()
}

fn log_at(path: &Path, wanted: usize) -> LogFile {
    LogFile::new("0123".into(), path.to_owned(), false, wanted, New::Nothing)
}

fn expected(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

#[test]
fn reads_the_newest_lines_then_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0123-json.log");
    append(&path, numbered(0..10_000));
    let mut log = log_at(&path, 50);
    assert!(log.update().unwrap());
    assert_eq!(texts(&mut log), expected(9950..10_000));
    assert!(!log.update().unwrap());
    append(&path, numbered(10_000..10_003));
    assert!(log.update().unwrap());
    assert_eq!(texts(&mut log), expected(9953..10_003));
}

/// How many lines were numbered since the log was first read, and the number before those that
/// count for a client that has been sent none.
fn numbers(log: &mut LogFile) -> (u64, u64) {
    let lines = log.lines();
    let Place { end, origin, .. } = lines.place();
    (end - ORIGIN, ORIGIN - origin)
}

fn compress(path: &Path) {
    let done = Command::new("gzip").arg(path).status().unwrap();
    assert!(done.success());
}

#[test]
fn no_room_is_kept_between_rounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0123-json.log");
    let mut log = log_at(&path, 50);
    let mut kept = |entries: &str| {
        append(&path, entries);
        assert!(log.update().unwrap());
        log.at.as_ref().map(|at| at.rest.capacity())
    };
    assert_eq!(kept(&numbered(0..10_000)), Some(0));
    assert_eq!(kept(&numbered(0..10)), Some(0));
    let beginning = "{\"log\":";
    assert_eq!(kept(beginning), Some(beginning.len()));
}

#[test]
fn every_line_has_a_number_however_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let [first, second, third] =
        [1, 2, 3].map(|number| folder.path().join(format!("log.{number}")));
    append(&path, numbered(0..30));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (0, 10));
    append(&path, numbered(30..45));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (15, 10));
    // Rotated twice, the older one compressed in the middle of a line's news.
    append(&path, numbered(45..50));
    fs::rename(&path, &second).unwrap();
    compress(&second);
    append(&first, numbered(50..70));
    append(&path, numbered(70..80));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (50, 10));
    assert_eq!(texts(&mut log), expected(70..80));
    // While the container rests, and is rotated.
    log.rest();
    fs::remove_file(folder.path().join("log.2.gz")).unwrap();
    fs::rename(&first, &second).unwrap();
    append(&path, numbered(80..90));
    fs::rename(&path, &first).unwrap();
    append(&path, numbered(90..91));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (61, 10));
    assert_eq!(texts(&mut log), expected(81..91));
    // Rotated away: that lines were lost is all that is known.
    for file in [&first, &second, &third] {
        let _ = fs::remove_file(file);
    }
    fs::remove_file(&path).unwrap();
    append(&path, numbered(200..203));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (65, 10));
}

#[test]
fn what_is_too_much_to_be_parsed_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, first) = (folder.path().join("log"), folder.path().join("log.1"));
    append(&path, numbered(0..3));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    let long = |number: u32| entry(&format!("line {number} {}\n", "x".repeat(1000)));
    append(&path, (3..9_000).map(long).collect::<String>());
    fs::rename(&path, &first).unwrap();
    append(&path, (9_000..13_000).map(long).collect::<String>());
    assert!(fs::metadata(&path).unwrap().len() < MOST_PARSED);
    assert!(fs::metadata(&first).unwrap().len() > MOST_PARSED);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (12_997, 3));
    append(&path, (13_000..33_000).map(long).collect::<String>());
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (32_997, 3));
    assert_eq!(shown(&mut log).len(), 10);
}

#[test]
fn a_log_that_is_new_as_a_whole_is_counted_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, numbered(40..100));
    append(&folder.path().join("log.1"), numbered(0..40));
    let mut log = LogFile::new("0123".into(), path, false, 10, New::All);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (100, 0));
    assert_eq!(texts(&mut log), expected(90..100));
}

/// Puts a copy of a file in its place, or of its first bytes.
fn replace_by_copy(path: &Path, bytes: usize) {
    let copy = path.with_extension("copy");
    let content = fs::read(path).unwrap();
    fs::write(&copy, &content[..bytes.min(content.len())]).unwrap();
    fs::rename(&copy, path).unwrap();
}

#[test]
fn a_file_that_is_replaced_by_its_copy_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, numbered(0..30));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    replace_by_copy(&path, usize::MAX);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (0, 10));
    append(&path, numbered(30..32));
    replace_by_copy(&path, usize::MAX);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (2, 10));
    assert_eq!(texts(&mut log), expected(22..32));
    // By less than all of it: what is there was seen, and what comes then is new.
    replace_by_copy(&path, numbered(0..28).len());
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (2, 10));
    append(&path, numbered(40..43));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (5, 10));
    // While nothing was in it.
    let path = folder.path().join("empty");
    append(&path, "");
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    replace_by_copy(&path, usize::MAX);
    append(&path, numbered(0..4));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (4, 0));
}

#[test]
fn a_log_goes_on_where_the_engine_was_asked_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, numbered(0..30));
    let mut log = log_at(&path, 10);
    assert!(log.handover().is_none());
    log.update().unwrap();
    append(&path, numbered(30..33));
    log.update().unwrap();
    let handover = log.handover().unwrap();
    append(&path, numbered(33..37));
    let mut next = log_at(&path, 10).after(&handover);
    next.update().unwrap();
    assert_eq!((numbers(&mut next), numbers(&mut log)), ((7, 10), (3, 10)));
    append(&path, numbered(37..38));
    next.update().unwrap();
    assert_eq!(numbers(&mut next), (8, 10));
    // Of more than are kept it is known that some are lost.
    append(&path, numbered(38..90));
    let mut next = log_at(&path, 10).after(&handover);
    next.update().unwrap();
    assert!(numbers(&mut next).0 > 3 + 10);
    // Nothing had been there.
    let none = log_at(&path, 10).after(&Handover {
        position: ORIGIN,
        origin: ORIGIN,
        seen: Arc::new(Seen::new(11)),
    });
    let few = folder.path().join("few");
    append(&few, numbered(0..3));
    let mut next = LogFile { path: few, ..none };
    next.update().unwrap();
    assert_eq!(numbers(&mut next), (3, 0));
}

#[test]
fn what_is_no_longer_a_file_is_not_read_and_blocks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, numbered(0..3));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    assert!(log.update().is_err());
    fs::remove_file(&path).unwrap();
    // Nor is a rotated one.
    let first = folder.path().join("log.1");
    assert!(
        Command::new("mkfifo")
            .arg(&first)
            .status()
            .unwrap()
            .success()
    );
    append(&path, numbered(3..5));
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(3..5));
}

#[test]
fn an_entry_without_end_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, numbered(0..3));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    append(&path, "z".repeat(5 << 20) + "\n");
    append(&path, numbered(3..5));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (2, 3));
    assert_eq!(texts(&mut log), expected(0..5));
}

#[test]
fn an_entry_may_be_written_in_two_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let entry = entry("one line\n");
    append(&path, &entry[..20]);
    let mut log = log_at(&path, 5);
    log.update().unwrap();
    assert!(texts(&mut log).is_empty());
    append(&path, &entry[20..]);
    log.update().unwrap();
    assert_eq!(texts(&mut log), ["one line"]);
}

#[test]
fn follows_through_rotation_truncation_and_compressed_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (first, second) = (folder.path().join("log.1"), folder.path().join("log.2"));
    append(&path, numbered(0..30));
    let mut log = log_at(&path, 50);
    log.update().unwrap();
    // Written, rotated, written, rotated, between two readings.
    append(&path, numbered(30..40));
    fs::rename(&path, &second).unwrap();
    append(&first, numbered(40..60));
    append(&path, numbered(60..65));
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(15..65));
    compress(&second);
    fs::rename(&first, folder.path().join("log.1.tmp")).unwrap();
    fs::rename(folder.path().join("log.1.tmp"), &first).unwrap();
    let mut anew = log_at(&path, 50);
    anew.update().unwrap();
    assert_eq!(texts(&mut anew), expected(15..65));
    // Emptied and grown beyond where it was, between two readings.
    fs::write(&path, numbered(100..200)).unwrap();
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(150..200));
    // A single file is emptied instead of being rotated.
    fs::write(&path, numbered(65..66)).unwrap();
    fs::remove_file(&first).unwrap();
    fs::remove_file(folder.path().join("log.2.gz")).unwrap();
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(65..66));
}

#[test]
fn fragments_make_one_line_also_across_the_first_look() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    for _ in 0..5 {
        for _ in 0..6 {
            append(&path, entry(&"x".repeat(16 * 1024)));
        }
        append(&path, entry("end\n"));
    }
    let mut log = log_at(&path, 5);
    log.update().unwrap();
    assert_eq!(shown(&mut log).len(), 5);
    assert!(
        shown(&mut log)
            .iter()
            .all(|line| line.ends_with("[line cut at 16 KiB]"))
    );
}

#[test]
fn a_terminals_line_ends_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    append(&path, entry("a\r\n"));
    let long = "y".repeat(16 * 1024 - 1);
    append(&path, entry(&format!("{long}\r")));
    append(&path, entry("\n"));
    for (tty, text) in [(true, "a"), (false, "a\r")] {
        let mut log = LogFile::new("0123".into(), path.clone(), tty, 5, New::Nothing);
        log.update().unwrap();
        assert_eq!(texts(&mut log)[0], text);
        assert_eq!(
            texts(&mut log)[1],
            format!("{long}{}", if tty { "" } else { "\r" })
        );
    }
}

#[test]
fn a_log_that_is_none_yields_nothing_and_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = log_at(&path, 5);
    assert!(log.update().is_err());
    append(&path, b"\xff\x00nonsense\n{}\n[]\n{\"log\":1}\n");
    log.update().unwrap();
    assert!(shown(&mut log).is_empty());
}

#[test]
fn fuzz_log_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let entries = [
        r#"{"log":"a line\n","stream":"stdout","time":"2024-01-01T12:00:00.5Z"}"#,
        r#"{"log":"half ","stream":"stderr","time":"2024-01-01T12:00:01.123456789Z"}"#,
        r#"{"log":"\u00e9\ud83d\udca9\"\\\r\n","stream":"stdout","time":"2024-01-01T12:00:02Z"}"#,
        r#"{"log":"of a line\n","stream":"stderr","time":"2024-01-01T12:00:03.5+01:00","attrs":{"a":"b"}}"#,
    ];
    let seed = entries.join("\n") + "\n";
    let mut follows = log_at(&path, 3);
    crate::fuzzing::run(
        "log_files",
        &[seed.as_bytes(), entries[0].as_bytes()],
        |bytes| {
            fs::write(&path, bytes).unwrap();
            // One that is read for the first time, and one that goes on from wherever it was.
            let mut first = LogFile::new(
                "0123".into(),
                path.clone(),
                bytes.len() % 2 == 0,
                3,
                New::All,
            );
            for log in [&mut first, &mut follows] {
                if log.update().is_ok() {
                    let lines = log.lines();
                    let lines: Vec<String> = serde_json::from_str(lines.json()).unwrap();
                    assert!(lines.len() <= 3);
                }
            }
        },
    );
}
