//! A container's log by calls to the engine, for drivers and files that cannot be read here.
//!
//! After a first tail the engine is asked for few messages, and for more only where those do not follow on what was seen.
//! An answer is placed by the messages in it and not by their timestamps: a clock may be set back.

use std::sync::Arc;

use tokio::time::Instant;

use super::fetch::{FetchError, Message, fetch, is_open, second_of, timestamp, whole};
use super::line::is_fragment;
use super::new::New;
use super::pace::ReadPace;
use super::seen::{Handover, Seen, identity};
use super::tail::{Channel, TailLines};
use crate::collect::docker::engine::{Call, DEADLINE, EngineError};
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
    pace: ReadPace,
}

/// What the next answer goes on from.
struct Follows {
    tail: TailLines,
    /// The piece of a terminal's line that the last answer ended with: its length and digest.
    open: Option<(usize, u64)>,
    /// The fragment that the last answer ended with: of which channel, and its timestamp.
    fragment: Option<(Channel, Box<[u8]>)>,
}

impl CalledLog {
    /// The newest `wanted` lines of the log of the container `id`; nothing is read yet.
    pub(super) fn new(id: &str, wanted: usize, new: New) -> Self {
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
            pace: ReadPace::new(wanted + 1),
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
        let mut tail = TailLines::new(self.wanted, asked);
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
        let mut tail = TailLines::new(self.wanted, asked);
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

#[cfg(test)]
mod tests;
