//! A hash that stays the same in every version of the agent.

/// Returns the 32-bit FNV-1a hash. It is for values that leave the agent and come back later, not for secrets.
pub(crate) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::fnv;

    #[test]
    fn the_hash_has_the_published_values() {
        assert_eq!(
            (fnv(b""), fnv(b"a"), fnv(b"foobar")),
            (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968)
        );
    }
}
