//! What waits to be published, within a number of bytes: of each subject one message is on its way, the others wait behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use time::OffsetDateTime;

use super::news::{Batch, begin_after, begin_after_setting_back, is_of_a_later_time};

/// What a message takes beside its text and its subject's, in bytes, about.
const OVERHEAD: usize = 256;
/// So many bytes of lines of one container are put together while they wait.
const PUT_TOGETHER: usize = 32 * 1024;
/// The longest text of a message.
const LONGEST: usize = 512 * 1024;
/// So often a message is tried again as it is that a server has refused as too long.
const MOST_REFUSED: u32 = 2;
/// Of so many subjects it is remembered how much of each was lost until its next message.
const MOST_LOST: usize = 4096;

/// Messages that no server has taken yet. The oldest go where there are too many, and are counted: the next message of their
/// subject says how much was lost before it.
pub(super) struct Queue {
    room: usize,
    taken: usize,
    next: u64,
    messages: BTreeMap<u64, Message>,
    /// By subject, its messages in order.
    lanes: HashMap<Arc<str>, VecDeque<u64>>,
    /// The first of each lane, where it is not on its way.
    ready: BTreeSet<u64>,
    lost: HashMap<Arc<str>, u64>,
}

struct Message {
    subject: Arc<str>,
    text: Bytes,
    count: u64,
    dropped: u64,
    kind: MessageKind,
    /// It may be at the server already: it stays as it is until that is known.
    sent: bool,
    /// How long its pieces are, once it was tried.
    piece: Option<usize>,
    /// How often a server has refused it as too long.
    refused: u32,
}

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// An event.
    Event,
    /// New log lines.
    Lines,
    /// The first lines of a log that the agent has: an agent before it may have published some of them. It waits until that is
    /// known.
    Tail,
}

/// A message to be published now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueuedMessage {
    /// By which it is settled.
    pub(super) number: u64,
    pub(super) subject: Arc<str>,
    pub(super) text: Bytes,
    /// How many lines or events before it are lost.
    pub(super) dropped: u64,
    pub(super) kind: MessageKind,
}

