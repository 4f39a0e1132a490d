//! A container's log by calls to the engine, for drivers and files that cannot be read here.
//!
//! After a first tail the engine is asked for few messages, and for more only where those do not follow on what was seen.
//! An answer is placed by the messages in it and not by their timestamps: a clock may be set back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout_at};

use super::new::New;
use super::seen::{Handover, Seen, identity};
use super::tail::{Channel, Tail, is_fragment};
use crate::collect::docker::engine::{Call, DEADLINE, EngineError, classify};
use crate::model::{EncodedLines, LogLines, Place};
use crate::settings::Redaction;

/// How often one container's log is asked for in a round, at most.
const TRIES: u32 = 4;
/// How much longer the tail is asked for where fragments took the room of whole lines.
const MORE: usize = 8;
/// So much is asked for then at most, in bytes: bollard searches what it has for the end of a line again and again.
const MOST_MORE: usize = 2 * 1024 * 1024;
/// The messages by which it is seen that nothing is new.
const LAST_SEEN: usize = 4;
/// An engine that takes longer than this unpacks rotated files first, most likely. With a time since when it need not.
const SLOW: Duration = Duration::from_millis(100);
/// How long it is asked with a time: a clock that was set back without the agent's noticing would hide what follows.
const ANEW: Duration = Duration::from_secs(60);
/// The agent's clock was set back where it is this much slower than time passes.
const SET_BACK: Duration = Duration::from_secs(1);
/// What the engine is asked for, in errors.
const CALL: &str = "container logs";

/// The number of the last line before those that the agent saw first: lines before it have a
/// number, too.
const ORIGIN: u64 = 1 << 32;

/// One container's log, followed.
pub(super) struct CalledLog {
    wanted: usize,
    new: New,
    /// Whether it has been read: what comes after that is new, also where nothing was there.
    read: bool,
    seen: Seen,
    follows: Option<Follows>,
    lines: Arc<LogLines>,
    /// Its `end` is the number of the last line, which may be unfinished.
    place: Place,
    pace: Pace,
}

/// What the next answer goes on from.
struct Follows {
    tail: Tail,
    /// The piece of a terminal's line that the last answer ended with: its length and digest.
    open: Option<(usize, u64)>,
    /// The fragment that the last answer ended with: of which channel, and its timestamp.
    fragment: Option<(Channel, Box<[u8]>)>,
}

/// How much is asked for next, and since when.
struct Pace {
    messages: usize,
    /// The second before that of the last message.
    since: Option<i32>,
    /// The engine is slow without a time.
    slow: bool,
    /// When it was last asked without a time.
    all_asked: Instant,
    /// The time of the last answer, by both clocks.
    answered: (Instant, SystemTime),
}

type Message = (Channel, Bytes);

impl CalledLog {
    /// The newest `wanted` lines of the log of the container `id`; nothing is read yet.
    pub(super) fn new(id: &str, wanted: usize, new: New) -> Self {
        let now = Instant::now();
        Self {
            wanted,
            new,
            read: false,
            seen: Seen::new(wanted + 1),
            follows: None,
            lines: Arc::default(),
            place: Place {
                container: id.into(),
                end: ORIGIN,
                origin: ORIGIN,
            },
            pace: Pace {
                messages: wanted + 1,
                since: None,
                slow: false,
                all_asked: now,
                answered: (now, SystemTime::now()),
            },
        }
    }

    /// As one that was read from its file up to some line.
    pub(super) fn after(self, file: &Handover) -> Self {
        Self {
            read: true,
            seen: (*file.seen).clone(),
            place: Place {
                container: self.place.container,
                end: file.position,
                origin: file.origin,
            },
            ..self
        }
    }

    /// What is to be known where it goes on in the file; none before the first reading.
    pub(super) fn handover(&self) -> Option<Handover> {
        self.read.then(|| Handover {
            position: self.number(),
            origin: self.place.origin,
            seen: Arc::new(self.seen.clone()),
        })
    }

    /// How far it has been read, and of which container; none before the first reading.
    pub(super) fn position(&self) -> Option<(Arc<str>, u64)> {
        self.read
            .then(|| (Arc::clone(&self.place.container), self.number()))
    }

    /// The number of the last finished line.
    fn number(&self) -> u64 {
        let unfinished = self.follows.as_ref().map_or(0, |it| it.tail.unfinished());
        self.place.end - unfinished as u64
    }

    /// The newest lines; none while it rests.
    pub(super) fn lines(&self) -> Option<Arc<LogLines>> {
        self.follows.as_ref().map(|_| Arc::clone(&self.lines))
    }

