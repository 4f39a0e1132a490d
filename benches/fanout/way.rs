//! The encodings and transports of snapshots that are compared.

/// The encoding or transport of snapshots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Zstd,
    Tls,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Zstd, Self::Tls];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Zstd => "zstd",
            Self::Tls => "TLS",
        }
    }
}
