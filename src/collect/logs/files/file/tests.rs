use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::{Handover, KeptFiles, LogFile, MAX_PARSED_BYTES, New, ORIGIN, Seen};
use crate::model::{LogStream, Place};

/// An entry as the engine writes it.
fn entry(text: &str) -> String {
    entry_of(LogStream::Stdout, text)
}

fn entry_of(stream: LogStream, text: &str) -> String {
    let (log, stream) = (serde_json::to_string(text).unwrap(), stream.name());
    format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"2024-01-01T12:00:00.25Z\"}}\n")
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

/// Returns the texts of the lines, without their timestamps.
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
    LogFile::new("0123".into(), path.to_owned(), false, wanted, New::OnlyKept)
}

fn expected(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

#[test]
fn the_first_reading_returns_the_newest_lines_and_later_readings_add_new_lines() {
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

/// Returns two numbers: the lines counted after the first reading, and the earlier lines that are new for a client without lines.
fn numbers(log: &mut LogFile) -> (u64, u64) {
    let lines = log.lines();
    let Place { end, origin, .. } = lines.place();
    (end - ORIGIN, ORIGIN - origin.line)
}

fn compress(path: &Path) {
    let done = Command::new("gzip").arg(path).status().unwrap();
    assert!(done.success());
}

#[test]
fn no_buffer_stays_allocated_between_rounds() {
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
fn a_watched_log_is_read_from_the_open_file_until_its_rotation_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0123-json.log");
    let older = folder.path().join("0123-json.log.1");
    append(&path, numbered(0..10));
    let mut log = log_at(&path, 20).keeping(&KeptFiles::within_limit());
    assert!(log.update_watched().unwrap());
    append(&path, numbered(10..12));
    assert!(log.update_watched().unwrap());
    assert_eq!(texts(&mut log), expected(0..12));
    fs::rename(&path, &older).unwrap();
    append(&older, numbered(12..13));
    append(&path, numbered(13..15));
    // The line in the older file is read, although the report has not arrived.
    assert!(log.update_watched().unwrap());
    assert_eq!(texts(&mut log), expected(0..13));
    assert!(!log.update_watched().unwrap());
    // The report arrives.
    assert!(log.update().unwrap());
    assert_eq!(texts(&mut log), expected(0..15));
    append(&path, numbered(15..16));
    assert!(log.update_watched().unwrap());
    assert_eq!(texts(&mut log), expected(0..16));
    // No report arrives, for example because there were too many.
    fs::rename(&path, &older).unwrap();
    append(&path, numbered(16..17));
    assert!(!log.update_watched().unwrap());
    log.kept.forget_look();
    assert!(log.update_watched().unwrap());
    assert_eq!(texts(&mut log), expected(0..17));
    // The file is emptied, as by `logrotate` with `copytruncate`.
    fs::write(&path, numbered(17..18)).unwrap();
    assert!(log.update_watched().unwrap());
    assert_eq!(texts(&mut log).last().unwrap(), "line 17");
    // The file is deleted, and another one has its name.
    fs::remove_file(&path).unwrap();
    append(&path, numbered(18..20));
    assert!(log.update_watched().unwrap());
    assert_eq!(texts(&mut log).last().unwrap(), "line 19");
}

#[test]
fn the_size_includes_a_rotated_file_if_the_new_file_has_the_inode_number_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0123-json.log");
    append(&path, numbered(0..100));
    let mut log = log_at(&path, 20);
    log.update().unwrap();
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert_eq!(log.bytes(), Some(size(&path)));
    let older = folder.path().join("0123-json.log.1");
    fs::copy(&path, &older).unwrap();
    fs::write(&path, numbered(100..300)).unwrap();
    log.update().unwrap();
    assert_eq!(log.bytes(), Some(size(&older) + size(&path)));
}

#[test]
fn every_line_is_counted_through_rotation_and_compression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
    let [first, second, third] =
        [1, 2, 3].map(|number| folder.path().join(format!("x-json.log.{number}")));
    append(&path, numbered(0..30));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (0, 10));
    append(&path, numbered(30..45));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (15, 10));
    // The log is rotated twice, and the older file is compressed. The last position is in the older file.
    append(&path, numbered(45..50));
    fs::rename(&path, &second).unwrap();
    compress(&second);
    append(&first, numbered(50..70));
    append(&path, numbered(70..80));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (50, 10));
    assert_eq!(texts(&mut log), expected(70..80));
    // The log is rotated while the container is stopped.
    log.drop_lines();
    fs::remove_file(folder.path().join("x-json.log.2.gz")).unwrap();
    fs::rename(&first, &second).unwrap();
    append(&path, numbered(80..90));
    fs::rename(&path, &first).unwrap();
    append(&path, numbered(90..91));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (61, 10));
    assert_eq!(texts(&mut log), expected(81..91));
    // The position was in a file that was rotated away. The number of lost lines is unknown, so one lost line is counted.
    for file in [&first, &second, &third] {
        let _ = fs::remove_file(file);
    }
    fs::remove_file(&path).unwrap();
    append(&path, numbered(200..203));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (65, 10));
}

