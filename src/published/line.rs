//! The encoded JSON line of a snapshot. All outputs and clients share the bytes of the line, except a short end.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::model::{Encoding, LogPosition, Place, Positions, Resumed, Variant};

/// An encoded variant of a snapshot. A variant is a choice of sections, log mode and encoding. All outputs and clients with the
/// same variant and the same previous snapshot share the bytes.
///
/// Only the field `agent.skipped` differs. This is the last field of the JSON line, so each output appends its own count to the
/// shared bytes. The socket has a count for each client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSnapshot {
    /// The snapshot's number.
    pub seq: u64,
    /// The id of the position after which the log lines begin. None if the line contains the tails of the logs or no logs.
    pub follows: Option<u64>,
    /// The number of events before the first event in the line. None if the line has no section `events`.
    pub events_after: Option<u64>,
    /// The number of events from before the agent's start. Only a client that resumes gets them.
    pub old_events: u64,
    /// The stream position after this JSON line.
    pub since: StreamPosition,
    /// Whether the line has only new events and log lines. Such a line is not a snapshot.
    pub is_news: bool,
    /// Whether the line has no events and no log lines.
    pub is_empty: bool,
    /// Whether there are more log lines up to this snapshot than this JSON line has. They can be requested immediately.
    pub more: bool,
    /// The choice of sections, log mode and encoding.
    pub variant: Variant,
    /// The JSON line up to the value of `skipped`. If the encoding is zstd, all blocks of the frame except the last block.
    pub shared: Bytes,
}

/// A position in the sequence of all events and log lines. A client that has received a JSON line has received all events and log
/// lines up to the position of the JSON line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// Identifies the position in this run of the agent.
    pub id: u64,
    /// The number of the snapshot of the JSON line.
    pub seq: u64,
    /// The position in the log of each container.
    pub positions: Arc<Positions>,
    /// The number of events up to the position.
    pub events: u64,
    /// The cursor that the client has sent. It has the positions of the logs that are not in `positions`. None for a client without
    /// a cursor, and after the positions of all logs are known.
    pub resumed: Option<Arc<Resumed>>,
    /// Whether the client has no positions in logs, because its cursor is from a connection without them. It gets the tails.
    pub begins_logs: bool,
}

impl StreamPosition {
    /// Returns the position in a container's log. None if the client has received nothing of this log. `place` is the place of the
    /// log's newest lines, if the log has some.
    #[must_use]
    pub fn log(&self, container: &str, place: Option<&Place>) -> Option<LogPosition> {
        let known = self.positions.get(container).cloned();
        let created = place.map_or(0, |place| place.created);
        known.or_else(|| self.resumed.as_ref()?.position(container, created))
    }
}

/// Returns an id for a new position.
pub(super) fn next_position_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The end of a JSON line. The end differs between outputs, and between the clients of the socket.
#[derive(Debug, Clone, Copy)]
pub struct LineEnd {
    bytes: [u8; Self::MAX_LENGTH],
    length: usize,
}

impl EncodedSnapshot {
    /// Whether log lines or events are missing for a client that is at the position `since`.
    #[must_use]
    pub fn lacks_something_after(&self, since: &StreamPosition) -> bool {
        self.follows.is_some_and(|follows| follows != since.id)
            || self
                .events_after
                .is_some_and(|after| after > since.events.max(self.old_events))
    }

    /// Returns the end of the JSON line. `skipped` is the number of snapshots that the client did not get.
    #[must_use]
    pub fn ending(&self, skipped: u64) -> LineEnd {
        let mut ending = LineEnd {
            bytes: [0; LineEnd::MAX_LENGTH],
            length: 0,
        };
        if self.variant.encoding == Encoding::Zstd {
            // The end is an uncompressed block, the last block of the zstd frame. The header of a block has 3 bytes.
            ending.length = 3;
        }
        // The buffer is large enough for every number.
        let mut room = &mut ending.bytes[ending.length..];
        let _ = writeln!(room, "{skipped}}}}}");
        let left = room.len();
        let text = LineEnd::MAX_LENGTH - ending.length - left;
        ending.length += text;
        if self.variant.encoding == Encoding::Zstd {
            // The bits of the header are the length, two bits with the type 0 (uncompressed), and a bit that marks the last
            // block.
            ending.bytes[0] = (text as u8) << 3 | 1;
        }
        ending
    }
}

impl LineEnd {
    /// The end of a line that is already complete.
    pub const NONE: Self = Self {
        bytes: [0; Self::MAX_LENGTH],
        length: 0,
    };

    /// Limit on the length of the end, in bytes. The end has a zstd block header, up to 20 digits, `}}` and a line feed.
    const MAX_LENGTH: usize = 26;
}

impl AsRef<[u8]> for LineEnd {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