    /// Keeps no more than the position: its container has ended, and may be started again.
    pub(super) fn rest(&mut self) {
        self.place.end = self.number();
        self.follows = None;
        self.lines = Arc::default();
    }

    /// The newest lines, without what is taken out of them, within the deadline of one call.
    pub(super) async fn read(
        &mut self,
        call: &Call,
        id: &str,
        redaction: &Redaction,
    ) -> Result<Arc<LogLines>, EngineError> {
        let deadline = Instant::now() + DEADLINE;
        let mut full = self.wanted + 1;
        let mut asked = match self.follows {
            Some(_) => self.pace.messages,
            None => full,
        };
        let mut since = self.pace.since();
        let mut tries = 0;
        loop {
            tries += 1;
            let began = Instant::now();
            let mut answer = match fetch(call, id, asked, since, deadline).await {
                Ok(answer) => answer,
                // Longer than is read: a shorter tail may be had all the same.
                Err(FetchError::CutShort(_, received)) if asked > 1 && tries < TRIES => {
                    full = (received / 2).clamp(1, asked - 1);
                    asked = full;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.pace.note(began, since);
            if self.take_in(&answer, asked, full) {
                break;
            }
            if asked < full || since.is_some() {
                // The answer does not follow: the whole tail may.
                (asked, since) = (full, None);
                continue;
            }
            if let Some(longer) = self.longer(&answer, asked)
                && let Ok(more) = fetch(call, id, longer, None, deadline).await
            {
                (answer, asked) = (more, longer);
            }
            self.begin(&answer, asked, redaction);
            break;
        }
        Ok(Arc::clone(&self.lines))
    }

    /// Takes in what an answer has beyond what was seen. False where the answer does not follow on that.
    fn take_in(&mut self, answer: &[Message], asked: usize, full: usize) -> bool {
        let Some(mut follows) = self.follows.take() else {
            return false;
        };
        let Some(known) = self.known(&follows, answer, asked, full) else {
            self.follows = Some(follows);
            return false;
        };
        let news = &answer[known..];
        self.pace.messages = (news.len() * 3 / 2 + LAST_SEEN).min(self.wanted + 1);
        let before = follows.tail.count();
        if follows.push(news) {
            self.place.end += (follows.tail.count() - before) as u64;
            self.remember(news);
            let lines = follows.tail.show();
            self.follows = Some(follows);
            self.show(lines);
        } else {
            self.follows = Some(follows);
        }
        true
    }

    /// How many messages of an answer were seen, all of them whole; none where it does not follow.
    fn known(
        &self,
        follows: &Follows,
        answer: &[Message],
        asked: usize,
        full: usize,
    ) -> Option<usize> {
        let whole = whole(answer);
        let identities: Vec<u64> = whole.iter().map(|(_, text)| identity(text)).collect();
        let goes_on = |known: usize| follows.goes_on(answer.get(known));
        // No more can be had.
        let complete = answer.len() < asked || asked >= full;
        if let Some(overlap) = self.seen.overlap(&identities) {
            // Fragments of one line are alike, and it is all the same how many of them there are.
            let alike = || {
                whole[..overlap.messages]
                    .iter()
                    .all(|(_, text)| is_fragment(text))
            };
            let sure = !overlap.ambiguous || complete || alike();
            if sure && goes_on(overlap.messages) {
                return Some(overlap.messages);
            }
        } else {
            let begins_the_log = self.seen.is_empty() && answer.len() < asked;
            if (begins_the_log || follows.open.is_some()) && goes_on(0) {
                return Some(0);
            }
        }
        // More fragments than are asked for, of the line that the last answer ended with.
        let (channel, began) = follows.fragment.as_ref()?;
        let same = |(of, text): &Message| of == channel && timestamp(text) == Some(&**began);
        (complete && answer.first().is_some_and(same)).then_some(0)
    }

    /// How much more is to be asked for, where fragments took the room of lines.
    fn longer(&self, answer: &[Message], asked: usize) -> Option<usize> {
        let mut tail = Tail::new(self.wanted, asked);
        for (channel, message) in answer {
            tail.push(*channel, message);
        }
        let bytes: usize = answer.iter().map(|(_, message)| message.len()).sum();
        let more = MORE.min(MOST_MORE / bytes.max(1));
        (tail.lacks_lines() && more > 1).then(|| asked * more)
    }

    /// Begins with a tail, which may go on from what was seen before.
    fn begin(&mut self, answer: &[Message], asked: usize, redaction: &Redaction) {
        let identities: Vec<u64> = whole(answer)
            .iter()
            .map(|(_, text)| identity(text))
            .collect();
        let known = self
            .seen
            .overlap(&identities)
            .map(|overlap| overlap.messages);
        // They are counted once more below.
        self.place.end -= match (&self.follows, known) {
            (Some(follows), None) => follows.tail.unfinished() as u64,
            (Some(follows), Some(_)) => u64::from(follows.open.is_some()),
            (None, _) => 0,
        };
        let mut tail = Tail::new(self.wanted, asked);
        let (seen, news) = answer.split_at(known.unwrap_or(0));
        for (channel, message) in seen {
            tail.push(*channel, message);
        }
        let before = tail.count();
        for (channel, message) in news {
            tail.push(*channel, message);
        }
        let mut new = (tail.count() - before) as u64;
        // Older lines may be out of reach; so may be the beginning of the oldest that is there.
        let full = answer.len() >= asked;
        let headless = tail.headless() > 0;
        let mut tail = tail.continued().redacting(redaction);
        let lines = tail.show();
        let finished = (lines.iter().len() - lines.open()) as u64;
        if self.read {
            // How many lines were lost is not to be known: one at least, most likely. A line without its beginning is one.
            let follows_nothing = known.is_none() && (full || !self.seen.is_empty());
            new += u64::from(follows_nothing && !headless && finished > 0);
            self.place.end += new;
        } else {
            let shown_headless = headless && tail.count() == 1;
            let new = self.new.of(&lines) as u64;
            // Where all that is kept is new, more may have been before it.
            let all = full && new == finished && !shown_headless;
            let lost = u64::from(self.new != New::Nothing && all);
            self.place.origin = ORIGIN - new - lost;
            self.place.end = ORIGIN + tail.unfinished() as u64;
        }
        self.read = true;
        self.remember(news);
        let mut follows = Follows {
            tail,
            open: None,
            fragment: None,
        };
        follows.note_end(answer);
        self.follows = Some(follows);
        self.pace.messages = LAST_SEEN.min(self.wanted + 1);
        self.show(lines);
    }

    /// Remembers messages that are new.
    fn remember(&mut self, news: &[Message]) {
        for (_, message) in whole(news) {
            self.seen.push(identity(message));
        }
        if let Some(second) = news.last().and_then(|(_, message)| second_of(message)) {
            self.pace.since = Some(second.saturating_sub(1));
        }
    }

    fn show(&mut self, lines: Arc<EncodedLines>) {
        let place = Place {
            end: self.number(),
            ..self.place.clone()
        };
        self.lines = Arc::new(LogLines::new(lines, place));
    }
}

impl Follows {
    /// Whether an answer goes on with what the last one ended with, where that was a piece of a line.
    fn goes_on(&self, next: Option<&Message>) -> bool {
        match (self.open, next) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((length, digest)), Some((_, message))) => message
                .get(..length)
                .is_some_and(|begun| identity(begun) == digest),
        }
    }

