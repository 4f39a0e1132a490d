//! The pending connections of a socket. A pending connection is accepted, but not authenticated yet.
//!
//! An HTTP connection of a scraper stays pending until it is closed.
//!
//! The number of pending connections is limited, overall and for each address prefix. An address prefix is an IPv4 address or a
//! /64 network of IPv6. One prefix can have half of the overall limit. At a limit, the oldest silent connections are evicted.
//!
//! A connection is silent while the agent waits for the peer. The agent waits until the peer sends input, or until the peer
//! accepts bytes. While the agent still has input of a connection to process, it never evicts that connection.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::address_prefix::AddressPrefix;

/// Limit on pending connections. If the limit on open files is low, fewer pending connections are possible.
///
/// The limit is higher than the default of `MAX_CLIENTS`. All these clients can reconnect at the same time after a network
/// outage.
pub const MAX_PENDING: usize = 16 * 1024;
/// One eviction closes at most `limit / 64` connections, or one connection if the limit is below 128.
///
/// One connection per eviction would be too slow. An evicted connection takes a while to close. At the overall limit, the next
/// eviction must wait for it. Each eviction also searches all connections.
const EVICTION_DIVISOR: usize = 64;

/// Limits on the connections of one socket.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Limit on pending connections.
    pub pending: usize,
    /// Limit on pending connections and clients together.
    pub total: usize,
}

/// The state of a pending connection. The TCP stream of the connection shares this state, and sets whether the connection is
/// silent.
#[derive(Debug, Default)]
pub(in crate::publish) struct PendingState {
    is_silent: AtomicBool,
    evicted: CancellationToken,
}

impl PendingState {
    /// Sets whether the agent waits for the peer.
    pub(in crate::publish) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Completes when the connection is evicted.
    pub(in crate::publish) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

/// The number of a pending connection. Later connections have higher numbers.
pub(in crate::publish) type PendingId = u64;

/// The reason why a connection is not added.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::publish) enum AtLimit {
    /// The overall limit is reached. Evicted connections are not closed yet, or no connection that can be evicted is silent now.
    /// If the prefix is at its limit too, only connections of the prefix can be evicted. The caller must try again.
    Overall,
    /// The limit for the prefix is reached, and no connection of the prefix is silent. The caller must refuse the connection.
    Prefix,
}

/// All pending connections of one socket.
#[derive(Debug)]
pub(in crate::publish) struct PendingConnections {
    limits: ConnectionLimits,
    next_id: PendingId,
    /// All pending connections that are not evicted, in the order of arrival.
    connections: BTreeMap<PendingId, (AddressPrefix, Arc<PendingState>)>,
    /// Number of entries in `connections` for each prefix.
    per_prefix: HashMap<AddressPrefix, usize>,
    /// Number of connections that are evicted but not closed yet.
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

    /// Adds a connection. At a limit, evicts the oldest silent connections. `clients` is the current number of clients.
    ///
    /// # Errors
    /// Fails if the connection must wait until another connection is closed, or if the connection must be refused.
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
            let evicted = self.evict((limit / EVICTION_DIVISOR).max(1), |of| {
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

    /// Removes a connection when it is closed or authenticated.
    pub(in crate::publish) fn remove(&mut self, id: PendingId) {
        if self.take(id).is_none() {
            self.closing -= 1;
        }
    }

    /// Evicts up to `count` silent connections of the selected prefixes, oldest first. Returns the number of evicted connections.
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
    fn one_prefix_can_have_half_of_all_pending_connections() {
        let mut pending = limited_to(8);
        let crowd: Vec<_> = (0..4).map(|_| silent(&mut pending, 1)).collect();
        let newest = silent(&mut pending, 1);
        assert_eq!(evicted(&crowd), [0]);
        // Connections of other prefixes do not cause an eviction, and are not evicted.
        let others: Vec<_> = (2..5).map(|other| silent(&mut pending, other)).collect();
        assert_eq!((evicted(&crowd), evicted(&others)), (vec![0], vec![]));
        assert!(evicted(&[newest]).is_empty());
    }

    #[test]
    fn at_the_limit_the_oldest_silent_connection_is_evicted() {
        let mut pending = limited_to(4);
        let crowd: Vec<_> = (0..4).map(|number| silent(&mut pending, number)).collect();
        crowd[0].1.set_silent(false);
        // Until the evicted connection is closed, the new connection waits, and no other connection is evicted.
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
    fn a_connection_whose_input_the_agent_processes_is_not_evicted() {
        let mut pending = limited_to(4);
        let crowd: Vec<_> = (0..2).map(|_| busy(&mut pending, 1)).collect();
        assert_eq!(pending.add(prefix(1), 0).unwrap_err(), AtLimit::Prefix);
        // Connections of other prefixes are still added.
        let others: Vec<_> = (2..4).map(|other| busy(&mut pending, other)).collect();
        assert!(is_full(&mut pending, 5));
        assert_eq!((evicted(&crowd), evicted(&others)), (vec![], vec![]));
        pending.remove(crowd[1].0);
        busy(&mut pending, 1);
    }

    #[test]
    fn no_entry_is_left_when_all_connections_are_removed() {
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
    fn clients_reduce_the_limit_on_pending_connections() {
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
    fn at_a_high_limit_several_connections_are_evicted_at_the_same_time() {
        let mut pending = limited_to(640);
        let crowd: Vec<_> = (0..640)
            .map(|number| silent(&mut pending, number))
            .collect();
        assert!(is_full(&mut pending, 1000));
        assert_eq!(evicted(&crowd), (0..10).collect::<Vec<_>>());
    }
}
