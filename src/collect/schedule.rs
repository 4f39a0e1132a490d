//! Rounds of one source, at its interval, with pauses while it fails.

use std::future::Future;
use std::time::{Duration, SystemTime};

use actix::Recipient;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use crate::backoff::Backoff;
use crate::messages::Collected;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: an engine that returns is seen within 5 s, one that hung, with the deadline of
/// a call, within 15 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Something that is read round after round.
pub trait Source: 'static {
    /// What the source is called in the log and in the snapshot's `sources`.
    const NAME: &'static str;

    /// What a round yields.
    type Sample: Send + 'static;

    /// Reads the source once. Every wait inside has a deadline.
    fn collect(&mut self) -> impl Future<Output = Round<Self::Sample>>;
}

/// What came of one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Round<T> {
    /// What was read; none where the round failed as a whole.
    pub sample: Option<T>,
    /// What went wrong, in the round as a whole or in a part of it.
    pub error: Option<String>,
    /// For how long nothing was read, so that rates are over some time.
    pub waited: Duration,
    /// When the sample was read, where that is not now.
    pub read_at: Option<SystemTime>,
    /// Whether something is missing that may be back soon: the next round need not wait for the interval.
    pub retry: bool,
}

impl<T> Round<T> {
    /// A round that yielded all that it should.
    pub fn whole(sample: T) -> Self {
        Self {
            sample: Some(sample),
            error: None,
            waited: Duration::ZERO,
            read_at: None,
            retry: false,
        }
    }

    /// A round that yielded nothing.
    pub fn failed(error: impl Into<String>) -> Self {
        Self {
            sample: None,
            error: Some(error.into()),
            waited: Duration::ZERO,
            read_at: None,
            retry: true,
        }
    }
}

/// Reads one round and says how long it took.
pub async fn collect_once<S: Source>(source: &mut S) -> Collected<S::Sample> {
    time(source).await.collected
}

/// A round that has ended.
struct TimedRound<T> {
    collected: Collected<T>,
    /// For how much of its duration it only waited.
    waited: Duration,
    retry: bool,
}

/// Reads one round and says how long it took.
async fn time<S: Source>(source: &mut S) -> TimedRound<S::Sample> {
    let started = Instant::now();
    let round = source.collect().await;
    let collected = Collected {
        sample: round.sample,
        error: round.error,
        collected_at: round.read_at.unwrap_or_else(SystemTime::now),
        duration: started.elapsed(),
        stretched: None,
    };
    TimedRound {
        collected,
        waited: round.waited,
        retry: round.retry,
    }
}

/// Reads `source` for ever, a round per interval, and publishes each round to `sink`.
///
/// The first round starts at once. Ticks that a round outlasts are not made up for. While rounds
/// take longer than half of the interval, only every second, third … tick is followed by one. After a round that failed as a
/// whole the next one comes after a pause instead, until one succeeds. After one that asks for another
/// try, it comes after the pause or at the next tick, whichever is first.
pub(super) async fn run<S: Source>(
    mut source: S,
    interval: Duration,
    sink: Recipient<Collected<S::Sample>>,
) {
    let mut pace = RoundPace::new(interval, Instant::now());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    sleep_until(pace.due).await;
    loop {
        let round = time(&mut source).await;
        let mut collected = round.collected;
        let failed = collected.sample.is_none();
        debug!(
            duration_ms = collected.duration.as_millis() as u64,
            error = collected.error,
            "round ended"
        );
        if !failed {
            pace.note(collected.duration.saturating_sub(round.waited));
        }
        collected.stretched = pace.stretched();
        // Past the mailbox's bound, which a crowd of new sessions may have filled: a source
        // has one round at a time. A closed mailbox means that the agent is stopping.
        sink.do_send(collected);
        if failed {
            sleep(backoff.pause()).await;
            continue;
        }
        let now = Instant::now();
        if now >= pace.due {
            pace.advance(now);
        }
        if round.retry {
            sleep_until(pace.due.min(now + backoff.pause())).await;
        } else {
            backoff.reset();
            sleep_until(pace.due).await;
        }
    }
}

/// When rounds are due: at ticks that are an interval apart, at so many of them that a source is
/// busy for half of its time at most.
#[derive(Debug)]
struct RoundPace {
    interval: Duration,
    /// The tick of the next round.
    due: Instant,
    /// How long the last round took; none before the second, as the first one also prepares.
    last: Option<Duration>,
    begun: bool,
    /// From one round to the next, in ticks.
    stride: u32,
    /// How many rounds in a row would have done with fewer.
    quick: u32,
}

/// So many quick rounds in a row are no coincidence.
const QUICK: u32 = 5;

impl RoundPace {
    fn new(interval: Duration, begin: Instant) -> Self {
        Self {
            interval,
            due: begin,
            last: None,
            begun: false,
            stride: 1,
            quick: 0,
        }
    }

