//! The newest lines of one container, put together from the engine's messages.
//!
//! The engine cuts lines into messages of at most 16 KiB. Each message of a container without a
//! TTY comes in a frame of its own, begins with a timestamp, and ends with a line feed only if
//! it ends the line. A container with a TTY sends one unframed stream.

use std::collections::VecDeque;

/// The longest text of a line, in bytes, without its timestamp. The engine's fragments are as
/// long, so that the first one fills a line that has to be cut.
const LONGEST_LINE: usize = 16 * 1024;
/// The longest timestamp with its space: `2024-01-01T12:00:00.123456789+01:00 `.
const LONGEST_TIMESTAMP: usize = 36;
/// The most text kept of one container, in bytes: the newest lines that fit.
const MOST_TEXT: usize = 1024 * 1024;
/// What a line that was cut ends with.
const CUT: &str = " … [line cut at 16 KiB]";

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Framed standard output.
    Stdout,
    /// Framed standard error.
    Stderr,
    /// The unframed output of a TTY, in pieces that need not be lines.
    Console,
}

/// The newest lines that were pushed.
#[derive(Debug)]
pub(super) struct Tail {
    /// How many lines are wanted.
    wanted: usize,
    /// How many messages were asked for.
    messages_asked: usize,
    messages: usize,
    /// The newest lines; one more than wanted, until it is known whether the oldest is whole.
    lines: VecDeque<Line>,
    text: usize,
    /// The number of lines that have left at the front.
    dropped: usize,
    /// By channel, the number of the line that waits for its end, counting from the first.
    open: [Option<usize>; 3],
    /// Whether a framed line came in more than one message.
    fragments: bool,
}

#[derive(Debug, Default)]
struct Line {
    /// `TIMESTAMP text`, without the end of the line.
    raw: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// For the newest `wanted` lines out of the newest `messages_asked` messages.
    pub(super) fn new(wanted: usize, messages_asked: usize) -> Self {
        Self {
            wanted,
            messages_asked,
            messages: 0,
            lines: VecDeque::new(),
            text: 0,
            dropped: 0,
            open: [None; 3],
            fragments: false,
        }
    }

    /// Takes in one message, or a piece of a console's stream.
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
        let (text, ended) = match piece {
            [text @ .., b'\n'] => (text, true),
            text => (text, false),
        };
        match self.open[channel as usize] {
            Some(number) => {
                // A later frame of the same line repeats the timestamp.
                let text = match channel {
                    Channel::Console => text,
                    _ => after_timestamp(text),
                };
                self.fragments |= channel != Channel::Console;
                self.messages += usize::from(channel != Channel::Console);
                self.extend(number, text);
            }
            None => {
                self.messages += 1;
                let number = self.dropped + self.lines.len();
                self.lines.push_back(Line::default());
                self.open[channel as usize] = Some(number);
                self.extend(number, text);
            }
        }
        if ended && let Some(number) = self.open[channel as usize].take() {
            self.finish(number, channel);
        }
        self.evict();
    }

    fn extend(&mut self, number: usize, text: &[u8]) {
        // A line that has left already takes its end with it.
        let Some(line) = self.line(number) else {
            return;
        };
        let room = LONGEST_LINE + LONGEST_TIMESTAMP - line.raw.len();
        let taken = text.len().min(room);
        line.raw.extend_from_slice(&text[..taken]);
        line.cut |= taken < text.len();
        self.text += taken;
    }

    /// A terminal ends its lines with `\r\n`.
    fn finish(&mut self, number: usize, channel: Channel) {
        if channel == Channel::Console
            && let Some(line) = self.line(number)
            && line.raw.last() == Some(&b'\r')
        {
            line.raw.pop();
            self.text -= 1;
        }
    }

    /// A line by its number; none where it has left already.
    fn line(&mut self, number: usize) -> Option<&mut Line> {
        let index = number.checked_sub(self.dropped)?;
        self.lines.get_mut(index)
    }

    fn evict(&mut self) {
        while self.lines.len() > self.wanted + 1 || (self.text > MOST_TEXT && self.lines.len() > 1)
        {
            if let Some(line) = self.lines.pop_front() {
                self.text -= line.raw.len();
                self.dropped += 1;
            }
        }
    }

    /// How many messages were asked for.
    pub(super) fn messages_asked(&self) -> usize {
        self.messages_asked
    }

    /// How many messages have come.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Whether a longer tail would yield more lines: fragments took the room of lines. Never of
    /// a console, whose fragments make one line without a seam and so cannot be counted.
    pub(super) fn lacks_lines(&self) -> bool {
        let whole = self.dropped + self.lines.len() - usize::from(self.is_full());
        self.fragments && self.is_full() && whole < self.wanted
    }

    /// Whether there may be older messages, so that the oldest may be the end of a line only.
    fn is_full(&self) -> bool {
        self.messages >= self.messages_asked
    }

    /// The lines, oldest first, each `TIMESTAMP text`: text that is not UTF-8 is replaced, and a
    /// line that was cut says so.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.dropped == 0 && self.is_full() {
            self.lines.pop_front();
        }
        while self.lines.len() > self.wanted {
            self.lines.pop_front();
        }
        self.lines.into_iter().map(Line::finish).collect()
    }
}

