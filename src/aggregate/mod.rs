//! STAGE 2: the newest sample of each source → a complete snapshot → every output and session.

mod merge;
mod source;
mod subscribers;

pub use merge::{NewestSamples, compose};
pub use source::SourceState;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::SendError;
use actix::{Actor, AsyncContext, Context, Handler, Recipient, SpawnHandle, StreamHandler};
use futures_util::stream;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error};

use crate::messages::{
    AddOutput, CatchUp, Collected, Delivery, DockerSample, LogSample, NewestSnapshot, Publication,
    StopPublishing, Subscribe, SystemSample, Unsubscribe,
};
use crate::model::{Events, Positions};
use crate::published::Published;
use crate::supervisor::Supervisor;
use subscribers::Subscribers;

/// How long the first snapshot waits for sources that have not answered yet. Docker 20.10 takes
/// up to two seconds for a container's first statistics.
const FIRST_SNAPSHOT_WITHIN: Duration = Duration::from_secs(3);

/// Keeps the newest sample of each source, composes a snapshot every interval, encodes it once
/// for all who ask for the same and hands it to every session.
pub struct Aggregator {
    interval: Duration,
    newest: NewestSamples,
    seq: u64,
    /// The newest snapshot.
    published: Option<Arc<Published>>,
    /// Each is handed every snapshot.
    outputs: Vec<Recipient<Publication>>,
    /// How far the logs had been read when they were read last.
    positions: Arc<Positions>,
    /// What had happened to containers when the engine was asked last.
    events: Arc<Events>,
    subscribers: Subscribers,
    publishing: PublishState,
    supervisor: Supervisor,
}

/// How far the aggregator's life has come.
enum PublishState {
    /// No snapshot yet: sources are awaited.
    Awaiting,
    /// A snapshot every interval.
    Ticking(SpawnHandle),
    /// The agent is stopping; how long a session may take to close.
    Stopped(Duration),
}

/// The moment for the next snapshot.
struct Tick;

impl Aggregator {
    /// An aggregator that publishes every `interval` what `newest` comes to hold, and tells the supervisor how that goes.
    #[must_use]
    pub fn new(interval: Duration, newest: NewestSamples, supervisor: Supervisor) -> Self {
        Self {
            interval,
            newest,
            seq: 0,
            published: None,
            outputs: Vec::new(),
            positions: Arc::default(),
            events: Arc::default(),
            subscribers: Subscribers::default(),
            publishing: PublishState::Awaiting,
            supervisor,
        }
    }

    /// Publishes the first snapshot, and from now on one every interval.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.publishing, PublishState::Awaiting) {
            return;
        }
        self.publish();
        self.publishing = PublishState::Ticking(ctx.add_stream(ticks(self.interval)));
    }

    fn publish(&mut self) {
        let started = Instant::now();
        self.newest.note_silence(started);
        self.seq += 1;
        let snapshot = compose(&self.newest, self.seq, self.subscribers.count());
        self.supervisor.status(|| snapshot.summary());
        let logs = self.newest_logs();
        let told = self.events.end();
        if let Some(sample) = self.newest.docker.sample() {
            self.events = Arc::clone(&sample.events);
        }
        let events = (Arc::clone(&self.events), told);
        let published = Published::new(snapshot, logs, events, started, self.published.as_deref());
        let published = Arc::new(published);
        // Before the outputs: one that encodes a line of its own would hold up all clients meanwhile.
        let delivered = self.subscribers.publish(&published);
        // An output whose mailbox is full is handed a later snapshot.
        let publication = Publication::Published(Arc::clone(&published));
        self.outputs.retain(|output| {
            !matches!(
                output.try_send(publication.clone()),
                Err(SendError::Closed(_))
            )
        });
        debug!(
            seq = self.seq,
            clients = self.subscribers.count(),
            variants = published.lines_made(),
            duration_us = started.elapsed().as_micros() as u64,
            "snapshot published"
        );
        note(delivered);
        self.published = Some(published);
        self.supervisor.ready();
    }

    /// The newest logs. How far they had been read holds through an outage: what was sent before is
    /// not new after it.
    fn newest_logs(&mut self) -> LogSample {
        match self.newest.logs.sample() {
            Some(sample) => {
                self.positions = Arc::clone(&sample.positions);
                sample.clone()
            }
            None => LogSample {
                positions: Arc::clone(&self.positions),
                ..LogSample::default()
            },
        }
    }

    fn begin_if_complete(&mut self, ctx: &mut Context<Self>) {
        if self.newest.is_complete() {
            self.begin(ctx);
        }
    }
}

