//! A compressed file of a log, as it is unpacked.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use flate2::read::GzDecoder;

use super::entries::MOST_PARSED;

/// The most that is unpacked of a log at a time, in bytes: whatever a file unpacks to, it delays the other logs no longer than that.
pub(super) const MOST_UNPACKED: u64 = 256 * 1024 * 1024;

/// How much may still be unpacked.
#[derive(Clone)]
pub(super) struct Budget(Rc<Cell<u64>>);

/// What a compressed file holds, as far as it can be unpacked.
pub(super) struct Unpacked {
    log: GzDecoder<File>,
    budget: Budget,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Rc::new(Cell::new(MOST_UNPACKED)))
    }

    /// Whether something was left out for want of it, or because it is damaged.
    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

impl Unpacked {
    /// What the rest of `file` holds.
    pub(super) fn of(file: File, budget: &Budget) -> Self {
        Self {
            log: GzDecoder::new(file),
            budget: budget.clone(),
        }
    }

    /// Its last [`MOST_PARSED`] bytes, from the first whole entry on.
    pub(super) fn newest_entries(mut self) -> io::Result<Vec<u8>> {
        let most = usize::try_from(MOST_PARSED).unwrap_or(usize::MAX);
        let mut end = Vec::new();
        let mut cut = false;
        while (&mut self).take(MOST_PARSED).read_to_end(&mut end)? > 0 {
            if end.len() > most {
                end.drain(..end.len() - most);
                cut = true;
            }
        }
        if cut {
            let begin = end.iter().position(|byte| *byte == b'\n');
            end.drain(..begin.map_or(end.len(), |at| at + 1));
        }
        Ok(end)
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.budget.0.get()).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        // What is damaged ends there.
        let read = self.log.read(&mut buffer[..most]);
        let spent = match read {
            Ok(read) => read as u64,
            Err(_) => left as u64,
        };
        self.budget.0.set(self.budget.0.get() - spent);
        Ok(read.unwrap_or(0))
    }
}
