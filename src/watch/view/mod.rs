//! Draws the screen. Stores the area of each list for mouse clicks and scrolling. Does not change any other state.

mod container;
mod fleet;
mod graph;
mod host;
mod overlay;
mod table;

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::columns;
use super::host::{Host, Link};
use super::screen::{Mode, Screen, View};
use super::text::{self, Level};
use super::theme::Theme;

/// Minimum size of the screen, in columns and rows.
const MIN_SIZE: (u16, u16) = (40, 10);

/// Draws the whole screen.
pub(super) fn draw(screen: &mut Screen, frame: &mut Frame<'_>, now: Instant) {
    let area = frame.area();
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        let text = format!("needs {} × {}", MIN_SIZE.0, MIN_SIZE.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [body, foot] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(area);
    match screen.view.clone() {
        View::Fleet => fleet::draw(screen, frame, body, now),
        View::Host(host) => host::draw(screen, host, frame, body, now),
        View::Container { host, id, name } => {
            container::draw(screen, host, &id, &name, frame, body, now);
        }
    }
    footer(screen, frame, foot);
    match screen.mode {
        Mode::Help => overlay::help(screen, frame, body),
        Mode::Sort(column) => overlay::sort(screen, column, frame, body),
        Mode::Normal | Mode::Typing => {}
    }
}

/// Draws the bottom line of the screen: the most important keys, or the text that the user types.
fn footer(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let theme = screen.theme;
    let line = match screen.mode {
        Mode::Typing => Line::from(format!("/{}▏", screen.typed())),
        Mode::Help => hints(theme, &[("any key", "back")]),
        Mode::Sort(_) => hints(
            theme,
            &[("↑↓", "column"), ("enter", "sort"), ("esc", "back")],
        ),
        Mode::Normal => {
            let mut line = hints(theme, hints_of(screen));
            if !screen.typed().is_empty() {
                let typed = format!(" /{} ", screen.typed());
                line.spans.insert(0, Span::styled(typed, theme.found()));
            }
            line
        }
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn hints_of(screen: &Screen) -> &'static [(&'static str, &'static str)] {
    match screen.view {
        View::Fleet => &[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("s", "sort"),
            ("enter", "open"),
            ("R", "reconnect"),
        ],
        View::Host(_) => &[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("s", "sort"),
            ("tab", "pane"),
            ("enter", "open"),
            ("esc", "back"),
        ],
        View::Container { .. } => &[
            ("q", "quit"),
            ("?", "help"),
            ("/", "search"),
            ("n N", "next"),
            ("f", "follow"),
            ("tab", "log/events"),
            ("esc", "back"),
        ],
    }
}

fn hints(theme: Theme, keys: &[(&'static str, &'static str)]) -> Line<'static> {
    let spans = keys.iter().flat_map(|(key, what)| {
        [
            Span::styled(*key, theme.accent()),
            Span::raw(format!(" {what}  ")),
        ]
    });
    spans.collect()
}

/// The height of the header of a host's views, in lines.
fn height_of_header(screen: &Screen, host: &Host, now: Instant) -> u16 {
    1 + u16::from(!screen.problems(host, now).is_empty())
}

/// Draws the header of a host's views: the host's name and system, and the age of the figures. If there is a problem, a second
/// line shows it.
fn header(
    screen: &Screen,
    host: &Host,
    title: &str,
    frame: &mut Frame<'_>,
    area: Rect,
    now: Instant,
) {
    let theme = screen.theme;
    let mut spans = vec![Span::styled(text::plain(host.name()), theme.title())];
    if !title.is_empty() {
        spans.push(Span::raw(" › "));
        spans.push(Span::styled(text::plain(title), theme.title()));
    }
    if let Some(snapshot) = &host.snapshot {
        let (of, agent) = (&snapshot.host, &snapshot.agent);
        let up = text::span(snapshot.system.uptime);
        // Real hardware is not worth a word.
        let kind = of.virtualization.as_deref().filter(|kind| *kind != "none");
        let kind = kind.map_or_else(String::new, |kind| format!("{} · ", text::plain(kind)));
        let rest = format!(
            "  up {up} · {} · {} · {kind}agent {}",
            text::plain(&of.os),
            text::plain(&of.kernel),
            text::plain(&agent.version)
        );
        spans.push(Span::styled(rest, theme.dim()));
    }
    let link = link(screen.link(host), host, theme, now);
    let [line, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(link.width() as u16 + 1),
    ];
    let [left, right] = Layout::horizontal(widths).areas(line);
    frame.render_widget(Paragraph::new(Line::from(spans)), left);
    frame.render_widget(Paragraph::new(Line::from(link).right_aligned()), right);
    let problems = screen.problems(host, now);
    if let Some((level, problem)) = problems.first() {
        let more = match problems.len() - 1 {
            0 => String::new(),
            more => format!("(+{more}) "),
        };
        let problem = Line::styled(format!("! {more}{problem}"), theme.of(*level));
        frame.render_widget(Paragraph::new(problem), second);
    }
}

/// The state of the connection, and the age of the figures.
fn link(link: &Link, host: &Host, theme: Theme, now: Instant) -> Span<'static> {
    match (link, host.age(now)) {
        (Link::Live, Some(age)) => {
            Span::styled(format!("{} old", text::age(age)), theme.of(Level::Good))
        }
        (Link::Live, None) => Span::styled("live", theme.of(Level::Good)),
        (Link::Connecting, _) => Span::styled("connecting …", theme.of(Level::Warn)),
        (Link::Down { again, .. }, age) => {
            let age = age.map_or_else(String::new, |age| format!(", {} old", text::age(age)));
            let away = away(*again, now);
            Span::styled(format!("{away}{age}"), theme.of(Level::Bad))
        }
        (Link::Silent, age) => {
            let age = text::age(age.unwrap_or_default());
            Span::styled(format!("away, {age} old"), theme.of(Level::Bad))
        }
    }
}

/// The time until the next attempt to connect.
fn away(again: Option<Instant>, now: Instant) -> String {
    match again {
        Some(again) if again <= now => "away, connecting …".to_owned(),
        Some(again) => format!("away, retry in {} s", (again - now).as_secs() + 1),
        None => "away, press R to retry".to_owned(),
    }
}

#[cfg(test)]
mod tests;
