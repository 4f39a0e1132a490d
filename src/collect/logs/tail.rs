//! Builds the newest lines of one container from the engine's messages.
//!
//! The engine splits a long line into messages of 16 KiB, called fragments. Each message has a timestamp. Normally, the last
//! message of a line ends with a line feed, and the other messages do not. The line feed is missing in two cases: the container
//! wrote no line feed, or Docker 20.10 uses the `local` driver. In these cases, the code recognizes the last message by its
//! length: it is shorter than 16 KiB.
//!
//! The entries of a log file are messages that are read one by one. In the answer to a call, the messages of a container
//! without a TTY also arrive one by one. If the container has a TTY, the answer is one stream without boundaries between
//! messages. This module calls such a stream a console.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::line::{
    Line, MAX_LINE_BYTES, MAX_TIMESTAMP_BYTES, after_timestamp, fragments, max_raw_bytes,
};
use super::new::moment;
use crate::model::{EncodedLines, LogStream};
use crate::settings::Redaction;

/// Limit on the text that is stored of one container, in bytes. If the text is longer, the oldest lines are dropped.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Number of lines for which a tail keeps memory between two readings. The first reading can need more.
const SPARE_LINES: usize = 16;

/// The channel of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// Standard output, one message at a time.
    Stdout,
    /// Standard error, one message at a time.
    Stderr,
    /// The output of a TTY, read from a log file, one message at a time.
    Terminal,
    /// The output of a TTY, read by a call to the engine. It is one stream, in pieces of any length.
    Console,
}

impl Channel {
    /// Returns the stream of the channel's lines.
    fn stream(self) -> LogStream {
        match self {
            Self::Stderr => LogStream::Stderr,
            Self::Stdout | Self::Terminal | Self::Console => LogStream::Stdout,
        }
    }
}

/// The newest lines of one container.
#[derive(Debug)]
pub(super) struct TailLines {
    /// Number of lines to show.
    wanted: usize,
    /// Limit on the text of a line, in bytes.
    max_line: usize,
    /// Limit on the text of all lines, in bytes.
    max_text: usize,
    /// Number of messages that were requested. `usize::MAX` for a log file, and after [`Self::continued`].
    messages_asked: usize,
    /// Number of messages that arrived.
    messages: usize,
    /// The result of the previous call of [`Self::show`].
    shown: Arc<EncodedLines>,
    /// The index in `shown` of the first settled line. A settled line is finished, and was shown. Only its encoded form is
    /// stored.
    first_settled: usize,
    /// The length that each settled line had in `lines`, in bytes.
    settled: VecDeque<u32>,
    /// The lines after the settled lines. There are at most `wanted + 1` lines, including the settled lines. The additional
    /// line is needed, because [`Self::show`] drops the oldest line if its beginning can be missing.
    lines: VecDeque<Line>,
    /// The sum of the lengths in `settled` and of the lines in `lines`, in bytes.
    text: usize,
    /// Number of lines before the oldest stored line. These lines were dropped or skipped.
    dropped: usize,
    /// For each channel, the number of the line that waits for its end. The first line has the number 0.
    open: [Option<usize>; 4],
    /// Whether a line came in more than one message. For a console: whether a line is longer than one fragment.
    fragments: bool,
    /// The redaction that [`Self::show`] applies.
    redaction: Redaction,
}

impl TailLines {
    /// Creates a tail without lines, for the newest `wanted` lines of the newest `messages_asked` messages.
    pub(super) fn new(wanted: usize, messages_asked: usize) -> Self {
        Self {
            wanted,
            max_line: MAX_LINE_BYTES,
            max_text: MAX_TEXT_BYTES,
            messages_asked,
            messages: 0,
            shown: Arc::default(),
            first_settled: 0,
            settled: VecDeque::new(),
            lines: VecDeque::new(),
            text: 0,
            dropped: 0,
            open: [None; 4],
            fragments: false,
            redaction: Redaction::default(),
        }
    }

    /// Sets the redaction of the lines.
    pub(super) fn redacting(self, redaction: &Redaction) -> Self {
        Self {
            redaction: redaction.clone(),
            ..self
        }
    }

