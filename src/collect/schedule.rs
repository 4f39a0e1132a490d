//! Decides when the rounds of one source start. While the source works, rounds start at its interval. While the source fails,
//! rounds start after a back-off.

use std::future::{Future, pending};
use std::time::{Duration, SystemTime};

use actix::Recipient;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::debug;

use crate::backoff::Backoff;
use crate::messages::{Collected, News};

/// Back-off after the first failure.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
/// Maximum back-off. With this limit, the agent notices within 5 s that an engine has restarted. If the engine hung, the agent
/// notices within 15 s, because the timeout of a call is added.
const MAX_BACKOFF: Duration = Duration::from_secs(3);
/// Minimum time between two messages with news of a source. Many changes in this time come in one message.
const NEWS_INTERVAL: Duration = Duration::from_millis(40);

/// A source of figures, which is read once in each round.
pub trait Source: 'static {
    /// The name of the source in the agent's own log and in `sources` of the snapshot.
    const NAME: &'static str;

    /// The result of a round.
    type Sample: Send + 'static;

    /// What live clients get between two rounds.
    type News: Send + 'static;

    /// Reads the source once. Every wait in this function has a deadline.
    fn collect(&mut self) -> impl Future<Output = Round<Self::Sample>>;

    /// Waits until there can be news. The caller can drop this future at any time and wait again later.
    fn wait_for_news(&mut self) -> impl Future<Output = ()> {
        pending()
    }

    /// Reads what has changed since the newest round. None if nothing has changed that a live client gets.
    fn read_news(&mut self) -> impl Future<Output = Option<Self::News>> {
        async { None }
    }
}

/// The outcome of one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Round<T> {
    /// The figures. None if the whole round failed.
    pub sample: Option<T>,
    /// The reason why the round, or a part of it, failed.
    pub error: Option<String>,
    /// The time in the round that was only a wait between two readings. Such a wait is necessary to calculate rates.
    pub waited: Duration,
    /// The time when the sample was read. None if it was read just now.
    pub read_at: Option<SystemTime>,
    /// Whether a part is missing that can return soon. If so, the next round starts before the interval ends.
    pub retry: bool,
}

impl<T> Round<T> {
    /// Creates a round without failures.
    pub fn whole(sample: T) -> Self {
        Self {
            sample: Some(sample),
            error: None,
            waited: Duration::ZERO,
            read_at: None,
            retry: false,
        }
    }

    /// Creates a round without a sample.
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

/// Runs one round and measures its duration.
pub async fn collect_once<S: Source>(source: &mut S) -> Collected<S::Sample> {
    time(source).await.collected
}

/// A finished round.
struct TimedRound<T> {
    collected: Collected<T>,
    /// See [`Round::waited`].
    waited: Duration,
    /// See [`Round::retry`].
    retry: bool,
}

/// Runs one round and measures its duration.
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

/// Runs rounds of `source` forever, one per interval, and publishes each round to `sink`.
///
/// In this file, a tick is the time at which a round is due. The first round starts immediately. If a round still runs at a tick,
/// the run skips that tick. If rounds take longer than half of the interval, a round starts only at every second or third tick,
/// or even less often. After a round that failed completely, the next round starts after a back-off. After a round with
/// [`Round::retry`], the next round starts after a back-off or at the next tick. The earlier of the two counts.
///
/// Between two rounds, publishes the news of the source to `news`.
pub(super) async fn run<S: Source>(
    mut source: S,
    interval: Duration,
    sink: Recipient<Collected<S::Sample>>,
    news: Option<Recipient<News<S::News>>>,
) {
    let mut pace = RoundPace::new(interval, Instant::now());
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
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
        // Ignores the limit of the mailbox, because many new sessions can fill the mailbox. Each source adds only one round at a
        // time. If the mailbox is closed, the agent is stopping.
        sink.do_send(collected);
        if failed {
            sleep(backoff.pause()).await;
            continue;
        }
        let now = Instant::now();
        if now >= pace.due {
            pace.advance(now);
        }
        let next = if round.retry {
            pace.due.min(now + backoff.pause())
        } else {
            backoff.reset();
            pace.due
        };
        match &news {
            Some(news) => publish_news(&mut source, news, next).await,
            None => sleep_until(next).await,
        }
    }
}

