//! The log of one container, read by calls to the engine.
//!
//! The first call requests the newest messages of the log, called the tail. Later calls request only a few messages. If the
//! answer to such a call has no message that the agent has already read, the next call requests the whole tail again. The code
//! compares messages and not timestamps, because a clock can be set back.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::{Instant, timeout_at};

use super::continuation::Continuation;
use super::fetch::{CALL, FetchError, Message, count_of, second_of, timestamp, whole};
use super::gathered::{Gathered, gather};
use super::pace::ReadPace;
use super::reader::{CallReader, Messages, Start, place_after, time_of_message};
use super::source::MessageSource;
use crate::collect::docker::engine::{Call, DEADLINE, EngineError, LogWindow};
use crate::collect::logs::line::is_fragment;
use crate::collect::logs::new::New;
use crate::collect::logs::seen::{Handover, Seen, identity};
use crate::collect::logs::tail::{Channel, TailLines};
use crate::model::{EncodedLines, FileLog, FileOffset, FilePlace, LogLines, LogPosition, Place};
use crate::settings::Redaction;

/// If an answer is too long after this many calls of one reading, the reading fails.
const TRIES: u32 = 4;
/// A long line arrives in fragments. If the tail has too few whole lines because of fragments, the agent requests a longer tail.
/// The request for the longer tail is for up to this many times as many messages.
const LONGER_FACTOR: usize = 8;
/// Limit on the expected size of a longer tail, in bytes. Long answers are slow, because bollard searches its whole buffer for
/// the end of a line again and again.
const MAX_LONGER_BYTES: usize = 2 * 1024 * 1024;
/// Number of messages that a request covers in addition to the expected new messages. The agent has already read these messages.
/// They show where the new messages begin.
const LAST_SEEN: usize = 4;
/// After a gap, each further request is for this many times as many messages.
const GROWTH: usize = 8;
/// Maximum number of messages that are requested after a gap.
const MAX_MESSAGES: u64 = 1 << 21;
/// Lines are numbered. At the first reading, the last finished line gets this number. The number is not 0, because older lines
/// have smaller numbers.
const ORIGIN: u64 = 1 << 32;

/// The log of one container, read by calls to the engine.
pub(in crate::collect::logs) struct CalledLog {
    /// Number of lines to show.
    wanted: usize,
    /// Which lines are new at the first reading.
    new: New,
    /// Whether the log has been read. After the first reading all later lines are new, even if the log was empty.
    read: bool,
    /// The newest messages that were read.
    seen: Seen,
    /// The state for the next reading. None before the first reading and after [`Self::drop_lines`].
    continuation: Option<Continuation>,
    lines: Arc<LogLines>,
    /// In this field, `end` is the number of the last line, even if that line is unfinished.
    place: Place,
    /// The newest place at which no line was unfinished. None if it is not known.
    settled: Option<Arc<FilePlace>>,
    /// Reads the log again. None before the first reading.
    reader: Option<Arc<CallReader>>,
    journal: JournalState,
    /// Why the journal could not be read.
    journal_error: Option<String>,
    pace: ReadPace,
}

/// Whether the messages of a container with the driver `journald` come from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JournalState {
    /// The journal has had no message of the container yet.
    Unknown,
    Readable,
    /// The messages come by calls to the engine.
    Unreadable,
}

impl CalledLog {
    /// Prepares to read the newest `wanted` lines of the container `id`. Does not read the log yet.
    pub(in crate::collect::logs) fn new(id: &str, wanted: usize, new: New) -> Self {
        Self {
            wanted,
            new,
            read: false,
            seen: Seen::new(wanted + 1),
            continuation: None,
            lines: Arc::default(),
            place: Place {
                container: id.into(),
                end: ORIGIN,
                origin: LogPosition {
                    line: ORIGIN,
                    place: None,
                },
                created: 0,
            },
            settled: None,
            reader: None,
            journal: JournalState::Unknown,
            journal_error: None,
            pace: ReadPace::new(wanted + 1),
        }
    }

    /// Continues a log that was read from its log file.
    pub(in crate::collect::logs) fn after(self, file: &Handover) -> Self {
        Self {
            read: true,
            seen: (*file.seen).clone(),
            settled: file.settled.clone(),
            place: Place {
                container: self.place.container,
                end: file.position,
                origin: LogPosition {
                    line: file.origin,
                    place: None,
                },
                created: self.place.created,
            },
            ..self
        }
    }

