//! What is on the screen, and what keys and the mouse do to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::columns::{self, Pane};
use super::feed::{Detail, LookedAt, News, Server, Told, Trouble};
use super::host::{Host, Link};
use super::listing::{Head, Hit, Listing};
use super::text::{self, Level};
use super::theme::Theme;

/// How far the mouse's wheel goes, in lines.
const WHEEL: isize = 3;
/// How far a log is moved sideways, in columns.
const SIDEWAYS: u16 = 20;
/// The most events that are kept of one of a fleet's hosts, of which there may be thousands.
const MOST_EVENTS_OF_MANY: usize = 32;
/// The least time between two pictures that nobody has pressed a key for; between those of a fleet, in which something is new
/// all the time, and of which each takes longer.
const AT_MOST: Duration = Duration::from_millis(100);
const FLEET_AT_MOST: Duration = Duration::from_millis(500);

/// Everything that is shown, or can be.
pub(super) struct Screen {
    /// By numbers that no other has had.
    pub(super) hosts: BTreeMap<usize, Host>,
    /// What all of them are heard of by, where hosts come and go by themselves.
    pub(super) uplink: Option<Uplink>,
    pub(super) view: View,
    pub(super) mode: Mode,
    pub(super) theme: Theme,
    pub(super) fleet: Listing,
    pub(super) pane: Pane,
    /// One for each pane.
    pub(super) panes: [Listing; Pane::ALL.len()],
    pub(super) log: LogView,
    /// Which of the two is shown below a container's figures.
    pub(super) tail: Tail,
    /// A container's events.
    pub(super) happened: Listing,
}

/// The server that a fleet's hosts are heard of by.
pub(super) struct Uplink {
    pub(super) name: String,
    pub(super) link: Link,
    pub(super) trouble: Trouble,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    Fleet,
    Host(usize),
    Container {
        host: usize,
        id: String,
        /// Without the slash.
        name: String,
    },
}

/// What keys are for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Normal,
    Help,
    /// A column is chosen to sort by.
    Sort(usize),
    /// A filter, or what is searched for, is typed.
    Typing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    Log,
    Events,
}

/// Which part of a log is seen.
#[derive(Debug, Default)]
pub(super) struct LogView {
    /// The number of the last line that is seen; none while the newest is followed.
    pub(super) bottom: Option<u64>,
    /// How many columns are left out at the left.
    pub(super) left: u16,
    pub(super) search: String,
    /// The number of the line that was found last.
    pub(super) found: Option<u64>,
    /// How many lines were seen last.
    pub(super) height: u64,
}

impl Screen {
    pub(super) fn new(addresses: Vec<String>, theme: Theme) -> Self {
        let view = match addresses.len() {
            1 => View::Host(0),
            _ => View::Fleet,
        };
        Self {
            hosts: addresses.into_iter().map(Host::new).enumerate().collect(),
            uplink: None,
            view,
            mode: Mode::Normal,
            theme,
            fleet: Listing::default(),
            pane: Pane::Containers,
            panes: panes(),
            log: LogView::default(),
            tail: Tail::Log,
            happened: Listing::default(),
        }
    }

    /// Of the hosts that are heard of by a server of this name.
    pub(super) fn of_fleet(name: String, theme: Theme) -> Self {
        Self {
            uplink: Some(Uplink {
                name,
                link: Link::Connecting,
                trouble: Trouble::default(),
            }),
            ..Self::new(Vec::new(), theme)
        }
    }

    /// Takes in what a feed tells; whether that is seen at present.
    pub(super) fn take(&mut self, news: News, now: Instant) -> bool {
        let (number, told) = match news {
            News::Host { host, told } => (host, told),
            News::Server(told) => {
                self.take_of_server(told, now);
                return true;
            }
        };
        match told {
            Told::Appeared { name } => drop(self.hosts.insert(number, Host::of_fleet(name))),
            Told::Vanished => self.forget(number),
            told => {
                let most_events = match self.uplink {
                    Some(_) => MOST_EVENTS_OF_MANY,
                    None => usize::MAX,
                };
                let Some(host) = self.hosts.get_mut(&number) else {
                    return false;
                };
                take_of_host(host, told, most_events, now);
            }
        }
        self.host().is_none_or(|shown| shown == number)
    }

    fn take_of_server(&mut self, told: Server, now: Instant) {
        let Some(uplink) = &mut self.uplink else {
            return;
        };
        match told {
            Server::Connected => uplink.link = Link::Live,
            Server::Down { why, again } => {
                uplink.link = Link::Down {
                    why,
                    again: again.map(|again| now + again),
                };
            }
            Server::Trouble(trouble) => uplink.trouble = trouble,
        }
    }

