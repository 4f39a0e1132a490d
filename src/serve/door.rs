//! Who may come in, as far as that is not settled for ever: wrong keys and the number of clients count.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::origin::Origin;
use super::throttle::Throttle;

/// What handshakes and listener share about who may come in.
#[derive(Debug)]
pub(super) struct Door {
    throttle: Mutex<Throttle>,
    /// A permit for each client, held until its connection is closed.
    permits: Arc<Semaphore>,
}

impl Door {
    /// For so many clients.
    pub(super) fn new(max_clients: usize) -> Self {
        Self {
            throttle: Mutex::default(),
            permits: Arc::new(Semaphore::new(max_clients)),
        }
    }

    /// Why a connection from there is closed unheard, if it is.
    pub(super) fn may_enter(&self, origin: Origin) -> Result<(), &'static str> {
        if self.throttle().is_closed(origin, Instant::now()) {
            return Err("too many wrong keys");
        }
        if self.permits.available_permits() == 0 {
            return Err("too many clients");
        }
        Ok(())
    }

    /// The permits of all clients.
    pub(super) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// Takes note of a wrong key; the log says so where that closes its origin.
    pub(super) fn wrong_key(&self, origin: Origin) {
        let closed_for = self.throttle().wrong_key(origin, Instant::now());
        if let Some(closed_for) = closed_for {
            warn!(%origin, closed_for = ?closed_for, "too many wrong keys: closed for a while");
        }
    }

    /// Forgives wrong keys that came from there.
    pub(super) fn right_key(&self, origin: Origin) {
        self.throttle().right_key(origin);
    }

    /// A permit for a client that has shown a key; none where there are too many.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // A panic ends the process.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
