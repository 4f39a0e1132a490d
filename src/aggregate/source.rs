//! What the aggregator knows of one source.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::messages::Collected;
use crate::model::{SourceHealth, SourceStatus, Timestamp};

/// On top of three intervals: how long a source may be silent, or its last figures shown while
/// it fails. Covers a round in which every deadline is hit.
const PATIENCE: Duration = Duration::from_secs(15);

/// The newest sample of one source, and how the source is doing.
#[derive(Debug, Clone)]
pub struct SourceState<T> {
    name: &'static str,
    /// The time between its rounds as it was configured; none where the source is switched off.
    interval: Option<Duration>,
    /// The time between its rounds where it is more than that.
    stretched: Option<Duration>,
    sample: Option<T>,
    collected_at: Option<Timestamp>,
    duration: Option<Duration>,
    error: Option<String>,
    /// When the newest sample came, and when the last word of any kind.
    sampled: Option<Instant>,
    heard: Option<Instant>,
}

impl<T> SourceState<T> {
    /// A source that is read every `interval`.
    #[must_use]
    pub fn enabled(name: &'static str, interval: Duration) -> Self {
        Self {
            interval: Some(interval),
            ..Self::disabled(name)
        }
    }

    /// A source that is switched off.
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
            heard: None,
        }
    }

    /// How long it may go without a word.
    fn silence(&self) -> Option<Duration> {
        let interval = self.stretched.or(self.interval)?;
        Some(interval * 3 + PATIENCE)
    }

    /// Takes in what came of a round. Changes of health, and only those, go to the log.
    pub fn update(&mut self, collected: Collected<T>) {
        let now = Instant::now();
        self.note_health(collected.error);
        self.note_pace(collected.stretched);
        self.heard = Some(now);
        self.duration = Some(collected.duration);
        if let Some(sample) = collected.sample {
            self.sample = Some(sample);
            self.sampled = Some(now);
            self.collected_at = Some(Timestamp(collected.collected_at));
        }
    }

    /// Takes note of a source that has gone silent, and drops figures that have grown too old to
    /// be shown.
    pub(super) fn note_silence(&mut self, now: Instant) {
        let Some(patience) = self.silence() else {
            return;
        };
        let too_old = |moment: Option<Instant>| {
            moment.is_some_and(|moment| now.saturating_duration_since(moment) > patience)
        };
        if too_old(self.sampled) {
            self.sample = None;
            self.sampled = None;
            self.collected_at = None;
        }
        if too_old(self.heard) {
            let seconds = patience.as_secs();
            self.note_health(Some(format!("no word from it for more than {seconds} s")));
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
                "source stretched: its rounds take longer than half of its interval"
            ),
            (Some(_), None) => info!(source = self.name, "source in time again"),
            _ => {}
        }
        self.stretched = stretched;
    }

    /// The newest sample.
    pub(super) fn sample(&self) -> Option<&T> {
        self.sample.as_ref()
    }

    /// Whether there is nothing to wait for before the first snapshot.
    pub(super) fn has_answered(&self) -> bool {
        self.interval.is_none() || self.heard.is_some()
    }

    /// The source's account in the snapshot.
    pub(super) fn health(&self) -> SourceHealth {
        let unanswered = || (!self.has_answered()).then(|| "no answer yet".to_owned());
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

    use super::{PATIENCE, SourceState};
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
        assert_eq!(state.health().error.as_deref(), Some("no answer yet"));
        state.update(round(Some(1), None));
        let health = state.health();
        assert_eq!((health.status, health.error), (SourceStatus::Ok, None));
        assert_eq!(health.duration_ms, Some(12));
    }

    #[test]
    fn the_last_figures_stay_for_a_while_with_their_age() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), None));
        let collected_at = state.health().collected_at;
        state.update(round(None, Some("engine away")));
        state.note_silence(Instant::now() + INTERVAL);
        assert_eq!(state.sample(), Some(&1));
        assert_eq!(state.health().collected_at, collected_at);
        assert_eq!(state.health().error.as_deref(), Some("engine away"));

        state.note_silence(Instant::now() + INTERVAL * 3 + PATIENCE * 2);
        assert_eq!(state.sample(), None);
        assert_eq!(state.health().collected_at, None);
    }

    #[test]
    fn a_silent_source_is_failing() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), None));
        state.note_silence(Instant::now() + INTERVAL * 3 + PATIENCE * 2);
        assert_eq!(state.health().status, SourceStatus::Failing);
        state.update(round(Some(2), None));
        assert_eq!(state.health().status, SourceStatus::Ok);
    }

    #[test]
    fn a_part_that_failed_does_not_hide_the_rest() {
        let mut state = SourceState::enabled("test", INTERVAL);
        state.update(round(Some(1), Some("statistics of /web: no answer")));
        assert_eq!(state.sample(), Some(&1));
        assert_eq!(state.health().status, SourceStatus::Failing);
    }

    #[test]
    fn a_stretched_source_says_so_and_is_waited_for() {
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
        state.note_silence(Instant::now() + INTERVAL * 3 + PATIENCE * 2);
        assert_eq!(state.health().status, SourceStatus::Ok);
    }

    #[test]
    fn a_disabled_source_is_never_unwell() {
        let mut state = SourceState::<u32>::disabled("test");
        state.note_silence(Instant::now() + INTERVAL * 1000);
        assert!(state.has_answered());
        assert_eq!(state.health().status, SourceStatus::Disabled);
        assert_eq!(state.health().error, None);
    }
}
