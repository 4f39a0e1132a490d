//! A request for older log lines of one container, and the answer.

use std::fmt;
use std::time::SystemTime;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::DEFAULT_MAX_LINE;
use super::options::parse_max_line;

/// The number of log lines in an answer, unless the client asks for another number.
pub const DEFAULT_RANGE_LINES: usize = 500;
/// The largest number of log lines in an answer.
pub const MOST_RANGE_LINES: usize = 10_000;
/// Limit on the memory of a compiled regular expression, in bytes.
const MAX_REGEX_BYTES: usize = 1024 * 1024;

/// A request for older log lines of one container: the options of a client with `"logs":"range"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRange {
    /// The name of the container without the slash, or its id with at least 12 digits.
    pub container: String,
    /// Only log lines that were written before this time. None if there is no limit.
    pub before: Option<SystemTime>,
    /// Only log lines that were written after this time. None if there is no limit.
    pub after: Option<SystemTime>,
    /// Maximum number of log lines.
    pub lines: usize,
    /// If more log lines match than `lines`, which of them the answer has.
    pub from: RangeEnd,
    /// A regular expression. The answer has only log lines whose text matches it. None for all log lines.
    pub grep: Option<String>,
    /// Limit on the text of a line, in bytes.
    pub max_line: u32,
}

/// The end of the log at which an answer begins to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RangeEnd {
    /// The answer has the newest log lines.
    #[default]
    Newest,
    /// The answer has the oldest log lines.
    Oldest,
}

/// The log lines of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeLines {
    /// The log lines as JSON strings, oldest first.
    pub lines: Vec<Box<str>>,
    /// If the log can have more matching lines: the time of the last line that was examined. A further request continues there.
    /// None if the whole log was examined.
    pub reached: Option<SystemTime>,
}

impl LogRange {
    /// Returns the request for the newest log lines of a container.
    #[must_use]
    pub fn of(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            before: None,
            after: None,
            lines: DEFAULT_RANGE_LINES,
            from: RangeEnd::Newest,
            grep: None,
            max_line: DEFAULT_MAX_LINE,
        }
    }

    /// Reads the options of a client with `"logs":"range"`.
    ///
    /// # Errors
    /// Fails if an option is unknown or invalid. The error names the option and the accepted values.
    pub(super) fn parse(asked: &Map<String, Value>) -> Result<Self, String> {
        let container = asked.get("container").and_then(Value::as_str);
        let container = container.filter(|name| !name.is_empty());
        let container = container.ok_or(
            "container: needed with \"logs\":\"range\"; accepted: the name of a container",
        )?;
        let mut range = Self::of(container);
        for (name, value) in asked {
            match name.as_str() {
                "logs" | "container" => {}
                "before" => range.before = Some(parse_time(name, value)?),
                "after" => range.after = Some(parse_time(name, value)?),
                "lines" => range.lines = parse_lines(value)?,
                "from" => {
                    range.from = match value.as_str() {
                        Some("newest") => RangeEnd::Newest,
                        Some("oldest") => RangeEnd::Oldest,
                        _ => return Err("from: accepted: \"newest\" or \"oldest\"".to_owned()),
                    }
                }
                "grep" => {
                    let pattern = value.as_str().filter(|text| regex(text).is_some());
                    let pattern = pattern.ok_or("grep: accepted: a regular expression")?;
                    range.grep = Some(pattern.to_owned());
                }
                "max_line" => range.max_line = parse_max_line(value)?,
                _ => {
                    return Err(format!(
                        "{}: not accepted with \"logs\":\"range\"; accepted: container, before, after, lines, from, grep, max_line",
                        super::options::shown(name)
                    ));
                }
            }
        }
        Ok(range)
    }

    /// Returns the options that ask for this range, as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut asked = Map::new();
        let mut set = |name: &str, value: Value| asked.insert(name.to_owned(), value);
        set("logs", "range".into());
        set("container", self.container.clone().into());
        for (name, time) in [("before", self.before), ("after", self.after)] {
            if let Some(time) = time {
                set(name, text_of(time).into());
            }
        }
        set("lines", self.lines.into());
        if self.from == RangeEnd::Oldest {
            set("from", "oldest".into());
        }
        if let Some(grep) = &self.grep {
            set("grep", grep.clone().into());
        }
        set("max_line", self.max_line.into());
        Value::from(asked).to_string()
    }

    /// Returns the compiled regular expression.
    #[must_use]
    pub fn regex(&self) -> Option<regex::Regex> {
        regex(self.grep.as_ref()?)
    }
}

impl fmt::Display for RangeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        })
    }
}

fn regex(pattern: &str) -> Option<regex::Regex> {
    let mut builder = regex::RegexBuilder::new(pattern);
    builder.size_limit(MAX_REGEX_BYTES).build().ok()
}

/// Returns a time as text, with all its digits: `2026-01-02T03:04:05.123456789Z`.
#[must_use]
pub fn text_of(time: SystemTime) -> String {
    let text = OffsetDateTime::from(time).format(&Rfc3339);
    text.unwrap_or_default()
}

/// Parses a time such as `2026-01-02T03:04:05Z`. None if the text is not such a time.
#[must_use]
pub fn time_of(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(time.into())
}

fn parse_time(name: &str, value: &Value) -> Result<SystemTime, String> {
    let time = value.as_str().and_then(time_of);
    time.ok_or_else(|| format!("{name}: accepted: a time such as \"2026-01-02T03:04:05Z\""))
}

fn parse_lines(value: &Value) -> Result<usize, String> {
    let lines = value.as_u64().and_then(|lines| usize::try_from(lines).ok());
    let lines = lines.filter(|lines| (1..=MOST_RANGE_LINES).contains(lines));
    lines.ok_or_else(|| format!("lines: accepted: an integer from 1 to {MOST_RANGE_LINES}"))
}
