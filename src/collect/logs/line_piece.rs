//! The lines that one reading of a log gathers for clients.

use super::entry::PlainEntry;
use super::tail::{Channel, TailLines};
use crate::model::{FilePlace, LinesBuilder, LogPosition, ReadLimits, ReadLines};
use crate::settings::Redaction;

/// Limit on the lines of one reading. The limit on bytes is reached first.
const MAX_LINES: usize = 1 << 30;
/// If a line is unfinished after enough bytes, the reading continues for up to this many bytes, to find the end of the line.
const MAX_OPEN_BYTES: usize = 256 * 1024;

/// Lines of a log after the position of a client.
pub(super) struct LinePiece {
    /// Number of lines at the beginning that come before the position of the client.
    skipped: u64,
    pub(super) limits: ReadLimits,
    redaction: Redaction,
    /// Number of lines before the client's position that were counted and are not stored.
    not_stored: u64,
    /// The lines that were read.
    lines: LinesBuilder,
    /// The lines after `lines`. They need more work than a copy.
    tail: TailLines,
    /// The number of the newest line before the reading.
    first: u64,
    /// The newest place at which no line was unfinished.
    pub(super) settled: FilePlace,
}

impl LinePiece {
    /// Begins at the place `start`. `after` is the number of the newest line that the client has.
    pub(super) fn new(
        start: FilePlace,
        after: u64,
        limits: ReadLimits,
        redaction: &Redaction,
    ) -> Self {
        Self {
            skipped: after.saturating_sub(start.line),
            limits,
            redaction: redaction.clone(),
            not_stored: 0,
            lines: LinesBuilder::default(),
            tail: new_tail(redaction, limits),
            first: start.line,
            settled: start,
        }
    }

    /// Adds a message `TIMESTAMP text`.
    pub(super) fn push(&mut self, channel: Channel, message: &[u8]) {
        self.tail.push(channel, message);
    }

    /// Whether [`Self::push_plain`] can be used: no line is unfinished, and there is no redaction.
    pub(super) fn can_copy(&self) -> bool {
        !self.redaction.is_on() && !self.tail.is_open()
    }

    /// Adds a whole line.
    pub(super) fn push_plain(&mut self, plain: &PlainEntry<'_>) {
        if self.tail.count() > 0 {
            self.lines.extend(&self.tail.show());
            self.tail = new_tail(&self.redaction, self.limits);
        }
        let parts = [&plain.timestamp, plain.text, ""];
        self.lines.push_plain(parts, plain.stream);
    }

    /// If no line is unfinished, returns the number of the newest line. Drops lines that come before the client's position.
    pub(super) fn settle(&mut self) -> Option<u64> {
        if self.tail.is_open() {
            return None;
        }
        let line = self.first + self.count();
        if self.count() <= self.skipped {
            self.not_stored = self.count();
            self.lines = LinesBuilder::default();
            self.tail = new_tail(&self.redaction, self.limits);
        }
        Some(line)
    }

    /// Makes the numbers of all lines smaller by `surplus`. Returns the new number of the line `line`.
    pub(super) fn lower_numbers(&mut self, surplus: u64, line: u64) -> u64 {
        self.first = self.first.saturating_sub(surplus);
        line.saturating_sub(surplus)
    }

    /// Whether the reading can end. The lines before the client's position do not count.
    pub(super) fn is_enough(&self) -> bool {
        let limit = match self.tail.is_open() {
            true => self.limits.text + MAX_OPEN_BYTES.max(2 * self.limits.line),
            false => self.limits.text,
        };
        let text = self.lines.bytes() + self.tail.text();
        self.count() > self.skipped && text >= limit
    }

    /// Returns the number of lines that were read, including unfinished lines.
    fn count(&self) -> u64 {
        self.not_stored + (self.lines.count() + self.tail.count()) as u64
    }

    /// Returns the lines. `to` is the place at which the reading should end, if the reading has reached it.
    pub(super) fn finish(mut self, dropped: u64, to: Option<&FilePlace>) -> ReadLines {
        let count = self.count();
        let last = self.tail.show();
        if self.tail.count() > last.iter().len() {
            // There was too much text after a line that is not finished yet.
            self.lines = LinesBuilder::default();
            self.not_stored = count - last.iter().len() as u64;
        }
        self.lines.extend(&last);
        let lines = self.lines.finish(last.open());
        let finished = lines.iter().len() - lines.open();
        let new = self.skipped.saturating_sub(self.not_stored);
        let dropped = dropped + self.not_stored.saturating_sub(self.skipped);
        let new = usize::try_from(new).unwrap_or(finished);
        let newest = self.first + count - lines.open() as u64;
        let (line, place, lost) = match to {
            // The number at the place is right, because all earlier lines were counted before they were deleted. If the reading has
            // found fewer lines, a file is damaged.
            Some(to) => (to.line, *to, to.line.saturating_sub(newest)),
            None => (newest, self.settled, 0),
        };
        ReadLines {
            new: new.min(finished)..finished,
            lines: lines.into(),
            dropped: dropped + lost,
            end: LogPosition {
                line,
                place: Some(place.into()),
            },
        }
    }
}

fn new_tail(redaction: &Redaction, limits: ReadLimits) -> TailLines {
    TailLines::new(MAX_LINES, usize::MAX)
        .redacting(redaction)
        .cutting_at(limits.line)
}
