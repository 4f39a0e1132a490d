//! Reads the messages of a whole log from the engine one by one, without storing them.

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::fetch::{CALL, Message};
use crate::collect::docker::engine::{Call, EngineError, LogWindow, classify};
use crate::collect::docker::next_bytes;
use crate::collect::logs::entry::MAX_ENTRY_BYTES;
use crate::collect::logs::tail::Channel;

/// Number of bytes before each message: the channel, three zeros, and the length. A container with a TTY has no such bytes.
const HEADER_BYTES: usize = 8;
/// Limit on a piece of a TTY's line, in bytes. A longer line comes in several pieces.
const MAX_PIECE_BYTES: usize = 64 * 1024;

/// The beginning of an error that the engine prints into the output of a TTY.
const ERROR: &[u8] = b"Error grabbing logs:";

/// The messages of a log, oldest first.
pub(super) struct CallStream {
    body: Incoming,
    deadline: Instant,
    bytes: BytesMut,
    /// Number of bytes at the beginning of `bytes` that have no line feed.
    searched: usize,
    /// Whether the container has a TTY. None before the first bytes.
    is_console: Option<bool>,
}

impl CallStream {
    /// Requests messages of a container's log.
    pub(super) async fn of(
        call: &Call,
        id: &str,
        window: LogWindow,
        deadline: Instant,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            body: call.long_log(id, window).await?,
            deadline,
            bytes: BytesMut::new(),
            searched: 0,
            is_console: None,
        })
    }

    /// Returns the next message. None at the end of the log.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, EngineError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let next = timeout_at(self.deadline, next_bytes(&mut self.body)).await;
            let next = next.map_err(|_| EngineError::Deadline { call: CALL })?;
            match next.map_err(|error| classify(CALL, &error))? {
                Some(bytes) => self.bytes.extend_from_slice(&bytes),
                None if self.is_console == Some(true) && !self.bytes.is_empty() => {
                    self.searched = 0;
                    return Ok(Some((Channel::Console, self.bytes.split().freeze())));
                }
                None if self.bytes.is_empty() => return Ok(None),
                None => return Err(failed("the answer ends within a message")),
            }
        }
    }

    /// Returns the next message, if all its bytes have arrived.
    fn take(&mut self) -> Result<Option<Message>, EngineError> {
        let is_console = match self.is_console {
            Some(is_console) => is_console,
            None => {
                let Some(header) = self.bytes.first_chunk::<4>() else {
                    return Ok(None);
                };
                // The output of a TTY begins with a digit of the year.
                *self.is_console.insert(!matches!(header, [0..=3, 0, 0, 0]))
            }
        };
        if is_console {
            return match self.take_line() {
                // Without a TTY, the engine reports errors in a message of their own.
                Some(line) if line.starts_with(ERROR) => {
                    Err(failed(String::from_utf8_lossy(&line).trim_end()))
                }
                line => Ok(line.map(|line| (Channel::Console, line))),
            };
        }
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [kind, _, _, _, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if kind > 3 || length > MAX_ENTRY_BYTES {
            return Err(failed("the answer is not a log"));
        }
        if self.bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(HEADER_BYTES);
        let message = self.bytes.split_to(length).freeze();
        match kind {
            2 => Ok(Some((Channel::Stderr, message))),
            // The engine sends such a message if it cannot read the log.
            3 => Err(failed(String::from_utf8_lossy(&message).trim_end())),
            _ => Ok(Some((Channel::Stdout, message))),
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let end = memchr::memchr(b'\n', &self.bytes[self.searched..]);
        let length = match end {
            Some(end) => self.searched + end + 1,
            None if self.bytes.len() >= MAX_PIECE_BYTES => self.bytes.len(),
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        self.searched = 0;
        Some(self.bytes.split_to(length).freeze())
    }
}

fn failed(reason: &str) -> EngineError {
    EngineError::BrokenLog(reason.to_owned())
}
