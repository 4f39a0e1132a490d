//! One agent under one fault: what is expected, what was seen, and whether that is good enough.

use std::fs;
use std::time::Duration;

use crate::client::{Account, Client};
use crate::support::{Agent, Launch};

/// How often the agent publishes under every fault.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
const MIB: f64 = 1024.0 * 1024.0;

/// An agent with its client.
pub(crate) struct Trial {
    pub(crate) agent: Agent,
    pub(crate) client: Client,
    report: Report,
    /// What the agent took before the fault.
    pub(crate) before: Usage,
}

/// What an agent takes of its host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_mib: f64,
    pub(crate) files: usize,
    pub(crate) threads: u64,
    /// Seconds.
    pub(crate) cpu: f64,
}

/// What came of a fault.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    name: String,
    account: Account,
    checks: Vec<(String, bool)>,
}

/// Every actor at [`INTERVAL`].
pub(crate) fn launch() -> Launch {
    Launch::new().vars(&[
        ("PUBLISH_INTERVAL", "1s"),
        ("SYSTEM_INTERVAL", "1s"),
        ("DOCKER_INTERVAL", "1s"),
        ("LOG_INTERVAL", "1s"),
    ])
}

impl Trial {
    /// Starts an agent and its client, and lets them run for a moment.
    pub(crate) fn start(name: &str, launch: Launch) -> Self {
        Self::of(name, launch.start())
    }

    /// Lets the client of an agent run for a moment.
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
                account: Account::default(),
                checks: Vec::new(),
            },
            agent,
            client,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.agent.pid())
    }

    /// The most memory that it ever took beyond what it took before, in MiB.
    pub(crate) fn peak_growth(&self) -> f64 {
        self.agent.peak_rss() as f64 / MIB - self.before.rss_mib
    }

    /// Takes note of what was seen.
    pub(crate) fn check(&mut self, met: bool, seen: impl Into<String>) {
        self.report.checks.push((seen.into(), met));
    }

    pub(crate) fn at_most(&mut self, what: &str, seen: f64, limit: f64, unit: &str) {
        self.check(
            seen <= limit,
            format!("{what} {seen:.1} {unit} (at most {limit})"),
        );
    }

    /// That something came about within so many seconds.
    pub(crate) fn within(&mut self, what: &str, took: Option<Duration>, limit: f64) {
        match took {
            Some(took) => self.at_most(what, took.as_secs_f64(), limit, "s"),
            None => self.check(false, format!("{what}: never (at most {limit} s)")),
        }
    }

    /// Ends it; every snapshot must have come in time.
    pub(crate) fn end(self) -> Report {
        // The first is the newest of what was there already, at any time.
        self.end_since(1)
    }

    /// As [`Trial::end`], but those before one do not count.
    pub(crate) fn end_since(mut self, first: usize) -> Report {
        self.client.wait_for(3);
        let account = self.client.account(first);
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
        self.check(running, if running { "runs" } else { "ENDED" });
        Report {
            account,
            ..self.report
        }
    }
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
        let number = |field: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .expect("a number")
        };
        Self {
            rss_mib: number("VmRSS:") as f64 / 1024.0,
            files: fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("the agent runs")
                .count(),
            threads: number("Threads:"),
            cpu: crate::support::kernel::cpu_seconds(pid),
        }
    }
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        let Account {
            lost,
            late,
            invalid,
            ..
        } = self.account;
        (lost, late, invalid) == (0, 0, 0) && self.checks.iter().all(|(_, met)| *met)
    }
}

/// One table of all.
pub(crate) fn print(reports: &[Report]) {
    println!("\n| fault | snapshots | lost | late | invalid | latest, ms | seen | |");
    println!("|---|---:|---:|---:|---:|---:|---|---|");
    for report in reports {
        let Account {
            received,
            lost,
            late,
            latest,
            invalid,
        } = report.account;
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
