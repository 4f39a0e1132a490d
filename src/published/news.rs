//! The new log lines of each container: the log lines that a client or the NATS server has not received yet.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::{LogPiece, StreamPosition};
use crate::model::{LogLines, LogPosition, LogSample, NewLines};

/// The new log lines of all containers, and the number of dropped log lines, by container name.
#[derive(Debug, Default)]
pub struct NewLinesByContainer<'l> {
    /// The log lines, each with the id of the container.
    lines: BTreeMap<&'l str, Vec<(&'l Arc<str>, NewLines<'l>)>>,
    dropped: BTreeMap<&'l str, u64>,
}

impl<'l> NewLinesByContainer<'l> {
    /// Collects the log lines after the position `since`. If `since` is None, collects the tails of the logs, and counts no log
    /// line as dropped. For the containers in `piece`, collects the log lines of the piece.
    pub(super) fn of(
        logs: &'l LogSample,
        since: Option<&StreamPosition>,
        piece: Option<&'l LogPiece>,
    ) -> Self {
        let mut news = Self::default();
        // If an ended container and a running container have the same name, the log lines of the ended container come first.
        for log in logs.ended.iter() {
            let read = piece.and_then(|piece| piece.of(&log.container));
            match (read, &log.lines) {
                (Some(read), _) => news.push(&log.name, &log.container, read.new_lines()),
                (None, Some(lines)) => news.add(&log.name, lines, since),
                (None, None) => {
                    news.add_dropped(&log.name, &log.container, log.position, since);
                }
            }
        }
        for (name, lines) in logs.logs.iter() {
            let read = piece.and_then(|piece| piece.of(&lines.place().container));
            match read {
                Some(read) => news.push(name, &lines.place().container, read.new_lines()),
                None => news.add(name, lines, since),
            }
        }
        news
    }

    /// Returns the names of the containers that have new or dropped log lines. With each name, returns the number of dropped log
    /// lines.
    pub fn containers(&self) -> impl Iterator<Item = (&'l str, u64)> {
        let mut dropped = self.dropped.clone();
        for name in self.lines.keys() {
            dropped.entry(name).or_default();
        }
        dropped.into_iter()
    }

    /// Whether there are neither new nor dropped log lines.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped.is_empty()
    }

    /// Returns the new log lines of a container, oldest first.
    pub fn lines(&self, container: &str) -> impl Iterator<Item = String> + use<'_, 'l> {
        let lines = self.lines.get(container).into_iter().flatten();
        lines.flat_map(|(_, lines)| lines.texts())
    }

    /// Returns the new log lines with the name and the id of each container, oldest first.
    pub fn by_container(&self) -> impl Iterator<Item = (&'l str, &'l str, &NewLines<'l>)> {
        let all = self.lines.iter();
        all.flat_map(|(name, logs)| {
            logs.iter()
                .map(move |(container, lines)| (*name, &***container, lines))
        })
    }

    /// Returns the number of dropped log lines of all containers.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Returns the JSON text of the fields `logs` and `logs_dropped`. A comma precedes each field.
    pub(super) fn json(&self) -> io::Result<Vec<u8>> {
        let mut json = br#","logs":{"#.to_vec();
        for (place, (name, logs)) in self.lines.iter().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, name)?;
            json.extend_from_slice(b":[");
            for (place, (_, lines)) in logs.iter().enumerate() {
                if place > 0 {
                    json.push(b',');
                }
                json.extend_from_slice(lines.json().as_bytes());
            }
            json.push(b']');
        }
        json.extend_from_slice(br#"},"logs_dropped":"#);
        serde_json::to_writer(&mut json, &self.dropped)?;
        Ok(json)
    }

    fn add(&mut self, name: &'l str, log: &'l LogLines, since: Option<&StreamPosition>) {
        let place = log.place();
        let news = match since {
            // For a new client, the older log lines that are not in the tail do not count as dropped.
            None => whole_tail(log),
            Some(since) => {
                match since.log(&place.container, Some(place)) {
                    None => log.after(place.origin.line),
                    // Another run of the agent has read this log, and not from its files. It is not known which lines are new.
                    Some(LogPosition { line: 0, .. }) => whole_tail(log),
                    Some(position) => log.after(position.line),
                }
            }
        };
        self.push(name, &place.container, news);
    }

    fn push(&mut self, name: &'l str, container: &'l Arc<str>, news: NewLines<'l>) {
        self.count_dropped(name, news.dropped);
        if news.count() > 0 {
            self.lines.entry(name).or_default().push((container, news));
        }
    }

    /// Counts the dropped log lines of a container that has ended. The log lines of this container are no longer stored.
    fn add_dropped(
        &mut self,
        name: &'l str,
        container: &str,
        position: u64,
        since: Option<&StreamPosition>,
    ) {
        let known = since.and_then(|since| since.log(container, None));
        let known = known.filter(|known| known.line > 0);
        self.count_dropped(
            name,
            known.map_or(0, |known| position.saturating_sub(known.line)),
        );
    }

    fn count_dropped(&mut self, name: &'l str, lines: u64) {
        if lines > 0 {
            *self.dropped.entry(name).or_default() += lines;
        }
    }
}

/// Returns all log lines that are stored. No log line counts as dropped.
fn whole_tail(log: &LogLines) -> NewLines<'_> {
    let mut tail = log.after(0);
    tail.dropped = 0;
    tail
}
