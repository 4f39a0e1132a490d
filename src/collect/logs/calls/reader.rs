//! Reads lines of a log again by calls to the engine or from the journal, for clients that need more lines than the tail has, and after more lines than
//! the tail has were written between two rounds.
//!
//! Such a log has no offsets. A place in it is the time of a message and a hash of the message. The engine sends the log from a
//! second on, and the messages up to the place are skipped.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::fetch::{Message, is_open, timestamp};
use super::range::Found;
use super::source::{MessageSource, MessageStream};
use crate::collect::docker::engine::{Call, EngineError, LogWindow};
use crate::collect::logs::entry::DISORDER;
use crate::collect::logs::line::MAX_LINE_BYTES;
use crate::collect::logs::line_piece::LinePiece;
use crate::collect::logs::seen::{MessageParts, fingerprint_of_message, identity};
use crate::collect::logs::tail::{Channel, TailLines};
use crate::model::{
    FileOffset, FilePlace, LogPosition, LogRange, RangeEnd, RangeLines, ReadLimits, ReadLines,
    ReadLog, time_of,
};
use crate::settings::Redaction;

/// Limit on the time of one reading.
const MAX_TIME: Duration = Duration::from_secs(15);
/// Messages are requested from this much before a time on. Docker leaves out a compressed file whose recorded time of the last message
/// is older, and this time can be too old.
const EARLIER: Duration = Duration::from_secs(60);
/// Number of newest messages that a client gets whose place is lost.
const LOST_TAIL: u64 = 1000;
/// Number of messages that are requested in addition to the needed ones, because more were written meanwhile.
const NEWER_MESSAGES: u64 = 1000;

/// The log of one container, read by calls to the engine or from the journal.
pub(in crate::collect::logs) struct CallReader {
    id: Arc<str>,
    redaction: Redaction,
    /// Where the messages come from.
    source: Mutex<MessageSource>,
    runtime: Handle,
}

/// Where a reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At the first message.
    Beginning,
    /// After the message of this place.
    After(FileOffset),
    /// At the first message that is newer than this time.
    Newer(SystemTime),
    /// At the first of this many newest messages.
    Newest(u64),
}

impl Start {
    /// Returns where the reading begins that continues at this place.
    pub(super) fn at(place: &FileOffset) -> Self {
        match place.time() {
            Some(time) if place.fingerprint == 0 => Self::Newer(time),
            Some(_) => Self::After(*place),
            None if *place == FileOffset::default() => Self::Beginning,
            // The place is in a file that can no longer be read.
            None => Self::Newest(LOST_TAIL),
        }
    }

    /// Returns the messages to request. `to` is the time of a message that must be among them. It can be before the place, if the
    /// clock was set back.
    pub(super) fn window(self, to: Option<SystemTime>) -> LogWindow {
        let time = match self {
            Self::Beginning => None,
            Self::Newest(count) => return LogWindow::Newest(count),
            Self::After(at) => at.time(),
            Self::Newer(time) => Some(time),
        };
        let Some(time) = time else {
            return LogWindow::All;
        };
        let since = time.min(to.unwrap_or(time)).checked_sub(EARLIER);
        let since = since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        LogWindow::Since(since.unwrap_or_default().as_secs())
    }
}

/// Returns the place after a message. None if the message is not finished.
pub(super) fn place_after((channel, message): &Message) -> Option<FileOffset> {
    if is_open(*channel, message) {
        return None;
    }
    Some(place_at(time_of_message(message)?, identity(message)))
}

fn place_at(time: SystemTime, identity: u64) -> FileOffset {
    FileOffset::of_time(time, fingerprint_of_message(identity))
}

pub(super) fn time_of_message(message: &[u8]) -> Option<SystemTime> {
    time_of(std::str::from_utf8(timestamp(message)?).ok()?)
}

/// The lines for a client.
#[derive(Clone, Copy)]
struct Range<'r> {
    start: Start,
    to: &'r FilePlace,
    limits: ReadLimits,
}

