//! A hash that stays the same in every version of the agent.

/// Returns the 32-bit FNV-1a hash. It is for values that leave the agent and come back later, not for secrets.
pub(crate) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Continues the 64-bit FNV-1a hash `hash`. The first one is [`FNV64`].
pub(crate) fn fnv64(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The 64-bit FNV-1a hash of no bytes.
pub(crate) const FNV64: u64 = 0xcbf2_9ce4_8422_2325;

#[cfg(test)]
mod tests {
    use super::{FNV64, fnv, fnv64};

    #[test]
    fn the_hash_has_the_published_values() {
        assert_eq!(
            (fnv(b""), fnv(b"a"), fnv(b"foobar")),
            (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968)
        );
        let foobar = fnv64(fnv64(FNV64, b"foo"), b"bar");
        assert_eq!((fnv64(FNV64, b""), foobar), (FNV64, 0x8594_4171_f739_67e8));
    }
}
