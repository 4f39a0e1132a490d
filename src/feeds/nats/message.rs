//! Reads NATS messages. A message can contain anything, so a message that is too long or has a wrong format is refused.

use async_nats::{HeaderMap, Message};
use zstd::bulk::Decompressor;

use crate::model::{self, ContainerEvent};
use crate::publish::nats::subject::DROPPED;

/// Maximum size of a snapshot after decompression, in bytes. It is sixteen times the default limit of a NATS message.
const LONGEST_SNAPSHOT: usize = 16 * 1024 * 1024;
/// Maximum size of an event, in bytes.
const LONGEST_EVENT: usize = 4 * 1024;
/// Maximum size of a message with log lines, in bytes. It is twice the limit of an agent.
const LONGEST_LINES: usize = 1024 * 1024;

/// Why a message is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("longer than {0} bytes")]
    TooLong(usize),
    #[error("not JSON of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not zstd, although the header says so")]
    Zstd,
    #[error("unknown encoding")]
    Encoding,
    #[error("not UTF-8 text")]
    Text,
    #[error("no host name in the subject")]
    Subject,
    #[error("from a stream, not from the host")]
    FromStream,
}

/// Decompresses snapshots.
pub(super) struct Unpacker {
    zstd: Decompressor<'static>,
    /// The memory for one decompressed JSON line.
    room: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            room: Vec::new(),
        })
    }

    /// Returns the JSON line of a snapshot. Decompresses it if the message has the header `Content-Encoding`.
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
                // Check the upper bound first, so that a small message cannot use much memory.
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

/// Reads an event.
pub(super) fn event(payload: &[u8]) -> Result<ContainerEvent, Bad> {
    if payload.len() > LONGEST_EVENT {
        return Err(Bad::TooLong(LONGEST_EVENT));
    }
    Ok(model::read(payload)?)
}

/// Reads new lines of a log, the oldest first.
pub(super) fn lines(payload: &[u8]) -> Result<Vec<String>, Bad> {
    if payload.len() > LONGEST_LINES {
        return Err(Bad::TooLong(LONGEST_LINES));
    }
    let text = std::str::from_utf8(payload).map_err(|_| Bad::Text)?;
    // Only split at `\n`. A carriage return is part of the container's text.
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// The number of log lines that the agent dropped, which are missing in front of the lines in this message.
pub(super) fn dropped(message: &Message) -> u64 {
    let count = header(message, DROPPED);
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

/// Whether the message is the answer of a stream to a request. Every answer of a stream has the header `Nats-Stream`. The sender
/// of a request chooses the subject of the answer. The server does not check whether the sender may publish with this subject, so
/// the message need not come from the host.
pub(super) fn is_from_stream(message: &Message) -> bool {
    header(message, "Nats-Stream").is_some()
}

/// The id of the message. Different messages have different ids.
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
    fn a_valid_snapshot_is_decompressed() {
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
        // After an invalid message a valid message can still be read.
        assert_eq!(unpacker.unpack(Some("zstd"), &packed).unwrap(), line);
    }

    #[test]
    fn a_snapshot_that_would_be_too_long_is_refused_before_decompression() {
        let mut unpacker = Unpacker::new().unwrap();
        let long = vec![b' '; LONGEST_SNAPSHOT + 1];
        assert!(matches!(unpacker.unpack(None, &long), Err(Bad::TooLong(_))));
        let bomb = zstd::encode_all(&long[..], 19).unwrap();
        assert!(bomb.len() < 4096);
        assert!(matches!(
            unpacker.unpack(Some("zstd"), &bomb),
            Err(Bad::TooLong(_))
        ));
        // A zstd frame can leave out the length of its contents.
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
    fn valid_events_and_lines_are_read_and_invalid_messages_are_refused() {
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
        fn no_message_causes_a_panic(bytes: Vec<u8>) {
            let mut unpacker = Unpacker::new().unwrap();
            for encoding in [None, Some("zstd")] {
                if let Ok(line) = unpacker.unpack(encoding, &bytes) {
                    prop_assert!(crate::feeds::brief::Brief::read(line).is_err());
                }
            }
            let _ = (event(&bytes), lines(&bytes));
        }
    }
}