/// The messages of a log after a place.
pub(super) struct Messages {
    stream: MessageStream,
    start: Start,
    /// Whether the message of the place was found, or there is none.
    is_after: bool,
    /// Number of messages that the engine has sent, including those before the place. The pieces of a TTY's line do not show how many
    /// fragments the line has, so this is the largest possible number.
    received: u64,
    /// The newest line of a TTY, if it arrives in pieces.
    line: Option<MessageParts>,
    /// Whether `line` continues in the next message.
    is_open: bool,
    /// Whether the messages are newer than the place, although its message was not found.
    is_late: bool,
}

impl Messages {
    /// Requests the messages after a place. `window` must contain the place. The reading ends at `deadline`.
    pub(super) async fn after(
        source: &MessageSource,
        id: &str,
        start: Start,
        window: LogWindow,
        deadline: Instant,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            stream: source.stream(id, window, deadline).await?,
            start,
            is_after: matches!(start, Start::Beginning | Start::Newest(_)),
            received: 0,
            line: None,
            is_open: false,
            is_late: false,
        })
    }

    /// Whether the log can have older messages than the newest `count`, which were requested.
    pub(super) fn can_be_older(&self, count: u64) -> bool {
        self.is_late || self.received >= count
    }

    /// Whether the message of the place was found. If not, all messages were skipped.
    pub(super) fn has_found_start(&self) -> bool {
        self.is_after || matches!(self.start, Start::Newer(_))
    }

    /// Records the newest message. A long line of a TTY arrives in pieces, which can differ in two answers. Only the whole line is
    /// the same in each answer.
    fn note(&mut self, (channel, message): &Message) {
        self.received += 1;
        if *channel != Channel::Console {
            return;
        }
        self.received += (message.len() / MAX_LINE_BYTES) as u64;
        let continues = std::mem::replace(&mut self.is_open, is_open(*channel, message));
        if !continues {
            self.line = None;
        }
        if continues || self.is_open {
            self.line.get_or_insert_default().push(message);
        }
    }

    /// Returns the identity of `message`, which is the newest message. Of a line in pieces, the last piece has the identity of the
    /// line, and the other pieces have none.
    pub(super) fn identity(&self, message: &[u8]) -> Option<u64> {
        match &self.line {
            _ if self.is_open => None,
            Some(line) => Some(line.identity()),
            None => Some(identity(message)),
        }
    }

    /// Returns the time of `message`, which is the newest message or a piece of it.
    pub(super) fn time(&self, message: &[u8]) -> Option<SystemTime> {
        time_of_message(self.line.as_ref().map_or(message, MessageParts::first))
    }

    /// If the newest line of a TTY is not finished, returns its timestamp.
    pub(super) fn unfinished(&self) -> Option<&[u8]> {
        let line = self.line.as_ref().filter(|_| self.is_open)?;
        timestamp(line.first())
    }

    /// Returns the place after `message`, which is the newest message. None if the message is not finished.
    pub(super) fn place(&self, message: &[u8]) -> Option<FileOffset> {
        Some(place_at(self.time(message)?, self.identity(message)?))
    }

    /// Returns the next message. None at the end of the log.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, EngineError> {
        while let Some(message) = self.stream.next().await? {
            self.note(&message);
            if self.is_after {
                return Ok(Some(message));
            }
            let time = self.time(&message.1);
            match self.start {
                Start::After(at) => {
                    let identity = self.identity(&message.1);
                    self.is_after = identity.map(fingerprint_of_message) == Some(at.fingerprint);
                    let late = at.time().and_then(|at| at.checked_add(DISORDER * 2));
                    if time.zip(late).is_some_and(|(time, late)| time > late) && !self.is_after {
                        self.is_late = true;
                        return Ok(None);
                    }
                }
                Start::Newer(than) if time.is_some_and(|time| time > than) => {
                    self.is_after = true;
                    return Ok(Some(message));
                }
                Start::Newer(_) | Start::Beginning | Start::Newest(_) => {}
            }
        }
        Ok(None)
    }
}

