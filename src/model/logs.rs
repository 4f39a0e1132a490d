//! The containers' log lines, encoded when they are read, and numbered: which of them a client has
//! been sent is one number a container.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Via;

/// The newest log lines by container name (without its slash).
pub type Logs = BTreeMap<String, Arc<LogLines>>;

/// How far the containers' logs have been read: by container, the number of lines up to there.
pub type Positions = HashMap<Arc<str>, u64>;

/// One reading of the running containers' logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogSample {
    /// The `logs` section.
    pub logs: Arc<Logs>,
    /// The logs of containers that have ended, those that ended first at the front.
    pub ended: Arc<Vec<EndedLog>>,
    /// How far all these logs have been read.
    pub positions: Arc<Positions>,
    /// Where the lines come from.
    pub via: Via,
    /// Why not all of them come from the engine's files.
    pub via_reason: Option<String>,
}

/// The log of a container that has ended, and may be started again.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedLog {
    /// The container's name, without the slash.
    pub name: String,
    /// The container's id.
    pub container: Arc<str>,
    /// How far it has been read.
    pub position: u64,
    /// Its last lines; none once they are old.
    pub lines: Option<Arc<LogLines>>,
}

/// The newest lines of a container, oldest first, each `TIMESTAMP text`: on the wire an array of
/// strings.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct LogLines {
    place: Place,
    lines: Arc<EncodedLines>,
}

/// Lines as JSON. They are encoded when they are read, each once: those that stay are copied as they
/// are, and a snapshot that repeats them copies them once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedLines {
    /// An array of strings.
    json: Box<str>,
    /// Where each line begins in `json`, and the end of the last, each with the comma or bracket
    /// that follows.
    begins: Box<[u32]>,
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

/// The lines of a container that a client has not been sent yet.
#[derive(Debug, Clone)]
pub struct NewLines<'l> {
    lines: &'l EncodedLines,
    /// Which of them are new.
    new: Range<usize>,
    /// How many lines before those are no longer there.
    pub dropped: u64,
}

impl<'l> NewLines<'l> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.new.len()
    }

    /// As JSON strings with commas in between.
    #[must_use]
    pub fn json(&self) -> &'l str {
        self.lines.text(self.new.clone())
    }

    /// Each as it was written, oldest first.
    pub fn texts(&self) -> impl Iterator<Item = String> + use<'l> {
        let (lines, new) = (self.lines, self.new.clone());
        // What was encoded from text can be decoded.
        new.map(|line| serde_json::from_str(lines.text(line..line + 1)).unwrap_or_default())
    }
}

impl EncodedLines {
    /// So many of the lines `before`, from one on, as they are, then `lines`; `open` of them, at the
    /// end, are unfinished.
    #[must_use]
    pub fn following(
        before: &Self,
        kept: Range<usize>,
        lines: &[impl AsRef<str>],
        open: usize,
    ) -> Self {
        let (copied, begin) = (before.text(kept.clone()), before.begin(kept.start));
        let text: usize = lines.iter().map(|line| line.as_ref().len()).sum();
        let mut json = Vec::with_capacity(copied.len() + text + text / 16 + lines.len() * 3 + 3);
        let mut begins = Vec::with_capacity(kept.len() + lines.len() + 1);
        let mut end_line = |json: &mut Vec<u8>| {
            json.push(b',');
            begins.push(u32::try_from(json.len()).unwrap_or(u32::MAX));
        };
        json.push(b'[');
        if !kept.is_empty() {
            json.extend_from_slice(copied.as_bytes());
            json.push(b',');
        }
        for line in lines {
            // Writing to memory does not fail, and text can always be said in JSON.
            let _ = serde_json::to_writer(&mut json, line.as_ref());
            end_line(&mut json);
        }
        let moved = |at: &u32| at + 1 - begin as u32;
        let before = before.begins[kept.start..=kept.end].iter().map(moved);
        let begins: Box<[u32]> = before.chain(begins).collect();
        if begins.len() > 1 {
            json.pop();
        }
        json.push(b']');
        Self {
            // What is copied and what is encoded is text.
            json: String::from_utf8(json).unwrap_or_default().into(),
            begins,
            open,
        }
    }

    /// The lines, each as a JSON string.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        (0..self.begins.len() - 1).map(|line| self.text(line..line + 1))
    }

    /// How many lines at the end are unfinished.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Those of some lines, with commas in between.
    fn text(&self, lines: Range<usize>) -> &str {
        let text = match lines.is_empty() {
            true => None,
            // Without the last one's comma or bracket.
            false => self
                .json
                .get(self.begin(lines.start)..self.begin(lines.end) - 1),
        };
        text.unwrap_or_default()
    }

    fn begin(&self, line: usize) -> usize {
        self.begins.get(line).map_or(0, |begin| *begin as usize)
    }
}

