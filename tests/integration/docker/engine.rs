//! Docker engines: the machine's own engine, and private engines that a test can stop.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::wait;

/// The label on every container of the tests. The value of the label is the process id of the test that made the container.
pub(crate) const LABEL: &str = "system-agent-test";
/// The image of every container: a static busybox.
pub(crate) const IMAGE: &str = "system-agent-test";

/// The socket of the machine's own engine.
pub(crate) const LOCAL_SOCKET: &str = "/var/run/docker.sock";

/// Timeout for the start and the stop of an engine.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(60);

/// An engine, identified by its socket. Tests control it with Docker's own client.
#[derive(Clone)]
pub(crate) struct Engine {
    host: String,
}

impl Engine {
    /// Returns the machine's own engine, which has [`IMAGE`]. Removes containers that killed test runs left behind.
    pub(crate) fn local() -> &'static Self {
        static LOCAL: OnceLock<Engine> = OnceLock::new();
        LOCAL.get_or_init(|| {
            let engine = Self::at(Path::new(LOCAL_SOCKET));
            engine.ensure_image();
            engine.remove_orphans();
            engine
        })
    }

    fn at(socket: &Path) -> Self {
        let host = format!("unix://{}", socket.display());
        Self { host }
    }

    /// The engine's address in the format of `DOCKER_HOST`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The names of the running containers, sorted.
    pub(crate) fn running(&self) -> Vec<String> {
        let names = self.docker(["ps", "--format", "{{.Names}}"]);
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Runs Docker's client and fails the test if the client fails. Returns the output without the final newline.
    pub(crate) fn docker<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let output = self.try_docker(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker: {stderr}");
        let stdout = String::from_utf8(output.stdout).expect("the output of docker is not UTF-8");
        stdout.trim_end().to_owned()
    }

    /// Runs Docker's client and returns its result, also when the client fails.
    pub(crate) fn try_docker<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Output {
        // Docker's client waits without limit when the engine hangs.
        Command::new("timeout")
            .arg(ENGINE_TIMEOUT.as_secs().to_string())
            .arg("docker")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", &self.host)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("cannot start Docker's client (Debian package docker.io)")
    }

    /// The output of `docker inspect` for a container.
    pub(crate) fn inspect(&self, container: &str) -> Value {
        let format = "{{json .}}";
        let text = self.docker([
            "inspect",
            "--type",
            "container",
            "--format",
            format,
            container,
        ]);
        serde_json::from_str(&text).expect("the output of docker inspect is not JSON")
    }

    /// Whether the engine answers.
    fn answers(&self) -> bool {
        self.try_docker(["version"]).status.success()
    }

    /// Makes [`IMAGE`] if the engine does not have it.
    fn ensure_image(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/image.sh");
        let made = Command::new(script)
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", &self.host)
            .output()
            .expect("cannot start tests/setup/image.sh");
        let stderr = String::from_utf8_lossy(&made.stderr);
        assert!(
            made.status.success(),
            "the test image cannot be made: {stderr}"
        );
    }

    /// Removes the containers of test processes that have ended. Such containers would disturb later measurements.
    fn remove_orphans(&self) {
        let filter = format!("label={LABEL}");
        let format = format!("{{{{.ID}}}} {{{{.Label \"{LABEL}\"}}}}");
        let all = self.docker(["ps", "-a", "--filter", &filter, "--format", &format]);
        for line in all.lines() {
            let (id, owner) = line.split_once(' ').expect("expected an id and an owner");
            if !Path::new("/proc").join(owner).exists() {
                self.docker(["rm", "-f", "-v", id]);
            }
        }
    }
}

/// A private engine that a test can start, stop and freeze. On drop its containers and files are removed, and it stops.
pub(crate) struct PrivateEngine {
    engine: Engine,
    daemon: Option<Child>,
    folder: TempDir,
    /// Further options of dockerd.
    options: Vec<&'static str>,
}

impl PrivateEngine {
    /// Prepares a private engine but does not start it.
    pub(crate) fn prepare() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can start an engine: run the tests as root, or skip the Docker tests with SKIP_DOCKER=1"
        );
        let folder = TempDir::new().expect("cannot make a temporary folder");
        let engine = Engine::at(&folder.path().join("docker.sock"));
        Self {
            engine,
            daemon: None,
            folder,
            options: Vec::new(),
        }
    }

    /// Adds an option of dockerd.
    #[allow(dead_code, reason = "tests/faults does not call it")]
    pub(crate) fn with(mut self, option: &'static str) -> Self {
        self.options.push(option);
        self
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    /// A path for another file in the engine's folder. The folder is removed with the engine.
    pub(crate) fn place(&self, file: &str) -> PathBuf {
        self.path(file)
    }

    /// Starts the engine and waits until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs already");
        let log = self.path("dockerd.log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        // Debian installs the daemons in sbin, which is not on every PATH.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        // If a containerd already runs on this machine, this engine uses it. Own namespaces in containerd avoid conflicts of
        // names.
        let namespace = format!("system-agent-test-{}", std::process::id());
        // dockerd runs in its own network namespace. In the host's network namespace, `--bridge=none` would remove the bridge of
        // the machine's engine.
        let daemon = Command::new("unshare")
            .args(["--net", "dockerd"])
            .env("PATH", path)
            .arg(format!("--host={}", self.engine.host))
            .arg(option("data-root", "data"))
            .arg(option("exec-root", "exec"))
            .arg(option("pidfile", "dockerd.pid"))
            .arg(format!("--containerd-namespace={namespace}"))
            .arg(format!(
                "--containerd-plugins-namespace={namespace}-plugins"
            ))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cannot start dockerd (Debian package docker.io)");
        self.daemon = Some(daemon);
        let answers = || self.engine.answers().then_some(());
        if wait::within(ENGINE_TIMEOUT, answers).is_none() {
            panic!("the private dockerd does not answer:\n{}", self.log());
        }
    }

    /// Starts the engine and makes [`IMAGE`].
    pub(crate) fn start_with_image(&mut self) {
        self.start();
        self.engine.ensure_image();
    }

    /// Stops the engine and its containers. Waits until dockerd has exited.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut daemon = self.daemon.take().expect("the engine is not running");
        let ended = || {
            daemon
                .try_wait()
                .expect("dockerd is not a child of this process")
        };
        if wait::within(ENGINE_TIMEOUT, ended).is_none() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            panic!("the private dockerd ignored SIGTERM:\n{}", self.log());
        }
    }

    /// Kills the engine, so that it cannot clean up. Waits until dockerd has exited.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self
            .daemon
            .take()
            .expect("the engine is not running")
            .wait();
    }

    /// Freezes the engine until the returned value is dropped. The socket of a frozen engine still accepts connections, but no
    /// program answers.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        self.signal(Signal::SIGSTOP);
        Frozen(self)
    }

    fn signal(&self, signal: Signal) {
        let daemon = self.daemon.as_ref().expect("the engine is not running");
        let pid = i32::try_from(daemon.id()).expect("the process id is invalid");
        kill(Pid::from_raw(pid), signal).expect("the engine has ended");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("dockerd.log")).unwrap_or_default()
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        let containers = self.engine.try_docker(["ps", "-aq"]).stdout;
        let containers = String::from_utf8_lossy(&containers);
        let remove = ["rm", "-f", "-v"].into_iter();
        self.engine
            .try_docker(remove.chain(containers.split_whitespace()));
        self.stop();
    }
}

/// A frozen engine. On drop the engine continues.
pub(crate) struct Frozen<'e>(&'e PrivateEngine);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGCONT);
    }
}
