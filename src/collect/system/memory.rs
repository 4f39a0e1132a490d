//! Reads the host's memory and swap.

use std::io;

use super::family::{MetricFamily, Round};
use super::guest::GuestMemory;
use crate::collect::kernel_file::KernelFile;
use crate::model::{ExactMemory, MemoryTypes, figure};

const MIB: f64 = 1_048_576.0;

/// The metric family, with its previous figures. Source: `/proc/meminfo`, and the control group of a guest.
pub(super) struct Memory {
    file: KernelFile,
    last: MemInfo,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            file: KernelFile::new("/proc/meminfo"),
            last: MemInfo::default(),
        }
    }
}

/// The figures, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemInfo {
    total: u64,
    available: u64,
    /// Memory that caches files. None if the kernel does not report it.
    cached: Option<u64>,
    /// Total and used swap. None if the host has no swap.
    swap: Option<(u64, u64)>,
    /// None for a guest.
    types: Option<MemoryTypes>,
}

/// Why memory cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("cannot read /proc/meminfo")]
    Read(#[from] io::Error),
    #[error("cannot read /proc/meminfo: invalid data")]
    Parse,
}

impl MetricFamily for Memory {
    const NAME: &'static str = "memory";

    type Figures = MemInfo;
    type Error = MemoryError;

    fn read(&mut self, round: &Round<'_>) -> Result<MemInfo, MemoryError> {
        let text = std::str::from_utf8(self.file.read()?);
        let host = text.ok().and_then(parse).ok_or(MemoryError::Parse)?;
        let guest = round.guest.as_ref().and_then(|guest| guest.memory);
        Ok(guest.map_or(host, |guest| host.of_guest(guest)))
    }

    fn publish(&mut self, memory: MemInfo, round: &mut Round<'_>) {
        self.last = memory;
        self.publish_last(round);
        let metrics = &mut round.metrics;
        metrics.memory_available = Some(mib(memory.available));
        metrics.memory_cached = memory.cached.map(mib);
        metrics.swap_used = memory.swap.map(|(_, used)| mib(used));
        metrics.swap_total = memory.swap.map(|(total, _)| mib(total));
        let (swap_total, swap_used) = memory.swap.unwrap_or_default();
        metrics.exact.memory = Some(ExactMemory {
            total: memory.total,
            available: memory.available,
            cached: memory.cached,
            swap_total,
            swap_used,
            types: memory.types,
        });
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        let MemInfo {
            total, available, ..
        } = self.last;
        round.memory_total = total;
        round.metrics.memory_total = mib(total);
        round.metrics.memory_used = mib(total - available);
    }
}

impl MemInfo {
    /// Returns the figures of a guest of this host.
    fn of_guest(self, guest: GuestMemory) -> Self {
        // A limit of swap can be larger than the swap of the host.
        let host_swap = self.swap.map_or(0, |(total, _)| total);
        let swap = guest
            .swap
            .map(|(limit, used)| (limit.min(host_swap), used))
            .filter(|(total, _)| *total > 0);
        Self {
            total: guest.limit,
            available: guest.limit.saturating_sub(guest.used),
            cached: guest.cached,
            swap: swap.map(|(total, used)| (total, used.min(total))),
            types: None,
        }
    }
}

fn mib(bytes: u64) -> f64 {
    figure(bytes as f64 / MIB, 2)
}

/// Parses lines of the form `Name:   123 kB`.
fn parse(meminfo: &str) -> Option<MemInfo> {
    let mut lines = Lines::default();
    for line in meminfo.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if let Some(place) = lines.place(name) {
            *place = bytes(value);
        }
    }
    let total = lines.total.filter(|total| *total > 0)?;
    // Kernels older than 3.14 do not have `MemAvailable`. The sum of these fields is an estimate.
    let available = lines.available.or_else(|| {
        let free = [lines.free?, lines.buffers?, lines.cached?];
        Some(free.into_iter().fold(0, u64::saturating_add))
    })?;
    let reclaimable = lines.reclaimable.unwrap_or_default();
    let swap = lines.swap_total.filter(|total| *total > 0);
    Some(MemInfo {
        total,
        available: available.min(total),
        cached: lines
            .cached
            .map(|cached| cached.saturating_add(reclaimable)),
        swap: swap
            .zip(lines.swap_free)
            .map(|(total, free)| (total, total.saturating_sub(free))),
        types: lines.types(),
    })
}