    /// A host that is no longer listed.
    fn forget(&mut self, number: usize) {
        self.hosts.remove(&number);
        if self.host() == Some(number) {
            self.view = View::Fleet;
        }
    }

    /// How a host's figures come, or why they do not.
    pub(super) fn link<'l>(&'l self, host: &'l Host) -> &'l Link {
        match &self.uplink {
            Some(uplink) if uplink.link != Link::Live => &uplink.link,
            _ => &host.link,
        }
    }

    /// Everything that is not as it should be with a host, and with the way to it.
    pub(super) fn problems(&self, host: &Host, now: Instant) -> Vec<(Level, String)> {
        let mut problems = host.problems(now);
        if let Some(Uplink {
            link: Link::Down { why, .. },
            ..
        }) = &self.uplink
        {
            problems.insert(0, (Level::Bad, text::plain(why)));
        }
        problems
    }

    /// The least time between two pictures that nobody has pressed a key for.
    pub(super) fn at_most(&self) -> Duration {
        match (&self.view, &self.uplink) {
            (View::Fleet, Some(_)) => FLEET_AT_MOST,
            _ => AT_MOST,
        }
    }

    /// What a fleet's feed is to tell more of.
    pub(super) fn looked_at(&self, tries: u64) -> LookedAt {
        LookedAt {
            host: self.host(),
            container: match &self.view {
                View::Container { name, .. } => Some(name.clone()),
                View::Fleet | View::Host(_) => None,
            },
            tries,
        }
    }

    /// The host that is looked at, if it is one.
    pub(super) fn host(&self) -> Option<usize> {
        match self.view {
            View::Fleet => None,
            View::Host(host) | View::Container { host, .. } => Some(host),
        }
    }

    /// How much this host is to be asked for.
    pub(super) fn detail(&self, host: usize) -> Detail {
        match self.view {
            View::Container { host: shown, .. } if shown == host => Detail::Logs,
            _ => Detail::Figures,
        }
    }

    /// The list that keys move in, and its columns; none where there is none.
    pub(super) fn listing(&mut self) -> Option<(&mut Listing, &'static [Head])> {
        match self.view {
            View::Fleet => Some((&mut self.fleet, columns::FLEET)),
            View::Host(_) => Some((
                &mut self.panes[self.pane as usize],
                columns::of_pane(self.pane),
            )),
            View::Container { .. } => match self.tail {
                Tail::Log => None,
                Tail::Events => Some((&mut self.happened, columns::of_pane(Pane::Events))),
            },
        }
    }

