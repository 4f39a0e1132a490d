//! The feed for this host: runs the collectors and the aggregator in this process and opens no socket.

use std::io;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient};
use tokio::sync::{mpsc, watch};

use super::feed::{Detail, HostUpdate, Update, Wish, updates_of};
use crate::app::Measuring;
use crate::messages::{CatchUp, ClientId, Delivery, Subscribe, Unsubscribe};
use crate::model::{Options, StreamLine};
use crate::published::StreamPosition;
use crate::settings::CollectSettings;
use crate::supervisor::Supervisor;

/// The time between two snapshots.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of snapshots that wait for the screen. Further snapshots are skipped.
const MAX_WAITING: usize = 16;

/// Sends this host's snapshots as updates until the view ends.
///
/// # Errors
/// Fails if the process cannot start threads.
pub(crate) async fn follow(
    host: usize,
    settings: CollectSettings,
    mut wish: watch::Receiver<Wish>,
    news: mpsc::Sender<Update>,
) -> io::Result<()> {
    let measuring = Measuring::start(
        &settings,
        PUBLISH_INTERVAL,
        // The view keeps its own history.
        Duration::ZERO,
        Supervisor::default(),
        Default::default(),
    )?;
    for client in 0.. {
        let detail = wish.borrow_and_update().detail;
        let options = Options::parse(detail.options().as_bytes()).map_err(io::Error::other)?;
        let (inbox, mut lines) = mpsc::channel(MAX_WAITING);
        let catch_up = measuring.aggregator.clone().recipient();
        let inbox = Inbox {
            client,
            lines: inbox,
            catch_up,
            since: None,
        }
        .start();
        measuring.aggregator.do_send(Subscribe {
            client,
            options,
            deliveries: inbox.recipient(),
        });
        let ended = pass_on(&mut lines, host, detail, &news, &mut wish).await;
        let client: ClientId = client;
        measuring.aggregator.do_send(Unsubscribe { client });
        if ended {
            break;
        }
    }
    Ok(())
}

/// Sends snapshots to the screen until the screen needs other data, or until the view ends. Returns whether the view has ended.
async fn pass_on(
    lines: &mut mpsc::Receiver<Vec<u8>>,
    host: usize,
    detail: Detail,
    news: &mpsc::Sender<Update>,
    wish: &mut watch::Receiver<Wish>,
) -> bool {
    let mut first = true;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
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
