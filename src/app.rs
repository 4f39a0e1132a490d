//! The daemon: starts all stages and connects them, handles signals, and stops everything in order. Only this file knows all
//! stages.

mod open_files;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[cfg(any(feature = "nats", feature = "otlp"))]
use actix::Context;
use actix::{Actor, Addr, Recipient};
use actix_rt::Arbiter;
use anyhow::{Context as _, anyhow};
#[cfg(feature = "nats")]
use rustix::system::uname;
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(any(feature = "nats", feature = "otlp"))]
use tokio::sync::oneshot;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::aggregate::{Aggregator, NewestSamples};
use crate::announcement::announce;
use crate::collect::docker::{ContainerSource, Containers, DockerCollector};
use crate::collect::kernel::KernelCollector;
use crate::collect::logs::{LogCollector, LogSource};
use crate::collect::system::{HostOptions, HostSource, SystemCollector};
use crate::collect::textfile::TextfileCollector;
use crate::collect::{Collector, Source};
use crate::memory;
use crate::messages::{Reports, StopCollecting, StopPublishing};
use crate::publish::http::{MOST_SCRAPERS, Metrics};
use crate::publish::is_published;
#[cfg(feature = "nats")]
use crate::publish::nats::NatsPublisher;
use crate::publish::on_request::OnRequest;
#[cfg(feature = "otlp")]
use crate::publish::otlp::{OtlpPublisher, SensedHost};
use crate::publish::socket::{Listener, RANGE_READINGS, Subscriptions, Threads};
use crate::renewal::Renewal;
#[cfg(feature = "nats")]
use crate::settings::NatsSettings;
#[cfg(feature = "otlp")]
use crate::settings::OtlpSettings;
use crate::settings::{CollectSettings, ServeSettings, Settings};
use crate::supervisor::Supervisor;
use open_files::Limits;

/// Sessions must close within this share of `SHUTDOWN_TIMEOUT`. The remaining time is for the final log events and for the exit
/// of the process.
const SESSION_SHARE: f64 = 0.9;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Fails if the socket cannot be opened, if a thread or signal handler cannot be set up, or if a second signal comes while the
/// agent stops.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    memory::return_large_buffers();
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let files = open_files::raise_file_limit();
    let Limits {
        connections,
        max_clients,
        container_files,
    } = open_files::limits_within(files, &settings);
    let serve = Arc::new(ServeSettings {
        max_clients,
        ..settings.serve.clone()
    });
    let (newest, credentials) = watch::channel(Arc::new(settings.credentials.clone()));
    let reports = Arc::<Reports>::default();
    reports.set_certificate_expires(settings.credentials.expires_at());
    let listener = Listener::bind(
        Arc::clone(&serve),
        credentials.clone(),
        connections,
        Arc::clone(&reports),
    )?;
    let bind = |port| {
        Metrics::bind(
            port,
            Arc::clone(&serve),
            credentials,
            settings.publish_interval,
            Arc::clone(&reports),
        )
    };
    let metrics = serve.metrics_port.map(bind).transpose()?;
    let metrics_at = metrics.as_ref().map(Metrics::local_addr).transpose()?;
    announce(&settings, listener.local_addr()?, metrics_at, files);
    let Settings {
        collect,
        publish_interval,
        history,
        #[cfg(feature = "nats")]
        nats,
        #[cfg(feature = "otlp")]
        otlp,
        credentials: first,
        credential_sources,
        shutdown_timeout,
        ..
    } = settings;
    // From here on, only the channel holds the credentials. A reload can then remove the old credentials from memory.
    drop(first);
    let renewal = Renewal::follow(credential_sources, newest, Arc::clone(&reports))
        .context("cannot start a thread")?;

    let supervisor = Supervisor::from_env(|name| std::env::var_os(name));
    let measuring = Measuring::start(
        &collect,
        Some(container_files),
        publish_interval,
        history,
        supervisor,
        reports,
    )?;
    let aggregator = &measuring.aggregator;
    let accepting = CancellationToken::new();
    let serving = Serving::start(listener, max_clients, aggregator, accepting.clone())?;
    let scraping = metrics
        .map(|metrics| Scraping::start(metrics, &measuring, accepting.clone()))
        .transpose()?;
    #[cfg(feature = "nats")]
    let publishing = nats
        .map(|nats| Publishing::nats(nats, &measuring))
        .transpose()?;
    #[cfg(feature = "otlp")]
    let exporting = otlp
        .map(|otlp| Publishing::otlp(otlp, &collect, publish_interval, &measuring))
        .transpose()?;

    actix_rt::spawn(memory::return_freed());

    let signal = signals.until_end(&renewal).await;
    info!(signal, "stopping");
    let running = Running {
        measuring,
        accepting,
        serving,
        scraping,
        #[cfg(feature = "nats")]
        publishing,
        #[cfg(feature = "otlp")]
        exporting,
    };
    running.stop(shutdown_timeout, &mut signals).await?;
    info!("stopped");
    Ok(())
}

