//! What the aggregator hands to every output: the snapshot of a tick, with its events and log lines as they are in the model.
//!
//! Outputs read what they need from it. Those that send lines of JSON share them: each is made when it is first asked for.

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

/// A snapshot, with what has happened up to then.
#[derive(Debug)]
pub struct Published {
    snapshot: Arc<Snapshot>,
    logs: LogSample,
    events: Arc<Events>,
    /// How many events there had been at the snapshot before.
    events_before: u64,
    at: Instant,
    encodings: Mutex<Encodings>,
}

impl Published {
    /// The snapshot of a tick, which comes after `before`. `logs` are those in it, with their positions, `events` those up to
    /// it, of which the first `events_before` are in the snapshots before; its own `skipped` must be 0. It is published `at`.
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
                .pass_on(&before.snapshot, &published.snapshot);
            published.encodings = Mutex::new(encodings);
        }
        published
    }

    /// Without events: each client is told of those that it has not been sent.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The snapshot's number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.snapshot.agent.seq
    }

    /// When it was published, by the monotonic clock.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// How far the logs in it have been read, and how many events there have been.
    #[must_use]
    pub fn since(&self) -> StreamPosition {
        StreamPosition {
            seq: self.seq(),
            positions: Arc::clone(&self.logs.positions),
            events: self.events.end(),
        }
    }

    /// The events after the first `after`, oldest first, and how many of them are no longer kept. Without a number: after the
    /// snapshot before.
    pub fn events(&self, after: Option<u64>) -> (impl Iterator<Item = &ContainerEvent>, u64) {
        self.events.after(after.unwrap_or(self.events_before))
    }

    /// The log lines after `since`. Without it: the newest that are kept.
    #[must_use]
    pub fn log_lines(&self, since: Option<&StreamPosition>) -> NewLinesByContainer<'_> {
        NewLinesByContainer::of(&self.logs, since)
    }

    /// The line of JSON for a client that was sent `since` last, as far as all clients share it; made now unless it was made
    /// before. It is kept for others unless it is one of too many for clients that are `behind`.
    ///
    /// # Errors
    /// None that could be named: the model's types can all be encoded.
    pub fn line(
        &self,
        variant: Variant,
        since: Option<&StreamPosition>,
        behind: bool,
    ) -> io::Result<Arc<EncodedSnapshot>> {
        self.encodings().line(self, variant, since, behind)
    }

    /// How many different lines have been made.
    #[must_use]
    pub fn lines_made(&self) -> usize {
        self.encodings().count()
    }

    fn encodings(&self) -> MutexGuard<'_, Encodings> {
        // A panic ends the process.
        self.encodings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