impl Line {
    fn finish(self) -> String {
        let start = self.raw.len() - after_timestamp(&self.raw).len();
        let longest = start + LONGEST_LINE;
        let cut = self.cut || self.raw.len() > longest;
        let mut raw = self.raw;
        if raw.len() > longest {
            raw.truncate(longest - unfinished(&raw[..longest]));
        }
        let mut line = match String::from_utf8(raw) {
            Ok(line) => line,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        if cut {
            line.push_str(CUT);
        }
        line
    }
}

/// What follows the timestamp and its space; all of it where there is none.
fn after_timestamp(message: &[u8]) -> &[u8] {
    let head = &message[..message.len().min(LONGEST_TIMESTAMP)];
    match head.iter().position(|byte| *byte == b' ') {
        Some(space) if head[..space].contains(&b'T') => &message[space + 1..],
        _ => message,
    }
}

/// How many bytes at the end begin a UTF-8 character without ending it.
fn unfinished(text: &[u8]) -> usize {
    let back = text.len().min(3);
    let end = &text[text.len() - back..];
    match end.iter().rposition(|byte| *byte >= 0xC0) {
        Some(start) => {
            let needed = match end[start] {
                0xF0.. => 4,
                0xE0.. => 3,
                _ => 2,
            };
            let have = back - start;
            if have < needed { have } else { 0 }
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{CUT, Channel, LONGEST_LINE, MOST_TEXT, Tail};

    const TS: &str = "2024-01-01T12:00:00.123456789Z";

    fn framed(wanted: usize, asked: usize, messages: &[(Channel, &str)]) -> Vec<String> {
        let mut tail = Tail::new(wanted, asked);
        for (channel, text) in messages {
            tail.push(*channel, format!("{TS} {text}").as_bytes());
        }
        tail.into_lines()
    }

    #[test]
    fn keeps_the_newest_whole_lines_in_order() {
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

    #[test]
    fn merges_fragments_by_channel_under_their_first_timestamp() {
        use Channel::{Stderr, Stdout};
        let lines = framed(
            5,
            6,
            &[
                (Stdout, "one "),
                (Stderr, "other\n"),
                (Stdout, "and "),
                (Stdout, "the same\n"),
                (Stdout, "unfinished"),
            ],
        );
        assert_eq!(
            lines,
            [
                format!("{TS} one and the same"),
                format!("{TS} other"),
                format!("{TS} unfinished"),
            ]
        );
    }

    #[test]
    fn the_oldest_line_goes_when_it_may_have_begun_before() {
        use Channel::Stdout;
        let lines = framed(
            5,
            3,
            &[
                (Stdout, "…end "),
                (Stdout, "of a long line\n"),
                (Stdout, "next\n"),
            ],
        );
        assert_eq!(lines, [format!("{TS} next")]);
    }

    #[test]
    fn asks_for_more_only_where_fragments_took_the_room() {
        use Channel::Stdout;
        let mut tail = Tail::new(2, 3);
        for text in ["a", "b", "c\n"] {
            tail.push(Stdout, format!("{TS} {text}").as_bytes());
        }
        assert!(tail.lacks_lines());
        let mut tail = Tail::new(2, 3);
        tail.push(Stdout, format!("{TS} a\n").as_bytes());
        assert!(!tail.lacks_lines());
    }

    #[test]
    fn cuts_a_long_line_between_characters_and_says_so() {
        let mut tail = Tail::new(1, 100);
        // 'é' takes two bytes; the line's 16 KiB end between them.
        let text = format!("x{}", "é".repeat(LONGEST_LINE));
        for fragment in text.as_bytes().chunks(1000) {
            let mut message = format!("{TS} ").into_bytes();
            message.extend_from_slice(fragment);
            tail.push(Channel::Stdout, &message);
        }
        let lines = tail.into_lines();
        let expected = format!("{TS} x{}{CUT}", "é".repeat(LONGEST_LINE / 2 - 1));
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_line_of_exactly_16_kib_is_not_cut() {
        let text = "y".repeat(LONGEST_LINE);
        let lines = framed(1, 3, &[(Channel::Stdout, &text), (Channel::Stdout, "\n")]);
        assert_eq!(lines, [format!("{TS} {text}")]);
    }

    #[test]
    fn a_console_comes_in_any_pieces() {
        let stream = format!("{TS} first\r\n{TS} se\rcond\r\n{TS} third, no end");
        for size in [1, 7, 1000] {
            let mut tail = Tail::new(5, 6);
            for piece in stream.as_bytes().chunks(size) {
                tail.push(Channel::Console, piece);
            }
            let lines = tail.into_lines();
            let expected = ["first", "se\rcond", "third, no end"];
            assert_eq!(lines, expected.map(|text| format!("{TS} {text}")));
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        let mut tail = Tail::new(1, 2);
        tail.push(Channel::Stdout, &[TS.as_bytes(), b" a\xff\0b\n"].concat());
        assert_eq!(tail.into_lines(), [format!("{TS} a\u{fffd}\0b")]);
    }

    #[test]
    fn text_is_bounded_however_many_lines_are_wanted() {
        let mut tail = Tail::new(10_000, 10_001);
        let text = "z".repeat(LONGEST_LINE - 1);
        for _ in 0..200 {
            tail.push(Channel::Stdout, format!("{TS} {text}\n").as_bytes());
        }
        assert!(tail.text <= MOST_TEXT);
        assert_eq!(
            tail.into_lines().len(),
            MOST_TEXT / (LONGEST_LINE + TS.len())
        );
    }
}