    /// Returns how far the log was read. If the log file becomes readable, reading continues there. None before the first
    /// reading.
    pub(in crate::collect::logs) fn handover(&self) -> Option<Handover> {
        self.read.then(|| Handover {
            position: self.number(),
            origin: self.place.origin.line,
            seen: Arc::new(self.seen.clone()),
            settled: self.settled.clone(),
        })
    }

    /// Whether the newest lines come from the journal.
    pub(in crate::collect::logs) fn is_in_journal(&self) -> bool {
        self.journal == JournalState::Readable
    }

    /// Returns why the journal could not be read. None if the journal was not tried, or has no such messages.
    pub(in crate::collect::logs) fn journal_error(&self) -> Option<&str> {
        self.journal_error.as_deref()
    }

    /// Returns the id of the container.
    pub(in crate::collect::logs) fn container(&self) -> &Arc<str> {
        &self.place.container
    }

    /// Returns how far the log was read. None before the first reading.
    pub(in crate::collect::logs) fn position(&self) -> Option<LogPosition> {
        self.read.then(|| LogPosition {
            line: self.number(),
            place: self.settled.clone(),
        })
    }

    /// Returns what reads the log again. None before the first reading.
    pub(in crate::collect::logs) fn reader(&self) -> Option<FileLog> {
        let reader = self.reader.clone()?;
        Some(FileLog(reader))
    }

    /// Returns the number of the last finished line.
    fn number(&self) -> u64 {
        let unfinished = self
            .continuation
            .as_ref()
            .map_or(0, |it| it.tail.unfinished());
        self.place.end - unfinished as u64
    }

    /// Returns the newest lines. None before the first reading and after [`Self::drop_lines`].
    pub(in crate::collect::logs) fn lines(&self) -> Option<Arc<LogLines>> {
        self.continuation.as_ref().map(|_| Arc::clone(&self.lines))
    }

    /// Drops the lines and stores only the position, because the container has ended. If the container starts again, reading
    /// continues at the position.
    pub(in crate::collect::logs) fn drop_lines(&mut self) {
        self.place.end = self.number();
        self.continuation = None;
        self.lines = Arc::default();
    }

