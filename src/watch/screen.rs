//! The state of the user interface, such as the open host and the selected row. Keys, the mouse and updates change the state. The
//! module `view` draws the state on the screen.
//!
//! This file is long: it has all reactions to keys and the mouse, and they change the same state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::columns::{self, Pane};
use super::feed::{Detail, HostUpdate, LookedAt, Server, Trouble, Update};
use super::host::{Host, Link};
use super::listing::{Head, Hit, Listing};
use super::text::{self, Level};
use super::theme::Theme;

/// Number of lines by which the mouse wheel moves.
const WHEEL: isize = 3;
/// Number of columns by which a key moves a log to the left or right.
const SIDEWAYS: u16 = 20;
/// Maximum number of stored events of one host in a fleet. The number is low because a fleet can have thousands of hosts.
const MAX_EVENTS_IN_FLEET: usize = 32;
/// Minimum time between two drawings while the user presses no key.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Minimum time between two drawings of a fleet's table. The table changes all the time, and takes longer to draw.
const FLEET_DRAW_INTERVAL: Duration = Duration::from_millis(500);

/// The state of the whole user interface.
pub(super) struct Screen {
    /// The hosts, each with its number. The number of a removed host is never used again.
    pub(super) hosts: BTreeMap<usize, Host>,
    /// The connection to the NATS server. None if the user gave the addresses of the hosts.
    pub(super) uplink: Option<Uplink>,
    pub(super) view: View,
    pub(super) mode: Mode,
    pub(super) theme: Theme,
    /// The table of hosts.
    pub(super) fleet: Listing,
    /// The list that has the focus in the view of a host.
    pub(super) pane: Pane,
    /// The state of each list.
    pub(super) panes: [Listing; Pane::ALL.len()],
    pub(super) log: LogView,
    /// Whether the log or the events are below a container's figures.
    pub(super) tail: Tail,
    /// The list of the open container's events.
    pub(super) happened: Listing,
}

/// The NATS server from which the view gets the snapshots of a fleet.
pub(super) struct Uplink {
    pub(super) name: String,
    pub(super) link: Link,
    pub(super) trouble: Trouble,
}

/// The view on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// The table of all hosts.
    Fleet,
    /// The host with this number.
    Host(usize),
    /// A container of a host.
    Container {
        host: usize,
        id: String,
        /// The container's name, without the slash.
        name: String,
    },
}

/// What keys do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Keys move the selection, and open the selected row.
    Normal,
    /// Help is shown. Any key closes the help.
    Help,
    /// The user chooses the column to sort by. The number is the marked column.
    Sort(usize),
    /// The user types a filter or a search text.
    Typing,
}

/// What the screen shows below a container's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    Log,
    Events,
}

/// The visible part of a log.
#[derive(Debug, Default)]
pub(super) struct LogView {
    /// The number of the lowest visible line. None while the view follows the newest line.
    pub(super) bottom: Option<u64>,
    /// The number of columns that are hidden at the left.
    pub(super) left: u16,
    /// The search text.
    pub(super) search: String,
    /// The number of the line that the search has found.
    pub(super) found: Option<u64>,
    /// The number of lines for which the previous drawing had room.
    pub(super) height: u64,
}

impl Screen {
    /// Makes a screen for hosts with these addresses. If there is only one host, its view is open from the start.
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

    /// Makes a screen for all hosts that publish to the NATS server `name`.
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

    /// Handles an update of a feed. Returns whether the update changes the visible view.
    pub(super) fn take(&mut self, news: Update, now: Instant) -> bool {
        let (number, told) = match news {
            Update::Host { host, told } => (host, told),
            Update::Server(told) => {
                self.take_of_server(told, now);
                return true;
            }
        };
        match told {
            HostUpdate::Appeared { name } => drop(self.hosts.insert(number, Host::of_fleet(name))),
            HostUpdate::Vanished => self.forget(number),
            told => {
                let most_events = match self.uplink {
                    Some(_) => MAX_EVENTS_IN_FLEET,
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

    /// Removes a host. If the view of this host is open, closes the view.
    fn forget(&mut self, number: usize) {
        self.hosts.remove(&number);
        if self.host() == Some(number) {
            self.view = View::Fleet;
        }
    }

    /// The state of the connection through which a host's snapshots arrive.
    pub(super) fn link<'l>(&'l self, host: &'l Host) -> &'l Link {
        match &self.uplink {
            Some(uplink) if uplink.link != Link::Live => &uplink.link,
            _ => &host.link,
        }
    }

    /// The problems of a host and of the connection through which the host's snapshots arrive.
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

    /// Minimum time between two drawings while the user presses no key.
    pub(super) fn draw_interval(&self) -> Duration {
        match (&self.view, &self.uplink) {
            (View::Fleet, Some(_)) => FLEET_DRAW_INTERVAL,
            _ => DRAW_INTERVAL,
        }
    }

    /// Returns the open host and container. The feed of a fleet sends all figures of this host, and the log of this container.
    pub(super) fn looked_at(&self, tries: u64) -> LookedAt {
        LookedAt {
            everything: false,
            host: self.host(),
            container: match &self.view {
                View::Container { name, .. } => Some(name.clone()),
                View::Fleet | View::Host(_) => None,
            },
            tries,
        }
    }

    /// The number of the open host. None if the fleet's table is shown.
    pub(super) fn host(&self) -> Option<usize> {
        match self.view {
            View::Fleet => None,
            View::Host(host) | View::Container { host, .. } => Some(host),
        }
    }

    /// The amount of data that the feed of this host must request.
    pub(super) fn detail(&self, host: usize) -> Detail {
        match self.view {
            View::Container { host: shown, .. } if shown == host => Detail::Logs,
            _ => Detail::Figures,
        }
    }

    /// The list that has the focus, and its columns. None if a log is shown.
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

    /// Handles a key. Returns what the caller must do.
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
                    // A new search starts at the newest line.
                    self.log.found = None;
                    self.search(false);
                }
            }
            _ => {}
        }
    }

