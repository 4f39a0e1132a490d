//! Pauses between tries at something that fails.

use std::time::Duration;

/// Doubling pauses with jitter, from `first` to `longest`.
///
/// Each pause lies between half and the whole of its nominal length: clients that lost a server together do not return
/// together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never exceeds `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.longest);
        jittered(nominal)
    }

    /// After a success, the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The pauses of a client that connects again: a second at first, half a minute at most.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(30))
    }
}

/// A random time between half of `pause` and the whole.
#[must_use]
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn doubles_up_to_the_longest_and_starts_again_after_a_success() {
        let of = |first, longest| {
            Backoff::new(Duration::from_millis(first), Duration::from_millis(longest))
        };
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
