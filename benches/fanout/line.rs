//! Makes copies of a recorded snapshot, which the floor sends. Each copy has a new time and a new number.

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use memchr::memmem;
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

const BEFORE_TIMESTAMP: &[u8] = b"{\"timestamp\":\"";
const BEFORE_SEQ: &[u8] = b"\"seq\":";
/// The first sequence number. All numbers have the same length, so that the length of the snapshot does not change.
const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
/// The agent's compression level.
const LEVEL: i32 = 1;

pub(crate) struct Line {
    bytes: Vec<u8>,
    /// `None` in a compressed snapshot, where the time cannot be set.
    timestamp: Option<Range<usize>>,
    seq: Range<usize>,
    next: u64,
}

impl Line {
    /// Makes the line from a recorded snapshot with its line feed.
    pub(crate) fn of(recorded: &[u8], compressed: bool) -> Self {
        let seq =
            memmem::rfind(recorded, BEFORE_SEQ).expect("expected a snapshot") + BEFORE_SEQ.len();
        let (head, tail) = recorded.split_at(seq);
        let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let tail = [FIRST.to_string().as_bytes(), &tail[digits..]].concat();
        let (head, timestamp) = if compressed {
            // The final block of the zstd frame is not compressed, so that the number can be replaced. The block holds the number
            // and all text after the number.
            (
                frame(
                    &head[..seq - BEFORE_SEQ.len()],
                    BEFORE_SEQ.len() + tail.len(),
                ),
                None,
            )
        } else {
            let end = head[BEFORE_TIMESTAMP.len()..]
                .iter()
                .position(|byte| *byte == b'"');
            let begin = BEFORE_TIMESTAMP.len();
            (
                head[..seq - BEFORE_SEQ.len()].to_vec(),
                end.map(|end| begin..begin + end),
            )
        };
        let seq = head.len() + BEFORE_SEQ.len();
        Self {
            bytes: [&head[..], BEFORE_SEQ, &tail].concat(),
            timestamp,
            seq: seq..seq + DIGITS,
            next: FIRST,
        }
    }

    /// The next snapshot, with the current time.
    pub(crate) fn next(&mut self) -> Bytes {
        if let Some(range) = self.timestamp.clone() {
            let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            self.bytes[range].copy_from_slice(now.as_bytes());
        }
        let seq = self.next.to_string();
        self.bytes[self.seq.clone()].copy_from_slice(seq.as_bytes());
        self.next += 1;
        Bytes::copy_from_slice(&self.bytes)
    }
}

/// A zstd frame up to the header of its final block. The caller must append the content of that block, which has `last` bytes.
fn frame(content: &[u8], last: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(LEVEL).unwrap();
    let mut frame = vec![0; zstd::zstd_safe::compress_bound(content.len()) + 64];
    let mut out = OutBuffer::around(&mut frame);
    let mut input = InBuffer::around(content);
    while input.pos() < content.len() {
        encoder.run(&mut input, &mut out).unwrap();
    }
    while encoder.flush(&mut out).unwrap() > 0 {}
    let length = out.pos();
    frame.truncate(length);
    let header = u32::try_from(last << 3 | 1).unwrap().to_le_bytes();
    frame.extend_from_slice(&header[..3]);
    frame
}