impl Queue {
    /// An empty one, with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            taken: 0,
            next: 0,
            messages: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            lost: HashMap::new(),
        }
    }

    /// The longest text that a message should have.
    pub(super) fn longest(&self) -> usize {
        LONGEST.min(self.room / 4)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many lines and events are waiting.
    pub(super) fn waiting(&self) -> u64 {
        self.messages.values().map(|message| message.count).sum()
    }

    /// Appends to a subject. How many lines or events had to go for it.
    pub(super) fn push(&mut self, subject: &Arc<str>, kind: MessageKind, batch: Batch) -> u64 {
        if batch.count == 0 {
            self.lose(subject, batch.dropped);
            return 0;
        }
        let dropped = batch.dropped + self.lost.remove(subject).unwrap_or_default();
        if dropped > 0 || !self.put_together(subject, kind, &batch) {
            self.append(subject, kind, Batch { dropped, ..batch });
        }
        self.make_room()
    }

    /// Some of a subject is lost before its next message.
    pub(super) fn lose(&mut self, subject: &Arc<str>, count: u64) {
        if count == 0 {
            return;
        }
        let known = self.lost.contains_key(subject) || self.lost.len() < MOST_LOST;
        if known {
            *self.lost.entry(Arc::clone(subject)).or_default() += count;
        }
    }

    /// Adds lines to the last message of their subject, if that may still grow.
    fn put_together(&mut self, subject: &Arc<str>, kind: MessageKind, batch: &Batch) -> bool {
        let most = PUT_TOGETHER.min(self.room / 8);
        let last = self.lanes.get(subject).and_then(VecDeque::back);
        let Some(last) = last.and_then(|number| self.messages.get_mut(number)) else {
            return false;
        };
        let grows = kind == MessageKind::Lines && last.kind == kind && !last.sent;
        if !grows || last.text.len() + batch.text.len() > most {
            return false;
        }
        let text = std::mem::take(&mut last.text);
        let mut text = text
            .try_into_mut()
            .unwrap_or_else(|text| BytesMut::from(&text[..]));
        text.extend_from_slice(batch.text.as_bytes());
        last.text = text.freeze();
        last.count += batch.count;
        self.taken += batch.text.len();
        true
    }

    fn append(&mut self, subject: &Arc<str>, kind: MessageKind, batch: Batch) {
        let number = self.next;
        self.next += 1;
        let message = Message {
            subject: Arc::clone(subject),
            text: Bytes::from(batch.text),
            count: batch.count,
            dropped: batch.dropped,
            kind,
            sent: false,
            piece: None,
            refused: 0,
        };
        self.taken += message.size();
        self.messages.insert(number, message);
        let lane = self.lanes.entry(Arc::clone(subject)).or_default();
        if lane.is_empty() {
            self.ready.insert(number);
        }
        lane.push_back(number);
    }

    /// Lets the oldest go that are not on their way, until the rest fits.
    fn make_room(&mut self) -> u64 {
        let mut gone = 0;
        while self.taken > self.room {
            let mut oldest = self.messages.iter().filter(|(_, message)| !message.sent);
            let Some((&number, _)) = oldest.next() else {
                break;
            };
            gone += self.evict(number);
        }
        gone
    }

    fn evict(&mut self, number: u64) -> u64 {
        let (count, dropped) = self
            .messages
            .get(&number)
            .map_or((0, 0), |message| (message.count, message.dropped));
        self.pass_on(number, count + dropped);
        count
    }

    /// Removes a message; the next one of its subject says that so many are lost.
    fn pass_on(&mut self, number: u64, dropped: u64) {
        let Some(message) = self.messages.remove(&number) else {
            return;
        };
        self.taken -= message.size();
        let after = self.leave(&message.subject, number);
        match after.and_then(|after| self.messages.get_mut(&after)) {
            Some(after) => after.dropped += dropped,
            None => self.lose(&message.subject, dropped),
        }
    }

    /// Takes a message out of its lane; the one behind it, if there is one.
    fn leave(&mut self, subject: &Arc<str>, number: u64) -> Option<u64> {
        self.ready.remove(&number);
        let lane = self.lanes.get_mut(subject)?;
        let place = lane.iter().position(|waiting| *waiting == number)?;
        lane.remove(place);
        let after = lane.get(place).copied();
        if lane.is_empty() {
            self.lanes.remove(subject);
        } else if place == 0 {
            self.ready.extend(after);
        }
        after
    }

    /// The next message to be published, of a subject of which none is on its way. From now on it is, and stays as it is.
    pub(super) fn take(&mut self) -> Option<QueuedMessage> {
        let number = self.ready.pop_first()?;
        let message = self.messages.get_mut(&number)?;
        message.sent = true;
        Some(QueuedMessage {
            number,
            subject: Arc::clone(&message.subject),
            text: message.text.clone(),
            dropped: message.dropped,
            kind: message.kind,
        })
    }

    /// How long the pieces of a message are, now that they may be as long as `longest`: as at the first try, and never longer. A
    /// server knows a piece by its id, and would take one that has grown for the one that it has.
    pub(super) fn piece(&mut self, number: u64, longest: usize) -> usize {
        let Some(message) = self.messages.get_mut(&number) else {
            return longest;
        };
        let piece = message.piece.map_or(longest, |before| before.min(longest));
        message.piece = Some(piece);
        piece
    }

    /// A server has refused it as too long. After some times its pieces are made shorter than the server says, so that they go
    /// out some time or are left out.
    pub(super) fn refuse(&mut self, number: u64) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.refused += 1;
            if message.refused > MOST_REFUSED {
                message.piece = message.piece.map(|piece| piece / 2);
            }
        }
    }

    /// Whether its lines must not be longer than its pieces: the server takes less than it says.
    pub(super) fn is_refused(&self, number: u64) -> bool {
        let message = self.messages.get(&number);
        message.is_some_and(|message| message.refused > MOST_REFUSED)
    }

    /// Of which log lines are taken out of a subject's tail: those up to `last`, which was published before. What is left of it is
    /// to be published.
    pub(super) fn resolve(&mut self, subject: &Arc<str>, last: Option<&str>) {
        let lane = self.lanes.get(subject).cloned().unwrap_or_default();
        let mut last = last;
        let set_back = last.is_some_and(|last| {
            let tails = lane.iter().filter_map(|number| self.messages.get(number));
            let tails = tails.filter(|message| message.kind == MessageKind::Tail);
            let texts = tails.filter_map(|message| std::str::from_utf8(&message.text).ok());
            is_of_a_later_time(last, OffsetDateTime::now_utc(), texts)
        });
        for number in lane {
            let Some(message) = self.messages.get_mut(&number) else {
                continue;
            };
            if message.kind != MessageKind::Tail {
                continue;
            }
            (message.kind, message.sent) = (MessageKind::Lines, false);
            let Some(published) = last else { continue };
            let text = std::str::from_utf8(&message.text).unwrap_or_default();
            let begin = match set_back {
                true => Some(begin_after_setting_back(text)),
                false => begin_after(text, published),
            };
            if begin.is_some() {
                last = None;
            }
            let begin = begin.unwrap_or(text.len());
            message.count -= text[..begin].lines().count() as u64;
            message.text = message.text.slice(begin..);
            self.taken -= begin;
            if message.text.is_empty() {
                let dropped = message.dropped;
                self.pass_on(number, dropped);
            }
        }
        if let Some(first) = self.lanes.get(subject).and_then(VecDeque::front) {
            self.ready.insert(*first);
        }
    }

    /// Every tail is to be published as it is.
    pub(super) fn resolve_all(&mut self) {
        let subjects: Vec<_> = self.lanes.keys().cloned().collect();
        for subject in subjects {
            let first = self.lanes.get(&subject).and_then(VecDeque::front);
            let first = first.and_then(|first| self.messages.get(first));
            if first.is_some_and(|first| first.kind == MessageKind::Tail) {
                self.resolve(&subject, None);
            }
        }
    }

    /// The server has it, but no message that says that so many of it, or before it, are lost.
    pub(super) fn settle(&mut self, number: u64, unsaid: u64) {
        self.pass_on(number, unsaid);
    }

    /// It is not known whether the server has it: it comes again.
    pub(super) fn retry(&mut self, number: u64) {
        if self.messages.contains_key(&number) {
            self.ready.insert(number);
        }
    }
}

impl Message {
    fn size(&self) -> usize {
        self.text.len() + self.subject.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests;
