use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{CalledLog, New, ORIGIN, second_of};
use crate::collect::docker::engine::{Call, Engine};
use crate::collect::logs::calls::pace::FULL_READ_INTERVAL;
use crate::settings::{DockerHost, Redaction};

/// A request for a log: the number of messages and the start time.
pub(super) type Request = (usize, Option<i32>);

/// A log that is read by calls to a fake engine, and the requests that the engine got.
struct TestEngineLog {
    log: CalledLog,
    call: Call,
    runtime: tokio::runtime::Runtime,
    messages: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<Request>>>,
    _folder: tempfile::TempDir,
}

/// The result of a reading.
struct SeenLines {
    /// The lines that are shown.
    lines: Vec<String>,
    /// The new lines for a client that got all earlier lines.
    new: Vec<String>,
    /// Number of lines that this client lost.
    dropped: u64,
}

impl TestEngineLog {
    /// Creates the log of a container with or without a TTY. The engine waits for `pause` before each answer.
    fn of(wanted: usize, new: New, tty: bool, pause: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let messages: Arc<Mutex<Vec<String>>> = Arc::default();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, noted) = (Arc::clone(&messages), Arc::clone(&requests));
        engine_at(&socket, move |request| {
            noted.lock().unwrap().push(request);
            std::thread::sleep(pause);
            let messages = log.lock().unwrap();
            let from = messages.len().saturating_sub(request.0);
            let newest = messages[from..].iter();
            // Like the engine, the fake takes the newest messages, and then removes the messages from before the start time.
            let newest = newest.filter(|text| second_of(text.as_bytes()) >= request.1);
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
            requests,
            _folder: folder,
        }
    }

    fn log(wanted: usize) -> Self {
        Self::of(wanted, New::OnlyKept, false, Duration::ZERO)
    }

    /// Writes messages. Each message has the form `MINUTE:SECOND TEXT`, and `|` stands for a line feed.
    fn write(&self, lines: &[&str]) {
        let mut messages = self.messages.lock().unwrap();
        for line in lines {
            let (second, text) = line.split_once(' ').unwrap();
            let text = text.replace('|', "\n");
            messages.push(format!("2024-01-01T12:{:0>5}.5Z {text}", second));
        }
    }

    /// Writes numbered lines with the same timestamp.
    fn write_numbered(&self, second: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.write(&[&format!("{second} {number}|")]);
        }
    }

    /// Reads the log. The new lines are the lines after the previous position.
    fn read(&mut self) -> SeenLines {
        let before = self.log.position().map(|position| position.line);
        let redaction = Redaction::default();
        let reading = self.log.read(&self.call, None, "0123", &redaction);
        let lines = self.runtime.block_on(reading).unwrap();
        let new_lines = lines.after(before.unwrap_or(lines.place().origin.line));
        let texts = |json: &str| -> Vec<String> {
            let lines: Vec<String> = serde_json::from_str(json).unwrap();
            let text = |line: String| line.split_once(' ').unwrap().1.to_owned();
            lines.into_iter().map(text).collect()
        };
        SeenLines {
            lines: texts(lines.json()),
            new: texts(&format!("[{}]", new_lines.json())),
            dropped: new_lines.dropped,
        }
    }

    /// Reads the log and returns the texts of the new lines. Fails if a line was lost.
    fn new_lines(&mut self) -> String {
        let SeenLines { new, dropped, .. } = self.read();
        assert_eq!(dropped, 0, "{new:?}");
        new.join(",")
    }

    /// Returns the requests after the previous call of this function.
    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

