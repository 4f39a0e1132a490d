//! A container's log by calls to the engine, for drivers and files that cannot be read here.
//!
//! After a first tail the engine is asked only for what has been written since the second of the
//! last message: how many messages of that second were seen already is known, and by their digest
//! whether they are still the first of the answer. Where they are not (rotated away, more written
//! than is asked for, a terminal's line continued), and once a minute, the tail is read anew.

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
use crate::model::{LogLines, Place};

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
    /// The last finished line: by it lines that were seen are told from new ones.
    last: Option<String>,
}

/// What the next answer is compared with.
struct Follows {
    /// Everything that was read, since the tail was asked for.
    tail: Tail,
    tail_read: Instant,
    last: Second,
}

/// The messages of the newest second, and of any later one out of order.
#[derive(Debug, PartialEq, Eq)]
struct Second {
    /// In Unix time.
    second: i32,
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
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Keeps no more than the position: its container has ended, and may be started again.
    pub(super) fn rest(&mut self) {
        self.follows = None;
        self.lines = Arc::default();
    }

    /// The newest `wanted` whole lines, within the deadline of one call.
    pub(super) async fn read(
        &mut self,
        call: &Call,
        id: &str,
        wanted: usize,
    ) -> Result<Arc<LogLines>, EngineError> {
        let deadline = Instant::now() + DEADLINE;
        // Kept only if all goes well: what is not known is asked for.
        let mut full = None;
        let grown = match self.follows.take() {
            Some(mut follows) if follows.tail_read.elapsed() < ANEW => {
                let since = Some(follows.last.second);
                let answer = fetch(call, id, wanted + 1, since, deadline).await?;
                let news = follows.take_in(&answer, wanted);
                if news.is_some() {
                    self.follows = Some(follows);
                } else {
                    full = Some(answer).filter(|answer| answer.len() > wanted);
                }
                news
            }
            _ => None,
        };
        match (grown, &self.follows) {
            (Some(false), _) => {}
            (Some(true), Some(follows)) => {
                let tail = &follows.tail;
                let (lines, unfinished) = (tail.lines(), tail.unfinished());
                self.number(&lines, unfinished);
            }
            _ => {
                let (tail, last) = read_tail(call, id, wanted, full, deadline).await?;
                self.number(&tail.lines(), tail.unfinished());
                self.follows = last.map(|last| Follows {
                    tail: tail.continued(),
                    tail_read: Instant::now(),
                    last,
                });
            }
        }
        Ok(Arc::clone(&self.lines))
    }

