//! The actor that gets every snapshot from the aggregator, and passes it to the tasks that send.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Recipient,
};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::client::Client;
use super::feed::Source;
use super::log_lane::LogLane;
use super::metric_lane::MetricLane;
use super::metrics::Exporter;
use super::position::PositionFile;
use super::resource::HostResource;
use super::sender::Sender;
use crate::messages::{AddOutput, Publication, Reports};
use crate::model::Sections;
use crate::publish::on_request::OnRequest;
use crate::settings::{OtlpSettings, OtlpTarget};

/// Time that is reserved at the end of the agent, so that the last log event is written.
const FLUSH_TIME: Duration = Duration::from_millis(300);

/// What the agent knows about the host, apart from snapshots.
#[derive(Debug, Clone, Default)]
pub struct SensedHost {
    /// The host's id, from `/etc/machine-id`. None if it is not known.
    pub id: Option<String>,
    /// The time between two snapshots.
    pub publish_interval: Duration,
}

/// Sends metrics, log lines and events to a receiver of OpenTelemetry.
pub struct OtlpPublisher {
    settings: OtlpSettings,
    host: SensedHost,
    /// The aggregator, which sends every snapshot to this actor.
    aggregator: Recipient<AddOutput>,
    on_request: OnRequest,
    reports: Arc<Reports>,
    source: Source,
    /// Number of tasks that run.
    running: usize,
    /// Dropped together with the publisher. The receiver then knows that the publisher has ended.
    _ended: oneshot::Sender<()>,
}

impl OtlpPublisher {
    /// Creates a publisher. The publisher drops `ended` when it ends.
    #[must_use]
    pub fn new(
        settings: OtlpSettings,
        host: SensedHost,
        aggregator: Recipient<AddOutput>,
        on_request: OnRequest,
        reports: Arc<Reports>,
        ended: oneshot::Sender<()>,
    ) -> Self {
        reports.otlp.start();
        Self {
            settings,
            host,
            aggregator,
            on_request,
            reports,
            source: Source::new(),
            running: 0,
            _ended: ended,
        }
    }

    /// Starts the tasks.
    fn start_lanes(&mut self, ctx: &mut Context<Self>) -> io::Result<()> {
        let settings = &self.settings;
        let resource = Arc::new(HostResource::new(settings, self.host.id.clone()));
        let reports = &self.reports;
        let sender = |target: &OtlpTarget, part| {
            let client = Client::new(target.clone())?;
            Ok::<_, io::Error>(Sender::new(client, part, Arc::clone(reports)))
        };
        let metrics = settings.metrics.as_ref().map(|target| {
            let exporter =
                Exporter::new(settings, Arc::clone(&resource), self.host.publish_interval);
            Ok::<_, io::Error>(MetricLane {
                sender: sender(target, "metrics")?,
                exporter,
                on_request: self.on_request.clone(),
                choice: Exporter::choice(),
                interval: settings.interval,
            })
        });
        let logs = settings.logs.as_ref().map(|target| {
            Ok::<_, io::Error>(LogLane {
                sender: sender(target, "logs")?,
                signals: settings.signals,
                resource: Arc::clone(&resource),
                reports: Arc::clone(reports),
                file: settings.state.as_deref().map(PositionFile::in_directory),
            })
        });
        let (metrics, logs) = (metrics.transpose()?, logs.transpose()?);
        if let Some(lane) = metrics {
            let feed = self.source.feed();
            self.spawn(lane.run(feed), ctx);
        }
        if let Some(lane) = logs {
            let feed = self.source.feed();
            self.spawn(lane.run(feed), ctx);
        }
        Ok(())
    }

    fn spawn(&mut self, lane: impl Future<Output = ()> + 'static, ctx: &mut Context<Self>) {
        self.running += 1;
        ctx.spawn(wrap_future(lane).map(|(), publisher: &mut Self, ctx| {
            publisher.running -= 1;
            if publisher.running == 0 {
                publisher.end(ctx);
            }
        }));
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        let health = self.reports.otlp.health();
        let (sent, dropped) = health.map_or((0, 0), |health| (health.sent, health.dropped));
        info!(sent, dropped, "OTLP: stopped");
        ctx.stop();
    }
}

impl Actor for OtlpPublisher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.start_lanes(ctx) {
            Ok(()) => self.aggregator.do_send(AddOutput {
                output: ctx.address().recipient(),
                sections: Sections::NONE,
            }),
            Err(error) => {
                error!(%error, "OTLP: cannot start, nothing is sent");
                ctx.stop();
            }
        }
    }
}

impl Handler<Publication> for OtlpPublisher {
    type Result = ();

    fn handle(&mut self, publication: Publication, ctx: &mut Self::Context) {
        match publication {
            Publication::Published(published) => self.source.publish(published),
            Publication::End(within) => {
                self.source.end();
                match self.running {
                    0 => self.end(ctx),
                    _ => _ = ctx.run_later(within.saturating_sub(FLUSH_TIME), Self::end),
                }
            }
        }
    }
}
