//! Continues a log that is read by calls to the engine: adds the messages of the next answer to the newest lines.

use super::fetch::{Message, is_open, timestamp};
use crate::collect::logs::line::is_fragment;
use crate::collect::logs::seen::identity;
use crate::collect::logs::tail::{Channel, TailLines};

/// The state from which the next answer continues the log.
pub(super) struct Continuation {
    pub(super) tail: TailLines,
    /// The length and the hash of the unfinished terminal line at the end of the previous answer. None if the answer ended with a
    /// finished line.
    pub(super) open: Option<(usize, u64)>,
    /// The channel and the timestamp of the message at the end of the previous answer, if this message is a fragment or
    /// unfinished.
    pub(super) fragment: Option<(Channel, Box<[u8]>)>,
}

impl Continuation {
    /// Whether `next` continues the unfinished piece at the end of the previous answer. True if there was no such piece.
    pub(super) fn continues(&self, next: Option<&Message>) -> bool {
        match (self.open, next) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((length, digest)), Some((_, message))) => message
                .get(..length)
                .is_some_and(|begun| identity(begun) == digest),
        }
    }

    /// Adds new messages. The first message can begin with the unfinished piece at the end of the previous answer. Returns
    /// whether text was added.
    pub(super) fn push(&mut self, new_messages: &[Message]) -> bool {
        let mut changed = false;
        let mut push = |channel, message: &[u8]| {
            self.tail.push(channel, message);
            changed = true;
        };
        let mut rest = new_messages.iter();
        if let Some((length, digest)) = self.open
            && let Some((channel, message)) = rest.next()
        {
            match message.split_at_checked(length) {
                Some((begun, [])) if identity(begun) == digest => {}
                Some((begun, more)) if identity(begun) == digest => push(*channel, more),
                // The message is in the middle of a line that is longer than the limit. The text is not shown.
                _ if message.ends_with(b"\n") => push(*channel, b"\n"),
                _ => {}
            }
        }
        for (channel, message) in rest {
            push(*channel, message);
        }
        self.note_end(new_messages);
        changed
    }

    /// Records whether an answer ends in the middle of a line.
    pub(super) fn note_end(&mut self, answer: &[Message]) {
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