/// Publishes the news of a source until the time `end`. Sends the first news immediately, and then at most one message in
/// [`NEWS_INTERVAL`].
async fn publish_news<S: Source>(source: &mut S, sink: &Recipient<News<S::News>>, end: Instant) {
    while Instant::now() < end {
        if timeout_at(end, source.wait_for_news()).await.is_err() {
            return;
        }
        let began = Instant::now();
        if let Some(news) = source.read_news().await {
            // The next news contain these news too. If the mailbox is closed, the agent is stopping.
            sink.do_send(News(news));
        }
        sleep_until(end.min(began + NEWS_INTERVAL)).await;
    }
}

/// Decides at which ticks a round starts. Two ticks are one interval apart. A source must not be busy for more than half of the
/// time.
#[derive(Debug)]
struct RoundPace {
    interval: Duration,
    /// The tick of the next round.
    due: Instant,
    /// Duration of the previous round. The first round does not count, because it also prepares the source.
    last: Option<Duration>,
    /// Whether the first round has ended.
    begun: bool,
    /// The number of ticks from one round to the next.
    stride: u32,
    /// Number of quick rounds in a row. A quick round needs fewer ticks than `stride`.
    quick: u32,
}

/// Number of quick rounds in a row after which `stride` becomes smaller.
const MIN_QUICK_ROUNDS: u32 = 5;

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

    /// Records how long a round took. Uses the mean of two rounds, because one slow round does not mean that the next round is
    /// slow.
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
        if needed >= self.stride || self.quick >= MIN_QUICK_ROUNDS {
            (self.stride, self.quick) = (needed, 0);
        }
    }

    /// Returns the time between two rounds, if it is longer than the interval. If it is equal to the interval, returns none.
    fn stretched(&self) -> Option<Duration> {
        (self.stride > 1).then(|| self.interval * self.stride)
    }

    /// Moves `due` to the next round. Skips a tick that has passed, or that comes within half an interval. Rates over a very
    /// short time are unreliable.
    fn advance(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due);
        let passed = ticks(late + self.interval / 2, self.interval);
        self.due += self.interval * self.stride.max(passed);
    }
}

/// Returns the number of intervals in `time`, rounded up.
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

    /// Records each published sample and its time.
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

    /// A fake source that can fail and be slow.
    struct FakeSource {
        round: u32,
        /// Number of rounds at the beginning that fail.
        failures: u32,
        /// Number of rounds after the failed rounds that request a retry.
        retries: u32,
        /// Duration of each round at the beginning, in milliseconds. Later rounds take no time.
        takes: Vec<u64>,
    }

    impl Source for FakeSource {
        const NAME: &'static str = "fake";

        type Sample = u32;

        type News = ();

        async fn collect(&mut self) -> Round<u32> {
            let takes = self.takes.get(self.round as usize).copied();
            tokio::time::sleep(Duration::from_millis(takes.unwrap_or_default())).await;
            self.round += 1;
            if self.round <= self.failures {
                Round::failed("fake failure")
            } else {
                Round {
                    retry: self.round <= self.failures + self.retries,
                    ..Round::whole(self.round)
                }
            }
        }
    }

    async fn observe(
        source: FakeSource,
        interval: Duration,
        rounds: usize,
    ) -> Vec<(f64, Option<u32>)> {
        let (notes, mut noted) = mpsc::unbounded_channel();
        let sink = Notes(notes, Instant::now()).start().recipient();
        let collector = actix_rt::spawn(run(source, interval, sink, None));
        let mut seen = Vec::new();
        while seen.len() < rounds {
            let (at, sample) = noted.recv().await.unwrap();
            seen.push((at.as_secs_f64(), sample));
        }
        collector.abort();
        seen
    }

    #[actix::test]
    async fn rounds_start_immediately_skip_missed_ticks_and_take_at_most_half_of_the_time() {
        tokio::time::pause();
        let source = FakeSource {
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
    async fn the_pause_after_a_failure_does_not_depend_on_the_interval() {
        tokio::time::pause();
        let source = FakeSource {
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
    async fn a_retry_starts_after_a_pause_or_at_the_next_tick() {
        tokio::time::pause();
        let retrying = |retries| FakeSource {
            round: 0,
            failures: 0,
            retries,
            takes: Vec::new(),
        };
        let seen = observe(retrying(3), Duration::from_secs(3600), 5).await;
        assert!((1.75..=3.6).contains(&seen[3].0), "{seen:?}");
        // Retries do not move the ticks.
        assert!((3599.9..3600.1).contains(&seen[4].0), "{seen:?}");

        let seen = observe(retrying(20), Duration::from_secs(1), 12).await;
        for rounds in seen.windows(2) {
            let apart = rounds[1].0 - rounds[0].0;
            assert!(apart <= 1.01, "{seen:?}");
        }
    }
}
