//! The newest lines of one container, put together from the engine's messages.
//!
//! The engine cuts lines into messages of 16 KiB, each with a timestamp. Only the last one of a
//! line ends with a line feed, and not even that one where the text had none or where the engine
//! forgets it (20.10 does, with the `local` driver); but only it is shorter than 16 KiB. Messages
//! of a container without a TTY come one by one; those of a TTY come as one stream without seams.

use std::collections::VecDeque;
use std::sync::Arc;

use super::line::{LONGEST_LINE, LONGEST_TIMESTAMP, Line, MOST_OF_A_LINE, after_timestamp};
use crate::model::EncodedLines;
use crate::settings::Redaction;

/// The most text kept of one container, in bytes: the newest lines that fit.
const MOST_TEXT: usize = 1024 * 1024;
/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// Standard output, message by message.
    Stdout,
    /// Standard error, message by message.
    Stderr,
    /// The output of a TTY, message by message.
    Terminal,
    /// The output of a TTY as one stream, in pieces that need not be lines.
    Console,
}

/// The newest lines that were pushed.
#[derive(Debug)]
pub(super) struct TailLines {
    /// How many lines are wanted.
    wanted: usize,
    /// How many messages were asked for.
    messages_asked: usize,
    messages: usize,
    /// The lines as they were shown last.
    shown: Arc<EncodedLines>,
    /// Of the lines shown, from this one on, those that are still there and settled: how much text
    /// each of them is. They are kept as they were encoded, and not as they came.
    first_settled: usize,
    settled: VecDeque<u32>,
    /// The lines after those. In all one more than wanted, until it is known whether the oldest is
    /// whole.
    lines: VecDeque<Line>,
    text: usize,
    /// The number of lines that have left at the front.
    dropped: usize,
    /// By channel, the number of the line that waits for its end, counting from the first.
    open: [Option<usize>; 4],
    /// Whether a line came in more than one message.
    fragments: bool,
    /// What is taken out of lines before they are shown.
    redaction: Redaction,
}

