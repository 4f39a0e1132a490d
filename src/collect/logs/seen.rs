//! Which messages of a log have been seen: where an answer, or a file that is read anew, goes on from there.
//!
//! The order of arrival decides, never a timestamp: a clock may be set back, and some engines tell whole seconds only.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

/// The most messages of which it is remembered that they were seen.
const MOST: usize = 256;
/// What of a message is told apart: so many bytes at its beginning, so many at its end, and its length.
const BEGINNING: usize = 128;
const END: usize = 32;

/// The newest messages of a log that were seen, oldest first.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    newest: VecDeque<u64>,
    most: usize,
}

/// How far a log has been read, whichever way: the other way goes on from there.
#[derive(Debug, Clone)]
pub(super) struct Handover {
    /// The number of the last finished line.
    pub(super) position: u64,
    pub(super) origin: u64,
    pub(super) seen: Arc<Seen>,
}

/// How many of the messages at the beginning of an answer were seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overlap {
    pub(super) messages: usize,
    /// Fewer would fit as well: the messages repeat themselves.
    pub(super) ambiguous: bool,
}

impl Seen {
    /// None yet. Remembers what is needed to place an answer of so many messages.
    pub(super) fn new(messages: usize) -> Self {
        Self {
            newest: VecDeque::new(),
            most: messages.min(MOST),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    pub(super) fn push(&mut self, identity: u64) {
        if self.newest.len() >= self.most {
            self.newest.pop_front();
        }
        self.newest.push_back(identity);
    }

    /// Places the newest messages of a log. None where none of them was seen.
    pub(super) fn overlap(&self, answer: &[u64]) -> Option<Overlap> {
        let shorter = borders(answer);
        // The longest beginning of the answer that is the end of what was seen.
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
        // It begins before what is remembered, or is an older state of the log.
        let newest: HashSet<u64> = self.newest.iter().copied().collect();
        let last = answer.iter().rposition(|one| newest.contains(one))?;
        Some(Overlap {
            messages: last + 1,
            ambiguous: false,
        })
    }
}

/// Of each beginning, the length of the longest shorter beginning that it ends with.
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

/// By what a message `TIMESTAMP text` is told from others.
pub(super) fn identity(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let beginning = &message[..message.len().min(BEGINNING)];
    let end = &message[message.len().saturating_sub(END).max(beginning.len())..];
    hasher.write(beginning);
    hasher.write(end);
    hasher.write_usize(message.len());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Overlap, Seen, identity};

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
    fn an_answer_is_placed_by_what_it_begins_with() {
        assert_eq!(overlap(&[1, 2, 3], &[2, 3, 4]), Some((2, false)));
        assert_eq!(overlap(&[1, 2, 3], &[1, 2, 3]), Some((3, false)));
        assert_eq!(overlap(&[1, 2, 3], &[4, 5]), None);
        assert_eq!(overlap(&[], &[1]), None);
        assert_eq!(overlap(&[1], &[]), None);
        // It begins before what is remembered.
        assert_eq!(overlap(&[3], &[1, 2, 3, 4]), Some((3, false)));
        // An older state.
        assert_eq!(overlap(&[1, 2, 3, 4], &[2, 3]), Some((2, false)));
    }

    #[test]
    fn messages_that_are_alike_are_counted() {
        assert_eq!(overlap(&[1, 7, 7], &[1, 7, 7, 7]), Some((3, false)));
        assert_eq!(overlap(&[1, 7, 7], &[7, 7, 7]), Some((2, true)));
        assert_eq!(overlap(&[1, 2, 1, 2], &[1, 2, 1, 2, 1]), Some((4, true)));
    }

    #[test]
    fn messages_are_told_apart_by_time_text_and_length() {
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
        /// Of messages that differ, exactly those are new that came after the last answer.
        #[test]
        fn what_is_new_is_exact_where_messages_differ(before in 1..40_u64, new in 0..10_u64, asked in 1..20_usize) {
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
