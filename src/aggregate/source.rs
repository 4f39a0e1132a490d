//! The newest sample and the health of one source. The aggregator has such a state for each source.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::messages::Collected;
use crate::model::{SourceHealth, SourceStatus, Timestamp};

/// Time that is added to three intervals of a source. If no round of the source ends within the sum, the source is failing.
/// Figures that are older than the sum are removed. A round in which every call reaches its deadline ends within this time.
const SILENCE_MARGIN: Duration = Duration::from_secs(15);

/// Time that is added to two intervals of a source. Figures that are older than the sum are not current.
const CURRENT_MARGIN: Duration = Duration::from_secs(1);

/// The newest sample of one source, and the health of the source.
#[derive(Debug, Clone)]
pub struct SourceState<T> {
    name: &'static str,
    /// The configured interval. None if the source is disabled.
    interval: Option<Duration>,
    /// The interval in use, if it is longer than the configured interval. None if the configured interval is in use.
    stretched: Option<Duration>,
    sample: Option<T>,
    collected_at: Option<Timestamp>,
    duration: Option<Duration>,
    error: Option<String>,
    /// The time at which the newest sample arrived.
    sampled: Option<Instant>,
    /// The time at which the newest round ended, with or without a sample.
    answered: Option<Instant>,
}

impl<T> SourceState<T> {
    /// Creates the state of a source that is read every `interval`.
    #[must_use]
    pub fn enabled(name: &'static str, interval: Duration) -> Self {
        Self {
            interval: Some(interval),
            ..Self::disabled(name)
        }
    }

    /// Creates the state of a source that the settings switch off.
    #[must_use]
    pub fn disabled(name: &'static str) -> Self {
        Self {
            name,
            interval: None,
            stretched: None,
            sample: None,
            collected_at: None,
            duration: None,
            error: None,
            sampled: None,
            answered: None,
        }
    }

    /// Returns the maximum time between the ends of two rounds. After a longer time, the source is failing. Returns None if the
    /// source is disabled.
    fn max_silence(&self) -> Option<Duration> {
        let interval = self.stretched.or(self.interval)?;
        Some(interval * 3 + SILENCE_MARGIN)
    }

    /// Stores the result of a round. Logs a message only if the health or the interval of the source changes.
    pub fn update(&mut self, collected: Collected<T>) {
        let now = Instant::now();
        self.note_health(collected.error);
        self.note_pace(collected.stretched);
        self.answered = Some(now);
        self.duration = Some(collected.duration);
        if let Some(sample) = collected.sample {
            self.sample = Some(sample);
            self.sampled = Some(now);
            self.collected_at = Some(Timestamp(collected.collected_at));
        }
    }

