//! A host's snapshots, one connection after the other.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::brief::Brief;
use crate::client::{Backoff, Connector, Error};
use crate::model::{ContainerEvent, Snapshot};

/// How long a first snapshot may take.
const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// How much is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Detail {
    /// No logs: they are most of a snapshot.
    #[default]
    Figures,
    /// Each log line once, too.
    Logs,
}

/// What is wished for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    pub(super) detail: Detail,
    /// How often the user has asked for hosts that are away to be tried now.
    pub(super) tries: u64,
}

/// What is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LookedAt {
    pub(super) host: Option<usize>,
    /// The name of the container whose log is followed.
    pub(super) container: Option<String>,
    /// How often the user has asked for a connection now.
    pub(super) tries: u64,
}

/// What a feed tells.
pub(super) enum News {
    /// Of a host.
    Host {
        /// Which one: a number that no other has had.
        host: usize,
        told: Told,
    },
    /// Of the server that all hosts are heard of by.
    Server(Server),
}

/// What a feed tells of a host.
pub(super) enum Told {
    /// It is one that was not known, and is called this until its own name is.
    Appeared { name: String },
    /// What the fleet's table shows of a snapshot.
    Brief(Box<Brief>),
    Snapshot {
        snapshot: Box<Snapshot>,
        /// Of its connection.
        first: bool,
    },
    /// Why, and after what time it is tried again; not by itself where that would be in vain.
    Down {
        why: String,
        again: Option<Duration>,
    },
    /// The newest snapshot, of which only what the table shows was told.
    Opened { snapshot: Box<Snapshot> },
    /// Something that a snapshot has not told.
    Event(Box<ContainerEvent>),
    /// New lines of a container's log, and how many before them are lost.
    Lines {
        container: String,
        lines: Vec<String>,
        dropped: u64,
    },
    /// Its snapshots have stopped.
    Silent,
    /// It has been silent for so long that it is no longer listed.
    Vanished,
}

/// What a feed tells of the server that it hears of all hosts by.
pub(super) enum Server {
    Connected,
    /// As [`Told::Down`].
    Down {
        why: String,
        again: Option<Duration>,
    },
    /// What went wrong meanwhile.
    Trouble(Trouble),
}

/// Messages that were not shown, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// That were not understood.
    pub(super) bad: u64,
    /// That came faster than they were taken.
    pub(super) missed: u64,
    /// Of hosts beyond as many as are listed.
    pub(super) beyond: u64,
    /// What was wrong last.
    pub(super) last: String,
}

impl Detail {
    /// What is said after the key.
    pub(super) fn options(self) -> &'static str {
        match self {
            Self::Figures => r#"{"sections":["system","containers","docker_meta","events"]}"#,
            Self::Logs => r#"{"logs":"new"}"#,
        }
    }
}

/// Tells of an agent's snapshots until nobody listens.
pub(super) async fn follow(
    host: usize,
    connector: Connector,
    mut wish: watch::Receiver<Wish>,
    news: mpsc::Sender<News>,
) {
    let mut backoff = Backoff::default();
    loop {
        let detail = wish.borrow_and_update().detail;
        let connection = one_connection(&connector, detail, &mut backoff, host, &news);
        let outcome = tokio::select! {
            outcome = connection => outcome,
            // That hosts are to be tried does not concern one that is there.
            changed = wish.wait_for(|wish| wish.detail != detail) => match changed {
                Ok(_) => continue,
                Err(_) => return,
            },
        };
        let Some(error) = outcome else { return };
        // A wrong key does not become right, and each more keeps this address out for longer.
        let in_vain = matches!(error, Error::Unauthorized | Error::Answered(_));
        let again = (!in_vain).then(|| backoff.pause());
        let told = Told::Down {
            why: error.to_string(),
            again,
        };
        if news.send(News::Host { host, told }).await.is_err() {
            return;
        }
        if pause(again, &mut wish, |wish| wish.tries).await.is_none() {
            return;
        }
    }
}

/// Waits so long, or until the user asks for another try; for that alone, where trying is in vain. None where nobody listens.
pub(super) async fn pause<T>(
    again: Option<Duration>,
    wishes: &mut watch::Receiver<T>,
    tries: fn(&T) -> u64,
) -> Option<()> {
    let before = tries(&wishes.borrow());
    let wait = async {
        match again {
            Some(wait) => sleep(wait).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait => Some(()),
        asked = wishes.wait_for(|wishes| tries(wishes) != before) => asked.ok().map(drop),
    }
}

/// Why it ended; none where nobody listens.
async fn one_connection(
    connector: &Connector,
    detail: Detail,
    backoff: &mut Backoff,
    host: usize,
    news: &mpsc::Sender<News>,
) -> Option<Error> {
    let mut snapshots = match connector.connect_asking(detail.options()).await {
        Ok(snapshots) => snapshots,
        Err(error) => return Some(error),
    };
    let mut first = true;
    loop {
        // An agent sends its newest at once, or its first as soon as there is one.
        let next = match first {
            true => timeout(FIRST_WITHIN, snapshots.next())
                .await
                .unwrap_or(Err(Error::Silent(FIRST_WITHIN))),
            false => snapshots.next().await,
        };
        match next {
            Ok(snapshot) => {
                backoff.reset();
                let told = Told::Snapshot {
                    snapshot: Box::new(snapshot),
                    first: std::mem::take(&mut first),
                };
                news.send(News::Host { host, told }).await.ok()?;
            }
            Err(error) => return Some(error),
        }
    }
}