pub(super) fn call(socket: &Path) -> (tokio::runtime::Runtime, Call) {
    let host = DockerHost::parse(&format!("unix://{}", socket.display())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let call = runtime.block_on(async { Engine::new(host).call().await.unwrap() });
    (runtime, call)
}

pub(super) fn frame(kind: u8, text: &str) -> Vec<u8> {
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
    assert_eq!(log.new_lines(), "a,b,c");
    assert_eq!(log.new_lines(), "");
    log.write(&["00:02 d|"]);
    assert_eq!(log.new_lines(), "d");
}

#[test]
fn lines_beyond_the_limit_are_counted_exactly() {
    for (written, dropped) in [(5, 0), (6, 1), (7, 2), (5000, 4995)] {
        let mut log = TestEngineLog::log(5);
        log.read();
        log.write_numbered("00:01", 0..written);
        let result = log.read();
        assert_eq!(
            (result.new.len(), result.dropped),
            (5, dropped),
            "{written}"
        );
        assert_eq!(result.new.last(), Some(&(written - 1).to_string()));
        log.write_numbered("00:01", 10_000..10_005);
        assert_eq!(log.new_lines(), "10000,10001,10002,10003,10004");
        log.write_numbered("00:03", 10_200..10_220);
        let result = log.read();
        assert_eq!(result.new, ["10215", "10216", "10217", "10218", "10219"]);
        assert_eq!(result.dropped, 15);
    }
}

#[test]
fn the_lines_of_the_first_reading_are_new_for_a_client_without_lines() {
    let mut log = TestEngineLog::log(5);
    log.write(&["00:01 a|", "00:02 b|"]);
    assert_eq!(log.new_lines(), "a,b");
    let mut log = TestEngineLog::of(5, New::All, false, Duration::ZERO);
    log.write_numbered("00:01", 0..9);
    let result = log.read();
    assert_eq!((result.new.len(), result.dropped), (5, 4));
}

#[test]
fn the_order_of_arrival_counts_if_the_clock_is_set_back() {
    for pause in [Duration::ZERO, Duration::from_millis(120)] {
        let mut log = TestEngineLog::of(5, New::OnlyKept, false, pause);
        log.write(&["50:00 a|", "50:01 b|"]);
        log.read();
        log.write(&["50:02 c|", "10:00 d|", "10:01 e|"]);
        if !pause.is_zero() {
            // A request with a start time gets no messages with older timestamps. A later request has no start time.
            assert_eq!(log.new_lines(), "c");
            log.log.pace.full_read_at -= FULL_READ_INTERVAL;
            assert_eq!(log.new_lines(), "d,e");
            log.write(&["10:02 f|"]);
            assert_eq!(log.new_lines(), "f");
            continue;
        }
        assert_eq!(log.new_lines(), "c,d,e");
        log.write(&["10:02 f|", "10:02 g|"]);
        assert_eq!(log.new_lines(), "f,g");
        assert_eq!(log.new_lines(), "");
        log.write(&["50:03 h|"]);
        assert_eq!(log.new_lines(), "h");
    }
}

#[test]
fn the_agent_notices_that_its_own_clock_was_set_back() {
    let mut log = TestEngineLog::of(5, New::OnlyKept, false, Duration::from_millis(120));
    log.write(&["50:00 a|"]);
    log.read();
    log.requests();
    log.new_lines();
    assert_eq!(log.requests(), [(4, Some(1_704_113_399))]);
    log.log.pace.answered.1 += Duration::from_secs(7200);
    log.write(&["10:00 b|"]);
    assert_eq!(log.new_lines(), "b");
    assert!(log.requests().iter().all(|(_, since)| since.is_none()));
}

#[test]
fn equal_lines_with_equal_timestamps_are_counted() {
    let mut log = TestEngineLog::log(20);
    log.write(&["00:01 a|", "00:01 x|", "00:01 x|"]);
    assert_eq!(log.new_lines(), "a,x,x");
    for written in [1, 3, 2, 6] {
        log.write(&vec!["00:01 x|"; written]);
        assert_eq!(log.new_lines(), vec!["x"; written].join(","));
    }
    assert_eq!(log.new_lines(), "");
}

#[test]
fn a_request_for_a_silent_log_covers_only_a_few_messages() {
    let mut log = TestEngineLog::log(50);
    log.write_numbered("00:01", 0..300);
    log.read();
    log.requests();
    for _ in 0..3 {
        log.new_lines();
    }
    assert_eq!(log.requests(), [(4, None); 3]);
}

#[test]
fn a_line_without_end_is_truncated_and_not_requested_again() {
    let long = "x".repeat(16 * 1024);
    for before in [0, 3] {
        let mut log = TestEngineLog::log(5);
        log.write_numbered("00:01", 0..before);
        log.read();
        let fragment = format!("00:02 {long}");
        log.write(&vec![&*fragment; 400]);
        let result = log.read();
        assert_eq!(result.new.len(), 1, "{}", result.new.len());
        assert!(
            result.new[0].ends_with("[line cut at 16 KiB]"),
            "{}",
            result.new[0]
        );
        log.requests();
        for _ in 0..3 {
            log.write(&[&*fragment; 9]);
            assert_eq!(log.new_lines(), "");
        }
        // After many new messages, the first request is for as many again.
        assert_eq!(log.requests()[1..], [(4, None); 2]);
        // The line ends, and other lines follow.
        log.write(&["00:02 end|", "00:09 next|", "00:09 last|"]);
        assert_eq!(log.new_lines(), "next,last");
    }
}

#[test]
fn a_line_without_end_is_one_line_even_if_its_fragments_differ() {
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
        assert_eq!(log.new_lines(), "");
    }
    log.write(&["00:02 end|", "00:09 next|"]);
    assert_eq!(log.new_lines(), "next");
}

