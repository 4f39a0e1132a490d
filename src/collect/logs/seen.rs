//! Remembers the newest messages of a log. They show which messages are new in an answer, or in a file that is read again.
//!
//! Only the order of the messages counts, and not their timestamps. A clock can be set back, and the timestamps of some engines
//! have only whole seconds.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::line::MAX_TIMESTAMP_BYTES;
use crate::hash::{FNV64, fnv64};
use crate::model::FilePlace;

/// Maximum number of remembered messages.
const MAX_REMEMBERED: usize = 256;
/// Two messages count as equal if their lengths, this many bytes at the beginning, and [`END`] bytes at the end are equal.
const BEGINNING: usize = 128;
/// See [`BEGINNING`].
const END: usize = 32;

/// The hashes of the newest messages, oldest first.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    newest: VecDeque<u64>,
    limit: usize,
}

/// How far a log was read, from its file or by calls to the engine. If the agent changes from the file to calls, or from calls to
/// the file, reading continues there.
#[derive(Debug, Clone)]
pub(super) struct Handover {
    /// The number of the last finished line.
    pub(super) position: u64,
    /// The origin of the log's [`Place`](crate::model::Place).
    pub(super) origin: u64,
    pub(super) seen: Arc<Seen>,
    /// The place after the newest message, found by its time. None if the message is not known, or if a line was not finished.
    pub(super) settled: Option<Arc<FilePlace>>,
}

/// How many messages at the beginning of an answer the agent has already read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overlap {
    pub(super) messages: usize,
    /// Whether a smaller number is also possible, because messages repeat.
    pub(super) ambiguous: bool,
}

impl Seen {
    /// Starts without messages. Remembers enough messages to compare an answer of `messages` messages.
    pub(super) fn new(messages: usize) -> Self {
        Self {
            newest: VecDeque::new(),
            limit: messages.min(MAX_REMEMBERED),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Returns the newest message.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest.back().copied()
    }

    pub(super) fn push(&mut self, identity: u64) {
        if self.newest.len() >= self.limit {
            self.newest.pop_front();
        }
        self.newest.push_back(identity);
    }

    /// Returns how many messages at the beginning of `answer` are remembered. None if no message of the answer is remembered.
    pub(super) fn overlap(&self, answer: &[u64]) -> Option<Overlap> {
        let shorter = borders(answer);
        // Searches for the longest beginning of the answer that is also the end of the remembered messages.
        let mut messages = 0;
        for one in &self.newest {
            while messages > 0 && answer.get(messages) != Some(one) {
                messages = shorter[messages - 1];
            }
            messages += usize::from(answer.get(messages) == Some(one));
        }
        if messages > 0 {
            return Some(Overlap {
                messages,
                ambiguous: shorter[messages - 1] > 0,
            });
        }
        // The answer begins before the remembered messages, or the answer is an older state of the log.
        let newest: HashSet<u64> = self.newest.iter().copied().collect();
        let last = answer.iter().rposition(|one| newest.contains(one))?;
        Some(Overlap {
            messages: last + 1,
            ambiguous: false,
        })
    }
}

/// Returns a number for each beginning of `answer`: the length of the longest shorter beginning that is also its end. This is the
/// failure function of the Knuth-Morris-Pratt search.
fn borders(answer: &[u64]) -> Vec<usize> {
    let mut borders = vec![0; answer.len()];
    let mut length = 0;
    for place in 1..answer.len() {
        while length > 0 && answer[length] != answer[place] {
            length = borders[length - 1];
        }
        length += usize::from(answer[length] == answer[place]);
        borders[place] = length;
    }
    borders
}

/// Returns a hash that identifies a message `TIMESTAMP text`. It must not change, because cursors have a part of it.
///
/// Old engines print the messages of the driver `local` in the time zone of the host. So of a timestamp with nanoseconds, only the
/// seconds and the nanoseconds count.
pub(super) fn identity(message: &[u8]) -> u64 {
    identity_of_parts(message, message, message.len())
}

/// Works like [`identity`] for a message of `length` bytes. `first` are its first bytes, and `last` its last bytes.
fn identity_of_parts(first: &[u8], last: &[u8], length: usize) -> u64 {
    let (time, text) = match timestamp_parts(first) {
        Some(parts) => parts,
        None => (&first[..0], first),
    };
    let beginning = &text[..text.len().min(BEGINNING)];
    let length = length - (first.len() - text.len());
    let end = &last[last.len() - END.min(length - beginning.len())..];
    let length = (length as u64).to_le_bytes();
    [time, beginning, end, &length]
        .iter()
        .fold(FNV64, |hash, bytes| fnv64(hash, bytes))
}

/// The parts of a message that [`identity`] needs, if the message arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct MessageParts {
    first: Vec<u8>,
    last: Vec<u8>,
    length: usize,
}

impl MessageParts {
    /// Adds the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let missing = MAX_TIMESTAMP_BYTES + BEGINNING - self.first.len();
        self.first
            .extend_from_slice(&piece[..piece.len().min(missing)]);
        self.last
            .extend_from_slice(&piece[piece.len().saturating_sub(END)..]);
        self.last.drain(..self.last.len().saturating_sub(END));
        self.length += piece.len();
    }

    /// Returns the beginning of the message, with the whole timestamp.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// Returns the [`identity`] of the message.
    pub(super) fn identity(&self) -> u64 {
        identity_of_parts(&self.first, &self.last, self.length)
    }
}

