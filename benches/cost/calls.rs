//! Counts the agent's system calls with strace. The cost of a container is the difference between an agent with containers and
//! an agent without.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::WARM_UP;
use crate::agent::{Agent, docker_rounds};
use crate::plan::Plan;
use crate::process::{Process, send};

/// Number of system calls whose names are printed.
const MAX_NAMES: usize = 5;

/// Number of system calls per round, by name of the system call. `None` if strace is not installed.
pub(crate) struct Calls {
    /// The agent reads only figures.
    figures: Option<BTreeMap<String, f64>>,
    /// The agent reads figures and logs.
    with_logs: Option<BTreeMap<String, f64>>,
}

impl Calls {
    /// Counts the system calls of an agent. The agent reads the host's figures only once, because their cost depends on the
    /// number of processes. Every second the agent runs a round of the other sources, so that a window has enough rounds.
    pub(crate) fn of_agent(plan: &Plan, count: usize) -> Self {
        eprintln!("{count} containers: counting system calls");
        let settings = [
            ("SYSTEM_INTERVAL", "1h"),
            ("DOCKER_INTERVAL", "1s"),
            ("LOG_INTERVAL", "1s"),
        ];
        let per_round = |lines| {
            let settings = [
                &settings[..],
                &[("PUBLISH_INTERVAL", "1s"), ("LOG_LINES", lines)],
            ]
            .concat();
            // Without logs the section `logs` stays empty. To wait until the section has all containers would take forever.
            let complete = if lines == "0" { 0 } else { count };
            count_per_round(&Agent::start(plan, complete, &settings), plan.window / 2)
        };
        Self {
            figures: per_round("0"),
            with_logs: per_round("50"),
        }
    }
}

fn count_per_round(agent: &Agent, window: Duration) -> Option<BTreeMap<String, f64>> {
    thread::sleep(WARM_UP);
    let summary = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(summary.path());
    command
        .args(["-p", &agent.pid().to_string()])
        .stderr(Stdio::null());
    // Counting starts and ends right after a snapshot, so that the window has only whole rounds.
    agent.wait();
    let mut strace = Process::start(&mut command).ok()?;
    agent.forget();
    thread::sleep(window);
    agent.wait();
    let rounds = docker_rounds(&agent.noted()) as f64;
    send(strace.pid(), Signal::INT);
    strace.0.wait().unwrap();
    let summary = fs::read_to_string(summary.path()).unwrap();
    let calls = summary.lines().filter_map(call);
    Some(calls.map(|(name, calls)| (name, calls / rounds)).collect())
}

/// Reads a line of strace's summary, such as `  1.23    0.000123           4        30         2 openat`. The column of
/// errors can be empty.
fn call(line: &str) -> Option<(String, f64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let name = fields.last().filter(|name| **name != "total")?;
    Some(((*name).to_owned(), fields.get(3)?.parse().ok()?))
}

pub(crate) fn print(bare: &Calls, with: &Calls, count: usize) {
    let per_container = |what: &str,
                         bare: Option<&BTreeMap<String, f64>>,
                         with: Option<&BTreeMap<String, f64>>| {
        let (Some(bare), Some(with)) = (bare, with) else {
            println!("\nsystem calls: not counted, because strace is not installed");
            return;
        };
        let difference = |(name, calls): (&String, &f64)| {
            let more = calls - bare.get(name).unwrap_or(&0.0);
            (name.clone(), more / count.max(1) as f64)
        };
        let mut each: Vec<(String, f64)> = with.iter().map(difference).collect();
        each.sort_unstable_by(|one, other| other.1.total_cmp(&one.1));
        let total: f64 = each.iter().map(|(_, calls)| calls).sum();
        let names: Vec<_> = each
            .iter()
            .take(MAX_NAMES)
            .map(|(name, calls)| format!("{name} {calls:.2}"))
            .collect();
        println!(
            "\nsystem calls per container and round, {what}: {total:.2} ({}); without containers {:.0} per round",
            names.join(", "),
            bare.values().sum::<f64>()
        );
    };
    per_container("figures only", bare.figures.as_ref(), with.figures.as_ref());
    per_container(
        "figures and logs",
        bare.with_logs.as_ref(),
        with.with_logs.as_ref(),
    );
}
