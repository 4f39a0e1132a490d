//! The snapshot of one tick, with its events and log lines. The aggregator passes the snapshot to every output.
//!
//! An output that sends JSON lines calls [`Published::line`]. The first call encodes the JSON line. All outputs and clients share
//! the encoded line. Outputs that send no JSON lines read the figures from the model's types.

mod encode;
mod line;
mod news;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::model::{ContainerEvent, Events, LogSample, Snapshot, Variant};
use encode::Encodings;
pub use line::{EncodedSnapshot, LineEnd, StreamPosition};
pub use news::NewLinesByContainer;

/// A snapshot, with the events and log lines up to its publication.
#[derive(Debug)]
pub struct Published {
    snapshot: Arc<Snapshot>,
    logs: LogSample,
    events: Arc<Events>,
    /// Number of events up to the previous snapshot.
    events_before: u64,
    at: Instant,
    encodings: Mutex<Encodings>,
}

impl Published {
    /// Creates the snapshot of a tick.
    ///
    /// `logs` are the log lines in the snapshot, with their positions. `events` are all events so far. The first `events_before`
    /// events belong to earlier snapshots. `at` is the time of publication. `before` is the previous snapshot, whose encoded
    /// sections are reused. The field `agent.skipped` of the snapshot must be 0.
    #[must_use]
    pub fn new(
        snapshot: Snapshot,
        logs: LogSample,
        (events, events_before): (Arc<Events>, u64),
        at: Instant,
        before: Option<&Self>,
    ) -> Self {
        let mut published = Self {
            snapshot: Arc::new(snapshot),
            logs,
            events,
            events_before,
            at,
            encodings: Mutex::default(),
        };
        if let Some(before) = before {
            let encodings = before
                .encodings()
                .reuse(&before.snapshot, &published.snapshot);
            published.encodings = Mutex::new(encodings);
        }
        published
    }

    /// Returns the snapshot. The field `events` is empty, because each client gets the events that are new for this client.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Returns the snapshot's number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.snapshot.agent.seq
    }

    /// Returns the time of publication on the monotonic clock.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Returns the stream position after this snapshot. It tells which log lines and events came up to this snapshot.
    #[must_use]
    pub fn since(&self) -> StreamPosition {
        StreamPosition {
            seq: self.seq(),
            positions: Arc::clone(&self.logs.positions),
            events: self.events.end(),
        }
    }

    /// Returns the events after the first `after` events, oldest first. Also returns how many of these events were dropped. If
    /// `after` is None, returns the events after the previous snapshot.
    pub fn events(&self, after: Option<u64>) -> (impl Iterator<Item = &ContainerEvent>, u64) {
        self.events.after(after.unwrap_or(self.events_before))
    }

    /// Returns the log lines after the position `since`. If `since` is None, returns the tails of the logs.
    #[must_use]
    pub fn log_lines(&self, since: Option<&StreamPosition>) -> NewLinesByContainer<'_> {
        NewLinesByContainer::of(&self.logs, since)
    }

    /// Returns the JSON line of a variant, without its end. Encodes the line if it is not cached.
    ///
    /// `since` is the stream position of the client's previous snapshot. Clients with an equal `variant` and an equal `since`
    /// share the line. `lagging` tells whether the client lags. Only a limited number of lines for clients that lag is cached.
    ///
    /// # Errors
    /// Fails if the encoder or the compressor fails. This is not expected, because all types of the model can be encoded.
    pub fn line(
        &self,
        variant: Variant,
        since: Option<&StreamPosition>,
        lagging: bool,
    ) -> io::Result<Arc<EncodedSnapshot>> {
        self.encodings().line(self, variant, since, lagging)
    }

    /// Returns the number of different JSON lines in the cache.
    #[must_use]
    pub fn lines_made(&self) -> usize {
        self.encodings().count()
    }

    fn encodings(&self) -> MutexGuard<'_, Encodings> {
        // A lock is poisoned only by a panic, and a panic ends the process.
        self.encodings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
