//! All hosts of a fleet, by one connection to NATS: hosts are those whose agents publish there.

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
use super::feed::{LookedAt, News, Server, Told, Trouble, pause};
use crate::client::{Backoff, Identity, Trust, TrustError};
use crate::model;
use crate::publish::nats::{options, reason, subject};
use crate::settings::{NatsLogin, address_of, parse_servers};
use log::Log;
use message::{Bad, Unpacker};
use roll::{Change, Heard, Roll};

/// How long it may take to connect to one server.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server that says nothing for this long is asked, and is gone when it has not answered twice.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// Messages of one kind that wait to be taken; further ones are left out, and counted.
const MOST_WAITING: usize = 1024;
/// Complaints of the server's that wait to be told.
const MOST_COMPLAINTS: usize = 16;
/// How often it is looked at who is silent.
const EVERY: Duration = Duration::from_secs(1);

/// Where a fleet is heard of, and how it is reached.
pub struct Fleet {
    servers: Vec<ServerAddr>,
    login: Option<NatsLogin>,
    tls: Option<Arc<ClientConfig>>,
    /// Whether a server without TLS will not do.
    tls_only: bool,
}

impl Fleet {
    /// By servers' URLs, separated by commas: `nats://HOST[:PORT]` or `tls://HOST[:PORT]`. Whom to trust, where TLS is asked
    /// for, and who the view is to a server that asks for a certificate.
    ///
    /// # Errors
    /// What is wrong with them; no URL is shown, as a secret might be in it.
    pub fn new(
        urls: &str,
        login: Option<NatsLogin>,
        trust: Option<&Trust>,
        identity: Option<&Identity>,
    ) -> Result<Self, String> {
        let servers = parse_servers(urls)?;
        let tls_only = trust.is_some();
        // Which server wants TLS is known when it says so; then it is the system's authorities that count.
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

    /// What it is called on the screen: hosts and ports.
    #[must_use]
    pub fn name(&self) -> String {
        let names = self.servers.iter().map(address_of);
        names.collect::<Vec<_>>().join(", ")
    }

    async fn connect(
        &self,
        complaints: mpsc::Sender<Event>,
        missed: Arc<AtomicU64>,
    ) -> Result<Client, Failed> {
        let options = options(self.login.clone())
            .name("system-agent watch")
            .connection_timeout(PATIENCE)
            .ping_interval(ASKED_EVERY)
            .subscription_capacity(MOST_WAITING)
            .require_tls(self.tls_only)
            // Each is tried once: when and whether again is said on the screen, and so is not left to the client.
            .max_reconnects(self.servers.len())
            .event_callback(move |event| {
                match event {
                    // There may be thousands, which would leave no room for others.
                    Event::SlowConsumer(_) => drop(missed.fetch_add(1, Ordering::Relaxed)),
                    // Those that find no room are like those before them.
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
                        "the NATS server refused the credentials: are NATS_… set to this fleet's?"
                            .to_owned()
                    }
                    // The file, which may be another one soon.
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

/// Why there is no connection, or no more.
struct Failed {
    why: String,
    /// Whether it would fail again.
    in_vain: bool,
}

/// Tells of all hosts until nobody listens.
///
/// # Errors
/// Where there is no memory for the unpacking of zstd.
pub(super) async fn follow(
    fleet: Fleet,
    mut looked_at: watch::Receiver<LookedAt>,
    news: mpsc::Sender<News>,
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
        let Err(stopped) = connection(&fleet, &mut listener, &mut looked_at, &mut backoff).await
        else {
            return Ok(());
        };
        let again = (!stopped.in_vain).then(|| backoff.pause());
        let why = stopped.why;
        if listener
            .say(News::Server(Server::Down { why, again }))
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

/// Until it fails, or nobody listens any more.
async fn connection(
    fleet: &Fleet,
    listener: &mut Listener,
    looked_at: &mut watch::Receiver<LookedAt>,
    backoff: &mut Backoff,
) -> Result<(), Failed> {
    let (complaints, mut complained) = mpsc::channel(MOST_COMPLAINTS);
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
        .say(News::Server(Server::Connected))
        .await
        .is_none()
    {
        return Ok(());
    }
    let mut log: Option<Log> = None;
    let mut seen = LookedAt::default();
    // What was looked at before is looked at still.
    looked_at.mark_changed();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            message = snapshots.next() => listener.snapshot(message.ok_or_else(lost)?, &seen).await,
            message = events.next() => listener.event(message.ok_or_else(lost)?).await,
            message = of_log(&mut log) => listener.lines(message.ok_or_else(lost)?, &seen).await,
            Some(event) = complained.recv() => match event {
                // The client would connect again, and not say when.
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

/// The next message of a log that is followed.
async fn of_log(log: &mut Option<Log>) -> Option<Message> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

/// Makes news of messages. Each of its steps yields nothing once nobody listens.
struct Listener {
    roll: Roll,
    unpacker: Unpacker,
    trouble: Trouble,
    /// Messages that came faster than they were taken.
    missed: Arc<AtomicU64>,
    /// As it was told last.
    told: Trouble,
    news: mpsc::Sender<News>,
}

impl Listener {
    async fn say(&self, news: News) -> Option<()> {
        self.news.send(news).await.ok()
    }

    async fn tell(&self, host: usize, told: Told) -> Option<()> {
        self.say(News::Host { host, told }).await
    }

    async fn snapshot(&mut self, message: Message, seen: &LookedAt) -> Option<()> {
        let Some(token) = subject::host(&message.subject) else {
            return self.bad(&message, &Bad::Subject);
        };
        if message::is_kept(&message) {
            return self.bad(&message, &Bad::Kept);
        }
        let read = self
            .unpacker
            .line(&message)
            .and_then(|line| Ok((Brief::read(line)?, line)));
        let (brief, line) = match read {
            Ok(read) => read,
            Err(bad) => return self.bad(&message, &bad),
        };
        let Some(Heard { number, new }) = self.roll.heard(token, &brief, line, Instant::now())
        else {
            self.trouble.beyond += 1;
            return Some(());
        };
        let told = match seen.host == Some(number) {
            false => Ok(Told::Brief(Box::new(brief))),
            true => model::read(line).map(|snapshot| Told::Snapshot {
                snapshot,
                first: false,
            }),
        };
        if new {
            let name = subject::name(token);
            self.tell(number, Told::Appeared { name }).await?;
        }
        match told {
            Ok(told) => self.tell(number, told).await,
            Err(error) => self.bad(&message, &error.into()),
        }
    }

    async fn event(&mut self, message: Message) -> Option<()> {
        // Of a host that has not said anything else there is nothing to show.
        let Some(number) =
            subject::host(&message.subject).and_then(|token| self.roll.number(token))
        else {
            return Some(());
        };
        if message::is_kept(&message) {
            return self.bad(&message, &Bad::Kept);
        }
        match message::event(&message.payload) {
            Ok(event) => self.tell(number, Told::Event(Box::new(event))).await,
            Err(bad) => self.bad(&message, &bad),
        }
    }

    async fn lines(&mut self, message: Message, seen: &LookedAt) -> Option<()> {
        let (Some(host), Some(container)) = (seen.host, seen.container.clone()) else {
            return Some(());
        };
        match message::lines(&message.payload) {
            Ok(lines) => {
                let dropped = message::dropped(&message);
                self.tell(
                    host,
                    Told::Lines {
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

    /// All that is known of a host that has been opened, rather than waiting for its next snapshot.
    async fn opened(&mut self, host: usize) -> Option<()> {
        let known = self.roll.line(host).map(model::read);
        match known {
            Some(Ok(snapshot)) => self.tell(host, Told::Opened { snapshot }).await,
            // That it is not understood in whole is told when the next one comes.
            Some(Err(_)) | None => Some(()),
        }
    }

    /// The subject of the log that is looked at.
    fn log_of(&self, now: &LookedAt) -> Option<String> {
        let (host, container) = (now.host?, now.container.as_ref()?);
        Some(subject::logs(self.roll.token(host)?, container))
    }

    async fn tick(&mut self, seen: &LookedAt) -> Option<()> {
        for change in self.roll.changes(Instant::now(), seen.host) {
            match change {
                Change::Silent(host) => self.tell(host, Told::Silent).await?,
                Change::Vanished(host) => self.tell(host, Told::Vanished).await?,
            }
        }
        self.trouble.missed = self.missed.load(Ordering::Relaxed);
        if self.trouble != self.told {
            self.told = self.trouble.clone();
            self.say(News::Server(Server::Trouble(self.told.clone())))
                .await?;
        }
        Some(())
    }

    fn bad(&mut self, message: &Message, bad: &Bad) -> Option<()> {
        self.trouble.bad += 1;
        self.trouble.last = format!("{}: {bad}", message.subject);
        Some(())
    }

    fn complaint(&mut self, event: Event) {
        // The rest shows by itself.
        if let Event::ServerError(error) = event {
            let error = error.to_string();
            // Who may not ask for what is kept sees what comes.
            if !error.contains(log::KEPT) {
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
    fn servers_are_named_by_their_urls() {
        assert_eq!(fleet("nats://hub").unwrap(), "hub:4222");
        assert_eq!(
            fleet("tls://hub:14222, nats://[::1]:4223").unwrap(),
            "hub:14222, [::1]:4223"
        );
    }
}
