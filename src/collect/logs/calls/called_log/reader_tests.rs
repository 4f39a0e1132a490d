use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, Sender};

use super::CalledLog;
use super::tests::{call, engine_at, frame};
use crate::collect::docker::engine::Call;
use crate::collect::logs::new::New;
use crate::model::LogStream::{self, Stderr, Stdout};
use crate::model::{
    Cursor, CursorOwner, Events, LogPosition, LogRange, Positions, RangeEnd, ReadLimits, text_of,
};
use crate::settings::Redaction;

const ID: &str = "0123456789abcdef";
/// The engine splits a line into fragments of this many bytes.
const FRAGMENT: usize = 16 * 1024;

/// A message of the log: its time in milliseconds, its channel, and its text.
type Written = (u64, u8, String);

/// A fake engine with a log, a reading of its newest lines, and a client that reads at its own speed.
struct Setting {
    log: CalledLog,
    call: Call,
    runtime: Handle,
    _driver: Driver,
    messages: Arc<Mutex<Vec<Written>>>,
    written: u32,
    /// Whether the container has a TTY.
    tty: bool,
    /// The stream of each line, by the number of the line.
    streams: Vec<LogStream>,
    /// The number of the first line that the engine still has.
    oldest: u32,
    now: u64,
    at: LogPosition,
    received: Vec<u32>,
    dropped: u64,
    _folder: TempDir,
}

/// The thread that runs the runtime. Ends on drop.
struct Driver(Option<(Sender<()>, JoinHandle<()>)>);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some((end, driver)) = self.0.take() {
            drop(end);
            driver.join().unwrap();
        }
    }
}

fn time(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
}

fn text((milliseconds, _, text): &Written) -> String {
    let time = humantime::format_rfc3339_nanos(time(*milliseconds));
    format!("{time} {text}")
}

impl Setting {
    fn new(tty: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let messages: Arc<Mutex<Vec<Written>>> = Arc::default();
        let log = Arc::clone(&messages);
        engine_at(&socket, move |(tail, since)| {
            let messages = log.lock().unwrap();
            let newest = &messages[messages.len().saturating_sub(tail)..];
            let is_in = |(milliseconds, ..): &&Written| {
                let second = 1_700_000_000 + (milliseconds / 1000) as i32;
                since.is_none_or(|since| second >= since)
            };
            let bytes = newest.iter().filter(is_in).map(|message| match tty {
                true => text(message).into_bytes(),
                false => frame(message.1, &text(message)),
            });
            bytes.collect::<Vec<_>>().concat()
        });
        let (runtime, call) = call(&socket);
        // A thread runs the runtime, as the agent's main thread does.
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let driver = thread::spawn(move || drop(runtime.block_on(ended)));
        let mut setting = Self {
            log: CalledLog::new(ID, 5, New::All),
            call,
            runtime: handle,
            _driver: Driver(Some((end, driver))),
            messages,
            written: 0,
            tty,
            streams: Vec::new(),
            oldest: 0,
            now: 0,
            at: LogPosition::default(),
            received: Vec::new(),
            dropped: 0,
            _folder: folder,
        };
        setting.round();
        setting.at = setting.log.lines().unwrap().place().origin.clone();
        setting
    }

    fn push(&mut self, channel: u8, text: String) {
        self.now += 7;
        self.messages
            .lock()
            .unwrap()
            .push((self.now, channel, text));
    }

    fn write(&mut self, lines: u32) {
        for _ in 0..lines {
            let (channel, stream) = match self.written % 3 {
                0 if !self.tty => (2, Stderr),
                _ => (1, Stdout),
            };
            self.push(channel, format!("line {}\n", self.written));
            self.streams.push(stream);
            self.written += 1;
        }
    }

    /// Writes a line of this many fragments to a TTY.
    fn write_long_to_terminal(&mut self, fragments: usize) {
        self.begin_long(fragments);
        self.end_long();
    }

    /// Writes the beginning of a line to a TTY. All fragments of a line have the timestamp of the first.
    fn begin_long(&mut self, fragments: usize) {
        let begin = format!("line {} ", self.written);
        let text = begin.clone() + &"x".repeat(fragments * FRAGMENT - begin.len());
        self.now += 7;
        let mut messages = self.messages.lock().unwrap();
        for fragment in text.as_bytes().chunks(FRAGMENT) {
            let fragment = String::from_utf8(fragment.to_vec()).unwrap();
            messages.push((self.now, 1, fragment));
        }
        self.streams.push(Stdout);
        self.written += 1;
    }

