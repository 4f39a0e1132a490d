//! Stage 2: the aggregator. The aggregator composes a snapshot every interval from the newest sample of each source, and delivers
//! the snapshot to every session and output.
//!
//! A sample is the result of one round of a source. The aggregator itself reads no source and writes to no connection.

mod docker_meta;
mod history;
mod merge;
mod publications;
mod readings;
mod source;
mod subscribers;
mod top_io;

pub use merge::{NewestSamples, compose};
pub use source::SourceState;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::SendError;
use actix::fut::wrap_future;
use actix::{
    Actor, ActorFutureExt as _, AsyncContext, Context, Handler, Recipient, SpawnHandle,
    StreamHandler,
};
use futures_util::stream;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, error};

use crate::messages::{
    AddOutput, CatchUp, Collected, Delivery, DockerSample, FindLog, HistorySent, KernelReading,
    LogSample, NewestSnapshot, News, Publication, StopPublishing, Subscribe, SystemSample,
    TextfileReading, Unsubscribe,
};
use crate::model::{Events, FileLog, Positions, Section, Sections};
use crate::published::{PIECE_BYTES, Published, Unread};
use crate::supervisor::Supervisor;
use history::{Current, HistoryRing};
use readings::Reading;
use subscribers::Subscribers;

/// Maximum time that the first snapshot waits for the first round of every source. Docker 20.10 needs up to two seconds for the
/// first statistics of a container.
const FIRST_SNAPSHOT_WITHIN: Duration = Duration::from_secs(3);
/// Time that the rounds of the collectors get in addition to the time that the first rounds took, before each snapshot. With short
/// intervals it is less.
const MAX_ROUND_LEAD: Duration = Duration::from_millis(200);
/// Maximum number of readings of log files at the same time. It bounds the memory for log lines that are being read.
const MAX_PARALLEL_READINGS: usize = 2;
/// Time after which a session gets its snapshot without the log lines that it waits for, because a file system hangs. A later
/// snapshot has them. The longest readings of a working file system count the lines of a whole log.
const READING_DEADLINE: Duration = Duration::from_secs(60);

/// Composes a snapshot every interval from the newest sample of each source. Delivers the snapshot to every session and output.
pub struct Aggregator {
    interval: Duration,
    newest: NewestSamples,
    seq: u64,
    /// Whether there are live sessions that get log lines.
    follows_logs: watch::Sender<bool>,
    /// Whether a session or an output gets the kernel's own figures.
    wants_kernel: watch::Sender<bool>,
    /// Whether a session or an output gets the figures of other programs.
    wants_textfile: watch::Sender<bool>,
    /// The sections that outputs get.
    output_sections: Sections,
    /// The outputs other than the socket. Each output gets every snapshot, unless the output's mailbox is full.
    outputs: Vec<Recipient<Publication>>,
    /// The positions in the logs after the newest round of the logs source.
    positions: Arc<Positions>,
    /// The container events up to the newest snapshot.
    events: Arc<Events>,
    /// All container events.
    newest_events: Arc<Events>,
    subscribers: Subscribers,
    publishing: PublishState,
    /// The figures of the last minutes.
    history: HistoryRing,
    /// The permits for readings of log files.
    readings: Arc<Semaphore>,
    supervisor: Supervisor,
}

/// Whether the aggregator publishes snapshots.
enum PublishState {
    /// There is no snapshot yet. The aggregator waits for the first round of every source.
    Awaiting,
    /// The aggregator publishes a snapshot every interval.
    Ticking(SpawnHandle),
    /// The agent is stopping. The value is the time that a session has to close its connection.
    Stopped(Duration),
}

/// The message that the aggregator gets when the next snapshot is due.
struct Tick;

