//! Debian's nats-server on the loopback interface. The configuration of this server sets only the address.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::agent::free_port;
use crate::common::process::Process;
use crate::plan::Plan;

/// Timeout for the server to listen.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running server. Stopped on drop.
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
        let process = Process::start(&mut command)
            .expect("cannot start nats-server (Debian package nats-server)");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < TIMEOUT, "nats-server does not listen");
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

/// The output of `nats-server --version`.
pub(crate) fn version() -> String {
    let output = command()
        .arg("--version")
        .output()
        .expect("cannot start nats-server (Debian package nats-server)");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn command() -> Command {
    let mut command = Command::new("nats-server");
    // Debian installs daemons in sbin, which is not on every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin"));
    command
}
