//! The feed for this host: runs the collectors and the aggregator in this process and opens no socket.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient};
use actix_rt::{Arbiter, ArbiterHandle};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::feed::{Detail, HostUpdate, Update, Wish, updates_of};
use crate::app::Measuring;
use crate::client::OlderLines;
use crate::messages::{CatchUp, ClientId, Delivery, FindLog, Subscribe, Unsubscribe};
use crate::model::{LogRange, Options, StreamLine};
use crate::published::StreamPosition;
use crate::settings::CollectSettings;
use crate::supervisor::Supervisor;

/// Maximum number of snapshots that wait for the screen. Further snapshots are skipped.
const MAX_WAITING: usize = 16;
/// Time after which a request for older log lines fails, because a file system hangs.
const MAX_READING: Duration = Duration::from_secs(30);

/// The collectors and the aggregator of this process.
pub(crate) struct Local {
    measuring: Measuring,
    /// The thread that passes snapshots on.
    thread: ArbiterHandle,
    clients: AtomicU64,
}

/// The snapshots that the aggregator sends to one client in this process. Ends when it is dropped.
pub(crate) struct Subscription {
    lines: mpsc::Receiver<Vec<u8>>,
    client: ClientId,
    aggregator: Recipient<Unsubscribe>,
}

impl Local {
    /// Starts the collectors, and an aggregator that publishes every `interval`. Call this in a thread of actix.
    ///
    /// # Errors
    /// Fails if the process cannot start threads.
    pub(crate) fn start(settings: &CollectSettings, interval: Duration) -> io::Result<Self> {
        Ok(Self {
            measuring: Measuring::start(
                settings,
                None,
                interval,
                // The programs that show hosts keep their own history.
                Duration::ZERO,
                Supervisor::default(),
                Default::default(),
            )?,
            thread: Arbiter::current(),
            clients: AtomicU64::default(),
        })
    }

    /// Subscribes with these options, as a client of an agent does.
    ///
    /// # Errors
    /// Fails if the options are wrong.
    pub(crate) fn subscribe(&self, options: &str) -> io::Result<Subscription> {
        let client: ClientId = self.clients.fetch_add(1, Ordering::Relaxed);
        let options = Options::parse(options.as_bytes()).map_err(io::Error::other)?;
        let (inbox, lines) = mpsc::channel(MAX_WAITING);
        let aggregator = &self.measuring.aggregator;
        let catch_up = aggregator.clone().recipient();
        let inbox = Inbox::start_in_arbiter(&self.thread, move |_| Inbox {
            client,
            lines: inbox,
            catch_up,
            since: None,
        });
        aggregator.do_send(Subscribe {
            client,
            options,
            deliveries: inbox.recipient(),
        });
        Ok(Subscription {
            lines,
            client,
            aggregator: aggregator.clone().recipient(),
        })
    }

    /// Reads older log lines of a container.
    ///
    /// # Errors
    /// Fails if the container is not known, or if its log cannot be read.
    pub(crate) async fn older_lines(&self, range: LogRange) -> Result<OlderLines, String> {
        let container = range.container.clone();
        let found = self.measuring.aggregator.send(FindLog { container });
        let log = found.await.map_err(|error| error.to_string())??;
        let reading = spawn_blocking(move || log.0.range(&range));
        let read = timeout(MAX_READING, reading).await.map_err(|_| {
            "reading the log takes too long: possibly a file system hangs".to_owned()
        })?;
        let read = read.map_err(|error| error.to_string())?;
        let read = read.map_err(|error| format!("cannot read the log: {error}"))?;
        let lines = read.lines.iter();
        let lines = lines.map(|line| serde_json::from_str(line).unwrap_or_default());
        Ok(OlderLines {
            lines: lines.collect(),
            reached: read.reached,
        })
    }
}

impl Subscription {
    /// Returns the next JSON line. None if the aggregator has ended.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        self.lines.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let client = self.client;
        self.aggregator.do_send(Unsubscribe { client });
    }
}

/// Sends this host's snapshots as updates until the view ends.
///
/// # Errors
/// Fails if the options of a subscription are wrong.
pub(crate) async fn follow(
    host: usize,
    local: &Local,
    mut wish: watch::Receiver<Wish>,
    news: mpsc::Sender<Update>,
) -> io::Result<()> {
    loop {
        let detail = wish.borrow_and_update().detail;
        let mut lines = local.subscribe(detail.options())?;
        if pass_on(&mut lines, host, detail, &news, &mut wish).await {
            return Ok(());
        }
    }
}

/// Sends snapshots to the screen until the screen needs other data, or until the view ends. Returns whether the view has ended.
async fn pass_on(
    lines: &mut Subscription,
    host: usize,
    detail: Detail,
    news: &mpsc::Sender<Update>,
    wish: &mut watch::Receiver<Wish>,
) -> bool {
    let mut first = true;
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            changed = wish.wait_for(|wish| wish.detail != detail) => return changed.is_err(),
        };
        let Some(line) = line else { return true };
        let updates = match StreamLine::read(&line) {
            Ok(line) => updates_of(line, &mut first),
            Err(error) => vec![HostUpdate::Down {
                why: format!("not a valid snapshot: {error}"),
                again: None,
            }],
        };
        for told in updates {
            if news.send(Update::Host { host, told }).await.is_err() {
                return true;
            }
        }
    }
}

/// Receives snapshots from the aggregator, as a session of a client does.
struct Inbox {
    client: ClientId,
    lines: mpsc::Sender<Vec<u8>>,
    catch_up: Recipient<CatchUp>,
    /// The position of the screen. None before the first snapshot.
    since: Option<StreamPosition>,
}

impl Actor for Inbox {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Inbox {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
        if let Delivery::Snapshot(snapshot) = delivery {
            let since = self.since.as_ref();
            let lacks_something = since.is_some_and(|since| snapshot.lacks_something_after(since));
            if !lacks_something {
                let line = [&snapshot.shared, snapshot.ending(0).as_ref()].concat();
                // If the screen lags, this snapshot is skipped, and a later one has its log lines.
                if self.lines.try_send(line).is_ok() {
                    self.since = Some(snapshot.since.clone());
                }
            }
            if let Some(since) = &self.since
                && (lacks_something || snapshot.more)
            {
                self.catch_up.do_send(CatchUp {
                    client: self.client,
                    since: since.clone(),
                    is_news: snapshot.is_news || snapshot.more,
                });
            }
        }
    }
}
