//! Defines what a metric family is: code that reads figures of one kind. Runs the families so that a failed family loses only
//! its own figures.
//!
//! To add a family, write a file with its [`MetricFamily`], and add lines in [`super`], fields in [`SystemMetrics`] and rows in
//! `src/publish/figures.rs`. Figures from other programs (systemd, the GPU driver) are not families. [`super::HostSource`] reads
//! such figures.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::trace;

use super::containers::ContainerNames;
use super::guest::GuestFigures;
use crate::collect::causes::with_causes;
use crate::messages::ContainerVolumes;
use crate::model::SystemMetrics;

/// Minimum time between two readings of CPU time, because the kernel counts it in ticks of 10 ms: the error of a percentage is then at
/// most 3.3 percent of a core. A round that comes sooner publishes the previous figures.
pub(super) const MIN_CPU_INTERVAL: Duration = Duration::from_millis(300);

/// Code that reads figures of one kind. If a reading fails, the round has no new figures of this kind.
pub(super) trait MetricFamily: Send + 'static {
    /// The name of the family in the log and in `sources.system.error`.
    const NAME: &'static str;

    /// Whether the family compares a reading with the previous reading, for example for rates. A family that compares readings
    /// is read once before the first sample.
    const COMPARES: bool = false;

    /// The result of a reading.
    type Figures;

    /// The reason why a reading failed.
    type Error: StdError;

    /// Reads the figures. Blocks the thread while it reads files of the kernel.
    ///
    /// # Errors
    /// Fails if the file of the kernel cannot be read or is invalid. If the host does not have the figures, this is no failure.
    fn read(&mut self, round: &Round<'_>) -> Result<Self::Figures, Self::Error>;

    /// Writes the figures of a reading to the round's metrics.
    fn publish(&mut self, figures: Self::Figures, round: &mut Round<'_>);

    /// Writes the figures of the newest successful reading to the round's metrics. If a reading fails and those figures are not
    /// too old, this method is called instead of [`MetricFamily::publish`].
    fn publish_last(&self, _round: &mut Round<'_>) {}
}

/// A round that is running. A family can use the figures of families that were read earlier in the round.
pub(super) struct Round<'r> {
    /// The running containers.
    pub(super) names: &'r ContainerNames,
    /// The metrics of the previous round.
    pub(super) last: &'r SystemMetrics,
    /// The figures of the container that the agent measures. None if it measures a host, or if no limit of the container is
    /// smaller than the host.
    pub(super) guest: Option<GuestFigures>,
    /// Maximum age of the figures that are published for a failed family.
    stand_for: Duration,
    /// The number of file systems, block devices and network interfaces that the settings leave out.
    pub(super) excluded: u64,
    /// The volumes of containers that have a file system of their own.
    pub(super) volumes: Arc<ContainerVolumes>,
    /// The metrics of this round, so far.
    pub(super) metrics: SystemMetrics,
    /// The families that failed.
    pub(super) failures: Failures,
    /// The host's memory, in bytes. If this round cannot read the memory, it is the previous figure, or 0 without a previous
    /// figure.
    pub(super) memory_total: u64,
    /// The number of logical CPUs. None if it could not be read.
    pub(super) cpus: Option<u32>,
    /// The time when the host booted, in Unix seconds. None if it could not be read.
    pub(super) boot_time: Option<u64>,
    /// CPU time that all processes of the host have used since boot, in seconds. None if it could not be read.
    pub(super) busy: Option<f64>,
    /// CPU use of the engine's processes, in percent of one core. None if it is not known.
    pub(super) engine_cpu_percent: Option<f64>,
}

impl<'r> Round<'r> {
    /// Creates an empty round. `stand_for` is the maximum age of the figures that are published for a failed family.
    pub(super) fn new(
        names: &'r ContainerNames,
        last: &'r SystemMetrics,
        stand_for: Duration,
    ) -> Self {
        Self {
            names,
            last,
            guest: None,
            stand_for,
            excluded: 0,
            volumes: Arc::default(),
            metrics: SystemMetrics::default(),
            failures: Failures::default(),
            memory_total: 0,
            cpus: None,
            boot_time: None,
            busy: None,
            engine_cpu_percent: None,
        }
    }
}

/// A [`MetricFamily`] without the types of its figures and errors. With this trait, the sampler can store all families in one
/// list.
pub(super) trait AnyFamily: Send {
    /// Reads the family before the first sample, if the family compares readings. Ignores a failure, because the first sample
    /// reports the failure.
    fn read_baseline(&mut self, round: &Round<'_>);

    /// Reads the family into the round's metrics, or records the failure.
    fn collect(&mut self, round: &mut Round<'_>);
}

/// A family and the time of its newest successful reading.
struct TimedFamily<F> {
    family: F,
    /// The time of the newest successful reading. None before that reading, and after its figures have become too old.
    read_at: Option<Instant>,
}

/// Returns an entry for the sampler's list.
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

/// Calls `read` and logs how long the call took.
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

/// Reads a family once, outside of a round. For families that never fail and do not use the round.
#[cfg(test)]
pub(super) fn read_once<F: MetricFamily>(family: &mut F) -> F::Figures {
    let (names, last) = (ContainerNames::default(), SystemMetrics::default());
    let round = Round::new(&names, &last, Duration::ZERO);
    family.read(&round).unwrap()
}

/// The families that failed in a round, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<String>);

impl Failures {
    /// Records the reason why a family failed.
    pub(super) fn note(&mut self, family: &str, reason: &str) {
        self.0.push(format!("{family}: {reason}"));
    }

    /// Returns all failures as one text, separated by `; `. Returns none if no family failed.
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

    /// A family whose readings return these outcomes one after another. None means that the reading fails.
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

    /// Runs one round. Returns the published figure and the error.
    fn collect(family: &mut dyn AnyFamily, stand_for: Duration) -> (u64, Option<String>) {
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        let mut round = Round::new(&names, &last, stand_for);
        family.collect(&mut round);
        round.failures.note("network", "odd");
        (round.metrics.uptime, round.failures.error())
    }

    #[test]
    fn the_error_names_the_failed_family_and_the_reason() {
        let mut family = scripted(&[Some(7), None]);
        let (figure, error) = collect(&mut *family, Duration::ZERO);
        assert_eq!((figure, error.as_deref()), (7, Some("network: odd")));
        let (_, error) = collect(&mut *family, Duration::ZERO);
        let expected = "scripted: cannot read the script: Too many open files in system (os error 23); network: odd";
        assert_eq!(error.as_deref(), Some(expected));
    }

    #[test]
    fn a_failed_family_publishes_its_previous_figures_for_a_limited_time() {
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
    fn a_baseline_is_not_published() {
        let mut family = scripted(&[Some(1), None]);
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        family.read_baseline(&Round::new(&names, &last, Duration::ZERO));
        assert_eq!(collect(&mut *family, Duration::from_secs(60)).0, 0);
    }
}
