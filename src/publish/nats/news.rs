//! Splits new events and log lines into batches. A batch is the content of one message.
//!
//! Also finds the log lines that no earlier run of the agent has published. To do this, compares the log lines with the newest
//! log line in the stream.

use std::ops::Range;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::model::ContainerEvent;

/// Tolerance for the difference between two timestamps. If a timestamp is later than expected by more than this time, the clock
/// was set back after it.
const CLOCK_TOLERANCE: Duration = Duration::seconds(60);

/// The content of one message. A batch has log lines of one container, or one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// The log lines with their line ends, oldest first, or one event as JSON.
    pub(super) text: String,
    /// Number of log lines or events in `text`.
    pub(super) count: u64,
    /// Number of log lines or events that were dropped before those in `text`.
    pub(super) dropped: u64,
}

/// Returns a batch for each event. `lost` is the number of dropped events before the first event.
pub(super) fn event_batches<'e>(
    events: impl Iterator<Item = &'e ContainerEvent>,
    lost: u64,
) -> impl Iterator<Item = Batch> {
    let mut dropped = lost;
    events.map(move |event| Batch {
        // All types of the model can be encoded as JSON.
        text: serde_json::to_string(event).unwrap_or_default(),
        count: 1,
        dropped: std::mem::take(&mut dropped),
    })
}

/// Splits the log lines of a container into batches of at most `longest` bytes. A longer log line has a batch of its own.
///
/// `dropped` is the number of dropped log lines before the first log line. If log lines were dropped and there are no new log
/// lines, returns one empty batch with the number of dropped log lines.
pub(super) fn line_batches(
    lines: impl Iterator<Item = String>,
    dropped: u64,
    longest: usize,
) -> Vec<Batch> {
    let begin = |dropped| Batch {
        text: String::new(),
        count: 0,
        dropped,
    };
    let mut batches = Vec::new();
    let mut batch = begin(dropped);
    for line in lines {
        if batch.count > 0 && batch.text.len() + line.len() + 1 > longest {
            batches.push(std::mem::replace(&mut batch, begin(0)));
        }
        batch.text.push_str(&line);
        batch.text.push('\n');
        batch.count += 1;
    }
    if batch.count > 0 || batch.dropped > 0 {
        batches.push(batch);
    }
    batches
}

/// Splits log lines at line ends into pieces of at most `longest` bytes. Returns the range of each piece and its number of log
/// lines. A longer log line has a piece of its own.
pub(super) fn pieces(text: &[u8], longest: usize) -> Vec<(Range<usize>, u64)> {
    let mut pieces: Vec<(Range<usize>, u64)> = Vec::new();
    let mut begin = 0;
    while begin < text.len() {
        let length =
            memchr::memchr(b'\n', &text[begin..]).map_or(text.len() - begin, |end| end + 1);
        let end = begin + length;
        match pieces.last_mut() {
            Some((piece, lines)) if end - piece.start <= longest => {
                piece.end = end;
                *lines += 1;
            }
            _ => pieces.push((begin..end, 1)),
        }
        begin = end;
    }
    pieces
}

/// Returns the last log line of a message, without the line feed. A carriage return is part of the log line.
pub(super) fn last_of(text: &str) -> Option<&str> {
    text.split_terminator('\n').next_back()
}

/// Returns the offset in `text`, in bytes, at which the unpublished log lines begin. `last` is the newest published log line.
///
/// If `text` contains `last`, the unpublished log lines begin after `last`. If `text` does not contain `last`, they begin with
/// the first log line that has a newer timestamp. Returns None if all log lines are older.
///
/// If timestamps have whole seconds, many log lines have the same timestamp. Some log lines of the second of `last` are then
/// possibly published twice, because a repeated log line is better than a missing log line.
pub(super) fn begin_after(text: &str, last: &str) -> Option<usize> {
    let (mut begin, mut same, mut newer) = (0, None, None);
    let then = moment(last);
    let whole_seconds = in_whole_seconds(last);
    let is_newer = |now, then| match whole_seconds {
        true => now >= then,
        false => now > then,
    };
    for line in text.split_inclusive('\n') {
        if is_same(line, last) && (same.is_none() || !whole_seconds) {
            same = Some(begin + line.len());
        }
        // A log line without a timestamp counts as newer, because a repeated log line is better than a missing log line.
        let newest = moment(line).is_none_or(|now| then.is_none_or(|then| is_newer(now, then)));
        if newer.is_none() && newest {
            newer = Some(begin);
        }
        begin += line.len();
    }
    same.or(newer)
}

