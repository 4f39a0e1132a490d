//! The feed for a fleet. A fleet is all hosts whose agents publish to one NATS server. The feed has one connection to this
//! server, and receives the messages of all agents.

mod log;
mod message;
mod roll;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Message, ServerAddr};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::ClientConfig;

use super::brief::Brief;
use super::feed::{HostUpdate, LookedAt, Server, Trouble, Update, pause};
use crate::client::{Backoff, Identity, Trust, TrustError};
use crate::model;
use crate::publish::nats::{options, reason, subject};
use crate::settings::{NatsLogin, address_of, parse_servers};
use log::Log;
use message::{Bad, Unpacker};
use roll::{Change, Recorded, Roll};

/// The timeout for a connection to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two pings of the server. After two pings without an answer the connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of messages of one subscription that wait to be read. Further messages are dropped and counted.
const MAX_WAITING: usize = 1024;
/// Maximum number of events of the connection that wait to be handled.
const MAX_COMPLAINTS: usize = 16;
/// The interval at which the feed checks which hosts are silent.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The NATS server of a fleet, and how to connect to it.
pub struct Fleet {
    servers: Vec<ServerAddr>,
    login: Option<NatsLogin>,
    tls: Option<Arc<ClientConfig>>,
    /// Whether the feed refuses a server without TLS.
    tls_only: bool,
}

impl Fleet {
    /// `urls` has the servers' URLs, `nats://HOST[:PORT]` or `tls://HOST[:PORT]`, separated by commas. With `trust` every
    /// connection must use TLS. `identity` is the view's certificate, for servers that request one.
    ///
    /// # Errors
    /// Fails if a URL is wrong or a TLS file cannot be used. The error does not show a URL, because a URL can contain a secret.
    pub fn new(
        urls: &str,
        login: Option<NatsLogin>,
        trust: Option<&Trust>,
        identity: Option<&Identity>,
    ) -> Result<Self, String> {
        let servers = parse_servers(urls)?;
        let tls_only = trust.is_some();
        // Even without `trust` a server can require TLS. In this case the feed trusts the system's authorities.
        let system = match trust {
            Some(_) => None,
            None => match Trust::system() {
                Ok(system) => Some(system),
                Err(error) if servers.iter().any(ServerAddr::tls_required) => {
                    return Err(error.to_string());
                }
                Err(_) => None,
            },
        };
        let tls = trust
            .or(system.as_ref())
            .map(|trust| trust.client_config(identity))
            .transpose();
        Ok(Self {
            servers,
            login,
            tls: tls.map_err(|error: TrustError| error.to_string())?,
            tls_only,
        })
    }

    /// The name on the screen: the hosts and ports of the servers.
    #[must_use]
    pub fn name(&self) -> String {
        let names = self.servers.iter().map(address_of);
        names.collect::<Vec<_>>().join(", ")
    }

    /// Connects to one of the servers. Tries each server once.
    async fn connect(
        &self,
        complaints: mpsc::Sender<Event>,
        missed: Arc<AtomicU64>,
    ) -> Result<Client, Failed> {
        let options = options(self.login.clone())
            .name("system-agent watch")
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(MAX_WAITING)
            .require_tls(self.tls_only)
            // The library must not try again later. `follow` decides when to try again, so that the screen can show the time.
            .max_reconnects(self.servers.len())
            .event_callback(move |event| {
                match event {
                    // There can be thousands of these events. Only their number matters.
                    Event::SlowConsumer(_) => drop(missed.fetch_add(1, Ordering::Relaxed)),
                    // If the channel is full, this event is dropped. The events that wait already report the problem.
                    event => drop(complaints.try_send(event)),
                }
                std::future::ready(())
            });
        let options = match &self.tls {
            Some(tls) => options.tls_client_config(ClientConfig::clone(tls)),
            None => options,
        };
        ConnectOptions::connect(options, &self.servers[..])
            .await
            .map_err(|error| {
                let refused = error.kind() == ConnectErrorKind::AuthorizationViolation;
                let why = match error.kind() {
                    ConnectErrorKind::AuthorizationViolation => {
                        "the NATS server refused the credentials: check the NATS_… variables"
                            .to_owned()
                    }
                    // The file of the login cannot be used. The operator can replace the file, so the feed tries again.
                    ConnectErrorKind::Authentication => {
                        let source = error.source().map(ToString::to_string);
                        reason(&source.unwrap_or_else(|| error.to_string())).to_owned()
                    }
                    _ => format!("cannot connect to {}: {error}", self.name()),
                };
                Failed {
                    why,
                    in_vain: refused,
                }
            })
    }
}