    fn end_long(&mut self) {
        let end = (self.now, 1, "\r\n".to_owned());
        self.messages.lock().unwrap().push(end);
    }

    /// Fails unless the client has received each line once, after it has read all that it can.
    fn assert_all_received(&mut self, what: &str) {
        while !self.read(100_000) {}
        let written: Vec<u32> = (0..self.written).collect();
        assert_eq!(self.received, written, "{what}");
        assert_eq!(self.dropped, 0, "{what}");
    }

    /// Writes a line of two fragments. A short line of the other channel is between the fragments.
    fn write_long(&mut self) {
        let number = self.written;
        let begin = format!("line {number} {}", "x".repeat(FRAGMENT));
        self.push(2, begin[..FRAGMENT].to_owned());
        self.push(1, format!("line {}\n", number + 1));
        self.push(2, format!("{}\n", &begin[FRAGMENT..]));
        self.streams.extend([Stderr, Stdout]);
        self.written += 2;
    }

    /// Deletes the older half of the log.
    fn rotate(&mut self) {
        let mut messages = self.messages.lock().unwrap();
        let half = messages.len() / 2;
        let is_begin = |(_, _, text): &Written| text.starts_with("line ") && text.ends_with('\n');
        let Some(first) = messages.iter().skip(half).position(is_begin) else {
            return;
        };
        // A line is deleted with all its fragments.
        if messages[..half + first]
            .iter()
            .any(|(_, _, text)| text.len() >= FRAGMENT)
        {
            return;
        }
        messages.drain(..half + first);
        let number = messages[0].2.trim().split(' ').nth(1).unwrap();
        self.oldest = number.parse().unwrap();
    }

    fn round(&mut self) {
        let redaction = Redaction::default();
        let read = self.log.read(&self.call, None, ID, &redaction);
        self.runtime.block_on(read).unwrap();
    }

    /// Reads the next piece. Returns whether the client has all lines up to the newest round.
    fn read(&mut self, most: usize) -> bool {
        let newest = self.log.position().unwrap();
        let Some(to) = &newest.place else {
            return true;
        };
        if self.at.place.as_ref().is_some_and(|at| at.line > 0) && self.at.line >= to.line {
            return true;
        }
        let limits = ReadLimits {
            text: most,
            line: FRAGMENT,
        };
        let reader = self.log.reader().unwrap();
        let read = reader.0.read(&self.at, to, limits).unwrap();
        let texts: Vec<String> = read.new_lines().texts().collect();
        assert!(
            read.end != self.at,
            "no progress at {:?} to {to:?}",
            self.at
        );
        for (text, stream) in texts.iter().zip(read.new_lines().streams()) {
            let number = text.trim_end().split(' ').nth(2).unwrap();
            let number: u32 = number.parse().unwrap();
            assert_eq!(stream, self.streams[number as usize], "line {number}");
            self.received.push(number);
        }
        self.dropped += read.dropped;
        self.at = read.end;
        self.at.line >= to.line
    }

    /// Continues with another run of the agent, which knows only the cursor.
    fn restart(&mut self) {
        let owner = |run| CursorOwner {
            host: "web-1".to_owned(),
            run,
        };
        let positions = Positions::from_iter([(ID.into(), self.at.clone())]);
        let cursor = Cursor::of_events(&owner(1), 0, &Events::default(), 0);
        let text = cursor.with_logs(&positions, None).to_text();
        let cursor = Arc::new(Cursor::parse(&text).unwrap());
        self.at = cursor.resumed(&owner(2)).unwrap().position(ID, 0).unwrap();
        self.log = CalledLog::new(ID, 5, New::OnlyKept);
        self.round();
    }

