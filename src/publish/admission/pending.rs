//! Pending connections: accepted, and not authenticated yet.
//!
//! Their number is limited, overall and per address prefix. At a limit the oldest silent connections are evicted. A connection is
//! silent while the agent waits for its peer. A connection that waits for the agent is never evicted.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::address_prefix::AddressPrefix;

/// Limit on pending connections where the open files allow it. It exceeds the clients that reconnect at once after an outage of
/// the network.
pub const MAX_PENDING: usize = 16 * 1024;
/// One part in so many of the limit is evicted at once: an evicted connection takes a while to close, and the search for silent
/// connections passes all those that are not.
const EVICTED_PART: usize = 64;

/// Limits on the connections of one socket.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Pending connections.
    pub pending: usize,
    /// Pending connections and clients together.
    pub total: usize,
}

/// The state of a pending connection, shared with its stream.
#[derive(Debug, Default)]
pub(in crate::publish) struct PendingState {
    is_silent: AtomicBool,
    evicted: CancellationToken,
}

impl PendingState {
    /// Says whether the agent waits for the peer.
    pub(in crate::publish) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Completes when the connection is evicted.
    pub(in crate::publish) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

/// Identifies a pending connection. Ids increase with each connection.
pub(in crate::publish) type PendingId = u64;

/// Why a connection is not added.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::publish) enum AtLimit {
    /// The overall limit is reached. Connections are being evicted, or will be when they fall silent.
    Overall,
    /// The limit of the prefix is reached, and none of its connections is silent.
    Prefix,
}

/// All pending connections of one socket.
#[derive(Debug)]
pub(in crate::publish) struct PendingConnections {
    limits: ConnectionLimits,
    next_id: PendingId,
    /// In the order of arrival, without those that were evicted.
    connections: BTreeMap<PendingId, (AddressPrefix, Arc<PendingState>)>,
    /// Number of `connections` of each prefix.
    per_prefix: HashMap<AddressPrefix, usize>,
    /// Connections that were evicted and are not closed yet.
    closing: usize,
}

