//! Tests of reading a log in pieces ([`super::reader`]), together with the reading of its newest lines ([`super::file`]).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::file::LogFile;
use super::format::Format;
use super::local;
use crate::collect::logs::new::New;
use crate::model::LogStream::{self, Stderr, Stdout};
use crate::model::{Cursor, CursorOwner, Events, FileOffset, LogPosition, Positions, ReadLimits};

const ID: &str = "0123456789abcdef";
/// The engine splits a line into fragments of this many bytes.
const FRAGMENT: usize = 16 * 1024;

/// A log as the engine writes it: the newest file, and the rotated files `.1` (newest), `.2` and so on.
struct Engine {
    format: Format,
    folder: tempfile::TempDir,
    written: u32,
    /// The stream of each line, by the number of the line.
    streams: Vec<LogStream>,
    max_files: u32,
    /// The number of the first line of each file, newest first.
    files: Vec<u32>,
}

impl Engine {
    fn new(format: Format, max_files: u32) -> Self {
        let engine = Self {
            format,
            folder: tempfile::tempdir().unwrap(),
            written: 0,
            streams: Vec::new(),
            max_files,
            files: vec![0],
        };
        engine.append(b"");
        engine
    }

    fn path(&self) -> PathBuf {
        let name = match self.format {
            Format::JsonFile => "0123-json.log",
            Format::Local => "container.log",
        };
        self.folder.path().join(name)
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut path = self.path().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    fn append(&self, bytes: &[u8]) {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).open(self.path()).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn write(&mut self, lines: u32) {
        for _ in 0..lines {
            let text = format!("line {}\n", self.written);
            let stream = match self.written % 3 {
                0 => Stderr,
                _ => Stdout,
            };
            self.append(&entry(self.format, stream.name(), &text));
            self.streams.push(stream);
            self.written += 1;
        }
    }

    /// Writes a line of three fragments. A short line of the other stream is between the fragments.
    fn write_long(&mut self) {
        let number = self.written;
        let begin = format!("line {number} {}", "x".repeat(FRAGMENT));
        let fragments = [&begin[..FRAGMENT], &begin[FRAGMENT..]];
        let between = format!("line {}\n", number + 1);
        self.append(&entry(self.format, "stderr", fragments[0]));
        self.append(&entry(self.format, "stdout", &between));
        self.append(&entry(
            self.format,
            "stderr",
            &format!("{}\n", fragments[1]),
        ));
        self.streams.extend([Stderr, Stdout]);
        self.written += 2;
    }

    fn rotate(&mut self, compressed: bool) {
        // The engine rotates a file only when it is full.
        if fs::metadata(self.path()).unwrap().len() == 0 {
            return;
        }
        for number in (1..self.max_files).rev() {
            for suffix in ["", ".gz"] {
                let from = format!("{}{suffix}", self.rotated(number).display());
                let to = format!("{}{suffix}", self.rotated(number + 1).display());
                if !Path::new(&from).exists() {
                    continue;
                }
                match number + 1 == self.max_files {
                    true => fs::remove_file(from).unwrap(),
                    false => fs::rename(from, to).unwrap(),
                }
            }
        }
        if self.max_files == 1 {
            fs::write(self.path(), "").unwrap();
        } else {
            fs::rename(self.path(), self.rotated(1)).unwrap();
            if compressed {
                compress(&self.rotated(1));
            }
            self.append(b"");
        }
        self.files.insert(0, self.written);
        self.files.truncate(self.max_files as usize);
    }

    /// The number of the oldest line in the files.
    fn oldest(&self) -> u32 {
        *self.files.last().unwrap()
    }
}

fn compress(path: &Path) {
    let packed = fs::File::create(format!("{}.gz", path.display())).unwrap();
    let mut packed = GzEncoder::new(packed, Compression::fast());
    packed.write_all(&fs::read(path).unwrap()).unwrap();
    packed.finish().unwrap();
    fs::remove_file(path).unwrap();
}

/// An entry with a timestamp that no other entry has.
fn entry(format: Format, stream: &str, text: &str) -> Vec<u8> {
    static NANOSECONDS: AtomicU32 = AtomicU32::new(0);
    let now = NANOSECONDS.fetch_add(1, Ordering::Relaxed);
    match format {
        Format::JsonFile => {
            let log = serde_json::to_string(text).unwrap();
            let time = format!("2024-01-01T12:00:00.{now:09}Z");
            format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n").into()
        }
        Format::Local => {
            let line = text.strip_suffix('\n');
            let last = match line {
                Some(_) => None,
                None => Some(false),
            };
            let time = 1_704_110_400_000_000_000 + u64::from(now);
            local::tests::entry(stream, time, line.unwrap_or(text).as_bytes(), last)
        }
    }
}

/// A client that reads at its own speed, and the agent's reading of the newest lines, which it depends on.
struct Client {
    log: LogFile,
    at: LogPosition,
    /// The numbers of the lines that the client received.
    received: Vec<u32>,
    /// The stream of each of these lines.
    streams: Vec<LogStream>,
    dropped: u64,
}

impl Client {
    fn new(engine: &Engine) -> Self {
        let mut log = LogFile::new(ID.into(), engine.path(), false, 5, New::All);
        log.update().unwrap();
        let origin = log.lines().place().origin.clone();
        Self {
            log,
            at: origin,
            received: Vec::new(),
            streams: Vec::new(),
            dropped: 0,
        }
    }

