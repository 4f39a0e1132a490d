//! Compresses the answers to scrapers.

use std::io;

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};

/// The level of gzip, of 0 to 12. Higher levels gain nothing: the text repeats itself at distances of some 10 KiB, and all levels find that.
const GZIP_LEVEL: i32 = 2;

/// The compression of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Returns the compression for an `Accept-Encoding` header: zstd if the scraper accepts it, otherwise gzip, otherwise none.
    pub(super) fn accepted(header: &str) -> Self {
        let accepts = |wanted: &str| {
            header.split(',').any(|item| {
                let mut parts = item.split(';').map(str::trim);
                let is_wanted = parts
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case(wanted));
                let refuses = |part: &str| {
                    let quality = part.strip_prefix("q=").map(str::parse::<f64>);
                    quality.is_some_and(|quality| quality.is_ok_and(|quality| quality <= 0.0))
                };
                is_wanted && !parts.any(refuses)
            })
        };
        match (accepts("zstd"), accepts("gzip")) {
            (true, _) => Self::Zstd,
            (false, true) => Self::Gzip,
            (false, false) => Self::None,
        }
    }

    /// Returns the name for the header `Content-Encoding`.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Compresses a text. Uses fast levels: the text of metrics repeats itself so much that the slow levels gain little.
    ///
    /// # Errors
    /// Fails if the compressor fails. This is not expected, because it writes to memory.
    pub(super) fn compress(self, text: Bytes) -> io::Result<Bytes> {
        match self {
            Self::None => Ok(text),
            Self::Gzip => {
                let level = CompressionLvl::new(GZIP_LEVEL).unwrap_or_default();
                let mut compressor = Compressor::new(level);
                let mut compressed = vec![0; compressor.gzip_compress_bound(text.len())];
                let length = compressor
                    .gzip_compress(&text, &mut compressed)
                    .map_err(io::Error::other)?;
                // The answer does not keep the memory that the longest possible result would need.
                Ok(Bytes::copy_from_slice(&compressed[..length]))
            }
            Self::Zstd => Ok(zstd::bulk::compress(&text, 1)?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::Compression;

    #[test]
    fn the_scraper_decides_about_the_compression() {
        for (header, expected) in [
            ("", Compression::None),
            ("identity", Compression::None),
            ("gzip", Compression::Gzip),
            ("gzip;q=0.5, deflate", Compression::Gzip),
            ("gzip;q=0, identity", Compression::None),
            ("GZIP, zstd", Compression::Zstd),
            ("zstd;q=0.0, gzip", Compression::Gzip),
        ] {
            assert_eq!(Compression::accepted(header), expected, "{header}");
        }
    }

    #[test]
    fn a_compressed_text_can_be_read() {
        let text = "node_load1 0.5\n".repeat(1000);
        let compress =
            |compression: Compression| compression.compress(text.clone().into()).unwrap();
        let gzip = compress(Compression::Gzip);
        let mut read = String::new();
        flate2::read::GzDecoder::new(&*gzip)
            .read_to_string(&mut read)
            .unwrap();
        assert!(read == text && gzip.len() < text.len() / 10);
        let zstd = compress(Compression::Zstd);
        assert_eq!(
            zstd::bulk::decompress(&zstd, text.len()).unwrap(),
            text.as_bytes()
        );
    }
}