#[test]
fn an_unfinished_line_of_a_terminal_continues_in_the_next_answer() {
    let mut log = TestEngineLog::of(5, New::OnlyKept, true, Duration::ZERO);
    log.write(&["00:01 a\r|", "00:02 prompt> "]);
    let result = log.read();
    assert_eq!(
        (result.lines.join(","), result.new.join(",")),
        ("a,prompt> ".to_owned(), "a".to_owned())
    );
    assert_eq!(log.new_lines(), "");
    log.write(&["00:03 ls\r|", "00:03 b\r|"]);
    assert_eq!(log.new_lines(), "prompt> 2024-01-01T12:00:03.5Z ls,b");
    // The line has 60 pieces. A request covers only the last of them.
    let piece = format!("00:04 {}", "y".repeat(16 * 1024));
    log.write(&vec![&*piece; 60]);
    assert_eq!(log.read().new.len(), 1);
    assert_eq!(log.new_lines(), "");
    log.write(&["00:04 \r|", "00:05 c\r|"]);
    assert_eq!(log.new_lines(), "c");
}

#[test]
fn one_line_counts_as_lost_after_a_log_was_emptied() {
    let mut log = TestEngineLog::log(5);
    log.write(&["00:01 a|", "00:02 b|"]);
    log.read();
    log.messages.lock().unwrap().clear();
    assert_eq!(log.new_lines(), "");
    log.write(&["00:03 c|"]);
    let result = log.read();
    assert_eq!((result.new.join(","), result.dropped), ("c".to_owned(), 1));
}

#[test]
fn a_log_continues_at_its_position_after_a_stop_or_a_handover() {
    let mut log = TestEngineLog::log(5);
    log.write_numbered("00:01", 0..9);
    log.read();
    log.log.drop_lines();
    assert!(log.log.lines().is_none());
    log.write(&["00:02 x|", "00:03 y|"]);
    assert_eq!(log.new_lines(), "x,y");
    let handover = log.log.handover().unwrap();
    log.write(&["00:04 z|"]);
    log.log = CalledLog::new("0123", 5, New::All).after(&handover);
    assert_eq!(log.new_lines(), "z");
    assert!(log.log.position().unwrap().line > ORIGIN);
}

/// Starts a fake engine at `socket`. The fake answers a call for logs with the bytes that `logs` returns. It answers every other
/// call with its version.
pub(super) fn engine_at(socket: &Path, logs: impl Fn(Request) -> Vec<u8> + Send + 'static) {
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
                    logs((tail.unwrap_or(usize::MAX), since))
                }
                _ => {
                    br#"{"ApiVersion":"1.41","MinAPIVersion":"1.12","Version":"20.10.24"}"#.to_vec()
                }
            };
            // Errors are ignored, because the agent can close the connection early.
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
    let mut log = CalledLog::new("0123", 3, New::OnlyKept);
    crate::fuzzing::run(
        "logs_of_the_engine",
        &[&framed, console.as_bytes()],
        |bytes| {
            *logs.lock().unwrap() = bytes.to_vec();
            let read = runtime.block_on(log.read(&call, None, "0123", &Redaction::default()));
            if let Ok(lines) = read {
                let lines: Vec<String> = serde_json::from_str(lines.json()).unwrap();
                assert!(lines.len() <= 3 && lines.iter().all(|line| line.len() < 60_000));
            }
        },
    );
}
