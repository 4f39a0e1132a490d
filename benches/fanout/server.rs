//! The two servers of the comparison: the agent, and the floor, which sends a recorded snapshot.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::agent::{self, KEY};
use crate::crowd::{Crowd, Spec};
use crate::floor;
use crate::load::{cpu_seconds, rss_mib};
use crate::plan::Plan;
use crate::process::Process;
use crate::snapshots::Kind;
use crate::way::Way;

/// A running server. Stopped on drop.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
    way: Way,
    certificate: Option<std::path::PathBuf>,
}

impl Server {
    /// Starts the agent. The agent has not sent anything yet. If `settings` and the settings of `kind` both set a variable,
    /// `kind` takes precedence.
    pub(crate) fn agent(
        plan: &Plan,
        kind: &Kind,
        way: Way,
        interval: Duration,
        settings: &[(&str, &str)],
    ) -> Self {
        let interval = format!("{}ms", interval.as_millis());
        let identity = (way == Way::Tls).then_some(&plan.identity);
        let mut all = vec![
            ("PUBLISH_INTERVAL", interval.as_str()),
            ("MAX_CLIENTS", "20000"),
        ];
        if let Some(identity) = identity {
            all.extend([
                ("TLS_ENABLED", "true"),
                ("TLS_CERT_FILE", identity.certificate.to_str().unwrap()),
                ("TLS_KEY_FILE", identity.key.to_str().unwrap()),
            ]);
        }
        all.extend(settings.iter().chain(&kind.settings));
        let (process, first) = agent::start(&plan.agent, &all);
        Self {
            process,
            address: first.peer_addr().unwrap(),
            way,
            certificate: identity.map(|identity| identity.certificate.clone()),
        }
    }

    pub(crate) fn floor(
        plan: &Plan,
        kind: &Kind,
        way: Way,
        interval: Duration,
        first_tick: SystemTime,
    ) -> Self {
        let identity = (way == Way::Tls).then_some(&plan.identity);
        let spec = floor::Spec {
            line: kind.recorded.clone(),
            zstd: way == Way::Zstd,
            tls: identity.cloned(),
            interval,
            first_tick,
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["floor", &serde_json::to_string(&spec).unwrap()])
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command).expect("cannot start this program");
        let mut address = String::new();
        let stdout = process.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut address).unwrap();
        Self {
            process,
            address: address
                .trim()
                .parse()
                .expect("the floor printed no valid address"),
            way,
            certificate: identity.map(|identity| identity.certificate.clone()),
        }
    }

    /// The clients of this server.
    pub(crate) fn clients(&self, clients: usize) -> Spec {
        Spec {
            address: self.address,
            clients,
            sleepers: 0,
            login: match self.way {
                Way::Zstd => login(r#"{"encoding":"zstd"}"#),
                _ => format!("{KEY}\n"),
            },
            zstd: self.way == Way::Zstd,
            certificate: self.certificate.clone(),
        }
    }

    /// The server's current memory, in KiB.
    pub(crate) fn rss_kib(&self) -> f64 {
        rss_mib(&[self.process.pid()]) * 1024.0
    }

    /// The server's memory without clients, in KiB. One client connects and leaves first, so that one-time costs are included.
    pub(crate) fn rss_kib_of_empty(&self) -> Result<f64, String> {
        drop(Crowd::gather(self.clients(1))?);
        thread::sleep(Duration::from_millis(500));
        Ok(self.rss_kib())
    }

    /// The CPU time of the server, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_seconds(self.process.pid())
    }
}

/// The line that a client with these options sends.
pub(crate) fn login(options: &str) -> String {
    format!("{KEY} {options}\n")
}
