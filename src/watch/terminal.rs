//! Sets up the terminal for the view. Restores the terminal when the view ends, even after an error or a panic.

use std::io::{self, IsTerminal, Stdout};
use std::panic;

use crossterm::cursor::Show;
use crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Frame;
use ratatui::backend::CrosstermBackend;

/// The terminal while the view uses it.
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
    _restore: Restore,
}

/// Restores the terminal on drop.
struct Restore;

impl Terminal {
    /// Sets up the terminal: the alternate screen, raw mode for single keys, and the mouse.
    ///
    /// # Errors
    /// Fails if stdout is not a terminal, or if the terminal cannot be set up.
    pub(super) fn take() -> io::Result<Self> {
        if !io::stdout().is_terminal() {
            return Err(io::Error::other(
                "the output is not a terminal; use `system-agent snapshot` to print figures",
            ));
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        let guard = Restore;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture)?;
        Ok(Self {
            screen: ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?,
            _restore: guard,
        })
    }

    /// Clears the screen. The next drawing then draws the complete screen again.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.screen.clear()
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.screen.draw(draw).map(drop)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal. Tries every step and ignores errors, because the terminal can already be closed.
fn restore() {
    let _ = execute!(
        io::stdout(),
        DisableMouseCapture,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{Command, Stdio};

    use super::Terminal;

    /// The test sets this variable for the process that panics.
    const PANICS: &str = "PANICS_IN_A_TERMINAL";

    /// The panic happens in a separate process with its own terminal.
    #[test]
    fn after_a_panic_the_terminal_is_restored_before_the_message() {
        if env::var_os(PANICS).is_some() {
            let _terminal = Terminal::take().unwrap();
            panic!("on purpose");
        }
        let here = env::current_exe().unwrap();
        let name =
            "watch::terminal::tests::after_a_panic_the_terminal_is_restored_before_the_message";
        let command = format!("'{}' --exact {name} --nocapture; stty -a", here.display());
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env(PANICS, "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let at = |what: &str| {
            text.find(what)
                .unwrap_or_else(|| panic!("no {what:?} in {text:?}"))
        };
        let (enter, leave, told) = (at("\x1b[?1049h"), at("\x1b[?1049l"), at("on purpose"));
        assert!(enter < leave && leave < told, "{text:?}");
        let mouse = at("\x1b[?1000l");
        assert!(mouse < told && at("\x1b[?25h") < told, "{text:?}");
        // After the panic the terminal must have the settings that a shell needs.
        let settings = &text[told..];
        assert!(
            settings.contains(" icanon") && settings.contains(" echo "),
            "{settings:?}"
        );
    }
}