    /// Takes in messages that are new; the first of them may begin with the piece that the last answer ended with. Whether
    /// anything was new.
    fn push(&mut self, news: &[Message]) -> bool {
        let mut changed = false;
        let mut push = |channel, message: &[u8]| {
            self.tail.push(channel, message);
            changed = true;
        };
        let mut rest = news.iter();
        if let Some((length, digest)) = self.open
            && let Some((channel, message)) = rest.next()
        {
            match message.split_at_checked(length) {
                Some((begun, [])) if identity(begun) == digest => {}
                Some((begun, more)) if identity(begun) == digest => push(*channel, more),
                // The middle of a line that is cut anyway.
                _ if message.ends_with(b"\n") => push(*channel, b"\n"),
                _ => {}
            }
        }
        for (channel, message) in rest {
            push(*channel, message);
        }
        self.note_end(news);
        changed
    }

    /// Notes what an answer ended with that is not the end of a line.
    fn note_end(&mut self, answer: &[Message]) {
        let Some((channel, message)) = answer.last() else {
            return;
        };
        let open = is_open(*channel, message);
        self.open = open.then(|| (message.len(), identity(message)));
        self.fragment = (open || is_fragment(message))
            .then(|| timestamp(message).map(|time| (*channel, time.into())))
            .flatten();
    }
}

impl Pace {
    /// Since when the engine is to be asked: not at all where it answers fast, or where a clock may have been set back.
    fn since(&self) -> Option<i32> {
        let (then, wall) = self.answered;
        let expected = wall + then.elapsed();
        let set_back = SystemTime::now() + SET_BACK < expected;
        let serves = self.slow && !set_back && self.all_asked.elapsed() < ANEW;
        self.since.filter(|_| serves)
    }

    fn note(&mut self, began: Instant, since: Option<i32>) {
        if since.is_none() {
            self.slow = began.elapsed() > SLOW;
            self.all_asked = Instant::now();
        }
        self.answered = (Instant::now(), SystemTime::now());
    }
}

