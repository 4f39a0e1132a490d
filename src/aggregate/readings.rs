//! Readings of log lines that sessions wait for. Sessions at the same position share a reading.

use std::sync::Arc;

use crate::model::{ResumeOutcome, Variant};
use crate::published::{LineRequest, Published, StreamPosition};

/// Log lines that sessions wait for, and that must be read from the log files.
#[derive(Clone)]
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
    since: u64,
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

    /// Returns the request of a session that lags. The request has no log lines of the reading.
    pub(super) fn line_of(&self, variant: Variant) -> LineRequest<'_> {
        LineRequest {
            is_news: self.is_news,
            since: Some(&self.since),
            resume: self.resume,
            lagging: true,
            ..LineRequest::first(variant)
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
