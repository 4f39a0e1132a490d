//! Samples as compressed bytes.
//!
//! A block is one frame of Zstandard. In it are the length of the head (4 bytes, little endian), the head as JSON, and the figures. A
//! figure is XORed with the figure before it in its series, so that a figure that did not change is zero. Then the first bytes of all
//! figures follow each other, then the second bytes, and so on, because equal bytes in a row compress well.

use std::io;

use serde::{Deserialize, Serialize};

use super::samples::Samples;

/// The level of compression. Higher levels take several times as long and save a few percent.
const LEVEL: i32 = 3;
/// Maximum size of a block without compression, in bytes.
const MAX_SIZE: usize = 64 << 20;
/// The last bits of a figure that are not stored. The 15 bits of the fraction that are left give at least four exact decimal digits.
const DROPPED_BITS: u32 = 8;
const BYTES: usize = size_of::<f32>();

/// The head of a block.
#[derive(Serialize, Deserialize)]
struct Head {
    /// The first time, in milliseconds since 1970.
    first: i64,
    /// The time between each two samples, in milliseconds.
    steps: Vec<i64>,
    names: Vec<String>,
}

/// Encodes samples. There must be at least one.
///
/// # Errors
/// Fails if there is no sample, or too much data.
pub(super) fn encode(samples: &Samples) -> io::Result<Vec<u8>> {
    let first = *samples.times.first().ok_or(io::ErrorKind::InvalidInput)?;
    let steps = samples.times.windows(2).map(|pair| pair[1] - pair[0]);
    let head = serde_json::to_vec(&Head {
        first,
        steps: steps.collect(),
        names: samples.names.clone(),
    })?;
    let length = u32::try_from(head.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = samples.times.len() * samples.columns.len();
    let mut bytes = Vec::with_capacity(BYTES + head.len() + count * BYTES);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&head);
    let start = bytes.len();
    bytes.resize(start + count * BYTES, 0);
    let planes = &mut bytes[start..];
    let mut place = 0;
    for column in &samples.columns {
        let mut before = 0;
        for figure in column {
            let bits = rounded(*figure);
            for (plane, byte) in (bits ^ before).to_le_bytes().into_iter().enumerate() {
                planes[plane * count + place] = byte;
            }
            before = bits;
            place += 1;
        }
    }
    zstd::bulk::compress(&bytes, LEVEL)
}

/// Returns the bits of a figure without the last ones.
fn rounded(figure: f32) -> u32 {
    if !figure.is_finite() {
        return f32::NAN.to_bits();
    }
    let half = 1 << (DROPPED_BITS - 1);
    let bits = figure.to_bits();
    let bits = bits.checked_add(half).unwrap_or(bits) >> DROPPED_BITS << DROPPED_BITS;
    // The largest figures would become infinite.
    if f32::from_bits(bits).is_finite() {
        bits
    } else {
        figure.to_bits() >> DROPPED_BITS << DROPPED_BITS
    }
}

/// Decodes samples.
///
/// # Errors
/// Fails if the bytes are damaged.
pub(super) fn decode(block: &[u8]) -> io::Result<Samples> {
    decode_where(block, |_| true)
}

/// Decodes the series whose names `wanted` accepts.
///
/// # Errors
/// Fails if the bytes are damaged.
pub(super) fn decode_where(block: &[u8], wanted: impl Fn(&str) -> bool) -> io::Result<Samples> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a block is damaged");
    let size = zstd::zstd_safe::get_frame_content_size(block)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size <= MAX_SIZE)
        .ok_or_else(damaged)?;
    let bytes = zstd::bulk::decompress(block, size)?;
    let (length, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| damaged())?;
    let (head, planes) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(head)?;
    let mut times = Vec::with_capacity(head.steps.len() + 1);
    times.push(head.first);
    let mut at = head.first;
    for step in head.steps {
        at = at.checked_add(step).ok_or_else(damaged)?;
        times.push(at);
    }
    let rows = times.len();
    let count = rows.checked_mul(head.names.len()).ok_or_else(damaged)?;
    if Some(planes.len()) != count.checked_mul(BYTES) {
        return Err(damaged());
    }
    let column = |series: usize| -> Vec<f32> {
        let mut before = 0;
        let figure = |row: usize| {
            let place = series * rows + row;
            let byte = |plane: usize| planes[plane * count + place];
            before ^= u32::from_le_bytes(std::array::from_fn(byte));
            f32::from_bits(before)
        };
        (0..rows).map(figure).collect()
    };
    let all = head.names.into_iter().enumerate();
    let (columns, names) = all
        .filter(|(_, name)| wanted(name))
        .map(|(series, name)| (column(series), name))
        .unzip();
    Samples::from_parts(times, names, columns).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::super::samples::Samples;
    use super::{decode, encode};

    proptest! {
        #[test]
        fn figures_are_the_same_to_four_digits(
            rows in prop::collection::vec(prop::collection::vec(any::<f32>(), 3), 1..50),
        ) {
            let mut samples = Samples::default();
            for (at, row) in rows.iter().enumerate() {
                let names = ["cpu", "memory.used", "container:a:cpu"];
                samples.add(at as i64 * 5000, 1, names.into_iter().zip(row.iter().copied()));
            }
            let read = decode(&encode(&samples).unwrap()).unwrap();
            prop_assert!(read.times == samples.times && read.names == samples.names);
            for (read, given) in read.columns.iter().flatten().zip(samples.columns.iter().flatten()) {
                match given.is_finite() {
                    true => prop_assert!((read - given).abs() <= given.abs() / 50_000.0 + 1e-37, "{read} {given}"),
                    false => prop_assert!(read.is_nan(), "{read} {given}"),
                }
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_or_other_figures(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut samples = Samples::default();
            for at in 0..30_u8 {
                samples.add(i64::from(at), 1, [("cpu", f32::from(at)), ("load1", 0.5)].into_iter());
            }
            let mut bytes = encode(&samples).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            let _ = decode(&bytes);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn figures_that_do_not_change_need_little_space() {
        let mut samples = Samples::default();
        let names: Vec<String> = (0..140)
            .map(|one| format!("container:web-{one}:cpu"))
            .collect();
        for at in 0..120_i64 {
            samples.add(at * 5000, 1, names.iter().map(|name| (name.as_str(), 12.5)));
        }
        let block = encode(&samples).unwrap();
        assert!(block.len() < 1500, "{}", block.len());
    }
}
