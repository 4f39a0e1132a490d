//! STAGE 1: reading the host, the engine and the logs.
//!
//! One folder per source, each with its actor in `mod.rs` and its plain logic beside it. All
//! three actors are the same shell, [`Collector`], around a [`Source`] that is read round after
//! round: see `schedule.rs`.

mod blocking;
mod causes;
pub mod docker;
mod links;
pub mod logs;
mod mountinfo;
mod net_dev;
mod pressure;
mod rate;
mod schedule;
pub mod system;

pub use schedule::{Round, Source, collect_once};

use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, WrapFuture};
use tracing::{Instrument, info_span};

use crate::messages::{Collected, StopCollecting};

/// Reads one source at its own interval and publishes each round.
pub struct Collector<S: Source> {
    /// None from [`Actor::started`] on: the rounds own it.
    source: Option<S>,
    interval: Duration,
    sink: Recipient<Collected<S::Sample>>,
}

impl<S: Source> Collector<S> {
    /// A collector that reads `source` every `interval` and publishes to `sink`.
    #[must_use]
    pub fn new(source: S, interval: Duration, sink: Recipient<Collected<S::Sample>>) -> Self {
        Self {
            source: Some(source),
            interval,
            sink,
        }
    }
}

impl<S: Source + Unpin> Actor for Collector<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(source) = self.source.take() {
            let rounds = schedule::run(source, self.interval, self.sink.clone());
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

/// How long the last figures stand while no newer ones can be read, with rounds at this interval: as long as the aggregator
/// publishes those of a source that fails as a whole.
#[must_use]
fn stand_for(interval: Duration) -> Duration {
    interval * 3 + Duration::from_secs(15)
}
