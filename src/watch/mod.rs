//! `system-agent watch`: hosts in a terminal, each by a client of its agent, or this host without any socket.
//!
//! Feeds (`feed`, `local`, `nats`) tell of snapshots; what is known of a host is kept by `host`; `screen` says what is shown and
//! what keys do; `view` draws it.

#![cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "a fleet is heard of by NATS alone")
)]

mod brief;
mod columns;
mod feed;
mod history;
mod host;
mod listing;
mod local;
#[cfg(feature = "nats")]
mod nats;
mod screen;
mod share;
mod terminal;
mod text;
mod theme;
mod view;

use std::io;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

#[cfg(feature = "nats")]
pub use nats::Fleet;

use crate::client::Connector;
use crate::settings::CollectSettings;
use feed::{LookedAt, News, Wish};
use screen::{Outcome, Screen};
use terminal::Terminal;
use theme::Theme;

/// How often what is shown grows older.
const AGEING: Duration = Duration::from_secs(1);
/// News that wait to be taken in; a feed whose are further waits with them.
const MOST_WAITING: usize = 64;

/// What is to be watched.
pub enum Watched {
    /// Hosts with an agent, by the names that they are shown by until they have told their own.
    Agents(Vec<(String, Connector)>),
    /// All whose agents publish to NATS.
    #[cfg(feature = "nats")]
    Fleet(Fleet),
    /// This host.
    Here(CollectSettings),
}

/// Shows them until the user, or a signal, ends it. `colours` is false where `NO_COLOR` asks for none.
///
/// # Errors
/// Where there is no terminal, or it is gone.
pub async fn run(watched: Watched, colours: bool) -> io::Result<()> {
    let (news, told) = mpsc::channel(MOST_WAITING);
    let (screen, wishes) = feeds(watched, &news, Theme { colours });
    drop(news);
    // First, so that none comes between.
    let mut ends = Ends::listen()?;
    let mut terminal = Terminal::take()?;
    show(screen, &mut terminal, told, &wishes, &mut ends).await
}

/// Where feeds are told what is wished for.
enum Wishes {
    /// A feed for each host, by its number.
    Each(Vec<watch::Sender<Wish>>),
    /// One for all.
    All(watch::Sender<LookedAt>),
}

impl Wishes {
    /// Those that are away are tried now.
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

    /// As much as is shown.
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

/// Starts a feed for each host, or one for all.
fn feeds(watched: Watched, news: &mpsc::Sender<News>, theme: Theme) -> (Screen, Wishes) {
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
                if let Err(error) = nats::follow(fleet, wishes, news.clone()).await {
                    let why = error.to_string();
                    let told = feed::Server::Down { why, again: None };
                    // Nobody listens where the view has ended.
                    let _ = news.send(News::Server(told)).await;
                }
            });
            (screen, Wishes::All(wish))
        }
        Watched::Here(settings) => {
            let (wish, wishes) = watch::channel(Wish::default());
            let news = news.clone();
            actix_rt::spawn(async move {
                let followed = local::follow(0, settings, wishes, news.clone()).await;
                if let Err(error) = followed {
                    let told = feed::Told::Down {
                        why: error.to_string(),
                        again: None,
                    };
                    // Nobody listens where the view has ended.
                    let _ = news.send(News::Host { host: 0, told }).await;
                }
            });
            let screen = Screen::new(vec!["this host".to_owned()], theme);
            (screen, Wishes::Each(vec![wish]))
        }
    }
}

async fn show(
    mut screen: Screen,
    terminal: &mut Terminal,
    mut told: mpsc::Receiver<News>,
    wishes: &Wishes,
    ends: &mut Ends,
) -> io::Result<()> {
    let mut events = EventStream::new();
    let mut ageing = interval(AGEING);
    ageing.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut drawn = Instant::now();
    // What has come since is not on the screen yet.
    let mut behind = false;
    loop {
        let at_most = screen.at_most();
        let soon = sleep_until((drawn + at_most).into());
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
                // The terminal is gone.
                None => return Ok(()),
            },
            Some(news) = told.recv() => {
                behind |= screen.take(news, Instant::now());
                while let Ok(news) = told.try_recv() {
                    behind |= screen.take(news, Instant::now());
                }
                behind && drawn.elapsed() >= at_most
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

fn input(screen: &mut Screen, event: &Event) -> Outcome {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => screen.key(*key),
        // Each movement of it is told.
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

    /// Waits for one of them.
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
