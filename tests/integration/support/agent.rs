//! The agent as a child process. The agent gets exactly the environment variables that the test sets. The harness collects the
//! agent's output. On drop it kills the agent and searches the output for the API key.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Client, DEADLINE, Lines, net, wait};

/// The API key of every agent, unless the test sets another one.
pub(crate) const KEY: &str = "kQ7zX2vLp9Rt4WmB8sNd";

/// If the output contains this number of consecutive characters of a key, the key has leaked.
const LEAK: usize = 6;

/// An agent that is not started yet: its arguments and its whole environment.
#[derive(Clone)]
pub(crate) struct Launch {
    launcher: Vec<OsString>,
    binary: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    secrets: Vec<String>,
}

impl Launch {
    /// The daemon on a free port of 127.0.0.1, with Docker disabled and with [`KEY`]. The only other variable is `PATH`.
    pub(crate) fn new() -> Self {
        let launch = Self {
            launcher: Vec::new(),
            binary: binary(),
            arguments: Vec::new(),
            environment: Vec::new(),
            secrets: Vec::new(),
        };
        launch
            .var("PATH", std::env::var_os("PATH").unwrap_or_default())
            .var("API_KEY", KEY)
            .var("SOCKET_ADDRESS", "127.0.0.1")
            .var("SOCKET_PORT", "0")
            .var("DOCKER_ENABLED", "false")
    }

    /// Sets one environment variable and replaces an earlier value.
    pub(crate) fn var(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self = self.without(name.as_ref());
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push((name, value));
        self
    }

    /// Sets an environment variable, unless it is set.
    pub(crate) fn var_if_unset(self, name: &str, value: &str) -> Self {
        match self.environment.iter().any(|(set, _)| set == name) {
            true => self,
            false => self.var(name, value),
        }
    }

    /// Sets several environment variables.
    pub(crate) fn vars(self, variables: &[(&str, &str)]) -> Self {
        variables
            .iter()
            .fold(self, |launch, (name, value)| launch.var(name, value))
    }

    /// Leaves one environment variable unset.
    pub(crate) fn without(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.retain(|(set, _)| set != name.as_ref());
        self
    }

    /// Appends command line arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(|a| a.as_ref().to_owned());
        self.arguments.extend(arguments);
        self
    }

    /// Starts this copy of the binary instead of the built one.
    pub(crate) fn copy(mut self, binary: &Path) -> Self {
        self.binary = binary.into();
        self
    }

    /// Starts the agent through another command, e.g. `nsenter`. The binary's path and arguments follow that command.
    /// The command must end when the agent ends.
    pub(crate) fn launched_by<A: AsRef<OsStr>>(
        mut self,
        launcher: impl IntoIterator<Item = A>,
    ) -> Self {
        let launcher = launcher.into_iter().map(|a| a.as_ref().to_owned());
        self.launcher.extend(launcher);
        self
    }

    /// Adds a text that the agent must never print, such as the content of an `API_KEY_FILE`. The value of
    /// `API_KEY` is always such a text.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    /// Starts the daemon and waits until its log contains the address on which it listens. The log must have `LOG_FORMAT=json`,
    /// and `RUST_LOG` must be `info` or finer. With other settings use [`Launch::start_on`].
    pub(crate) fn start(self) -> Agent {
        let mut agent = self.spawn();
        let listening = agent.event("listening");
        agent.bound = listening
            .text("address")
            .parse()
            .expect("the event has no valid address");
        agent
    }

    /// Starts the daemon on `port` and waits until a socket listens on that port.
    pub(crate) fn start_on(self, port: u16) -> Agent {
        let mut agent = self.var("SOCKET_PORT", port.to_string()).spawn();
        agent.bound.set_port(port);
        let listens = || net::listens(port).then_some(());
        if wait::within(DEADLINE, listens).is_none() {
            panic!("nothing listens on port {port}:\n{}", agent.output());
        }
        agent
    }

    /// Starts the binary without waiting for anything.
    pub(crate) fn spawn(self) -> Agent {
        let everywhere = launcher_of_all();
        let launchers = self.launcher.iter().chain(&everywhere);
        let command: Vec<_> = launchers.chain([&self.binary]).collect();
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot start the agent's binary");
        let stdout = Lines::collect(child.stdout.take().expect("the output is not piped"));
        let stderr = Lines::collect(child.stderr.take().expect("the output is not piped"));
        Agent {
            bound: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            secrets: self.all_secrets(),
            child,
            stdout,
            stderr,
        }
    }

    /// Runs the binary until it exits.
    pub(crate) fn run(self) -> Finished {
        self.run_within(DEADLINE)
    }

    /// Runs the binary until it exits, which must happen before the deadline.
    pub(crate) fn run_within(self, deadline: Duration) -> Finished {
        let mut agent = self.spawn();
        let status = agent.exit(deadline);
        agent.collect_output();
        Finished {
            status,
            stdout: agent.stdout.all(),
            stderr: agent.stderr.all(),
        }
    }

    /// The texts that this agent must not print. A key shorter than [`LEAK`] characters is a leak only as a whole.
    fn all_secrets(&self) -> Vec<String> {
        let keys = self
            .environment
            .iter()
            .filter(|(name, _)| name == "API_KEY");
        let keys = keys.filter_map(|(_, value)| value.to_str().map(str::to_owned));
        keys.chain(self.secrets.iter().cloned())
            .filter(|key| !key.is_empty())
            .collect()
    }
}

