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

/// Appends a field with a text or a message.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, contents: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(contents.len() as u64, out);
    out.extend_from_slice(contents);
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
    let length = field_length(key.len()) + field_length(text);
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
    bytes(out, field::KEY, key.as_bytes());
    encode_key(field::VALUE, WireType::LengthDelimited, out);
    encode_varint(text as u64, out);
    bytes(out, field::VALUE_TEXT, value.as_bytes());
}

/// Appends an attribute with a number.
pub(super) fn number_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: u64) {
    let number = KEY_LENGTH + encoded_len_varint(value);
    let length = field_length(key.len()) + field_length(number);
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
    bytes(out, field::KEY, key.as_bytes());
    encode_key(field::VALUE, WireType::LengthDelimited, out);
    encode_varint(number as u64, out);
    varint(out, field::VALUE_INT, value);
}

/// Returns the length of a field with contents of this length.
fn field_length(contents: usize) -> usize {
    KEY_LENGTH + encoded_len_varint(contents as u64) + contents
}