    /// Reads the next piece. Returns whether the client has all lines up to the agent's newest reading.
    fn read(&mut self, most: usize) -> bool {
        let newest = self.log.log_position();
        let Some(to) = &newest.place else {
            return true;
        };
        if self.at.line >= to.line {
            return true;
        }
        let limits = ReadLimits {
            text: most,
            line: FRAGMENT,
        };
        let read = match self.log.reader().0.read(&self.at, to, limits) {
            Ok(read) => read,
            // The log was rotated after the agent's newest reading, so the agent has to read it again first.
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::Other, "{error}");
                return true;
            }
        };
        let texts: Vec<String> = read.new_lines().texts().collect();
        let has_number = self.at.place.as_ref().is_some_and(|place| place.line > 0);
        if has_number {
            assert_eq!(
                read.end.line - self.at.line,
                texts.len() as u64 + read.dropped
            );
        }
        assert!(read.end != self.at, "no progress");
        for text in texts {
            let number = text.split(' ').nth(2).unwrap();
            self.received.push(number.parse().unwrap());
        }
        self.streams.extend(read.new_lines().streams());
        self.dropped += read.dropped;
        self.at = read.end;
        false
    }

    /// Continues with another run of the agent, which knows only the cursor.
    fn restart(&mut self, engine: &Engine) {
        let owner = |run| CursorOwner {
            host: "web-1".to_owned(),
            run,
        };
        let positions = Positions::from_iter([(ID.into(), self.at.clone())]);
        let cursor = Cursor::of_events(&owner(1), 0, &Events::default(), 0);
        let text = cursor.with_logs(&positions, None).to_text();
        let cursor = Arc::new(Cursor::parse(&text).unwrap());
        self.at = cursor.resumed(&owner(2)).unwrap().position(ID, 0).unwrap();
        self.log = LogFile::new(ID.into(), engine.path(), false, 5, New::OnlyKept);
        self.log.update().unwrap();
    }

    fn is_at_beginning_of_file(&self) -> bool {
        let at = self.at.place.as_ref().map(|place| place.at);
        at.is_some_and(|at| at.offset == 0 && at != FileOffset::default())
    }

    fn read_all(&mut self, most: usize) {
        self.log.update().unwrap();
        while !self.read(most) {}
    }

    /// Whether each received line has the stream to which the engine's container has written it.
    fn has_right_streams(&self, engine: &Engine) -> bool {
        let written = |number: &u32| engine.streams[*number as usize];
        self.streams
            .iter()
            .copied()
            .eq(self.received.iter().map(written))
    }
}

#[test]
fn a_slow_client_gets_every_line_through_rotation_and_compression() {
    for format in [Format::JsonFile, Format::Local] {
        a_slow_client_gets_every_line(Engine::new(format, 4));
    }
}

fn a_slow_client_gets_every_line(mut engine: Engine) {
    let mut client = Client::new(&engine);
    for round in 0..12 {
        engine.write(40);
        engine.write_long();
        client.log.update().unwrap();
        client.read(500);
        if round % 4 == 3 {
            engine.rotate(round % 8 == 3);
            client.log.update().unwrap();
        }
        client.read(500);
    }
    client.read_all(2000);
    let wrong = (0..).zip(&client.received).find(|(due, line)| due != *line);
    assert_eq!(
        wrong,
        None,
        "{:?}",
        &client.received[wrong.map_or(0, |(due, _)| due.saturating_sub(5)) as usize..][..12]
    );
    assert_eq!(
        (client.received.len() as u32, client.dropped),
        (engine.written, 0)
    );
    assert!(client.has_right_streams(&engine));
}