    /// Takes note of how long a round took: the mean of two counts, as one by itself may be slow.
    fn note(&mut self, took: Duration) {
        if !std::mem::replace(&mut self.begun, true) {
            return;
        }
        let both = took + self.last.replace(took).unwrap_or_default();
        let needed = ticks(both, self.interval).max(1);
        self.quick = if needed < self.stride {
            self.quick + 1
        } else {
            0
        };
        if needed >= self.stride || self.quick >= QUICK {
            (self.stride, self.quick) = (needed, 0);
        }
    }

    /// The time between rounds, where it is more than the interval.
    fn stretched(&self) -> Option<Duration> {
        (self.stride > 1).then(|| self.interval * self.stride)
    }

    /// To the next round. A tick that has passed, or is about to, is left out: figures over next
    /// to no time would be chance.
    fn advance(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due);
        let passed = ticks(late + self.interval / 2, self.interval);
        self.due += self.interval * self.stride.max(passed);
    }
}

/// How many ticks a time takes, the last one begun.
fn ticks(time: Duration, interval: Duration) -> u32 {
    let interval = interval.as_nanos().max(1);
    u32::try_from(time.as_nanos().div_ceil(interval)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix::{Actor, Context, Handler};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::{Round, Source, run};
    use crate::messages::Collected;

    /// Takes notes of what is published, and when.
    struct Notes(mpsc::UnboundedSender<(Duration, Option<u32>)>, Instant);

    impl Actor for Notes {
        type Context = Context<Self>;
    }

    impl Handler<Collected<u32>> for Notes {
        type Result = ();

        fn handle(&mut self, collected: Collected<u32>, _: &mut Self::Context) {
            let _ = self.0.send((self.1.elapsed(), collected.sample));
        }
    }

    /// Fails in its first rounds, and takes its time.
    struct Moody {
        round: u32,
        failures: u32,
        /// How many of its rounds after those ask for another try.
        retries: u32,
        /// How long its first rounds take, in milliseconds; later ones take no time.
        takes: Vec<u64>,
    }

    impl Source for Moody {
        const NAME: &'static str = "moody";

        type Sample = u32;

        async fn collect(&mut self) -> Round<u32> {
            let takes = self.takes.get(self.round as usize).copied();
            tokio::time::sleep(Duration::from_millis(takes.unwrap_or_default())).await;
            self.round += 1;
            if self.round <= self.failures {
                Round::failed("moody")
            } else {
                Round {
                    retry: self.round <= self.failures + self.retries,
                    ..Round::whole(self.round)
                }
            }
        }
    }

    async fn observe(source: Moody, interval: Duration, rounds: usize) -> Vec<(f64, Option<u32>)> {
        let (notes, mut noted) = mpsc::unbounded_channel();
        let sink = Notes(notes, Instant::now()).start().recipient();
        let collector = actix_rt::spawn(run(source, interval, sink));
        let mut seen = Vec::new();
        while seen.len() < rounds {
            let (at, sample) = noted.recv().await.unwrap();
            seen.push((at.as_secs_f64(), sample));
        }
        collector.abort();
        seen
    }

    #[actix::test]
    async fn starts_at_once_never_makes_up_for_missed_ticks_and_is_busy_half_of_its_time_at_most() {
        tokio::time::pause();
        let source = Moody {
            round: 0,
            failures: 0,
            retries: 0,
            takes: vec![2400, 2400, 2400],
        };
        let seen = observe(source, Duration::from_secs(1), 5).await;
        let times: Vec<_> = seen
            .iter()
            .map(|(at, _)| (at * 10.0).round() / 10.0)
            .collect();
        assert_eq!(times, [2.4, 5.4, 8.4, 11.0, 16.0]);
    }

    #[actix::test]
    async fn pauses_between_failures_whatever_the_interval() {
        tokio::time::pause();
        let source = Moody {
            round: 0,
            failures: 3,
            retries: 0,
            takes: Vec::new(),
        };
        let seen = observe(source, Duration::from_secs(3600), 5).await;
        let samples: Vec<_> = seen.iter().map(|(_, sample)| *sample).collect();
        assert_eq!(samples, [None, None, None, Some(4), Some(5)]);
        let recovered = seen[3].0;
        assert!((1.75..=3.6).contains(&recovered), "{seen:?}");
        assert!(seen[4].0 >= 3600.0, "{seen:?}");
    }

    #[actix::test]
    async fn another_try_comes_after_a_pause_or_at_the_next_tick() {
        tokio::time::pause();
        let retrying = |retries| Moody {
            round: 0,
            failures: 0,
            retries,
            takes: Vec::new(),
        };
        let seen = observe(retrying(3), Duration::from_secs(3600), 5).await;
        assert!((1.75..=3.6).contains(&seen[3].0), "{seen:?}");
        // Ticks stay where they are.
        assert!((3599.9..3600.1).contains(&seen[4].0), "{seen:?}");

        let seen = observe(retrying(20), Duration::from_secs(1), 12).await;
        for rounds in seen.windows(2) {
            let apart = rounds[1].0 - rounds[0].0;
            assert!(apart <= 1.01, "{seen:?}");
        }
    }
}
