//! The stream of a container from which a log line comes.

use std::ops::Range;

/// The stream to which a container has written a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output. The output of a TTY counts as standard output, because a TTY has only one stream.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Returns the name of the stream: `stdout` or `stderr`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The number of bits of a word.
const BITS: usize = u64::BITS as usize;

/// Tells which log lines come from stderr. A log line is identified by its index. This is a set of bits, because both streams of a
/// container can alternate with each log line. Without log lines from stderr, it needs no memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StderrLines {
    /// The final word is not 0, so equal sets have equal words.
    words: Vec<u64>,
}

impl StderrLines {
    /// Adds the log line with the index `line`.
    pub(super) fn insert(&mut self, line: usize) {
        let word = line / BITS;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (line % BITS);
    }

    /// Adds the log lines of `other` that are in `range`. The first log line of the range gets the index `begin`.
    pub(super) fn extend(&mut self, begin: usize, other: &Self, range: Range<usize>) {
        let last = range.end.min(other.words.len() * BITS);
        for line in range.start..last {
            if other.stream_of(line) == LogStream::Stderr {
                self.insert(begin + line - range.start);
            }
        }
    }

    /// Returns the stream of a log line.
    pub(super) fn stream_of(&self, line: usize) -> LogStream {
        let word = self.words.get(line / BITS).copied().unwrap_or_default();
        match word >> (line % BITS) & 1 {
            0 => LogStream::Stdout,
            _ => LogStream::Stderr,
        }
    }

    /// Frees memory that is reserved for more log lines.
    pub(super) fn shrink(&mut self) {
        self.words.shrink_to_fit();
    }
}

/// Collects the streams of log lines, in the order of the log lines.
impl FromIterator<LogStream> for StderrLines {
    fn from_iter<T: IntoIterator<Item = LogStream>>(streams: T) -> Self {
        let mut lines = Self::default();
        for (line, stream) in streams.into_iter().enumerate() {
            if stream == LogStream::Stderr {
                lines.insert(line);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LogStream, StderrLines};

    fn streams(is_stderr: &[bool]) -> Vec<LogStream> {
        let stream = |is_stderr: &bool| match is_stderr {
            true => LogStream::Stderr,
            false => LogStream::Stdout,
        };
        is_stderr.iter().map(stream).collect()
    }

    #[test]
    fn log_lines_from_stdout_need_no_memory() {
        let mut lines: StderrLines = [LogStream::Stdout; 1000].into_iter().collect();
        lines.extend(1000, &lines.clone(), 0..1000);
        assert_eq!(lines.words.capacity(), 0);
        assert_eq!(lines.stream_of(0), LogStream::Stdout);
    }

    proptest! {
        #[test]
        fn a_copied_range_has_the_streams_of_its_log_lines(
            before in proptest::collection::vec(any::<bool>(), 0..150),
            all in proptest::collection::vec(any::<bool>(), 0..150),
            ends in (0..=150_usize, 0..=150_usize),
        ) {
            let (from, to) = (ends.0.min(ends.1).min(all.len()), ends.0.max(ends.1).min(all.len()));
            let mut copied: StderrLines = streams(&before).into_iter().collect();
            copied.extend(before.len(), &streams(&all).into_iter().collect(), from..to);
            let expected = streams(&[&before[..], &all[from..to]].concat());
            let found: Vec<_> = (0..expected.len()).map(|line| copied.stream_of(line)).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(copied, expected.into_iter().collect());
        }
    }
}
