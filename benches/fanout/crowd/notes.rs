//! What a crowd of clients has been sent, and when.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How long after its tick a snapshot is still on time.
pub(crate) const ON_TIME: Duration = Duration::from_millis(250);

/// Notes of all clients together. Moments are nanoseconds since 1970.
#[derive(Default)]
pub(super) struct Notes {
    /// When each snapshot was composed, by its own account.
    pub(super) ticks: BTreeMap<u64, u64>,
    /// When its last byte reached each client.
    pub(super) arrivals: BTreeMap<u64, Vec<u64>>,
    /// Snapshots that clients missed, by the server's account.
    pub(super) skipped: u64,
    /// What the sleepers missed, ever.
    pub(super) skipped_by_sleepers: u64,
    pub(super) bytes: u64,
    /// Clients that have had a snapshot, ever.
    pub(super) served: usize,
    /// Connections that failed or ended, ever, and why the last of them did.
    pub(super) lost: usize,
    pub(super) why_lost: Option<String>,
}

/// What has come since the notes were last forgotten.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) skipped: u64,
    pub(crate) skipped_by_sleepers: u64,
    /// Before TLS.
    pub(crate) bytes: u64,
    pub(crate) lost: usize,
}

/// How one snapshot reached the clients.
#[derive(Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) seq: u64,
    /// How many have it.
    pub(crate) count: usize,
    /// From the first of them to the last.
    pub(crate) spread: Duration,
    /// From its tick to the last of them; none where the tick is not known.
    pub(crate) delay: Option<Duration>,
    /// How many had it on time.
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

    /// The longest from a tick to the last client that had its snapshot.
    pub(crate) fn longest_delay(&self) -> Duration {
        let delays = self.snapshots.iter().filter_map(|snapshot| snapshot.delay);
        delays.max().unwrap_or(Duration::MAX)
    }
}

pub(crate) fn nanos(moment: SystemTime) -> u64 {
    let since = moment
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    u64::try_from(since.as_nanos()).expect("a clock before 2554")
}