/// Why the feed could not connect, or lost its connection.
struct Failed {
    why: String,
    /// Whether the next attempt would fail too.
    in_vain: bool,
}

/// Sends updates of all hosts until the view ends. Connects again after each failure.
///
/// # Errors
/// Fails if there is no memory for the decompression of zstd.
pub(crate) async fn follow(
    fleet: &Fleet,
    mut looked_at: watch::Receiver<LookedAt>,
    news: mpsc::Sender<Update>,
) -> std::io::Result<()> {
    let mut listener = Listener {
        roll: Roll::default(),
        unpacker: Unpacker::new()?,
        trouble: Trouble::default(),
        missed: Arc::default(),
        told: Trouble::default(),
        news,
    };
    let mut backoff = Backoff::default();
    loop {
        let Err(stopped) = connection(fleet, &mut listener, &mut looked_at, &mut backoff).await
        else {
            return Ok(());
        };
        let again = (!stopped.in_vain).then(|| backoff.pause());
        let why = stopped.why;
        if listener
            .say(Update::Server(Server::Down { why, again }))
            .await
            .is_none()
        {
            return Ok(());
        }
        if pause(again, &mut looked_at, |now| now.tries)
            .await
            .is_none()
        {
            return Ok(());
        }
    }
}

/// Connects and handles messages. Returns an error if the connection fails, and no error if the view has ended.
async fn connection(
    fleet: &Fleet,
    listener: &mut Listener,
    looked_at: &mut watch::Receiver<LookedAt>,
    backoff: &mut Backoff,
) -> Result<(), Failed> {
    let (complaints, mut complained) = mpsc::channel(MAX_COMPLAINTS);
    let missed = Arc::clone(&listener.missed);
    let client = fleet.connect(complaints, missed).await?;
    let lost = || Failed {
        why: format!("the connection to {} is lost", fleet.name()),
        in_vain: false,
    };
    let subscribe = async |subject: String| client.subscribe(subject).await.map_err(|_| lost());
    let mut snapshots = subscribe(subject::SNAPSHOTS.to_owned()).await?;
    let mut events = subscribe(subject::EVENTS.to_owned()).await?;
    backoff.reset();
    listener.roll.resume(Instant::now());
    if listener
        .say(Update::Server(Server::Connected))
        .await
        .is_none()
    {
        return Ok(());
    }
    let mut log: Option<Log> = None;
    let mut seen = LookedAt::default();
    // After a lost connection, handle the open host and container as if the user had just opened them.
    looked_at.mark_changed();
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            message = snapshots.next() => listener.snapshot(message.ok_or_else(lost)?, &seen).await,
            message = events.next() => listener.event(message.ok_or_else(lost)?).await,
            message = of_log(&mut log) => listener.lines(message.ok_or_else(lost)?, &seen).await,
            Some(event) = complained.recv() => match event {
                // The library would now connect again, and the screen could not show the time of the attempt. So the feed ends
                // this connection and makes a new one.
                Event::Disconnected | Event::Closed => return Err(lost()),
                event => {
                    listener.complaint(event);
                    Some(())
                }
            },
            _ = ticks.tick() => listener.tick(&seen).await,
            changed = looked_at.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = looked_at.borrow_and_update().clone();
                let wanted = listener.log_of(&now);
                if log.as_ref().map(Log::subject) != wanted.as_deref() {
                    log = match wanted {
                        Some(subject) => Some(Log::follow(&client, subject).await.ok_or_else(lost)?),
                        None => None,
                    };
                }
                let opened = now.host.filter(|_| now.host != seen.host);
                seen = now;
                match opened {
                    Some(host) => listener.opened(host).await,
                    None => Some(()),
                }
            }
        };
        if done.is_none() {
            return Ok(());
        }
    }
}

