//! Draws the table of all hosts, with one row for each host.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{columns, table};
use crate::watch::host::Link;
use crate::watch::screen::{Mode, Screen, Uplink};
use crate::watch::text::{self, Level};

pub(super) fn draw(screen: &mut Screen, frame: &mut Frame<'_>, area: Rect, now: Instant) {
    let theme = screen.theme;
    let note = screen.uplink.as_ref().and_then(note);
    let heads = 1 + u16::from(note.is_some());
    let [head, body] =
        Layout::vertical([Constraint::Length(heads), Constraint::Min(1)]).areas(area);
    let all = screen.hosts.len();
    let away = screen.hosts.values().filter(|host| host.is_away()).count();
    let unwell = screen
        .hosts
        .values()
        .filter(|host| !host.is_away() && !host.problems(now).is_empty())
        .count();
    let mut spans = vec![Span::styled(format!("{all} hosts"), theme.title())];
    if away > 0 {
        spans.push(Span::styled(format!("  {away} away"), theme.of(Level::Bad)));
    }
    if unwell > 0 {
        spans.push(Span::styled(
            format!("  {unwell} with problems"),
            theme.of(Level::Warn),
        ));
    }
    let first = Rect { height: 1, ..head };
    frame.render_widget(Paragraph::new(Line::from(spans)), first);
    if let Some(uplink) = &screen.uplink {
        let (state, level) = match &uplink.link {
            Link::Down { again, .. } => (super::away(*again, now), Level::Bad),
            Link::Connecting => ("connecting …".to_owned(), Level::Warn),
            Link::Live | Link::Silent => ("connected".to_owned(), Level::Good),
        };
        let name = text::plain(&uplink.name);
        let line = Line::from(vec![
            Span::styled(format!("NATS {name}  "), theme.dim()),
            Span::styled(state, theme.of(level)),
        ]);
        frame.render_widget(Paragraph::new(line.right_aligned()), first);
    }
    if let Some((level, note)) = note {
        let second = Rect {
            y: head.y + 1,
            ..first
        };
        let note = Line::styled(format!("! {note}"), theme.of(level));
        frame.render_widget(Paragraph::new(note), second);
    }

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

/// Returns the problem of the connection to the NATS server. Without such a problem, returns the counts of messages that were not
/// shown, and the newest problem.
fn note(uplink: &Uplink) -> Option<(Level, String)> {
    if let Link::Down { why, .. } = &uplink.link {
        return Some((Level::Bad, text::plain(why)));
    }
    let trouble = &uplink.trouble;
    let counts = [
        (trouble.bad, "not understood"),
        (trouble.missed, "missed because they came too fast"),
        (trouble.beyond, "from hosts above the limit"),
    ];
    let mut parts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} messages {what}"))
        .collect();
    if !trouble.last.is_empty() {
        parts.push(text::plain(&trouble.last));
    }
    (!parts.is_empty()).then(|| (Level::Warn, parts.join("; ")))
}
