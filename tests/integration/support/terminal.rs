//! A terminal in tmux. Tests type keys into it and read its screen.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{DEADLINE, KEY, wait};

/// A text that the screen shows before the program starts and after it has ended.
const BEFORE: &str = "before the program";

/// A terminal in which the agent's binary runs. Ended on drop.
pub(crate) struct Terminal {
    server: String,
}

impl Terminal {
    /// Starts `system-agent watch` with these arguments and this environment on a screen of this size.
    pub(crate) fn watch(
        size: (u16, u16),
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let server = format!("system-agent-{}-{number}", std::process::id());
        let quoted = |text: &str| format!("'{text}'");
        let variables = environment
            .iter()
            .map(|(name, value)| quoted(&format!("{name}={value}")));
        let arguments = arguments.iter().map(|argument| quoted(argument));
        let command: Vec<String> = variables
            .chain([
                quoted(env!("CARGO_BIN_EXE_system-agent")),
                "watch".to_owned(),
            ])
            .chain(arguments)
            .collect();
        // The script prints the terminal's settings after the program has ended.
        let script = format!(
            "echo '{BEFORE}'; env -i PATH=\"$PATH\" TERM=\"$TERM\" {}; echo \"ended $?\"; stty -a | tr ' ;' '\\n\\n' | \
             grep -x -e '-*icanon' -e '-*echo' | sort | tr '\\n' ' '; exec cat",
            command.join(" ")
        );
        let terminal = Self { server };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "sh",
            "-c",
            &script,
        ]);
        terminal
    }

    /// Presses keys. `keys` are the names that tmux has for the keys.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a text.
    pub(crate) fn write(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// The text on the screen.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The text on the screen with its colours as escape sequences.
    pub(crate) fn coloured_screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen shows all of these texts. Returns the screen.
    pub(crate) fn shows(&self, texts: &[&str]) -> String {
        self.shows_within(DEADLINE, texts)
    }

    /// Does the same as [`Terminal::shows`], with another deadline.
    pub(crate) fn shows_within(&self, deadline: Duration, texts: &[&str]) -> String {
        let seen = || {
            let screen = self.screen();
            texts
                .iter()
                .all(|text| screen.contains(text))
                .then_some(screen)
        };
        wait::within(deadline, seen)
            .unwrap_or_else(|| panic!("not all of {texts:?} are on the screen:\n{}", self.screen()))
    }

    /// Waits until the screen does not show this text.
    pub(crate) fn hides(&self, text: &str) {
        let hidden = || (!self.screen().contains(text)).then_some(());
        if wait::within(DEADLINE, hidden).is_none() {
            panic!("{text:?} is still on the screen:\n{}", self.screen());
        }
    }

    /// Waits until the program has ended with this status and the terminal has its old settings.
    pub(crate) fn ends(&self, status: i32) -> String {
        let ended = format!("ended {status}");
        self.shows(&[BEFORE, &ended, "echo icanon"])
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// A click of the left mouse button. `column` and `row` count from 0.
    pub(crate) fn click(&self, column: usize, row: usize) {
        for end in ["M", "m"] {
            self.write(&format!("\u{1b}[<0;{};{}{end}", column + 1, row + 1));
        }
    }

    /// The program's process id.
    pub(crate) fn pid(&self) -> i32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        wait::until("the program", DEADLINE, || {
            let children = std::fs::read_to_string(Path::new(&children)).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.server])
            .args(arguments)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("cannot start tmux");
        assert!(
            output.status.success(),
            "tmux {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(KEY), "the API key is on the screen:\n{text}");
        text
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // tmux can already have ended.
        let _ = Command::new("tmux")
            .args(["-L", &self.server, "kill-server"])
            .output();
    }
}
