use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::collect::logs::files::open;
use crate::model::{LogRange, RangeEnd, text_of};
use crate::settings::Redaction;

/// The length of the engine's fragments of a long line.
const FRAGMENT: usize = 16 * 1024;

/// The log files of one container.
struct Log {
    _folder: TempDir,
    path: PathBuf,
}

impl Log {
    /// Writes the files, the oldest first. The oldest of several files is compressed.
    fn of(files: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123-json.log");
        for (age, text) in files.iter().rev().enumerate() {
            let name =
                |suffix: &str| Path::new(folder.path()).join(format!("0123-json.log{suffix}"));
            match age {
                0 => fs::write(&path, text).unwrap(),
                _ if age + 1 == files.len() => {
                    let file = fs::File::create(name(&format!(".{age}.gz"))).unwrap();
                    let mut packed = GzEncoder::new(file, Compression::fast());
                    packed.write_all(text.as_bytes()).unwrap();
                    packed.finish().unwrap();
                }
                _ => fs::write(name(&format!(".{age}")), text).unwrap(),
            }
        }
        Self {
            _folder: folder,
            path,
        }
    }

    /// Reads the whole log in pages. Returns the texts of the lines.
    fn pages(&self, range: &LogRange, redaction: &Redaction) -> Vec<String> {
        let (mut range, mut all) = (range.clone(), Vec::new());
        for _ in 0..10_000 {
            let (file, now) = open::open(&self.path).unwrap();
            let newest = (Arc::new(file), now);
            let read = super::read(&self.path, false, redaction, newest, &range).unwrap();
            let lines = read.lines.iter();
            let lines: Vec<String> = lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            match range.from {
                RangeEnd::Newest => all.splice(0..0, lines).for_each(drop),
                RangeEnd::Oldest => all.extend(lines),
            }
            let Some(reached) = read.reached else {
                return all;
            };
            match range.from {
                RangeEnd::Newest => range.before = Some(reached),
                RangeEnd::Oldest => range.after = Some(reached),
            }
        }
        panic!("the pages do not end");
    }
}

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
}

fn entry(stream: &str, milliseconds: u64, text: &str) -> String {
    let log = serde_json::to_string(text).unwrap();
    let time = text_of(at(milliseconds));
    format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n")
}

fn range(from: RangeEnd, lines: usize) -> LogRange {
    LogRange {
        from,
        lines,
        ..LogRange::of("web")
    }
}

/// The number in each line `TIMESTAMP NUMBER …`.
fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| line.split(' ').nth(1)?.parse().ok();
    lines.iter().map(|line| number(line).unwrap()).collect()
}

#[test]
fn pages_that_are_limited_by_their_text_have_every_line() {
    let filler = "x".repeat(1000);
    let file = |numbers: std::ops::Range<u64>| -> String {
        let line = |number| entry("stdout", number * 100, &format!("{number} {filler}\n"));
        numbers.map(line).collect()
    };
    let log = Log::of(&[file(0..9_000), file(9_000..20_000), file(20_000..30_000)]);
    let expected: Vec<u64> = (0..30_000).collect();
    for from in [RangeEnd::Newest, RangeEnd::Oldest] {
        let read = log.pages(&range(from, 10_000), &Redaction::default());
        assert!(numbers(&read) == expected, "{from}: {} lines", read.len());
    }
}

#[test]
fn lines_that_are_not_in_the_order_of_their_times_come_once() {
    // The lines of stderr were written 300 ms after their times.
    let mut text = String::new();
    for number in 0..2_000 {
        text += &entry(
            "stdout",
            number * 10 + 300,
            &format!("{} out\n", number * 10 + 300),
        );
        text += &entry(
            "stderr",
            number * 10 + 5,
            &format!("{} err\n", number * 10 + 5),
        );
    }
    let log = Log::of(&[text]);
    let mut expected: Vec<u64> = (0..2_000)
        .flat_map(|number| [number * 10 + 300, number * 10 + 5])
        .collect();
    expected.sort_unstable();
    for (from, lines) in [(RangeEnd::Newest, 7), (RangeEnd::Oldest, 31)] {
        let read = log.pages(&range(from, lines), &Redaction::default());
        assert!(numbers(&read) == expected, "{from}: {} lines", read.len());
    }
}

#[test]
fn no_part_of_a_secret_is_shown_if_a_line_is_split_between_files() {
    let redaction = Redaction::parse("token-[0-9]+").unwrap();
    let begin = format!("{}token-12", "a ".repeat(FRAGMENT / 2 - 4));
    assert_eq!(begin.len(), FRAGMENT);
    let first = entry("stdout", 0, "0 first\n") + &entry("stdout", 10, &begin);
    let second = entry("stderr", 20, "1 other\n")
        + &entry("stdout", 30, "345 end\n")
        + &entry("stdout", 40, "2 token-678 shown\n");
    // The older file is compressed, or plain between two others.
    let logs = [
        Log::of(&[first.clone(), second.clone()]),
        Log::of(&[entry("stdout", 0, "0 oldest\n"), first, second]),
    ];
    for log in logs {
        for from in [RangeEnd::Newest, RangeEnd::Oldest] {
            let read = log.pages(&range(from, 100), &redaction).join("\n");
            assert!(
                !read.contains("345") && !read.contains("token-1"),
                "{from}: {read}"
            );
            assert!(
                read.contains("other") && read.contains(" end"),
                "{from}: {read}"
            );
            assert!(
                read.contains("shown") && !read.contains("678"),
                "{from}: {read}"
            );
        }
    }
}
