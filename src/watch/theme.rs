//! Colours of the terminal view.

use ratatui::style::{Color, Modifier, Style};

use super::text::Level;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    /// Whether there are any; by `NO_COLOR`.
    pub(super) colours: bool,
}

impl Theme {
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

    /// Of names and titles.
    pub(super) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        self.colour(Style::new(), Color::DarkGray)
    }

    pub(super) fn accent(self) -> Style {
        self.colour(Style::new(), Color::Cyan)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

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
