//! A container's log by calls to the engine, for drivers and files that cannot be read here.
//!
//! After a first tail the engine is asked only for what has been written since the second before the
//! last message's (two streams may be a little out of order): how many messages since then were seen
//! already is known, and by their digest whether they are still the first of the answer. Where they are not (rotated away, more written
//! than is asked for, a terminal's line continued), and once a minute, the tail is read anew.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout_at};

use super::tail::{Channel, Tail};
use crate::collect::docker::engine::{Call, DEADLINE, EngineError, classify};
use crate::model::{EncodedLines, LogLines, Place};
use crate::settings::Redaction;

/// How often one container's tail is asked for in a round, at most.
const TRIES: u32 = 3;
/// How much longer it is asked for where fragments took the room of whole lines.
const MORE: usize = 8;
/// The messages that are asked for at least: as many of the longest as are kept of a container.
const FEWEST: usize = 64;
/// How long a log is followed from one tail: a clock that was set back would hide what follows.
const ANEW: Duration = Duration::from_secs(60);
/// What the engine is asked for, in errors.
const CALL: &str = "container logs";

/// The number of the last line before those that the agent saw first: lines before it have a
/// number, too.
const ORIGIN: u64 = 1 << 32;

/// One container's log, followed.
pub(super) struct CalledLog {
    follows: Option<Follows>,
    lines: Arc<LogLines>,
    place: Place,
    /// The last finished line, as JSON: by it lines that were seen are told from new ones.
    last: Option<String>,
}

/// What the next answer is compared with.
struct Follows {
    /// Everything that was read, since the tail was asked for.
    tail: Tail,
    tail_read: Instant,
    last: Newest,
}

/// The messages of the newest seconds.
#[derive(Debug, PartialEq, Eq)]
struct Newest {
    /// From when on, in Unix time: the second before the last message's.
    since: i32,
    messages: usize,
    digest: u64,
}

type Message = (Channel, Bytes);

impl CalledLog {
    /// The log of the container `id`; nothing is read yet.
    pub(super) fn new(id: &str) -> Self {
        Self {
            follows: None,
            lines: Arc::default(),
            place: Place {
                // Its lines are numbered otherwise than those that are read from files.
                container: format!("{id} by calls").into(),
                end: ORIGIN,
                origin: ORIGIN,
            },
            last: None,
        }
    }

    /// How far it has been read, and of which container.
    pub(super) fn position(&self) -> (Arc<str>, u64) {
        (Arc::clone(&self.place.container), self.place.end)
    }

    /// The newest lines; none while it rests.
    pub(super) fn lines(&self) -> Option<Arc<LogLines>> {
        self.follows.as_ref().map(|_| Arc::clone(&self.lines))
    }

    /// Keeps no more than the position: its container has ended, and may be started again.
    pub(super) fn rest(&mut self) {
        self.follows = None;
        self.lines = Arc::default();
    }

    /// The newest `wanted` whole lines, without what is taken out of them, within the deadline of one call.
    pub(super) async fn read(
        &mut self,
        call: &Call,
        id: &str,
        wanted: usize,
        redaction: &Redaction,
    ) -> Result<Arc<LogLines>, EngineError> {
        let deadline = Instant::now() + DEADLINE;
        // Kept only if all goes well: what is not known is asked for.
        let mut full = None;
        let grown = match self.follows.take() {
            Some(mut follows) if follows.tail_read.elapsed() < ANEW => {
                let since = Some(follows.last.since);
                let mut answer = Vec::new();
                let mut keep = |channel, message| answer.push((channel, message));
                match fetch(call, id, wanted + 1, since, deadline, &mut keep).await {
                    Ok(()) => {
                        let news = follows.take_in(&answer, wanted);
                        if news.is_some() {
                            self.follows = Some(follows);
                        } else {
                            full = Some(answer).filter(|answer| answer.len() > wanted);
                        }
                        news
                    }
                    // Longer than is read: the tail may be had all the same.
                    Err(FetchError::CutShort(..)) => None,
                    Err(error) => return Err(error.into()),
                }
            }
            _ => None,
        };
        match (grown, self.follows.take()) {
            (Some(grown), Some(mut follows)) => {
                if grown {
                    self.number(follows.tail.show());
                }
                self.follows = Some(follows);
            }
            _ => {
                let (tail, last) = read_tail(call, id, wanted, full, deadline).await?;
                let mut tail = tail.continued().redacting(redaction);
                self.number(tail.show());
                self.follows = last.map(|last| Follows {
                    tail,
                    tail_read: Instant::now(),
                    last,
                });
            }
        }
        Ok(Arc::clone(&self.lines))
    }

