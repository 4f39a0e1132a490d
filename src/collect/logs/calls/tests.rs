use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{CalledLog, New, ORIGIN, second_of};
use crate::collect::docker::engine::{Call, Engine};
use crate::collect::logs::pace::ANEW;
use crate::settings::{DockerHost, Redaction};

/// How a log is asked for: how many messages, and since when.
type Ask = (usize, Option<i32>);

/// A log that is asked of an engine, and what was asked.
struct TestEngineLog {
    log: CalledLog,
    call: Call,
    runtime: tokio::runtime::Runtime,
    messages: Arc<Mutex<Vec<String>>>,
    asks: Arc<Mutex<Vec<Ask>>>,
    _folder: tempfile::TempDir,
}

/// The lines that are shown, and what a client is sent that had all before: how many lines, and how many are lost.
struct SeenLines {
    lines: Vec<String>,
    new: Vec<String>,
    dropped: u64,
}

impl TestEngineLog {
    /// Of a container with or without a terminal, by an engine that takes so long.
    fn of(wanted: usize, new: New, tty: bool, pause: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let messages: Arc<Mutex<Vec<String>>> = Arc::default();
        let asks: Arc<Mutex<Vec<Ask>>> = Arc::default();
        let (log, noted) = (Arc::clone(&messages), Arc::clone(&asks));
        engine_at(&socket, move |ask| {
            noted.lock().unwrap().push(ask);
            std::thread::sleep(pause);
            let messages = log.lock().unwrap();
            let from = messages.len().saturating_sub(ask.0);
            let newest = messages[from..].iter();
            // The newest messages, and of those the ones since then: as the engine does it.
            let newest = newest.filter(|text| second_of(text.as_bytes()) >= ask.1);
            newest
                .flat_map(|text| {
                    if tty {
                        text.clone().into_bytes()
                    } else {
                        frame(1, text)
                    }
                })
                .collect()
        });
        let (runtime, call) = call(&socket);
        Self {
            log: CalledLog::new("0123", wanted, new),
            call,
            runtime,
            messages,
            asks,
            _folder: folder,
        }
    }

    fn log(wanted: usize) -> Self {
        Self::of(wanted, New::Nothing, false, Duration::ZERO)
    }

    /// Writes lines at a second of the clock, as `SECOND TEXT`.
    fn write(&self, lines: &[&str]) {
        let mut messages = self.messages.lock().unwrap();
        for line in lines {
            let (second, text) = line.split_once(' ').unwrap();
            let text = text.replace('|', "\n");
            messages.push(format!("2024-01-01T12:{:0>5}.5Z {text}", second));
        }
    }

    /// Writes numbered lines in one second.
    fn write_numbered(&self, second: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.write(&[&format!("{second} {number}|")]);
        }
    }

    /// Reads, and compares with how far it was read before.
    fn read(&mut self) -> SeenLines {
        let before = self.log.position().map(|(_, number)| number);
        let redaction = Redaction::default();
        let reading = self.log.read(&self.call, "0123", &redaction);
        let lines = self.runtime.block_on(reading).unwrap();
        let news = lines.after(before.unwrap_or(lines.place().origin));
        let texts = |json: &str| -> Vec<String> {
            let lines: Vec<String> = serde_json::from_str(json).unwrap();
            let text = |line: String| line.split_once(' ').unwrap().1.to_owned();
            lines.into_iter().map(text).collect()
        };
        SeenLines {
            lines: texts(lines.json()),
            new: texts(&format!("[{}]", news.json())),
            dropped: news.dropped,
        }
    }

    /// The texts of new lines; nothing is lost.
    fn news(&mut self) -> String {
        let SeenLines { new, dropped, .. } = self.read();
        assert_eq!(dropped, 0, "{new:?}");
        new.join(",")
    }

    /// What was asked since this was called last.
    fn asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.asks.lock().unwrap())
    }
}

