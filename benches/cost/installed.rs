//! Measures the agent as the package installs it, and compares it with an agent that runs as root.

use std::thread;

use crate::WARM_UP;
use crate::agent::Agent;
use crate::common::{self, bars::Bars};
use crate::load::{Load, median};
use crate::plan::Plan;
use crate::row::Row;

/// Measures the installed agent alone and returns its row.
pub(crate) fn measure(plan: &Plan, count: usize) -> Row {
    let agent = start(plan, count);
    thread::sleep(WARM_UP);
    agent.forget();
    let row = Row::measure("System Agent as installed", plan, || vec![agent.pid()]);
    let noted = agent.noted();
    let by_kernel = |source| noted.iter().all(|one| one.via(source) == Some("kernel"));
    assert!(
        count == 0 || (by_kernel("docker") && by_kernel("logs")),
        "the agent must read figures and logs from the kernel's files"
    );
    row
}

/// Compares the CPU time of both agents while they run at the same time. The installed agent starts first for one half of the
/// windows and second for the other half, because the second agent finds more in the kernel's caches.
pub(crate) fn compare(plan: &Plan, count: usize, bars: &mut Bars) {
    eprintln!("measuring: as installed and as root");
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
    println!("\nown CPU as installed / as root, per window: {all}");
    let what = format!("own CPU as installed over root's, {count} containers");
    // The result is the mean of two medians, one for each order of the starts.
    let halves = ratios.chunks(plan.windows).map(median);
    let mean = halves.sum::<f64>() / 2.0;
    bars.at_most(&what, mean, 1.1, "×");
}

fn start(plan: &Plan, count: usize) -> Agent {
    Agent::start_by(common::agent::as_installed(&plan.agent), count, &[])
}
