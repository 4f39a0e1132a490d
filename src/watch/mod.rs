//! `system-agent watch`: shows hosts in a terminal.
//!
//! The figures come from the agents of the hosts, or from a NATS server. The figures of this host can also come from collectors
//! in this process. A fleet is all hosts whose agents publish to one NATS server.
//!
//! The feeds of `crate::feeds` receive snapshots and send them to the screen as updates. `host` stores the data of one host.
//! `screen` has the state of the user interface and handles keys and the mouse. `view` draws the screen.

#![cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "only the NATS feed uses the code for fleets")
)]

mod columns;
mod history;
mod host;
mod listing;
mod screen;
mod terminal;
mod theme;
mod view;

use std::time::{Duration, Instant};
use std::{io, process, thread};

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

#[cfg(feature = "nats")]
pub use crate::feeds::nats::Fleet;

use crate::client::Connector;
#[cfg(feature = "nats")]
use crate::feeds::nats;
use crate::feeds::{brief, feed, local, share, text};
use crate::settings::CollectSettings;
use feed::{LookedAt, Update, Wish};
use screen::{Outcome, Screen};
use terminal::Terminal;
use theme::Theme;

/// The interval at which the screen is drawn again even without an update, so that it shows the current age of figures.
const AGEING: Duration = Duration::from_secs(1);
/// The time between two snapshots of this host without an agent.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of updates that wait for the screen. When this number is reached, a feed waits before it sends the next update.
const MAX_WAITING: usize = 64;

/// The hosts that the view shows.
pub enum Watched {
    /// Hosts with an agent. Until the first snapshot arrives with the host's own name, the view shows the name in this list.
    Agents(Vec<(String, Connector)>),
    /// All hosts whose agents publish to a NATS server.
    #[cfg(feature = "nats")]
    Fleet(Fleet),
    /// This host, without an agent.
    Here(Box<CollectSettings>),
}

/// Shows the hosts until the user or a signal ends the view. `colours` is false if `NO_COLOR` is set.
///
/// # Errors
/// Fails if there is no terminal, or if the terminal fails.
pub async fn run(watched: Watched, colours: bool) -> io::Result<()> {
    let (news, told) = mpsc::channel(MAX_WAITING);
    let (screen, wishes) = feeds(watched, &news, Theme { colours });
    drop(news);
    // Handle signals before the terminal changes its mode. Without this, a signal could end the process and the terminal would
    // not be restored.
    let mut ends = Ends::listen()?;
    let mut terminal = Terminal::take()?;
    show(screen, &mut terminal, told, &wishes, &mut ends).await
}

/// The channels through which the screen tells the feeds which data to send.
enum Wishes {
    /// One feed for each host, by the host's number.
    Each(Vec<watch::Sender<Wish>>),
    /// One feed for all hosts.
    All(watch::Sender<LookedAt>),
}

impl Wishes {
    /// Asks the feeds to end their back-off and to connect now.
    fn retry(&self) {
        match self {
            Self::Each(wishes) => {
                wishes
                    .iter()
                    .for_each(|wish| wish.send_modify(|wish| wish.tries += 1));
            }
            Self::All(wish) => wish.send_modify(|wish| wish.tries += 1),
        }
    }

    /// Asks the feeds for the data that the screen shows now.
    fn follow(&self, screen: &Screen) {
        match self {
            Self::Each(wishes) => {
                for (host, wish) in wishes.iter().enumerate() {
                    let detail = screen.detail(host);
                    wish.send_if_modified(|wish| {
                        std::mem::replace(&mut wish.detail, detail) != detail
                    });
                }
            }
            Self::All(wish) => {
                wish.send_if_modified(|wish| {
                    let now = screen.looked_at(wish.tries);
                    let changed = *wish != now;
                    *wish = now;
                    changed
                });
            }
        }
    }
}

