//! The log lines of containers. Log lines are numbered. The position of a client in a container's log is the number of the newest
//! log line that the client has received or missed, and a place in the log's files.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foldhash::HashMap;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{EncodedLines, LogRange, LogStream, RangeLines, StderrLines};

/// The text at the end of a log line that was cut at [`super::DEFAULT_MAX_LINE`] bytes.
pub const CUT_LINE: &str = " … [line cut at 16 KiB]";

/// The newest log lines by container name, without the slash.
pub type Logs = BTreeMap<String, Arc<LogLines>>;

/// The position in each container's log, by container id.
pub type Positions = HashMap<Arc<str>, LogPosition>;

/// A position in a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The number of the newest finished log line before the position.
    pub line: u64,
    /// A place in the log's files at or shortly before the position. Reading the files begins there. None if the
    /// place is not known.
    pub place: Option<Arc<FilePlace>>,
}

impl LogPosition {
    /// Returns the position before the first log line that the log's files have.
    #[must_use]
    pub fn beginning() -> Self {
        Self {
            line: 0,
            place: Some(Arc::new(FilePlace::default())),
        }
    }
}

/// A place in a log's files where no log line is unfinished.
///
/// Lines have numbers only in one run of the agent. If another run has recorded the place, `line` is 0. [`LogPosition::line`] is
/// then the number of log lines between the place and the position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilePlace {
    /// The file and the offset in it.
    pub at: FileOffset,
    /// The number of the newest log line before the place.
    pub line: u64,
}

/// An offset in a file that can be renamed, copied or compressed later. The default value is the beginning of the log, whichever
/// file that is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileOffset {
    /// The inode number of the file.
    pub inode: u64,
    /// The offset in bytes. If the file is compressed, the offset in its unpacked contents.
    pub offset: u64,
    /// A hash of the bytes before the offset, 64 at most. It identifies the file after it was copied or compressed, and shows
    /// whether a file was emptied and has grown again. At offset 0, it is a hash of the time when the file was created.
    pub fingerprint: u32,
}

/// Marks an offset that is a time. No file is so large.
const IS_TIME: u64 = 1 << 59;

impl FileOffset {
    /// Returns the place after a log line, for a log that is read by calls to the engine. Such a log has no offsets, but it can be read
    /// from a time on. `time` is the time of the log line. `fingerprint` is a hash of the log line with its timestamp. It is
    /// 0 if the place is not after a log line.
    #[must_use]
    pub fn of_time(time: SystemTime, fingerprint: u32) -> Self {
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
        let microseconds = since_1970.unwrap_or_default().as_micros();
        Self {
            inode: 0,
            offset: IS_TIME + u64::try_from(microseconds).map_or(0, |time| time % IS_TIME),
            fingerprint,
        }
    }

    /// Returns the time, rounded down to microseconds. None if this is an offset in a file.
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        let microseconds = self.offset.checked_sub(IS_TIME)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(microseconds))
    }
}

/// A container's log that can be read again.
#[derive(Clone)]
pub struct FileLog(pub Arc<dyn ReadLog>);

/// Reads the log lines between two positions from the files of a container's log, or by calls to the engine.
pub trait ReadLog: Send + Sync {
    /// Whether the log lines come from files. If not, they come by calls to the engine.
    fn is_in_files(&self) -> bool;

    /// Reads log lines after the position `after`, up to the place `to`, oldest first. Stops early after about `limits.text` bytes. Blocks
    /// the thread.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::NotFound`] if the log's files were removed, and with another error if they cannot be read now.
    fn read(
        &self,
        after: &LogPosition,
        to: &FilePlace,
        limits: ReadLimits,
    ) -> io::Result<ReadLines>;

    /// Reads the log lines of a range. Blocks the thread.
    ///
    /// # Errors
    /// Fails if the log's files were removed or cannot be read.
    fn range(&self, range: &LogRange) -> io::Result<RangeLines>;
}

/// The limits of one reading of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Approximate limit on the text, in bytes.
    pub text: usize,
    /// Limit on the text of a line, in bytes.
    pub line: usize,
}

/// Log lines that were read from the files of a container's log.
#[derive(Debug, Clone)]
pub struct ReadLines {
    /// The read log lines. Only those in the range `new` come after the position.
    pub lines: Arc<EncodedLines>,
    /// The range of new log lines in `lines`.
    pub new: Range<usize>,
    /// The number of log lines after the position that the engine has deleted. They are older than the new log lines.
    pub dropped: u64,
    /// The position after the new log lines.
    pub end: LogPosition,
}

impl ReadLines {
    /// Returns no log lines. The client stays at the position `end`.
    #[must_use]
    pub fn none(end: LogPosition) -> Self {
        Self {
            lines: Arc::default(),
            new: 0..0,
            dropped: 0,
            end,
        }
    }

