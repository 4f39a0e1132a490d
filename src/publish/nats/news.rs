//! Events and new log lines, cut into what is published at once.

use std::ops::Range;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::model::ContainerEvent;

/// Clocks of two hosts may differ by this much without one of them having been set back.
const SET_BACK: Duration = Duration::seconds(60);

/// What is to be published of a container's log, or of the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Lines with their ends, oldest first; or one event.
    pub(super) text: String,
    /// How many that is.
    pub(super) count: u64,
    /// How many before these are lost.
    pub(super) dropped: u64,
}

/// The events, each by itself; of which `lost` before them are no longer kept.
pub(super) fn event_batches<'e>(
    events: impl Iterator<Item = &'e ContainerEvent>,
    lost: u64,
) -> impl Iterator<Item = Batch> {
    let mut dropped = lost;
    events.map(move |event| Batch {
        // The model's types can all be said in JSON.
        text: serde_json::to_string(event).unwrap_or_default(),
        count: 1,
        dropped: std::mem::take(&mut dropped),
    })
}

/// The log lines of a container, in as many batches as none is longer than `longest` unless a single line is. Where lines are
/// lost and none are there it is an empty one.
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

/// Where a text is cut into pieces that are no longer than `longest`, at line ends, and how many lines each has. A line that is
/// longer stands alone.
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

/// The last of a message's lines. A carriage return is a part of what the container wrote.
pub(super) fn last_of(text: &str) -> Option<&str> {
    text.split_terminator('\n').next_back()
}

/// Where in `text`, lines of a log, those begin that come after `last`, one that was published before: behind the same line, or,
/// where that is gone, at the first that is newer. None where all of them are older. Where timestamps have whole seconds, many
/// lines have the same: those of that second are rather said twice than never.
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
        // A line without a timestamp is rather said twice than never.
        let newest = moment(line).is_none_or(|now| then.is_none_or(|then| is_newer(now, then)));
        if newer.is_none() && newest {
            newer = Some(begin);
        }
        begin += line.len();
    }
    same.or(newer)
}

/// Whether a line that was published before is of no use for telling what is older: it is not in any of these texts, and it was
/// written later than it is now, so that the clock was set back since.
pub(super) fn is_of_a_later_time<'t>(
    last: &str,
    now: OffsetDateTime,
    mut texts: impl Iterator<Item = &'t str>,
) -> bool {
    moment(last).is_some_and(|then| then > now + SET_BACK)
        && !texts.any(|text| text.split_inclusive('\n').any(|line| is_same(line, last)))
}

/// Where in a log those lines begin that were written after the clock was set back: all of them, where it was before.
pub(super) fn begin_after_setting_back(text: &str) -> usize {
    let (mut begin, mut before) = (0, None);
    for line in text.split_inclusive('\n') {
        let now = moment(line);
        if now
            .zip(before)
            .is_some_and(|(now, before)| now + SET_BACK < before)
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

/// When a line was written.
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
        Batch, begin_after, begin_after_setting_back, event_batches, is_of_a_later_time, last_of,
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
    fn each_event_stands_alone_and_the_first_says_how_many_were_lost() {
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
    fn batches_are_as_long_as_they_may_be() {
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
    fn what_was_published_before_is_found() {
        let text = "2026-01-01T00:00:00.1Z a\n2026-01-01T00:00:00.12Z b\n2026-01-01T00:00:00.12Z b\n2026-01-01T00:00:01Z c\n";
        let after = |last| &text[begin_after(text, last).unwrap_or(text.len())..];
        assert_eq!(after("2026-01-01T00:00:01Z c"), "");
        assert_eq!(
            after("2026-01-01T00:00:00.12Z b"),
            "2026-01-01T00:00:01Z c\n"
        );
        assert_eq!(after("2026-01-01T00:00:00.1Z a"), &text[25..]);
        // Gone from the log: `.1` is older than `.11`, though not as text.
        assert_eq!(after("2026-01-01T00:00:00.11Z gone"), &text[25..]);
        assert_eq!(
            after("2026-01-01T00:00:00.12Z other"),
            "2026-01-01T00:00:01Z c\n"
        );
        assert_eq!(after("2025-12-31T00:00:00Z old"), text);
        // Whole seconds.
        let text = "2026-01-01T00:00:00Z a\n2026-01-01T00:00:01Z b\n2026-01-01T00:00:01Z b\n2026-01-01T00:00:02Z c\n";
        let after = |last| &text[begin_after(text, last).unwrap_or(text.len())..];
        assert_eq!(after("2026-01-01T00:00:01Z b"), &text[46..]);
        assert_eq!(after("2026-01-01T00:00:01Z gone"), &text[23..]);
        assert_eq!(after("2026-01-01T00:00:02Z c"), "");
    }

    #[test]
    fn where_nothing_was_published_before_all_of_it_begins_or_nothing() {
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
    fn the_last_line_is_found_again_whatever_it_ends_with() {
        let text = "2026-01-01T00:00:00Z a\n2026-01-01T00:00:01Z b\r\n2026-01-01T00:00:01Z c\n";
        for published in [1, 2, 3] {
            let until = text.match_indices('\n').nth(published - 1).unwrap().0 + 1;
            let last = last_of(&text[..until]).unwrap();
            assert_eq!(begin_after(text, last), Some(until), "{last:?}");
        }
        assert_eq!(last_of(""), None);
    }

    #[test]
    fn a_line_from_before_the_clock_was_set_back_tells_nothing_of_what_is_older() {
        let now = |text| OffsetDateTime::parse(text, &Rfc3339).unwrap();
        let last = "2026-01-01T14:00:00Z last";
        let texts = ["2026-01-01T12:00:00.1Z a\n", "2026-01-01T12:00:01.1Z b\n"];
        let later =
            |now, texts: &[&'static str]| is_of_a_later_time(last, now, texts.iter().copied());
        let noon = now("2026-01-01T12:01:00Z");
        assert!(later(noon, &texts));
        // Another host's clock, or the line is still there.
        assert!(!later(now("2026-01-01T13:59:30Z"), &texts));
        assert!(!later(
            noon,
            &[
                texts[0],
                "2026-01-01T14:00:00Z last\n2026-01-01T12:00:00Z a\n"
            ]
        ));
        assert_eq!(begin_after_setting_back(texts[0]), 0);
        let text =
            "2026-01-01T13:59:00.1Z old\n2026-01-01T12:00:00.1Z a\n2026-01-01T12:00:01.1Z b\n";
        assert_eq!(&text[begin_after_setting_back(text)..], &text[27..]);
        assert_eq!(begin_after_setting_back(""), 0);
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_in_order(lines in prop::collection::vec("[^\n]{0,30}", 0..20), longest in 1_usize..60) {
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
    fn fuzz_lines_published_before() {
        let seeds: [&[u8]; 1] = [b"2026-01-01T00:00:00.1Z a\n2026-01-01T00:00:01Z b\n"];
        crate::fuzzing::run("nats-lines", &seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let begin = begin_after(&text, "2026-01-01T00:00:00Z a");
            assert!(begin.is_none_or(|begin| text.is_char_boundary(begin)));
        });
    }
}
