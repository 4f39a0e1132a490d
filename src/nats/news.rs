//! A snapshot of events and new log lines, taken apart: what is published of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// Clocks of two hosts may differ by this much without one of them having been set back.
const SET_BACK: Duration = Duration::seconds(60);

/// What a snapshot tells of events and logs.
#[derive(Debug, Deserialize)]
pub(super) struct News<'s> {
    #[serde(borrow)]
    events: Vec<&'s RawValue>,
    #[serde(default)]
    events_dropped: u64,
    #[serde(borrow)]
    logs: BTreeMap<Text<'s>, Vec<Text<'s>>>,
    #[serde(borrow, default)]
    logs_dropped: BTreeMap<Text<'s>, u64>,
}

/// Borrowed where nothing in it is escaped.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Text<'s>(#[serde(borrow)] Cow<'s, str>);

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

impl<'s> News<'s> {
    /// Takes a snapshot apart that has the sections `events` and `logs`.
    ///
    /// # Errors
    /// Where it is no such snapshot.
    pub(super) fn of(snapshot: &'s [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(snapshot)
    }

    /// The events, each by itself.
    pub(super) fn events(&self) -> impl Iterator<Item = Batch> {
        let mut dropped = self.events_dropped;
        self.events.iter().map(move |event| Batch {
            text: event.get().to_owned(),
            count: 1,
            dropped: std::mem::take(&mut dropped),
        })
    }

    /// How many events are lost after which there are none.
    pub(super) fn events_lost(&self) -> u64 {
        match self.events.is_empty() {
            true => self.events_dropped,
            false => 0,
        }
    }

    /// The log lines by container, in as many batches as none is longer than `longest` unless a single line is. A container of
    /// which lines are lost, and none are there, has an empty one.
    pub(super) fn logs(&self, longest: usize) -> impl Iterator<Item = (&str, Batch)> {
        let names: BTreeSet<_> = self.logs.keys().chain(self.logs_dropped.keys()).collect();
        names.into_iter().flat_map(move |name| {
            let lines = self.logs.get(name).map(Vec::as_slice).unwrap_or_default();
            let dropped = self.logs_dropped.get(name).copied().unwrap_or_default();
            let batches = batches(lines, dropped, longest);
            batches.into_iter().map(move |batch| (&*name.0, batch))
        })
    }
}

fn batches(lines: &[Text<'_>], dropped: u64, longest: usize) -> Vec<Batch> {
    let begin = |dropped| Batch {
        text: String::new(),
        count: 0,
        dropped,
    };
    let mut batches = Vec::new();
    let mut batch = begin(dropped);
    for Text(line) in lines {
        if batch.count > 0 && batch.text.len() + line.len() + 1 > longest {
            batches.push(std::mem::replace(&mut batch, begin(0)));
        }
        batch.text.push_str(line);
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

    use super::{
        Batch, News, begin_after, begin_after_setting_back, is_of_a_later_time, last_of, pieces,
    };

    fn batch(text: &str, count: u64, dropped: u64) -> Batch {
        Batch {
            text: text.to_owned(),
            count,
            dropped,
        }
    }

    const SNAPSHOT: &str = r#"{"timestamp":"2026-01-01T12:00:00.000Z","logs":{"db":["t1 ä\"\n","t2 two"],"web":["t3 x"]},
        "logs_dropped":{"gone":7,"web":2},"events":[{"action":"start","container":"a\"b"},{"action":"die"}],"events_dropped":3,
        "sources":{},"agent":{"skipped":0}}"#;

    #[test]
    fn events_and_lines_are_found_with_what_is_lost() {
        let news = News::of(SNAPSHOT.as_bytes()).unwrap();
        let events: Vec<_> = news.events().collect();
        let first = r#"{"action":"start","container":"a\"b"}"#;
        assert_eq!(
            events,
            [batch(first, 1, 3), batch(r#"{"action":"die"}"#, 1, 0)]
        );
        assert_eq!(news.events_lost(), 0);
        let logs: Vec<_> = news.logs(1000).collect();
        let expected = [
            ("db", batch("t1 ä\"\n\nt2 two\n", 2, 0)),
            ("gone", batch("", 0, 7)),
            ("web", batch("t3 x\n", 1, 2)),
        ];
        assert_eq!(logs, expected);
    }

    #[test]
    fn batches_are_as_long_as_they_may_be() {
        let news = r#"{"events":[],"events_dropped":4,"logs":{"a":["12345","1","123456789","1","2"]},"logs_dropped":{"a":9}}"#;
        let news = News::of(news.as_bytes()).unwrap();
        assert_eq!((news.events().count(), news.events_lost()), (0, 4));
        let logs: Vec<_> = news.logs(8).map(|(_, batch)| batch).collect();
        let expected = [
            batch("12345\n1\n", 2, 9),
            batch("123456789\n", 1, 0),
            batch("1\n2\n", 2, 0),
        ];
        assert_eq!(logs, expected);
    }

    #[test]
    fn what_is_no_such_snapshot_is_refused() {
        for text in ["", "{}", "[]", r#"{"events":{},"logs":{}}"#] {
            assert!(News::of(text.as_bytes()).is_err(), "{text}");
        }
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
    fn fuzz_news() {
        crate::fuzzing::run("nats-news", &[SNAPSHOT.as_bytes()], |bytes| {
            if let Ok(news) = News::of(bytes) {
                let lines: u64 = news.logs(64).map(|(_, batch)| batch.count).sum();
                let text: usize = news.logs(64).map(|(_, batch)| batch.text.len()).sum();
                assert!(lines <= text as u64 && text <= bytes.len() * 3);
                news.events().for_each(drop);
            }
            let text = String::from_utf8_lossy(bytes);
            let begin = begin_after(&text, "2026-01-01T00:00:00Z a");
            assert!(begin.is_none_or(|begin| text.is_char_boundary(begin)));
        });
    }
}
