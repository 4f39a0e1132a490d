//! Admission: wrong keys and the number of clients count, and TLS handshakes take turns. And what the log says of connections
//! that are refused, or closed by their peers.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::{info, warn};

use super::origin::Origin;
use super::throttle::Throttle;
use crate::messages::Reports;

/// How many refused clients the log names in a second; of the others it says how many they were. A crowd would fill the
/// disk, and hide what else the log has to say.
const NAMED: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// What handshakes and listener share about who may come in.
#[derive(Debug)]
pub(in crate::publish) struct Door {
    throttle: Mutex<Throttle>,
    max_clients: usize,
    /// A permit for each client, held until its connection is closed.
    permits: Arc<Semaphore>,
    handshakes: Handshakes,
    refused: Mutex<Told>,
    closings: Mutex<Told>,
    reports: Arc<Reports>,
}

/// TLS handshakes under way: so few that each is done soon after it has begun, and that what rustls keeps of them is little,
/// however many wait for theirs.
#[derive(Debug)]
struct Handshakes {
    turns: Semaphore,
    waiting: AtomicUsize,
}

const HANDSHAKES_AT_ONCE: usize = 768;
/// How long one may take where others wait, from the client's hello to its key: two round trips with TLS 1.2, each of which may
/// take most of a second by satellite, and one packet that is lost.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);

/// One handshake that waits for its turn. It is counted for as long as this lives, as its future may be dropped meanwhile.
struct Waiting<'h>(&'h AtomicUsize);

impl<'h> Waiting<'h> {
    fn among(waiting: &'h AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the log was told of within a second.
#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    named: u32,
    unnamed: u64,
}

impl Door {
    /// For so many clients.
    pub(in crate::publish) fn new(max_clients: usize, reports: Arc<Reports>) -> Self {
        Self {
            throttle: Mutex::default(),
            max_clients,
            permits: Arc::new(Semaphore::new(max_clients)),
            handshakes: Handshakes {
                turns: Semaphore::new(HANDSHAKES_AT_ONCE),
                waiting: AtomicUsize::new(0),
            },
            refused: Mutex::default(),
            closings: Mutex::default(),
            reports,
        }
    }

    /// Does a TLS handshake when it is its turn. None where it took long while others waited.
    pub(in crate::publish) async fn in_turn<T>(
        &self,
        handshake: impl Future<Output = T>,
    ) -> Option<T> {
        let Handshakes { turns, waiting } = &self.handshakes;
        let turn = {
            let _waiting = Waiting::among(waiting);
            turns.acquire().await
        };
        let others_wait = async {
            loop {
                sleep(HANDSHAKE_WITHIN).await;
                if waiting.load(Ordering::Relaxed) > 0 {
                    return;
                }
            }
        };
        let done = tokio::select! {
            done = handshake => Some(done),
            () = others_wait => None,
        };
        drop(turn);
        done
    }

    /// Has the log say that a client was refused, and why.
    pub(in crate::publish) fn refused(&self, peer: SocketAddr, reason: &dyn Display) {
        let (named, unnamed) = lock(&self.refused).one_more(Instant::now());
        if unnamed > 0 {
            info!(clients = unnamed, "more clients refused than are named");
        }
        if named {
            info!(%peer, %reason, "client refused");
        }
    }

    /// Counts a connection that its peer closed before it had sent anything. The log tells of such once a minute at most.
    pub(in crate::publish) fn closed_early(&self, peer: SocketAddr) {
        if let Some(connections) = self.reports.closed_early(Instant::now()) {
            info!(connections, last_peer = %peer, "connections closed by their peers before anything was sent");
        }
    }

    /// Why a connection from there is closed unheard, if it is.
    pub(in crate::publish) fn may_enter(&self, origin: Origin) -> Result<(), &'static str> {
        if self.is_closed(origin) {
            return Err("too many wrong keys");
        }
        if self.permits.available_permits() == 0 {
            return Err("too many clients");
        }
        Ok(())
    }

    /// Whether too many wrong keys came from there.
    pub(in crate::publish) fn is_closed(&self, origin: Origin) -> bool {
        lock(&self.throttle).is_closed(origin, Instant::now())
    }

    /// How many clients there are.
    pub(in crate::publish) fn clients(&self) -> usize {
        self.max_clients
            .saturating_sub(self.permits.available_permits())
    }

