//! The colours of the terminal view. Without colours, text is bold or reversed instead.

use ratatui::style::{Color, Modifier, Style};

use super::text::Level;

/// The styles of text on the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    /// Whether the view uses colours. False if `NO_COLOR` is set.
    pub(super) colours: bool,
}

impl Theme {
    /// The style of a figure with this rating.
    pub(super) fn of(self, level: Level) -> Style {
        let style = Style::new();
        match level {
            Level::Plain => style,
            Level::Good => self.colour(style, Color::Green),
            Level::Dim => self.dim(),
            Level::Warn => self.colour(style, Color::Yellow),
            Level::Bad => self.colour(style, Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// The style of names and titles.
    pub(super) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The style of text that is less important.
    pub(super) fn dim(self) -> Style {
        self.colour(Style::new(), Color::DarkGray)
    }

    /// The style of keys, and of the border of the list that has the focus.
    pub(super) fn accent(self) -> Style {
        self.colour(Style::new(), Color::Cyan)
    }

    /// The style of the selected row.
    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The style of text that matches the search.
    pub(super) fn found(self) -> Style {
        self.colour(Style::new(), Color::Yellow)
            .add_modifier(Modifier::REVERSED)
    }

    pub(super) fn colour(self, style: Style, colour: Color) -> Style {
        if self.colours {
            style.fg(colour)
        } else {
            style
        }
    }
}