    /// Returns the new log lines.
    #[must_use]
    pub fn new_lines(&self) -> NewLines<'_> {
        NewLines {
            lines: &self.lines,
            new: self.new.clone(),
            dropped: self.dropped,
        }
    }
}

/// Opens the logs of containers.
#[derive(Clone)]
pub struct LogOpener(pub Arc<dyn OpenLog>);

/// Opens the logs of containers that do not run.
pub trait OpenLog: Send + Sync {
    /// Returns what reads the log of a container. `id` is the container's id, or at least 12 digits of it. Reads nothing yet.
    fn open(&self, id: &str) -> FileLog;
}

impl fmt::Debug for LogOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogOpener")
    }
}

impl PartialEq for LogOpener {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileLog")
    }
}

impl PartialEq for FileLog {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The newest log lines of a container, oldest first. Each log line has the form `TIMESTAMP text`. On the wire, the log lines
/// are an array of strings.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct LogLines {
    place: Place,
    lines: Arc<EncodedLines>,
}

/// The position of log lines in their container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The container's id.
    pub container: Arc<str>,
    /// The number of the newest finished log line.
    pub end: u64,
    /// The position at which a client starts that has not received a log line of this container yet.
    pub origin: LogPosition,
    /// When the container was created, in Unix seconds.
    pub created: i64,
}

/// The log lines of a container that a client has not received yet.
#[derive(Debug, Clone)]
pub struct NewLines<'l> {
    lines: &'l EncodedLines,
    /// The range of new log lines in `lines`.
    new: Range<usize>,
    /// The number of dropped log lines. They are older than the new log lines.
    pub dropped: u64,
}

impl<'l> NewLines<'l> {
    /// Returns the number of new log lines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.new.len()
    }

    /// Returns the new log lines as JSON strings, separated by commas.
    #[must_use]
    pub fn json(&self) -> &'l str {
        self.lines.text(self.new.clone())
    }

    /// Returns the text of each new log line, oldest first.
    pub fn texts(&self) -> impl Iterator<Item = String> + use<'l> {
        let (lines, new) = (self.lines, self.new.clone());
        // Decoding never fails, because the agent itself encoded the log lines.
        new.map(|line| serde_json::from_str(lines.text(line..line + 1)).unwrap_or_default())
    }

    /// Returns the stream of each new log line, oldest first.
    pub fn streams(&self) -> impl Iterator<Item = LogStream> + use<'l> {
        let lines = self.lines;
        self.new.clone().map(|line| lines.stream_of(line))
    }
}

impl LogLines {
    /// Creates log lines with their position in the container's log.
    #[must_use]
    pub fn new(lines: Arc<EncodedLines>, place: Place) -> Self {
        Self { place, lines }
    }

    /// Returns the number of log lines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.count()
    }

    /// Returns the position of the log lines in the container's log.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns all log lines as a JSON array of strings.
    #[must_use]
    pub fn json(&self) -> &str {
        self.lines.json()
    }

    /// Returns the number of finished log lines.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.count().saturating_sub(self.lines.open())
    }

    /// Whether a finished log line after a position was cut, so that the log has more of its text.
    #[must_use]
    pub fn has_cut_line_after(&self, position: u64) -> bool {
        let NewLines { new, lines, .. } = self.after(position);
        let mut lines = new.map(|line| lines.text(line..line + 1));
        lines.any(|line| {
            line.strip_suffix('"')
                .is_some_and(|line| line.ends_with(CUT_LINE))
        })
    }

    /// Returns the finished log lines after a position in the container's log.
    #[must_use]
    pub fn after(&self, position: u64) -> NewLines<'_> {
        let new = self.place.end.saturating_sub(position);
        let finished = self.finished();
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
            origin: LogPosition::default(),
            created: 0,
        };
        let lines = EncodedLines::following(
            &EncodedLines::default(),
            0..0,
            &lines,
            &StderrLines::default(),
            0,
        );
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

    use super::{EncodedLines, LogLines, LogPosition, Place, StderrLines};

    fn encoded(texts: &[&str], open: usize) -> EncodedLines {
        let stderr = StderrLines::default();
        EncodedLines::following(&EncodedLines::default(), 0..0, texts, &stderr, open)
    }

    fn lines(texts: &[&str], open: usize, end: u64) -> LogLines {
        let place = Place {
            container: Arc::from("0123"),
            end,
            origin: LogPosition::default(),
            created: 0,
        };
        LogLines::new(Arc::new(encoded(texts, open)), place)
    }

    #[test]
    fn new_log_lines_are_the_finished_log_lines_after_a_position() {
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
    fn log_lines_are_an_array_of_strings_on_the_wire() {
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
