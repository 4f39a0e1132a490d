//! A table with a selected row. The user can sort the table by any column, filter it and scroll it.
//!
//! The rows are made again for each drawing. [`Listing`] stores only what the user has chosen, and where the table was drawn.

use std::cmp::Ordering;

use ratatui::layout::{Constraint, Layout, Position, Rect};

use super::text::Level;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) title: &'static str,
    /// The width in characters. If the column grows, it is the minimum width.
    pub(super) width: u16,
    /// Whether the column takes the remaining width of the table.
    pub(super) grows: bool,
    /// Whether the text is aligned to the right, as for numbers.
    pub(super) right: bool,
    /// If the screen is too narrow, the columns with the lowest weight are hidden first.
    pub(super) weight: u8,
}

/// The value of a row in a column.
#[derive(Debug, Clone, Default)]
pub(super) struct Value {
    pub(super) text: String,
    /// The number by which rows are sorted. None: rows are sorted by the text.
    pub(super) number: Option<f64>,
    pub(super) level: Level,
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(super) fn number(number: f64, text: String) -> Self {
        Self {
            text,
            number: Some(number),
            level: Level::Plain,
        }
    }

    /// An unknown value. In both orders, unknown values come after all known values.
    pub(super) fn unknown() -> Self {
        Self {
            text: "-".to_owned(),
            number: Some(f64::NEG_INFINITY),
            level: Level::Dim,
        }
    }

    fn is_unknown(&self) -> bool {
        self.number == Some(f64::NEG_INFINITY)
    }

    pub(super) fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

/// A row. The `id` stays the same when the row moves to another place.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) values: Vec<Value>,
}

/// What the user has chosen in a table, and where the table was drawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    /// The id of the selected row. None until the user selects a row.
    selected: Option<String>,
    /// The place of the selected row. It is the first row until the user selects a row.
    index: usize,
    /// The place of the first visible row.
    offset: usize,
    /// The column to sort by. The highest number or the first text in the alphabet comes first.
    pub(super) sort: usize,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// The area of the rows in the previous drawing.
    rows: Rect,
    /// The area and the column of each title in the previous drawing.
    heads: Vec<(Rect, usize)>,
    /// The ids of all rows that match the filter, in order.
    shown: Vec<String>,
}

/// The result of a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// The click was on a title. The table is now sorted by this column.
    Sorted,
    /// The click selected another row.
    Selected,
    /// The click was on the row that was already selected.
    Again,
}

impl Listing {
    pub(super) fn sorted_by(sort: usize) -> Self {
        Self {
            sort,
            ..Self::default()
        }
    }

    /// Filters and sorts the rows. The selected row stays selected at its new place. If there is no such row any more, the row
    /// that is now at the same place is selected.
    pub(super) fn arrange(&mut self, mut rows: Vec<Row>) -> Vec<Row> {
        let wanted = self.filter.to_lowercase();
        let fits = |value: &Value| value.text.to_lowercase().contains(&wanted);
        rows.retain(|row| wanted.is_empty() || row.values.iter().any(fits));
        let columns = rows.first().map_or(0, |row| row.values.len());
        let sort = self.sort.min(columns.saturating_sub(1));
        rows.sort_by(|one, other| {
            let (this, that) = (&one.values[sort], &other.values[sort]);
            let order = match self.reversed {
                true => compare(that, this),
                false => compare(this, that),
            };
            let known_first = this.is_unknown().cmp(&that.is_unknown());
            // Rows with the same value are sorted by their ids, so that their order does not change. Rows without a value stay in
            // their order.
            let by_id = || match this.is_unknown() {
                true => Ordering::Equal,
                false => one.id.cmp(&other.id),
            };
            known_first.then(order).then_with(by_id)
        });
        let place = self
            .selected
            .as_ref()
            .and_then(|id| rows.iter().position(|row| row.id == *id));
        self.index = place
            .unwrap_or(self.index)
            .min(rows.len().saturating_sub(1));
        // Until the user selects a row, the first row is always selected, even if another row becomes the first row.
        if self.selected.is_some() {
            self.selected = rows.get(self.index).map(|row| row.id.clone());
        }
        self.shown = rows.iter().map(|row| row.id.clone()).collect();
        rows
    }

    /// Returns the places of the rows that are visible in an area. The selected row is one of these rows.
    pub(super) fn scroll(&mut self, area: Rect) -> std::ops::Range<usize> {
        self.rows = area;
        let height = usize::from(area.height);
        let last = self.shown.len().saturating_sub(height);
        let least = (self.index + 1).saturating_sub(height);
        self.offset = self.offset.clamp(least, self.index.max(least)).min(last);
        self.offset..(self.offset + height).min(self.shown.len())
    }

