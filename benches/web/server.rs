//! The server of the page, as the package's unit starts it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agents::Agents;
use crate::browser;
use crate::common::agent::{KEY, TIMEOUT, free_port};
use crate::common::process::Process;
use crate::plan::Plan;

/// A running server. Stopped on drop.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    /// The ids of the hosts.
    pub(crate) hosts: Vec<String>,
}

impl Server {
    /// Starts the server for these agents, with a folder for the history. Returns after a snapshot of each agent has arrived.
    pub(crate) fn start(plan: &Plan, agents: &Agents, history: &Path) -> Self {
        let list = plan.directory.path().join("hosts");
        let lines = agents.addresses.iter().map(|one| format!("{one}\n"));
        fs::write(&list, lines.collect::<String>()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(&plan.binary);
        command
            .arg("web")
            .arg("--hosts")
            .arg(list)
            .env_clear()
            .envs([("API_KEY", KEY), ("MALLOC_ARENA_MAX", "1")])
            .env("WEB_ADDRESS", address.to_string())
            .env("WEB_HISTORY_FOLDER", history)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut command).expect("cannot start BENCH_AGENT");
        let started = Instant::now();
        let hosts = loop {
            assert!(!process.has_ended(), "the server exited at its start");
            if TcpStream::connect(address).is_ok()
                && let Some(hosts) = live_hosts(address, agents.addresses.len())
            {
                break hosts;
            }
            assert!(
                started.elapsed() < TIMEOUT,
                "not all hosts are live in time"
            );
            thread::sleep(Duration::from_millis(100));
        };
        Self {
            process,
            address,
            hosts,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Fails if a host is away. Without snapshots the server would cost less.
    pub(crate) fn assert_live(&self) {
        let live = live_hosts(self.address, self.hosts.len());
        assert!(live.is_some(), "not all hosts are live");
    }
}

/// Returns the ids of all hosts, if there are `count` and each one is live.
fn live_hosts(address: SocketAddr, count: usize) -> Option<Vec<String>> {
    let answer = browser::get(address, "/api/v1/hosts", false);
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    let hosts = list["hosts"].as_array().unwrap();
    let live = hosts.iter().filter(|host| host["state"] == "live");
    let ids: Vec<String> = live
        .map(|host| host["id"].as_str().unwrap().to_owned())
        .collect();
    (ids.len() == count).then_some(ids)
}