    /// Numbers lines from the last one that was seen on.
    fn number(&mut self, lines: Arc<EncodedLines>) {
        let finished = lines.iter().len() - lines.open();
        let seen = self.last.as_ref().map(|last| {
            let seen = lines.iter().take(finished).rposition(|line| line == last);
            seen.map(|at| at + 1)
        });
        self.place.end += match seen {
            Some(Some(seen)) => (finished - seen) as u64,
            // How many lines were lost is not to be known: one at least, most likely.
            Some(None) if finished > 0 => finished as u64 + 1,
            Some(None) => 0,
            None => {
                self.place.origin -= finished as u64;
                0
            }
        };
        if let Some(last) = lines.iter().take(finished).next_back() {
            self.last = Some(last.to_owned());
        }
        self.lines = Arc::new(LogLines::new(lines, self.place.clone()));
    }
}

impl Follows {
    /// Takes in what an answer has beyond what was seen; whether that is anything, or none where
    /// the answer does not follow.
    fn take_in(&mut self, answer: &[Message], wanted: usize) -> Option<bool> {
        // One as long as was asked for may have been cut at its beginning.
        if answer.len() > wanted {
            return None;
        }
        let (seen, news) = answer.split_at_checked(self.last.messages)?;
        if digest(seen.iter()) != self.last.digest {
            return None;
        }
        for (channel, message) in news {
            self.tail.push(*channel, message);
        }
        if !news.is_empty() {
            self.last = Newest::of(answer.iter())?;
        }
        Some(!news.is_empty())
    }
}

impl Newest {
    /// None for an answer whose last message has no time.
    fn of<'m>(answer: impl DoubleEndedIterator<Item = &'m Message> + Clone) -> Option<Self> {
        let (_, last) = answer.clone().next_back()?;
        let since = second_of(last)? - 1;
        let newest = answer.filter(|(_, message)| second_of(message) >= Some(since));
        Some(Self {
            since,
            messages: newest.clone().count(),
            digest: digest(newest),
        })
    }
}

/// The second that a message begins with.
fn second_of(message: &[u8]) -> Option<i32> {
    let end = message.iter().position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&message[..end]).ok()?;
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i32::try_from(time.unix_timestamp()).ok()
}

fn digest<'m>(messages: impl Iterator<Item = &'m Message>) -> u64 {
    let mut digest = DefaultHasher::new();
    for (channel, message) in messages {
        (channel, message).hash(&mut digest);
    }
    digest.finish()
}

/// The newest `wanted` whole lines, and the newest second.
///
/// Begins with the answer `full`, if there is one: as many messages as would be asked for first.
/// Asks for a longer tail where fragments of long lines took the room of lines, and for a
/// shorter one where the answer was too long to be read.
async fn read_tail(
    call: &Call,
    id: &str,
    wanted: usize,
    mut full: Option<Vec<Message>>,
    deadline: Instant,
) -> Result<(Tail, Option<Newest>), EngineError> {
    // One more than wanted: the oldest message may be the end of a line that began before.
    let mut messages = wanted + 1;
    let mut best = None;
    let mut outcome = FetchError::Late;
    for _ in 0..TRIES {
        let mut taken = Taken {
            wanted,
            tail: Tail::new(wanted, messages),
            recent: VecDeque::new(),
        };
        let mut take = |channel, message: Bytes| taken.push(channel, &message);
        let fetched = match full.take() {
            Some(answer) => {
                answer
                    .into_iter()
                    .for_each(|(channel, message)| take(channel, message));
                Ok(())
            }
            None => fetch(call, id, messages, None, deadline, &mut take).await,
        };
        match fetched {
            Ok(()) => {
                let lacks_lines = taken.tail.lacks_lines();
                best = Some(taken);
                if !lacks_lines {
                    break;
                }
                messages *= MORE;
            }
            Err(_) if best.is_some() => break,
            Err(FetchError::CutShort(error, received)) if messages > FEWEST => {
                messages = (received / 2).clamp(FEWEST, messages - 1);
                outcome = FetchError::CutShort(error, received);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let Taken { tail, recent, .. } = best.ok_or(outcome)?;
    let newest = Newest::of(recent.iter());
    Ok((tail, newest))
}

/// What is kept of an answer while it comes: the newest lines, and the messages of the newest
/// seconds, whose digest tells what the next answer begins with.
struct Taken {
    wanted: usize,
    tail: Tail,
    recent: VecDeque<Message>,
}

impl Taken {
    fn push(&mut self, channel: Channel, message: &[u8]) {
        self.tail.push(channel, message);
        let since = second_of(message).map(|second| second - 1);
        // More than are asked for with the next call need not be told apart.
        while let Some((_, oldest)) = self.recent.front()
            && (second_of(oldest) < since || self.recent.len() > self.wanted)
        {
            self.recent.pop_front();
        }
        // Not a part of the buffer that all messages came in.
        let message = Bytes::copy_from_slice(message);
        self.recent.push_back((channel, message));
    }
}

/// Why an answer was not read to its end.
enum FetchError {
    Late,
    /// The answer broke off after so many messages: most likely it was longer than is read.
    CutShort(BollardError, usize),
    Other(EngineError),
}

impl From<FetchError> for EngineError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Late => Self::Deadline { call: CALL },
            FetchError::CutShort(error, _) => classify(CALL, &error),
            FetchError::Other(error) => error,
        }
    }
}

