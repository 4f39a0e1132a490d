//! The queue of events and log lines that no server has confirmed yet. The size of the queue is limited in bytes.
//!
//! A message is in flight after the publisher has taken it from the queue and until the server has confirmed it. At most one
//! message of each subject is in flight. The other messages of the subject wait, so that their order does not change.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use time::OffsetDateTime;

use super::news::{Batch, begin_after, begin_after_set_back, is_from_before_set_back};

/// Approximate memory for a message in addition to its text and its subject, in bytes.
const OVERHEAD: usize = 256;
/// Limit on the text of a message to which further log lines of the same container are added, in bytes.
const MAX_MERGED: usize = 32 * 1024;
/// Limit on the text of a message, in bytes.
const MAX_TEXT: usize = 512 * 1024;
/// Number of times that a server can refuse a message as too long before the message is split into shorter pieces.
const MAX_REFUSALS: u32 = 2;
/// Limit on the number of subjects in `Queue::lost`.
const MAX_LOST_SUBJECTS: usize = 4096;

/// Messages that no server has confirmed yet. If the queue is full, the oldest messages are dropped. The next message of the same
/// subject reports the number of dropped log lines or events.
pub(super) struct Queue {
    /// Limit on the size of all messages, in bytes.
    room: usize,
    /// Size of all messages, in bytes.
    taken: usize,
    /// The number of the next message.
    next: u64,
    messages: BTreeMap<u64, Message>,
    /// The numbers of the messages of each subject, oldest first.
    lanes: HashMap<Arc<str>, VecDeque<u64>>,
    /// The numbers of the messages that can be published now. Such a message is the first message of its subject, and is not in
    /// flight.
    ready: BTreeSet<u64>,
    /// Number of dropped log lines or events of each subject that no message in the queue reports.
    lost: HashMap<Arc<str>, u64>,
}

struct Message {
    subject: Arc<str>,
    text: Bytes,
    /// Number of log lines or events in `text`.
    count: u64,
    /// Number of log lines or events that were dropped before this message.
    dropped: u64,
    kind: MessageKind,
    /// Whether the message is or was in flight. The server has possibly received the message, so its text must not change.
    sent: bool,
    /// Limit on the length of the pieces into which the message is split, in bytes. None before the first attempt to publish.
    piece: Option<usize>,
    /// Number of times that a server has refused the message as too long.
    refused: u32,
}

/// The content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// An event.
    Event,
    /// New log lines.
    Lines,
    /// The log lines that this run of the agent has read first from a log. An earlier run has possibly published some of these
    /// log lines. The message waits until the agent knows which log lines are published.
    Tail,
}

/// A message to publish now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueuedMessage {
    /// The number of the message in the queue.
    pub(super) number: u64,
    pub(super) subject: Arc<str>,
    pub(super) text: Bytes,
    /// Number of log lines or events that were dropped before this message.
    pub(super) dropped: u64,
    pub(super) kind: MessageKind,
}

impl Queue {
    /// Creates an empty queue, with a limit of `room` bytes.
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

    /// Returns the limit on the text of a new message, in bytes.
    pub(super) fn longest(&self) -> usize {
        MAX_TEXT.min(self.room / 4)
    }