impl Aggregator {
    /// Creates an aggregator that publishes a snapshot of `newest` every `interval`. The aggregator reports its state to the
    /// supervisor.
    #[must_use]
    pub fn new(interval: Duration, newest: NewestSamples, supervisor: Supervisor) -> Self {
        Self {
            interval,
            newest,
            seq: 0,
            follows_logs: watch::Sender::new(false),
            wants_kernel: watch::Sender::new(false),
            wants_textfile: watch::Sender::new(false),
            output_sections: Sections::NONE,
            outputs: Vec::new(),
            positions: Arc::default(),
            events: Arc::default(),
            newest_events: Arc::default(),
            subscribers: Subscribers::default(),
            publishing: PublishState::Awaiting,
            history: HistoryRing::new(Duration::ZERO, interval),
            readings: Arc::new(Semaphore::new(MAX_PARALLEL_READINGS)),
            supervisor,
        }
    }

    /// Keeps the figures of the last `period` for clients that ask for them.
    #[must_use]
    pub fn with_history(self, period: Duration) -> Self {
        Self {
            history: HistoryRing::new(period, self.interval),
            ..self
        }
    }

    /// Reports through `follows_logs` whether there are live sessions that get log lines.
    #[must_use]
    pub fn with_live(self, follows_logs: watch::Sender<bool>) -> Self {
        Self {
            follows_logs,
            ..self
        }
    }

    /// Reports through `wants_kernel` whether a session or an output gets the kernel's own figures.
    #[must_use]
    pub fn with_kernel(self, wants_kernel: watch::Sender<bool>) -> Self {
        Self {
            wants_kernel,
            ..self
        }
    }

    /// Reports through `wants_textfile` whether a session or an output gets the figures of other programs.
    #[must_use]
    pub fn with_textfile(self, wants_textfile: watch::Sender<bool>) -> Self {
        Self {
            wants_textfile,
            ..self
        }
    }

