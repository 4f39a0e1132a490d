//! Chooses the lines for a request with `"logs":"range"`, if the log is read by calls to the engine.

use std::collections::VecDeque;
use std::io;
use std::time::SystemTime;

use crate::collect::logs::entry::DISORDER;
use crate::collect::logs::line::matches;
use crate::collect::logs::new::moment;
use crate::collect::logs::tail::{Channel, TailLines};
use crate::model::{LogRange, RangeEnd, RangeLines};
use crate::settings::Redaction;

/// Limit on the text of an answer, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Number of bytes that are examined together.
const BLOCK_BYTES: usize = 64 * 1024;

/// The lines for a request for older lines.
pub(super) struct Found<'r> {
    range: &'r LogRange,
    redaction: &'r Redaction,
    regex: Option<regex::Regex>,
    /// Lines that were not examined yet.
    lines: TailLines,
    /// The matching lines as JSON strings, with their times.
    found: VecDeque<(SystemTime, Box<str>)>,
    /// The length of all matching lines, in bytes.
    text: usize,
    /// The time of the newest line that was examined.
    newest: SystemTime,
    /// If there were too many lines: the time of the newest one that was dropped, for an answer with the newest lines.
    cut: Option<SystemTime>,
    has_more: bool,
    is_too_long: bool,
}

impl<'r> Found<'r> {
    pub(super) fn new(range: &'r LogRange, redaction: &'r Redaction) -> Self {
        Self {
            range,
            redaction,
            regex: range.regex(),
            lines: Self::tail(range, redaction),
            found: VecDeque::new(),
            text: 0,
            newest: SystemTime::UNIX_EPOCH,
            cut: None,
            has_more: false,
            is_too_long: false,
        }
    }

    fn tail(range: &LogRange, redaction: &Redaction) -> TailLines {
        TailLines::new(0, usize::MAX)
            .redacting(redaction)
            .cutting_at(range.max_line as usize)
            .keeping_all()
    }

    /// Adds a message. Returns whether no further message can be in the answer.
    pub(super) fn push(&mut self, channel: Channel, message: &[u8]) -> bool {
        self.lines.push(channel, message);
        let (text, is_open) = (self.lines.text(), self.lines.is_open());
        // With redaction, a line must not be split, because a part of a secret would be shown.
        self.is_too_long |= text > 2 * MAX_ANSWER_BYTES;
        self.is_too_long || (text > BLOCK_BYTES && !is_open && self.is_done())
    }

    /// Examines the lines. Returns whether no further line of the log can be in the answer.
    fn is_done(&mut self) -> bool {
        let lines =
            std::mem::replace(&mut self.lines, Self::tail(self.range, self.redaction)).show();
        let finished = lines.iter().len() - lines.open();
        for line in lines.iter().take(finished) {
            let Some(at) = moment(line) else { continue };
            self.newest = self.newest.max(at);
            let is_in = self.range.after.is_none_or(|after| at > after)
                && self.range.before.is_none_or(|before| at < before);
            if is_in && matches(self.regex.as_ref(), line) {
                self.text += line.len();
                self.found.push_back((at, line.into()));
            }
        }
        let sure = self.newest.checked_sub(DISORDER);
        let mut is_full = false;
        match self.range.from {
            RangeEnd::Newest => {
                while self.text > MAX_ANSWER_BYTES || self.found.len() > self.range.lines {
                    let dropped = self.found.pop_front();
                    self.text -= dropped.as_ref().map_or(0, |(_, line)| line.len());
                    self.cut = self.cut.max(dropped.map(|(at, _)| at));
                    is_full = true;
                }
            }
            RangeEnd::Oldest => {
                // Further lines can be a little older than these.
                let first_surplus = self.found.get(self.range.lines);
                let is_sure = |(at, _): &(_, _)| sure.is_some_and(|sure| *at < sure);
                is_full = self.text > MAX_ANSWER_BYTES || first_surplus.is_some_and(is_sure);
            }
        }
        let is_beyond = self
            .range
            .before
            .zip(sure)
            .is_some_and(|(before, sure)| sure > before);
        self.has_more |= is_full;
        is_beyond || (is_full && self.range.from == RangeEnd::Oldest)
    }

    /// Returns the lines. `is_whole` tells whether the oldest message of the log was added.
    ///
    /// # Errors
    /// Fails if too many lines have the same time, or if a line is too long.
    pub(super) fn finish(mut self, is_whole: bool) -> io::Result<RangeLines> {
        // A line that is not finished yet is left out.
        self.is_done();
        if !is_whole {
            // The beginning of the oldest line can be missing.
            self.has_more = true;
            if self.range.lines > self.found.len()
                && let Some((at, _)) = self.found.front()
            {
                self.cut = self.cut.max(Some(*at));
            }
        }
        let is_empty = self.found.is_empty();
        let mut found = Vec::from(self.found);
        found.sort_by_key(|(at, _)| *at);
        // Lines of the same time stay together, because a further request continues at a time.
        let outermost = match self.range.from {
            RangeEnd::Newest => {
                if let Some(cut) = self.cut {
                    found.retain(|(at, _)| *at > cut);
                }
                found.first()
            }
            RangeEnd::Oldest => {
                let surplus = found.get(self.range.lines).map(|(at, _)| *at);
                // If the reading has stopped early, further lines can be a little older than the newest one.
                let sure = self.newest.checked_sub(DISORDER);
                let sure = sure.filter(|_| self.has_more);
                self.has_more |= surplus.is_some();
                if let Some(cut) = surplus.into_iter().chain(sure).min() {
                    found.retain(|(at, _)| *at < cut);
                }
                found.last()
            }
        };
        let reached = outermost.map(|(at, _)| *at).filter(|_| self.has_more);
        if found.is_empty() && (!is_empty || self.is_too_long) {
            return Err(io::Error::other("there is too much to read"));
        }
        Ok(RangeLines {
            reached,
            lines: found.into_iter().map(|(_, line)| line).collect(),
        })
    }
}