impl CallReader {
    /// Prepares to read the log of the container `id`.
    pub(super) fn new(id: Arc<str>, source: &MessageSource, redaction: &Redaction) -> Self {
        Self {
            id,
            redaction: redaction.clone(),
            source: Mutex::new(source.clone()),
            runtime: Handle::current(),
        }
    }

    /// Prepares to read the log of the container `id` by calls to the engine.
    pub(in crate::collect::logs) fn of_engine(
        id: Arc<str>,
        call: &Call,
        redaction: &Redaction,
    ) -> Self {
        Self::new(id, &MessageSource::Engine(call.clone()), redaction)
    }

    /// Sets the source of further messages, because the agent can have connected to the engine again.
    pub(super) fn set_source(&self, source: &MessageSource) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source.clone();
    }

    fn source(&self) -> MessageSource {
        let source = self.source.lock();
        source.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn messages(
        &self,
        start: Start,
        window: LogWindow,
        deadline: Instant,
    ) -> io::Result<Messages> {
        let messages = Messages::after(&self.source(), &self.id, start, window, deadline).await;
        messages.map_err(as_io)
    }

    async fn read_after(
        &self,
        after: &LogPosition,
        to: &FilePlace,
        limits: ReadLimits,
    ) -> io::Result<ReadLines> {
        let deadline = Instant::now() + MAX_TIME;
        let place = after.place.as_deref().copied();
        let place = place.ok_or_else(|| io::Error::other("no place to begin at"))?;
        let start = Start::at(&place.at);
        if place.line == 0 && place.at.time() > to.at.time() {
            // The client has received these lines already.
            return Ok(ReadLines::none(after.clone()));
        }
        let range = Range { start, to, limits };
        let window = start.window(to.at.time());
        if place.line > 0 && !matches!(start, Start::Newest(_)) {
            // The newest lines cost the engine less than those since a time. Some of them were written after `to`.
            let lines = to.line.saturating_sub(place.line);
            let newest = LogWindow::Newest(lines.saturating_mul(2).saturating_add(NEWER_MESSAGES));
            let windows = match start {
                Start::After(_) => &[newest, window][..],
                _ => &[window],
            };
            for window in windows {
                let found = self.read_from(range, place, after.line, *window, deadline);
                if let Some(read) = found.await? {
                    return Ok(read);
                }
            }
        }
        // The line at the place is not known in this run of the agent, or the place is gone. Its number follows from the lines after it.
        let (found, lines) = self.count(start, to, deadline).await?;
        let first = FilePlace {
            at: place.at,
            line: to.line.saturating_sub(lines),
        };
        let position = match place.line {
            0 if found == start && !matches!(start, Start::Newest(_)) => first.line + after.line,
            // The number of lost lines is not known, so one lost line is counted.
            0 => first.line.saturating_sub(1),
            _ => after.line,
        };
        let range = Range {
            start: found,
            ..range
        };
        let window = found.window(to.at.time());
        let read = self.read_from(range, first, position, window, deadline);
        read.await?
            .ok_or_else(|| io::Error::other("the log has changed while it was read"))
    }

    /// Reads lines after the place `from`. `after` is the number of the newest line that the client has. Returns none if the place
    /// was not found.
    async fn read_from(
        &self,
        range: Range<'_>,
        from: FilePlace,
        after: u64,
        window: LogWindow,
        deadline: Instant,
    ) -> io::Result<Option<ReadLines>> {
        let Range { start, to, limits } = range;
        let mut piece = LinePiece::new(from, after, limits, &self.redaction);
        let dropped = from.line.saturating_sub(after);
        if from.line >= to.line {
            return Ok(Some(piece.finish(dropped, Some(to))));
        }
        let mut messages = self.messages(start, window, deadline).await?;
        let mut has_reached = true;
        let beyond = to.at.time().and_then(|time| time.checked_add(DISORDER * 2));
        while let Some(message) = messages.next().await.map_err(as_io)? {
            piece.push(message.0, &message.1);
            let place = messages.place(&message.1);
            let settled = piece.settle();
            let time = place.and_then(|place| place.time());
            if place == Some(to.at) || time.zip(beyond).is_some_and(|(time, beyond)| time > beyond)
            {
                break;
            }
            if let (Some(line), Some(at)) = (settled, place) {
                // The number at `to` can be too small, if the agent did not know how many lines were written before it.
                let surplus = (line + 1).saturating_sub(to.line);
                let line = piece.lower_numbers(surplus, line);
                piece.settled = FilePlace { at, line };
            }
            if piece.is_enough() {
                has_reached = false;
                break;
            }
        }
        if !messages.has_found_start() {
            return Ok(None);
        }
        // At the end of the log, the lines up to `to` that were not found are gone.
        Ok(Some(piece.finish(dropped, has_reached.then_some(to))))
    }

    /// Counts the lines up to the place `to`. If the place at which the reading should begin was not found, counts all newer lines.
    async fn count(
        &self,
        start: Start,
        to: &FilePlace,
        deadline: Instant,
    ) -> io::Result<(Start, u64)> {
        let mut start = start;
        loop {
            let window = start.window(to.at.time());
            let mut messages = self.messages(start, window, deadline).await?;
            let mut lines = TailLines::new(0, usize::MAX);
            // If the message of the place `to` is gone, its time tells which lines come before it.
            let mut count = 0;
            while let Some(message) = messages.next().await.map_err(as_io)? {
                lines.push(message.0, &message.1);
                let place = messages.place(&message.1);
                if place.is_some_and(|place| place.time() <= to.at.time()) {
                    count = lines.count() - lines.unfinished();
                }
                if place == Some(to.at) {
                    break;
                }
            }
            match start {
                Start::After(at) if !messages.has_found_start() => {
                    start = Start::Newer(at.time().unwrap_or(SystemTime::UNIX_EPOCH));
                }
                _ => return Ok((start, count as u64)),
            }
        }
    }

    async fn read_range(&self, range: &LogRange) -> io::Result<RangeLines> {
        let deadline = Instant::now() + MAX_TIME;
        let is_tail =
            range.from == RangeEnd::Newest && range.before.is_none() && range.grep.is_none();
        let start = match range.after {
            Some(after) => Start::Newer(after),
            // More messages than lines, because long lines have several.
            None if is_tail => Start::Newest(2 * range.lines as u64 + NEWER_MESSAGES),
            None => Start::Beginning,
        };
        let window = start.window(None);
        let mut messages = self.messages(start, window, deadline).await?;
        let mut found = Found::new(range, &self.redaction);
        while let Some((channel, message)) = messages.next().await.map_err(as_io)? {
            if found.push(channel, &message) {
                break;
            }
        }
        let is_whole = match start {
            Start::Newest(count) => !messages.can_be_older(count),
            _ => true,
        };
        found.finish(is_whole)
    }
}

impl ReadLog for CallReader {
    fn is_in_files(&self) -> bool {
        false
    }

    fn read(
        &self,
        after: &LogPosition,
        to: &FilePlace,
        limits: ReadLimits,
    ) -> io::Result<ReadLines> {
        self.runtime.block_on(self.read_after(after, to, limits))
    }

    fn range(&self, range: &LogRange) -> io::Result<RangeLines> {
        self.runtime.block_on(self.read_range(range))
    }
}

fn as_io(error: EngineError) -> io::Error {
    match error {
        EngineError::Gone => io::Error::new(io::ErrorKind::NotFound, error),
        EngineError::BrokenLog(_) => io::Error::new(io::ErrorKind::InvalidData, error),
        // A further attempt would take as long.
        EngineError::Deadline { .. } => io::Error::new(
            io::ErrorKind::TimedOut,
            "the log is too long to be read by calls",
        ),
        error => io::Error::other(error),
    }
}
