//! The agent's system calls, counted by strace: what a round takes for each container is the difference to none.

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

/// How many calls are listed by name.
const MOST_NAMES: usize = 5;

/// System calls per round by name: figures only, and with logs.
pub(crate) struct Calls {
    figures: Option<BTreeMap<String, f64>>,
    with_logs: Option<BTreeMap<String, f64>>,
}

impl Calls {
    /// The processes of containers are not what is counted, so the host's figures are left out; and rounds come each
    /// second, so that there are enough of them.
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
            // Without logs there is no section of them to wait for.
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
    // From one snapshot to another, so that rounds are whole.
    agent.wait();
    let mut strace = Process::start(&mut command).ok()?;
    agent.forget();
    thread::sleep(window);
    agent.wait();
    let rounds = docker_rounds(&agent.heard()) as f64;
    send(strace.pid(), Signal::INT);
    strace.0.wait().unwrap();
    let summary = fs::read_to_string(summary.path()).unwrap();
    let calls = summary.lines().filter_map(call);
    Some(calls.map(|(name, calls)| (name, calls / rounds)).collect())
}

/// `  1.23    0.000123           4        30         2 openat`: the errors may be absent.
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
            println!("\nsystem calls: not counted, there is no strace");
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
            .take(MOST_NAMES)
            .map(|(name, calls)| format!("{name} {calls:.2}"))
            .collect();
        println!(
            "\nsystem calls per container and round, {what}: {total:.2} ({}), and {:.0} a round beside them",
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