/// Returns the value ` 123 kB` in bytes.
fn bytes(value: &str) -> Option<u64> {
    let kib: u64 = value.trim().strip_suffix(" kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lines of `/proc/meminfo` that are used, in bytes.
#[derive(Default)]
struct Lines {
    total: Option<u64>,
    free: Option<u64>,
    available: Option<u64>,
    buffers: Option<u64>,
    cached: Option<u64>,
    active_file: Option<u64>,
    inactive_file: Option<u64>,
    swap_total: Option<u64>,
    swap_free: Option<u64>,
    anonymous: Option<u64>,
    mapped: Option<u64>,
    reclaimable: Option<u64>,
}

impl Lines {
    fn place(&mut self, name: &str) -> Option<&mut Option<u64>> {
        Some(match name {
            "MemTotal" => &mut self.total,
            "MemFree" => &mut self.free,
            "MemAvailable" => &mut self.available,
            "Buffers" => &mut self.buffers,
            "Cached" => &mut self.cached,
            "Active(file)" => &mut self.active_file,
            "Inactive(file)" => &mut self.inactive_file,
            "SwapTotal" => &mut self.swap_total,
            "SwapFree" => &mut self.swap_free,
            "AnonPages" => &mut self.anonymous,
            "Mapped" => &mut self.mapped,
            "SReclaimable" => &mut self.reclaimable,
            _ => return None,
        })
    }

    fn types(&self) -> Option<MemoryTypes> {
        Some(MemoryTypes {
            free: self.free?,
            cached: self.cached?,
            anonymous: self.anonymous?,
            mapped: self.mapped?,
            active_file: self.active_file?,
            inactive_file: self.inactive_file?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{GuestMemory, MemInfo, MemoryTypes, parse};

    const KIB: u64 = 1024;
    const MEMINFO: &str = "\
MemTotal:       24684084 kB
MemFree:        23676840 kB
MemAvailable:   23853196 kB
Buffers:             324 kB
Cached:           150640 kB
SwapCached:            7 kB
Active(file):        200 kB
Inactive(file):      100 kB
AnonPages:           400 kB
Mapped:              300 kB
SwapTotal:       1000000 kB
SwapFree:         999000 kB
SReclaimable:     372204 kB
HugePages_Total:       0
";

    #[test]
    fn figures_are_the_same_as_in_the_command_free() {
        let expected = MemInfo {
            total: 24_684_084 * KIB,
            available: 23_853_196 * KIB,
            cached: Some((150_640 + 372_204) * KIB),
            swap: Some((1_000_000 * KIB, 1000 * KIB)),
            types: Some(MemoryTypes {
                free: 23_676_840 * KIB,
                cached: 150_640 * KIB,
                anonymous: 400 * KIB,
                mapped: 300 * KIB,
                active_file: 200 * KIB,
                inactive_file: 100 * KIB,
            }),
        };
        assert_eq!(parse(MEMINFO), Some(expected));
    }

    #[test]
    fn fields_that_old_kernels_lack_and_swap_are_optional() {
        let text = "MemTotal: 1000 kB\nMemFree: 500 kB\nBuffers: 10 kB\nCached: 100 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        let expected = MemInfo {
            total: 1000 * KIB,
            available: 610 * KIB,
            cached: Some(100 * KIB),
            swap: None,
            types: None,
        };
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn a_guest_has_its_own_memory_and_no_more_swap_than_the_host() {
        let host = parse(MEMINFO).unwrap();
        let guest = GuestMemory {
            limit: 1000,
            used: 300,
            cached: None,
            swap: Some((u64::MAX, 7)),
        };
        let expected = MemInfo {
            total: 1000,
            available: 700,
            cached: None,
            swap: Some((1_000_000 * KIB, 7)),
            types: None,
        };
        assert_eq!(host.of_guest(guest), expected);
        // The limit was set below the memory in use. The guest has no swap.
        let tight = GuestMemory {
            limit: 200,
            cached: Some(5),
            swap: Some((0, 0)),
            ..guest
        };
        let expected = MemInfo {
            total: 200,
            available: 0,
            cached: Some(5),
            swap: None,
            types: None,
        };
        assert_eq!(host.of_guest(tight), expected);
        let without_swap = MemInfo { swap: None, ..host };
        assert_eq!(without_swap.of_guest(guest).swap, None);
    }

    #[test]
    fn invalid_text_is_refused() {
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
