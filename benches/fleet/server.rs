//! The server: Debian's nats-server, on the loopback, with nothing set that matters here but where it listens.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::agent::free_port;
use crate::common::process::Process;
use crate::plan::Plan;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// One that runs. Ended on drop.
pub(crate) struct Server {
    process: Process,
    port: u16,
}

impl Server {
    pub(crate) fn start(plan: &Plan) -> Self {
        let port = free_port();
        let configuration = plan.directory.path().join("hub.conf");
        fs::write(&configuration, format!("listen: \"127.0.0.1:{port}\"\n")).unwrap();
        let mut command = command();
        command.arg("--config").arg(configuration);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process =
            Process::start(&mut command).expect("nats-server (Debian: nats-server) starts");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "nats-server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { process, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// What it calls itself.
pub(crate) fn version() -> String {
    let output = command()
        .arg("--version")
        .output()
        .expect("nats-server (Debian: nats-server) starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn command() -> Command {
    let mut command = Command::new("nats-server");
    // Daemons live in sbin, which is not on every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin"));
    command
}