    /// The text that the user types: the filter of the list, or the search text of the log.
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

    /// The filter of the list, or the search text of the log.
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

    /// Whether a log is shown.
    fn is_log(&self) -> bool {
        matches!(self.view, View::Container { .. }) && self.tail == Tail::Log
    }

    /// Goes to another list. In the view of a host, goes `by` lists further. In the view of a container, changes from the log to
    /// the events, or from the events to the log.
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

    /// Opens the selected host or container.
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
                let Some((known, id)) = known else { return };
                let running = known.container(id, id).map(|one| {
                    let name = one.name.trim_start_matches('/').to_owned();
                    (one.id.to_string(), name, Tail::Log)
                });
                // The agent reads no log of a stopped container.
                let opened = running.or_else(|| {
                    let one = known.stopped(id, id)?;
                    Some((one.id.clone(), one.bare_name().to_owned(), Tail::Events))
                });
                if let Some((id, name, tail)) = opened {
                    known.follow_log(Some(&name));
                    self.log = LogView::default();
                    self.happened = Listing::default();
                    self.tail = tail;
                    self.view = View::Container { host, id, name };
                }
            }
            View::Host(_) | View::Container { .. } => {}
        }
    }

    /// Clears the filter or the search text. If the user has typed no text, goes back from a container to its host, or from a
    /// host to the table of hosts.
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

    /// Moves down by a number of lines or pages. A negative number moves up.
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
        // The user cannot scroll above the first line, so the screen stays full if the log has enough lines.
        let least = (first + self.log.height).saturating_sub(1);
        let bottom = self.log.bottom.unwrap_or(end.saturating_sub(1)).max(least);
        let bottom = bottom.saturating_add_signed(by).max(least);
        self.log.bottom = (bottom + 1 < end).then_some(bottom);
    }

    /// Returns the number of the oldest stored line, and the number of the next line that will arrive.
    fn log_range(&self) -> Option<(u64, u64)> {
        let log = self.hosts.get(&self.host()?)?.log.as_ref()?;
        Some((log.first, log.first + log.lines.len() as u64))
    }

    /// Goes down to the next line that matches the search text. If `down` is false, goes up to the previous matching line.
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

    /// Handles the mouse. Returns whether the event has an effect.
    pub(super) fn mouse(&mut self, event: MouseEvent) -> bool {
        let at = Position::new(event.column, event.row);
        match event.kind {
            MouseEventKind::ScrollDown => self.move_by(WHEEL, false),
            MouseEventKind::ScrollUp => self.move_by(-WHEEL, false),
            MouseEventKind::Down(MouseButton::Left) if self.mode == Mode::Normal => {
                // A large screen shows two lists. A click gives the focus to the list at this position.
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

/// Handles an update of one host.
fn take_of_host(host: &mut Host, told: HostUpdate, most_events: usize, now: Instant) {
    match told {
        HostUpdate::Snapshot { snapshot, first } => host.take(snapshot, first, now),
        HostUpdate::Brief(brief) => {
            let first = host.link != Link::Live;
            host.take_brief(*brief, first, now);
        }
        HostUpdate::Opened { snapshot } => host.take_details(snapshot, true),
        HostUpdate::Event(event) => host.take_event(*event, most_events),
        HostUpdate::Lines {
            container,
            lines,
            dropped,
        } => host.take_lines(&container, &lines, dropped),
        HostUpdate::Silent => host.link = Link::Silent,
        HostUpdate::Down { why, again } => {
            host.link = Link::Down {
                why,
                again: again.map(|again| now + again),
            };
        }
        // `Screen::take` handles these updates.
        HostUpdate::Appeared { .. } | HostUpdate::Vanished => {}
        // The view does not ask for the past.
        HostUpdate::Past(_) => {}
    }
}

/// What the caller must do after a key or another event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Draw the screen.
    Stay,
    /// Do nothing, because nothing has changed.
    Nothing,
    /// End the view.
    Quit,
    /// Connect now to hosts that are away.
    Retry,
    /// Clear the screen and draw it completely.
    Clear,
}

/// Makes the lists of a host. Containers and processes are sorted by CPU, all other lists by their first column.
fn panes() -> [Listing; Pane::ALL.len()] {
    Pane::ALL.map(|pane| match pane {
        Pane::Containers | Pane::Processes | Pane::Units => Listing::sorted_by(1),
        Pane::Disks | Pane::Network | Pane::Events => Listing::sorted_by(0),
    })
}