impl TailLines {
    /// For the newest `wanted` lines out of the newest `messages_asked` messages.
    pub(super) fn new(wanted: usize, messages_asked: usize) -> Self {
        Self {
            wanted,
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

    /// As one that shows its lines without what is taken out of them.
    pub(super) fn redacting(self, redaction: &Redaction) -> Self {
        Self {
            redaction: redaction.clone(),
            ..self
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
        let console = channel == Channel::Console;
        let (text, fed) = match piece {
            [text @ .., b'\n'] => (text, true),
            text => (text, false),
        };
        let ended = fed || (!console && after_timestamp(text).len() < LONGEST_LINE);
        let number = match self.open[channel as usize].take() {
            Some(number) => {
                // A later message of the same line repeats the timestamp.
                let text = if console { text } else { after_timestamp(text) };
                self.messages += usize::from(!console);
                self.fragments |= !console;
                self.extend(number, text);
                number
            }
            None => {
                self.messages += 1;
                let number = self.count();
                self.lines.push_back(Line {
                    terminal: console || channel == Channel::Terminal,
                    console,
                    ..Line::default()
                });
                self.extend(number, text);
                number
            }
        };
        if !ended {
            self.open[channel as usize] = Some(number);
        }
        self.evict();
    }

    fn extend(&mut self, number: usize, text: &[u8]) {
        // A line that has left already takes its end with it.
        let Some(line) = self.line(number) else {
            return;
        };
        let room = MOST_OF_A_LINE - line.raw.len();
        let taken = text.len().min(room);
        line.raw.extend_from_slice(&text[..taken]);
        line.cut |= taken < text.len();
        let long = line.raw.len() > LONGEST_LINE + LONGEST_TIMESTAMP;
        self.fragments |= long;
        self.text += taken;
    }

    /// A line by its number; none where it has left already, or is settled.
    fn line(&mut self, number: usize) -> Option<&mut Line> {
        let index = number.checked_sub(self.dropped + self.settled.len())?;
        self.lines.get_mut(index)
    }

    fn len(&self) -> usize {
        self.settled.len() + self.lines.len()
    }

    fn evict(&mut self) {
        while self.len() > self.wanted + 1 || (self.text > MOST_TEXT && self.len() > 1) {
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

    /// As a tail to which all further messages will be pushed: what it begins with is settled. Where all that there is belongs
    /// to one line that is cut, it is shown although its beginning is out of reach.
    pub(super) fn continued(mut self) -> Self {
        if self.headless() > 0 {
            let alone = self.count() == 1;
            match self.lines.front_mut() {
                Some(line) if line.cut && alone => line.headless = true,
                _ => self.drop_first(),
            }
        }
        self.messages_asked = usize::MAX;
        self
    }

    /// Leaves out so many lines: what was there before them is gone as well.
    pub(super) fn skip(&mut self, lines: usize) {
        self.dropped += self.len() + lines;
        self.settled.clear();
        self.lines.clear();
        self.text = 0;
        self.open = [None; 4];
    }

    /// How many lines there have been.
    pub(super) fn count(&self) -> usize {
        self.dropped + self.len()
    }

    /// How many lines at the end wait for their own end, or for that of one before them. One that was
    /// cut waits for nothing: no more of it will be shown.
    pub(super) fn unfinished(&self) -> usize {
        let waits = |number: &&usize| {
            let index = number.checked_sub(self.dropped + self.settled.len());
            let line = index.and_then(|index| self.lines.get(index));
            line.is_some_and(|line| !line.cut)
        };
        let first = self.open.iter().flatten().filter(waits).min();
        let unfinished = first.map_or(0, |first| self.count() - first);
        unfinished.min(self.lines.len())
    }

    /// Whether a longer tail would yield more lines: fragments took the room of lines. Those of a
    /// console cannot be counted.
    pub(super) fn lacks_lines(&self) -> bool {
        let whole = self.count() - usize::from(self.is_full());
        let console = self.lines.iter().any(|line| line.console);
        self.fragments && whole < self.wanted && (self.is_full() || console)
    }

    /// Whether there may be older messages, so that the oldest may be the end of a line only.
    fn is_full(&self) -> bool {
        self.messages >= self.messages_asked
    }

    /// How many lines at the front, one or none, may lack their beginning.
    pub(super) fn headless(&self) -> usize {
        usize::from(self.dropped == 0 && self.is_full())
    }

    /// The lines, oldest first, each `TIMESTAMP text`: text that is not UTF-8 is replaced, and a
    /// line that was cut says so. Those that wait for nothing are settled.
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
            .map(|(place, line)| line.finished(&self.redaction, !waits(place)))
            .collect();
        self.shown = Arc::new(EncodedLines::following(
            &self.shown,
            kept,
            &lines,
            unfinished,
        ));
        let settled = self.lines.drain(..self.lines.len() - unfinished);
        // Never more than MOST_OF_A_LINE.
        self.settled
            .extend(settled.map(|line| line.raw.len() as u32));
        self.first_settled = 0;
        Arc::clone(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, LONGEST_LINE, MOST_TEXT, TailLines};
    use crate::collect::logs::line::CUT;

    const TS: &str = "2024-01-01T12:00:00.123456789Z";

    #[test]
    fn lines_after_an_unfinished_one_wait_for_it() {
        let mut tail = TailLines::new(3, usize::MAX);
        let mut push = |channel, text: &str| {
            tail.push(channel, format!("{TS} {text}").as_bytes());
            (tail.count(), tail.unfinished())
        };
        assert_eq!(push(Channel::Stdout, "a\n"), (1, 0));
        assert_eq!(push(Channel::Stdout, &"x".repeat(LONGEST_LINE)), (2, 1));
        assert_eq!(push(Channel::Stderr, "b\n"), (3, 2));
        assert_eq!(push(Channel::Stdout, &"x".repeat(LONGEST_LINE)), (3, 0));
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

    /// A fragment as the engine makes them.
    fn fragment(with: char) -> String {
        with.to_string().repeat(LONGEST_LINE)
    }

    #[test]
    fn merges_fragments_by_channel_under_their_first_timestamp() {
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
                format!("{TS} {long}{CUT}"),
                format!("{TS} other"),
                format!("{TS} without end"),
                format!("{TS} another"),
                format!("{TS} {long}"),
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
                (Stdout, &fragment('x')),
                (Stdout, "of a long line\n"),
                (Stdout, "next\n"),
            ],
        );
        assert_eq!(lines, [format!("{TS} next")]);
    }

    #[test]
    fn asks_for_more_only_where_fragments_took_the_room() {
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
    fn a_consoles_fragments_have_their_timestamps_in_between() {
        let long = fragment('x');
        for (end, expected) in [
            (format!("{TS} \r\n"), format!("{TS} {long}")),
            ("\r\n".to_owned(), format!("{TS} {long}")),
            (format!("{TS} y\r\n"), format!("{TS} {long}{CUT}")),
            (
                format!("{TS} {long}{TS} y\r\n"),
                format!("{TS} {long}{CUT}"),
            ),
        ] {
            let mut tail = TailLines::new(1, 2);
            tail.push(Channel::Console, format!("{TS} {long}{end}").as_bytes());
            assert_eq!(shown(&mut tail), [expected]);
        }
    }

    #[test]
    fn cuts_a_long_line_between_characters_and_says_so() {
        let mut tail = TailLines::new(1, 100);
        // 'é' takes two bytes; the line's 16 KiB end between them.
        let text = format!("x{}", "é".repeat(LONGEST_LINE));
        for fragment in text.as_bytes().chunks(LONGEST_LINE) {
            let mut message = format!("{TS} ").into_bytes();
            message.extend_from_slice(fragment);
            tail.push(Channel::Stdout, &message);
        }
        let lines = shown(&mut tail);
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
    fn bytes_that_are_not_utf_8_are_replaced() {
        let mut tail = TailLines::new(1, 2);
        tail.push(Channel::Stdout, &[TS.as_bytes(), b" a\xff\0b\n"].concat());
        assert_eq!(shown(&mut tail), [format!("{TS} a\u{fffd}\0b")]);
    }

    #[test]
    fn text_is_bounded_however_many_lines_are_wanted() {
        let mut tail = TailLines::new(10_000, 10_001);
        let text = "z".repeat(LONGEST_LINE - 1);
        for _ in 0..200 {
            tail.push(Channel::Stdout, format!("{TS} {text}\n").as_bytes());
        }
        assert!(tail.text <= MOST_TEXT);
        assert_eq!(
            shown(&mut tail).len(),
            MOST_TEXT / (LONGEST_LINE + TS.len())
        );
    }

    #[test]
    fn what_is_shown_does_not_depend_on_how_often() {
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