/// The binary that this test run starts: the built one, or a binary of a release. See release/test-foreign.sh.
fn binary() -> OsString {
    let built = || env!("CARGO_BIN_EXE_system-agent").into();
    std::env::var_os("TEST_BINARY").unwrap_or_else(built)
}

/// The command through which this test run starts every agent. See tests/setup/confined.sh.
fn launcher_of_all() -> Vec<OsString> {
    let launcher = std::env::var("TEST_LAUNCHER").unwrap_or_default();
    launcher.split_whitespace().map(OsString::from).collect()
}

/// The result of a command that has exited.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit status.
    pub(crate) status: ExitStatus,
    /// The lines of standard output.
    pub(crate) stdout: Vec<String>,
    /// The lines of standard error.
    pub(crate) stderr: Vec<String>,
}

impl Finished {
    /// The exit code. Fails the test if a signal ended the command.
    pub(crate) fn code(&self) -> i32 {
        let code = self.status.code();
        code.unwrap_or_else(|| panic!("a signal ended the command: {self:?}"))
    }
}

/// A running agent. Killed on drop.
pub(crate) struct Agent {
    child: Child,
    bound: SocketAddr,
    secrets: Vec<String>,
    stdout: Lines,
    stderr: Lines,
}

impl Agent {
    /// Starts [`Launch::new`] with these additional variables and waits until the agent listens.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Launch::new().vars(variables).start()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port on which the agent listens.
    pub(crate) fn port(&self) -> u16 {
        self.bound.port()
    }