#[test]
fn lines_beyond_the_parsing_limit_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, first) = (
        folder.path().join("x-json.log"),
        folder.path().join("x-json.log.1"),
    );
    append(&path, numbered(0..3));
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    let long = |number: u32| entry(&format!("line {number} {}\n", "x".repeat(1000)));
    append(&path, (3..9_000).map(long).collect::<String>());
    fs::rename(&path, &first).unwrap();
    append(&path, (9_000..13_000).map(long).collect::<String>());
    assert!(fs::metadata(&path).unwrap().len() < MAX_PARSED_BYTES);
    assert!(fs::metadata(&first).unwrap().len() > MAX_PARSED_BYTES);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (12_997, 3));
    append(&path, (13_000..33_000).map(long).collect::<String>());
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (32_997, 3));
    assert_eq!(shown(&mut log).len(), 10);
}

#[test]
fn all_lines_of_a_new_container_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
    append(&path, numbered(40..100));
    append(&folder.path().join("x-json.log.1"), numbered(0..40));
    let mut log = LogFile::new("0123".into(), path, false, 10, New::All);
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (100, 0));
    assert_eq!(texts(&mut log), expected(90..100));
}

/// Replaces a file by a copy of its first `bytes` bytes.
fn replace_by_copy(path: &Path, bytes: usize) {
    let copy = path.with_extension("copy");
    let content = fs::read(path).unwrap();
    fs::write(&copy, &content[..bytes.min(content.len())]).unwrap();
    fs::rename(&copy, path).unwrap();
}

#[test]
fn reading_continues_after_a_file_is_replaced_by_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
    // The copy is shorter than the file. All its lines were read earlier, and later lines are new.
    replace_by_copy(&path, numbered(0..28).len());
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (2, 10));
    append(&path, numbered(40..43));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (5, 10));
    // An empty file is replaced by its copy.
    let path = folder.path().join("empty-json.log");
    append(&path, "");
    let mut log = log_at(&path, 10);
    log.update().unwrap();
    replace_by_copy(&path, usize::MAX);
    append(&path, numbered(0..4));
    log.update().unwrap();
    assert_eq!(numbers(&mut log), (4, 0));
}

#[test]
fn a_log_file_continues_where_the_calls_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
    // There are more new lines than the agent stores. The newest message that was read shows how many.
    append(&path, numbered(38..90));
    let mut next = log_at(&path, 10).after(&handover);
    next.update().unwrap();
    assert_eq!(numbers(&mut next), (60, 10));
    // The log was empty when the calls ended.
    let none = log_at(&path, 10).after(&Handover {
        position: ORIGIN,
        origin: ORIGIN,
        seen: Arc::new(Seen::new(11)),
        settled: None,
    });
    let few = folder.path().join("few-json.log");
    append(&few, numbered(0..3));
    let mut next = LogFile { path: few, ..none };
    next.update().unwrap();
    assert_eq!(numbers(&mut next), (3, 0));
}

