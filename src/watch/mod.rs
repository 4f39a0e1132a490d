//! `system-agent watch`: hosts in a terminal, each by a client of its agent, or this host without any socket.
//!
//! Feeds ([`feed`], [`local`]) tell of snapshots; what is known of a host is kept by [`host`]; [`screen`] says what is shown and
//! what keys do; [`view`] draws it.

mod feed;
mod history;
mod host;
mod listing;
mod local;
mod screen;
mod terminal;
mod text;
mod view;

use std::io;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::client::Connector;
use crate::settings::CollectSettings;
use feed::{News, Wish};
use screen::{Outcome, Screen};
use terminal::Terminal;
use view::Theme;

/// How often what is shown grows older.
const AGEING: Duration = Duration::from_secs(1);
/// News that wait to be taken in; a feed whose are further waits with them.
const MOST_WAITING: usize = 64;

/// What is to be watched.
pub enum Watched {
    /// Hosts with an agent, by the names that they are shown by until they have told their own.
    Agents(Vec<(String, Connector)>),
    /// This host.
    Here(CollectSettings),
}

/// Shows them until the user, or a signal, ends it. `colours` is false where `NO_COLOR` asks for none.
///
/// # Errors
/// Where there is no terminal, or it is gone.
pub async fn run(watched: Watched, colours: bool) -> io::Result<()> {
    let (news, told) = mpsc::channel(MOST_WAITING);
    let (addresses, wishes) = feeds(watched, &news);
    drop(news);
    let screen = Screen::new(addresses, Theme { colours });
    let mut terminal = Terminal::take()?;
    show(screen, &mut terminal, told, &wishes).await
}

/// Starts a feed for each host.
fn feeds(watched: Watched, news: &mpsc::Sender<News>) -> (Vec<String>, Vec<watch::Sender<Wish>>) {
    let hosts = match watched {
        Watched::Agents(hosts) => hosts,
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
                    let _ = news.send(News { host: 0, told }).await;
                }
            });
            return (vec!["this host".to_owned()], vec![wish]);
        }
    };
    hosts
        .into_iter()
        .enumerate()
        .map(|(host, (address, connector))| {
            let (wish, wishes) = watch::channel(Wish::default());
            actix_rt::spawn(feed::follow(host, connector, wishes, news.clone()));
            (address, wish)
        })
        .unzip()
}

async fn show(
    mut screen: Screen,
    terminal: &mut Terminal,
    mut told: mpsc::Receiver<News>,
    wishes: &[watch::Sender<Wish>],
) -> io::Result<()> {
    let mut events = EventStream::new();
    let mut ageing = interval(AGEING);
    ageing.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let changed = tokio::select! {
            event = events.next() => match event {
                Some(event) => match input(&mut screen, &event?) {
                    Outcome::Quit => return Ok(()),
                    Outcome::Clear => {
                        terminal.clear()?;
                        true
                    }
                    Outcome::Retry => {
                        wishes.iter().for_each(|wish| wish.send_modify(|_| {}));
                        true
                    }
                    Outcome::Stay => true,
                },
                // The terminal is gone.
                None => return Ok(()),
            },
            Some(news) = told.recv() => screen.take(news, Instant::now()),
            _ = ageing.tick() => true,
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        for (host, wish) in wishes.iter().enumerate() {
            let detail = screen.detail(host);
            wish.send_if_modified(|wish| std::mem::replace(&mut wish.detail, detail) != detail);
        }
        if changed {
            terminal.draw(|frame| view::draw(&mut screen, frame, Instant::now()))?;
        }
    }
}

fn input(screen: &mut Screen, event: &Event) -> Outcome {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => screen.key(*key),
        Event::Mouse(mouse) => {
            screen.mouse(*mouse);
            Outcome::Stay
        }
        _ => Outcome::Stay,
    }
}
