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
    kind: Kind,
    /// It may be at the server already: it stays as it is until that is known.
    sent: bool,
    /// How long its pieces are, once it was tried.
    piece: Option<usize>,
    /// How often a server has refused it as too long.
    refused: u32,
}

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
    pub(super) kind: Kind,
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
    pub(super) fn push(&mut self, subject: &Arc<str>, kind: Kind, batch: Batch) -> u64 {
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
    fn put_together(&mut self, subject: &Arc<str>, kind: Kind, batch: &Batch) -> bool {
        let most = PUT_TOGETHER.min(self.room / 8);
        let last = self.lanes.get(subject).and_then(VecDeque::back);
        let Some(last) = last.and_then(|number| self.messages.get_mut(number)) else {
            return false;
        };
        let grows = kind == Kind::Lines && last.kind == kind && !last.sent;
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

    fn append(&mut self, subject: &Arc<str>, kind: Kind, batch: Batch) {
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
            let tails = tails.filter(|message| message.kind == Kind::Tail);
            let texts = tails.filter_map(|message| std::str::from_utf8(&message.text).ok());
            is_of_a_later_time(last, OffsetDateTime::now_utc(), texts)
        });
        for number in lane {
            let Some(message) = self.messages.get_mut(&number) else {
                continue;
            };
            if message.kind != Kind::Tail {
                continue;
            }
            (message.kind, message.sent) = (Kind::Lines, false);
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
            if first.is_some_and(|first| first.kind == Kind::Tail) {
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
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{Batch, Kind, OVERHEAD, Queue, QueuedMessage};

    fn subject(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn push(queue: &mut Queue, name: &str, kind: Kind, text: &str) -> u64 {
        let batch = Batch {
            text: text.to_owned(),
            count: 1,
            dropped: 0,
        };
        queue.push(&subject(name), kind, batch)
    }

    fn taken(queue: &mut Queue) -> Vec<(String, u64)> {
        let mut texts = Vec::new();
        while let Some(QueuedMessage {
            number,
            text,
            dropped,
            ..
        }) = queue.take()
        {
            texts.push((String::from_utf8(text.to_vec()).unwrap(), dropped));
            queue.settle(number, 0);
        }
        texts
    }

    #[test]
    fn one_of_each_subject_is_on_its_way_in_order() {
        let mut queue = Queue::new(1 << 20);
        for (name, text) in [("a", "1"), ("a", "2"), ("b", "3")] {
            push(&mut queue, name, Kind::Event, text);
        }
        let first = queue.take().unwrap();
        let other = queue.take().unwrap();
        assert_eq!((&first.text[..], &other.text[..]), (&b"1"[..], &b"3"[..]));
        assert_eq!(queue.take(), None);
        queue.retry(first.number);
        assert_eq!(queue.take(), Some(first.clone()));
        queue.settle(first.number, 0);
        // What was settled is not tried again.
        queue.retry(first.number);
        assert_eq!(&queue.take().unwrap().text[..], b"2");
        assert_eq!(queue.take(), None);
        assert!(!queue.is_empty());
        assert_eq!(queue.waiting(), 2);
    }

    #[test]
    fn lines_that_wait_are_put_together_but_not_with_those_on_their_way() {
        let mut queue = Queue::new(1 << 20);
        push(&mut queue, "a", Kind::Tail, "0\n");
        push(&mut queue, "a", Kind::Lines, "1\n");
        push(&mut queue, "a", Kind::Lines, "2\n");
        let tail = queue.take().unwrap();
        queue.settle(tail.number, 0);
        let first = queue.take().unwrap();
        assert_eq!(&first.text[..], b"1\n2\n");
        push(&mut queue, "a", Kind::Lines, "3\n");
        queue.retry(first.number);
        assert_eq!(queue.take(), Some(first));
        let large = "x".repeat(40 * 1024);
        push(&mut queue, "b", Kind::Lines, &large);
        push(&mut queue, "b", Kind::Lines, "4\n");
        assert_eq!(queue.waiting(), 5);
    }

    #[test]
    fn a_message_that_comes_again_is_cut_as_before_or_smaller() {
        let mut queue = Queue::new(1 << 20);
        push(&mut queue, "a", Kind::Lines, "1\n");
        let first = queue.take().unwrap().number;
        assert_eq!(queue.piece(first, 1000), 1000);
        queue.retry(first);
        assert_eq!(queue.take().unwrap().number, first);
        for (longest, expected) in [(5000, 1000), (200, 200), (1000, 200)] {
            assert_eq!(queue.piece(first, longest), expected);
        }
        queue.settle(first, 0);
        push(&mut queue, "a", Kind::Lines, "2\n");
        let next = queue.take().unwrap().number;
        assert_eq!(queue.piece(next, 5000), 5000);
    }

    #[test]
    fn a_message_that_is_refused_again_and_again_is_cut_smaller() {
        let mut queue = Queue::new(1 << 20);
        push(&mut queue, "a", Kind::Lines, "1\n");
        let number = queue.take().unwrap().number;
        for expected in [1000, 1000, 1000, 500, 250] {
            assert_eq!(queue.piece(number, 1000), expected);
            assert_eq!(queue.is_refused(number), expected < 1000);
            queue.refuse(number);
        }
    }

    #[test]
    fn a_tail_is_published_where_the_clock_was_set_back() {
        let left = |last: &str| {
            let mut queue = Queue::new(1 << 20);
            push(&mut queue, "a", Kind::Tail, "2026-01-01T12:00:00.5Z a\n");
            push(&mut queue, "a", Kind::Tail, "2026-01-01T12:00:01.5Z b\n");
            let first = queue.take().unwrap();
            queue.resolve(&first.subject, Some(last));
            let texts = taken(&mut queue).into_iter();
            texts
                .map(|(text, _)| text[23..24].to_owned())
                .collect::<String>()
        };
        assert_eq!(left("9999-01-01T14:00:00.5Z gone"), "ab");
        assert_eq!(left("2026-01-01T14:00:00.5Z gone"), "");
        assert_eq!(left("2026-01-01T12:00:01.5Z b"), "");
    }

    #[test]
    fn the_oldest_go_and_the_next_says_how_many() {
        let size = OVERHEAD + 2;
        let mut queue = Queue::new(3 * size);
        for text in ["1", "2", "3"] {
            assert_eq!(push(&mut queue, "a", Kind::Event, text), 0);
        }
        assert_eq!(push(&mut queue, "a", Kind::Event, "4"), 1);
        // On its way: it stays, and those behind it go.
        let sent = queue.take().unwrap();
        assert_eq!((&sent.text[..], sent.dropped), (&b"2"[..], 1));
        assert_eq!(push(&mut queue, "a", Kind::Event, "5"), 1);
        assert_eq!(push(&mut queue, "a", Kind::Event, "6"), 1);
        queue.settle(sent.number, 0);
        let rest = [("5".to_owned(), 2), ("6".to_owned(), 0)];
        assert_eq!(taken(&mut queue), rest);
        assert!(queue.is_empty() && queue.taken == 0 && queue.lanes.is_empty());
        // Of one subject all may go for another's.
        push(&mut queue, "a", Kind::Event, "7");
        for text in ["8", "9", "10"] {
            push(&mut queue, "b", Kind::Event, text);
        }
        let kept: Vec<_> = taken(&mut queue)
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        assert_eq!(kept, ["9", "10"]);
        push(&mut queue, "a", Kind::Event, "11");
        assert_eq!(taken(&mut queue), [("11".to_owned(), 1)]);
    }

    #[test]
    fn what_was_lost_before_is_said_with_what_comes_next() {
        let mut queue = Queue::new(1 << 20);
        let batch = |text: &str, dropped| Batch {
            text: text.to_owned(),
            count: u64::from(!text.is_empty()),
            dropped,
        };
        let a = subject("a");
        queue.push(&a, Kind::Lines, batch("", 3));
        assert!(queue.is_empty());
        queue.push(&a, Kind::Lines, batch("1\n", 4));
        queue.push(&a, Kind::Lines, batch("2\n", 0));
        queue.push(&a, Kind::Lines, batch("3\n", 5));
        let said = [("1\n2\n".to_owned(), 7), ("3\n".to_owned(), 5)];
        assert_eq!(taken(&mut queue), said);
    }

    #[test]
    fn of_a_tail_remains_what_was_not_published_before() {
        let lines = ["1Z a\n2Z b\n", "3Z c\n4Z d\n", "4Z e\n"];
        let lines = lines.map(|lines| {
            let dated = lines
                .lines()
                .map(|line| format!("2026-01-01T00:00:00.{line}\n"));
            dated.collect::<String>()
        });
        let left = |last: Option<&str>| {
            let mut queue = Queue::new(1 << 20);
            let a = subject("a");
            for text in &lines {
                let (text, count) = (text.clone(), text.lines().count() as u64);
                queue.push(
                    &a,
                    Kind::Tail,
                    Batch {
                        text,
                        count,
                        dropped: 0,
                    },
                );
            }
            push(&mut queue, "a", Kind::Lines, "new\n");
            let first = queue.take().unwrap();
            assert_eq!((first.kind, queue.take()), (Kind::Tail, None));
            let last = last.map(|last| format!("2026-01-01T00:00:00.{last}"));
            queue.resolve(&first.subject, last.as_deref());
            let mut text = String::new();
            while let Some(message) = queue.take() {
                assert_eq!((message.kind, message.dropped), (Kind::Lines, 0));
                text.push_str(std::str::from_utf8(&message.text).unwrap());
                queue.settle(message.number, 0);
            }
            assert!(queue.is_empty() && queue.taken == 0 && queue.lanes.is_empty());
            let texts = text
                .lines()
                .map(|line| line.rsplit(' ').next().unwrap().to_owned());
            texts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(left(None), "a b c d e new");
        assert_eq!(left(Some("0Z gone")), "a b c d e new");
        assert_eq!(left(Some("1Z a")), "b c d e new");
        assert_eq!(left(Some("2Z b")), "c d e new");
        // Another of the same moment follows it in the next batch.
        assert_eq!(left(Some("4Z d")), "e new");
        assert_eq!(left(Some("4Z e")), "new");
        assert_eq!(left(Some("9Z later")), "new");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8, usize),
        Take,
        Settle,
        Retry,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8, 1..300_usize).prop_map(|(name, length)| Step::Push(name, length)),
            3 => Just(Step::Take),
            2 => Just(Step::Settle),
            1 => Just(Step::Retry),
        ]
    }

    proptest! {
        /// Whatever happens, each line of a subject is said once and in order, or counted as lost just before the next.
        #[test]
        fn every_line_is_said_once_or_counted(steps in prop::collection::vec(step(), 1..200)) {
            let mut queue = Queue::new(3000);
            let mut pushed: HashMap<Arc<str>, u64> = HashMap::new();
            let mut said: HashMap<Arc<str>, u64> = HashMap::new();
            let mut away: Vec<QueuedMessage> = Vec::new();
            for step in steps.into_iter().chain((0..400).map(|i| if i % 2 == 0 { Step::Take } else { Step::Settle })) {
                match step {
                    Step::Push(name, length) => {
                        let name = subject(&name.to_string());
                        let number = pushed.entry(Arc::clone(&name)).or_default();
                        *number += 1;
                        let text = format!("{number} {}\n", "x".repeat(length));
                        queue.push(&name, Kind::Lines, Batch { text, count: 1, dropped: 0 });
                    }
                    Step::Take => away.extend(queue.take()),
                    Step::Retry => if let Some(message) = away.pop() {
                        queue.retry(message.number);
                    },
                    Step::Settle => if let Some(message) = away.pop() {
                        queue.settle(message.number, 0);
                        let last = said.entry(Arc::clone(&message.subject)).or_default();
                        *last += message.dropped;
                        for line in std::str::from_utf8(&message.text).unwrap().lines() {
                            *last += 1;
                            prop_assert_eq!(line.split(' ').next().unwrap(), last.to_string());
                        }
                    },
                }
                let on_their_way: usize = queue.messages.values().filter(|m| m.sent).map(super::Message::size).sum();
                prop_assert!(queue.taken <= 3000.max(on_their_way));
            }
            prop_assert!(queue.is_empty() && queue.taken == 0 && queue.lanes.is_empty());
            for (name, pushed) in pushed {
                let lost = queue.lost.get(&name).copied().unwrap_or_default();
                prop_assert_eq!(said.get(&name).copied().unwrap_or_default() + lost, pushed);
            }
        }
    }
}
