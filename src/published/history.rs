//! Encodes the figures of the past as a JSON line.

use std::io;

use bytes::Bytes;

use crate::model::{Encoding, History, HistoryLine};

/// The compression level of zstd, as for snapshots.
const LEVEL: i32 = 1;

/// Returns a complete line, with its line feed. With zstd, the line is one frame.
///
/// # Errors
/// Fails if the encoder or the compressor fails. This is not expected.
pub fn history_line(history: &History, encoding: Encoding) -> io::Result<Bytes> {
    let mut line = serde_json::to_vec(&HistoryLine { history })?;
    line.push(b'\n');
    Ok(Bytes::from(match encoding {
        Encoding::Json => line,
        Encoding::Zstd => zstd::bulk::compress(&line, LEVEL)?,
    }))
}
