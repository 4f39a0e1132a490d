//! The contract of metric families, and what every family has in common: a family that cannot be read costs its own figures
//! only.
//!
//! A new family takes a file with its [`MetricFamily`], its lines in [`super`], fields of [`SystemMetrics`] and rows in
//! `src/publish/figures.rs`. Figures that another program is asked for (systemd, the GPU driver) are no families: see
//! [`super::HostSource`].

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use tracing::trace;

use super::containers::ContainerNames;
use crate::collect::causes::with_causes;
use crate::model::SystemMetrics;

/// Figures that are read together, and fail together.
pub(super) trait MetricFamily: Send + 'static {
    /// Its name in the log and in `sources.system.error`.
    const NAME: &'static str;

    /// Whether its figures compare with the reading before. It is then read once before the first sample.
    const COMPARES: bool = false;

    /// What a reading yields.
    type Figures;

    /// Why it cannot be read.
    type Error: StdError;

    /// Reads it. Blocks.
    ///
    /// # Errors
    /// Its source cannot be read or makes no sense. That the host does not offer the figures is no error.
    fn read(&mut self, round: &Round<'_>) -> Result<Self::Figures, Self::Error>;

    /// Puts the figures of a reading in the round's metrics.
    fn publish(&mut self, figures: Self::Figures, round: &mut Round<'_>);

    /// Puts the figures of the last reading in the round's metrics. Called in place of [`MetricFamily::publish`] when the
    /// family fails, for as long as the last figures stand.
    fn publish_last(&self, _round: &mut Round<'_>) {}
}

/// A round in progress. A family finds the figures of the families before it in the list here.
pub(super) struct Round<'r> {
    /// The running containers.
    pub(super) names: &'r ContainerNames,
    /// The metrics of the last round that was published.
    pub(super) last: &'r SystemMetrics,
    /// How long the last figures of a family that fails are published.
    stand_for: Duration,
    /// The metrics of this round, so far.
    pub(super) metrics: SystemMetrics,
    /// Families that could not be read.
    pub(super) failures: Failures,
    /// The host's memory, in bytes; from the last reading while memory cannot be read, and 0 if there is none.
    pub(super) memory_total: u64,
    /// Logical CPUs; none where they could not be read.
    pub(super) cpus: Option<u32>,
    /// When the host booted, in Unix seconds.
    pub(super) boot_time: Option<u64>,
    /// CPU of the engine's processes, in percent of one core.
    pub(super) engine_cpu_percent: Option<f64>,
}

impl<'r> Round<'r> {
    /// A round in which nothing has been read. Figures of families that fail are published for `stand_for`.
    pub(super) fn new(
        names: &'r ContainerNames,
        last: &'r SystemMetrics,
        stand_for: Duration,
    ) -> Self {
        Self {
            names,
            last,
            stand_for,
            metrics: SystemMetrics::default(),
            failures: Failures::default(),
            memory_total: 0,
            cpus: None,
            boot_time: None,
            engine_cpu_percent: None,
        }
    }
}

/// A [`MetricFamily`] of any figures and errors, for the sampler's list.
pub(super) trait AnyFamily: Send {
    /// Reads what the first sample is compared with, where the family compares. Failures are ignored: the first
    /// sample names them.
    fn read_baseline(&mut self, round: &Round<'_>);

    /// Reads the family into the round's metrics, or notes why that failed.
    fn collect(&mut self, round: &mut Round<'_>);
}

/// A family, and when it was last read.
struct TimedFamily<F> {
    family: F,
    /// None once its last figures stand no longer.
    read_at: Option<Instant>,
}

/// An entry for the sampler's list.
pub(super) fn entry<F: MetricFamily>(family: F) -> Box<dyn AnyFamily> {
    Box::new(TimedFamily {
        family,
        read_at: None,
    })
}

impl<F: MetricFamily> AnyFamily for TimedFamily<F> {
    fn read_baseline(&mut self, round: &Round<'_>) {
        if F::COMPARES {
            let _ = self.family.read(round);
        }
    }

    fn collect(&mut self, round: &mut Round<'_>) {
        let outcome = timed(F::NAME, || self.family.read(round));
        let now = Instant::now();
        match outcome {
            Ok(figures) => {
                self.read_at = Some(now);
                self.family.publish(figures, round);
            }
            Err(error) => {
                round.failures.note(F::NAME, &with_causes(&error));
                self.read_at = self.read_at.filter(|at| now - *at <= round.stand_for);
                if self.read_at.is_some() {
                    self.family.publish_last(round);
                }
            }
        }
    }
}

/// Reads something, and logs how long that took.
pub(super) fn timed<T>(family: &'static str, read: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let outcome = read();
    trace!(
        family,
        duration_us = started.elapsed().as_micros() as u64,
        "read"
    );
    outcome
}

/// The families that could not be read in a round, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<String>);

impl Failures {
    /// Notes why a family has no figures.
    pub(super) fn note(&mut self, family: &str, reason: &str) {
        self.0.push(format!("{family}: {reason}"));
    }

    /// One sentence about all of them; none where every family was read.
    pub(super) fn error(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::time::Duration;

    use super::{AnyFamily, ContainerNames, MetricFamily, Round, SystemMetrics, entry};

    /// Yields its outcomes in turn.
    struct Scripted {
        outcomes: VecDeque<Option<u64>>,
        last: u64,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the script")]
    struct ScriptError(#[source] io::Error);

    impl MetricFamily for Scripted {
        const NAME: &'static str = "scripted";
        const COMPARES: bool = true;

        type Figures = u64;
        type Error = ScriptError;

        fn read(&mut self, _round: &Round<'_>) -> Result<u64, ScriptError> {
            let full = || ScriptError(io::Error::from_raw_os_error(libc::ENFILE));
            self.outcomes.pop_front().unwrap().ok_or_else(full)
        }

        fn publish(&mut self, figures: u64, round: &mut Round<'_>) {
            self.last = figures;
            self.publish_last(round);
        }

        fn publish_last(&self, round: &mut Round<'_>) {
            round.metrics.uptime = self.last;
        }
    }

    fn scripted(outcomes: &[Option<u64>]) -> Box<dyn AnyFamily> {
        entry(Scripted {
            outcomes: outcomes.iter().copied().collect(),
            last: 0,
        })
    }

    /// The figure that is published, and the error.
    fn collect(family: &mut dyn AnyFamily, stand_for: Duration) -> (u64, Option<String>) {
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        let mut round = Round::new(&names, &last, stand_for);
        family.collect(&mut round);
        round.failures.note("network", "odd");
        (round.metrics.uptime, round.failures.error())
    }

    #[test]
    fn a_family_that_fails_is_named_with_the_reason() {
        let mut family = scripted(&[Some(7), None]);
        let (figure, error) = collect(&mut *family, Duration::ZERO);
        assert_eq!((figure, error.as_deref()), (7, Some("network: odd")));
        let (_, error) = collect(&mut *family, Duration::ZERO);
        let expected = "scripted: cannot read the script: Too many open files in system (os error 23); network: odd";
        assert_eq!(error.as_deref(), Some(expected));
    }

    #[test]
    fn the_last_figures_stand_for_a_while() {
        let mut family = scripted(&[None, Some(1), None, None, None, Some(2)]);
        let minute = Duration::from_secs(60);
        assert_eq!(collect(&mut *family, minute).0, 0);
        assert_eq!(collect(&mut *family, minute).0, 1);
        assert_eq!(collect(&mut *family, minute).0, 1);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(collect(&mut *family, Duration::from_millis(1)).0, 0);
        assert_eq!(collect(&mut *family, minute).0, 0);
        assert_eq!(collect(&mut *family, minute).0, 2);
    }

    #[test]
    fn a_baseline_is_read_and_not_published() {
        let mut family = scripted(&[Some(1), None]);
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        family.read_baseline(&Round::new(&names, &last, Duration::ZERO));
        assert_eq!(collect(&mut *family, Duration::from_secs(60)).0, 0);
    }
}
