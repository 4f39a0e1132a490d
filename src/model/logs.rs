//! The containers' log lines, encoded when they are read, and numbered: which of them a client has
//! been sent is one number a container.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The newest log lines by container name (without its slash).
pub type Logs = BTreeMap<String, Arc<LogLines>>;

/// How far the containers' logs have been read: by container, the number of lines up to there.
pub type Positions = HashMap<Arc<str>, u64>;

/// The newest lines of a container, oldest first, each `TIMESTAMP text`: on the wire an array of
/// strings. Encoded when they are read, so that lines which have not changed cost a snapshot no
/// more than a copy.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct LogLines {
    place: Place,
    json: Box<RawValue>,
    /// Where each line begins in `json`, and the end of the last, each with the comma or bracket
    /// that follows.
    begins: Vec<u32>,
    /// How many lines at the end are unfinished.
    open: usize,
}

/// Where lines stand in their container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The container's id.
    pub container: Arc<str>,
    /// The number of the last finished line.
    pub end: u64,
    /// The number of the last line before those that count for a client which has not been sent any of this container.
    pub origin: u64,
}

/// Lines that a client has not been sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News<'l> {
    /// The lines that there still are, as JSON strings with commas in between.
    pub lines: &'l str,
    /// How many lines before those are no longer there.
    pub dropped: u64,
}

impl LogLines {
    /// Encodes lines; `open` of them, at the end, are unfinished.
    #[must_use]
    pub fn new(lines: &[impl AsRef<str>], open: usize, place: Place) -> Self {
        let text: usize = lines.iter().map(|line| line.as_ref().len()).sum();
        let mut json = Vec::with_capacity(text + text / 16 + lines.len() * 3 + 2);
        json.push(b'[');
        let mut begins = Vec::with_capacity(lines.len() + 1);
        begins.push(1);
        for line in lines {
            // Writing to memory does not fail, and text can always be said in JSON.
            let _ = serde_json::to_writer(&mut json, line.as_ref());
            json.push(b',');
            begins.push(u32::try_from(json.len()).unwrap_or(u32::MAX));
        }
        if !lines.is_empty() {
            json.pop();
        }
        json.push(b']');
        let json = String::from_utf8(json)
            .ok()
            .and_then(|json| RawValue::from_string(json).ok());
        Self {
            place,
            json: json.unwrap_or_default(),
            begins,
            open,
        }
    }

    /// How many lines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.begins.len() - 1
    }

    /// Where they stand.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The finished lines after a position in the container's log.
    #[must_use]
    pub fn after(&self, position: u64) -> News<'_> {
        let new = self.place.end.saturating_sub(position);
        let finished = self.count().saturating_sub(self.open);
        let sent = usize::try_from(new).map_or(finished, |new| new.min(finished));
        let begin = |line: usize| self.begins.get(line).map_or(0, |begin| *begin as usize);
        // Without the last one's comma or bracket.
        let lines = self
            .json
            .get()
            .get(begin(finished - sent)..begin(finished).max(1) - 1);
        News {
            lines: lines.filter(|_| sent > 0).unwrap_or_default(),
            dropped: new - sent as u64,
        }
    }
}

impl Serialize for LogLines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl From<Vec<String>> for LogLines {
    fn from(lines: Vec<String>) -> Self {
        let place = Place {
            container: Arc::from(""),
            end: lines.len() as u64,
            origin: 0,
        };
        Self::new(&lines, 0, place)
    }
}

impl Default for LogLines {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl PartialEq for LogLines {
    fn eq(&self, other: &Self) -> bool {
        self.json.get() == other.json.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{LogLines, News, Place};

    fn lines(texts: &[&str], open: usize, end: u64) -> LogLines {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let place = Place {
            container: Arc::from("0123"),
            end,
            origin: 0,
        };
        LogLines::new(&texts, open, place)
    }

    #[test]
    fn news_are_the_finished_lines_after_a_position() {
        let log = lines(&["a", "b\n\"", "c"], 0, 10);
        let news = |lines, dropped| News { lines, dropped };
        assert_eq!(log.after(10), news("", 0));
        assert_eq!(log.after(11), news("", 0));
        assert_eq!(log.after(9), news(r#""c""#, 0));
        assert_eq!(log.after(8), news(r#""b\n\"","c""#, 0));
        assert_eq!(log.after(7), news(r#""a","b\n\"","c""#, 0));
        assert_eq!(log.after(4), news(r#""a","b\n\"","c""#, 3));
        let log = lines(&["a", "b", "c"], 1, 10);
        assert_eq!(log.after(9), news(r#""b""#, 0));
        assert_eq!(log.after(0), news(r#""a","b""#, 8));
        let none = lines(&[], 0, 10);
        assert_eq!(none.after(10), news("", 0));
        assert_eq!(none.after(8), news("", 2));
    }

    #[test]
    fn on_the_wire_they_are_an_array_of_strings() {
        let json = |log| serde_json::to_string(&log).unwrap();
        assert_eq!(
            json(lines(&["a", "ä\u{1}\""], 1, 3)),
            r#"["a","ä\u0001\""]"#
        );
        assert_eq!(json(lines(&[], 0, 0)), "[]");
        let read: LogLines = serde_json::from_str(r#"["a", "b"]"#).unwrap();
        assert_eq!((read.count(), json(read)), (2, r#"["a","b"]"#.to_owned()));
    }
}