/// Splits a message with nanoseconds: `SS.NNNNNNNNN`, and the text after the timestamp.
fn timestamp_parts(message: &[u8]) -> Option<(&[u8], &[u8])> {
    const SECONDS: usize = "2024-01-01T12:00:".len();
    let time = message.get(SECONDS..SECONDS + "SS.NNNNNNNNN".len())?;
    let has_nanoseconds = time[2] == b'.' && time[3..].iter().all(u8::is_ascii_digit);
    let space = message
        .iter()
        .take(MAX_TIMESTAMP_BYTES)
        .position(|byte| *byte == b' ')?;
    has_nanoseconds.then_some((time, &message[space..]))
}

/// Returns the fingerprint of a message with this identity, for a place that is found by its time. 0 stands for no message.
pub(super) fn fingerprint_of_message(identity: u64) -> u32 {
    (identity as u32).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MessageParts, Overlap, Seen, identity};

    fn seen(messages: &[u64]) -> Seen {
        let mut seen = Seen::new(6);
        messages.iter().for_each(|one| seen.push(*one));
        seen
    }

    fn overlap(before: &[u64], answer: &[u64]) -> Option<(usize, bool)> {
        let overlap = seen(before).overlap(answer);
        overlap.map(
            |Overlap {
                 messages,
                 ambiguous,
             }| (messages, ambiguous),
        )
    }

    #[test]
    fn the_beginning_of_an_answer_shows_how_much_was_seen() {
        assert_eq!(overlap(&[1, 2, 3], &[2, 3, 4]), Some((2, false)));
        assert_eq!(overlap(&[1, 2, 3], &[1, 2, 3]), Some((3, false)));
        assert_eq!(overlap(&[1, 2, 3], &[4, 5]), None);
        assert_eq!(overlap(&[], &[1]), None);
        assert_eq!(overlap(&[1], &[]), None);
        // The answer begins before the remembered messages.
        assert_eq!(overlap(&[3], &[1, 2, 3, 4]), Some((3, false)));
        // The answer is an older state of the log.
        assert_eq!(overlap(&[1, 2, 3, 4], &[2, 3]), Some((2, false)));
    }

    #[test]
    fn equal_messages_are_counted() {
        assert_eq!(overlap(&[1, 7, 7], &[1, 7, 7, 7]), Some((3, false)));
        assert_eq!(overlap(&[1, 7, 7], &[7, 7, 7]), Some((2, true)));
        assert_eq!(overlap(&[1, 2, 1, 2], &[1, 2, 1, 2, 1]), Some((4, true)));
    }

    #[test]
    fn the_time_zone_of_a_message_does_not_count() {
        let of = |time: &str| identity(format!("{time} some text\n").as_bytes());
        let utc = of("2024-01-01T12:00:01.123456789Z");
        assert_eq!(utc, of("2024-01-01T14:00:01.123456789+02:00"));
        assert_ne!(utc, of("2024-01-01T12:00:02.123456789Z"));
        assert_ne!(of("2024-01-01T12:00:01Z"), of("2024-01-01T12:01:01Z"));
    }

    proptest! {
        #[test]
        fn a_message_in_pieces_has_the_same_identity(text in "[a-z]{0,400}", sizes in prop::collection::vec(1..300_usize, 1..9), time in any::<bool>()) {
            let time = if time { "2024-01-01T12:00:01.123456789Z " } else { "" };
            let message = format!("{time}{text}").into_bytes();
            let (mut parts, mut rest) = (MessageParts::default(), &message[..]);
            for size in sizes {
                let (piece, further) = rest.split_at(size.min(rest.len()));
                parts.push(piece);
                rest = further;
            }
            parts.push(rest);
            prop_assert_eq!(parts.identity(), identity(&message));
        }
    }

    #[test]
    fn messages_differ_by_time_text_or_length() {
        let long = "x".repeat(1000);
        let messages = ["1 a", "2 a", "1 b", &long, &long[1..], &format!("{long}\n")];
        let identities: std::collections::HashSet<_> = messages
            .iter()
            .map(|text| identity(text.as_bytes()))
            .collect();
        assert_eq!(identities.len(), messages.len());
        assert_eq!(identity(long.as_bytes()), identity(long.clone().as_bytes()));
    }

    proptest! {
        /// If all messages differ, exactly the messages after the previous answer are new.
        #[test]
        fn new_messages_are_counted_exactly_if_all_differ(before in 1..40_u64, new in 0..10_u64, asked in 1..20_usize) {
            let mut seen = Seen::new(6);
            (0..before).for_each(|one| seen.push(one));
            let all: Vec<u64> = (0..before + new).collect();
            let answer = &all[all.len().saturating_sub(asked)..];
            let expected = answer.len().saturating_sub(new as usize);
            let found = seen.overlap(answer).map_or(0, |overlap| overlap.messages);
            prop_assert_eq!(found, expected);
        }
    }
}
