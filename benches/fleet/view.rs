//! `system-agent watch --nats` in a terminal of tmux.

use std::env;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::plan::Plan;

/// Timeout until the view shows a text.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A terminal in tmux. Closed on drop.
pub(crate) struct View(String);

impl View {
    pub(crate) fn start(plan: &Plan, url: &str) -> Self {
        let view = Self(format!("system-agent-bench-{}", std::process::id()));
        let program = env::current_dir().unwrap().join(&plan.agent);
        let command = format!("exec '{}' watch --nats {url}", program.display());
        let new = ["-f", "/dev/null", "new-session", "-d"];
        let size = ["-x", "200", "-y", "50", &command];
        view.tmux(&[&new[..], &size[..]].concat());
        view
    }

    /// Whether tmux is installed.
    pub(crate) fn is_possible() -> bool {
        Command::new("tmux").arg("-V").output().is_ok()
    }

    /// The process id of the program in the terminal.
    pub(crate) fn pid(&self) -> u32 {
        let output = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let pid = String::from_utf8(output.stdout).unwrap();
        pid.trim().parse().expect("the view has ended")
    }

    pub(crate) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the terminal shows this text.
    pub(crate) fn shows(&self, text: &str) {
        let started = Instant::now();
        loop {
            let output = self.tmux(&["capture-pane", "-p"]);
            let screen = String::from_utf8_lossy(&output.stdout);
            if screen.contains(text) {
                return;
            }
            assert!(
                started.elapsed() < TIMEOUT,
                "the terminal does not show {text:?}:\n{screen}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.0]).args(arguments);
        tmux.env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        tmux.output().expect("cannot start tmux")
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
