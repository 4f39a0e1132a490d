//! A recorded snapshot whose time and number can be set: what the floor sends.

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use memchr::memmem;
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

const BEFORE_TIMESTAMP: &[u8] = b"{\"timestamp\":\"";
const BEFORE_SEQ: &[u8] = b"\"seq\":";
/// The first number: all are as long.
const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
/// As the agent's.
const LEVEL: i32 = 1;

pub(crate) struct Line {
    bytes: Vec<u8>,
    /// None in a compressed one, where it cannot be set.
    timestamp: Option<Range<usize>>,
    seq: Range<usize>,
    next: u64,
}

impl Line {
    /// From one that was recorded, with its line feed.
    pub(crate) fn of(recorded: &[u8], compressed: bool) -> Self {
        let seq = memmem::rfind(recorded, BEFORE_SEQ).expect("a snapshot") + BEFORE_SEQ.len();
        let (head, tail) = recorded.split_at(seq);
        let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let tail = [FIRST.to_string().as_bytes(), &tail[digits..]].concat();
        let (head, timestamp) = if compressed {
            // The last block holds the number and what follows it, as it is.
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

    /// The next snapshot, composed now.
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

/// A zstd frame up to its last block's content, of which only the length is known.
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