    /// Reads the newest lines and redacts them. The calls for the newest lines must end within
    /// [`DEADLINE`]. After a gap, the calls for the missing lines must end within the same time again.
    pub(in crate::collect::logs) async fn read(
        &mut self,
        call: &Call,
        journal: Option<MessageSource>,
        id: &str,
        redaction: &Redaction,
    ) -> Result<Arc<LogLines>, EngineError> {
        if let Some(journal) = journal.filter(|_| self.journal != JournalState::Unreadable) {
            let read = self.read_from(&journal, id, redaction).await;
            let is_empty = self.seen.is_empty() && self.journal == JournalState::Unknown;
            match read {
                Ok(lines) if !is_empty => {
                    self.journal = JournalState::Readable;
                    return Ok(lines);
                }
                // The journal can be that of another host. Then the engine has messages.
                Ok(lines) => {
                    let deadline = Instant::now() + DEADLINE;
                    let engine = MessageSource::Engine(call.clone());
                    match engine.newest(id, 1, None, deadline).await {
                        Ok(messages) if messages.is_empty() => return Ok(lines),
                        Ok(_) => self.read = false,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => self.journal_error = Some(error.to_string()),
            }
            self.journal = JournalState::Unreadable;
        }
        let engine = MessageSource::Engine(call.clone());
        self.read_from(&engine, id, redaction).await
    }

    /// Reads the newest lines from a source.
    async fn read_from(
        &mut self,
        source: &MessageSource,
        id: &str,
        redaction: &Redaction,
    ) -> Result<Arc<LogLines>, EngineError> {
        let deadline = Instant::now() + DEADLINE;
        match &self.reader {
            Some(reader) => reader.set_source(source),
            None => {
                let reader = CallReader::new(Arc::clone(&self.place.container), source, redaction);
                self.reader = Some(Arc::new(reader));
            }
        }
        let mut full = self.wanted + 1;
        let mut asked = match self.continuation {
            Some(_) => self.pace.messages,
            None => full,
        };
        let mut since = self.pace.since();
        let mut tries = 0;
        loop {
            tries += 1;
            let began = Instant::now();
            let mut answer = match source.newest(id, asked, since, deadline).await {
                Ok(answer) => answer,
                // The answer is longer than the limit. A request for fewer messages can succeed.
                Err(FetchError::CutShort(_, received)) if asked > 1 && tries < TRIES => {
                    full = (received / 2).clamp(1, asked - 1);
                    asked = full;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.pace.note(began, since);
            if self.add_answer(&answer, asked, full) {
                break;
            }
            if asked < full || since.is_some() {
                // The answer does not continue the earlier messages. The whole tail can still continue these messages.
                (asked, since) = (full, None);
                continue;
            }
            let is_full = count_of(&answer) >= asked;
            if is_full
                && self.follows_a_gap(&answer)
                && self.catch_up(source, id, &answer, redaction).await
            {
                break;
            }
            if let Some(longer) = self.longer(&answer, asked)
                && let Ok(more) = source.newest(id, longer, None, deadline).await
            {
                (answer, asked) = (more, longer);
            }
            self.begin(&answer, asked, redaction);
            break;
        }
        Ok(Arc::clone(&self.lines))
    }

    /// Adds the new messages of an answer. Returns false if the answer does not continue the earlier messages.
    fn add_answer(&mut self, answer: &[Message], asked: usize, full: usize) -> bool {
        let Some(mut continuation) = self.continuation.take() else {
            return false;
        };
        let Some(known) = self.known(&continuation, answer, asked, full) else {
            self.continuation = Some(continuation);
            return false;
        };
        let new_messages = &answer[known..];
        self.pace.messages = (count_of(new_messages) * 3 / 2 + LAST_SEEN).min(self.wanted + 1);
        let before = continuation.tail.count();
        if continuation.push(new_messages) {
            self.place.end += (continuation.tail.count() - before) as u64;
            self.remember(new_messages);
            let lines = continuation.tail.show();
            self.continuation = Some(continuation);
            self.settle(self.place_at_end(answer));
            self.show(lines);
        } else {
            self.continuation = Some(continuation);
        }
        true
    }

    /// Whether more new lines can have been written than an answer has.
    fn follows_a_gap(&self, answer: &[Message]) -> bool {
        if self.read {
            let identities: Vec<u64> = answer.iter().map(|(_, text)| identity(text)).collect();
            return self.seen.overlap(&identities).is_none();
        }
        let oldest = answer.first().and_then(|(_, text)| time_of_message(text));
        match self.new {
            New::All => true,
            New::Since(time) => oldest.is_some_and(|oldest| oldest >= time),
            New::OnlyKept => false,
        }
    }

    /// Reads all lines after the newest known place, and counts them. At the first reading, this is the place where the new lines
    /// begin. `answer` are the newest messages of the log. Returns false if the place is not known, or if it is gone.
    async fn catch_up(
        &mut self,
        source: &MessageSource,
        id: &str,
        answer: &[Message],
        redaction: &Redaction,
    ) -> bool {
        let start = match self.read {
            true => self.settled.as_deref().copied(),
            false => self.new.start(ORIGIN),
        };
        let whole = whole(answer);
        let (Some(start), Some((channel, newest))) = (start, whole.last().or(answer.last())) else {
            return false;
        };
        // The beginning of a TTY's first line can be missing in the answer, or its end. Its timestamp is still that of the line.
        let is_first = *channel == Channel::Console && whole.len() <= 1;
        let same_time = time_of_message(newest).filter(|_| is_first);
        let newest = identity(newest);
        let deadline = Instant::now() + DEADLINE;
        let mut window = match Start::at(&start.at) {
            Start::After(_) => LogWindow::Newest((count_of(answer) * GROWTH) as u64),
            other => other.window(None),
        };
        let gathered = loop {
            let mut has_newest = false;
            let note = |message: Option<u64>, time: Option<SystemTime>| {
                has_newest |= message == Some(newest) || (time == same_time && time.is_some());
            };
            let tail = TailLines::new(self.wanted, usize::MAX).redacting(redaction);
            let messages = Messages::after(source, id, Start::at(&start.at), window, deadline);
            let read = async { gather(messages.await?, tail, self.wanted, note).await };
            let read = timeout_at(deadline, read).await;
            let read = read.unwrap_or(Err(EngineError::Deadline { call: CALL }));
            match (read, window) {
                (Ok(Ok(gathered)), _) if has_newest => break gathered,
                (Ok(Err(messages)), LogWindow::Newest(count))
                    if messages.can_be_older(count) && count < MAX_MESSAGES =>
                {
                    window = LogWindow::Newest(count * GROWTH as u64);
                }
                _ => return false,
            }
        };
        let Gathered {
            tail,
            last,
            end,
            unfinished,
            identities,
        } = gathered;
        if !self.read {
            self.place.origin = LogPosition {
                line: start.line,
                place: Some(Arc::new(start)),
            };
        }
        self.place.end = start.line + tail.count() as u64;
        identities.iter().for_each(|one| self.seen.push(*one));
        if !whole.is_empty() && !identities.contains(&newest) {
            // The next answer can also have only the end of the line.
            self.seen.push(newest);
        }
        let last: Vec<Message> = last.into_iter().collect();
        self.continue_with(tail, &last, &[], end);
        if let Some(continuation) = &mut self.continuation
            && unfinished.is_some()
        {
            // `last` can be a piece without a timestamp.
            continuation.fragment = unfinished;
        }
        if let Some(second) = last.last().and_then(|(_, message)| second_of(message)) {
            self.pace.since_before(second);
        }
        // Probably the next answer also has many new messages.
        self.pace.messages = self.wanted + 1;
        true
    }

    /// Shows the lines of `tail`. Later answers continue after `answer`, at the place `end`. Its messages `new_messages` were not read
    /// before.
    fn continue_with(
        &mut self,
        mut tail: TailLines,
        answer: &[Message],
        new_messages: &[Message],
        end: Option<FileOffset>,
    ) {
        let lines = tail.show();
        self.read = true;
        self.remember(new_messages);
        let mut continuation = Continuation {
            tail,
            open: None,
            fragment: None,
        };
        continuation.note_end(answer);
        self.continuation = Some(continuation);
        self.settle(end);
        self.pace.messages = LAST_SEEN.min(self.wanted + 1);
        self.show(lines);
    }

    /// Returns the place after an answer. None if it is not known.
    fn place_at_end(&self, answer: &[Message]) -> Option<FileOffset> {
        match answer.last() {
            Some(message) => place_after(message),
            // The log is empty.
            None => self.seen.is_empty().then(FileOffset::default),
        }
    }

    /// Records the place `at` after an answer, if no line is unfinished there.
    fn settle(&mut self, at: Option<FileOffset>) {
        let is_open =
            |of: &Continuation| of.tail.is_open() || of.open.is_some() || of.fragment.is_some();
        if self.continuation.as_ref().is_none_or(is_open) {
            return;
        }
        let line = self.place.end;
        if let Some(at) = at {
            self.settled = Some(Arc::new(FilePlace { at, line }));
        }
    }

    /// Returns how many messages at the beginning of an answer the agent has already read. None if the answer does not continue
    /// the earlier messages.
    fn known(
        &self,
        continuation: &Continuation,
        answer: &[Message],
        asked: usize,
        full: usize,
    ) -> Option<usize> {
        let whole = whole(answer);
        let identities: Vec<u64> = whole.iter().map(|(_, text)| identity(text)).collect();
        let continues = |known: usize| continuation.continues(answer.get(known));
        // A longer request would not get more messages.
        let has_whole_log = count_of(answer) < asked;
        let complete = has_whole_log || asked >= full;
        if let Some(overlap) = self.seen.overlap(&identities) {
            // The repeated fragments of one line are equal. It does not matter how many of them are new.
            let alike = || {
                whole[..overlap.messages]
                    .iter()
                    .all(|(_, text)| is_fragment(text))
            };
            let sure = !overlap.ambiguous || complete || alike();
            if sure && continues(overlap.messages) {
                return Some(overlap.messages);
            }
        } else {
            let begins_the_log = self.seen.is_empty() && has_whole_log;
            if (begins_the_log || continuation.open.is_some()) && continues(0) {
                return Some(0);
            }
        }
        // If the last line has more fragments than the request covers, the answer has none of the earlier messages. If the first
        // message of the answer has the same channel and timestamp as the line, the answer still continues the line.
        let (channel, began) = continuation.fragment.as_ref()?;
        let same = |(of, text): &Message| of == channel && timestamp(text) == Some(&**began);
        // The end of such a line of a TTY has no place, because the place depends on the whole line.
        let has_place = !is_one_line(answer);
        (complete && has_place && answer.first().is_some_and(same)).then_some(0)
    }

    /// Returns how many messages to request if fragments leave too few whole lines. None if the answer is sufficient.
    fn longer(&self, answer: &[Message], asked: usize) -> Option<usize> {
        let mut tail = TailLines::new(self.wanted, asked);
        for (channel, message) in answer {
            tail.push(*channel, message);
        }
        let bytes: usize = answer.iter().map(|(_, message)| message.len()).sum();
        let more = LONGER_FACTOR.min(MAX_LONGER_BYTES / bytes.max(1));
        (tail.lacks_lines() && more > 1).then(|| asked * more)
    }

    /// Starts with a whole tail. Some messages of the tail can be messages that the agent has already read.
    fn begin(&mut self, answer: &[Message], asked: usize, redaction: &Redaction) {
        let identities: Vec<u64> = whole(answer)
            .iter()
            .map(|(_, text)| identity(text))
            .collect();
        let known = self
            .seen
            .overlap(&identities)
            .map(|overlap| overlap.messages);
        // The code below counts the unfinished lines again.
        self.place.end -= match (&self.continuation, known) {
            (Some(continuation), None) => continuation.tail.unfinished() as u64,
            (Some(continuation), Some(_)) => u64::from(continuation.open.is_some()),
            (None, _) => 0,
        };
        let mut tail = TailLines::new(self.wanted, asked);
        let (seen, new_messages) = answer.split_at(known.unwrap_or(0));
        for (channel, message) in seen {
            tail.push(*channel, message);
        }
        let before = tail.count();
        for (channel, message) in new_messages {
            tail.push(*channel, message);
        }
        let mut new = (tail.count() - before) as u64;
        // If the answer has as many messages as requested, the log can have older lines. The beginning of the oldest line can be
        // missing.
        let full = count_of(answer) >= asked;
        let headless = tail.headless() > 0;
        let mut tail = tail.continued().redacting(redaction);
        let lines = tail.show();
        let finished = (lines.iter().len() - lines.open()) as u64;
        let shown_headless = headless && tail.count() == 1;
        if self.read {
            // The number of lost lines is unknown, so one lost line is counted. A line that is not shown because its beginning is
            // missing already counts as this lost line.
            let follows_nothing = known.is_none() && (full || !self.seen.is_empty());
            new += u64::from(follows_nothing && (!headless || shown_headless) && finished > 0);
            self.place.end += new;
        } else {
            let new = self.new.of(&lines) as u64;
            // If all lines of a full answer are new, there were probably more new lines. One lost line is counted for them.
            let all = full && new == finished && !shown_headless;
            let lost = u64::from(self.new != New::OnlyKept && all);
            let line = ORIGIN - new - lost;
            let start = self.new.start(line).filter(|_| lost == 0);
            self.place.origin = LogPosition {
                line,
                place: start.map(Arc::new),
            };
            self.place.end = ORIGIN + tail.unfinished() as u64;
        }
        let has_place = !(full && is_one_line(answer));
        let end = self.place_at_end(answer).filter(|_| has_place);
        self.continue_with(tail, answer, new_messages, end);
    }

    /// Remembers new messages, and the time of the newest message.
    fn remember(&mut self, new_messages: &[Message]) {
        for (_, message) in whole(new_messages) {
            self.seen.push(identity(message));
        }
        if let Some(second) = new_messages
            .last()
            .and_then(|(_, message)| second_of(message))
        {
            self.pace.since_before(second);
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

/// Whether an answer is one finished line of a TTY. If it has all messages that were requested, the beginning can be missing.
fn is_one_line(answer: &[Message]) -> bool {
    matches!(answer, [(Channel::Console, message)] if message.ends_with(b"\n"))
}

#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod tests;