fn call(socket: &Path) -> (tokio::runtime::Runtime, Call) {
    let host = DockerHost::parse(&format!("unix://{}", socket.display())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let call = runtime.block_on(async { Engine::new(host).call().await.unwrap() });
    (runtime, call)
}

fn frame(kind: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn the_first_lines_of_a_silent_container_are_new() {
    let mut log = TestEngineLog::log(5);
    assert!(log.read().lines.is_empty());
    log.write(&["00:01 a|", "00:02 b|", "00:02 c|"]);
    assert_eq!(log.news(), "a,b,c");
    assert_eq!(log.news(), "");
    log.write(&["00:02 d|"]);
    assert_eq!(log.news(), "d");
}

#[test]
fn as_many_first_lines_as_are_kept_are_new_and_more_are_counted() {
    for (written, dropped) in [(5, 0), (6, 1), (7, 1)] {
        let mut log = TestEngineLog::log(5);
        log.read();
        log.write_numbered("00:01", 0..written);
        let told = log.read();
        assert_eq!((told.new.len(), told.dropped), (5, dropped), "{written}");
        assert_eq!(told.new.last(), Some(&(written - 1).to_string()));
        log.write_numbered("00:01", 100..105);
        assert_eq!(log.news(), "100,101,102,103,104");
        log.write_numbered("00:03", 200..220);
        let told = log.read();
        assert_eq!(told.new, ["215", "216", "217", "218", "219"]);
        assert!(told.dropped >= 1);
    }
}

#[test]
fn what_is_there_at_first_is_new_for_who_had_nothing() {
    let mut log = TestEngineLog::log(5);
    log.write(&["00:01 a|", "00:02 b|"]);
    assert_eq!(log.news(), "a,b");
    let mut log = TestEngineLog::of(5, New::All, false, Duration::ZERO);
    log.write_numbered("00:01", 0..9);
    let told = log.read();
    assert_eq!((told.new.len(), told.dropped), (5, 1));
}

#[test]
fn the_order_of_arrival_decides_where_the_clock_is_set_back() {
    for pause in [Duration::ZERO, Duration::from_millis(120)] {
        let mut log = TestEngineLog::of(5, New::Nothing, false, pause);
        log.write(&["50:00 a|", "50:01 b|"]);
        log.read();
        log.write(&["50:02 c|", "10:00 d|", "10:01 e|"]);
        if !pause.is_zero() {
            // TestEngineLog with a time, it tells nothing of what is older; after a while it is asked without.
            assert_eq!(log.news(), "c");
            log.log.pace.all_asked -= ANEW;
            assert_eq!(log.news(), "d,e");
            log.write(&["10:02 f|"]);
            assert_eq!(log.news(), "f");
            continue;
        }
        assert_eq!(log.news(), "c,d,e");
        log.write(&["10:02 f|", "10:02 g|"]);
        assert_eq!(log.news(), "f,g");
        assert_eq!(log.news(), "");
        log.write(&["50:03 h|"]);
        assert_eq!(log.news(), "h");
    }
}

#[test]
fn a_clock_of_the_agents_own_that_was_set_back_is_noticed() {
    let mut log = TestEngineLog::of(5, New::Nothing, false, Duration::from_millis(120));
    log.write(&["50:00 a|"]);
    log.read();
    log.asks();
    log.news();
    assert_eq!(log.asks(), [(4, Some(1_704_113_399))]);
    log.log.pace.answered.1 += Duration::from_secs(7200);
    log.write(&["10:00 b|"]);
    assert_eq!(log.news(), "b");
    assert!(log.asks().iter().all(|(_, since)| since.is_none()));
}

#[test]
fn lines_that_are_alike_to_the_second_are_counted() {
    let mut log = TestEngineLog::log(20);
    log.write(&["00:01 a|", "00:01 x|", "00:01 x|"]);
    assert_eq!(log.news(), "a,x,x");
    for written in [1, 3, 2, 6] {
        log.write(&vec!["00:01 x|"; written]);
        assert_eq!(log.news(), vec!["x"; written].join(","));
    }
    assert_eq!(log.news(), "");
}

#[test]
fn a_log_in_which_nothing_happens_is_asked_for_a_few_messages() {
    let mut log = TestEngineLog::log(50);
    log.write_numbered("00:01", 0..300);
    log.read();
    log.asks();
    for _ in 0..3 {
        log.news();
    }
    assert_eq!(log.asks(), [(4, None); 3]);
}

#[test]
fn a_line_without_end_is_cut_and_not_asked_for_again() {
    let long = "x".repeat(16 * 1024);
    for before in [0, 3] {
        let mut log = TestEngineLog::log(5);
        log.write_numbered("00:01", 0..before);
        log.read();
        let fragment = format!("00:02 {long}");
        log.write(&vec![&*fragment; 400]);
        let told = log.read();
        assert_eq!(told.new.len(), 1, "{}", told.new.len());
        assert!(
            told.new[0].ends_with("[line cut at 16 KiB]"),
            "{}",
            told.new[0]
        );
        log.asks();
        for _ in 0..3 {
            log.write(&[&*fragment; 9]);
            assert_eq!(log.news(), "");
        }
        assert_eq!(log.asks(), [(4, None); 3]);
        // It ends, and others follow.
        log.write(&["00:02 end|", "00:09 next|", "00:09 last|"]);
        assert_eq!(log.news(), "next,last");
    }
}

#[test]
fn a_line_without_end_that_does_not_repeat_itself_is_one_line() {
    let mut log = TestEngineLog::log(5);
    log.write(&["00:01 a|"]);
    log.read();
    let mut fragments = (0..).map(|number| format!("00:02 {number}{}", "x".repeat(16 * 1024)));
    let mut write = |log: &TestEngineLog| {
        for fragment in fragments.by_ref().take(70) {
            log.write(&[&fragment]);
        }
    };
    write(&log);
    assert!(log.read().new[0].ends_with("[line cut at 16 KiB]"));
    for _ in 0..3 {
        write(&log);
        assert_eq!(log.news(), "");
    }
    log.write(&["00:02 end|", "00:09 next|"]);
    assert_eq!(log.news(), "next");
}

#[test]
fn a_terminals_line_goes_on_where_it_was() {
    let mut log = TestEngineLog::of(5, New::Nothing, true, Duration::ZERO);
    log.write(&["00:01 a\r|", "00:02 prompt> "]);
    let told = log.read();
    assert_eq!(
        (told.lines.join(","), told.new.join(",")),
        ("a,prompt> ".to_owned(), "a".to_owned())
    );
    assert_eq!(log.news(), "");
    log.write(&["00:03 ls\r|", "00:03 b\r|"]);
    assert_eq!(log.news(), "prompt> 2024-01-01T12:00:03.5Z ls,b");
    // A line of 60 pieces, of which the end only is asked for.
    let piece = format!("00:04 {}", "y".repeat(16 * 1024));
    log.write(&vec![&*piece; 60]);
    assert_eq!(log.read().new.len(), 1);
    assert_eq!(log.news(), "");
    log.write(&["00:04 \r|", "00:05 c\r|"]);
    assert_eq!(log.news(), "c");
}

#[test]
fn a_log_that_was_emptied_says_that_something_is_lost() {
    let mut log = TestEngineLog::log(5);
    log.write(&["00:01 a|", "00:02 b|"]);
    log.read();
    log.messages.lock().unwrap().clear();
    assert_eq!(log.news(), "");
    log.write(&["00:03 c|"]);
    let told = log.read();
    assert_eq!((told.new.join(","), told.dropped), ("c".to_owned(), 1));
}

#[test]
fn one_that_rests_goes_on_where_it_was() {
    let mut log = TestEngineLog::log(5);
    log.write_numbered("00:01", 0..9);
    log.read();
    log.log.rest();
    assert!(log.log.lines().is_none());
    log.write(&["00:02 x|", "00:03 y|"]);
    assert_eq!(log.news(), "x,y");
    let handover = log.log.handover().unwrap();
    log.write(&["00:04 z|"]);
    log.log = CalledLog::new("0123", 5, New::All).after(&handover);
    assert_eq!(log.news(), "z");
    assert!(log.log.position().unwrap().1 > ORIGIN);
}

/// An engine at `socket` that answers a call for logs with these bytes, and every other one with its version.
fn engine_at(socket: &Path, logs: impl Fn(Ask) -> Vec<u8> + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut piece = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => head.extend_from_slice(&piece[..read]),
                }
            }
            let head = String::from_utf8_lossy(&head);
            let body = match head.split(' ').nth(1) {
                Some(path) if path.contains("/logs") => {
                    let value = |name: &str| {
                        let (_, value) = path.split_once(&format!("{name}="))?;
                        value.split('&').next()?.parse().ok()
                    };
                    let tail = value("tail").and_then(|tail: i32| usize::try_from(tail).ok());
                    let since = value("since").filter(|since| *since > 0);
                    logs((tail.unwrap(), since))
                }
                _ => {
                    br#"{"ApiVersion":"1.41","MinAPIVersion":"1.12","Version":"20.10.24"}"#.to_vec()
                }
            };
            // Whether it is read to its end is the caller's affair.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
}

#[test]
fn fuzz_logs_of_the_engine() {
    let line = |second| format!("2024-01-01T12:00:{second:02}.500000000Z some text of a line\n");
    let framed = [
        frame(1, &line(1)),
        frame(2, &line(2)),
        frame(1, &line(3)),
        frame(3, "no log"),
    ]
    .concat();
    let console = (0..5).map(line).collect::<String>().replace('\n', "\r\n");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let logs: Arc<Mutex<Vec<u8>>> = Arc::default();
    let answer = Arc::clone(&logs);
    engine_at(&socket, move |_| answer.lock().unwrap().clone());
    let (runtime, call) = call(&socket);
    let mut log = CalledLog::new("0123", 3, New::Nothing);
    crate::fuzzing::run(
        "logs_of_the_engine",
        &[&framed, console.as_bytes()],
        |bytes| {
            *logs.lock().unwrap() = bytes.to_vec();
            let read = runtime.block_on(log.read(&call, "0123", &Redaction::default()));
            if let Ok(lines) = read {
                let lines: Vec<String> = serde_json::from_str(lines.json()).unwrap();
                assert!(lines.len() <= 3 && lines.iter().all(|line| line.len() < 60_000));
            }
        },
    );
}
