//! Finds the ends of the snapshots that a client receives. Stores only the final bytes of each snapshot, because whole snapshots
//! of all clients would need too much memory.

use memchr::{memchr, memmem};

/// Maximum number of final bytes that are stored of a snapshot.
const KEPT: usize = 512;
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Splits the bytes that a client receives into snapshots.
pub(super) struct Frames {
    format: Format,
    tail: Vec<u8>,
    ended: bool,
}

enum Format {
    Lines,
    Zstd(Zstd),
}

/// The state within a zstd frame (RFC 8878). A frame has a header and blocks. Each block has a header and content.
struct Zstd {
    next: Part,
    /// The bytes of the current header that have arrived.
    gathered: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Part {
    Header,
    Block,
    Content { left: usize, last: bool },
}

impl Frames {
    pub(super) fn of_lines() -> Self {
        Self::of(Format::Lines)
    }

    pub(super) fn of_zstd() -> Self {
        Self::of(Format::Zstd(Zstd {
            next: Part::Header,
            gathered: Vec::new(),
        }))
    }

    fn of(format: Format) -> Self {
        Self {
            format,
            tail: Vec::new(),
            ended: false,
        }
    }

    /// Reads the first bytes, but not past the end of a snapshot. Returns the number of bytes, and whether a snapshot ends with
    /// them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        if std::mem::take(&mut self.ended) {
            self.tail.clear();
        }
        let (taken, readable) = match &mut self.format {
            Format::Lines => {
                let end = memchr(b'\n', bytes);
                self.ended = end.is_some();
                (end.map_or(bytes.len(), |at| at + 1), true)
            }
            Format::Zstd(zstd) => {
                let in_last = matches!(zstd.next, Part::Content { last: true, .. });
                let (taken, ended) = zstd.take(bytes);
                self.ended = ended;
                (taken, in_last)
            }
        };
        if readable {
            self.keep(&bytes[..taken]);
        }
        (taken, self.ended)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let over = (self.tail.len() + bytes.len()).saturating_sub(KEPT);
        self.tail.drain(..over);
        self.tail.extend_from_slice(bytes);
    }

    /// The final bytes of the snapshot that has just ended. For a zstd frame they are from the final block, which the servers do
    /// not compress.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }
}

impl Zstd {
    /// Reads the first bytes of `bytes`, which must not be empty. Returns the number of bytes, and whether a frame ends with
    /// them.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        if let Part::Content { left, last } = self.next {
            let taken = left.min(bytes.len());
            self.next = match left - taken {
                0 if last => Part::Header,
                0 => Part::Block,
                left => Part::Content { left, last },
            };
            return (taken, last && taken == left);
        }
        self.gathered.push(bytes[0]);
        let next = match self.next {
            Part::Header => after_header(&self.gathered),
            _ => after_block_header(&self.gathered),
        };
        if let Some(next) = next {
            self.next = next;
            self.gathered.clear();
        }
        (1, false)
    }
}

/// The part after a frame's header. `None` until the header is complete.
fn after_header(header: &[u8]) -> Option<Part> {
    let descriptor = *header.get(MAGIC.len())?;
    assert!(header.starts_with(&MAGIC), "not a zstd frame");
    assert_eq!(
        descriptor & 0b100,
        0,
        "the frame has an unexpected checksum"
    );
    let single_segment = descriptor & 0b10_0000 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 0b11)];
    let size = [usize::from(single_segment), 2, 4, 8][usize::from(descriptor >> 6)];
    let length = MAGIC.len() + 1 + usize::from(!single_segment) + dictionary + size;
    (header.len() == length).then_some(Part::Block)
}

/// The content after this block header. `None` until the header is complete.
fn after_block_header(header: &[u8]) -> Option<Part> {
    let &[low, middle, high] = header else {
        return None;
    };
    let header = u32::from_le_bytes([low, middle, high, 0]);
    let repeated = (header >> 1) & 0b11 == 1;
    Some(Part::Content {
        left: if repeated { 1 } else { (header >> 3) as usize },
        last: header & 1 != 0,
    })
}

/// The value of `agent.seq`, if the end of the snapshot contains it.
pub(super) fn seq(tail: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"seq\":";
    let digits = &tail[memmem::rfind(tail, NAME)? + NAME.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    number(&digits[..end])
}

/// The value of `agent.skipped`, the final field of a snapshot.
pub(super) fn skipped(tail: &[u8]) -> Option<u64> {
    let line = tail.strip_suffix(b"}}\n")?;
    let begin = line.iter().rposition(|byte| !byte.is_ascii_digit());
    number(&line[begin.map_or(0, |before| before + 1)..])
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