    /// The address to which clients connect. If the agent listens on all addresses, this is the loopback address.
    pub(crate) fn address(&self) -> SocketAddr {
        let ip = match self.bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.port())
    }

    /// A new connection on which nothing has been sent yet.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// A new connection on which [`KEY`] has been sent.
    pub(crate) fn login(&self) -> Client {
        let mut client = self.connect();
        client.send(format!("{KEY}\n"));
        client
    }

    /// Waits for the first log event with this message.
    pub(crate) fn event(&self, message: &str) -> Event {
        self.event_where(message, |_| true)
    }

    /// Waits for the first log event with this message for which `fits` returns true.
    pub(crate) fn event_where(&self, message: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let wanted = |event: &Event| event.message() == message && fits(event);
        self.stderr
            .find(0, DEADLINE, |line| Event::parse(line).filter(&wanted))
            .unwrap_or_else(|| panic!("there is no matching event {message:?}:\n{}", self.output()))
    }

    /// Every log event so far with this message.
    pub(crate) fn events(&self, message: &str) -> Vec<Event> {
        let lines = self.stderr.all();
        let events = lines.iter().filter_map(|line| Event::parse(line));
        events.filter(|event| event.message() == message).collect()
    }

    /// Every log event so far whose field has this text.
    pub(crate) fn events_with(&self, field: &str, text: &str) -> Vec<Event> {
        let lines = self.stderr.all();
        let events = lines.iter().filter_map(|line| Event::parse(line));
        events.filter(|event| event.0[field] == text).collect()
    }

    /// The agent's log: the lines of its standard error so far.
    pub(crate) fn log(&self) -> Lines {
        self.stderr.clone()
    }

    /// The lines of the agent's standard output so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("the process id is too large");
        kill(Pid::from_raw(pid), signal).expect("the agent has ended");
    }

    /// Waits until the agent exits. Fails the test if the agent does not exit before the deadline.
    pub(crate) fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        let ended = || child.try_wait().expect("cannot wait for the agent");
        match wait::within(deadline, ended) {
            Some(status) => status,
            None => panic!(
                "the agent still runs after {deadline:?}:\n{}",
                self.output()
            ),
        }
    }

    /// Whether the agent still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("cannot wait for the agent")
            .is_none()
    }

    /// The peak of the agent's resident memory in bytes (`VmHWM`).
    pub(crate) fn peak_rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the agent has ended");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("/proc has no valid VmHWM")
            * 1024
    }

    /// Everything that the agent printed, for the messages of failing tests.
    fn output(&self) -> String {
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        format!("stdout: {stdout:#?}\nstderr: {stderr:#?}")
    }

    fn collect_output(&self) {
        assert!(
            self.stdout.ended(DEADLINE),
            "the agent's standard output is still open"
        );
        assert!(
            self.stderr.ended(DEADLINE),
            "the agent's standard error is still open"
        );
    }

    /// The first secret, or part of a secret, in the output.
    fn leak(&self) -> Option<String> {
        let printed = [self.stdout.all(), self.stderr.all()].concat().join("\n");
        let parts = |secret: &String| -> Vec<String> {
            let characters: Vec<char> = secret.chars().collect();
            let length = characters.len().min(LEAK);
            characters.windows(length).map(String::from_iter).collect()
        };
        let mut parts = self.secrets.iter().flat_map(parts);
        parts.find(|part| printed.contains(part.as_str()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Killing fails if the agent has already ended, which is not an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("agent {}:\n{}", self.bound, self.output());
            return;
        }
        self.collect_output();
        if let Some(part) = self.leak() {
            panic!(
                "the agent printed {part:?}, which is part of a secret:\n{}",
                self.output()
            );
        }
    }
}

/// One event of the agent's log: a JSON object with `timestamp`, `level`, `target`, `message` and the event's own fields.
#[derive(Clone, Debug)]
pub(crate) struct Event(pub(crate) Value);

impl Event {
    /// `None` for a line that is not a JSON object.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        event.is_object().then_some(Self(event))
    }

    /// The message. Empty if the event has no message.
    pub(crate) fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }

    /// `INFO`, `WARN` and so on.
    pub(crate) fn level(&self) -> &str {
        self.text("level")
    }

    /// The value of a field that must be a string.
    pub(crate) fn text(&self, field: &str) -> &str {
        let value = self.0[field].as_str();
        value.unwrap_or_else(|| panic!("the event has no text {field:?}: {}", self.0))
    }

    /// The value of a field that must be a whole number.
    pub(crate) fn number(&self, field: &str) -> u64 {
        let value = self.0[field].as_u64();
        value.unwrap_or_else(|| panic!("the event has no number {field:?}: {}", self.0))
    }
}
