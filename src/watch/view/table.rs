//! Draws a listing as a table.

use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::Theme;
use crate::watch::listing::{Head, Listing, Row};

/// A box with a title. The box with the focus has a border in another colour.
pub(super) fn boxed(title: String, focused: bool, theme: Theme) -> Block<'static> {
    let border = if focused { theme.accent() } else { theme.dim() };
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(border)
        .title(Line::styled(title, theme.title()))
}

/// Draws the titles and the rows, and marks the selected row. Returns the number of rows that match the filter.
pub(super) fn draw(
    listing: &mut Listing,
    heads: &[Head],
    rows: Vec<Row>,
    focused: bool,
    theme: Theme,
    frame: &mut Frame<'_>,
    area: Rect,
) -> usize {
    let rows = listing.arrange(rows);
    let columns = listing.columns(heads, area);
    for &(column, rect) in &columns {
        let head = heads[column];
        let mark = match (column == listing.sort, listing.reversed) {
            (false, _) => "",
            (true, false) => "▾",
            (true, true) => "▴",
        };
        let title = format!("{}{mark}", head.title);
        write(
            frame,
            title,
            head.right,
            theme.title(),
            Rect { height: 1, ..rect },
        );
    }
    let body = Rect {
        y: area.y + 1,
        height: area.height.saturating_sub(1),
        ..area
    };
    let seen = listing.scroll(body);
    if rows.is_empty() && body.height > 0 {
        let nothing = if listing.filter.is_empty() {
            "no entries"
        } else {
            "no matching entries"
        };
        let line = Rect { height: 1, ..body };
        frame.render_widget(Paragraph::new(nothing).style(theme.dim()), line);
    }
    for (y, place) in (body.y..).zip(seen) {
        for &(column, rect) in &columns {
            let value = &rows[place].values[column];
            let rect = Rect {
                y,
                height: 1,
                ..rect
            };
            let style = theme.of(value.level);
            write(frame, value.text.clone(), heads[column].right, style, rect);
        }
        if focused && listing.is_selected(place) {
            let line = Rect {
                y,
                height: 1,
                ..body
            };
            frame.buffer_mut().set_style(line, theme.selected());
        }
    }
    rows.len()
}

/// Draws the text of one cell.
fn write(frame: &mut Frame<'_>, text: String, right: bool, style: Style, area: Rect) {
    let alignment = if right {
        Alignment::Right
    } else {
        Alignment::Left
    };
    let line = Paragraph::new(text).style(style).alignment(alignment);
    frame.render_widget(line, area);
}
