//! The buffer of a JSON line, which the next snapshot uses again.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::EncodedSnapshot;

/// A buffer that is used again is at most this much larger than its content.
pub(super) const MAX_SPARE_FACTOR: usize = 2;

/// The buffer of a JSON line that all clients have received. The next snapshot uses it again, because the kernel needs more time to
/// provide new memory than the agent needs to fill it.
#[derive(Clone, Default)]
pub(super) struct Spare(Arc<Mutex<SpareBuffer>>);

#[derive(Default)]
struct SpareBuffer {
    bytes: BytesMut,
    /// Whether a snapshot was published since it was stored.
    is_old: bool,
}

impl Spare {
    /// Stores the buffer of a line that is no longer used.
    pub(super) fn keep(&self, line: Arc<EncodedSnapshot>) {
        // A line that an output still sends is left to it.
        let line = Arc::try_unwrap(line).ok();
        let bytes = line.and_then(|line| line.shared.try_into_mut().ok());
        let mut buffer = self.buffer();
        if let Some(bytes) = bytes.filter(|bytes| bytes.capacity() > buffer.bytes.capacity()) {
            *buffer = SpareBuffer {
                bytes,
                is_old: false,
            };
        }
    }

    /// Frees a buffer that two snapshots have not used. Must be called for each snapshot.
    pub(super) fn age(&self) {
        let mut buffer = self.buffer();
        if std::mem::replace(&mut buffer.is_old, true) {
            buffer.bytes = BytesMut::new();
        }
    }

    /// Joins the pieces of a line.
    pub(super) fn concat(&self, pieces: &[Cow<'_, [u8]>]) -> Bytes {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut buffer = self.buffer();
        let mut line = match buffer.bytes.capacity() <= MAX_SPARE_FACTOR * length {
            true => std::mem::take(&mut buffer.bytes),
            // A longer line of this snapshot can use it.
            false => BytesMut::new(),
        };
        drop(buffer);
        line.clear();
        line.reserve(length);
        for piece in pieces {
            line.extend_from_slice(piece);
        }
        line.freeze()
    }

    /// Returns how many bytes the stored buffer can have.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer().bytes.capacity()
    }

    fn buffer(&self) -> MutexGuard<'_, SpareBuffer> {
        // A lock is poisoned only by a panic, and a panic ends the process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