/// Whether the clock was set back after the log line `last` was written.
///
/// The clock was set back if the timestamp of `last` is in the future, and `last` is in none of the texts. In that case, the
/// timestamp of `last` cannot show which log lines are older.
pub(super) fn is_from_before_set_back<'t>(
    last: &str,
    now: OffsetDateTime,
    mut texts: impl Iterator<Item = &'t str>,
) -> bool {
    moment(last).is_some_and(|then| then > now + CLOCK_TOLERANCE)
        && !texts.any(|text| text.split_inclusive('\n').any(|line| is_same(line, last)))
}

/// Returns the offset in `text`, in bytes, of the first log line that was written after the clock was set back. The timestamp of
/// this log line is much older than the previous timestamp. Returns 0 if there is no such log line.
pub(super) fn begin_after_set_back(text: &str) -> usize {
    let (mut begin, mut before) = (0, None);
    for line in text.split_inclusive('\n') {
        let now = moment(line);
        if now
            .zip(before)
            .is_some_and(|(now, before)| now + CLOCK_TOLERANCE < before)
        {
            return begin;
        }
        before = now.or(before);
        begin += line.len();
    }
    0
}

fn is_same(line: &str, last: &str) -> bool {
    line.trim_end_matches('\n') == last
}

fn in_whole_seconds(line: &str) -> bool {
    line.split(' ').next().is_some_and(|it| !it.contains('.'))
}