    /// Publishes the first snapshot immediately, and then a snapshot every interval. Does nothing if this has already begun.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.publishing, PublishState::Awaiting) {
            return;
        }
        self.publish(ctx);
        self.publishing = PublishState::Ticking(ctx.add_stream(ticks(self.interval)));
    }

    fn publish(&mut self, ctx: &mut Context<Self>) {
        let started = Instant::now();
        self.newest.note_silence(started);
        self.seq += 1;
        let mut snapshot = compose(&self.newest, self.seq, self.subscribers.count());
        if let Some(previous) = self.subscribers.publications().newest(false) {
            docker_meta::keep_if_equal(&mut snapshot.docker_meta, &previous.snapshot().docker_meta);
        }
        self.supervisor.status(|| snapshot.summary());
        let current = Current {
            system: self.newest.system.is_current(started),
            docker: self.newest.docker.is_current(started),
        };
        self.history.record(&snapshot, current, started);
        let logs = self.newest_logs();
        let before = self.events.end();
        if let Some(sample) = self.newest.docker.sample() {
            self.events = newer(&sample.events, &self.newest_events);
        }
        let already_published = before.max(self.events.old());
        let events = (Arc::clone(&self.events), already_published);
        let newest = self.subscribers.publications().newest(true);
        let newest = newest.map(Arc::as_ref);
        let published = Published::new(snapshot, logs, events, started, newest);
        let published = Arc::new(published);
        // Sessions get the snapshot first, because an output that encodes its own JSON line would delay all clients.
        let (readings, delivered) = self.subscribers.publish(&published);
        for (reading, unread) in readings {
            self.read(reading, unread, ctx);
        }
        if let Err(error) = delivered {
            note(&error);
        }
        // An output whose mailbox is full skips this snapshot and gets a later one.
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
        self.supervisor.ready();
    }

    /// Delivers the log lines and events that came after the newest snapshot to the live sessions.
    fn publish_news(&mut self, ctx: &mut Context<Self>) {
        let is_stopped = matches!(self.publishing, PublishState::Stopped(_));
        // The newest publication has the compressor and the encoded sections.
        let newest = self.subscribers.publications().newest(true);
        let Some(published) = newest.filter(|_| !is_stopped).cloned() else {
            return;
        };
        let events = newer(&self.events, &self.newest_events);
        let logs = self.newest.logs.sample().cloned();
        if let Some(logs) = &logs {
            self.positions = Arc::clone(&logs.positions);
        }
        let news = Arc::new(published.with_news(logs, events));
        let (readings, delivered) = self.subscribers.publish_news(&news);
        for (reading, unread) in readings {
            self.read(reading, unread, ctx);
        }
        if let Err(error) = delivered {
            note(&error);
        }
    }

    /// Reports to the collectors which optional figures clients and outputs want.
    fn note_demand(&mut self) {
        let report = |to: &watch::Sender<bool>, wanted: bool| {
            to.send_if_modified(|before| std::mem::replace(before, wanted) != wanted);
        };
        report(&self.follows_logs, self.subscribers.follow_logs());
        let wants = |section| self.output_sections.has(section) || self.subscribers.want(section);
        report(&self.wants_textfile, wants(Section::Textfile));
        let wants_kernel = wants(Section::Kernel);
        report(&self.wants_kernel, wants_kernel);
        if !wants_kernel {
            self.newest.kernel = None;
        }
    }

    fn read_if_needed(
        &mut self,
        reading: io::Result<Option<(Reading, Unread)>>,
        ctx: &mut Context<Self>,
    ) {
        match reading {
            Ok(Some((reading, unread))) => self.read(reading, unread, ctx),
            Ok(None) => {}
            Err(error) => note(&error),
        }
    }

    /// Reads log lines from log files, and then delivers them to the sessions that wait for them.
    fn read(&mut self, reading: Reading, unread: Unread, ctx: &mut Context<Self>) {
        let readings = Arc::clone(&self.readings);
        let later = unread.clone();
        let read = async move {
            // The semaphore is never closed, and a reading does not panic. So both errors only mean that the agent is stopping.
            let permit = readings.acquire_owned().await.ok()?;
            let read = spawn_blocking(move || {
                // A reading that hangs keeps its permit. So the number of threads that hang is limited.
                let _permit = permit;
                unread.read(PIECE_BYTES)
            });
            read.await.ok()
        };
        let read = timeout(READING_DEADLINE, read);
        ctx.spawn(
            wrap_future(read).map(move |piece, aggregator: &mut Self, _| {
                let piece = piece.unwrap_or_else(|_| Some(later.postponed()));
                let Some(piece) = piece else { return };
                if let Err(error) = aggregator.subscribers.deliver(&reading, &piece) {
                    note(&error);
                }
            }),
        );
    }

    /// Returns the newest sample of the logs.
    ///
    /// If there is no sample, returns no log lines, and the positions of the previous sample. Log lines that were sent before the
    /// outage then do not count as new after the outage.
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

/// Returns the events that contain the other events.
fn newer(first: &Arc<Events>, second: &Arc<Events>) -> Arc<Events> {
    let newer = if first.end() >= second.end() {
        first
    } else {
        second
    };
    Arc::clone(newer)
}

/// Logs an encoding error. Such an error is not expected, because all types of the model can be encoded. A session whose variant
/// cannot be encoded gets no snapshot at this tick.
fn note(error: &io::Error) {
    error!(%error, "snapshot not encoded");
}

/// Returns a stream that ticks every `interval`. The first tick comes after one interval and a little more, so that the rounds of the
/// collectors, which began before the first snapshot, have ended at each tick. A missed tick is not repeated later.
fn ticks(interval: Duration) -> impl stream::Stream<Item = Tick> {
    let first = interval + MAX_ROUND_LEAD.min(interval / 25);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, interval);
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
            // If this actor or its thread hangs, the keep-alive messages stop. systemd then restarts the agent.
            ctx.run_interval(every, |aggregator, _| aggregator.supervisor.alive());
        }
    }
}

