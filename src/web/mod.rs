//! `system-agent web`: shows hosts in a browser.
//!
//! The figures come from the agents of the hosts, from a NATS server, or from collectors in this process. The daemon never starts
//! this server.
//!
//! `hosts` has the state of each host, which the feeds of `crate::feeds` update. `source` asks the agents for log lines,
//! but only while a browser shows them. `history` stores figures and events. `api` has the handlers of the JSON API, `server` the HTTP server, `auth` and `password` the login, and `page` the files of the page.

mod api;
mod auth;
mod figures;
mod history;
mod hosts;
mod page;
mod password;
mod problems;
mod server;
mod settings;
mod source;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use password::write_password;
pub use settings::{TrustedProxy, VARIABLES, WebSettings, password_file};
pub use tls::{TlsFiles, TlsIdentity};

use crate::client::Connector;
#[cfg(feature = "nats")]
use crate::feeds::feed::LookedAt;
use crate::feeds::feed::{self, HostUpdate, Update, Wish};
use crate::feeds::local::{self, Local};
#[cfg(feature = "nats")]
use crate::feeds::nats;
#[cfg(feature = "nats")]
pub use crate::feeds::nats::Fleet;
use crate::settings::CollectSettings;
use auth::Auth;
pub use history::{Answer, History, HistorySettings, Retention};
use hosts::Hosts;
use source::Source;

/// Maximum number of updates that wait. When this number is reached, a feed waits before it sends the next update.
const MAX_WAITING: usize = 64;
/// The time between two snapshots of this host without an agent.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(2);
/// The interval at which feeds try again that only a person could start again, for example after a wrong key.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);

/// The hosts that the page shows.
pub enum Shown {
    /// Hosts with an agent, each with the name that the user has given.
    Agents(Vec<(String, Connector)>),
    /// All hosts whose agents publish to a NATS server.
    #[cfg(feature = "nats")]
    Fleet(Fleet),
    /// This host, without an agent.
    Here(Box<CollectSettings>),
}

/// Serves the page until a signal ends the program.
///
/// # Errors
/// Fails if the address cannot be used, or if a thread cannot be started.
pub async fn run(settings: WebSettings, shown: Shown) -> anyhow::Result<()> {
    let stop = stop_at_signals().context("cannot listen for signals")?;
    let listener = listen(settings.address)
        .with_context(|| format!("WEB_ADDRESS: cannot listen on {}", settings.address))?;
    let tls = settings.tls.clone();
    let tls = tls.map(|(files, identity)| tls::server_config(files, identity));
    let tls = tls.transpose().context("cannot start a thread")?;
    let history = Arc::new(open_history(&settings)?);
    let writer = history.start_writer().context("cannot start a thread")?;
    let hosts = Hosts::new(history);
    follow(&hosts, shown).context("cannot start the collectors")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = listener.local_addr().unwrap_or(settings.address);
    let auth = Arc::new(Auth::new(&settings));
    info!(
        url = format!("{scheme}://{address}/"),
        login = auth.is_needed(),
        guest = settings.guest,
        version = env!("CARGO_PKG_VERSION"),
        "page server started"
    );
    let app = api::App::new(auth, hosts);
    server::serve(listener, tls, app, stop).await;
    drop(writer);
    info!("page server stopped");
    Ok(())
}

/// Opens the history.
fn open_history(settings: &WebSettings) -> anyhow::Result<History> {
    let HistorySettings { folder, .. } = &settings.history;
    let error = match History::open(&settings.history) {
        Ok(_) if folder.is_none() && !settings.is_history_needed => {
            std::io::Error::other("no folder; set WEB_HISTORY_FOLDER")
        }
        Ok(history) => {
            let folder = folder.as_ref().map(|folder| folder.display().to_string());
            info!(folder, "history opened");
            return Ok(history);
        }
        Err(error) => error,
    };
    let folder = folder.as_deref().unwrap_or(Path::new("")).display();
    if settings.is_history_needed {
        anyhow::bail!("WEB_HISTORY_FOLDER: cannot use {folder}: {error}");
    }
    warn!(%error, %folder, "the history is not stored: only the last hour stays in memory");
    Ok(History::in_memory(error.to_string()))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Starts the feeds of the hosts.
fn follow(hosts: &Arc<Hosts>, shown: Shown) -> std::io::Result<()> {
    let (news, updates) = mpsc::channel(MAX_WAITING);
    match shown {
        Shown::Agents(agents) => {
            let agents = agents.into_iter().take(hosts::MAX_HOSTS).enumerate();
            for (number, (_, connector)) in agents {
                let source = Source::Agent(Arc::new(connector.without_cursor()));
                hosts.add(number, connector.address(), false, source);
                let wishes = retried();
                actix_rt::spawn(feed::follow(number, connector, wishes, news.clone()));
            }
            actix_rt::spawn(Arc::clone(hosts).follow(updates, |_| None));
        }
        #[cfg(feature = "nats")]
        Shown::Fleet(fleet) => {
            let fleet = Arc::new(fleet);
            let (wish, wishes) = watch::channel(LookedAt {
                everything: true,
                ..LookedAt::default()
            });
            let followed = Arc::clone(&fleet);
            actix_rt::spawn(async move {
                // Without the sender, the feed would end.
                let _wish = wish;
                if let Err(error) = nats::follow(&followed, wishes, news).await {
                    tracing::warn!(%error, "the feed of the NATS server has ended");
                }
            });
            let of_fleet = move |name: &str| {
                Some(Source::Fleet {
                    fleet: Arc::clone(&fleet),
                    host: name.to_owned(),
                })
            };
            actix_rt::spawn(Arc::clone(hosts).follow(updates, of_fleet));
        }
        Shown::Here(settings) => {
            let local = Arc::new(Local::start(&settings, PUBLISH_INTERVAL)?);
            hosts.add(0, "local", false, Source::Here(Arc::clone(&local)));
            let wishes = retried();
            actix_rt::spawn(async move {
                if let Err(error) = local::follow(0, &local, wishes, news.clone()).await {
                    let told = HostUpdate::Down {
                        why: error.to_string(),
                        again: None,
                    };
                    // Sending fails if the program ends.
                    let _ = news.send(Update::Host { host: 0, told }).await;
                }
            });
            actix_rt::spawn(Arc::clone(hosts).follow(updates, |_| None));
        }
    }
    Ok(())
}

/// Returns the wish for figures only, and for the past after each connection. Asks the feed every few minutes to connect again, even if it waits for a person.
fn retried() -> watch::Receiver<Wish> {
    let (wish, wishes) = watch::channel(Wish {
        past: true,
        ..Wish::default()
    });
    actix_rt::spawn(async move {
        let mut ticks = interval(RETRY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if wish.is_closed() {
                return;
            }
            wish.send_modify(|wish| wish.tries += 1);
        }
    });
    wishes
}

/// Returns a token that is cancelled by the first signal.
fn stop_at_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
    for kind in kinds {
        let (mut signals, stop) = (signal(kind)?, stop.clone());
        actix_rt::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(stop)
}

/// Returns a time in milliseconds since 1970.
fn millis(time: SystemTime) -> i64 {
    let passed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the current time in milliseconds since 1970.
fn now() -> i64 {
    millis(SystemTime::now())
}
