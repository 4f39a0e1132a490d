//! The agent as the package installs it: a user of its own, in the group of Docker's socket, with the one capability that the
//! unit grants, beside an agent of root's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::thread;

use crate::WARM_UP;
use crate::agent::Agent;
use crate::common::bars::Bars;
use crate::load::{Load, median};
use crate::plan::Plan;
use crate::row::Row;

/// The id of a user that no account on the host has.
const USER: &str = "64321";
const SOCKET: &str = "/var/run/docker.sock";

/// A row for it, by itself.
pub(crate) fn measure(plan: &Plan, count: usize) -> Row {
    let agent = start(plan, count);
    thread::sleep(WARM_UP);
    agent.forget();
    let row = Row::measure("System Agent as installed", plan, || vec![agent.pid()]);
    let heard = agent.heard();
    let by_kernel = |source| heard.iter().all(|one| one.via(source) == Some("kernel"));
    assert!(
        count == 0 || (by_kernel("docker") && by_kernel("logs")),
        "the engine was asked for figures or logs"
    );
    row
}

/// Compares the own CPU of both while they run at the same time. Half of the windows are with each order of their starts: the
/// agent that is started second finds more in the kernel's caches.
pub(crate) fn compare(plan: &Plan, count: usize, bars: &mut Bars) {
    eprintln!("measuring: as installed beside root");
    let mut ratios = Vec::new();
    for installed_first in [true, false] {
        let (installed, root) = if installed_first {
            let installed = start(plan, count);
            (installed, Agent::start(plan, count, &[]))
        } else {
            let root = Agent::start(plan, count, &[]);
            (start(plan, count), root)
        };
        thread::sleep(WARM_UP);
        for _ in 0..plan.windows {
            let before = [&installed, &root].map(|one| Load::now(&[one.pid()]));
            thread::sleep(plan.window);
            let of = |agent: &Agent, before| {
                let used = Load::now(&[agent.pid()]).since(before);
                used.per_minute(plan.window)
            };
            ratios.push(of(&installed, &before[0]) / of(&root, &before[1]));
        }
    }
    let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let all = all.join(" ");
    println!("\nown CPU as installed, in times of root's, in windows side by side: {all}");
    let what = format!("own CPU as installed in times of root's, {count} containers");
    // Half of the windows of each order.
    let halves = ratios.chunks(plan.windows).map(median);
    let mean = halves.sum::<f64>() / 2.0;
    bars.at_most(&what, mean, 1.1, "×");
}

fn start(plan: &Plan, count: usize) -> Agent {
    let group = fs::metadata(SOCKET).expect("Docker's socket").gid();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--no-new-privs"])
        .args(["--groups", &group.to_string()])
        .args(["--inh-caps", "-all,+dac_read_search"])
        .args(["--ambient-caps", "-all,+dac_read_search"])
        .args(["--bounding-set", "-all,+dac_read_search"])
        .arg(&plan.agent);
    Agent::start_by(command, count, &[])
}
