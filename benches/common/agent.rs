//! Starts the agent's release binary.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::process::Process;

pub(crate) const KEY: &str = "benchmark-key-of-no-worth";
/// Timeout for the agent's first complete snapshot.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A user id without an account on the host.
const USER: &str = "64321";
const SOCKET: &str = "/var/run/docker.sock";

/// Returns the command that starts the agent as the package installs it: with a user of its own, in the group of Docker's socket,
/// and with only the capability that the unit grants.
pub(crate) fn as_installed(binary: &Path) -> Command {
    let group = fs::metadata(SOCKET)
        .expect("cannot find Docker's socket")
        .gid();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--no-new-privs"])
        .args(["--groups", &group.to_string()])
        .args(["--inh-caps", "-all,+dac_read_search"])
        .args(["--ambient-caps", "-all,+dac_read_search"])
        .args(["--bounding-set", "-all,+dac_read_search"])
        .arg(binary);
    command
}

/// Starts the agent on the loopback interface with only these settings. Returns the process and a first connection to the agent.
pub(crate) fn start(binary: &Path, settings: &[(&str, &str)]) -> (Process, TcpStream) {
    start_by(Command::new(binary), settings)
}

/// Does the same as [`start`], but `command` starts the agent. The command's process must become the agent's process.
pub(crate) fn start_by(mut command: Command, settings: &[(&str, &str)]) -> (Process, TcpStream) {
    let port = free_port();
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .envs([("API_KEY", KEY), ("SOCKET_ADDRESS", "127.0.0.1")])
        .env("SOCKET_PORT", port.to_string())
        .envs(settings.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let started = Instant::now();
    let mut process = Process::start(&mut command).expect("cannot start BENCH_AGENT");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    loop {
        if let Ok(stream) = TcpStream::connect(address) {
            return (process, stream);
        }
        assert!(!process.has_ended(), "the agent exited at its start");
        assert!(started.elapsed() < TIMEOUT, "nothing listens on {address}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
