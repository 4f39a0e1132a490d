//! The snapshot of one tick, with its events and log lines. The aggregator passes the snapshot to every output.
//!
//! An output that sends JSON lines calls [`Published::line`]. The first call encodes the JSON line. All outputs and clients share
//! the encoded line. Outputs that send no JSON lines read the figures from the model's types.

mod encode;
mod history;
mod json;
mod line;
mod news;
mod spare;
mod unread;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

use crate::model::{
    ContainerEvent, Cursor, CursorOwner, Events, LogSample, ResumeOutcome, Snapshot, SourceStatus,
    Timestamp,
};
use encode::Encodings;
pub use encode::LineRequest;
pub use history::history_line;
use line::next_position_id;
pub use line::{EncodedSnapshot, LineEnd, StreamPosition};
pub use news::NewLinesByContainer;
pub use unread::{LogPiece, PIECE_BYTES, Unread};

/// A snapshot, with the events and log lines up to its publication.
#[derive(Debug)]
pub struct Published {
    snapshot: Arc<Snapshot>,
    logs: LogSample,
    events: Arc<Events>,
    /// Number of events up to the previous snapshot.
    events_before: u64,
    /// Whether `logs` is a reading. If not, it has only the positions of an earlier reading.
    has_logs: bool,
    /// The position after this snapshot.
    end: StreamPosition,
    /// When `logs` or `events` changed after the snapshot was made. None if they have not changed.
    changed_at: Option<Timestamp>,
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
        let end = StreamPosition {
            id: next_position_id(),
            seq: snapshot.agent.seq,
            positions: Arc::clone(&logs.positions),
            events: events.end(),
            resumed: None,
            begins_logs: false,
        };
        let has_logs = snapshot.sources.logs.collected_at.is_some();
        let mut published = Self {
            has_logs,
            snapshot: Arc::new(snapshot),
            end,
            logs,
            events,
            events_before,
            changed_at: None,
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

    /// Returns the same snapshot with newer log lines and events. If `logs` is none, the log lines stay the same.
    #[must_use]
    pub fn with_news(&self, logs: Option<LogSample>, events: Arc<Events>) -> Self {
        let encodings = self.encodings().reuse(&self.snapshot, &self.snapshot);
        let has_logs = self.has_logs || logs.is_some();
        let logs = logs.unwrap_or_else(|| self.logs.clone());
        Self {
            has_logs,
            snapshot: Arc::clone(&self.snapshot),
            end: StreamPosition {
                id: next_position_id(),
                positions: Arc::clone(&logs.positions),
                events: events.end(),
                ..self.end.clone()
            },
            logs,
            events,
            events_before: self.events_before,
            changed_at: Some(Timestamp::now()),
            at: self.at,
            encodings: Mutex::new(encodings),
        }
    }

    /// Returns the snapshot. The field `events` is empty, because each client gets the events that are new for this client.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Whether the log lines or events are newer than the snapshot.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.changed_at.is_some()
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
    pub fn since(&self) -> &StreamPosition {
        &self.end
    }

    /// A snapshot has only the newest log lines of each container. Returns the logs with further log lines after the position
    /// `since`. None if this snapshot has all log lines after `since`. If `max_line` is more than the default, cut log
    /// lines are also unread.
    #[must_use]
    pub fn unread(&self, since: &StreamPosition, max_line: u32) -> Option<Unread> {
        Unread::of(&self.logs, since, self.position_after(since), max_line)
    }

    /// Whether all log lines wait in log files until they are read. Otherwise, log lines that are not read in time are lost.
    #[must_use]
    pub fn has_only_file_logs(&self) -> bool {
        let is_missing = self.snapshot.sources.logs.collected_at.is_none();
        let mut containers = self.logs.positions.keys();
        let is_in_files = |container| {
            let log = self.logs.files.get(container);
            log.is_some_and(|log| log.0.is_in_files())
        };
        is_missing || containers.all(is_in_files)
    }

    /// Returns the position of a client that was at `since` and gets this snapshot with all log lines.
    #[must_use]
    pub fn position_after(&self, since: &StreamPosition) -> StreamPosition {
        let logs = &self.snapshot.sources.logs;
        let is_behind = !Arc::ptr_eq(&since.positions, &self.end.positions);
        if logs.status == SourceStatus::Failing && !self.has_logs && is_behind {
            // There is no newest reading of the logs, so the client stays at its positions.
            return StreamPosition {
                id: next_position_id(),
                seq: self.end.seq,
                events: self.end.events,
                ..since.clone()
            };
        }
        // While the position of a log can be missing in this snapshot, the client's cursor is still needed.
        let resumed = since
            .resumed
            .clone()
            .filter(|_| logs.status == SourceStatus::Failing || !self.has_logs);
        let id = match resumed {
            Some(_) => next_position_id(),
            None => self.end.id,
        };
        StreamPosition {
            id,
            resumed,
            ..self.end.clone()
        }
    }

    /// Returns the position of a client that has sent a cursor, and what became of the cursor. The position is none if the cursor
    /// is from another host.
    #[must_use]
    pub fn resume(&self, cursor: &Arc<Cursor>) -> (Option<StreamPosition>, ResumeOutcome) {
        let owner = self.owner();
        if cursor.is_of_other_host(&owner) {
            return (None, ResumeOutcome::OtherHost);
        }
        let resumed = cursor.resumed(&owner).map(Arc::new);
        let position = StreamPosition {
            id: next_position_id(),
            seq: 0,
            positions: Arc::default(),
            events: cursor.events_in(&self.events, &owner),
            begins_logs: resumed.is_none(),
            resumed,
        };
        (Some(position), ResumeOutcome::Continued)
    }

    /// Returns the time of a cursor in milliseconds since 1970. None if the cursor is from another host.
    #[must_use]
    pub fn time_of(&self, cursor: &Cursor) -> Option<u64> {
        cursor.milliseconds(&self.owner())
    }

    /// Returns the cursor of a position as text, with the positions in the logs.
    #[must_use]
    pub fn cursor_with_logs(&self, position: &StreamPosition) -> String {
        self.cursor(position, true)
    }

    /// Returns the cursor of a position as text. `with_logs` tells whether it has the positions in the logs.
    fn cursor(&self, position: &StreamPosition, with_logs: bool) -> String {
        let now = self.snapshot.timestamp.0.duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or_default();
        let cursor = Cursor::of_events(&self.owner(), position.events, &self.events, now);
        if !with_logs {
            return cursor.to_text();
        }
        cursor
            .with_logs(&position.positions, position.resumed.as_deref())
            .to_text()
    }

    fn owner(&self) -> CursorOwner {
        CursorOwner {
            host: self.snapshot.host.hostname.clone(),
            run: u64::from_str_radix(&self.snapshot.agent.run, 16).unwrap_or_default(),
        }
    }

    /// Returns the number of events from before the agent's start. They come first, and only clients that resume get them.
    #[must_use]
    pub fn old_events(&self) -> u64 {
        self.events.old()
    }

    /// Returns the events after the first `after` events, oldest first. Also returns how many of these events were dropped. If
    /// `after` is None, returns the events after the previous snapshot.
    pub fn events(&self, after: Option<u64>) -> (impl Iterator<Item = &ContainerEvent>, u64) {
        self.events.after(after.unwrap_or(self.events_before))
    }

    /// Returns the log lines after the position `since`. If `since` is None, returns the tails of the logs. `piece` has the log
    /// lines that are not in this snapshot, if there are any.
    #[must_use]
    pub fn log_lines<'l>(
        &'l self,
        since: Option<&StreamPosition>,
        piece: Option<&'l LogPiece>,
    ) -> NewLinesByContainer<'l> {
        NewLinesByContainer::of(&self.logs, since, piece)
    }

    /// Returns the requested JSON line, without its end. Encodes the line if it is not cached.
    ///
    /// # Errors
    /// Fails if the encoder or the compressor fails. This is not expected, because all types of the model can be encoded.
    pub fn line(&self, request: LineRequest<'_>) -> io::Result<Arc<EncodedSnapshot>> {
        self.encodings().line(self, request)
    }

    /// Returns the requested JSON line, without its end, if it is cached. If it is, its log lines need not be read again.
    #[must_use]
    pub fn cached_line(&self, request: LineRequest<'_>) -> Option<Arc<EncodedSnapshot>> {
        self.encodings().cached_line(self, request)
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
