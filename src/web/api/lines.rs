//! Log lines as the page shows them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::feeds::text::plain;
use crate::hash::fnv;
use crate::model::{CUT_LINE, time_of};
use crate::web::millis;

/// Limit on the text of a line, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// The length of the beginning of a line in which its level is looked for, in bytes.
const LEVEL_WITHIN: usize = 256;

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LogLine {
    /// The same line always has the same id.
    pub(super) id: String,
    pub(super) at: i64,
    /// The exact time, by which lines are sorted.
    #[serde(skip)]
    pub(super) time: SystemTime,
    pub(super) container: String,
    /// The protocol of agents does not tell whether a line is from stdout or stderr.
    pub(super) stream: Option<&'static str>,
    pub(super) level: Option<Level>,
    pub(super) text: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cut: bool,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl LogLine {
    /// Reads a line of an agent, `TIMESTAMP text`. Removes escape sequences and other control characters.
    pub(super) fn of(container: &str, line: &str) -> Self {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        let (exact, text) = match time_of(time) {
            Some(exact) => (exact, text),
            None => (UNIX_EPOCH, line),
        };
        let (text, was_cut) = match text.strip_suffix(CUT_LINE) {
            Some(text) => (text, true),
            None => (text, false),
        };
        let id = format!("{container}:{time}:{:08x}", fnv(text.as_bytes()));
        let mut plain = plain(text);
        let is_long = plain.len() > MAX_TEXT;
        plain.truncate(plain.floor_char_boundary(MAX_TEXT));
        Self {
            id,
            at: millis(exact),
            time: exact,
            container: container.to_owned(),
            stream: None,
            level: level_of(&plain),
            text: plain,
            cut: was_cut || is_long,
        }
    }
}

/// Finds the level of a line: the field of a line in JSON, the field `level=` of logfmt, or a word in capitals or in brackets.
fn level_of(text: &str) -> Option<Level> {
    let start = text.get(..text.floor_char_boundary(LEVEL_WITHIN))?;
    if text.starts_with('{') {
        return level_in_json(text);
    }
    let lower = start.to_ascii_lowercase();
    for name in ["level=", "lvl=", "severity="] {
        if let Some((_, value)) = lower.split_once(name) {
            let value = value.trim_start_matches('"');
            let word = value.split(|one: char| !one.is_ascii_alphabetic()).next();
            return word.and_then(level_named);
        }
    }
    let mut before = ' ';
    let mut rest = start;
    while let Some(from) = rest.find(|one: char| one.is_ascii_alphabetic()) {
        if from > 0 {
            before = rest[..from].chars().next_back().unwrap_or(' ');
        }
        let word = &rest[from..];
        let length = word.find(|one: char| !one.is_ascii_alphanumeric() && one != '_');
        let (word, after) = word.split_at(length.unwrap_or(word.len()));
        let is_upper = word.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_bracketed = before == '[' && after.starts_with(']');
        let is_first = word.len() + 1 < rest.len() && after.starts_with(':');
        if is_upper || is_bracketed || is_first {
            let level = level_named(&word.to_ascii_lowercase());
            if level.is_some() {
                return level;
            }
        }
        before = word.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    None
}

fn level_in_json(text: &str) -> Option<Level> {
    #[derive(serde::Deserialize)]
    struct Fields {
        #[serde(
            alias = "severity",
            alias = "lvl",
            alias = "log.level",
            alias = "levelname"
        )]
        level: serde_json::Value,
    }
    let fields: Fields = serde_json::from_str(text).ok()?;
    match fields.level {
        serde_json::Value::String(level) => level_named(&level.to_ascii_lowercase()),
        // The levels of bunyan and pino.
        serde_json::Value::Number(level) => match level.as_u64()? {
            50.. => Some(Level::Error),
            40..50 => Some(Level::Warn),
            30..40 => Some(Level::Info),
            10..30 => Some(Level::Debug),
            _ => None,
        },
        _ => None,
    }
}

fn level_named(word: &str) -> Option<Level> {
    match word {
        "error" | "err" | "fatal" | "panic" | "critical" | "crit" | "emerg" | "alert"
        | "severe" => Some(Level::Error),
        "warn" | "warning" => Some(Level::Warn),
        "info" | "notice" | "information" => Some(Level::Info),
        "debug" | "trace" | "verbose" => Some(Level::Debug),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Level, LogLine, level_of};
    use crate::model::CUT_LINE;

    #[test]
    fn a_line_has_a_time_and_a_stable_id() {
        let line = "2026-01-02T03:04:05.123456789Z GET /";
        let one = LogLine::of("web", line);
        assert_eq!((one.at, one.text.as_str()), (1_767_323_045_123, "GET /"));
        assert_eq!(one, LogLine::of("web", line));
        let other = LogLine::of("web", "2026-01-02T03:04:05.123456789Z GET /a");
        assert_ne!(one.id, other.id);
        assert!(!one.cut);
        let cut = LogLine::of("web", &format!("2026-01-02T03:04:05Z x{CUT_LINE}"));
        assert_eq!((cut.text.as_str(), cut.cut), ("x", true));
    }

    #[test]
    fn levels_are_found() {
        for (text, level) in [
            ("ERROR cannot connect", Some(Level::Error)),
            ("2026-01-02 03:04:05 [error] 7#7: no", Some(Level::Error)),
            ("[main] WARN com.example - slow", Some(Level::Warn)),
            ("warning: unused", Some(Level::Warn)),
            ("time=x level=debug msg=\"error\"", Some(Level::Debug)),
            (r#"{"msg":"x","level":"fatal"}"#, Some(Level::Error)),
            (r#"{"level":30,"msg":"error"}"#, Some(Level::Info)),
            ("GET /error HTTP/1.1", None),
            ("no errors were found", None),
            ("ERRORS", None),
            ("", None),
        ] {
            assert_eq!(level_of(text), level, "{text}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_is_bounded_and_plain(text in "\\PC*|(\u{1b}\\[[0-9;]*m|.|\u{202e}){0,200}", times in 1..2000_usize) {
            let line = LogLine::of("web", &format!("2026-01-02T03:04:05Z {}", text.repeat(times)));
            prop_assert!(line.text.len() <= 16 * 1024);
            let is_hostile = |one: char| one.is_control() || one == '\u{202e}';
            prop_assert!(!line.text.chars().any(is_hostile));
        }
    }
}