/// Returns the time at which a log line was written. Returns None if the log line does not begin with a timestamp.
fn moment(line: &str) -> Option<OffsetDateTime> {
    let (timestamp, _) = line.split_once(' ')?;
    OffsetDateTime::parse(timestamp, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use std::time::SystemTime;

    use super::{
        Batch, begin_after, begin_after_set_back, event_batches, is_from_before_set_back, last_of,
        line_batches, pieces,
    };
    use crate::model::{ContainerEvent, EventAction, Timestamp};

    fn batch(text: &str, count: u64, dropped: u64) -> Batch {
        Batch {
            text: text.to_owned(),
            count,
            dropped,
        }
    }

    fn event(action: EventAction) -> ContainerEvent {
        ContainerEvent {
            time: Timestamp(SystemTime::UNIX_EPOCH),
            action,
            container: "a\"b".to_owned(),
            id: "0123456789ab".to_owned(),
            image: "nginx".to_owned(),
            exit_code: None,
            health: None,
            renamed_from: None,
        }
    }

    #[test]
    fn each_event_has_its_own_batch_and_the_first_batch_counts_the_dropped_events() {
        let events = [EventAction::Start, EventAction::Die].map(event);
        let batches: Vec<_> = event_batches(events.iter(), 3).collect();
        let text = |action| {
            format!(
                r#"{{"time":"1970-01-01T00:00:00.000Z","action":"{action}","container":"a\"b","id":"0123456789ab","image":"nginx"}}"#
            )
        };
        let expected = [batch(&text("start"), 1, 3), batch(&text("die"), 1, 0)];
        assert_eq!(batches, expected);
    }

    #[test]
    fn a_batch_has_as_much_text_as_the_limit_allows() {
        let lines = |lines: &[&str], dropped, longest| {
            let lines: Vec<_> = lines.iter().map(|&line| line.to_owned()).collect();
            line_batches(lines.into_iter(), dropped, longest)
        };
        let expected = [
            batch("12345\n1\n", 2, 9),
            batch("123456789\n", 1, 0),
            batch("1\n2\n", 2, 0),
        ];
        assert_eq!(
            lines(&["12345", "1", "123456789", "1", "2"], 9, 8),
            expected
        );
        assert_eq!(
            lines(&["t1 ä\"\n", "t2"], 0, 1000),
            [batch("t1 ä\"\n\nt2\n", 2, 0)]
        );
        assert_eq!(lines(&[], 7, 8), [batch("", 0, 7)]);
        assert_eq!(lines(&[], 0, 8), []);
    }

    #[test]
    fn log_lines_after_the_last_published_log_line_are_found() {
        let text = "2026-01-01T00:00:00.1Z a\n2026-01-01T00:00:00.12Z b\n2026-01-01T00:00:00.12Z b\n2026-01-01T00:00:01Z c\n";
        let after = |last| &text[begin_after(text, last).unwrap_or(text.len())..];
        assert_eq!(after("2026-01-01T00:00:01Z c"), "");
        assert_eq!(
            after("2026-01-01T00:00:00.12Z b"),
            "2026-01-01T00:00:01Z c\n"
        );
        assert_eq!(after("2026-01-01T00:00:00.1Z a"), &text[25..]);
        // The newest published log line is no longer in the log. The timestamp `.1` is older than `.11`.
        assert_eq!(after("2026-01-01T00:00:00.11Z gone"), &text[25..]);
        assert_eq!(
            after("2026-01-01T00:00:00.12Z other"),
            "2026-01-01T00:00:01Z c\n"
        );
        assert_eq!(after("2025-12-31T00:00:00Z old"), text);
        // In this text, the timestamps have whole seconds.
        let text = "2026-01-01T00:00:00Z a\n2026-01-01T00:00:01Z b\n2026-01-01T00:00:01Z b\n2026-01-01T00:00:02Z c\n";
        let after = |last| &text[begin_after(text, last).unwrap_or(text.len())..];
        assert_eq!(after("2026-01-01T00:00:01Z b"), &text[46..]);
        assert_eq!(after("2026-01-01T00:00:01Z gone"), &text[23..]);
        assert_eq!(after("2026-01-01T00:00:02Z c"), "");
    }

    #[test]
    fn if_the_last_published_log_line_is_gone_all_newer_log_lines_are_new() {
        let text = "2026-01-01T00:00:00.1Z a\n2026-01-01T00:00:01Z c\n";
        let after = |last| &text[begin_after(text, last).unwrap_or(text.len())..];
        assert_eq!(after("2026-01-02T00:00:00Z later"), "");
        assert_eq!(after("not a line"), text);
        assert_eq!(
            begin_after(text, "2026-01-01T00:00:01Z c"),
            Some(text.len())
        );
        assert_eq!(begin_after(text, "2026-01-02T00:00:00Z later"), None);
        assert_eq!(begin_after("", "2026-01-01T00:00:00Z a"), None);
    }

    #[test]
    fn the_last_log_line_is_found_with_or_without_a_carriage_return() {
        let text = "2026-01-01T00:00:00Z a\n2026-01-01T00:00:01Z b\r\n2026-01-01T00:00:01Z c\n";
        for published in [1, 2, 3] {
            let until = text.match_indices('\n').nth(published - 1).unwrap().0 + 1;
            let last = last_of(&text[..until]).unwrap();
            assert_eq!(begin_after(text, last), Some(until), "{last:?}");
        }
        assert_eq!(last_of(""), None);
    }

    #[test]
    fn a_published_log_line_is_recognized_as_older_than_a_clock_that_was_set_back() {
        let now = |text| OffsetDateTime::parse(text, &Rfc3339).unwrap();
        let last = "2026-01-01T14:00:00Z last";
        let texts = ["2026-01-01T12:00:00.1Z a\n", "2026-01-01T12:00:01.1Z b\n"];
        let later =
            |now, texts: &[&'static str]| is_from_before_set_back(last, now, texts.iter().copied());
        let noon = now("2026-01-01T12:01:00Z");
        assert!(later(noon, &texts));
        // The clock was not set back if the difference is within the tolerance, or if the log line is still in the log.
        assert!(!later(now("2026-01-01T13:59:30Z"), &texts));
        assert!(!later(
            noon,
            &[
                texts[0],
                "2026-01-01T14:00:00Z last\n2026-01-01T12:00:00Z a\n"
            ]
        ));
        assert_eq!(begin_after_set_back(texts[0]), 0);
        let text =
            "2026-01-01T13:59:00.1Z old\n2026-01-01T12:00:00.1Z a\n2026-01-01T12:00:01.1Z b\n";
        assert_eq!(&text[begin_after_set_back(text)..], &text[27..]);
        assert_eq!(begin_after_set_back(""), 0);
    }

    proptest! {
        #[test]
        fn the_pieces_in_order_are_the_whole_text(lines in prop::collection::vec("[^\n]{0,30}", 0..20), longest in 1_usize..60) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let pieces = pieces(text.as_bytes(), longest);
            let whole: String = pieces.iter().map(|(piece, _)| &text[piece.clone()]).collect();
            prop_assert_eq!(&whole, &text);
            prop_assert_eq!(pieces.iter().map(|(_, lines)| lines).sum::<u64>(), lines.len() as u64);
            for (piece, lines) in pieces {
                prop_assert!(piece.len() <= longest || lines == 1);
                prop_assert!(text[piece].ends_with('\n'));
            }
        }
    }

    #[test]
    fn fuzz_log_lines_that_were_already_published() {
        let seeds: [&[u8]; 1] = [b"2026-01-01T00:00:00.1Z a\n2026-01-01T00:00:01Z b\n"];
        crate::fuzzing::run("nats-lines", &seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let begin = begin_after(&text, "2026-01-01T00:00:00Z a");
            assert!(begin.is_none_or(|begin| text.is_char_boundary(begin)));
        });
    }
}
