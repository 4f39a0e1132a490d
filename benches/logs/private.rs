//! A Docker engine that belongs to the benchmark, so that its dockerd can be killed while its containers continue to run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::process::Process;

/// Timeout for a start of the engine, and for each call of Docker's client.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The engine. On drop its containers and its files are removed.
pub(crate) struct PrivateEngine {
    dockerd: Option<Process>,
    /// A separate process. A containerd that dockerd has started would continue after a kill of dockerd, and the next dockerd
    /// could not start.
    containerd: Option<Process>,
    folder: TempDir,
}

impl PrivateEngine {
    /// Starts the engine, and makes the image of the containers.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file).display().to_string();
        let configuration = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{}\"\n",
            path("containerd"),
            path("containerd-state"),
            path("containerd.sock"),
            path("opt")
        );
        fs::write(path("containerd.toml"), configuration).unwrap();
        let mut containerd = Command::new("containerd");
        containerd.args(["--config", &path("containerd.toml")]);
        let containerd = run(&mut containerd, &folder.path().join("containerd.log"));
        let mut engine = Self {
            dockerd: None,
            containerd: Some(containerd),
            folder,
        };
        engine.start_dockerd();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/image.sh");
        let mut image = Command::new(script);
        let made = image.env("DOCKER_HOST", engine.host()).output().unwrap();
        let error = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "cannot make the image: {error}");
        engine
    }

    /// The address of the engine, as in `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Starts dockerd and waits until it answers. Its containers continue to run when it ends (`--live-restore`).
    pub(crate) fn start_dockerd(&mut self) {
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        // In the host's network namespace, `--bridge=none` would remove the bridge of the machine's engine.
        let mut dockerd = Command::new("unshare");
        dockerd.args(["--net", "dockerd", "--live-restore", "--bridge=none"]);
        dockerd.args(["--iptables=false", "--ip6tables=false"]);
        dockerd.arg(format!("--host={}", self.host()));
        dockerd.args([
            option("containerd", "containerd.sock"),
            option("data-root", "data"),
            option("exec-root", "exec"),
            option("pidfile", "dockerd.pid"),
        ]);
        self.dockerd = Some(run(&mut dockerd, &self.path("dockerd.log")));
        let began = Instant::now();
        while !self.try_docker(&["version"]).status.success() {
            let log = || fs::read_to_string(self.path("dockerd.log")).unwrap_or_default();
            assert!(
                began.elapsed() < TIMEOUT,
                "the private engine does not answer:\n{}",
                log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills dockerd with SIGKILL.
    pub(crate) fn kill_dockerd(&mut self) {
        let mut dockerd = self.dockerd.take().expect("dockerd does not run");
        dockerd.0.kill().unwrap();
        dockerd.0.wait().unwrap();
    }

    /// Runs Docker's client. Returns the output without the final line feed.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    fn try_docker(&self, arguments: &[&str]) -> Output {
        // Docker's client waits without limit when the engine hangs.
        let mut client = Command::new("timeout");
        client.arg(TIMEOUT.as_secs().to_string()).arg("docker");
        client
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", self.host())
            .args(arguments)
            .stdin(Stdio::null());
        client.output().expect("cannot start Docker's client")
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if self.dockerd.is_none() && !thread::panicking() {
            self.start_dockerd();
        }
        let all = self.try_docker(&["ps", "--all", "--quiet"]).stdout;
        for container in String::from_utf8_lossy(&all).lines() {
            self.try_docker(&["rm", "--force", "--volumes", container]);
        }
        self.dockerd = None;
        self.containerd = None;
        // A dockerd that was killed leaves mounts behind, which prevent the removal of the folder.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(self.folder.path())) {
            let _ = Command::new("umount").args(["--lazy", place]).status();
        }
    }
}

/// Starts a daemon that writes its log to a file. Debian installs daemons in sbin, which is not in every PATH.
fn run(daemon: &mut Command, log: &Path) -> Process {
    let log = File::options().append(true).create(true).open(log).unwrap();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    daemon.env("PATH", path).stdout(Stdio::null()).stderr(log);
    Process::start(daemon).expect("cannot start the daemon (Debian package docker.io)")
}
