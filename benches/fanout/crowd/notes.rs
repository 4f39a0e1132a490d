//! Notes about the snapshots that arrive at the clients.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A snapshot is on time if it arrives within this time after its tick.
pub(crate) const ON_TIME: Duration = Duration::from_millis(250);

/// The notes about all clients together. Times are in nanoseconds since 1970.
#[derive(Default)]
pub(super) struct Notes {
    /// The time at which each snapshot was composed, from the snapshot itself.
    pub(super) ticks: BTreeMap<u64, u64>,
    /// For each snapshot, the times at which its final byte reached the clients.
    pub(super) arrivals: BTreeMap<u64, Vec<u64>>,
    /// Number of snapshots that clients skipped, as the snapshots state it.
    pub(super) skipped: u64,
    /// Number of snapshots that sleepers skipped since the start.
    pub(super) skipped_by_sleepers: u64,
    pub(super) bytes: u64,
    /// Number of clients that have received a snapshot since the start.
    pub(super) served: usize,
    /// Number of connections that failed or ended since the start. `why_lost` is the newest reason.
    pub(super) lost: usize,
    pub(super) why_lost: Option<String>,
}

/// A report of all arrivals since the previous order to discard the notes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) skipped: u64,
    pub(crate) skipped_by_sleepers: u64,
    /// Bytes of the snapshots, without the additional bytes of TLS.
    pub(crate) bytes: u64,
    pub(crate) lost: usize,
}

/// The delivery of one snapshot to the clients.
#[derive(Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) seq: u64,
    /// The number of clients that received the snapshot.
    pub(crate) count: usize,
    /// The time from the first arrival to the last arrival.
    pub(crate) spread: Duration,
    /// The time from the tick to the last arrival. `None` if the tick is unknown.
    pub(crate) delay: Option<Duration>,
    /// The number of clients that received the snapshot on time.
    pub(crate) on_time: usize,
}

impl Notes {
    pub(super) fn forget(&mut self) {
        self.ticks.clear();
        self.arrivals.clear();
        (self.skipped, self.bytes) = (0, 0);
    }

    pub(super) fn report(&self) -> Report {
        let snapshot = |(&seq, arrivals): (&u64, &Vec<u64>)| {
            let first = arrivals.iter().min().copied().unwrap_or_default();
            let last = arrivals.iter().max().copied().unwrap_or_default();
            let tick = self.ticks.get(&seq).copied();
            let after =
                |moment: u64, since: u64| Duration::from_nanos(moment.saturating_sub(since));
            let on_time = |moment: &&u64| tick.is_some_and(|tick| after(**moment, tick) <= ON_TIME);
            Snapshot {
                seq,
                count: arrivals.len(),
                spread: after(last, first),
                delay: tick.map(|tick| after(last, tick)),
                on_time: arrivals.iter().filter(on_time).count(),
            }
        };
        Report {
            snapshots: self.arrivals.iter().map(snapshot).collect(),
            skipped: self.skipped,
            skipped_by_sleepers: self.skipped_by_sleepers,
            bytes: self.bytes,
            lost: self.lost,
        }
    }
}

impl Report {
    pub(crate) fn deliveries(&self) -> usize {
        self.snapshots.iter().map(|snapshot| snapshot.count).sum()
    }

    pub(crate) fn on_time(&self) -> usize {
        self.snapshots.iter().map(|snapshot| snapshot.on_time).sum()
    }

    /// The longest time from a tick to the last arrival of its snapshot.
    pub(crate) fn longest_delay(&self) -> Duration {
        let delays = self.snapshots.iter().filter_map(|snapshot| snapshot.delay);
        delays.max().unwrap_or(Duration::MAX)
    }
}

pub(crate) fn nanos(moment: SystemTime) -> u64 {
    let since = moment
        .duration_since(UNIX_EPOCH)
        .expect("the clock is before 1970");
    u64::try_from(since.as_nanos()).expect("the clock is after 2554")
}
