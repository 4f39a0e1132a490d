//! A snapshot's line of JSON, as far as all clients share it.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Encoding, Positions, Variant};

/// A snapshot's line, encoded once and shared by all sessions that asked for the same.
///
/// Only `agent.skipped` differs between them. It is the last field of the line, so that each
/// session ends the shared bytes with its own count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSnapshot {
    /// The snapshot's number.
    pub seq: u64,
    /// The number of the snapshot after which its log lines are new; none where it holds the
    /// newest, whatever was sent before.
    pub follows: Option<u64>,
    /// The number of the last event before those in it; none where it holds no events.
    pub events_after: Option<u64>,
    /// Where the next one may follow on.
    pub since: StreamPosition,
    /// What it holds, and how it is written.
    pub variant: Variant,
    /// All of the line up to the value of `skipped`.
    pub shared: Bytes,
}

/// What a snapshot has said of what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// The snapshot's number.
    pub seq: u64,
    /// How far the logs in it had been read.
    pub positions: Arc<Positions>,
    /// The number of the last event in it, or before it.
    pub events: u64,
}

/// The end of a line.
#[derive(Debug, Clone, Copy)]
pub struct LineEnd {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl EncodedSnapshot {
    /// Whether log lines or events are missing for a client that was sent `since` last.
    #[must_use]
    pub fn lacks_something_after(&self, since: &StreamPosition) -> bool {
        self.follows.is_some_and(|follows| follows != since.seq)
            || self.events_after.is_some_and(|after| after > since.events)
    }

    /// The end of the line for a client that missed `skipped` snapshots.
    #[must_use]
    pub fn ending(&self, skipped: u64) -> LineEnd {
        let mut ending = LineEnd {
            bytes: [0; LineEnd::LONGEST],
            length: 0,
        };
        if self.variant.encoding == Encoding::Zstd {
            // The last block of the frame, as it is: its length and two bits for its type, one for last.
            ending.length = 3;
        }
        // Always fits.
        let mut room = &mut ending.bytes[ending.length..];
        let _ = writeln!(room, "{skipped}}}}}");
        let left = room.len();
        let text = LineEnd::LONGEST - ending.length - left;
        ending.length += text;
        if self.variant.encoding == Encoding::Zstd {
            ending.bytes[0] = (text as u8) << 3 | 1;
        }
        ending
    }
}

impl LineEnd {
    /// A block's header, 20 digits, `}}` and the line's end.
    const LONGEST: usize = 26;
}

impl AsRef<[u8]> for LineEnd {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