#[test]
fn a_named_pipe_is_not_read_and_does_not_block() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
    // A rotated file that is a named pipe is not read either.
    let first = folder.path().join("x-json.log.1");
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
fn an_entry_that_is_too_long_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
fn an_entry_can_be_written_in_two_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
fn reading_continues_through_rotation_emptied_files_and_compression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
    let (first, second) = (
        folder.path().join("x-json.log.1"),
        folder.path().join("x-json.log.2"),
    );
    append(&path, numbered(0..30));
    let mut log = log_at(&path, 50);
    log.update().unwrap();
    // Between two readings, lines are written and the log is rotated, twice.
    append(&path, numbered(30..40));
    fs::rename(&path, &second).unwrap();
    append(&first, numbered(40..60));
    append(&path, numbered(60..65));
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(15..65));
    compress(&second);
    fs::rename(&first, folder.path().join("x-json.log.1.tmp")).unwrap();
    fs::rename(folder.path().join("x-json.log.1.tmp"), &first).unwrap();
    let mut again = log_at(&path, 50);
    again.update().unwrap();
    assert_eq!(texts(&mut again), expected(15..65));
    // Between two readings, the file is emptied and grows beyond the last position.
    fs::write(&path, numbered(100..200)).unwrap();
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(150..200));
    // A log with only one file is emptied instead of rotated.
    fs::write(&path, numbered(65..66)).unwrap();
    fs::remove_file(&first).unwrap();
    fs::remove_file(folder.path().join("x-json.log.2.gz")).unwrap();
    log.update().unwrap();
    assert_eq!(texts(&mut log), expected(65..66));
}

#[test]
fn fragments_make_one_line_even_if_the_first_search_is_too_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
fn a_terminals_line_ends_are_not_part_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
    append(&path, entry("a\r\n"));
    let long = "y".repeat(16 * 1024 - 1);
    append(&path, entry(&format!("{long}\r")));
    append(&path, entry("\n"));
    for (tty, text) in [(true, "a"), (false, "a\r")] {
        let mut log = LogFile::new("0123".into(), path.clone(), tty, 5, New::OnlyKept);
        log.update().unwrap();
        assert_eq!(texts(&mut log)[0], text);
        assert_eq!(
            texts(&mut log)[1],
            format!("{long}{}", if tty { "" } else { "\r" })
        );
    }
}

#[test]
fn a_file_without_valid_entries_yields_no_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
    let mut log = log_at(&path, 5);
    assert!(log.update().is_err());
    append(&path, b"\xff\x00nonsense\n{}\n[]\n{\"log\":1}\n");
    log.update().unwrap();
    assert!(shown(&mut log).is_empty());
}

#[test]
fn fuzz_log_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-json.log");
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
            // One log is read for the first time. The other log continues at its last position.
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

#[test]
fn each_line_keeps_its_stream_until_it_leaves_the_tail() {
    use LogStream::{Stderr, Stdout};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0123-json.log");
    let long = "x".repeat(16 * 1024);
    let mut log = log_at(&path, 4);
    let mut read = |entries: &[(LogStream, &str)]| {
        for (stream, text) in entries {
            append(&path, entry_of(*stream, text));
        }
        assert!(log.update().unwrap());
        let lines = log.lines();
        let new = lines.after(0);
        let texts = new.texts().map(|text| text[31..].to_owned());
        texts.zip(new.streams()).collect::<Vec<_>>()
    };
    let line = |text: &str, stream| (text.to_owned(), stream);
    let long_line = || line(&long, Stderr);
    let (a, b) = (line("a", Stdout), line("b\t", Stderr));
    let first = read(&[(Stdout, "a\n"), (Stderr, "b\t\n"), (Stderr, &long)]);
    assert_eq!(first, [a, b.clone()]);
    // The unfinished line comes before the line of the other stream.
    let (c, d) = (line("c", Stdout), line("d", Stderr));
    let second = read(&[(Stdout, "c\n"), (Stderr, "\n"), (Stderr, "d\n")]);
    assert_eq!(second, [b, long_line(), c.clone(), d.clone()]);
    let third = read(&[(Stdout, "e\n")]);
    assert_eq!(third, [long_line(), c, d, line("e", Stdout)]);
}

#[test]
fn the_lines_of_a_terminal_come_from_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0123-json.log");
    append(&path, entry_of(LogStream::Stderr, "a\r\n"));
    let mut log = log_at(&path, 4).of_terminal(true);
    assert!(log.update().unwrap());
    let lines = log.lines();
    let streams: Vec<_> = lines.after(0).streams().collect();
    assert_eq!(streams, [LogStream::Stdout]);
}

#[test]
fn the_folder_of_the_container_is_known_if_the_log_is_in_it() {
    let folder_of = |path: &str| {
        let log = log_at(Path::new(path), 5);
        log.folder().map(Path::to_owned)
    };
    let folder = Some(Path::new("/data/containers/0123").to_owned());
    assert_eq!(folder_of("/data/containers/0123/0123-json.log"), folder);
    let local = folder_of("/data/containers/0123/local-logs/container.log");
    assert_eq!(local, folder);
    assert_eq!(folder_of("/data/0123-json.log"), None);
}
