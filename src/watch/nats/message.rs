//! What is in a message, if it can be understood. Whoever may publish may send anything.

use async_nats::{HeaderMap, Message};
use zstd::bulk::Decompressor;

use crate::model::{self, ContainerEvent};
use crate::publish::nats::subject::DROPPED;

/// The longest snapshot, in bytes, once it is unpacked: sixteen times as much as a server passes on in one message unless it
/// is set to more.
const LONGEST_SNAPSHOT: usize = 16 * 1024 * 1024;
/// The longest event, in bytes.
const LONGEST_EVENT: usize = 4 * 1024;
/// The longest piece of a log, in bytes: twice what an agent sends.
const LONGEST_LINES: usize = 1024 * 1024;

/// Why a message is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("over {0} bytes")]
    TooLong(usize),
    #[error("not JSON as expected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not zstd, though it says so")]
    Zstd,
    #[error("encoded in a way that is not known")]
    Encoding,
    #[error("not text")]
    Text,
    #[error("its subject names no host")]
    Subject,
    #[error("from a stream, not from its host")]
    Kept,
}

/// Unpacks snapshots.
pub(super) struct Unpacker {
    zstd: Decompressor<'static>,
    /// Room for a line.
    room: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            room: Vec::new(),
        })
    }

    /// A snapshot's line.
    pub(super) fn line<'l>(&'l mut self, message: &'l Message) -> Result<&'l [u8], Bad> {
        self.unpack(header(message, "Content-Encoding"), &message.payload)
    }

    fn unpack<'l>(
        &'l mut self,
        encoding: Option<&str>,
        payload: &'l [u8],
    ) -> Result<&'l [u8], Bad> {
        let too_long = Bad::TooLong(LONGEST_SNAPSHOT);
        match encoding {
            None if payload.len() <= LONGEST_SNAPSHOT => Ok(payload),
            Some("zstd") => {
                // Known before anything is unpacked.
                let longest = Decompressor::upper_bound(payload).ok_or(Bad::Zstd)?;
                if longest > LONGEST_SNAPSHOT {
                    return Err(too_long);
                }
                self.room.clear();
                self.room.reserve(longest);
                self.zstd
                    .decompress_to_buffer(payload, &mut self.room)
                    .map_err(|_| Bad::Zstd)?;
                Ok(&self.room)
            }
            None => Err(too_long),
            Some(_) => Err(Bad::Encoding),
        }
    }
}

pub(super) fn event(payload: &[u8]) -> Result<ContainerEvent, Bad> {
    if payload.len() > LONGEST_EVENT {
        return Err(Bad::TooLong(LONGEST_EVENT));
    }
    Ok(model::read(payload)?)
}

/// New lines of a log, oldest first.
pub(super) fn lines(payload: &[u8]) -> Result<Vec<String>, Bad> {
    if payload.len() > LONGEST_LINES {
        return Err(Bad::TooLong(LONGEST_LINES));
    }
    let text = std::str::from_utf8(payload).map_err(|_| Bad::Text)?;
    // A carriage return is a part of what the container wrote.
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// How many lines before those are lost.
pub(super) fn dropped(message: &Message) -> u64 {
    let count = header(message, DROPPED);
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

/// Whether it is the server's answer to whoever asked a stream for it. A server sends answers wherever the one who asks wants
/// them, also where that one may not publish, but not without these headers.
pub(super) fn is_kept(message: &Message) -> bool {
    header(message, "Nats-Stream").is_some()
}

/// What tells it from all others.
pub(super) fn id(message: &Message) -> Option<&str> {
    header(message, "Nats-Msg-Id")
}

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message
        .headers
        .as_ref()
        .and_then(|headers: &HeaderMap| headers.get(name))
        .map(|value| value.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bad, LONGEST_EVENT, LONGEST_LINES, LONGEST_SNAPSHOT, Unpacker, event, lines};

    #[test]
    fn a_snapshot_is_unpacked() {
        let mut unpacker = Unpacker::new().unwrap();
        let line = "{\"a\":1}\n".repeat(50_000).into_bytes();
        assert_eq!(unpacker.unpack(None, &line).unwrap(), line);
        let packed = zstd::encode_all(&line[..], 1).unwrap();
        for _ in 0..2 {
            assert_eq!(unpacker.unpack(Some("zstd"), &packed).unwrap(), line);
        }
        assert!(matches!(
            unpacker.unpack(Some("zstd"), &line),
            Err(Bad::Zstd)
        ));
        assert!(matches!(
            unpacker.unpack(Some("zstd"), &packed[..packed.len() - 3]),
            Err(Bad::Zstd)
        ));
        assert!(matches!(
            unpacker.unpack(Some("gzip"), &packed),
            Err(Bad::Encoding)
        ));
        // What is good comes through after what is not.
        assert_eq!(unpacker.unpack(Some("zstd"), &packed).unwrap(), line);
    }

    #[test]
    fn what_would_become_too_long_is_not_unpacked() {
        let mut unpacker = Unpacker::new().unwrap();
        let long = vec![b' '; LONGEST_SNAPSHOT + 1];
        assert!(matches!(unpacker.unpack(None, &long), Err(Bad::TooLong(_))));
        let bomb = zstd::encode_all(&long[..], 19).unwrap();
        assert!(bomb.len() < 4096);
        assert!(matches!(
            unpacker.unpack(Some("zstd"), &bomb),
            Err(Bad::TooLong(_))
        ));
        // Without its length at the front, too.
        let mut unsaid = zstd::Encoder::new(Vec::new(), 1).unwrap();
        std::io::Write::write_all(&mut unsaid, &long).unwrap();
        let unsaid = unsaid.finish().unwrap();
        assert!(matches!(
            unpacker.unpack(Some("zstd"), &unsaid),
            Err(Bad::TooLong(_))
        ));
        assert!(unpacker.room.capacity() <= LONGEST_SNAPSHOT);
    }

    #[test]
    fn events_and_lines_are_read() {
        let start = br#"{"time":"2026-01-01T11:59:01.000Z","action":"start","container":"db","id":"0123456789ab","image":"postgres"}"#;
        assert_eq!(event(start).unwrap().container, "db");
        assert!(matches!(event(b"{}"), Err(Bad::Json(_))));
        assert!(matches!(
            event(&[b' '; LONGEST_EVENT + 1]),
            Err(Bad::TooLong(_))
        ));
        assert_eq!(lines(b"t one\nt two\r\n").unwrap(), ["t one", "t two\r"]);
        assert_eq!(lines(b"t one").unwrap(), ["t one"]);
        assert_eq!(lines(b"").unwrap(), [""; 0]);
        assert!(matches!(lines(b"\xff\n"), Err(Bad::Text)));
        assert!(matches!(
            lines(&vec![b'\n'; LONGEST_LINES + 1]),
            Err(Bad::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn nothing_of_any_kind_ends_it(bytes: Vec<u8>) {
            let mut unpacker = Unpacker::new().unwrap();
            for encoding in [None, Some("zstd")] {
                if let Ok(line) = unpacker.unpack(encoding, &bytes) {
                    prop_assert!(crate::watch::brief::Brief::read(line).is_err());
                }
            }
            let _ = (event(&bytes), lines(&bytes));
        }
    }
}