    /// The permits of all clients.
    pub(in crate::publish) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// Takes note of a wrong key; the log says so where that closes its origin.
    pub(in crate::publish) fn wrong_key(&self, origin: Origin) {
        let closed_for = lock(&self.throttle).wrong_key(origin, Instant::now());
        let Some(closed_for) = closed_for else {
            return;
        };
        let (named, unnamed) = lock(&self.closings).one_more(Instant::now());
        if unnamed > 0 {
            warn!(addresses = unnamed, "more addresses closed than are named");
        }
        if named {
            warn!(%origin, closed_for = ?closed_for, "too many wrong keys: closed for a while");
        }
    }

    /// Forgives wrong keys that came from there.
    pub(in crate::publish) fn right_key(&self, origin: Origin) {
        lock(&self.throttle).right_key(origin);
    }

    /// A permit for a client that has shown a key; none where there are too many.
    pub(in crate::publish) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }
}

impl Told {
    /// Whether it is named, and how many were not in the seconds before.
    fn one_more(&mut self, now: Instant) -> (bool, u64) {
        let mut unnamed = 0;
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= SECOND)
        {
            unnamed = std::mem::take(self).unnamed;
            self.since = Some(now);
        }
        let is_named = self.named < NAMED;
        if is_named {
            self.named += 1;
        } else {
            self.unnamed += 1;
        }
        (is_named, unnamed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use tokio::time::{sleep, timeout};

    use super::{Door, HANDSHAKES_AT_ONCE, NAMED, SECOND, Told};

    /// Lets every task go on until it waits: the runtime runs some dozens of them between two turns of this one.
    async fn settle() {
        for _ in 0..HANDSHAKES_AT_ONCE {
            tokio::task::yield_now().await;
        }
    }

    #[actix::test]
    async fn handshakes_that_are_cancelled_leave_no_turn_behind_and_nobody_who_waits() {
        tokio::time::pause();
        let door = Arc::new(Door::new(1, Arc::default()));
        for round in 0..40 {
            // As many again wait for a turn.
            let all: Vec<_> = (0..2 * HANDSHAKES_AT_ONCE)
                .map(|_| {
                    let door = Arc::clone(&door);
                    actix_rt::spawn(async move { door.in_turn(future::pending::<()>()).await })
                })
                .collect();
            settle().await;
            let waiting = door.handshakes.waiting.load(Ordering::Relaxed);
            assert_eq!(waiting, HANDSHAKES_AT_ONCE, "round {round}");
            for one in all {
                one.abort();
            }
            settle().await;
        }
        assert_eq!(door.handshakes.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(
            door.handshakes.turns.available_permits(),
            HANDSHAKES_AT_ONCE
        );
        // A slow one has its time: nobody waits for its turn.
        let slow = door.in_turn(sleep(Duration::from_secs(60)));
        assert_eq!(slow.await, Some(()));
    }

    #[actix::test]
    async fn a_slow_handshake_has_time_for_two_round_trips_while_others_wait() {
        tokio::time::pause();
        let door = Arc::new(Door::new(1, Arc::default()));
        let silent = || {
            let door = Arc::clone(&door);
            actix_rt::spawn(async move { door.in_turn(future::pending::<()>()).await })
        };
        let before: Vec<_> = (1..HANDSHAKES_AT_ONCE).map(|_| silent()).collect();
        settle().await;
        let slow = {
            let door = Arc::clone(&door);
            let round_trip = Duration::from_millis(800);
            actix_rt::spawn(async move { door.in_turn(sleep(2 * round_trip)).await })
        };
        settle().await;
        let after: Vec<_> = (0..1000).map(|_| silent()).collect();
        assert_eq!(slow.await.unwrap(), Some(()));
        // The silent ones make room for those that wait, all of them in time.
        for one in before.into_iter().chain(after.into_iter().take(500)) {
            let ended = timeout(Duration::from_secs(60), one).await;
            assert_eq!(ended.unwrap().unwrap(), None);
        }
    }

    #[test]
    fn of_a_crowd_the_first_of_each_second_are_named_and_the_others_counted() {
        let mut refused = Told::default();
        let now = Instant::now();
        for _ in 0..NAMED {
            assert_eq!(refused.one_more(now), (true, 0));
        }
        for _ in 0..1000 {
            assert_eq!(refused.one_more(now), (false, 0));
        }
        assert_eq!(refused.one_more(now + SECOND), (true, 1000));
        assert_eq!(refused.one_more(now + SECOND), (true, 0));
        assert_eq!(refused.one_more(now + 5 * SECOND), (true, 0));
    }
}
