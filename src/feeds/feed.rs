//! A feed receives snapshots and sends them to the screen as updates. This module has the feed for one host with an agent. This
//! feed connects to the agent, and connects again after an error.
//!
//! This module also defines the updates that all feeds send to the screen.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::brief::Brief;
use crate::client::{Backoff, Connector, Error, with_option};
use crate::model::{ContainerEvent, History, MOST_HISTORY, Snapshot, StreamLine};

/// The timeout for the first snapshot of a connection.
const FIRST_TIMEOUT: Duration = Duration::from_secs(15);

/// The figures of the past that are asked for begin this long before they are missing.
const PAST_MARGIN: Duration = Duration::from_secs(10);

/// The amount of data that the view requests from an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Everything except logs, which are the largest part of a snapshot.
    #[default]
    Figures,
    /// Everything. The agent sends each log line once, as soon as it is written.
    Logs,
}

/// What the screen needs from the feed of one host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    pub(crate) detail: Detail,
    /// The number of times that the user has asked to connect now. When the number changes, the feed ends its back-off.
    pub(crate) tries: u64,
    /// Whether the agent sends the figures of the past that it has kept, after each connection.
    pub(crate) past: bool,
}

/// The host and the container that the user has opened, for the feed of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LookedAt {
    /// Whether the complete snapshots of all hosts are needed.
    pub(crate) everything: bool,
    /// The number of the host that is open.
    pub(crate) host: Option<usize>,
    /// The name of the container that is open. The feed sends the log of this container.
    pub(crate) container: Option<String>,
    /// The number of times that the user has asked to connect now. When the number changes, the feed ends its back-off.
    pub(crate) tries: u64,
}

/// An update that a feed sends to the screen.
pub(crate) enum Update {
    /// An update of one host.
    Host {
        /// The number of the host. The number of a removed host is never used again.
        host: usize,
        told: HostUpdate,
    },
    /// An update of the connection to the NATS server.
    Server(Server),
}

/// An update of one host.
pub(crate) enum HostUpdate {
    /// A new host of a fleet. The name comes from the subject of the host's messages. The view shows this name and not the name
    /// in snapshots.
    Appeared { name: String },
    /// The part of a new snapshot that the table of hosts shows.
    Brief(Box<Brief>),
    /// A new snapshot.
    Snapshot {
        snapshot: Box<Snapshot>,
        /// Whether the snapshot is the first snapshot of a connection.
        first: bool,
    },
    /// Figures of the past, before the first snapshot of a connection. Only with [`Wish::past`].
    Past(Box<History>),
    /// The connection failed.
    Down {
        /// The reason.
        why: String,
        /// The time until the next attempt. None if only the user can start the next attempt.
        again: Option<Duration>,
    },
    /// The complete newest snapshot of a host, after the user has opened the host. The feed has sent the [`Brief`] of this
    /// snapshot earlier.
    Opened { snapshot: Box<Snapshot> },
    /// An event of a container, from a NATS message or between two snapshots.
    Event(Box<ContainerEvent>),
    /// New lines of a container's log, from a NATS message or between two snapshots.
    Lines {
        container: String,
        lines: Vec<String>,
        /// The number of dropped lines, which are missing in front of `lines`.
        dropped: u64,
    },
    /// No snapshot has arrived for several intervals of the host.
    Silent,
    /// The feed has removed the host from its list, because no snapshot has arrived for ten minutes.
    Vanished,
}

/// An update of the connection to the NATS server.
pub(crate) enum Server {
    /// The feed is connected.
    Connected,
    /// The connection failed, as in [`HostUpdate::Down`].
    Down {
        why: String,
        again: Option<Duration>,
    },
    /// The counts of messages that the view did not show have changed.
    Trouble(Trouble),
}

/// Counts of messages that the view did not show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Messages that are not valid.
    pub(crate) bad: u64,
    /// Messages that arrived faster than the view could read them.
    pub(crate) missed: u64,
    /// Messages of new hosts that arrived when the list of hosts was full.
    pub(crate) beyond: u64,
    /// The text of the newest problem.
    pub(crate) last: String,
}

impl Detail {
    /// The options that the client sends after its key.
    pub(crate) fn options(self) -> &'static str {
        match self {
            Self::Figures => {
                r#"{"sections":["system","containers","docker_meta","stopped","events"]}"#
            }
            Self::Logs => r#"{"logs":"new","live":true}"#,
        }
    }
}