impl PendingConnections {
    pub(in crate::publish) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            next_id: 0,
            connections: BTreeMap::new(),
            per_prefix: HashMap::new(),
            closing: 0,
        }
    }

    /// Adds a connection beside this many clients. At a limit it evicts the oldest silent connections.
    ///
    /// # Errors
    /// When the connection must wait until another is closed, or is refused.
    pub(in crate::publish) fn add(
        &mut self,
        prefix: AddressPrefix,
        clients: usize,
    ) -> Result<(PendingId, Arc<PendingState>), AtLimit> {
        let total = self.limits.total.saturating_sub(clients);
        let limit = self.limits.pending.min(total).max(2);
        let is_full = self.connections.len() + self.closing >= limit;
        if is_full && self.closing > 0 {
            return Err(AtLimit::Overall);
        }
        let of_prefix = self.per_prefix.get(&prefix).copied().unwrap_or_default();
        let is_prefix_full = of_prefix >= limit.div_ceil(2);
        if is_full || is_prefix_full {
            let evicted = self.evict((limit / EVICTED_PART).max(1), |of| {
                !is_prefix_full || of == prefix
            });
            if is_full {
                return Err(AtLimit::Overall);
            }
            if evicted == 0 {
                return Err(AtLimit::Prefix);
            }
        }
        let (id, state) = (self.next_id, Arc::<PendingState>::default());
        self.next_id += 1;
        self.connections.insert(id, (prefix, Arc::clone(&state)));
        *self.per_prefix.entry(prefix).or_default() += 1;
        Ok((id, state))
    }

    /// Removes a connection that is closed or authenticated.
    pub(in crate::publish) fn remove(&mut self, id: PendingId) {
        if self.take(id).is_none() {
            self.closing -= 1;
        }
    }

    /// Evicts up to `count` silent connections of the selected prefixes, the oldest first. Returns their number.
    fn evict(&mut self, count: usize, selected: impl Fn(AddressPrefix) -> bool) -> usize {
        let evictable = self.connections.iter().filter(|(_, (prefix, state))| {
            state.is_silent.load(Ordering::Relaxed) && selected(*prefix)
        });
        let ids: Vec<PendingId> = evictable.map(|(id, _)| *id).take(count).collect();
        for id in &ids {
            if let Some(state) = self.take(*id) {
                state.evicted.cancel();
                self.closing += 1;
            }
        }
        ids.len()
    }

    fn take(&mut self, id: PendingId) -> Option<Arc<PendingState>> {
        let (prefix, state) = self.connections.remove(&id)?;
        if let Entry::Occupied(mut count) = self.per_prefix.entry(prefix) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::{AtLimit, ConnectionLimits, PendingConnections, PendingId, PendingState};
    use crate::publish::admission::address_prefix::AddressPrefix;

    type Added = (PendingId, Arc<PendingState>);

    fn limited_to(pending: usize) -> PendingConnections {
        let total = 1000;
        PendingConnections::new(ConnectionLimits { pending, total })
    }

    fn prefix(number: u32) -> AddressPrefix {
        AddressPrefix::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn busy(pending: &mut PendingConnections, from: u32) -> Added {
        pending.add(prefix(from), 0).unwrap()
    }

    fn silent(pending: &mut PendingConnections, from: u32) -> Added {
        let added = busy(pending, from);
        added.1.set_silent(true);
        added
    }

    fn is_full(pending: &mut PendingConnections, from: u32) -> bool {
        matches!(pending.add(prefix(from), 0), Err(AtLimit::Overall))
    }

    fn evicted(crowd: &[Added]) -> Vec<usize> {
        let is_evicted = |place: &usize| crowd[*place].1.evicted.is_cancelled();
        (0..crowd.len()).filter(is_evicted).collect()
    }

    #[test]
    fn one_prefix_takes_half() {
        let mut pending = limited_to(8);
        let crowd: Vec<_> = (0..4).map(|_| silent(&mut pending, 1)).collect();
        let newest = silent(&mut pending, 1);
        assert_eq!(evicted(&crowd), [0]);
        // No connection of another prefix is evicted for it.
        let others: Vec<_> = (2..5).map(|other| silent(&mut pending, other)).collect();
        assert_eq!((evicted(&crowd), evicted(&others)), (vec![0], vec![]));
        assert!(evicted(&[newest]).is_empty());
    }

    #[test]
    fn at_the_limit_the_oldest_silent_connection_is_evicted() {
        let mut pending = limited_to(4);
        let crowd: Vec<_> = (0..4).map(|number| silent(&mut pending, number)).collect();
        crowd[0].1.set_silent(false);
        // The new one is added once that connection is closed. No other is evicted meanwhile.
        for _ in 0..3 {
            assert!(is_full(&mut pending, 9));
            assert_eq!(evicted(&crowd), [1]);
        }
        pending.remove(crowd[1].0);
        busy(&mut pending, 9);
        assert!(is_full(&mut pending, 10));
        assert_eq!(evicted(&crowd), [1, 2]);
    }

    #[test]
    fn a_connection_that_waits_for_the_agent_is_not_evicted() {
        let mut pending = limited_to(4);
        let crowd: Vec<_> = (0..2).map(|_| busy(&mut pending, 1)).collect();
        assert_eq!(pending.add(prefix(1), 0).unwrap_err(), AtLimit::Prefix);
        // Other prefixes do not wait for that.
        let others: Vec<_> = (2..4).map(|other| busy(&mut pending, other)).collect();
        assert!(is_full(&mut pending, 5));
        assert_eq!((evicted(&crowd), evicted(&others)), (vec![], vec![]));
        pending.remove(crowd[1].0);
        busy(&mut pending, 1);
    }

    #[test]
    fn nothing_is_kept_of_connections_that_were_removed() {
        let mut pending = limited_to(8);
        let mut all = Vec::new();
        for number in 0..60 {
            if let Ok(added) = pending.add(prefix(number % 7), 0) {
                added.1.set_silent(true);
                all.push(added);
            }
        }
        for (id, _) in all {
            pending.remove(id);
        }
        assert!(pending.connections.is_empty() && pending.per_prefix.is_empty());
        assert_eq!(pending.closing, 0);
    }

    #[test]
    fn clients_leave_less_room_for_pending_connections() {
        let limits = ConnectionLimits {
            pending: 100,
            total: 10,
        };
        let mut pending = PendingConnections::new(limits);
        let crowd: Vec<_> = (0..4).map(|number| silent(&mut pending, number)).collect();
        assert_eq!(pending.add(prefix(9), 6).unwrap_err(), AtLimit::Overall);
        assert_eq!(evicted(&crowd), [0]);
        assert!(pending.add(prefix(9), 0).is_ok());
    }

    #[test]
    fn a_part_of_a_large_crowd_is_evicted_at_once() {
        let mut pending = limited_to(640);
        let crowd: Vec<_> = (0..640)
            .map(|number| silent(&mut pending, number))
            .collect();
        assert!(is_full(&mut pending, 1000));
        assert_eq!(evicted(&crowd), (0..10).collect::<Vec<_>>());
    }
}
