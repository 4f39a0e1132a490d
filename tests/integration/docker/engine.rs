//! Docker engines: the machine's own, and private ones that a test may stop.

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

/// The label on every container that tests make; its value is the process id of the test that made it.
pub(crate) const LABEL: &str = "system-agent-test";
/// The image of every container here: a static busybox.
pub(crate) const IMAGE: &str = "system-agent-test";

/// Where the machine's own engine listens.
pub(crate) const LOCAL_SOCKET: &str = "/var/run/docker.sock";

/// How long an engine may take to start or to stop.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);

/// An engine, by its socket; driven with Docker's own client.
#[derive(Clone)]
pub(crate) struct Engine {
    host: String,
}

impl Engine {
    /// The machine's own engine, with [`IMAGE`], and without what killed test runs have left behind.
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

    /// Its address, as `DOCKER_HOST` takes it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The names of the containers that run, sorted.
    pub(crate) fn running(&self) -> Vec<String> {
        let names = self.docker(["ps", "--format", "{{.Names}}"]);
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Runs Docker's client; fails the test if that fails. Yields what it printed, without the last newline.
    pub(crate) fn docker<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let output = self.try_docker(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker: {stderr}");
        let stdout = String::from_utf8(output.stdout).expect("docker prints UTF-8");
        stdout.trim_end().to_owned()
    }

    /// Runs Docker's client to its end, whatever that is.
    pub(crate) fn try_docker<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Output {
        // Docker's client waits for ever for an engine that hangs.
        Command::new("timeout")
            .arg(ENGINE_PATIENCE.as_secs().to_string())
            .arg("docker")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", &self.host)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("Docker's client (Debian: docker.io) starts")
    }

    /// What `docker inspect` says of a container.
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
        serde_json::from_str(&text).expect("docker inspect prints JSON")
    }

    /// Whether it answers.
    fn answers(&self) -> bool {
        self.try_docker(["version"]).status.success()
    }

    /// Makes [`IMAGE`] unless it is there.
    fn ensure_image(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/image.sh");
        let made = Command::new(script)
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", &self.host)
            .output()
            .expect("tests/setup/image.sh starts");
        let stderr = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "no test image: {stderr}");
    }

    /// Removes the containers of test processes that are no more: they would disturb every later measurement.
    fn remove_orphans(&self) {
        let filter = format!("label={LABEL}");
        let format = format!("{{{{.ID}}}} {{{{.Label \"{LABEL}\"}}}}");
        let all = self.docker(["ps", "-a", "--filter", &filter, "--format", &format]);
        for line in all.lines() {
            let (id, owner) = line.split_once(' ').expect("an id and an owner");
            if !Path::new("/proc").join(owner).exists() {
                self.docker(["rm", "-f", "-v", id]);
            }
        }
    }
}

/// An engine of the test's own, which it may stop, start and freeze. Ends with it, with all that it made.
pub(crate) struct PrivateEngine {
    engine: Engine,
    daemon: Option<Child>,
    folder: TempDir,
    /// Further options of dockerd.
    options: Vec<&'static str>,
}

impl PrivateEngine {
    /// Prepares one, but does not start it.
    pub(crate) fn prepare() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can start an engine: run as root, or leave the Docker tests out with SKIP_DOCKER=1"
        );
        let folder = TempDir::new().expect("a temporary folder");
        let engine = Engine::at(&folder.path().join("docker.sock"));
        Self {
            engine,
            daemon: None,
            folder,
            options: Vec::new(),
        }
    }

    /// With another option of dockerd.
    #[allow(dead_code, reason = "tests/faults does not")]
    pub(crate) fn with(mut self, option: &'static str) -> Self {
        self.options.push(option);
        self
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    /// A place for another file, removed with it.
    pub(crate) fn place(&self, file: &str) -> PathBuf {
        self.path(file)
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        let log = self.path("dockerd.log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        // Debian's daemons are in sbin, which is not on every PATH.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        // A containerd that already runs on this machine may serve this engine too: its names must not meet others'.
        let namespace = format!("system-agent-test-{}", std::process::id());
        // In a network namespace of its own, or --bridge=none would remove the bridge of the machine's engine.
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
            .expect("dockerd (Debian: docker.io) starts");
        self.daemon = Some(daemon);
        let answers = || self.engine.answers().then_some(());
        if wait::within(ENGINE_PATIENCE, answers).is_none() {
            panic!("the private dockerd does not answer:\n{}", self.log());
        }
    }

    /// Starts it, with [`IMAGE`].
    pub(crate) fn start_with_image(&mut self) {
        self.start();
        self.engine.ensure_image();
    }

    /// Stops it, and with it its containers, and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut daemon = self.daemon.take().expect("it runs");
        let ended = || daemon.try_wait().expect("a child of ours");
        if wait::within(ENGINE_PATIENCE, ended).is_none() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            panic!("the private dockerd ignored SIGTERM:\n{}", self.log());
        }
    }

    /// Kills it, which leaves it no time for anything, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.daemon.take().expect("it runs").wait();
    }

    /// Makes it hang for as long as the guard lives: its socket still takes connections, but nobody answers.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        self.signal(Signal::SIGSTOP);
        Frozen(self)
    }

    fn signal(&self, signal: Signal) {
        let daemon = self.daemon.as_ref().expect("it runs");
        let pid = i32::try_from(daemon.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it still runs");
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

/// An engine that hangs. It wakes up on drop.
pub(crate) struct Frozen<'e>(&'e PrivateEngine);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGCONT);
    }
}