    /// Returns the columns for which there is room, and their areas.
    pub(super) fn columns(&mut self, heads: &[Head], area: Rect) -> Vec<(usize, Rect)> {
        let mut kept: Vec<usize> = (0..heads.len()).collect();
        let needed = |kept: &[usize]| -> u16 {
            kept.iter()
                .map(|&column| heads[column].width + 1)
                .sum::<u16>()
                .saturating_sub(1)
        };
        while kept.len() > 1 && needed(&kept) > area.width {
            let least = (0..kept.len()).min_by_key(|&place| heads[kept[place]].weight);
            kept.remove(least.unwrap_or_default());
        }
        let widths = kept.iter().map(|&column| match heads[column] {
            Head {
                grows: true, width, ..
            } => Constraint::Min(width),
            Head { width, .. } => Constraint::Length(width),
        });
        let areas = Layout::horizontal(widths).spacing(1).split(area);
        let columns: Vec<(usize, Rect)> = kept.into_iter().zip(areas.iter().copied()).collect();
        self.heads = columns
            .iter()
            .map(|&(column, rect)| (Rect { height: 1, ..rect }, column))
            .collect();
        columns
    }

    /// Whether the row at this place is selected.
    pub(super) fn is_selected(&self, place: usize) -> bool {
        place == self.index
    }

    /// The id of the selected row.
    pub(super) fn selected(&self) -> Option<&str> {
        self.shown.get(self.index).map(String::as_str)
    }

    /// The number of rows by which a page key moves.
    pub(super) fn page(&self) -> isize {
        isize::try_from(self.rows.height.max(2) - 1).unwrap_or(1)
    }

    /// Selects the row that is `by` rows further down.
    pub(super) fn go(&mut self, by: isize) {
        let last = self.shown.len().saturating_sub(1);
        self.index = self.index.saturating_add_signed(by).min(last);
        self.selected = self.selected().map(str::to_owned);
    }

    /// Sorts by a column. If the table is already sorted by this column, reverses the order.
    pub(super) fn sort_by(&mut self, column: usize) {
        if self.sort == column {
            self.reversed = !self.reversed;
        } else {
            (self.sort, self.reversed) = (column, false);
        }
    }

    /// Handles a click. Returns none if the click is outside of the titles and rows.
    pub(super) fn click(&mut self, at: Position) -> Option<Hit> {
        if let Some(&(_, column)) = self.heads.iter().find(|(head, _)| head.contains(at)) {
            self.sort_by(column);
            return Some(Hit::Sorted);
        }
        if !self.rows.contains(at) {
            return None;
        }
        let place = self.offset + usize::from(at.y - self.rows.y);
        if place >= self.shown.len() {
            return None;
        }
        let again = place == self.index;
        self.index = place;
        self.selected = self.selected().map(str::to_owned);
        Some(if again { Hit::Again } else { Hit::Selected })
    }

    /// Removes the stored areas, so that a click cannot reach a table that is not on the screen.
    pub(super) fn hide(&mut self) {
        self.rows = Rect::ZERO;
        self.heads.clear();
    }

    /// Whether this position is in the titles or the rows.
    pub(super) fn contains(&self, at: Position) -> bool {
        self.rows.contains(at) || self.heads.iter().any(|(head, _)| head.contains(at))
    }
}

