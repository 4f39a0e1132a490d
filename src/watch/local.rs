//! This host's snapshots, without any socket: the daemon's collectors and its aggregator, in this process.

use std::io;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use tokio::sync::{mpsc, watch};

use super::feed::{Detail, News, Told, Wish};
use crate::app::Measuring;
use crate::messages::{ClientId, Delivery, Subscribe, Unsubscribe};
use crate::model::Options;
use crate::settings::CollectSettings;
use crate::supervisor::Supervisor;

/// How often a snapshot is shown.
const EVERY: Duration = Duration::from_secs(1);
/// Snapshots that wait to be shown; further ones are left out.
const MOST_WAITING: usize = 16;

/// Tells of this host's snapshots until nobody listens.
///
/// # Errors
/// Where the process is denied threads.
pub(super) async fn follow(
    host: usize,
    settings: CollectSettings,
    mut wish: watch::Receiver<Wish>,
    news: mpsc::Sender<News>,
) -> io::Result<()> {
    let measuring = Measuring::start(&settings, EVERY, Supervisor::default(), Default::default())?;
    for client in 0.. {
        let detail = wish.borrow_and_update().detail;
        let options = Options::parse(detail.options().as_bytes()).map_err(io::Error::other)?;
        let (inbox, mut lines) = mpsc::channel(MOST_WAITING);
        let inbox = Inbox(inbox).start();
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

/// Until something else is wished for, or, as it returns, nobody listens.
async fn pass_on(
    lines: &mut mpsc::Receiver<Vec<u8>>,
    host: usize,
    detail: Detail,
    news: &mpsc::Sender<News>,
    wish: &mut watch::Receiver<Wish>,
) -> bool {
    let mut first = true;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            changed = wish.wait_for(|wish| wish.detail != detail) => return changed.is_err(),
        };
        let Some(line) = line else { return true };
        let told = match serde_json::from_slice(&line) {
            Ok(snapshot) => Told::Snapshot {
                snapshot,
                first: std::mem::take(&mut first),
            },
            Err(error) => Told::Down {
                why: format!("not a valid snapshot: {error}"),
                again: None,
            },
        };
        if news.send(News::Host { host, told }).await.is_err() {
            return true;
        }
    }
}

/// Takes what a session would take.
struct Inbox(mpsc::Sender<Vec<u8>>);

impl Actor for Inbox {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Inbox {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Self::Context) {
        if let Delivery::Snapshot(snapshot) = delivery {
            let line = [&snapshot.shared, snapshot.ending(0).as_ref()].concat();
            // A screen that does not keep up has enough to show.
            let _ = self.0.try_send(line);
        }
    }
}