impl StreamHandler<Tick> for Aggregator {
    fn handle(&mut self, Tick: Tick, ctx: &mut Self::Context) {
        self.publish(ctx);
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

impl Handler<KernelReading> for Aggregator {
    type Result = ();

    fn handle(&mut self, KernelReading(kernel): KernelReading, _: &mut Self::Context) {
        // A reading that ends after the last client has gone is not kept.
        self.newest.kernel = Some(kernel).filter(|_| *self.wants_kernel.borrow());
    }
}

impl Handler<TextfileReading> for Aggregator {
    type Result = ();

    fn handle(&mut self, reading: TextfileReading, ctx: &mut Self::Context) {
        if let Some(textfile) = &mut self.newest.textfile {
            textfile.set_interval(reading.interval);
            textfile.update(reading.collected);
            self.begin_if_complete(ctx);
        }
    }
}

impl Handler<News<LogSample>> for Aggregator {
    type Result = ();

    fn handle(&mut self, News(sample): News<LogSample>, ctx: &mut Self::Context) {
        self.newest.logs.replace_sample(sample);
        self.publish_news(ctx);
    }
}

impl Handler<News<Arc<Events>>> for Aggregator {
    type Result = ();

    fn handle(&mut self, News(events): News<Arc<Events>>, ctx: &mut Self::Context) {
        self.newest_events = events;
        if self.subscribers.have_live() {
            self.publish_news(ctx);
        }
    }
}

impl Handler<Subscribe> for Aggregator {
    type Result = ();

    fn handle(&mut self, subscribe: Subscribe, ctx: &mut Self::Context) {
        if let PublishState::Stopped(within) = self.publishing {
            subscribe.deliveries.do_send(Delivery::End(within));
            return;
        }
        let reading = self.subscribers.subscribe(subscribe, &self.history);
        self.note_demand();
        self.read_if_needed(reading, ctx);
    }
}

impl Handler<CatchUp> for Aggregator {
    type Result = ();

    fn handle(&mut self, behind: CatchUp, ctx: &mut Self::Context) {
        let reading = self.subscribers.catch_up(&behind);
        self.read_if_needed(reading, ctx);
    }
}

impl Handler<HistorySent> for Aggregator {
    type Result = ();

    fn handle(&mut self, sent: HistorySent, ctx: &mut Self::Context) {
        if matches!(self.publishing, PublishState::Stopped(_)) {
            return;
        }
        let reading = self.subscribers.history_sent(sent, &self.history);
        self.read_if_needed(reading, ctx);
    }
}

impl Handler<FindLog> for Aggregator {
    type Result = Result<FileLog, String>;

    fn handle(&mut self, find: FindLog, _: &mut Self::Context) -> Self::Result {
        let logs = self.newest.logs.sample();
        let logs = logs.ok_or("logs: the agent has not read any")?;
        let docker = self.newest.docker.sample();
        let stopped = docker.map_or(&[][..], |docker| &docker.stopped.containers);
        logs.file_of(&find.container, stopped)
    }
}

impl Handler<NewestSnapshot> for Aggregator {
    type Result = Option<Arc<Published>>;

    fn handle(&mut self, NewestSnapshot: NewestSnapshot, _: &mut Self::Context) -> Self::Result {
        self.subscribers.publications().newest(false).cloned()
    }
}

impl Handler<AddOutput> for Aggregator {
    type Result = ();

    fn handle(&mut self, add: AddOutput, _: &mut Self::Context) {
        let AddOutput { output, sections } = add;
        if let PublishState::Stopped(within) = self.publishing {
            output.do_send(Publication::End(within));
            return;
        }
        if let Some(newest) = self.subscribers.publications().newest(false) {
            output.do_send(Publication::Published(Arc::clone(newest)));
        }
        self.outputs.push(output);
        self.output_sections = self.output_sections.and(sections);
        self.note_demand();
    }
}

impl Handler<Unsubscribe> for Aggregator {
    type Result = ();

    fn handle(&mut self, unsubscribe: Unsubscribe, _: &mut Self::Context) {
        self.subscribers.unsubscribe(unsubscribe.client);
        self.note_demand();
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