/// All running parts of the daemon.
struct Running {
    measuring: Measuring,
    /// The agent accepts connections until this token is cancelled.
    accepting: CancellationToken,
    serving: Serving,
    scraping: Option<Scraping>,
    #[cfg(feature = "nats")]
    publishing: Option<Publishing>,
    #[cfg(feature = "otlp")]
    exporting: Option<Publishing>,
}

impl Running {
    /// Stops all parts within the time `within`. Sessions finish the JSON line that they are writing.
    ///
    /// # Errors
    /// Fails if a second signal comes. The agent then exits without waiting for its clients.
    async fn stop(self, within: Duration, signals: &mut Signals) -> anyhow::Result<()> {
        let Self {
            measuring,
            accepting,
            serving,
            scraping,
            #[cfg(feature = "nats")]
            publishing,
            #[cfg(feature = "otlp")]
            exporting,
        } = self;
        accepting.cancel();
        for collector in &measuring.collectors {
            collector.do_send(StopCollecting);
        }
        let publishing_stopped = measuring.aggregator.send(StopPublishing {
            within: within.mul_f64(SESSION_SHARE),
        });
        let closed = async {
            // Without this wait, an agent without clients could exit before the aggregator notifies the supervisor. An error
            // means that the aggregator has ended already.
            let _ = publishing_stopped.await;
            all_released(&serving.permits, serving.max_clients).await;
            if let Some(scraping) = scraping {
                all_released(&scraping.permits, MOST_SCRAPERS).await;
            }
            #[cfg(feature = "nats")]
            if let Some(publishing) = publishing {
                publishing.ended().await;
            }
            #[cfg(feature = "otlp")]
            if let Some(exporting) = exporting {
                exporting.ended().await;
            }
        };
        tokio::select! {
            closed = timeout(within, closed) => {
                let clients = serving.max_clients.saturating_sub(serving.permits.available_permits());
                if closed.is_err() && clients > 0 {
                    warn!(clients, "clients disconnected: they did not finish reading in time");
                }
                Ok(())
            }
            signal = signals.end() => Err(anyhow!("a second signal ({signal}) came while the agent was stopping")),
        }
    }
}

/// The first two stages: the collectors and the aggregator.
pub(crate) struct Measuring {
    /// The aggregator, which sends the snapshots to all outputs.
    pub(crate) aggregator: Addr<Aggregator>,
    collectors: Vec<Recipient<StopCollecting>>,
    /// The health of the outputs, for snapshots.
    #[cfg_attr(
        not(any(feature = "nats", feature = "otlp")),
        expect(dead_code, reason = "only publishers to servers report their health")
    )]
    pub(crate) reports: Arc<Reports>,
    /// The collectors for outputs that ask for figures.
    on_request: OnRequest,
    /// The thread of these two stages. They share it, because messages between threads cost more than most of their work. A large
    /// answer of the engine can delay a snapshot by the time of its parsing. Clients have other threads, so it delays no login and no
    /// write to a client.
    _thread: Arbiter,
}

