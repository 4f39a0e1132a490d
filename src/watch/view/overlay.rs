//! Draws boxes over the view: help, and the list of columns to sort by.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use super::table;
use crate::watch::screen::Screen;

/// The keys and their meanings, for help.
const KEYS: [(&str, &str); 16] = [
    ("q  F10  ctrl-c", "quit"),
    ("?  h  F1", "this help"),
    ("↑ ↓  j k", "up, down"),
    ("PgUp PgDn  space", "a page up, a page down"),
    ("g G  Home End", "to the top, to the bottom"),
    ("enter", "open the host or the container"),
    ("esc  backspace", "clear the filter, or go back"),
    ("tab  ← →", "another list; in a log ← → move sideways"),
    ("/  F3  F4", "filter a list; search a log"),
    ("n N", "the next match, the previous match"),
    ("f", "follow the log"),
    ("s  F6", "choose the column to sort by"),
    ("r", "reverse the order"),
    ("R  F5", "connect now to hosts that are away"),
    ("click", "select a row, then open it; on a title: sort"),
    ("wheel", "up, down"),
];

/// Draws the help.
pub(super) fn help(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let theme = screen.theme;
    let lines = KEYS.map(|(keys, what)| {
        Line::from(vec![
            Span::styled(format!(" {keys:<18}"), theme.accent()),
            Span::raw(what),
        ])
    });
    over(screen, " Keys ".to_owned(), lines.to_vec(), 72, frame, area);
}

/// Draws the list of columns to sort by.
pub(super) fn sort(screen: &mut Screen, chosen: usize, frame: &mut Frame<'_>, area: Rect) {
    let theme = screen.theme;
    let Some((listing, heads)) = screen.listing() else {
        return;
    };
    let sorted = listing.sort;
    let lines = heads.iter().enumerate().map(|(column, head)| {
        let mark = if column == sorted { "▸" } else { " " };
        let line = Line::from(format!(" {mark} {} ", head.title));
        if column == chosen {
            line.style(theme.selected())
        } else {
            line
        }
    });
    let lines = lines.collect();
    over(screen, " Sort by ".to_owned(), lines, 24, frame, area);
}

/// Draws lines in a box in the middle of an area, over everything else.
fn over(
    screen: &Screen,
    title: String,
    lines: Vec<Line<'_>>,
    width: u16,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let height = lines.len() as u16 + 2;
    let area = area.centered(
        ratatui::layout::Constraint::Max(width),
        ratatui::layout::Constraint::Max(height),
    );
    let block = table::boxed(title, true, screen.theme);
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(lines), inner);
}
