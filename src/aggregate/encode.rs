//! A snapshot as a line, encoded once for all sessions.

use bytes::Bytes;

use crate::messages::EncodedSnapshot;
use crate::model::Snapshot;

/// Encodes a snapshot, whose own `skipped` must be 0; `capacity` is a guess of its length, best
/// the length of the last one.
pub(super) fn encode(
    snapshot: &Snapshot,
    capacity: usize,
) -> Result<EncodedSnapshot, serde_json::Error> {
    let mut line = Vec::with_capacity(capacity + capacity / 8);
    serde_json::to_writer(&mut line, snapshot)?;
    // `…"skipped":0}}`, by the order of the model's fields: each session adds its own count.
    line.truncate(line.len() - "0}}".len());
    Ok(EncodedSnapshot {
        seq: snapshot.agent.seq,
        shared: Bytes::from(line),
    })
}

#[cfg(test)]
mod tests {
    use super::encode;
    use crate::aggregate::{Newest, SourceState, compose};
    use crate::messages::EncodedSnapshot;
    use crate::model::Snapshot;

    #[test]
    fn a_session_completes_the_line_with_its_own_count() {
        let newest = Newest {
            system: SourceState::disabled("system"),
            docker: SourceState::disabled("docker"),
            logs: SourceState::disabled("logs"),
        };
        let snapshot = compose(&newest, 7, 3);
        let encoded = encode(&snapshot, 0).unwrap();
        assert_eq!(encoded.seq, 7);
        for skipped in [0, 1, u64::MAX] {
            let mut line = encoded.shared.to_vec();
            line.extend_from_slice(EncodedSnapshot::ending(skipped).as_bytes());
            assert_eq!(line.pop(), Some(b'\n'));
            let mut expected = snapshot.clone();
            expected.agent.skipped = skipped;
            // Through text, as the wire's milliseconds are coarser than the clock.
            let read: Snapshot = serde_json::from_slice(&line).unwrap();
            assert_eq!(
                serde_json::to_string(&read).unwrap(),
                serde_json::to_string(&expected).unwrap()
            );
        }
    }
}
