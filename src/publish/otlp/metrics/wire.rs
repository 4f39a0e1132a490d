//! Writes the messages of metrics directly as protobuf. The generated types of `opentelemetry-proto` need several allocations for each point
//! and several passes over it, and a host with 100 containers has thousands of points. A test reads the messages with these types.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The numbers of the fields, by the message in which they are.
pub(super) mod field {
    pub(crate) const REQUEST_RESOURCE_METRICS: u32 = 1;
    pub(crate) const RESOURCE_METRICS_RESOURCE: u32 = 1;
    pub(crate) const RESOURCE_METRICS_SCOPE_METRICS: u32 = 2;
    pub(crate) const SCOPE_METRICS_SCOPE: u32 = 1;
    pub(crate) const SCOPE_METRICS_METRICS: u32 = 2;
    pub(crate) const METRIC_NAME: u32 = 1;
    pub(crate) const METRIC_UNIT: u32 = 3;
    pub(crate) const METRIC_GAUGE: u32 = 5;
    pub(crate) const METRIC_SUM: u32 = 7;
    pub(crate) const DATA_POINTS: u32 = 1;
    pub(crate) const SUM_TEMPORALITY: u32 = 2;
    pub(crate) const SUM_IS_MONOTONIC: u32 = 3;
    pub(crate) const POINT_START: u32 = 2;
    pub(crate) const POINT_TIME: u32 = 3;
    pub(crate) const POINT_DOUBLE: u32 = 4;
    pub(crate) const POINT_INT: u32 = 6;
    pub(crate) const POINT_ATTRIBUTES: u32 = 7;
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const VALUE_TEXT: u32 = 1;
    pub(super) const VALUE_INT: u32 = 3;
}

/// The length of the key of a field. The numbers of all fields are below 16, so a key is one byte.
const KEY_LENGTH: usize = 1;
/// The length of a field that [`fixed`] writes.
pub(super) const FIXED_LENGTH: usize = KEY_LENGTH + 8;
/// Number of bytes that are reserved for the length of a message. Enough for messages of 2 MiB.
const RESERVED: usize = 3;

/// A message that is being written. Its length is not known yet.
///
/// The length takes [`RESERVED`] bytes, also if it is a small number: protobuf allows zeros at the high end of a number. So the contents are
/// written only once, at their final place.
pub(super) struct Message {
    /// The place after the reserved bytes.
    begin: usize,
}

impl Message {
    /// Begins a field with a message.
    pub(super) fn open(out: &mut Vec<u8>, field: u32) -> Self {
        encode_key(field, WireType::LengthDelimited, out);
        out.extend_from_slice(&[0; RESERVED]);
        Self { begin: out.len() }
    }

    /// Ends the message.
    pub(super) fn close(self, out: &mut Vec<u8>) {
        let mut length = (out.len() - self.begin) as u64;
        let missing = encoded_len_varint(length).saturating_sub(RESERVED);
        if missing > 0 {
            out.splice(self.begin..self.begin, std::iter::repeat_n(0, missing));
        }
        let reserved = &mut out[self.begin - RESERVED..self.begin + missing];
        let [others @ .., last] = reserved else {
            return;
        };
        for byte in others {
            *byte = length as u8 & 0x7F | 0x80;
            length >>= 7;
        }
        *last = length as u8;
    }
}

/// Appends a field with a text or a message.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, contents: &[u8]) {
    head(out, field, contents.len());
    out.extend_from_slice(contents);
}

/// Appends the beginning of a field with a text or a message of this length.
pub(super) fn head(out: &mut Vec<u8>, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Appends a field with eight bytes.
pub(super) fn fixed(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_key(field, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field with a small number.
pub(super) fn varint(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

/// Appends an attribute with a text.
pub(super) fn text_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &str) {
    let text = field_length(value.len());
    head(out, field, field_length(key.len()) + field_length(text));
    bytes(out, field::KEY, key.as_bytes());
    head(out, field::VALUE, text);
    bytes(out, field::VALUE_TEXT, value.as_bytes());
}

/// Appends an attribute with a number.
pub(super) fn number_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: u64) {
    let number = KEY_LENGTH + encoded_len_varint(value);
    head(out, field, field_length(key.len()) + field_length(number));
    bytes(out, field::KEY, key.as_bytes());
    head(out, field::VALUE, number);
    varint(out, field::VALUE_INT, value);
}

/// Returns the length of a field with contents of this length.
fn field_length(contents: usize) -> usize {
    KEY_LENGTH + encoded_len_varint(contents as u64) + contents
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
    use opentelemetry_proto::tonic::metrics::v1::ScopeMetrics;
    use prost::Message as _;

    use super::{Message, bytes, field};

    #[test]
    fn a_message_of_any_length_can_be_read() {
        for length in [0, 1, 127, 128, 16_384, (1 << 21) - 8, 1 << 21, 5 << 20] {
            let name = "n".repeat(length);
            let mut out = Vec::new();
            let scope = Message::open(&mut out, field::SCOPE_METRICS_SCOPE);
            bytes(&mut out, 1, name.as_bytes());
            scope.close(&mut out);
            let read = ScopeMetrics::decode(&*out).unwrap();
            let expected = InstrumentationScope {
                name,
                ..InstrumentationScope::default()
            };
            assert_eq!(read.scope, Some(expected), "{length}");
        }
    }
}
