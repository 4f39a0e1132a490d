//! The programs that a scraper asks: the agent, node_exporter and cAdvisor.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::http;
use crate::common::agent::{self, TIMEOUT, free_port};
use crate::common::load::{anonymous_mib, children_seconds, cpu_seconds, rss_mib, tree};
use crate::plan::Plan;
use crate::process::Process;

/// A running program with metrics. Stopped on drop.
pub(super) struct Target {
    pub(super) name: &'static str,
    process: Process,
    pub(super) address: SocketAddr,
}

impl Target {
    /// Starts an agent with the default settings, and without clients. Waits until its metrics have at least this number of containers.
    pub(super) fn agent(
        plan: &Plan,
        name: &'static str,
        containers: usize,
        settings: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let settings = [&[("METRICS_PORT", port_text.as_str())][..], settings].concat();
        let (process, _) = agent::start(&plan.agent, &settings);
        let mut target = Self::of(name, process, port);
        let waited = target.wait(|text| containers_of(text) >= containers);
        waited.expect("the agent's metrics are not complete");
        target
    }

    /// Starts an agent without METRICS_PORT.
    pub(super) fn agent_without_metrics(plan: &Plan, name: &'static str) -> Self {
        let (process, stream) = agent::start(&plan.agent, &[]);
        let port = stream.peer_addr().unwrap().port();
        Self::of(name, process, port)
    }

    /// Starts node_exporter with its defaults. The error is the reason why it cannot be measured.
    pub(super) fn node_exporter(plan: &Plan) -> Result<Self, String> {
        let listen = |port| vec![format!("--web.listen-address=127.0.0.1:{port}")];
        Self::peer("node_exporter", &plan.node_exporter, listen)
    }

    /// Starts cAdvisor for Docker's containers. The error is the reason why it cannot be measured.
    pub(super) fn cadvisor(
        plan: &Plan,
        containers: usize,
        options: &[&str],
    ) -> Result<Self, String> {
        let arguments = |port| {
            let own = [
                "--docker_only".to_owned(),
                "--listen_ip=127.0.0.1".to_owned(),
                format!("--port={port}"),
            ];
            let options = options.iter().map(|option| (*option).to_owned());
            own.into_iter().chain(options).collect()
        };
        let mut target = Self::peer("cAdvisor, --docker_only", &plan.cadvisor, arguments)?;
        target.wait(|text| containers_of(text) >= containers)?;
        Ok(target)
    }

    fn peer(
        name: &'static str,
        program: &Path,
        arguments: impl Fn(u16) -> Vec<String>,
    ) -> Result<Self, String> {
        let port = free_port();
        let mut command = Command::new(program);
        command
            .args(arguments(port))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("no program {}", program.display()),
            _ => error.to_string(),
        })?;
        let mut target = Self::of(name, process, port);
        target.wait(|_| true)?;
        Ok(target)
    }

    fn of(name: &'static str, process: Process, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            name,
            process,
            address,
        }
    }

    /// Waits until the metrics are complete.
    fn wait(&mut self, is_complete: impl Fn(&str) -> bool) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let answer = http::get(self.address, "/metrics", "");
            if answer.is_ok_and(|answer| is_complete(&String::from_utf8_lossy(&answer.body))) {
                return Ok(());
            }
            if self.process.has_ended() {
                return Err("exited at its start".to_owned());
            }
            if started.elapsed() > TIMEOUT {
                return Err("its metrics do not become complete".to_owned());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// A scraper of this program, which other threads can use.
    pub(super) fn scraper(&self) -> Scraper {
        Scraper {
            name: self.name,
            address: self.address,
        }
    }

    /// The CPU time until now, with that of ended children, in seconds.
    pub(super) fn cpu(&self) -> f64 {
        cpu_seconds(self.process.pid()) + children_seconds(self.process.pid())
    }

    pub(super) fn rss_mib(&self) -> f64 {
        rss_mib(&tree(self.process.pid()))
    }

    pub(super) fn anonymous_mib(&self) -> f64 {
        anonymous_mib(&tree(self.process.pid()))
    }
}

/// The number of containers in a text with metrics.
fn containers_of(text: &str) -> usize {
    let seen = text
        .lines()
        .filter(|line| line.starts_with("container_last_seen{"));
    seen.filter(|line| !line.contains("name=\"\"")).count()
}

/// Asks a program for its metrics.
pub(super) struct Scraper {
    name: &'static str,
    address: SocketAddr,
}

impl Scraper {
    /// Asks for the metrics, compressed with gzip as Prometheus does. Returns the time until the final byte, in milliseconds.
    pub(super) fn scrape(&self) -> f64 {
        self.ask("gzip").took.as_secs_f64() * 1000.0
    }

    /// The size of the metrics in bytes with this compression. `None` if the program does not have the compression.
    pub(super) fn size(&self, encoding: &str) -> Option<f64> {
        let answer = self.ask(encoding);
        (answer.encoding == encoding).then_some(answer.body.len() as f64)
    }

    fn ask(&self, encoding: &str) -> http::Answer {
        let answer = http::get(self.address, "/metrics", encoding);
        answer.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}
