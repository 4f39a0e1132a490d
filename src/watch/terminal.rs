//! The terminal, which is given back as it was, whatever ends the view.

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

/// The terminal, while it is this program's.
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
    _back: GiveBack,
}

/// Gives it back when it is dropped.
struct GiveBack;

impl Terminal {
    /// Takes it: another screen, keys as they are pressed, the mouse.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn take() -> io::Result<Self> {
        if !io::stdout().is_terminal() {
            return Err(io::Error::other(
                "the output is no terminal; `system-agent snapshot` prints figures",
            ));
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        let back = GiveBack;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture)?;
        Ok(Self {
            screen: ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?,
            _back: back,
        })
    }

    /// Draws everything anew the next time.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.screen.clear()
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.screen.draw(draw).map(drop)
    }
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        give_back();
    }
}

/// Each step is tried, whatever came of the one before: the terminal may be gone.
fn give_back() {
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

    /// Set for the process that panics.
    const PANICS: &str = "PANICS_IN_A_TERMINAL";

    /// In a process and a terminal of its own.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if env::var_os(PANICS).is_some() {
            let _terminal = Terminal::take().unwrap();
            panic!("on purpose");
        }
        let here = env::current_exe().unwrap();
        let name = "watch::terminal::tests::a_panic_gives_the_terminal_back_before_it_is_told";
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
        // As a shell needs it.
        let settings = &text[told..];
        assert!(
            settings.contains(" icanon") && settings.contains(" echo "),
            "{settings:?}"
        );
    }
}