/// Starts one feed for each host, or one feed for all hosts.
fn feeds(watched: Watched, news: &mpsc::Sender<Update>, theme: Theme) -> (Screen, Wishes) {
    match watched {
        Watched::Agents(hosts) => {
            let start = |(host, (address, connector))| {
                let (wish, wishes) = watch::channel(Wish::default());
                actix_rt::spawn(feed::follow(host, connector, wishes, news.clone()));
                (address, wish)
            };
            let (addresses, wishes) = hosts.into_iter().enumerate().map(start).unzip();
            (Screen::new(addresses, theme), Wishes::Each(wishes))
        }
        #[cfg(feature = "nats")]
        Watched::Fleet(fleet) => {
            let (wish, wishes) = watch::channel(LookedAt::default());
            let screen = Screen::of_fleet(fleet.name(), theme);
            let news = news.clone();
            actix_rt::spawn(async move {
                if let Err(error) = nats::follow(&fleet, wishes, news.clone()).await {
                    let why = error.to_string();
                    let told = feed::Server::Down { why, again: None };
                    // Sending fails if the view has ended.
                    let _ = news.send(Update::Server(told)).await;
                }
            });
            (screen, Wishes::All(wish))
        }
        Watched::Here(settings) => {
            let (wish, wishes) = watch::channel(Wish::default());
            let news = news.clone();
            actix_rt::spawn(async move {
                let followed = match local::Local::start(&settings, PUBLISH_INTERVAL) {
                    Ok(local) => local::follow(0, &local, wishes, news.clone()).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = followed {
                    let told = feed::HostUpdate::Down {
                        why: error.to_string(),
                        again: None,
                    };
                    // Sending fails if the view has ended.
                    let _ = news.send(Update::Host { host: 0, told }).await;
                }
            });
            let screen = Screen::new(vec!["this host".to_owned()], theme);
            (screen, Wishes::Each(vec![wish]))
        }
    }
}

/// Ends the process when its terminal is closed. Usually SIGHUP does this. If the process was started with SIGHUP ignored, crossterm
/// would read the end of the input again and again, and use a whole core.
fn end_with_terminal() -> io::Result<()> {
    let wait = || {
        let input = io::stdin();
        // Without flags, `poll` only reports that the terminal was closed.
        let mut closed = [PollFd::new(&input, PollFlags::empty())];
        while poll(&mut closed, None).is_err() {}
        process::exit(1);
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// Draws the screen and handles updates, keys, the mouse and signals until the view ends.
async fn show(
    mut screen: Screen,
    terminal: &mut Terminal,
    mut told: mpsc::Receiver<Update>,
    wishes: &Wishes,
    ends: &mut Ends,
) -> io::Result<()> {
    end_with_terminal()?;
    let mut events = EventStream::new();
    let mut ageing = interval(AGEING);
    ageing.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut drawn = Instant::now();
    // Whether an update has arrived that the screen does not show yet.
    let mut behind = false;
    loop {
        let draw_interval = screen.draw_interval();
        let soon = sleep_until((drawn + draw_interval).into());
        let at_once = tokio::select! {
            () = soon, if behind => true,
            event = events.next() => match event {
                Some(event) => match input(&mut screen, &event?) {
                    Outcome::Quit => return Ok(()),
                    Outcome::Clear => {
                        terminal.clear()?;
                        true
                    }
                    Outcome::Retry => {
                        wishes.retry();
                        true
                    }
                    Outcome::Stay => true,
                    Outcome::Nothing => false,
                },
                // The terminal was closed.
                None => return Ok(()),
            },
            Some(news) = told.recv() => {
                behind |= screen.take(news, Instant::now());
                while let Ok(news) = told.try_recv() {
                    behind |= screen.take(news, Instant::now());
                }
                behind && drawn.elapsed() >= draw_interval
            }
            _ = ageing.tick() => true,
            () = ends.next() => return Ok(()),
        };
        wishes.follow(&screen);
        if at_once {
            terminal.draw(|frame| view::draw(&mut screen, frame, Instant::now()))?;
            (drawn, behind) = (Instant::now(), false);
        }
    }
}

/// Handles an event of the terminal.
fn input(screen: &mut Screen, event: &Event) -> Outcome {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => screen.key(*key),
        // The terminal reports each movement of the mouse. Most movements change nothing, so the screen is not drawn again.
        Event::Mouse(mouse) if !screen.mouse(*mouse) => Outcome::Nothing,
        _ => Outcome::Stay,
    }
}

/// The signals that end the view.
struct Ends([Signal; 4]);

impl Ends {
    fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    /// Waits for one of the signals.
    async fn next(&mut self) {
        let [terminate, hangup, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