/// Hands the newest `messages` messages, of those since a Unix time, to `take`, one by one.
async fn fetch(
    call: &Call,
    id: &str,
    messages: usize,
    since: Option<i32>,
    deadline: Instant,
    take: &mut impl FnMut(Channel, Bytes),
) -> Result<(), FetchError> {
    let mut outputs = std::pin::pin!(call.logs(id, messages, since));
    let mut console = Console::default();
    let mut received = 0;
    let mut take = |channel, message| {
        received += 1;
        take(channel, message);
    };
    let error = loop {
        let output = timeout_at(deadline, outputs.try_next()).await;
        match output.map_err(|_| FetchError::Late)? {
            Ok(None) => {
                console.finish(&mut take);
                return Ok(());
            }
            Ok(Some(LogOutput::StdErr { message })) => take(Channel::Stderr, message),
            Ok(Some(LogOutput::StdOut { message } | LogOutput::StdIn { message })) => {
                take(Channel::Stdout, message);
            }
            Ok(Some(LogOutput::Console { message })) => match engine_error(&message) {
                Some(reason) => {
                    return Err(FetchError::Other(EngineError::Failed {
                        call: CALL,
                        reason,
                    }));
                }
                None => console.push(&message, &mut take),
            },
            Err(error) => break error,
        }
    };
    Err(match error {
        BollardError::IOError { .. } => FetchError::CutShort(error, received),
        error => FetchError::Other(classify(CALL, &error)),
    })
}

/// The output of a TTY, which comes as one stream without seams: its messages are its lines.
#[derive(Default)]
struct Console(BytesMut);

impl Console {
    fn push(&mut self, piece: &[u8], take: &mut impl FnMut(Channel, Bytes)) {
        let mut searched = self.0.len();
        self.0.extend_from_slice(piece);
        while let Some(end) = memchr::memchr(b'\n', &self.0[searched..]) {
            take(
                Channel::Console,
                self.0.split_to(searched + end + 1).freeze(),
            );
            searched = 0;
        }
    }

    fn finish(self, take: &mut impl FnMut(Channel, Bytes)) {
        if !self.0.is_empty() {
            take(Channel::Console, self.0.freeze());
        }
    }
}

