//! STAGE 1: reads the host, the engine and the logs.
//!
//! A source is the system, Docker or the logs. Each source has a folder: `system`, `docker` and `logs`. Its `mod.rs` implements
//! [`Source`], and the other files do not use actors. The actor [`Collector`] is the same for all sources. In each round, the
//! actor reads its source once. The actors of the folders `kernel` and `textfile` read on
//! request, and for clients that want their sections. The file `schedule.rs` decides when a round starts.

mod blocking;
mod causes;
mod cgroup;
mod decimal;
pub mod docker;
pub mod kernel;
mod kernel_file;
mod links;
pub mod logs;
mod mountinfo;
mod net_dev;
mod pressure;
mod rate;
mod schedule;
pub mod system;
pub mod textfile;

pub use schedule::{Round, Source, collect_once};

use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, WrapFuture};
use tracing::{Instrument, info_span};

use crate::messages::{Collected, News, StopCollecting};

/// Reads one source at the source's own interval, and publishes the result of each round.
pub struct Collector<S: Source> {
    /// None after [`Actor::started`], which passes the source to the task that runs the rounds.
    source: Option<S>,
    interval: Duration,
    sink: Recipient<Collected<S::Sample>>,
    /// The recipient of the news between two rounds. None for a source without news.
    news: Option<Recipient<News<S::News>>>,
}

impl<S: Source> Collector<S> {
    /// Creates a collector that reads `source` every `interval` and publishes to `sink`.
    #[must_use]
    pub fn new(source: S, interval: Duration, sink: Recipient<Collected<S::Sample>>) -> Self {
        Self {
            source: Some(source),
            interval,
            sink,
            news: None,
        }
    }

    /// Also publishes what changes between two rounds, to `news`.
    #[must_use]
    pub fn with_news(self, news: Recipient<News<S::News>>) -> Self {
        Self {
            news: Some(news),
            ..self
        }
    }
}

impl<S: Source + Unpin> Actor for Collector<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(source) = self.source.take() {
            let (sink, news) = (self.sink.clone(), self.news.take());
            let rounds = schedule::run(source, self.interval, sink, news);
            let span = info_span!("collect", source = S::NAME);
            ctx.spawn(rounds.instrument(span).into_actor(self));
        }
    }
}

impl<S: Source + Unpin> Handler<StopCollecting> for Collector<S> {
    type Result = ();

    fn handle(&mut self, _: StopCollecting, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Returns how long a source publishes its previous figures while it cannot read new figures. `interval` is the time between two
/// rounds of the source. If a source fails completely, the aggregator uses the same time.
#[must_use]
fn stand_for(interval: Duration) -> Duration {
    interval * 3 + Duration::from_secs(15)
}