/// Sends the new lines of containers' logs until `lines` is closed. A message has the container's name, its lines, and the number of
/// lines that were dropped before them.
///
/// # Errors
/// Fails if the feed cannot connect, or if the connection is lost.
#[cfg(feature = "web")]
pub(crate) async fn follow_logs(
    fleet: &Fleet,
    host: &str,
    containers: &[String],
    lines: &mpsc::Sender<(String, Vec<String>, u64)>,
) -> Result<(), String> {
    let (complaints, mut complained) = mpsc::channel(MAX_COMPLAINTS);
    let connected = fleet.connect(complaints, Arc::default()).await;
    let client = connected.map_err(|failed| failed.why)?;
    let lost = || format!("the connection to {} is lost", fleet.name());
    let mut logs = futures_util::stream::SelectAll::new();
    for container in containers {
        let subject = subject::logs(&subject::token(host), container);
        let log = Log::follow(&client, subject).await.ok_or_else(lost)?;
        let messages = futures_util::stream::unfold(log, |mut log| async {
            let message = log.next().await?;
            Some((message, log))
        });
        let named = messages.map(move |message| (container, message));
        logs.push(Box::pin(named));
    }
    loop {
        let (container, message) = tokio::select! {
            next = logs.next() => next.ok_or_else(lost)?,
            Some(event) = complained.recv() => match event {
                Event::Disconnected | Event::Closed => return Err(lost()),
                _ => continue,
            },
            () = lines.closed() => return Ok(()),
        };
        // A message that is not valid is left out. The feed of the host's snapshots counts such messages.
        let Ok(new) = message::lines(&message.payload) else {
            continue;
        };
        let dropped = message::dropped(&message);
        if lines.send((container.clone(), new, dropped)).await.is_err() {
            return Ok(());
        }
    }
}

/// Returns the next message of the open log. Waits forever if no log is open.
async fn of_log(log: &mut Option<Log>) -> Option<Message> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

/// Converts messages to updates and sends the updates. The methods return none if the view has ended.
struct Listener {
    roll: Roll,
    unpacker: Unpacker,
    trouble: Trouble,
    /// The number of messages that were dropped because they arrived too fast.
    missed: Arc<AtomicU64>,
    /// The counts that the screen already has.
    told: Trouble,
    news: mpsc::Sender<Update>,
}

impl Listener {
    async fn say(&self, news: Update) -> Option<()> {
        self.news.send(news).await.ok()
    }

    async fn tell(&self, host: usize, told: HostUpdate) -> Option<()> {
        self.say(Update::Host { host, told }).await
    }

    /// Handles a message with a snapshot.
    async fn snapshot(&mut self, message: Message, seen: &LookedAt) -> Option<()> {
        let Some(token) = subject::host(&message.subject) else {
            return self.bad(&message, &Bad::Subject);
        };
        if message::is_from_stream(&message) {
            return self.bad(&message, &Bad::FromStream);
        }
        let read = self
            .unpacker
            .line(&message)
            .and_then(|line| Ok((Brief::read(line)?, line)));
        let (brief, line) = match read {
            Ok(read) => read,
            Err(bad) => return self.bad(&message, &bad),
        };
        let Some(Recorded { number, new }) = self.roll.record(token, &brief, line, Instant::now())
        else {
            self.trouble.beyond += 1;
            return Some(());
        };
        let told = match seen.everything || seen.host == Some(number) {
            false => Ok(HostUpdate::Brief(Box::new(brief))),
            true => model::read(line).map(|snapshot| HostUpdate::Snapshot {
                snapshot,
                first: false,
            }),
        };
        if new {
            let name = subject::name(token);
            self.tell(number, HostUpdate::Appeared { name }).await?;
        }
        match told {
            Ok(told) => self.tell(number, told).await,
            Err(error) => self.bad(&message, &error.into()),
        }
    }