impl Default for EncodedLines {
    fn default() -> Self {
        Self {
            json: "[]".into(),
            begins: [1].into(),
            open: 0,
        }
    }
}

impl LogLines {
    /// Lines, and where they stand.
    #[must_use]
    pub fn new(lines: Arc<EncodedLines>, place: Place) -> Self {
        Self { place, lines }
    }

    /// How many lines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.begins.len() - 1
    }

    /// Where they stand.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// All of them: an array of strings.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.lines.json
    }

    /// The finished lines after a position in the container's log.
    #[must_use]
    pub fn after(&self, position: u64) -> NewLines<'_> {
        let new = self.place.end.saturating_sub(position);
        let finished = self.count().saturating_sub(self.lines.open);
        let sent = usize::try_from(new).map_or(finished, |new| new.min(finished));
        NewLines {
            lines: &self.lines,
            new: finished - sent..finished,
            dropped: new - sent as u64,
        }
    }
}

impl Serialize for LogLines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: &RawValue = serde_json::from_str(self.json()).map_err(S::Error::custom)?;
        json.serialize(serializer)
    }
}

impl From<Vec<String>> for LogLines {
    fn from(lines: Vec<String>) -> Self {
        let place = Place {
            container: Arc::from(""),
            end: lines.len() as u64,
            origin: 0,
        };
        let lines = EncodedLines::following(&EncodedLines::default(), 0..0, &lines, 0);
        Self::new(Arc::new(lines), place)
    }
}

impl Default for LogLines {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl PartialEq for LogLines {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{EncodedLines, LogLines, Place};

    fn encoded(texts: &[&str], open: usize) -> EncodedLines {
        EncodedLines::following(&EncodedLines::default(), 0..0, texts, open)
    }

    fn lines(texts: &[&str], open: usize, end: u64) -> LogLines {
        let place = Place {
            container: Arc::from("0123"),
            end,
            origin: 0,
        };
        LogLines::new(Arc::new(encoded(texts, open)), place)
    }

    #[test]
    fn news_are_the_finished_lines_after_a_position() {
        let log = lines(&["a", "b\n\"", "c"], 0, 10);
        fn seen(log: &LogLines, position: u64) -> (String, u64) {
            let new = log.after(position);
            let texts: Vec<_> = new.texts().collect();
            let decoded: Vec<String> = serde_json::from_str(&format!("[{}]", new.json())).unwrap();
            assert_eq!((texts.len(), texts), (new.count(), decoded));
            (new.json().to_owned(), new.dropped)
        }
        let news = |lines: &str, dropped| (lines.to_owned(), dropped);
        assert_eq!(seen(&log, 10), news("", 0));
        assert_eq!(seen(&log, 11), news("", 0));
        assert_eq!(seen(&log, 9), news(r#""c""#, 0));
        assert_eq!(seen(&log, 8), news(r#""b\n\"","c""#, 0));
        assert_eq!(seen(&log, 7), news(r#""a","b\n\"","c""#, 0));
        assert_eq!(seen(&log, 4), news(r#""a","b\n\"","c""#, 3));
        let log = lines(&["a", "b", "c"], 1, 10);
        assert_eq!(seen(&log, 9), news(r#""b""#, 0));
        assert_eq!(seen(&log, 0), news(r#""a","b""#, 8));
        let none = lines(&[], 0, 10);
        assert_eq!(seen(&none, 10), news("", 0));
        assert_eq!(seen(&none, 8), news("", 2));
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

    #[test]
    fn lines_that_stay_are_as_if_encoded_anew() {
        let all = ["a", "b\n\"", "", "ä\u{1}", "e"];
        for count in 0..=all.len() {
            let before = encoded(&all[..count], 0);
            for from in 0..=count {
                for to in from..=count {
                    for more in 0..=all.len() - to {
                        let new = &all[to..to + more];
                        let followed = EncodedLines::following(&before, from..to, new, 1);
                        let anew = encoded(&all[from..to + more], 1);
                        assert_eq!(followed, anew, "{count} {from} {to} {more}");
                        let shown = followed
                            .iter()
                            .map(|line| serde_json::from_str(line).unwrap());
                        assert_eq!(shown.collect::<Vec<String>>(), all[from..to + more]);
                    }
                }
            }
        }
    }
}
