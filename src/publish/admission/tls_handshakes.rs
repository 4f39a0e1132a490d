//! Limit on concurrent TLS handshakes.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Limit on concurrent handshakes. The limit is low, so that each handshake completes soon and rustls needs little memory.
const MAX_HANDSHAKES: usize = 768;
/// Timeout of a handshake while the limit is reached. Here, a handshake includes everything from the ClientHello to the key.
///
/// TLS 1.2 takes two round trips. Over a satellite link, each round trip can take almost a second, and one packet can be lost.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Limits concurrent TLS handshakes.
#[derive(Debug)]
pub(in crate::publish) struct TlsHandshakes {
    permits: Semaphore,
}

impl Default for TlsHandshakes {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(MAX_HANDSHAKES),
        }
    }
}

impl TlsHandshakes {
    /// Waits for a permit, and then runs the handshake. Returns None if the handshake takes too long while the limit is reached.
    pub(in crate::publish) async fn run<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        let _permit = self.permits.acquire().await;
        let mut handshake = std::pin::pin!(handshake);
        loop {
            if let Ok(done) = timeout(HANDSHAKE_TIMEOUT, handshake.as_mut()).await {
                return Some(done);
            }
            // A released permit goes to a waiting handshake first. So a permit is available only if no handshake waits.
            if self.permits.available_permits() == 0 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, TlsHandshakes};

    fn begin<T: 'static>(
        handshakes: &Arc<TlsHandshakes>,
        handshake: impl Future<Output = T> + 'static,
    ) -> JoinHandle<Option<T>> {
        let handshakes = Arc::clone(handshakes);
        actix_rt::spawn(async move { handshakes.run(handshake).await })
    }

    /// Lets the runtime run all other tasks until each of them waits. Each `yield_now` lets dozens of other tasks run.
    async fn settle() {
        for _ in 0..MAX_HANDSHAKES {
            tokio::task::yield_now().await;
        }
    }

    #[actix::test]
    async fn cancelled_handshakes_return_their_permits() {
        tokio::time::pause();
        let handshakes = Arc::<TlsHandshakes>::default();
        for _ in 0..40 {
            // Half of the handshakes wait for a permit.
            let all: Vec<_> = (0..2 * MAX_HANDSHAKES)
                .map(|_| begin(&handshakes, future::pending::<()>()))
                .collect();
            settle().await;
            assert_eq!(handshakes.permits.available_permits(), 0);
            for one in all {
                one.abort();
            }
            settle().await;
        }
        assert_eq!(handshakes.permits.available_permits(), MAX_HANDSHAKES);
        // Below the limit, a handshake has no timeout.
        let slow = handshakes.run(sleep(Duration::from_secs(60)));
        assert_eq!(slow.await, Some(()));
    }

    #[actix::test]
    async fn at_the_limit_a_handshake_has_time_for_two_slow_round_trips() {
        tokio::time::pause();
        let handshakes = Arc::<TlsHandshakes>::default();
        let silent = |_| begin(&handshakes, future::pending::<()>());
        let before: Vec<_> = (1..MAX_HANDSHAKES).map(silent).collect();
        settle().await;
        let round_trip = Duration::from_millis(800);
        let slow = begin(&handshakes, sleep(2 * round_trip));
        settle().await;
        let after: Vec<_> = (0..1000).map(silent).collect();
        assert_eq!(slow.await.unwrap(), Some(()));
        // Silent handshakes time out so that waiting handshakes can begin. At most one silent handshake times out without need.
        for one in before {
            let ended = timeout(Duration::from_secs(60), one).await;
            assert_eq!(ended.unwrap().unwrap(), None);
        }
        sleep(HANDSHAKE_TIMEOUT).await;
        settle().await;
        let ended = after.iter().filter(|one| one.is_finished()).count();
        let waited = after.len() - MAX_HANDSHAKES;
        assert!((waited..=waited + 1).contains(&ended), "{ended}");
    }
}