/// The messages that are whole: the last piece of a terminal's stream may not be.
fn whole(answer: &[Message]) -> &[Message] {
    match answer.split_last() {
        Some(((channel, message), whole)) if is_open(*channel, message) => whole,
        _ => answer,
    }
}

fn is_open(channel: Channel, message: &[u8]) -> bool {
    channel == Channel::Console && !message.ends_with(b"\n")
}

/// The timestamp that a message begins with.
fn timestamp(message: &[u8]) -> Option<&[u8]> {
    let end = message.iter().position(|byte| *byte == b' ')?;
    Some(&message[..end])
}

/// The second that a message begins with.
fn second_of(message: &[u8]) -> Option<i32> {
    let time = std::str::from_utf8(timestamp(message)?).ok()?;
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    i32::try_from(time.unix_timestamp()).ok()
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

/// The newest `messages` messages, of those since a Unix time where one is given.
async fn fetch(
    call: &Call,
    id: &str,
    messages: usize,
    since: Option<i32>,
    deadline: Instant,
) -> Result<Vec<Message>, FetchError> {
    let mut outputs = std::pin::pin!(call.logs(id, messages, since));
    let mut console = Console::default();
    let mut answer: Vec<Message> = Vec::new();
    let mut take = |channel, message| {
        answer.push((channel, message));
    };
    let error = loop {
        let output = timeout_at(deadline, outputs.try_next()).await;
        match output.map_err(|_| FetchError::Late)? {
            Ok(None) => {
                console.finish(&mut take);
                return Ok(answer);
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
        BollardError::IOError { .. } => FetchError::CutShort(error, answer.len()),
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
    use std::time::Duration;

    use super::{CalledLog, New, ORIGIN, engine_error, second_of};
    use crate::collect::docker::engine::{Call, Engine};
    use crate::settings::{DockerHost, Redaction};

    /// How a log is asked for: how many messages, and since when.
    type Ask = (usize, Option<i32>);

    /// A log that is asked of an engine, and what was asked.
    struct Asked {
        log: CalledLog,
        call: Call,
        runtime: tokio::runtime::Runtime,
        messages: Arc<Mutex<Vec<String>>>,
        asks: Arc<Mutex<Vec<Ask>>>,
        _folder: tempfile::TempDir,
    }

    /// The lines that are shown, and what a client is sent that had all before: how many lines, and how many are lost.
    struct Told {
        lines: Vec<String>,
        new: Vec<String>,
        dropped: u64,
    }

    impl Asked {
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
        fn read(&mut self) -> Told {
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
            Told {
                lines: texts(lines.json()),
                new: texts(&format!("[{}]", news.json())),
                dropped: news.dropped,
            }
        }

        /// The texts of new lines; nothing is lost.
        fn news(&mut self) -> String {
            let Told { new, dropped, .. } = self.read();
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
        let mut log = Asked::log(5);
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
            let mut log = Asked::log(5);
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
        let mut log = Asked::log(5);
        log.write(&["00:01 a|", "00:02 b|"]);
        assert_eq!(log.news(), "a,b");
        let mut log = Asked::of(5, New::All, false, Duration::ZERO);
        log.write_numbered("00:01", 0..9);
        let told = log.read();
        assert_eq!((told.new.len(), told.dropped), (5, 1));
    }

    #[test]
    fn the_order_of_arrival_decides_where_the_clock_is_set_back() {
        for pause in [Duration::ZERO, Duration::from_millis(120)] {
            let mut log = Asked::of(5, New::Nothing, false, pause);
            log.write(&["50:00 a|", "50:01 b|"]);
            log.read();
            log.write(&["50:02 c|", "10:00 d|", "10:01 e|"]);
            if !pause.is_zero() {
                // Asked with a time, it tells nothing of what is older; after a while it is asked without.
                assert_eq!(log.news(), "c");
                log.log.pace.all_asked -= super::ANEW;
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
        let mut log = Asked::of(5, New::Nothing, false, Duration::from_millis(120));
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
        let mut log = Asked::log(20);
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
        let mut log = Asked::log(50);
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
            let mut log = Asked::log(5);
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
        let mut log = Asked::log(5);
        log.write(&["00:01 a|"]);
        log.read();
        let mut fragments = (0..).map(|number| format!("00:02 {number}{}", "x".repeat(16 * 1024)));
        let mut write = |log: &Asked| {
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
        let mut log = Asked::of(5, New::Nothing, true, Duration::ZERO);
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
        let mut log = Asked::log(5);
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
        let mut log = Asked::log(5);
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
}
