//! The host's memory and swap.

use std::fs;
use std::io;

/// In bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) available: u64,
    /// None where the kernel does not tell.
    pub(super) cached: Option<u64>,
    /// Total and used; none where there is none.
    pub(super) swap: Option<(u64, u64)>,
}

/// Source: `/proc/meminfo`.
pub(super) fn read() -> io::Result<Memory> {
    let text = fs::read_to_string("/proc/meminfo")?;
    parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Lines of `Name:   123 kB`.
fn parse(meminfo: &str) -> Option<Memory> {
    let of = |name: &str| {
        meminfo.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?.trim();
            let kib: u64 = value.strip_suffix(" kB")?.trim_end().parse().ok()?;
            kib.checked_mul(1024)
        })
    };
    let total = of("MemTotal").filter(|total| *total > 0)?;
    // Kernels before 3.14 do not estimate it.
    let available = of("MemAvailable").or_else(|| {
        let free = [of("MemFree")?, of("Buffers")?, of("Cached")?];
        Some(free.into_iter().fold(0, u64::saturating_add))
    })?;
    let reclaimable = of("SReclaimable").unwrap_or_default();
    let swap = of("SwapTotal").filter(|total| *total > 0);
    Some(Memory {
        total,
        available: available.min(total),
        cached: of("Cached").map(|cached| cached.saturating_add(reclaimable)),
        swap: swap
            .zip(of("SwapFree"))
            .map(|(total, free)| (total, total.saturating_sub(free))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Memory, parse};

    const KIB: u64 = 1024;
    const MEMINFO: &str = "\
MemTotal:       24684084 kB
MemFree:        23676840 kB
MemAvailable:   23853196 kB
Buffers:             324 kB
Cached:           150640 kB
SwapCached:            7 kB
SwapTotal:       1000000 kB
SwapFree:         999000 kB
SReclaimable:     372204 kB
HugePages_Total:       0
";

    #[test]
    fn figures_are_those_of_free() {
        let expected = Memory {
            total: 24_684_084 * KIB,
            available: 23_853_196 * KIB,
            cached: Some((150_640 + 372_204) * KIB),
            swap: Some((1_000_000 * KIB, 1000 * KIB)),
        };
        assert_eq!(parse(MEMINFO), Some(expected));
    }

    #[test]
    fn does_without_what_old_kernels_and_small_hosts_lack() {
        let text = "MemTotal: 1000 kB\nMemFree: 500 kB\nBuffers: 10 kB\nCached: 100 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        let expected = Memory {
            total: 1000 * KIB,
            available: 610 * KIB,
            cached: Some(100 * KIB),
            swap: None,
        };
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "MemTotal: 0 kB",
            "MemTotal: x kB",
            "MemTotal: 1000 kB\n",
        ] {
            assert_eq!(parse(text), None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", total: u64, free: u64) {
            let _ = parse(&text);
            let text = format!("MemTotal: {total} kB\nMemAvailable: {free} kB\nCached: {free} kB\nSwapTotal: {free} kB\nSwapFree: {total} kB\n");
            if let Some(memory) = parse(&text) {
                prop_assert!(memory.available <= memory.total);
            }
        }
    }

    #[test]
    fn fuzz_meminfo() {
        crate::fuzzing::run("meminfo", &[MEMINFO.as_bytes()], |bytes| {
            if let Some(memory) = parse(&String::from_utf8_lossy(bytes)) {
                assert!(memory.available <= memory.total);
            }
        });
    }
}