    /// Sets the configured interval, for a source that is read more often while somebody wants its figures.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = Some(interval);
    }

    /// Replaces the newest sample between two rounds. Does nothing if there is none.
    pub(super) fn replace_sample(&mut self, sample: T) {
        if self.sample.is_some() {
            self.sample = Some(sample);
        }
    }

    /// Marks the source as failing if no round has ended for too long. Removes the sample if it is too old.
    pub(super) fn note_silence(&mut self, now: Instant) {
        let Some(max_silence) = self.max_silence() else {
            return;
        };
        let too_old = |moment: Option<Instant>| {
            moment.is_some_and(|moment| now.saturating_duration_since(moment) > max_silence)
        };
        if too_old(self.sampled) {
            self.sample = None;
            self.sampled = None;
            self.collected_at = None;
        }
        if too_old(self.answered) {
            let seconds = max_silence.as_secs();
            self.note_health(Some(format!(
                "no round has ended for more than {seconds} s"
            )));
        }
    }

    fn note_health(&mut self, error: Option<String>) {
        match (&self.error, &error) {
            (None, Some(error)) => warn!(source = self.name, error, "source failing"),
            (Some(_), None) => info!(source = self.name, "source recovered"),
            _ => {}
        }
        self.error = error;
    }

    fn note_pace(&mut self, stretched: Option<Duration>) {
        match (self.stretched, stretched) {
            (None, Some(interval)) => warn!(
                source = self.name,
                ?interval,
                "source is read less often: its rounds take longer than half of its interval"
            ),
            (Some(_), None) => info!(
                source = self.name,
                "source is read at its configured interval again"
            ),
            _ => {}
        }
        self.stretched = stretched;
    }

    /// Returns whether the newest round has read a sample, and has ended not long ago.
    pub(super) fn is_current(&self, now: Instant) -> bool {
        let interval = self.stretched.or(self.interval).unwrap_or_default();
        let is_new = |sampled: Instant| {
            now.saturating_duration_since(sampled) <= interval * 2 + CURRENT_MARGIN
        };
        self.sampled == self.answered && self.sampled.is_some_and(is_new)
    }

    /// Returns the newest sample. Returns None if there is no sample, or if the sample was too old.
    pub(super) fn sample(&self) -> Option<&T> {
        self.sample.as_ref()
    }

    /// Whether the source has finished its first round. Also true if the source is disabled. A failed round counts.
    pub(super) fn has_answered(&self) -> bool {
        self.interval.is_none() || self.answered.is_some()
    }

    /// Returns the entry of the source in the field `sources` of the snapshot, without `via` and `via_reason`.
    pub(super) fn health(&self) -> SourceHealth {
        let unanswered = || (!self.has_answered()).then(|| "no round has ended yet".to_owned());
        let error = self.error.clone().or_else(unanswered);
        SourceHealth {
            status: match (&self.interval, &error) {
                (None, _) => SourceStatus::Disabled,
                (Some(_), Some(_)) => SourceStatus::Failing,
                (Some(_), None) => SourceStatus::Ok,
            },
            collected_at: self.collected_at,
            duration_ms: self.duration.map(milliseconds),
            interval_ms: self.stretched.or(self.interval).map(milliseconds),
            interval_reason: self.stretched.zip(self.interval).map(|(_, interval)| {
                format!("rounds take longer than half of the configured {interval:?}")
            }),
            error,
            via: None,
            excluded: None,
            via_reason: None,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::{SILENCE_MARGIN, SourceState};
    use crate::messages::Collected;
    use crate::model::SourceStatus;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn round(sample: Option<u32>, error: Option<&str>) -> Collected<u32> {
        Collected {
            sample,
            error: error.map(str::to_owned),
            collected_at: SystemTime::now(),
            duration: Duration::from_millis(12),
            stretched: None,
        }
    }

    #[test]
    fn a_source_is_failing_until_it_answers() {
        let mut state = SourceState::enabled("test", INTERVAL);
        assert_eq!(state.health().status, SourceStatus::Failing);
        assert_eq!(
            state.health().error.as_deref(),
            Some("no round has ended yet")
        );
        state.update(round(Some(1), None));
        let health = state.health();
        assert_eq!((health.status, health.error), (SourceStatus::Ok, None));
        assert_eq!(health.duration_ms, Some(12));
    }

    #[test]
    fn the_sample_of_a_failing_source_stays_for_a_limited_time() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), None));
        let collected_at = state.health().collected_at;
        state.update(round(None, Some("engine does not answer")));
        state.note_silence(Instant::now() + INTERVAL);
        assert_eq!(state.sample(), Some(&1));
        assert_eq!(state.health().collected_at, collected_at);
        assert_eq!(
            state.health().error.as_deref(),
            Some("engine does not answer")
        );

        state.note_silence(Instant::now() + INTERVAL * 3 + SILENCE_MARGIN * 2);
        assert_eq!(state.sample(), None);
        assert_eq!(state.health().collected_at, None);
    }

    #[test]
    fn only_the_sample_of_the_newest_round_is_current() {
        let mut state = SourceState::enabled("test", INTERVAL);
        assert!(!state.is_current(Instant::now()));
        state.update(round(Some(1), Some("a part failed")));
        let now = Instant::now();
        assert!(state.is_current(now));
        assert!(state.is_current(now + INTERVAL * 2));
        assert!(!state.is_current(now + INTERVAL * 2 + SILENCE_MARGIN));
        state.update(round(None, Some("engine does not answer")));
        assert_eq!(state.sample(), Some(&1));
        assert!(!state.is_current(Instant::now()));
        assert!(!SourceState::<u32>::disabled("test").is_current(Instant::now()));
    }

    #[test]
    fn a_silent_source_is_failing() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), None));
        state.note_silence(Instant::now() + INTERVAL * 3 + SILENCE_MARGIN * 2);
        assert_eq!(state.health().status, SourceStatus::Failing);
        state.update(round(Some(2), None));
        assert_eq!(state.health().status, SourceStatus::Ok);
    }

    #[test]
    fn a_round_that_failed_in_part_has_a_sample_and_an_error() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), Some("statistics of /web: no answer")));
        assert_eq!(state.sample(), Some(&1));
        assert_eq!(state.health().status, SourceStatus::Failing);
    }

    #[test]
    fn a_source_with_a_longer_interval_shows_the_reason_and_can_be_silent_for_longer() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), None));
        let health = state.health();
        assert_eq!(
            (health.interval_ms, health.interval_reason),
            (Some(5000), None)
        );
        state.update(Collected {
            stretched: Some(INTERVAL * 4),
            ..round(Some(2), None)
        });
        let health = state.health();
        assert_eq!(health.interval_ms, Some(20_000));
        assert_eq!(
            health.interval_reason.as_deref(),
            Some("rounds take longer than half of the configured 5s")
        );
        state.note_silence(Instant::now() + INTERVAL * 3 + SILENCE_MARGIN * 2);
        assert_eq!(state.health().status, SourceStatus::Ok);
    }

    #[test]
    fn the_interval_in_use_decides_when_a_source_is_silent() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.set_interval(INTERVAL * 12);
        state.update(round(Some(1), None));
        assert_eq!(state.health().interval_ms, Some(60_000));
        let start = Instant::now();
        state.note_silence(start + INTERVAL * 36);
        assert_eq!(
            (state.health().status, state.sample()),
            (SourceStatus::Ok, Some(&1))
        );
        state.set_interval(INTERVAL);
        state.note_silence(start + INTERVAL * 36);
        assert_eq!(
            (state.health().status, state.sample()),
            (SourceStatus::Failing, None)
        );
    }

    #[test]
    fn a_disabled_source_never_fails() {
        let mut state = SourceState::<u32>::disabled("test");
        state.note_silence(Instant::now() + INTERVAL * 1000);
        assert!(state.has_answered());
        assert_eq!(state.health().status, SourceStatus::Disabled);
        assert_eq!(state.health().error, None);
    }
}
