//! The servers that are compared: the agent, and the floor that sends what was recorded of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::common::agent::{self, KEY};
use crate::crowd::{Crowd, Spec};
use crate::floor;
use crate::load::rss_mib;
use crate::plan::Plan;
use crate::process::Process;
use crate::snapshots::Kind;
use crate::way::Way;

/// A server that runs. Ended on drop.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
    way: Way,
    certificate: Option<std::path::PathBuf>,
}

impl Server {
    /// The agent, which has not sent anything yet. Further settings go before those of the kind.
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
        let mut process = Process::start(&mut command).expect("this program starts");
        let mut address = String::new();
        let stdout = process.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut address).unwrap();
        Self {
            process,
            address: address
                .trim()
                .parse()
                .expect("the floor says where it listens"),
            way,
            certificate: identity.map(|identity| identity.certificate.clone()),
        }
    }

    /// What clients of it are.
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

    /// Memory with as many clients as there are, in KiB.
    pub(crate) fn rss_kib(&self) -> f64 {
        rss_mib(&[self.process.pid()]) * 1024.0
    }

    /// Memory before any client stays: with one that has been served and has left.
    pub(crate) fn rss_kib_of_empty(&self) -> Result<f64, String> {
        drop(Crowd::gather(self.clients(1))?);
        thread::sleep(Duration::from_millis(500));
        Ok(self.rss_kib())
    }

    /// CPU time that all of its threads have used, user's and system's, in seconds. By its clock: /proc counts in
    /// hundredths of a second.
    pub(crate) fn cpu(&self) -> f64 {
        let pid = Pid::from_raw(i32::try_from(self.process.pid()).unwrap());
        let clock = ClockId::pid_cpu_clock_id(pid).expect("it runs");
        Duration::from(clock.now().expect("it runs")).as_secs_f64()
    }
}

/// What a client sends that has wishes.
pub(crate) fn login(options: &str) -> String {
    format!("{KEY} {options}\n")
}
