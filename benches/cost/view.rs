//! Measures CPU and memory of the terminal view. The view shows one host with a snapshot per second, on a large screen in tmux.

use std::env;
use std::process::{Command, Output};
use std::thread;

use crate::WARM_UP;
use crate::agent::Agent;
use crate::common::agent::KEY;
use crate::common::bars::Bars;
use crate::load::{Load, rss_mib};
use crate::plan::Plan;

/// Limit of the view's CPU, in percent of a core.
const MAX_PERCENT: f64 = 1.0;

/// A terminal in tmux. Closed on drop.
struct Terminal(String);

impl Terminal {
    fn start(plan: &Plan, port: u16) -> Self {
        let terminal = Self(format!("system-agent-bench-{}", std::process::id()));
        let program = env::current_dir().unwrap().join(&plan.agent);
        let command = format!(
            "exec env API_KEY={KEY} '{}' watch 127.0.0.1:{port}",
            program.display()
        );
        let new = ["-f", "/dev/null", "new-session", "-d"];
        let size = ["-x", "200", "-y", "50", &command];
        terminal.tmux(&[&new[..], &size[..]].concat());
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.0]).args(arguments);
        tmux.env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        tmux.output().expect("cannot start tmux")
    }

    /// The process id of the program in the terminal.
    fn pid(&self) -> Option<u32> {
        let output = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    fn shows(&self, text: &str) -> bool {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).contains(text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

pub(crate) fn print(plan: &Plan, count: usize, bars: &mut Bars) {
    if Command::new("tmux").arg("-V").output().is_err() {
        println!("\nNOTE: the terminal view is not measured, because tmux is not installed");
        return;
    }
    let settings = ["PUBLISH_INTERVAL", "SYSTEM_INTERVAL", "DOCKER_INTERVAL"];
    let agent = Agent::start(plan, count, &settings.map(|name| (name, "1s")));
    let terminal = Terminal::start(plan, agent.port());
    thread::sleep(WARM_UP);
    let pid = terminal.pid().expect("the view has ended");
    assert!(
        terminal.shows("s old") && (count == 0 || terminal.shows(&format!("Containers {count}"))),
        "the view does not show the host"
    );
    let load = Load::over(plan.window, || vec![pid]);
    let percent = load.per_minute(plan.window) / 60.0 * 100.0;
    println!(
        "\nthe terminal view, 200 × 50, one snapshot per second: {percent:.2} % of a core, {:.1} MiB",
        rss_mib(&[pid])
    );
    let what = format!("CPU of the terminal view, {count} containers");
    bars.at_most(&what, percent, MAX_PERCENT, "% of a core");
}
