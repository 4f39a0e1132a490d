//! Readings of log lines that sessions wait for.
//!
//! Sessions at the same position share a reading: its log lines are read and encoded once. Sessions that request a reading while it
//! runs wait for it. [`FinishedReadings`] stores the newest readings for sessions that request them later.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::ResumeOutcome;
use crate::published::{LogPiece, Published, StreamPosition};

/// Limit on the number of stored readings. It bounds their memory.
const MAX_FINISHED: usize = 4;

/// Log lines that sessions wait for, and that must be read from the log files.
pub(super) struct Reading {
    /// The snapshot that the sessions get together with the log lines.
    pub(super) published: Arc<Published>,
    /// The position of the sessions.
    pub(super) since: StreamPosition,
    /// Whether the sessions get only the log lines and events, or a whole snapshot.
    pub(super) is_news: bool,
    /// Limit on the text of a line, in bytes.
    max_line: u32,
    /// What became of the cursor of the session, if this is its first snapshot and it has sent a cursor.
    pub(super) resume: Option<ResumeOutcome>,
}

/// Identifies a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ReadingKey {
    /// The id of the sessions' position.
    pub(super) since: u64,
    /// Whether the sessions get only the log lines and events, or a whole snapshot.
    is_news: bool,
    /// Limit on the text of a line, in bytes.
    pub(super) max_line: u32,
}

impl Reading {
    pub(super) fn new(
        published: &Arc<Published>,
        since: &StreamPosition,
        is_news: bool,
        max_line: u32,
    ) -> Self {
        Self {
            published: Arc::clone(published),
            since: since.clone(),
            is_news,
            max_line,
            resume: None,
        }
    }

    pub(super) fn key(&self) -> ReadingKey {
        ReadingKey {
            since: self.since.id,
            is_news: self.is_news,
            max_line: self.max_line,
        }
    }
}

/// The newest finished readings that further sessions need, oldest first.
///
/// Without them, sessions that write at different speeds would each read and encode the same log lines, and would then have
/// positions of their own.
#[derive(Default)]
pub(super) struct FinishedReadings(VecDeque<Finished>);

struct Finished {
    reading: Arc<(Reading, LogPiece)>,
    /// The number of sessions at or before the position of the reading. They will request it.
    needed: usize,
}

impl FinishedReadings {
    /// Stores a reading if further sessions need it. `sessions` is the number of sessions at its position.
    ///
    /// If there are too many readings, keeps those that most sessions need, and of these the oldest, because sessions request the
    /// oldest first.
    pub(super) fn add(&mut self, reading: Reading, piece: LogPiece, sessions: usize) {
        let leads_here =
            |finished: &&Finished| finished.reading.1.position().id == reading.since.id;
        let before = self.0.iter().find(leads_here);
        let needed = sessions + before.map_or(0, |before| before.needed);
        if needed == 0 {
            return;
        }
        if self.0.len() == MAX_FINISHED {
            let all = self.0.iter().enumerate();
            let least = all.min_by_key(|(_, finished)| finished.needed);
            match least {
                Some((at, least)) if least.needed < needed => self.0.remove(at),
                _ => return,
            };
        }
        let reading = Arc::new((reading, piece));
        self.0.push_back(Finished { reading, needed });
    }

    /// Returns the reading that a session needs, if it is stored. `newest` is the snapshot up to which the session needs log lines.
    ///
    /// Does not return a reading that ends with an older snapshot. Otherwise, the session would get the log lines after the older
    /// snapshot late.
    pub(super) fn take(
        &mut self,
        key: ReadingKey,
        newest: &Arc<Published>,
    ) -> Option<Arc<(Reading, LogPiece)>> {
        let is_needed = |finished: &Finished| {
            let (reading, piece) = &*finished.reading;
            reading.key() == key && (piece.has_more() || Arc::ptr_eq(&reading.published, newest))
        };
        let at = self.0.iter().position(is_needed)?;
        let finished = self.0.get_mut(at)?;
        finished.needed -= 1;
        if finished.needed > 0 {
            return Some(Arc::clone(&finished.reading));
        }
        self.0.remove(at).map(|finished| finished.reading)
    }

    /// Drops the readings of snapshots before the number `seq`. The sessions that still need them write too slowly to share them.
    pub(super) fn drop_before(&mut self, seq: u64) {
        self.0
            .retain(|finished| finished.reading.0.published.seq() >= seq);
    }
}
