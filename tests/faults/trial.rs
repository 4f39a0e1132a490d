//! A trial: one agent under one fault, with the checks and their results.

use std::fs;
use std::time::Duration;

use crate::client::{Client, Totals};
use crate::support::{Agent, Launch};

/// The interval at which the agent publishes during each trial.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
const MIB: f64 = 1024.0 * 1024.0;

/// An agent with its client, under a fault.
pub(crate) struct Trial {
    pub(crate) agent: Agent,
    pub(crate) client: Client,
    report: Report,
    /// The agent's use of resources before the fault.
    pub(crate) before: Usage,
}

/// An agent's use of resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_mib: f64,
    pub(crate) files: usize,
    pub(crate) threads: u64,
    /// CPU time in seconds.
    pub(crate) cpu: f64,
}

/// The result of a trial.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    name: String,
    totals: Totals,
    checks: Vec<(String, bool)>,
}

/// A launcher with [`INTERVAL`] for all intervals.
pub(crate) fn launch() -> Launch {
    Launch::new().vars(&[
        ("PUBLISH_INTERVAL", "1s"),
        ("SYSTEM_INTERVAL", "1s"),
        ("DOCKER_INTERVAL", "1s"),
        ("LOG_INTERVAL", "1s"),
    ])
}

impl Trial {
    /// Starts an agent and its client, and waits for six snapshots.
    pub(crate) fn start(name: &str, launch: Launch) -> Self {
        Self::of(name, launch.start())
    }

    /// Connects a client to a running agent, and waits for six snapshots.
    pub(crate) fn of(name: &str, agent: Agent) -> Self {
        let client = Client::of(&agent, INTERVAL);
        Self::with(name, agent, client)
    }

    pub(crate) fn with(name: &str, agent: Agent, client: Client) -> Self {
        client.wait_for(6);
        Self {
            before: Usage::of(agent.pid()),
            report: Report {
                name: name.to_owned(),
                totals: Totals::default(),
                checks: Vec::new(),
            },
            agent,
            client,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.agent.pid())
    }

    /// The growth of the agent's peak memory since the trial began, in MiB.
    pub(crate) fn peak_growth(&self) -> f64 {
        self.agent.peak_rss() as f64 / MIB - self.before.rss_mib
    }

    /// Adds the result of a check to the report.
    pub(crate) fn check(&mut self, met: bool, seen: impl Into<String>) {
        self.report.checks.push((seen.into(), met));
    }

    pub(crate) fn at_most(&mut self, what: &str, seen: f64, limit: f64, unit: &str) {
        self.check(
            seen <= limit,
            format!("{what} {seen:.1} {unit} (at most {limit})"),
        );
    }

    /// Checks that something happened within `limit` seconds. `None` means that it did not happen.
    pub(crate) fn within(&mut self, what: &str, took: Option<Duration>, limit: f64) {
        match took {
            Some(took) => self.at_most(what, took.as_secs_f64(), limit, "s"),
            None => self.check(false, format!("{what}: never (at most {limit} s)")),
        }
    }

    /// Ends the trial. Every snapshot must have come on time.
    pub(crate) fn end(self) -> Report {
        // The first snapshot can be older than the login, so its arrival does not count.
        self.end_since(1)
    }

    /// Does the same as [`Trial::end`], but the snapshots before number `first` do not count.
    pub(crate) fn end_since(mut self, first: usize) -> Report {
        self.client.wait_for(3);
        let totals = self.client.totals(first);
        if let Some(invalid) = self.client.since(first, |lines| {
            lines.iter().find_map(|line| line.invalid.clone())
        }) {
            eprintln!(
                "{}: invalid: {}",
                self.report.name,
                invalid.chars().take(500).collect::<String>()
            );
        }
        let running = self.agent.is_running();
        self.check(
            running,
            if running {
                "the agent runs"
            } else {
                "THE AGENT ENDED"
            },
        );
        Report {
            totals,
            ..self.report
        }
    }
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent has ended");
        let number = |field: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .expect("expected a number")
        };
        Self {
            rss_mib: number("VmRSS:") as f64 / 1024.0,
            files: open_files(pid),
            threads: number("Threads:"),
            cpu: crate::support::kernel::cpu_seconds(pid),
        }
    }
}

/// The number of the agent's open files, without those of processes: the agent keeps one open for each process of the host, and other
/// programs start and end processes during a trial.
fn open_files(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent has ended");
    let is_of_process = |entry: &fs::DirEntry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let process = target.strip_prefix("/proc").ok();
        let process = process.and_then(|path| path.components().next());
        process.is_some_and(|name| name.as_os_str().to_string_lossy().parse::<u32>().is_ok())
    };
    all.flatten().filter(|entry| !is_of_process(entry)).count()
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        let Totals {
            lost,
            late,
            invalid,
            ..
        } = self.totals;
        (lost, late, invalid) == (0, 0, 0) && self.checks.iter().all(|(_, met)| *met)
    }
}

/// Prints all reports as one table.
pub(crate) fn print(reports: &[Report]) {
    println!("\n| fault | snapshots | lost | late | invalid | max lateness, ms | checks | |");
    println!("|---|---:|---:|---:|---:|---:|---|---|");
    for report in reports {
        let Totals {
            received,
            lost,
            late,
            latest,
            invalid,
        } = report.totals;
        let seen: Vec<String> = report
            .checks
            .iter()
            .map(|(seen, met)| {
                if *met {
                    seen.clone()
                } else {
                    format!("**{seen}**")
                }
            })
            .collect();
        println!(
            "| {} | {received} | {lost} | {late} | {invalid} | {} | {} | {} |",
            report.name,
            latest.as_millis(),
            seen.join("; "),
            if report.passed() { "passed" } else { "FAILED" }
        );
    }
}