/// Sends an agent's snapshots as updates until the view ends.
pub(crate) async fn follow(
    host: usize,
    connector: Connector,
    mut wish: watch::Receiver<Wish>,
    news: mpsc::Sender<Update>,
) {
    let mut backoff = Backoff::default();
    let mut past = Past {
        is_wanted: wish.borrow().past,
        newest: None,
    };
    loop {
        let detail = wish.borrow_and_update().detail;
        let connection = one_connection(&connector, detail, &mut past, &mut backoff, host, &news);
        let outcome = tokio::select! {
            outcome = connection => outcome,
            // While there is a connection, a change of `tries` has no effect. A change of `detail` needs a new connection.
            changed = wish.wait_for(|wish| wish.detail != detail) => match changed {
                Ok(_) => continue,
                Err(_) => return,
            },
        };
        let Some(error) = outcome else { return };
        if past.is_wanted && matches!(error, Error::Answered(_)) {
            // An agent of an earlier version does not know the option.
            past.is_wanted = false;
            continue;
        }
        past.is_wanted = wish.borrow().past;
        // Another attempt cannot help against these errors. With a wrong key, the agent would even block this address for longer.
        let in_vain = matches!(error, Error::Unauthorized | Error::Answered(_));
        let again = (!in_vain).then(|| backoff.pause());
        let told = HostUpdate::Down {
            why: error.to_string(),
            again,
        };
        if news.send(Update::Host { host, told }).await.is_err() {
            return;
        }
        if pause(again, &mut wish, |wish| wish.tries).await.is_none() {
            return;
        }
    }
}

/// Waits for the time `again`, or until the user requests an attempt. If `again` is none, waits only for the user. Returns none
/// if the view has ended.
pub(crate) async fn pause<T>(
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

/// Returns the updates of one JSON line. `is_first` tells whether it is the first one of its connection, and is false afterwards.
pub(crate) fn updates_of(line: StreamLine, is_first: &mut bool) -> Vec<HostUpdate> {
    let news = match line {
        StreamLine::Snapshot(snapshot) => {
            let first = std::mem::take(is_first);
            return vec![HostUpdate::Snapshot { snapshot, first }];
        }
        StreamLine::News(news) => *news,
        StreamLine::History(past) => return vec![HostUpdate::Past(past)],
    };
    let mut dropped = news.logs_dropped;
    let mut logs = news.logs;
    for container in dropped.keys() {
        logs.entry(container.clone()).or_default();
    }
    let events = news.events.into_iter().map(Box::new).map(HostUpdate::Event);
    let lines = logs.into_iter().map(|(container, lines)| {
        let dropped = dropped.remove(&container).unwrap_or_default();
        HostUpdate::Lines {
            container,
            lines,
            dropped,
        }
    });
    events.chain(lines).collect()
}

/// How much of the past a feed needs after it has connected again.
struct Past {
    is_wanted: bool,
    /// When the newest snapshot arrived, by both clocks. The first clock stands still while the machine sleeps.
    newest: Option<(Instant, SystemTime)>,
}

impl Past {
    /// Adds the option `history`: everything since the newest snapshot.
    fn option(&self, options: &str) -> String {
        if !self.is_wanted {
            return options.to_owned();
        }
        let passed = self.newest.map(|(instant, time)| {
            let by_time = time.elapsed().unwrap_or_default();
            instant.elapsed().max(by_time) + PAST_MARGIN
        });
        let missing = passed.unwrap_or(MOST_HISTORY).min(MOST_HISTORY);
        with_option(options, "history", missing.as_secs().into())
    }
}

/// Connects, and sends snapshots as updates until an error occurs. Returns the error, or none if the view has ended.
async fn one_connection(
    connector: &Connector,
    detail: Detail,
    past: &mut Past,
    backoff: &mut Backoff,
    host: usize,
    news: &mpsc::Sender<Update>,
) -> Option<Error> {
    let options = past.option(detail.options());
    let mut snapshots = match connector.connect_asking(&options).await {
        Ok(snapshots) => snapshots,
        Err(error) => return Some(error),
    };
    let mut first = true;
    loop {
        // An agent sends its newest snapshot immediately. An agent that has just started needs a few seconds for its first
        // snapshot.
        let next = match first {
            true => timeout(FIRST_TIMEOUT, snapshots.next_line())
                .await
                .unwrap_or(Err(Error::Silent(FIRST_TIMEOUT))),
            false => snapshots.next_line().await,
        };
        match next {
            Ok(line) => {
                backoff.reset();
                if let StreamLine::Snapshot(_) = line {
                    past.newest = Some((Instant::now(), SystemTime::now()));
                }
                for told in updates_of(line, &mut first) {
                    news.send(Update::Host { host, told }).await.ok()?;
                }
            }
            Err(error) => return Some(error),
        }
    }
}
