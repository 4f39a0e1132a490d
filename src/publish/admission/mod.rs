//! Admission control of a listening socket: decides which connections are accepted, refused or evicted.
//!
//! Connections and wrong keys are counted for each address prefix: an IPv4 address or a /64 network of IPv6.
//!
//! `PendingConnections` limits the number of pending connections. `TlsHandshakes` limits concurrent TLS handshakes. `FailedKeys`
//! blocks addresses that send wrong keys. Each client needs a permit, so the number of clients is limited. Log messages about
//! refused connections are rate-limited.

mod address_prefix;
mod failed_keys;
pub(super) mod first_input;
pub mod inbound;
mod log_limit;
mod pending;
mod tls_handshakes;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::messages::Reports;
use crate::settings::ServeSettings;
use address_prefix::AddressPrefix;
use failed_keys::FailedKeys;
use log_limit::LogLimit;
pub(super) use pending::PendingState;
use pending::{AtLimit, PendingConnections, PendingId};
pub use pending::{ConnectionLimits, MAX_PENDING};
use tls_handshakes::TlsHandshakes;

/// Limit on accepted connections whose task has not run yet. At the limit, new connections wait in the kernel's queue. While a
/// connection waits there, it needs no memory of the agent.
const MAX_UNSTARTED: usize = 512;
/// Maximum pause between two searches for silent connections at the limit.
///
/// No signal reports that a connection becomes silent. With such a signal, the agent would evict a connection immediately, even
/// if the peer is about to send.
const EVICTION_INTERVAL: Duration = Duration::from_millis(5);

/// Admission control of one listening socket.
#[derive(Debug)]
pub(in crate::publish) struct Admission {
    settings: Arc<ServeSettings>,
    pending: Mutex<PendingConnections>,
    /// Notified each time that a pending connection is closed or authenticated.
    removed: Notify,
    /// One permit for each of [`MAX_UNSTARTED`] connections.
    unstarted: Arc<Semaphore>,
    max_clients: usize,
    /// One permit for each possible client. A client holds its permit until its connection is closed.
    clients: Arc<Semaphore>,
    failed_keys: Mutex<FailedKeys>,
    tls_handshakes: TlsHandshakes,
    /// Rate limit for log messages about refused connections.
    refusals: Mutex<LogLimit>,
    /// Rate limit for log messages about blocked addresses.
    blocks: Mutex<LogLimit>,
    reports: Arc<Reports>,
}

/// A pending connection. Dropping this value removes the connection from the pending connections.
#[derive(Debug)]
pub(in crate::publish) struct PendingConnection {
    pub(in crate::publish) admission: Arc<Admission>,
    pub(in crate::publish) peer: SocketAddr,
    pub(in crate::publish) prefix: AddressPrefix,
    pub(in crate::publish) state: Arc<PendingState>,
    id: PendingId,
    /// The connection's permit of `Admission::unstarted`. None after the connection's task has started.
    unstarted: Option<OwnedSemaphorePermit>,
}

impl PendingConnection {
    /// Notes that the connection's task has started. Another connection can then be accepted.
    pub(in crate::publish) fn start(&mut self) {
        self.unstarted = None;
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        lock(&self.admission.pending).remove(self.id);
        self.admission.removed.notify_one();
    }
}

