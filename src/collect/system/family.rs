//! Metric families: one that cannot be read costs its own figures only.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use tracing::trace;

use crate::collect::with_causes;

/// The families that could not be read in a round, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<String>);

impl Failures {
    /// Reads a family, and notes the reason where that fails. The log tells how long it took.
    pub(super) fn read<T, E: StdError>(
        &mut self,
        family: &'static str,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        let started = Instant::now();
        let outcome = read();
        trace!(
            family,
            duration_us = started.elapsed().as_micros() as u64,
            "read"
        );
        match outcome {
            Ok(figures) => Some(figures),
            Err(error) => {
                self.note(family, &with_causes(&error));
                None
            }
        }
    }

    /// Notes why a family has no figures.
    pub(super) fn note(&mut self, family: &str, reason: &str) {
        self.0.push(format!("{family}: {reason}"));
    }

    /// One sentence about all of them; none where every family was read.
    pub(super) fn error(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// Figures that every snapshot has. While their family fails, the last ones stand for a while.
#[derive(Debug)]
pub(super) struct Standing<T> {
    last: Option<(T, Instant)>,
}

impl<T> Default for Standing<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Clone> Standing<T> {
    /// The figures of this round, or the last ones where those are not older than `stand_for`.
    pub(super) fn now(&mut self, read: Option<T>, stand_for: Duration) -> Option<T> {
        let now = Instant::now();
        match read {
            Some(figures) => self.last = Some((figures, now)),
            None => self.last = self.last.take().filter(|(_, at)| now - *at <= stand_for),
        }
        self.last.as_ref().map(|(figures, _)| figures.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::{Failures, Standing};

    #[test]
    fn a_family_that_fails_is_named_with_the_reason() {
        let mut failures = Failures::default();
        assert_eq!(failures.read("memory", || Ok::<_, io::Error>(7)), Some(7));
        assert_eq!(failures.error(), None);
        let full = || Err::<u8, _>(io::Error::from_raw_os_error(libc::ENFILE));
        assert_eq!(failures.read("disk_io", full), None);
        failures.note("network", "odd");
        let expected = "disk_io: Too many open files in system (os error 23); network: odd";
        assert_eq!(failures.error().as_deref(), Some(expected));
    }

    #[test]
    fn the_last_figures_stand_for_a_while() {
        let mut standing = Standing::default();
        let minute = Duration::from_secs(60);
        assert_eq!(standing.now(None::<u8>, minute), None);
        assert_eq!(standing.now(Some(1), minute), Some(1));
        assert_eq!(standing.now(None, minute), Some(1));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(standing.now(None, Duration::from_millis(1)), None);
        assert_eq!(standing.now(None, minute), None);
        assert_eq!(standing.now(Some(2), minute), Some(2));
    }
}