    /// Sets another limit on the text of a line, in bytes.
    pub(super) fn cutting_at(self, max_line: usize) -> Self {
        Self {
            max_line,
            // A few lines always fit.
            max_text: self.max_text.max(4 * max_line),
            ..self
        }
    }

    /// Stores all lines. The caller limits the messages.
    pub(super) fn keeping_all(self) -> Self {
        Self {
            wanted: usize::MAX - 1,
            max_text: usize::MAX,
            ..self
        }
    }

    /// Adds one message, or a piece of a console's stream.
    pub(super) fn push(&mut self, channel: Channel, message: &[u8]) {
        if channel == Channel::Console {
            for piece in message.split_inclusive(|byte| *byte == b'\n') {
                self.push_piece(channel, piece);
            }
        } else {
            self.push_piece(channel, message);
        }
    }

    fn push_piece(&mut self, channel: Channel, piece: &[u8]) {
        let console = channel == Channel::Console;
        let (text, has_line_feed) = match piece {
            [text @ .., b'\n'] => (text, true),
            text => (text, false),
        };
        let ended = has_line_feed || (!console && after_timestamp(text).len() < MAX_LINE_BYTES);
        let number = match self.open[channel as usize].take() {
            Some(number) => {
                // Each message of the line has a timestamp. The line needs only the first one.
                let text = if console { text } else { after_timestamp(text) };
                self.messages += usize::from(!console);
                self.fragments |= !console;
                self.extend(number, text);
                number
            }
            None => {
                self.messages += if console { fragments(text) } else { 1 };
                let number = self.count();
                self.lines.push_back(Line {
                    terminal: console || channel == Channel::Terminal,
                    console,
                    stream: channel.stream(),
                    ..Line::default()
                });
                self.extend(number, text);
                number
            }
        };
        if !ended {
            self.open[channel as usize] = Some(number);
        }
        self.drop_surplus();
    }

    fn extend(&mut self, number: usize, text: &[u8]) {
        // The rest of the line is not needed if the line was dropped, or if it was truncated and is already settled.
        let most = max_raw_bytes(self.max_line);
        let Some(line) = self.line(number) else {
            return;
        };
        let room = most - line.raw.len();
        let taken = text.len().min(room);
        line.raw.extend_from_slice(&text[..taken]);
        line.truncated |= taken < text.len();
        let long = line.raw.len() > MAX_LINE_BYTES + MAX_TIMESTAMP_BYTES;
        self.fragments |= long;
        self.text += taken;
    }

    /// Returns the line with this number. None if the line was dropped or is settled.
    fn line(&mut self, number: usize) -> Option<&mut Line> {
        let index = number.checked_sub(self.dropped + self.settled.len())?;
        self.lines.get_mut(index)
    }

