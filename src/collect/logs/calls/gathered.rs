//! Reads the messages of a log after a place, and keeps the newest lines and what is needed to continue after them.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::fetch::Message;
use super::reader::Messages;
use crate::collect::docker::engine::EngineError;
use crate::collect::logs::tail::{Channel, TailLines};
use crate::model::FileOffset;

/// The messages after a place.
pub(super) struct Gathered {
    pub(super) tail: TailLines,
    pub(super) last: Option<Message>,
    /// The place after the last message. None if a line is not finished there.
    pub(super) end: Option<FileOffset>,
    /// If a line of a TTY is not finished there: the channel and the timestamp of the line.
    pub(super) unfinished: Option<(Channel, Box<[u8]>)>,
    /// The newest whole messages, oldest first.
    pub(super) identities: VecDeque<u64>,
}

/// Adds all messages to `tail`, and calls `note` with the identity and the time of each. A message that is not finished has no identity.
/// Keeps a little more than the newest `wanted` identities. If the place was not found, returns the stream of messages.
pub(super) async fn gather(
    mut messages: Messages,
    tail: TailLines,
    wanted: usize,
    mut note: impl FnMut(Option<u64>, Option<SystemTime>),
) -> Result<Result<Gathered, Messages>, EngineError> {
    let mut gathered = Gathered {
        tail,
        last: None,
        end: None,
        unfinished: None,
        identities: VecDeque::new(),
    };
    while let Some((channel, message)) = messages.next().await? {
        gathered.tail.push(channel, &message);
        let identity = messages.identity(&message);
        note(identity, messages.time(&message));
        if let Some(identity) = identity {
            if gathered.identities.len() > wanted {
                gathered.identities.pop_front();
            }
            gathered.identities.push_back(identity);
        }
        gathered.end = messages.place(&message);
        let unfinished = messages.unfinished();
        gathered.unfinished = unfinished.map(|timestamp| (channel, timestamp.into()));
        gathered.last = Some((channel, message));
    }
    Ok(match messages.has_found_start() {
        true => Ok(gathered),
        false => Err(messages),
    })
}