impl Measuring {
    /// Starts the collectors of all sources that the settings switch on, and an aggregator that publishes every `interval`. The
    /// aggregator keeps the figures of the last `history`. `container_files` is how many files of containers stay open, if this differs
    /// from the default of [`ContainerSource`].
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub(crate) fn start(
        settings: &CollectSettings,
        container_files: Option<u64>,
        interval: Duration,
        history: Duration,
        supervisor: Supervisor,
        reports: Arc<Reports>,
    ) -> io::Result<Self> {
        let thread = arbiter()?;
        let newest = NewestSamples {
            reports: Arc::clone(&reports),
            ..NewestSamples::for_settings(settings)
        };
        let (follows_logs, has_live) = watch::channel(false);
        let (wants_kernel, kernel_wanted) = watch::channel(false);
        let (wants_textfile, textfile_wanted) = watch::channel(false);
        let aggregator = Aggregator::start_in_arbiter(&thread.handle(), move |_| {
            Aggregator::new(interval, newest, supervisor)
                .with_live(follows_logs)
                .with_kernel(wants_kernel)
                .with_textfile(wants_textfile)
                .with_history(history)
        });
        let kernel = KernelCollector::new(
            settings.system_interval,
            &HostOptions::from(settings),
            kernel_wanted,
            aggregator.clone().recipient(),
        );
        let kernel = KernelCollector::start_in_arbiter(&thread.handle(), |_| kernel);
        let mut collectors =
            start_collectors(settings, container_files, &aggregator, has_live, &thread);
        let textfiles = TextfileCollector::new(
            settings.textfile_dir.clone(),
            settings.system_interval,
            is_published,
            textfile_wanted,
            aggregator.clone().recipient(),
        );
        let textfiles = TextfileCollector::start_in_arbiter(&thread.handle(), |_| textfiles);
        collectors.extend([kernel.clone().recipient(), textfiles.clone().recipient()]);
        Ok(Self {
            collectors,
            aggregator,
            reports,
            on_request: OnRequest {
                kernel: kernel.recipient(),
                textfiles: textfiles.recipient(),
            },
            _thread: thread,
        })
    }
}

/// The socket: the listener and the sessions of the clients.
struct Serving {
    permits: Arc<Semaphore>,
    max_clients: usize,
    _threads: [Vec<Arbiter>; 2],
}

impl Serving {
    fn start(
        listener: Listener,
        max_clients: usize,
        aggregator: &Addr<Aggregator>,
        accepting: CancellationToken,
    ) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (greeting, serving) = (arbiters(cores.div_ceil(2))?, arbiters(cores)?);
        let handles = |arbiters: &[Arbiter]| arbiters.iter().map(Arbiter::handle).collect();
        let threads = Threads {
            greeting: handles(&greeting),
            serving: handles(&serving),
        };
        let subscriptions = Subscriptions {
            subscribe: aggregator.clone().recipient(),
            catch_up: aggregator.clone().recipient(),
            history_sent: aggregator.clone().recipient(),
            unsubscribe: aggregator.clone().recipient(),
            find_log: aggregator.clone().recipient(),
            readings: Arc::new(Semaphore::new(RANGE_READINGS)),
        };
        let permits = listener.permits();
        actix_rt::spawn(listener.run(threads, subscriptions, accepting));
        Ok(Self {
            permits,
            max_clients,
            _threads: [greeting, serving],
        })
    }
}

/// The HTTP server for Prometheus.
struct Scraping {
    permits: Arc<Semaphore>,
    _thread: Arbiter,
}

impl Scraping {
    fn start(
        metrics: Metrics,
        measuring: &Measuring,
        accepting: CancellationToken,
    ) -> io::Result<Self> {
        let thread = arbiter()?;
        let permits = metrics.permits();
        let newest = measuring.aggregator.clone().recipient();
        actix_rt::spawn(metrics.run(
            newest,
            measuring.on_request.clone(),
            thread.handle(),
            accepting,
        ));
        Ok(Self {
            permits,
            _thread: thread,
        })
    }
}

/// A publisher to a server. It has its own thread, so that a slow server delays no client.
#[cfg(any(feature = "nats", feature = "otlp"))]
struct Publishing {
    ended: oneshot::Receiver<()>,
    _thread: Arbiter,
}

#[cfg(any(feature = "nats", feature = "otlp"))]
impl Publishing {
    /// Starts the publisher to a NATS server.
    #[cfg(feature = "nats")]
    fn nats(settings: NatsSettings, measuring: &Measuring) -> io::Result<Self> {
        let aggregator = measuring.aggregator.clone().recipient();
        let reports = Arc::clone(&measuring.reports);
        // The same name as `host.hostname` in snapshots.
        let host = uname().nodename().to_string_lossy().into_owned();
        Self::start(|ending| NatsPublisher::new(settings, &host, aggregator, reports, ending))
    }

