//! One entry of a log file.

use std::time::Duration;

use super::tail::Channel;
use crate::model::LogStream;

/// Limit on an unfinished entry, in bytes. A valid entry is much shorter, because the engine splits long lines into fragments of
/// 16 KiB.
pub(super) const MAX_ENTRY_BYTES: usize = 1024 * 1024;
/// The entries of a log are not exactly in the order of their times: Docker takes the time of an entry, and then waits until the
/// other stream of the container is written. This is the largest difference that a reading expects.
pub(super) const DISORDER: Duration = Duration::from_secs(1);

/// One entry of a log: a line, or a fragment of a long line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stream: LogStream,
    /// `TIMESTAMP text`, as the engine prints it.
    pub(super) message: Vec<u8>,
}

/// The text and the timestamp of an entry that is a whole line, and whose text is the same in the log file and in the JSON of a
/// snapshot. Most entries are of this kind. Their text is only copied.
pub(super) struct PlainEntry<'a> {
    pub(super) text: &'a str,
    /// The timestamp as the engine prints it, and a space.
    pub(super) timestamp: String,
    pub(super) stream: LogStream,
}

impl Entry {
    /// Returns the channel of the entry. `tty` tells whether the container has a TTY.
    pub(super) fn channel_of(&self, tty: bool) -> Channel {
        match self.stream {
            _ if tty => Channel::Terminal,
            LogStream::Stderr => Channel::Stderr,
            LogStream::Stdout => Channel::Stdout,
        }
    }
}