    /// Numbers lines, of which the last ones are unfinished, from the last one that was seen on.
    fn number(&mut self, lines: &[String], unfinished: usize) {
        let finished = lines.len() - unfinished.min(lines.len());
        let seen = self.last.as_ref().map(|last| {
            let seen = lines[..finished].iter().rposition(|line| line == last);
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
        if let Some(last) = lines[..finished].last() {
            self.last = Some(last.clone());
        }
        self.lines = Arc::new(LogLines::new(lines, unfinished, self.place.clone()));
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
            self.last = Second::of(answer)?;
        }
        Some(!news.is_empty())
    }
}

impl Second {
    /// None for an answer whose last message has no time.
    fn of(answer: &[Message]) -> Option<Self> {
        let (_, last) = answer.last()?;
        let second = second_of(last)?;
        let of_it = || {
            answer
                .iter()
                .filter(|(_, message)| second_of(message) >= Some(second))
        };
        Some(Self {
            second,
            messages: of_it().count(),
            digest: digest(of_it()),
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
) -> Result<(Tail, Option<Second>), EngineError> {
    // One more than wanted: the oldest message may be the end of a line that began before.
    let mut messages = wanted + 1;
    let mut best = None;
    let mut outcome = FetchError::Late;
    for _ in 0..TRIES {
        let answer = match full.take() {
            Some(answer) => Ok(answer),
            None => fetch(call, id, messages, None, deadline).await,
        };
        match answer {
            Ok(answer) => {
                let mut tail = Tail::new(wanted, messages);
                for (channel, message) in &answer {
                    tail.push(*channel, message);
                }
                let lacks_lines = tail.lacks_lines();
                best = Some((tail, Second::of(&answer)));
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
    best.ok_or_else(|| outcome.into())
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

/// The newest `messages` messages, of those since a Unix time.
async fn fetch(
    call: &Call,
    id: &str,
    messages: usize,
    since: Option<i32>,
    deadline: Instant,
) -> Result<Vec<Message>, FetchError> {
    let mut answer = Answer::default();
    let mut outputs = std::pin::pin!(call.logs(id, messages, since));
    loop {
        let output = timeout_at(deadline, outputs.try_next()).await;
        match output.map_err(|_| FetchError::Late)? {
            Ok(None) => return Ok(answer.finish()),
            Ok(Some(output)) => answer.push(output)?,
            Err(error @ BollardError::IOError { .. }) => {
                return Err(FetchError::CutShort(error, answer.finish().len()));
            }
            Err(error) => return Err(FetchError::Other(classify(CALL, &error))),
        }
    }
}

/// The messages of an answer.
#[derive(Default)]
struct Answer {
    messages: Vec<Message>,
    /// The output of a TTY, which comes as one stream without seams.
    console: BytesMut,
}

impl Answer {
    fn push(&mut self, output: LogOutput) -> Result<(), FetchError> {
        match output {
            LogOutput::StdErr { message } => self.messages.push((Channel::Stderr, message)),
            LogOutput::StdOut { message } | LogOutput::StdIn { message } => {
                self.messages.push((Channel::Stdout, message));
            }
            LogOutput::Console { message } => match engine_error(&message) {
                Some(reason) => {
                    return Err(FetchError::Other(EngineError::Failed {
                        call: CALL,
                        reason,
                    }));
                }
                None => self.console.extend_from_slice(&message),
            },
        }
        Ok(())
    }

    /// All of them; a console's are its lines.
    fn finish(mut self) -> Vec<Message> {
        let mut console = self.console.freeze();
        while !console.is_empty() {
            let end = console.iter().position(|byte| *byte == b'\n');
            let line = console.split_to(end.map_or(console.len(), |end| end + 1));
            self.messages.push((Channel::Console, line));
        }
        self.messages
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
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::{CalledLog, Channel, Follows, Message, ORIGIN, Place, Second, Tail, engine_error};

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
            last: Second::of(answer).unwrap(),
        }
    }

    fn texts(follows: &Follows) -> Vec<String> {
        let lines = follows.tail.lines();
        lines.iter().map(|line| line[31..].to_owned()).collect()
    }

    #[test]
    fn what_follows_the_last_second_is_taken_in_once() {
        let mut log = follows(&[message(1, "a"), message(2, "b"), message(2, "b")]);
        assert_eq!(log.last.messages, 2);
        let same = [message(2, "b"), message(2, "b")];
        assert_eq!(log.take_in(&same, 5), Some(false));
        let more = [&same[..], &[message(2, "b"), message(3, "c")]].concat();
        assert_eq!(log.take_in(&more, 5), Some(true));
        assert_eq!(texts(&log), ["a", "b", "b", "b", "c"]);
        // The engine answers with what is left of the newest second.
        assert_eq!(log.take_in(&[message(3, "c")], 5), Some(false));
        assert_eq!(
            log.take_in(&[message(3, "c"), message(4, "d")], 5),
            Some(true)
        );
        assert_eq!(texts(&log), ["b", "b", "b", "c", "d"]);
    }

    #[test]
    fn messages_out_of_order_are_not_lost() {
        let mut log = follows(&[message(5, "late"), message(4, "early")]);
        assert_eq!(
            (log.last.second, log.last.messages),
            (second("2024-01-01T12:00:04Z x"), 2)
        );
        let answer = [message(5, "late"), message(4, "early"), message(4, "next")];
        assert_eq!(log.take_in(&answer, 5), Some(true));
        assert_eq!(texts(&log), ["late", "early", "next"]);
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
        assert_eq!(texts(&log), ["a", "b"]);
    }

    #[test]
    fn lines_are_numbered_on_from_the_last_that_was_seen() {
        let mut log = CalledLog::new("0123");
        let mut number = |lines: &[&str], unfinished| {
            let lines: Vec<_> = lines.iter().map(|&line| line.to_owned()).collect();
            log.number(&lines, unfinished);
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
}
