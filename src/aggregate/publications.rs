//! The snapshots from which sessions get their log lines and events.

use std::sync::Arc;

use crate::published::{Published, StreamPosition};

/// The newest snapshot, and the snapshot before it.
#[derive(Default)]
pub(super) struct Publications {
    /// The newest snapshot.
    newest: Option<Arc<Published>>,
    /// The newest snapshot, with the log lines and events that came after it. None if none came, and without live sessions.
    news: Option<Arc<Published>>,
    /// The snapshot before the newest, while sessions still read log lines up to it.
    previous: Option<Arc<Published>>,
}

impl Publications {
    /// Returns the newest snapshot. If `with_news`, it has the log lines and events that came after it.
    pub(super) fn newest(&self, with_news: bool) -> Option<&Arc<Published>> {
        let news = self.news.as_ref().filter(|_| with_news);
        news.or(self.newest.as_ref())
    }

    /// Returns the previous snapshot, if a session at the position `since` has received only a part of the log lines up to it.
    ///
    /// Such a session first gets the rest of them. So sessions that read at different speeds come to the same positions, and share
    /// the readings.
    pub(super) fn unfinished(
        &self,
        since: &StreamPosition,
        with_news: bool,
    ) -> Option<&Arc<Published>> {
        let previous = self.previous.as_ref().filter(|_| !with_news);
        previous.filter(|previous| since.seq == previous.seq() && since.id != previous.since().id)
    }

    /// Adds a snapshot. `keep_previous` tells whether sessions still read log lines up to the snapshot before it.
    pub(super) fn add(&mut self, snapshot: Arc<Published>, keep_previous: bool) {
        let previous = self.newest.replace(snapshot);
        self.previous = previous.filter(|_| keep_previous);
        self.news = None;
    }

    /// Sets the log lines and events that came after the newest snapshot.
    pub(super) fn add_news(&mut self, news: Arc<Published>) {
        self.news = Some(news);
    }
}