impl Admission {
    pub(in crate::publish) fn new(
        settings: Arc<ServeSettings>,
        limits: ConnectionLimits,
        max_clients: usize,
        reports: Arc<Reports>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            pending: Mutex::new(PendingConnections::new(limits)),
            removed: Notify::new(),
            unstarted: Arc::new(Semaphore::new(MAX_UNSTARTED)),
            max_clients,
            clients: Arc::new(Semaphore::new(max_clients)),
            failed_keys: Mutex::default(),
            tls_handshakes: TlsHandshakes::default(),
            refusals: Mutex::default(),
            blocks: Mutex::default(),
            reports,
        })
    }

    /// Adds an accepted connection to the pending connections. At the overall limit, waits until another connection is removed.
    ///
    /// # Errors
    /// Fails with the reason if the connection must be refused.
    pub(in crate::publish) async fn admit(
        self: &Arc<Self>,
        peer: SocketAddr,
    ) -> Result<PendingConnection, &'static str> {
        if !self.settings.whitelist.allows(peer.ip()) {
            return Err("not whitelisted");
        }
        let prefix = AddressPrefix::of(peer.ip());
        if self.is_blocked(prefix) {
            return Err("too many wrong keys");
        }
        if self.clients.available_permits() == 0 {
            return Err("too many clients");
        }
        // `acquire_owned` fails only if the semaphore is closed, and the agent never closes it.
        let unstarted = Arc::clone(&self.unstarted).acquire_owned().await.ok();
        loop {
            let clients = self
                .max_clients
                .saturating_sub(self.clients.available_permits());
            let added = lock(&self.pending).add(prefix, clients);
            match added {
                Ok((id, state)) => {
                    return Ok(PendingConnection {
                        admission: Arc::clone(self),
                        peer,
                        prefix,
                        state,
                        id,
                        unstarted,
                    });
                }
                Err(AtLimit::Prefix) => {
                    return Err("too many pending connections from this address");
                }
                Err(AtLimit::Overall) => {
                    let _ = timeout(EVICTION_INTERVAL, self.removed.notified()).await;
                }
            }
        }
    }

    /// Returns the limit on TLS handshakes.
    pub(in crate::publish) fn tls_handshakes(&self) -> &TlsHandshakes {
        &self.tls_handshakes
    }

    /// Returns the semaphore with one permit for each possible client.
    pub(in crate::publish) fn client_permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.clients)
    }

    /// Returns a permit for a client that has authenticated. Returns None if there are already too many clients.
    pub(in crate::publish) fn client_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.clients).try_acquire_owned().ok()
    }

    /// Whether a prefix is blocked because of wrong keys.
    pub(in crate::publish) fn is_blocked(&self, prefix: AddressPrefix) -> bool {
        lock(&self.failed_keys).is_blocked(prefix, Instant::now())
    }

    /// Counts a wrong key. If this key blocks the prefix, logs a warning, up to a limit of messages a second.
    pub(in crate::publish) fn wrong_key(&self, prefix: AddressPrefix) {
        let Some(block) = lock(&self.failed_keys).record(prefix, Instant::now()) else {
            return;
        };
        let (is_logged, suppressed) = lock(&self.blocks).next(Instant::now());
        if suppressed > 0 {
            warn!(
                addresses = suppressed,
                "further addresses were blocked and not logged"
            );
        }
        if is_logged {
            warn!(origin = %prefix, closed_for = ?block, "too many wrong keys: address blocked");
        }
    }

    /// Clears the wrong keys of a prefix.
    pub(in crate::publish) fn right_key(&self, prefix: AddressPrefix) {
        lock(&self.failed_keys).clear(prefix);
    }

    /// Logs that a connection is refused, up to a limit of messages a second.
    pub(in crate::publish) fn refused(&self, peer: SocketAddr, reason: &dyn Display) {
        let (is_logged, suppressed) = lock(&self.refusals).next(Instant::now());
        if suppressed > 0 {
            info!(
                clients = suppressed,
                "further clients were refused and not logged"
            );
        }
        if is_logged {
            info!(%peer, %reason, "client refused");
        }
    }

    /// Counts a connection that the peer closed without sending anything. Logs the number of such connections at most once a
    /// minute.
    pub(in crate::publish) fn closed_early(&self, peer: SocketAddr) {
        if let Some(connections) = self.reports.closed_early(Instant::now()) {
            info!(connections, last_peer = %peer, "connections closed by their peers before anything was sent");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A lock is poisoned only by a panic, and a panic ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Admission, MAX_UNSTARTED, PendingConnection};
    use crate::publish::admission::pending::ConnectionLimits;
    use crate::settings::Settings;

    #[actix::test]
    async fn connections_whose_tasks_have_not_run_are_limited() {
        let variables = [("API_KEY".into(), "0123456789abcdef".into())];
        let settings = Settings::from_env(variables.into_iter()).unwrap();
        let limits = ConnectionLimits {
            pending: usize::MAX,
            total: usize::MAX,
        };
        let admission = Admission::new(Arc::new(settings.serve), limits, 1, Arc::default());
        let next = async || -> Option<PendingConnection> {
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let admitted = timeout(Duration::from_millis(50), admission.admit(peer)).await;
            Some(admitted.ok()?.unwrap())
        };
        let mut all = Vec::new();
        for _ in 0..MAX_UNSTARTED {
            all.push(next().await.unwrap());
        }
        assert!(next().await.is_none());
        // One connection's task starts, and another connection is closed.
        all[0].start();
        all.pop();
        all.push(next().await.unwrap());
        all.push(next().await.unwrap());
        assert!(next().await.is_none());
    }
}