/// Compares two values. The highest number or the first text in the alphabet comes first.
fn compare(one: &Value, other: &Value) -> Ordering {
    match (one.number, other.number) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        _ => one.text.cmp(&other.text),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::{Position, Rect};

    use super::{Head, Hit, Listing, Row, Value};

    const HEADS: [Head; 3] = [
        Head {
            title: "NAME",
            width: 8,
            grows: true,
            right: false,
            weight: 9,
        },
        Head {
            title: "CPU",
            width: 5,
            grows: false,
            right: true,
            weight: 5,
        },
        Head {
            title: "IMAGE",
            width: 10,
            grows: false,
            right: false,
            weight: 1,
        },
    ];

    fn rows(of: &[(&str, f64)]) -> Vec<Row> {
        of.iter()
            .map(|&(name, cpu)| Row {
                id: name.to_owned(),
                values: vec![
                    Value::text(name),
                    Value::number(cpu, cpu.to_string()),
                    Value::text("image"),
                ],
            })
            .collect()
    }

    fn ids(rows: &[Row]) -> String {
        rows.iter().map(|row| row.id.as_str()).collect()
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let mut listing = Listing::sorted_by(1);
        let all = rows(&[("a", 1.0), ("b", 3.0), ("c", 2.0)]);
        assert_eq!(ids(&listing.arrange(all.clone())), "bca");
        listing.sort_by(1);
        assert_eq!(ids(&listing.arrange(all.clone())), "acb");
        listing.sort_by(0);
        assert_eq!(ids(&listing.arrange(all.clone())), "abc");
        listing.filter = "C".to_owned();
        assert_eq!(ids(&listing.arrange(all)), "c");
    }

    #[test]
    fn unknown_values_come_last_in_both_orders() {
        let mut listing = Listing::sorted_by(1);
        let mut all = rows(&[("a", 1.0), ("b", 3.0), ("c", 2.0)]);
        all[0].values[1] = Value::unknown();
        assert_eq!(ids(&listing.arrange(all.clone())), "bca");
        listing.sort_by(1);
        assert_eq!(ids(&listing.arrange(all.clone())), "cba");
        // A column number that is too high is not an error.
        listing.sort = 7;
        assert_eq!(listing.arrange(all).len(), 3);
    }

    #[test]
    fn a_selected_row_stays_selected() {
        let mut listing = Listing::sorted_by(1);
        listing.arrange(rows(&[("a", 1.0), ("b", 3.0), ("c", 2.0)]));
        assert_eq!(listing.selected(), Some("b"));
        // The user has not selected a row, so the first row stays selected.
        listing.arrange(rows(&[("a", 9.0), ("b", 3.0), ("c", 2.0)]));
        assert_eq!(listing.selected(), Some("a"));
        listing.go(1);
        assert_eq!(listing.selected(), Some("b"));
        listing.arrange(rows(&[("a", 1.0), ("b", 0.0), ("c", 2.0)]));
        assert_eq!(listing.selected(), Some("b"));
        listing.arrange(rows(&[("a", 1.0), ("c", 2.0)]));
        assert_eq!(listing.selected(), Some("a"));
        listing.arrange(Vec::new());
        assert_eq!(listing.selected(), None);
        listing.go(-5);
        listing.go(5);
        assert_eq!(listing.selected(), None);
    }

    #[test]
    fn the_selected_row_is_visible() {
        let mut listing = Listing::default();
        let names: Vec<String> = (0..100).map(|number| format!("{number:02}")).collect();
        let all: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.0)).collect();
        listing.arrange(rows(&all));
        let area = Rect::new(0, 1, 20, 10);
        assert_eq!(listing.scroll(area), 0..10);
        listing.go(50);
        assert_eq!(listing.scroll(area), 41..51);
        listing.go(-3);
        assert_eq!(listing.scroll(area), 41..51);
        listing.go(isize::MAX);
        assert_eq!(listing.scroll(area), 90..100);
        assert_eq!(listing.scroll(Rect { height: 50, ..area }), 50..100);
        listing.go(isize::MIN);
        assert_eq!(listing.scroll(area), 0..10);
        assert_eq!(listing.scroll(Rect { height: 0, ..area }).len(), 0);
    }

    #[test]
    fn a_click_selects_and_sorts() {
        let mut listing = Listing::sorted_by(1);
        listing.arrange(rows(&[("a", 1.0), ("b", 3.0), ("c", 2.0)]));
        let columns = listing.columns(&HEADS, Rect::new(0, 0, 40, 5));
        assert_eq!(columns.len(), 3);
        listing.scroll(Rect::new(0, 1, 40, 4));
        assert_eq!(listing.click(Position::new(3, 2)), Some(Hit::Selected));
        assert_eq!(listing.selected(), Some("c"));
        assert_eq!(listing.click(Position::new(3, 2)), Some(Hit::Again));
        assert_eq!(listing.click(Position::new(3, 4)), None);
        assert_eq!(listing.click(Position::new(3, 0)), Some(Hit::Sorted));
        assert_eq!((listing.sort, listing.reversed), (0, false));
    }

    #[test]
    fn columns_without_room_are_hidden() {
        let mut listing = Listing::default();
        let mut kept = |width| -> Vec<usize> {
            let columns = listing.columns(&HEADS, Rect::new(0, 0, width, 5));
            columns.into_iter().map(|(column, _)| column).collect()
        };
        assert_eq!(kept(25), [0, 1, 2]);
        assert_eq!(kept(24), [0, 1]);
        assert_eq!(kept(13), [0]);
        assert_eq!(kept(0), [0]);
    }
}