    /// Handles a message with an event.
    async fn event(&mut self, message: Message) -> Option<()> {
        // A host is in the list only after its first snapshot. Earlier events of the host are ignored.
        let Some(number) =
            subject::host(&message.subject).and_then(|token| self.roll.number(token))
        else {
            return Some(());
        };
        if message::is_from_stream(&message) {
            return self.bad(&message, &Bad::FromStream);
        }
        match message::event(&message.payload) {
            Ok(event) => self.tell(number, HostUpdate::Event(Box::new(event))).await,
            Err(bad) => self.bad(&message, &bad),
        }
    }

    /// Handles a message with lines of the log that the screen shows.
    async fn lines(&mut self, message: Message, seen: &LookedAt) -> Option<()> {
        let (Some(host), Some(container)) = (seen.host, seen.container.clone()) else {
            return Some(());
        };
        match message::lines(&message.payload) {
            Ok(lines) => {
                let dropped = message::dropped(&message);
                self.tell(
                    host,
                    HostUpdate::Lines {
                        container,
                        lines,
                        dropped,
                    },
                )
                .await
            }
            Err(bad) => self.bad(&message, &bad),
        }
    }

    /// Sends the complete newest snapshot of a host that the user has just opened. So the screen need not wait for the next
    /// snapshot.
    async fn opened(&mut self, host: usize) -> Option<()> {
        let known = self.roll.line(host).map(model::read);
        match known {
            Some(Ok(snapshot)) => self.tell(host, HostUpdate::Opened { snapshot }).await,
            // An invalid snapshot is not counted here. While the host is open, each invalid snapshot is counted when it arrives.
            Some(Err(_)) | None => Some(()),
        }
    }

    /// The subject of the log that the screen shows.
    fn log_of(&self, now: &LookedAt) -> Option<String> {
        let (host, container) = (now.host?, now.container.as_ref()?);
        Some(subject::logs(self.roll.token(host)?, container))
    }

    /// Sends which hosts have become silent or have vanished. If the counts of messages that were not shown have changed, sends
    /// the counts.
    async fn tick(&mut self, seen: &LookedAt) -> Option<()> {
        for change in self.roll.changes(Instant::now(), seen.host) {
            match change {
                Change::Silent(host) => self.tell(host, HostUpdate::Silent).await?,
                Change::Vanished(host) => self.tell(host, HostUpdate::Vanished).await?,
            }
        }
        self.trouble.missed = self.missed.load(Ordering::Relaxed);
        if self.trouble != self.told {
            self.told = self.trouble.clone();
            self.say(Update::Server(Server::Trouble(self.told.clone())))
                .await?;
        }
        Some(())
    }

    /// Counts a message that is not valid.
    fn bad(&mut self, message: &Message, bad: &Bad) -> Option<()> {
        self.trouble.bad += 1;
        self.trouble.last = format!("{}: {bad}", message.subject);
        Some(())
    }

    /// Stores an error of the server, for the screen.
    fn complaint(&mut self, event: Event) {
        // Other events have effects that the screen already shows.
        if let Event::ServerError(error) = event {
            let error = error.to_string();
            // A viewer without permission to read stored messages still gets new lines, so this error is not shown.
            if !error.contains(log::DIRECT_GET) {
                self.trouble.last = error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Fleet;

    fn fleet(urls: &str) -> Result<String, String> {
        Fleet::new(urls, None, None, None).map(|fleet| fleet.name())
    }

    #[test]
    fn the_name_has_the_hosts_and_ports_of_the_urls() {
        assert_eq!(fleet("nats://hub").unwrap(), "hub:4222");
        assert_eq!(
            fleet("tls://hub:14222, nats://[::1]:4223").unwrap(),
            "hub:14222, [::1]:4223"
        );
    }
}
