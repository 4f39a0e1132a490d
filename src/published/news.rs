//! The log lines that somebody has not been sent yet, by container name.

use std::collections::BTreeMap;
use std::io;

use super::StreamPosition;
use crate::model::{LogLines, LogSample, NewLines};

/// The new log lines of all containers, and how many are no longer there.
#[derive(Debug, Default)]
pub struct NewLinesByContainer<'l> {
    lines: BTreeMap<&'l str, Vec<NewLines<'l>>>,
    dropped: BTreeMap<&'l str, u64>,
}

impl<'l> NewLinesByContainer<'l> {
    /// Those after `since`; without it the newest that are kept, and none counts as lost.
    pub(super) fn of(logs: &'l LogSample, since: Option<&StreamPosition>) -> Self {
        let mut news = Self::default();
        // A container that has ended comes before another one of its name that runs.
        for log in logs.ended.iter() {
            match &log.lines {
                Some(lines) => news.add(&log.name, lines, since),
                None => news.add_lost(&log.name, &log.container, log.position, since),
            }
        }
        for (name, lines) in logs.logs.iter() {
            news.add(name, lines, since);
        }
        news
    }

    /// The names of the containers of which there are lines, or lines are lost, with how many are lost.
    pub fn containers(&self) -> impl Iterator<Item = (&'l str, u64)> {
        let mut dropped = self.dropped.clone();
        for name in self.lines.keys() {
            dropped.entry(name).or_default();
        }
        dropped.into_iter()
    }

    /// A container's lines, oldest first.
    pub fn lines(&self, container: &str) -> impl Iterator<Item = String> + use<'_, 'l> {
        let lines = self.lines.get(container).into_iter().flatten();
        lines.flat_map(NewLines::texts)
    }

    /// As the fields `logs` and `logs_dropped`, each with a comma before it.
    pub(super) fn json(&self) -> io::Result<Vec<u8>> {
        let mut json = br#","logs":{"#.to_vec();
        for (place, (name, logs)) in self.lines.iter().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, name)?;
            json.extend_from_slice(b":[");
            for (place, lines) in logs.iter().enumerate() {
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
            // Of the tail nothing is lost, whatever was before it.
            None => {
                let mut tail = log.after(0);
                tail.dropped = 0;
                tail
            }
            Some(since) => {
                let known = since.positions.get(&place.container).copied();
                log.after(known.unwrap_or(place.origin))
            }
        };
        self.lose(name, news.dropped);
        if news.count() > 0 {
            self.lines.entry(name).or_default().push(news);
        }
    }

    /// The lines of this container are there no more.
    fn add_lost(
        &mut self,
        name: &'l str,
        container: &str,
        position: u64,
        since: Option<&StreamPosition>,
    ) {
        let known = since.and_then(|since| since.positions.get(container));
        self.lose(
            name,
            known.map_or(0, |known| position.saturating_sub(*known)),
        );
    }

    fn lose(&mut self, name: &'l str, lines: u64) {
        if lines > 0 {
            *self.dropped.entry(name).or_default() += lines;
        }
    }
}