    /// What a key does; whether it ends the view, or has a host tried again.
    pub(super) fn key(&mut self, key: KeyEvent) -> Outcome {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Outcome::Quit,
                KeyCode::Char('l') => Outcome::Clear,
                KeyCode::Char('f') => self.page(1),
                KeyCode::Char('b') => self.page(-1),
                _ => Outcome::Stay,
            };
        }
        match self.mode {
            Mode::Help => self.mode = Mode::Normal,
            Mode::Sort(column) => self.key_of_sort(key.code, column),
            Mode::Typing => self.key_of_typing(key.code),
            Mode::Normal => return self.key_of_view(key.code),
        }
        Outcome::Stay
    }

    fn key_of_view(&mut self, key: KeyCode) -> Outcome {
        match key {
            KeyCode::Char('q') | KeyCode::F(10) => return Outcome::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') | KeyCode::F(3 | 4) => {
                self.text().clear();
                self.mode = Mode::Typing;
            }
            KeyCode::Char('s') | KeyCode::F(6) => {
                if let Some((listing, _)) = self.listing() {
                    self.mode = Mode::Sort(listing.sort);
                }
            }
            KeyCode::Char('r') => {
                if let Some((listing, _)) = self.listing() {
                    listing.reversed = !listing.reversed;
                }
            }
            KeyCode::Char('R') | KeyCode::F(5) => return Outcome::Retry,
            KeyCode::Right if self.is_log() => {
                self.log.left = self.log.left.saturating_add(SIDEWAYS);
            }
            KeyCode::Left if self.is_log() => {
                self.log.left = self.log.left.saturating_sub(SIDEWAYS);
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Pane::ALL.len() - 1),
            KeyCode::Enter => self.open(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Char('f') if self.is_log() => (self.log.bottom, self.log.found) = (None, None),
            KeyCode::Char('n') if self.is_log() => self.search(true),
            KeyCode::Char('N') if self.is_log() => self.search(false),
            KeyCode::Char('j') | KeyCode::Down => self.move_by(1, false),
            KeyCode::Char('k') | KeyCode::Up => self.move_by(-1, false),
            KeyCode::PageDown | KeyCode::Char(' ') => self.move_by(1, true),
            KeyCode::PageUp => self.move_by(-1, true),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN, false),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX, false),
            _ => {}
        }
        Outcome::Stay
    }

    fn key_of_sort(&mut self, key: KeyCode, column: usize) {
        let Some((listing, heads)) = self.listing() else {
            self.mode = Mode::Normal;
            return;
        };
        self.mode = match key {
            KeyCode::Down | KeyCode::Char('j') => Mode::Sort((column + 1) % heads.len()),
            KeyCode::Up | KeyCode::Char('k') => {
                Mode::Sort((column + heads.len() - 1) % heads.len())
            }
            KeyCode::Enter => {
                listing.sort_by(column);
                Mode::Normal
            }
            KeyCode::Esc | KeyCode::Char('q' | 's') | KeyCode::F(6) => Mode::Normal,
            _ => Mode::Sort(column),
        };
    }

    fn key_of_typing(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(character) => self.text().push(character),
            KeyCode::Backspace => drop(self.text().pop()),
            KeyCode::Esc => {
                self.text().clear();
                self.mode = Mode::Normal;
            }
            KeyCode::Enter => {
                self.mode = Mode::Normal;
                if self.is_log() {
                    // From the newest line.
                    self.log.found = None;
                    self.search(false);
                }
            }
            _ => {}
        }
    }

    /// What is typed: a list's filter, or what is searched for.
    fn text(&mut self) -> &mut String {
        match self.view {
            View::Fleet => &mut self.fleet.filter,
            View::Host(_) => &mut self.panes[self.pane as usize].filter,
            View::Container { .. } => match self.tail {
                Tail::Log => &mut self.log.search,
                Tail::Events => &mut self.happened.filter,
            },
        }
    }

    /// What is typed, or was.
    pub(super) fn typed(&self) -> &str {
        match self.view {
            View::Fleet => &self.fleet.filter,
            View::Host(_) => &self.panes[self.pane as usize].filter,
            View::Container { .. } => match self.tail {
                Tail::Log => &self.log.search,
                Tail::Events => &self.happened.filter,
            },
        }
    }

    fn is_log(&self) -> bool {
        matches!(self.view, View::Container { .. }) && self.tail == Tail::Log
    }

    fn turn(&mut self, by: usize) {
        match self.view {
            View::Fleet => {}
            View::Host(_) => self.pane = self.pane.step(by),
            View::Container { .. } => {
                self.tail = match self.tail {
                    Tail::Log => Tail::Events,
                    Tail::Events => Tail::Log,
                }
            }
        }
    }

    fn open(&mut self) {
        match self.view {
            View::Fleet => {
                let selected = self.fleet.selected().and_then(|id| id.parse().ok());
                if let Some(host) = selected.filter(|host| self.hosts.contains_key(host)) {
                    self.panes = panes();
                    self.view = View::Host(host);
                }
            }
            View::Host(host) if self.pane == Pane::Containers => {
                let selected = self.panes[Pane::Containers as usize].selected();
                let known = self.hosts.get_mut(&host).zip(selected);
                if let Some((known, id)) = known
                    && let Some(container) = known.container(id, id)
                {
                    let name = container.name.trim_start_matches('/').to_owned();
                    let id = container.id.clone();
                    known.follow_log(Some(&name));
                    self.log = LogView::default();
                    self.happened = Listing::default();
                    self.tail = Tail::Log;
                    self.view = View::Container { host, id, name };
                }
            }
            View::Host(_) | View::Container { .. } => {}
        }
    }

    /// First a filter goes, then the view.
    fn back(&mut self) {
        if !self.typed().is_empty() {
            self.text().clear();
            return;
        }
        match self.view {
            View::Fleet => {}
            View::Host(_) if self.hosts.len() == 1 && self.uplink.is_none() => {}
            View::Host(host) => {
                if self.uplink.is_some()
                    && let Some(host) = self.hosts.get_mut(&host)
                {
                    host.forget_details();
                }
                self.view = View::Fleet;
            }
            View::Container { host, .. } => {
                if let Some(host) = self.hosts.get_mut(&host) {
                    host.follow_log(None);
                }
                self.view = View::Host(host);
            }
        }
    }

    fn page(&mut self, by: isize) -> Outcome {
        self.move_by(by, true);
        Outcome::Stay
    }

    /// So many lines, or pages, down.
    fn move_by(&mut self, by: isize, pages: bool) {
        if let Some((listing, _)) = self.listing() {
            let page = if pages { listing.page() } else { 1 };
            listing.go(by.saturating_mul(page));
        } else if self.is_log() {
            let height = i64::try_from(self.log.height.max(2)).unwrap_or(i64::MAX) - 1;
            let page = if pages { height } else { 1 };
            self.scroll_log((by as i64).saturating_mul(page));
        }
    }

    fn scroll_log(&mut self, by: i64) {
        let Some((first, end)) = self.log_range() else {
            return;
        };
        // A screen full is always seen, where there is as much.
        let least = (first + self.log.height).saturating_sub(1);
        let bottom = self.log.bottom.unwrap_or(end.saturating_sub(1)).max(least);
        let bottom = bottom.saturating_add_signed(by).max(least);
        self.log.bottom = (bottom + 1 < end).then_some(bottom);
    }

    /// The numbers of the lines that are kept.
    fn log_range(&self) -> Option<(u64, u64)> {
        let log = self.hosts.get(&self.host()?)?.log.as_ref()?;
        Some((log.first, log.first + log.lines.len() as u64))
    }

    /// Goes to the next line, or the one before, with what is searched for.
    fn search(&mut self, down: bool) {
        let wanted = self.log.search.to_lowercase();
        let host = self.host().and_then(|host| self.hosts.get(&host));
        let Some(log) = host.and_then(|host| host.log.as_ref()) else {
            return;
        };
        if wanted.is_empty() {
            return;
        }
        let end = log.first + log.lines.len() as u64;
        let at = self.log.found.unwrap_or(end);
        let found = log
            .lines
            .iter()
            .zip(log.first..)
            .filter(|(line, _)| line.to_lowercase().contains(&wanted))
            .map(|(_, number)| number);
        let found = match down {
            true => found.into_iter().find(|number| *number > at),
            false => found.take_while(|number| *number < at).last(),
        };
        if let Some(found) = found {
            self.log.found = Some(found);
            let least = (log.first + self.log.height).saturating_sub(1);
            self.log.bottom = Some(found.max(least)).filter(|bottom| bottom + 1 < end);
        }
    }

    /// What the mouse does; whether anything.
    pub(super) fn mouse(&mut self, event: MouseEvent) -> bool {
        let at = Position::new(event.column, event.row);
        match event.kind {
            MouseEventKind::ScrollDown => self.move_by(WHEEL, false),
            MouseEventKind::ScrollUp => self.move_by(-WHEEL, false),
            MouseEventKind::Down(MouseButton::Left) if self.mode == Mode::Normal => {
                // Another pane may be seen beside the one that keys move in.
                if let View::Host(_) = self.view
                    && let Some(pane) = Pane::ALL
                        .into_iter()
                        .find(|pane| self.panes[*pane as usize].contains(at))
                {
                    self.pane = pane;
                }
                if let Some((listing, _)) = self.listing()
                    && listing.click(at) == Some(Hit::Again)
                {
                    self.open();
                }
            }
            MouseEventKind::Down(MouseButton::Right) if self.mode == Mode::Normal => self.back(),
            MouseEventKind::Down(_) => self.mode = Mode::Normal,
            _ => return false,
        }
        true
    }
}

