//! Calculates the pauses between retries.

use std::time::Duration;

/// The back-off: nominal pauses that double after each retry, from `first` up to `max`.
///
/// The real pause is random, from half of the nominal pause up to the nominal pause. So clients that lose a server at the same
/// time do not connect again at the same time.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates a back-off that starts at `first` and never exceeds `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            next: first,
        }
    }

    /// Returns the pause before the next retry.
    pub fn pause(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.max);
        jittered(nominal)
    }

    /// Makes the next pause the first pause again. Call this after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The back-off of a client that connects again: from 1 s to 30 s.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(30))
    }
}

/// Returns a random time from half of `pause` up to `pause`.
#[must_use]
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again_after_a_success() {
        let of =
            |first, max| Backoff::new(Duration::from_millis(first), Duration::from_millis(max));
        for (mut backoff, all) in [
            (of(500, 5000), [500, 1000, 2000, 4000, 5000, 5000, 5000]),
            (
                Backoff::default(),
                [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000],
            ),
        ] {
            for nominal in all {
                let nominal = Duration::from_millis(nominal);
                let pause = backoff.pause();
                assert!(pause >= nominal / 2 && pause <= nominal, "{pause:?}");
            }
            backoff.reset();
            assert!(backoff.pause() <= Duration::from_millis(all[0]));
        }
    }
}