    /// Whether the messages take more than half of the limit.
    pub(super) fn is_half_full(&self) -> bool {
        self.taken > self.room / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the number of log lines and events in the queue.
    pub(super) fn waiting(&self) -> u64 {
        self.messages.values().map(|message| message.count).sum()
    }

    /// Appends a batch to the messages of a subject. Returns the number of log lines and events that were dropped to make space.
    pub(super) fn push(&mut self, subject: &Arc<str>, kind: MessageKind, batch: Batch) -> u64 {
        if batch.count == 0 {
            self.count_lost(subject, batch.dropped);
            return 0;
        }
        let dropped = batch.dropped + self.lost.remove(subject).unwrap_or_default();
        if dropped > 0 || !self.merge(subject, kind, &batch) {
            self.append(subject, kind, Batch { dropped, ..batch });
        }
        self.drop_oldest()
    }

    /// Counts dropped log lines or events. The next message of the subject reports them.
    pub(super) fn count_lost(&mut self, subject: &Arc<str>, count: u64) {
        if count == 0 {
            return;
        }
        let known = self.lost.contains_key(subject) || self.lost.len() < MAX_LOST_SUBJECTS;
        if known {
            *self.lost.entry(Arc::clone(subject)).or_default() += count;
        }
    }

    /// Adds log lines to the newest message of their subject, if that message was never in flight and stays short enough. Returns
    /// whether the log lines were added.
    fn merge(&mut self, subject: &Arc<str>, kind: MessageKind, batch: &Batch) -> bool {
        let limit = MAX_MERGED.min(self.room / 8);
        let last = self.lanes.get(subject).and_then(VecDeque::back);
        let Some(last) = last.and_then(|number| self.messages.get_mut(number)) else {
            return false;
        };
        let grows = kind == MessageKind::Lines && last.kind == kind && !last.sent;
        if !grows || last.text.len() + batch.text.len() > limit {
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

    /// Drops the oldest messages that were never in flight, until the size of the queue is within its limit. Returns the number
    /// of dropped log lines and events.
    fn drop_oldest(&mut self) -> u64 {
        let mut dropped_count = 0;
        while self.taken > self.room {
            let mut oldest = self.messages.iter().filter(|(_, message)| !message.sent);
            let Some((&number, _)) = oldest.next() else {
                break;
            };
            dropped_count += self.drop_message(number);
        }
        dropped_count
    }

    /// Drops a message. Returns the number of log lines or events in the message.
    fn drop_message(&mut self, number: u64) -> u64 {
        let (count, dropped) = self
            .messages
            .get(&number)
            .map_or((0, 0), |message| (message.count, message.dropped));
        self.remove_message(number, count + dropped);
        count
    }

    /// Removes a message. The next message of the subject reports `dropped` more log lines or events.
    fn remove_message(&mut self, number: u64, dropped: u64) {
        let Some(message) = self.messages.remove(&number) else {
            return;
        };
        self.taken -= message.size();
        let after = self.remove_from_lane(&message.subject, number);
        match after.and_then(|after| self.messages.get_mut(&after)) {
            Some(after) => after.dropped += dropped,
            None => self.count_lost(&message.subject, dropped),
        }
    }

    /// Removes a message from the list of its subject. Returns the number of the next message of the subject, if there is such a
    /// message.
    fn remove_from_lane(&mut self, subject: &Arc<str>, number: u64) -> Option<u64> {
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

    /// Returns the oldest message whose subject has no message in flight. This message is then in flight, and its text does not
    /// change.
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

    /// Returns the limit on the length of a message's pieces, in bytes. `longest` is the current limit of the server.
    ///
    /// The pieces of a retry are never longer than the pieces of the previous attempt. The server recognizes a repeated piece by
    /// its id, and ignores the piece. If the piece were longer, the server would also ignore the additional log lines in the
    /// piece.
    pub(super) fn piece(&mut self, number: u64, longest: usize) -> usize {
        let Some(message) = self.messages.get_mut(&number) else {
            return longest;
        };
        let piece = message.piece.map_or(longest, |before| before.min(longest));
        message.piece = Some(piece);
        piece
    }

    /// Notes that a server has refused a message as too long. After more than [`MAX_REFUSALS`] refusals, each further refusal
    /// halves the length of the pieces.
    pub(super) fn refuse(&mut self, number: u64) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.refused += 1;
            if message.refused > MAX_REFUSALS {
                message.piece = message.piece.map(|piece| piece / 2);
            }
        }
    }

    /// Whether log lines that are longer than the limit on pieces must be dropped. This is so if the server has refused the
    /// message more than [`MAX_REFUSALS`] times.
    pub(super) fn is_refused(&self, number: u64) -> bool {
        let message = self.messages.get(&number);
        message.is_some_and(|message| message.refused > MAX_REFUSALS)
    }

    /// Removes the published log lines from the messages of the kind [`MessageKind::Tail`] of a subject. `last` is the newest
    /// published log line of the subject. The log lines that remain can then be published.
    pub(super) fn resolve(&mut self, subject: &Arc<str>, last: Option<&str>) {
        let lane = self.lanes.get(subject).cloned().unwrap_or_default();
        let mut last = last;
        let set_back = last.is_some_and(|last| {
            let tails = lane.iter().filter_map(|number| self.messages.get(number));
            let tails = tails.filter(|message| message.kind == MessageKind::Tail);
            let texts = tails.filter_map(|message| std::str::from_utf8(&message.text).ok());
            is_from_before_set_back(last, OffsetDateTime::now_utc(), texts)
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
                true => Some(begin_after_set_back(text)),
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
                self.remove_message(number, dropped);
            }
        }
        if let Some(first) = self.lanes.get(subject).and_then(VecDeque::front) {
            self.ready.insert(*first);
        }
    }

    /// Makes all messages of the kind [`MessageKind::Tail`] ready for publication, without removing any log lines.
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

    /// Removes a message that the server has confirmed. `unreported` is the number of dropped log lines or events that no
    /// published message has reported. The next message of the subject reports them.
    ///
    /// Returns the number of log lines and events of the message.
    pub(super) fn settle(&mut self, number: u64, unreported: u64) -> u64 {
        let count = self
            .messages
            .get(&number)
            .map_or(0, |message| message.count);
        self.remove_message(number, unreported);
        count
    }

    /// Makes a message ready for another attempt, because the server has possibly not received the message.
    pub(super) fn retry(&mut self, number: u64) {
        if self.messages.contains_key(&number) {
            self.ready.insert(number);
        }
    }
}

impl Message {
    /// Returns the approximate memory of the message, in bytes.
    fn size(&self) -> usize {
        self.text.len() + self.subject.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests;