    /// Starts the publisher to a receiver of OpenTelemetry.
    #[cfg(feature = "otlp")]
    fn otlp(
        settings: OtlpSettings,
        collect: &CollectSettings,
        publish_interval: Duration,
        measuring: &Measuring,
    ) -> io::Result<Self> {
        let aggregator = measuring.aggregator.clone().recipient();
        let reports = Arc::clone(&measuring.reports);
        let id = collect.host_root.read("/etc/machine-id", 64).ok();
        let id = id.map(|id| id.trim().to_owned());
        let host = SensedHost {
            id: id.filter(|id| !id.is_empty()),
            publish_interval,
        };
        let on_request = measuring.on_request.clone();
        Self::start(|ending| {
            OtlpPublisher::new(settings, host, aggregator, on_request, reports, ending)
        })
    }

    fn start<P: Actor<Context = Context<P>> + Send>(
        publisher: impl FnOnce(oneshot::Sender<()>) -> P,
    ) -> io::Result<Self> {
        let thread = arbiter()?;
        let (ending, ended) = oneshot::channel();
        let publisher = publisher(ending);
        P::start_in_arbiter(&thread.handle(), |_| publisher);
        Ok(Self {
            ended,
            _thread: thread,
        })
    }

    /// Waits until the publisher has ended.
    async fn ended(self) {
        // The publisher sends nothing on this channel. When the publisher ends, it drops the sender.
        let _ = self.ended.await;
    }
}

fn arbiter() -> io::Result<Arbiter> {
    Arbiter::try_new()
}

fn arbiters(count: usize) -> io::Result<Vec<Arbiter>> {
    (0..count).map(|_| arbiter()).collect()
}

/// Starts the collectors of all sources that the settings switch on.
fn start_collectors(
    settings: &CollectSettings,
    container_files: Option<u64>,
    aggregator: &Addr<Aggregator>,
    has_live: watch::Receiver<bool>,
    arbiter: &Arbiter,
) -> Vec<Recipient<StopCollecting>> {
    let containers = settings
        .docker
        .clone()
        .map(|host| Containers::of(host, settings));
    let system = SystemCollector::new(
        HostSource::new(
            settings.into(),
            settings.system_interval,
            containers.clone(),
        ),
        settings.system_interval,
        aggregator.clone().recipient(),
    );
    let mut collectors = vec![start(system, arbiter)];
    let Some(containers) = containers else {
        return collectors;
    };
    let mut source = ContainerSource::new(containers.clone(), settings);
    if let Some(container_files) = container_files {
        source = source.with_kept_files(container_files);
    }
    let docker = DockerCollector::new(
        source,
        settings.docker_interval,
        aggregator.clone().recipient(),
    )
    .with_news(aggregator.clone().recipient());
    collectors.push(start(docker, arbiter));
    if settings.log_lines > 0 {
        let logs = LogCollector::new(
            LogSource::new(containers, settings).with_live(has_live),
            settings.log_interval,
            aggregator.clone().recipient(),
        )
        .with_news(aggregator.clone().recipient());
        collectors.push(start(logs, arbiter));
    }
    collectors
}

fn start<S: Source + Send + Unpin>(
    collector: Collector<S>,
    arbiter: &Arbiter,
) -> Recipient<StopCollecting> {
    Collector::start_in_arbiter(&arbiter.handle(), |_| collector).recipient()
}

/// Waits until every connection has released its permit.
async fn all_released(permits: &Semaphore, count: usize) {
    let all = u32::try_from(count).unwrap_or(u32::MAX);
    // The only possible error is a closed semaphore, and nothing closes it.
    let _ = permits.acquire_many(all).await;
}

/// The signals that the agent handles: SIGTERM and SIGINT end it, SIGHUP reloads the credentials.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the agent, and returns the name of the signal. Reloads the credentials at each SIGHUP.
    async fn until_end(&mut self, renewal: &Renewal) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => renewal.request(),
            }
        }
    }

    /// Waits for a signal that ends the agent, and returns the name of the signal. Ignores SIGHUP.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