/// Takes in what a feed tells of a host.
fn take_of_host(host: &mut Host, told: Told, most_events: usize, now: Instant) {
    match told {
        Told::Snapshot { snapshot, first } => host.take(snapshot, first, now),
        Told::Brief(brief) => {
            let first = host.link != Link::Live;
            host.take_brief(*brief, first, now);
        }
        Told::Opened { snapshot } => host.take_details(snapshot, true),
        Told::Event(event) => host.take_event(*event, most_events),
        Told::Lines {
            container,
            lines,
            dropped,
        } => host.take_lines(&container, &lines, dropped),
        Told::Silent => host.link = Link::Silent,
        Told::Down { why, again } => {
            host.link = Link::Down {
                why,
                again: again.map(|again| now + again),
            };
        }
        // What concerns which hosts there are is the screen's.
        Told::Appeared { .. } | Told::Vanished => {}
    }
}

/// What is to be done beyond the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Stay,
    /// Nothing has happened.
    Nothing,
    Quit,
    /// Hosts that are away are tried now.
    Retry,
    /// The picture is drawn from scratch.
    Clear,
}

/// What each pane is sorted by at first: containers and processes by CPU, the rest as named.
fn panes() -> [Listing; Pane::ALL.len()] {
    Pane::ALL.map(|pane| match pane {
        Pane::Containers | Pane::Processes => Listing::sorted_by(1),
        Pane::Disks | Pane::Network | Pane::Events => Listing::sorted_by(0),
    })
}