    fn range(&self, range: &LogRange) -> Vec<u32> {
        let (mut range, mut all) = (range.clone(), Vec::new());
        loop {
            let read = self.log.reader().unwrap().0.range(&range).unwrap();
            let number = |line: &str| -> u32 {
                let line: String = serde_json::from_str(line).unwrap();
                line.trim_end().split(' ').nth(2).unwrap().parse().unwrap()
            };
            let numbers: Vec<_> = read.lines.iter().map(|line| number(line)).collect();
            match range.from {
                RangeEnd::Newest => all.splice(0..0, numbers).for_each(drop),
                RangeEnd::Oldest => all.extend(numbers),
            }
            match (read.reached, range.from) {
                (None, _) => return all,
                (reached, RangeEnd::Newest) => range.before = reached,
                (reached, RangeEnd::Oldest) => range.after = reached,
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u32),
    WriteLong(usize),
    Rotate,
    Wait,
    Round,
    Read(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_u32).prop_map(Step::Write),
        1 => (1..6_usize).prop_map(Step::WriteLong),
        1 => Just(Step::Rotate),
        1 => Just(Step::Wait),
        4 => Just(Step::Round),
        4 => (1..5_000_usize).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// In any order of writes, deletions, rounds and restarts of the agent, and readings of a client, the client gets each line once
    /// and in order, or the line is counted as dropped.
    #[test]
    fn each_line_is_received_once_or_counted(steps in prop::collection::vec(step(), 1..40), tty in any::<bool>()) {
        let mut setting = Setting::new(tty);
        let mut restarts = 0;
        for step in steps {
            match step {
                Step::Write(lines) => setting.write(lines),
                Step::WriteLong(fragments) if tty => setting.write_long_to_terminal(fragments),
                Step::WriteLong(_) => setting.write_long(),
                Step::Rotate => {
                    // The agent reads the log at least once before lines are deleted.
                    setting.round();
                    setting.rotate();
                }
                Step::Wait => setting.now += 60_000,
                Step::Round => setting.round(),
                Step::Read(most) => {
                    setting.read(most);
                }
                Step::Restart => {
                    setting.restart();
                    restarts += 1;
                }
            }
        }
        setting.round();
        while !setting.read(10_000) {}
        let Setting { received, dropped, written, oldest, .. } = setting;
        prop_assert!(received.len() <= written as usize, "{received:?} of {written}");
        let missing = u64::from(written) - received.len() as u64;
        prop_assert!(dropped <= missing + restarts, "{dropped} of {missing}");
        prop_assert!(restarts > 0 || dropped == missing, "{dropped} of {missing}");
        prop_assert!(received.windows(2).all(|pair| pair[0] < pair[1]), "{received:?}");
        let kept: Vec<u32> = (oldest..written).collect();
        prop_assert!(received.ends_with(&kept), "{kept:?} {received:?}");
    }
}

#[test]
fn no_line_of_a_terminal_is_lost_in_a_burst_with_a_long_line() {
    // More lines than the agent stores are before the long line. The largest line has more fragments than the agent requests.
    for fragments in [1, 2, 3, 5, 40] {
        for (before, after) in [(0, 0), (0, 40), (40, 0), (40, 2), (40, 40)] {
            for first in [0, 1] {
                let mut setting = Setting::new(true);
                setting.write(first);
                setting.round();
                setting.write(before);
                setting.write_long_to_terminal(fragments);
                setting.write(after);
                setting.round();
                let what = format!("{first}, {before}, {fragments} fragments, {after}");
                setting.assert_all_received(&what);
                // Nothing is received twice, and later lines continue.
                setting.round();
                setting.write(3);
                setting.round();
                setting.assert_all_received(&what);
            }
        }
    }
}

#[test]
fn no_line_of_a_terminal_is_lost_before_a_long_line_that_is_not_finished() {
    for fragments in [1, 3, 40] {
        for after in [0, 1, 40] {
            let mut setting = Setting::new(true);
            setting.write(40);
            setting.begin_long(fragments);
            setting.round();
            setting.round();
            setting.end_long();
            setting.write(after);
            setting.round();
            setting.assert_all_received(&format!("{fragments} fragments, {after}"));
        }
    }
}

#[test]
fn older_lines_of_a_terminal_come_in_pages_despite_long_lines() {
    let mut setting = Setting::new(true);
    for _ in 0..400 {
        setting.write(1);
        setting.write_long_to_terminal(5);
    }
    setting.round();
    let all: Vec<u32> = (0..setting.written).collect();
    let range = LogRange {
        lines: 50,
        ..LogRange::of("web")
    };
    assert_eq!(setting.range(&range), all);
}

#[test]
fn older_lines_come_in_pages() {
    let mut setting = Setting::new(false);
    setting.write(300);
    setting.write_long();
    setting.write(100);
    setting.round();
    let all: Vec<u32> = (0..setting.written).collect();
    for from in [RangeEnd::Newest, RangeEnd::Oldest] {
        let range = LogRange {
            from,
            lines: 37,
            ..LogRange::of("web")
        };
        assert_eq!(setting.range(&range), all, "{from}");
        let range = LogRange {
            after: Some(time(7 * 10)),
            before: Some(time(7 * 200)),
            grep: Some("[05]$".to_owned()),
            ..range
        };
        let expected: Vec<u32> = (10..199).filter(|number| number % 5 == 0).collect();
        assert_eq!(
            setting.range(&range),
            expected,
            "{from} {}",
            text_of(time(0))
        );
    }
}