    /// Whether a line waits for its end, even if the line is no longer stored.
    pub(super) fn is_open(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Returns the time of the newest line in the previous result of [`Self::show`].
    pub(super) fn newest_time(&self) -> Option<SystemTime> {
        moment(self.shown.iter().next_back()?)
    }

    /// Returns the length of all stored lines, in bytes.
    pub(super) fn text(&self) -> usize {
        self.text
    }

    fn len(&self) -> usize {
        self.settled.len() + self.lines.len()
    }

    fn drop_surplus(&mut self) {
        while self.len() > self.wanted + 1 || (self.text > self.max_text && self.len() > 1) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let text = match self.settled.pop_front() {
            Some(text) => {
                self.first_settled += 1;
                Some(text as usize)
            }
            None => self.lines.pop_front().map(|line| line.raw.len()),
        };
        if let Some(text) = text {
            self.text -= text;
            self.dropped += 1;
        }
    }

    /// Prepares for the messages of later answers. Drops the oldest line if its beginning can be missing. The line stays if it
    /// is the only line and is truncated.
    pub(super) fn continued(mut self) -> Self {
        if self.headless() > 0 {
            let alone = self.count() == 1;
            match self.lines.front_mut() {
                Some(line) if line.truncated && alone => line.headless = true,
                _ => self.drop_first(),
            }
        }
        self.messages_asked = usize::MAX;
        self
    }

    /// Drops all lines, and counts `lines` more lines as dropped.
    pub(super) fn skip(&mut self, lines: usize) {
        self.dropped += self.len() + lines;
        self.settled.clear();
        self.lines.clear();
        self.text = 0;
        self.open = [None; 4];
    }

    /// Returns the number of all lines, including dropped and skipped lines.
    pub(super) fn count(&self) -> usize {
        self.dropped + self.len()
    }

    /// Returns the number of lines from the first unfinished line to the end. A truncated line counts as finished, because no
    /// more of its text is shown.
    pub(super) fn unfinished(&self) -> usize {
        let waits = |number: &&usize| {
            let index = number.checked_sub(self.dropped + self.settled.len());
            let line = index.and_then(|index| self.lines.get(index));
            line.is_some_and(|line| !line.truncated)
        };
        let first = self.open.iter().flatten().filter(waits).min();
        let unfinished = first.map_or(0, |first| self.count() - first);
        unfinished.min(self.lines.len())
    }

    /// Whether a request for more messages can return more lines. This is so if fragments leave too few whole lines in this
    /// tail. For a console the result is a guess, because the code cannot count the fragments of a console.
    pub(super) fn lacks_lines(&self) -> bool {
        let whole = self.count() - usize::from(self.is_full());
        let console = self.lines.iter().any(|line| line.console);
        self.fragments && whole < self.wanted && (self.is_full() || console)
    }

    /// Whether all requested messages have arrived. The log can then have older messages, and the oldest message in this tail
    /// can be the end of a line.
    fn is_full(&self) -> bool {
        self.messages >= self.messages_asked
    }

    /// Returns 1 if the beginning of the oldest line can be missing. Returns 0 if not.
    pub(super) fn headless(&self) -> usize {
        usize::from(self.dropped == 0 && self.is_full())
    }

    /// Returns the newest lines, at most `wanted`, oldest first, each as `TIMESTAMP text`. Drops the oldest line if its
    /// beginning can be missing. Redacts the text, replaces bytes that are not UTF-8, and marks truncated lines.
    ///
    /// The lines before the first unfinished line become settled. The other lines are also returned, but stay in `lines`.
    pub(super) fn show(&mut self) -> Arc<EncodedLines> {
        if self.headless() > 0 {
            self.drop_first();
        }
        while self.len() > self.wanted {
            self.drop_first();
        }
        let kept = self.first_settled..self.first_settled + self.settled.len();
        let unfinished = self.unfinished();
        let first = self.dropped + self.settled.len();
        let waits = |place: usize| self.open.contains(&Some(first + place));
        let lines = self.lines.iter().enumerate();
        let lines: Vec<_> = lines
            .map(|(place, line)| line.finished(&self.redaction, !waits(place), self.max_line))
            .collect();
        let stderr = self.lines.iter().map(|line| line.stream).collect();
        self.shown = Arc::new(EncodedLines::following(
            &self.shown,
            kept,
            &lines,
            &stderr,
            unfinished,
        ));
        let settled = self.lines.drain(..self.lines.len() - unfinished);
        // The length is limited, so it fits in 32 bits.
        self.settled
            .extend(settled.map(|line| line.raw.len() as u32));
        if self.lines.capacity() > 2 * SPARE_LINES {
            self.lines.shrink_to(SPARE_LINES);
        }
        self.first_settled = 0;
        Arc::clone(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, LogStream, MAX_LINE_BYTES, MAX_TEXT_BYTES, TailLines};
    use crate::collect::logs::line::TRUNCATED;

    const TS: &str = "2024-01-01T12:00:00.123456789Z";

    #[test]
    fn lines_after_an_unfinished_line_wait_for_it() {
        let mut tail = TailLines::new(3, usize::MAX);
        let mut push = |channel, text: &str| {
            tail.push(channel, format!("{TS} {text}").as_bytes());
            (tail.count(), tail.unfinished())
        };
        assert_eq!(push(Channel::Stdout, "a\n"), (1, 0));
        assert_eq!(push(Channel::Stdout, &"x".repeat(MAX_LINE_BYTES)), (2, 1));
        assert_eq!(push(Channel::Stderr, "b\n"), (3, 2));
        assert_eq!(push(Channel::Stdout, &"x".repeat(MAX_LINE_BYTES)), (3, 0));
        assert_eq!(push(Channel::Stdout, "end\n"), (3, 0));
        tail.skip(7);
        assert_eq!((tail.count(), tail.unfinished()), (10, 0));
        assert!(shown(&mut tail).is_empty());
    }

    fn shown(tail: &mut TailLines) -> Vec<String> {
        let lines = tail.show();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn framed(wanted: usize, asked: usize, messages: &[(Channel, &str)]) -> Vec<String> {
        let mut tail = TailLines::new(wanted, asked);
        for (channel, text) in messages {
            tail.push(*channel, format!("{TS} {text}").as_bytes());
        }
        shown(&mut tail)
    }

    #[test]
    fn the_newest_whole_lines_are_kept_in_order() {
        use Channel::{Stderr, Stdout};
        let lines = framed(
            2,
            3,
            &[
                (Stdout, "end of something\n"),
                (Stderr, "b\n"),
                (Stdout, "c\n"),
            ],
        );
        assert_eq!(lines, [format!("{TS} b"), format!("{TS} c")]);
        let all = framed(3, 4, &[(Stdout, "a\n"), (Stdout, "\n")]);
        assert_eq!(all, [format!("{TS} a"), format!("{TS} ")]);
    }

    /// Returns the text of a fragment. It has the length of the engine's fragments.
    fn fragment(with: char) -> String {
        with.to_string().repeat(MAX_LINE_BYTES)
    }

    #[test]
    fn fragments_of_a_channel_are_merged_under_their_first_timestamp() {
        use Channel::{Stderr, Stdout};
        let long = fragment('x');
        let lines = framed(
            5,
            9,
            &[
                (Stdout, &long),
                (Stderr, "other\n"),
                (Stdout, &long),
                (Stdout, "the same\n"),
                (Stdout, "without end"),
                (Stdout, "another\n"),
                (Stdout, &long),
            ],
        );
        assert_eq!(
            lines,
            [
                format!("{TS} {long}{TRUNCATED}"),
                format!("{TS} other"),
                format!("{TS} without end"),
                format!("{TS} another"),
                format!("{TS} {long}"),
            ]
        );
    }

    #[test]
    fn the_oldest_line_is_dropped_if_its_beginning_can_be_missing() {
        use Channel::Stdout;
        let lines = framed(
            5,
            3,
            &[
                (Stdout, &fragment('x')),
                (Stdout, "of a long line\n"),
                (Stdout, "next\n"),
            ],
        );
        assert_eq!(lines, [format!("{TS} next")]);
    }

    #[test]
    fn a_tail_lacks_lines_only_if_it_has_fragments() {
        use Channel::{Console, Stdout};
        let mut tail = TailLines::new(2, 3);
        for text in [fragment('x'), fragment('x'), "c\n".to_owned()] {
            tail.push(Stdout, format!("{TS} {text}").as_bytes());
        }
        assert!(tail.lacks_lines());
        let mut tail = TailLines::new(2, 3);
        tail.push(Stdout, format!("{TS} a\n").as_bytes());
        assert!(!tail.lacks_lines());
        let mut tail = TailLines::new(2, 3);
        let long = format!("{TS} {}{TS} c\r\n", fragment('x'));
        tail.push(Console, long.as_bytes());
        assert!(tail.lacks_lines());
    }

    #[test]
    fn timestamps_between_a_consoles_fragments_are_not_shown() {
        let long = fragment('x');
        for (end, expected) in [
            (format!("{TS} \r\n"), format!("{TS} {long}")),
            ("\r\n".to_owned(), format!("{TS} {long}")),
            (format!("{TS} y\r\n"), format!("{TS} {long}{TRUNCATED}")),
            (
                format!("{TS} {long}{TS} y\r\n"),
                format!("{TS} {long}{TRUNCATED}"),
            ),
        ] {
            let mut tail = TailLines::new(1, 4);
            tail.push(Channel::Console, format!("{TS} {long}{end}").as_bytes());
            assert_eq!(shown(&mut tail), [expected]);
        }
    }

    #[test]
    fn a_long_line_is_truncated_between_characters_and_marked() {
        let mut tail = TailLines::new(1, 100);
        // 'é' has two bytes. One 'é' begins before the limit of 16 KiB, and ends after the limit.
        let text = format!("x{}", "é".repeat(MAX_LINE_BYTES));
        for fragment in text.as_bytes().chunks(MAX_LINE_BYTES) {
            let mut message = format!("{TS} ").into_bytes();
            message.extend_from_slice(fragment);
            tail.push(Channel::Stdout, &message);
        }
        let lines = shown(&mut tail);
        let expected = format!("{TS} x{}{TRUNCATED}", "é".repeat(MAX_LINE_BYTES / 2 - 1));
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_line_of_exactly_16_kib_is_not_truncated() {
        let text = "y".repeat(MAX_LINE_BYTES);
        let lines = framed(1, 3, &[(Channel::Stdout, &text), (Channel::Stdout, "\n")]);
        assert_eq!(lines, [format!("{TS} {text}")]);
    }

    #[test]
    fn a_consoles_stream_can_arrive_in_pieces_of_any_size() {
        let stream = format!("{TS} first\r\n{TS} se\rcond\r\n{TS} third, no end");
        for size in [1, 7, 1000] {
            let mut tail = TailLines::new(5, 6);
            for piece in stream.as_bytes().chunks(size) {
                tail.push(Channel::Console, piece);
            }
            let lines = shown(&mut tail);
            let expected = ["first", "se\rcond", "third, no end"];
            assert_eq!(lines, expected.map(|text| format!("{TS} {text}")));
        }
    }

    #[test]
    fn a_line_of_fragments_has_the_stream_of_its_channel() {
        use Channel::{Console, Stderr, Stdout, Terminal};
        let mut tail = TailLines::new(5, 9);
        let long = fragment('x');
        for (channel, text) in [
            (Stdout, "a\n"),
            (Stderr, &long),
            (Stdout, "b\n"),
            (Stderr, "end\n"),
            (Terminal, "c\r\n"),
            (Console, "d\r\n"),
        ] {
            tail.push(channel, format!("{TS} {text}").as_bytes());
        }
        let lines = tail.show();
        let expected = [false, true, false, false, false];
        let is_stderr = |line| lines.stream_of(line) == LogStream::Stderr;
        assert_eq!([0, 1, 2, 3, 4].map(is_stderr), expected);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        let mut tail = TailLines::new(1, 2);
        tail.push(Channel::Stdout, &[TS.as_bytes(), b" a\xff\0b\n"].concat());
        assert_eq!(shown(&mut tail), [format!("{TS} a\u{fffd}\0b")]);
    }

    #[test]
    fn the_stored_text_is_limited_for_any_number_of_lines() {
        let mut tail = TailLines::new(10_000, 10_001);
        let text = "z".repeat(MAX_LINE_BYTES - 1);
        for _ in 0..200 {
            tail.push(Channel::Stdout, format!("{TS} {text}\n").as_bytes());
        }
        assert!(tail.text <= MAX_TEXT_BYTES);
        assert_eq!(
            shown(&mut tail).len(),
            MAX_TEXT_BYTES / (MAX_LINE_BYTES + TS.len())
        );
    }

    #[test]
    fn the_result_does_not_depend_on_how_often_lines_are_shown() {
        use Channel::{Stderr, Stdout};
        let messages = [
            (Stdout, "a\n".to_owned()),
            (Stdout, fragment('x')),
            (Stderr, "b \"\u{1}\n".to_owned()),
            (Stderr, fragment('y')),
            (Stdout, "end\n".to_owned()),
            (Stdout, "c\n".to_owned()),
            (Stderr, fragment('z')),
            (Stdout, "d\n".to_owned()),
            (Stderr, fragment('z')),
            (Stderr, "e\n".to_owned()),
            (Stdout, "f\n".to_owned()),
        ];
        for wanted in 1..8 {
            let mut often = TailLines::new(wanted, usize::MAX);
            for end in 0..messages.len() {
                let (channel, text) = &messages[end];
                often.push(*channel, format!("{TS} {text}").as_bytes());
                let mut once = TailLines::new(wanted, usize::MAX);
                for (channel, text) in &messages[..=end] {
                    once.push(*channel, format!("{TS} {text}").as_bytes());
                }
                assert_eq!(often.show(), once.show(), "{wanted} of {end}");
                assert_eq!(often.count(), once.count());
                assert_eq!(often.text, once.text);
            }
        }
    }
}
