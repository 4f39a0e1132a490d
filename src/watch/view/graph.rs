//! Draws a figure over time with the dots of braille characters.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Widget;

use crate::watch::history::History;

/// The rows of dots in a character.
const ROWS: usize = 4;
/// The columns of dots in a character.
const COLUMNS: usize = 2;
/// The bits of the dots in the left column, from the bottom.
const LEFT: [u32; ROWS] = [0x40, 0x04, 0x02, 0x01];
/// The bits of the dots in the right column, from the bottom.
const RIGHT: [u32; ROWS] = [0x80, 0x20, 0x10, 0x08];
/// The braille character without dots.
const EMPTY: u32 = 0x2800;

/// A graph. The newest value is at the right. The area below each value is filled.
pub(super) struct Graph<'h> {
    pub(super) history: &'h History,
    /// The value that fills the height.
    pub(super) highest: f64,
    pub(super) style: Style,
}

impl Widget for Graph<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        let values: Vec<f64> = self.history.newest(width * COLUMNS).collect();
        let missing = width * COLUMNS - values.len();
        let dots = |place: usize| -> usize {
            let Some(value) = place.checked_sub(missing).map(|place| values[place]) else {
                return 0;
            };
            let share = value / self.highest.max(f64::MIN_POSITIVE);
            // A known value has at least one dot.
            ((share * (height * ROWS) as f64).round() as usize).clamp(1, (height * ROWS).max(1))
        };
        for column in 0..width {
            let heights = [dots(column * COLUMNS), dots(column * COLUMNS + 1)];
            for row in 0..height {
                let below = (height - 1 - row) * ROWS;
                let mut bits = 0;
                for (height, dots) in heights.into_iter().zip([LEFT, RIGHT]) {
                    let filled = height.saturating_sub(below).min(ROWS);
                    bits |= dots[..filled].iter().sum::<u32>();
                }
                if bits > 0
                    && let Some(dots) = char::from_u32(EMPTY + bits)
                    && let Some(cell) =
                        buffer.cell_mut((area.x + column as u16, area.y + row as u16))
                {
                    cell.set_char(dots).set_style(self.style);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;
    use ratatui::widgets::Widget;

    use super::Graph;
    use crate::watch::history::History;

    fn drawn(values: &[f64], width: u16, height: u16) -> Buffer {
        let mut history = History::default();
        values.iter().for_each(|value| history.push(*value));
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        Graph {
            history: &history,
            highest: 100.0,
            style: Style::new(),
        }
        .render(area, &mut buffer);
        buffer
    }

    #[test]
    fn the_newest_value_is_at_the_right() {
        assert_eq!(drawn(&[100.0], 2, 1), Buffer::with_lines([" ⢸"]));
        assert_eq!(
            drawn(&[0.0, 50.0, 100.0, 100.0], 2, 1),
            Buffer::with_lines(["⣠⣿"])
        );
        assert_eq!(
            drawn(&[25.0, 75.0, 100.0, 500.0], 2, 2),
            Buffer::with_lines(["⢠⣿", "⣼⣿"])
        );
        assert_eq!(drawn(&[], 3, 1), Buffer::with_lines(["   "]));
        drawn(&[f64::NAN, f64::INFINITY, -1.0], 0, 0);
        drawn(&[f64::NAN, f64::INFINITY, -1.0], 3, 2);
    }
}
