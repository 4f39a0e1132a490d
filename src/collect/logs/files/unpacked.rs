//! Unpacks a compressed file of a log. Limits how many bytes are unpacked.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use flate2::read::GzDecoder;

use super::entries::MAX_PARSED_BYTES;
use super::format::Format;

/// Limit on the bytes that one reading unpacks of a log. Without the limit, a file that unpacks to a huge size would delay the
/// other logs.
pub(super) const MAX_UNPACKED_BYTES: u64 = 256 * 1024 * 1024;

/// Number of bytes that a reading can still unpack. All compressed files of a log share this number.
#[derive(Clone)]
pub(super) struct Budget(Rc<Cell<u64>>);

/// The contents of a compressed file. The contents end where the budget ends, or where the file is damaged.
pub(super) struct Unpacked {
    log: GzDecoder<File>,
    budget: Budget,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Rc::new(Cell::new(MAX_UNPACKED_BYTES)))
    }

    /// Whether contents are missing, because the budget is used up or because a file is damaged.
    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

impl Unpacked {
    /// Unpacks `file` from its current offset.
    pub(super) fn of(file: File, budget: &Budget) -> Self {
        Self {
            log: GzDecoder::new(file),
            budget: budget.clone(),
        }
    }

    /// Returns the last [`MAX_PARSED_BYTES`] bytes of the contents. If bytes before them were dropped, the result begins with the
    /// first whole entry.
    pub(super) fn newest_entries(mut self, format: Format) -> io::Result<Vec<u8>> {
        let limit = usize::try_from(MAX_PARSED_BYTES).unwrap_or(usize::MAX);
        let mut end = Vec::new();
        let mut cut = false;
        while (&mut self).take(MAX_PARSED_BYTES).read_to_end(&mut end)? > 0 {
            if end.len() > limit {
                end.drain(..end.len() - limit);
                cut = true;
            }
        }
        if cut {
            let begin = format.entry_begin(&end);
            end.drain(..begin.unwrap_or(end.len()));
        }
        Ok(end)
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.budget.0.get()).unwrap_or(usize::MAX);
        let limit = buffer.len().min(left);
        // A damaged file ends at the damage. The damage uses up the budget.
        let read = self.log.read(&mut buffer[..limit]);
        let spent = match read {
            Ok(read) => read as u64,
            Err(_) => left as u64,
        };
        self.budget.0.set(self.budget.0.get() - spent);
        Ok(read.unwrap_or(0))
    }
}