/// The model's types rule an error out; clients keep what they have.
fn note(encoded: io::Result<()>) {
    if let Err(error) = encoded {
        error!(%error, "snapshot not encoded");
    }
}

/// Ticks every `interval`, the first one an interval from now; a late tick is not made up for.
fn ticks(interval: Duration) -> impl stream::Stream<Item = Tick> {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    stream::unfold(ticks, |mut ticks| async move {
        ticks.tick().await;
        Some((Tick, ticks))
    })
}

impl Actor for Aggregator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_later(FIRST_SNAPSHOT_WITHIN, Self::begin);
        if let Some(every) = self.supervisor.alive_every() {
            // Where this actor hangs, or its thread, it says so no more.
            ctx.run_interval(every, |aggregator, _| aggregator.supervisor.alive());
        }
    }
}

impl StreamHandler<Tick> for Aggregator {
    fn handle(&mut self, Tick: Tick, _: &mut Self::Context) {
        self.publish();
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Collected<SystemSample>> for Aggregator {
    type Result = ();

    fn handle(&mut self, collected: Collected<SystemSample>, ctx: &mut Self::Context) {
        self.newest.system.update(collected);
        self.begin_if_complete(ctx);
    }
}

impl Handler<Collected<DockerSample>> for Aggregator {
    type Result = ();

    fn handle(&mut self, collected: Collected<DockerSample>, ctx: &mut Self::Context) {
        self.newest.docker.update(collected);
        self.begin_if_complete(ctx);
    }
}

impl Handler<Collected<LogSample>> for Aggregator {
    type Result = ();

    fn handle(&mut self, collected: Collected<LogSample>, ctx: &mut Self::Context) {
        self.newest.logs.update(collected);
        self.begin_if_complete(ctx);
    }
}

impl Handler<Subscribe> for Aggregator {
    type Result = ();

    fn handle(&mut self, subscribe: Subscribe, _: &mut Self::Context) {
        if let PublishState::Stopped(within) = self.publishing {
            subscribe.deliveries.do_send(Delivery::End(within));
        } else {
            note(
                self.subscribers
                    .subscribe(subscribe, self.published.as_deref()),
            );
        }
    }
}

impl Handler<CatchUp> for Aggregator {
    type Result = ();

    fn handle(&mut self, behind: CatchUp, _: &mut Self::Context) {
        if let Some(newest) = &self.published {
            note(self.subscribers.catch_up(&behind, newest));
        }
    }
}

impl Handler<NewestSnapshot> for Aggregator {
    type Result = Option<Arc<Published>>;

    fn handle(&mut self, NewestSnapshot: NewestSnapshot, _: &mut Self::Context) -> Self::Result {
        self.published.clone()
    }
}

impl Handler<AddOutput> for Aggregator {
    type Result = ();

    fn handle(&mut self, AddOutput { output }: AddOutput, _: &mut Self::Context) {
        if let PublishState::Stopped(within) = self.publishing {
            output.do_send(Publication::End(within));
            return;
        }
        if let Some(newest) = &self.published {
            output.do_send(Publication::Published(Arc::clone(newest)));
        }
        self.outputs.push(output);
    }
}

impl Handler<Unsubscribe> for Aggregator {
    type Result = ();

    fn handle(&mut self, unsubscribe: Unsubscribe, _: &mut Self::Context) {
        self.subscribers.unsubscribe(unsubscribe.client);
    }
}

impl Handler<StopPublishing> for Aggregator {
    type Result = ();

    fn handle(&mut self, StopPublishing { within }: StopPublishing, ctx: &mut Self::Context) {
        self.supervisor.stopping();
        if let PublishState::Ticking(ticks) = self.publishing {
            ctx.cancel_future(ticks);
        }
        self.publishing = PublishState::Stopped(within);
        self.subscribers.end(&Delivery::End(within));
        for output in &self.outputs {
            output.do_send(Publication::End(within));
        }
    }
}

#[cfg(test)]
mod tests;
