//! Several hosts, a row each.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{columns, table};
use crate::watch::host::Link;
use crate::watch::screen::{Mode, Screen};
use crate::watch::text::Level;

pub(super) fn draw(screen: &mut Screen, frame: &mut Frame<'_>, area: Rect, now: Instant) {
    let theme = screen.theme;
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let all = screen.hosts.len();
    let away = |host: &&crate::watch::host::Host| matches!(host.link, Link::Down { .. });
    let away = screen.hosts.iter().filter(away).count();
    let unwell = screen
        .hosts
        .iter()
        .filter(|host| !host.problems(now).is_empty())
        .count()
        - away;
    let mut spans = vec![Span::styled(format!("{all} hosts"), theme.title())];
    if away > 0 {
        spans.push(Span::styled(format!("  {away} away"), theme.of(Level::Bad)));
    }
    if unwell > 0 {
        spans.push(Span::styled(
            format!("  {unwell} unwell"),
            theme.of(Level::Warn),
        ));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), head);

    let block = table::boxed(" Fleet ".to_owned(), true, theme);
    let inner = block.inner(body);
    frame.render_widget(block, body);
    let rows = columns::fleet(&screen.hosts, now);
    let focused = screen.mode != Mode::Help;
    table::draw(
        &mut screen.fleet,
        columns::FLEET,
        rows,
        focused,
        theme,
        frame,
        inner,
    );
}
