//! A part of a log, as it is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::unpacked::Unpacked;

/// A part of a log, to its file's end.
pub(super) enum LogPart {
    Plain { file: File, from: u64, to: u64 },
    Compressed { log: Unpacked, from: u64 },
    Read(io::Cursor<Vec<u8>>),
}

impl LogPart {
    /// How many bytes it has, as far as that is known without reading it.
    pub(super) fn plain_bytes(&self) -> u64 {
        match self {
            Self::Plain { from, to, .. } => to.saturating_sub(*from),
            Self::Compressed { .. } => 0,
            Self::Read(new) => new.get_ref().len() as u64 - new.position(),
        }
    }

    /// What is only counted of it, if anything, and what is parsed: its last bytes. What is
    /// compressed is counted where nothing may be parsed, and parsed as a whole otherwise.
    pub(super) fn split(self, parsed: u64) -> (Option<Box<dyn Read>>, Box<dyn Read>) {
        match self {
            Self::Plain { file, from, to } => {
                let file = Arc::new(file);
                let range = |at, to| Range {
                    file: Arc::clone(&file),
                    at,
                    to,
                };
                let middle = to.saturating_sub(parsed);
                if middle <= from {
                    return (None, Box::new(range(from, to)));
                }
                (
                    Some(Box::new(range(from, middle))),
                    Box::new(range(middle, to)),
                )
            }
            Self::Compressed { mut log, from } => {
                // It was read up to there when its position was looked for.
                let _ = io::copy(&mut (&mut log).take(from), &mut io::sink());
                if parsed == 0 {
                    return (Some(Box::new(log)), Box::new(io::empty()));
                }
                (None, Box::new(log))
            }
            // Never more than may be parsed.
            Self::Read(new) => (None, Box::new(new)),
        }
    }
}

/// The bytes of a file between two offsets.
struct Range {
    file: Arc<File>,
    at: u64,
    to: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