/// What the engine says in a frame of type 3: that it cannot read the log. bollard takes such a
/// frame for a console's, whose lines begin with the digit of a year.
fn engine_error(message: &[u8]) -> Option<String> {
    match message {
        [3, 0, 0, 0, _, _, _, _, text @ ..] => {
            Some(String::from_utf8_lossy(text).trim_end().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::{
        CalledLog, Channel, EncodedLines, Follows, Message, Newest, ORIGIN, Place, Tail,
        engine_error,
    };
    use crate::collect::docker::engine::Engine;
    use crate::settings::{DockerHost, Redaction};

    /// A message of the minute's given second.
    fn message(second: u32, text: &str) -> Message {
        let message = format!("2024-01-01T12:00:{second:02}.500000000Z {text}\n");
        (Channel::Stdout, Bytes::from(message))
    }

    fn follows(answer: &[Message]) -> Follows {
        let mut tail = Tail::new(5, 6);
        for (channel, message) in answer {
            tail.push(*channel, message);
        }
        Follows {
            tail: tail.continued(),
            tail_read: Instant::now(),
            last: Newest::of(answer.iter()).unwrap(),
        }
    }

    fn texts(follows: &mut Follows) -> Vec<String> {
        let lines = follows.tail.show();
        let texts = lines.iter().map(|line| line[32..line.len() - 1].to_owned());
        texts.collect()
    }

    #[test]
    fn what_follows_the_last_second_is_taken_in_once() {
        let mut log = follows(&[message(0, "x"), message(1, "a"), message(2, "b")]);
        assert_eq!(log.last.messages, 2);
        let same = [message(1, "a"), message(2, "b")];
        assert_eq!(log.take_in(&same, 5), Some(false));
        let more = [&same[..], &[message(2, "b"), message(3, "c")]].concat();
        assert_eq!(log.take_in(&more, 5), Some(true));
        assert_eq!(texts(&mut log), ["x", "a", "b", "b", "c"]);
        // The engine answers with what is left of the newest seconds.
        let same = [message(2, "b"), message(2, "b"), message(3, "c")];
        assert_eq!(log.take_in(&same, 5), Some(false));
        let more = [&same[..], &[message(4, "d")]].concat();
        assert_eq!(log.take_in(&more, 5), Some(true));
        assert_eq!(texts(&mut log), ["a", "b", "b", "c", "d"]);
    }

    #[test]
    fn messages_out_of_order_are_not_lost() {
        let mut log = follows(&[message(5, "late"), message(4, "early")]);
        assert_eq!(
            (log.last.since, log.last.messages),
            (second("2024-01-01T12:00:03Z x"), 2)
        );
        let answer = [message(5, "late"), message(4, "early"), message(4, "next")];
        assert_eq!(log.take_in(&answer, 5), Some(true));
        assert_eq!(texts(&mut log), ["late", "early", "next"]);
    }

    fn second(message: &str) -> i32 {
        super::second_of(message.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_that_does_not_follow_is_refused() {
        let mut log = follows(&[message(2, "a"), message(2, "b")]);
        let others = [
            vec![],
            vec![message(2, "b")],
            vec![message(2, "b"), message(2, "c")],
            // As many as were asked for: there may have been more.
            (0..6).map(|_| message(2, "a")).collect(),
        ];
        for answer in others {
            assert_eq!(log.take_in(&answer, 5), None, "{answer:?}");
        }
        assert_eq!(texts(&mut log), ["a", "b"]);
    }

    #[test]
    fn lines_are_numbered_on_from_the_last_that_was_seen() {
        let mut log = CalledLog::new("0123");
        let mut number = |lines: &[&str], unfinished| {
            let none = EncodedLines::default();
            let lines = EncodedLines::following(&none, 0..0, lines, unfinished);
            log.number(Arc::new(lines));
            let Place { end, origin, .. } = log.lines.place().clone();
            (end - ORIGIN, ORIGIN - origin)
        };
        assert_eq!(number(&["a", "b"], 0), (0, 2));
        assert_eq!(number(&["a", "b", "c"], 1), (0, 2));
        assert_eq!(number(&["b", "c", "d"], 0), (2, 2));
        assert_eq!(number(&["b", "c", "d"], 0), (2, 2));
        // One line at least is between these and those.
        assert_eq!(number(&["f", "g"], 0), (5, 2));
        assert_eq!(number(&[], 0), (5, 2));
        assert_eq!(number(&["g", "h"], 0), (6, 2));
    }

    #[test]
    fn tells_the_engines_complaint_from_a_console() {
        let complaint = b"\x03\0\0\0\0\0\0\x1dError grabbing logs: EOF\n";
        assert_eq!(
            engine_error(complaint).as_deref(),
            Some("Error grabbing logs: EOF")
        );
        assert_eq!(engine_error(b"2024-01-01T12:00:00Z x\r\n"), None);
        assert_eq!(engine_error(b"\x03"), None);
    }

    /// An engine at `socket` that answers a call for logs with these bytes, and every other one with its version.
    fn engine_at(socket: &Path, logs: Arc<Mutex<Vec<u8>>>) {
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
                    Some(path) if path.contains("/logs") => logs.lock().unwrap().clone(),
                    _ => br#"{"ApiVersion":"1.41","MinAPIVersion":"1.12","Version":"20.10.24"}"#
                        .to_vec(),
                };
                // Whether it is read to its end is the caller's affair.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(&body);
            }
        });
    }

    #[test]
    fn fuzz_logs_of_the_engine() {
        let frame = |kind: u8, text: &str| -> Vec<u8> {
            let mut frame = vec![kind, 0, 0, 0];
            frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(text.as_bytes());
            frame
        };
        let line =
            |second| format!("2024-01-01T12:00:{second:02}.500000000Z some text of a line\n");
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
        let logs = Arc::default();
        engine_at(&socket, Arc::clone(&logs));
        let host = DockerHost::parse(&format!("unix://{}", socket.display())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let call = runtime.block_on(async { Engine::new(host).call().await.unwrap() });
        let mut log = CalledLog::new("0123");
        crate::fuzzing::run(
            "logs_of_the_engine",
            &[&framed, console.as_bytes()],
            |bytes| {
                *logs.lock().unwrap() = bytes.to_vec();
                let read = runtime.block_on(log.read(&call, "0123", 3, &Redaction::default()));
                if let Ok(lines) = read {
                    let lines: Vec<String> = serde_json::from_str(lines.json()).unwrap();
                    assert!(lines.len() <= 3 && lines.iter().all(|line| line.len() < 60_000));
                }
            },
        );
    }
}