#[test]
fn lines_that_were_rotated_away_are_counted_exactly() {
    for format in [Format::JsonFile, Format::Local] {
        removed_lines_are_counted(Engine::new(format, 2));
    }
}

fn removed_lines_are_counted(mut engine: Engine) {
    let mut client = Client::new(&engine);
    engine.write(10);
    client.read_all(100_000);
    for _ in 0..5 {
        engine.write(100);
        client.log.update().unwrap();
        engine.rotate(false);
    }
    engine.write(7);
    client.read_all(1000);
    let kept = engine.oldest();
    assert_eq!(client.dropped, u64::from(kept - 10));
    let expected: Vec<u32> = (0..10).chain(kept..engine.written).collect();
    assert_eq!(client.received, expected);
}

#[test]
fn a_client_gets_all_lines_in_the_files_if_the_agent_reads_too_late() {
    for format in [Format::JsonFile, Format::Local] {
        for compressed in [false, true] {
            the_position_is_lost(Engine::new(format, 3), compressed);
        }
    }
}

fn the_position_is_lost(mut engine: Engine, compressed: bool) {
    let mut client = Client::new(&engine);
    engine.write(10);
    client.read_all(100_000);
    for _ in 0..5 {
        engine.write(100);
        engine.rotate(compressed);
    }
    engine.write(7);
    client.read_all(1000);
    let kept = engine.oldest();
    let expected: Vec<u32> = (0..10).chain(kept..engine.written).collect();
    assert_eq!(client.received, expected);
    // The number of lost lines is unknown.
    assert_eq!(client.dropped, 1);
}

#[derive(Debug, Clone)]
enum Step {
    Write(u32),
    WriteLong,
    Rotate(bool),
    Round,
    Read(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_u32).prop_map(Step::Write),
        1 => Just(Step::WriteLong),
        1 => any::<bool>().prop_map(Step::Rotate),
        4 => Just(Step::Round),
        4 => (1..20_000_usize).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// In any order of writes, rotations, rounds and restarts of the agent, and readings of a client, the client gets each line once
    /// and in order, or the line is counted as dropped. A line is dropped only if it was rotated away. The number of
    /// lines that were rotated away before a restart of the agent is not known, so one is counted.
    #[test]
    fn each_line_is_received_once_or_counted(steps in prop::collection::vec(step(), 1..60), max_files in 2..5_u32, is_local in any::<bool>()) {
        let format = if is_local { Format::Local } else { Format::JsonFile };
        let mut engine = Engine::new(format, max_files);
        let mut client = Client::new(&engine);
        let mut restarts = 0;
        for step in steps {
            match step {
                Step::Write(lines) => engine.write(lines),
                Step::WriteLong => engine.write_long(),
                Step::Rotate(compressed) => {
                    // The agent reads the log at least once before a file is rotated away.
                    client.log.update().unwrap();
                    engine.rotate(compressed);
                }
                Step::Round => {
                    client.log.update().unwrap();
                }
                Step::Read(most) => {
                    client.read(most);
                }
                // If a file was empty, a cursor cannot name a place in it that is found again after the file is compressed.
                Step::Restart if client.is_at_beginning_of_file() => {}
                Step::Restart => {
                    client.restart(&engine);
                    restarts += 1;
                }
            }
        }
        client.read_all(10_000);
        let all = u64::from(engine.written);
        let missing = all - client.received.len() as u64;
        prop_assert!(client.dropped <= missing + restarts, "{} of {missing}", client.dropped);
        prop_assert!(restarts > 0 || client.dropped == missing, "{} of {missing}", client.dropped);
        prop_assert!(client.has_right_streams(&engine), "{:?} {:?}", client.received, client.streams);
        prop_assert!(client.received.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", client.received);
        let kept: Vec<u32> = (engine.oldest()..engine.written).collect();
        prop_assert!(client.received.ends_with(&kept), "{:?} {:?}", kept, client.received);
    }
}
