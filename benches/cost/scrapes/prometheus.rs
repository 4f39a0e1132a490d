//! A real Prometheus server that scrapes the agent and cAdvisor.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use super::http;
use crate::common::agent::{TIMEOUT, free_port};
use crate::process::Process;

/// A series of a query's answer: its labels, and its value.
pub(super) type Series = (std::collections::BTreeMap<String, String>, f64);

/// A server that scrapes each job every second, and evaluates rules every second. Stopped on drop.
pub(super) struct Prometheus {
    _process: Process,
    address: SocketAddr,
    /// The directory of the server's configuration and data.
    _folder: TempDir,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    metric: std::collections::BTreeMap<String, String>,
    /// The time and the value. The value is a text.
    value: (f64, String),
}

impl Prometheus {
    /// Starts a server. The error is the reason why it cannot be started.
    pub(super) fn start(jobs: &[(&str, SocketAddr)], rules: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let jobs = jobs.iter().map(|(name, target)| {
            format!("  - {{ job_name: {name}, static_configs: [{{ targets: ['{target}'], labels: {{ instance: here }} }}] }}\n")
        });
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\nscrape_configs:\n{}",
            jobs.collect::<String>()
        );
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).map_err(|error| error.to_string())?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut command)
            .map_err(|error| format!("cannot start prometheus: {error}"))?;
        let started = Instant::now();
        while http::get(address, "/-/ready", "").is_err() {
            if process.has_ended() || started.elapsed() > TIMEOUT {
                return Err("prometheus does not become ready".to_owned());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(Self {
            _process: process,
            address,
            _folder: folder,
        })
    }

    /// Runs an instant query that returns a vector.
    pub(super) fn query(&self, query: &str) -> Vec<Series> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let answer = http::get(self.address, &path, "");
        let answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
        let answer: Answer = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{query}: no vector: {error}"));
        let samples = answer.data.result.into_iter();
        let number = |text: String| text.parse().expect("the value is a number");
        samples
            .map(|one| (one.metric, number(one.value.1)))
            .collect()
    }
}
