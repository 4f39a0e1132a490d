//! The agent as a child process: started with exactly the environment a test gives it, its output collected,
//! killed when the test lets go of it. Whatever it printed is then searched for its API key.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Client, Lines, PATIENCE, net, wait};

/// The API key of every agent that is not given another.
pub(crate) const KEY: &str = "kQ7zX2vLp9Rt4WmB8sNd";

/// So many characters of a key in a row, anywhere in the output, are a leak.
const LEAK: usize = 6;

/// An agent about to be started: its arguments and its whole environment.
#[derive(Clone)]
pub(crate) struct Launch {
    launcher: Vec<OsString>,
    binary: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    secrets: Vec<String>,
}

impl Launch {
    /// The daemon on a free port of 127.0.0.1, without Docker, with [`KEY`]; nothing else but `PATH` is set.
    pub(crate) fn new() -> Self {
        let launch = Self {
            launcher: Vec::new(),
            binary: env!("CARGO_BIN_EXE_system-agent").into(),
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

    /// Sets one environment variable, in place of an earlier value.
    pub(crate) fn var(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self = self.without(name.as_ref());
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push((name, value));
        self
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

    /// Starts a copy of the binary.
    pub(crate) fn copy(mut self, binary: &Path) -> Self {
        self.binary = binary.into();
        self
    }

    /// Starts it by way of another command, to which the binary's path and its arguments are appended, and which
    /// must not outlive it.
    pub(crate) fn by<A: AsRef<OsStr>>(mut self, launcher: impl IntoIterator<Item = A>) -> Self {
        let launcher = launcher.into_iter().map(|a| a.as_ref().to_owned());
        self.launcher.extend(launcher);
        self
    }

    /// Names one more text that must never be printed, such as the content of an `API_KEY_FILE`. The value of
    /// `API_KEY` is one without asking.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    /// Starts the daemon and waits until its log says where it listens, which takes `LOG_FORMAT=json` and
    /// `RUST_LOG` at `info` or finer; otherwise use [`Launch::start_on`].
    pub(crate) fn start(self) -> Agent {
        let mut agent = self.spawn();
        let listening = agent.event("listening");
        agent.bound = listening.text("address").parse().expect("an address");
        agent
    }

    /// Starts the daemon on `port` and waits until that port listens.
    pub(crate) fn start_on(self, port: u16) -> Agent {
        let mut agent = self.var("SOCKET_PORT", port.to_string()).spawn();
        agent.bound.set_port(port);
        let listens = || net::listens(port).then_some(());
        if wait::within(PATIENCE, listens).is_none() {
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
            .expect("the agent's binary starts");
        let stdout = Lines::collect(child.stdout.take().expect("piped"));
        let stderr = Lines::collect(child.stderr.take().expect("piped"));
        Agent {
            bound: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            secrets: self.all_secrets(),
            child,
            stdout,
            stderr,
        }
    }

    /// Runs the binary to its end.
    pub(crate) fn run(self) -> Finished {
        self.run_within(PATIENCE)
    }

    /// Runs the binary to its end, which must come before the deadline.
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

    /// The texts that this agent must not print. A key of fewer characters than [`LEAK`] counts whole.
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

/// What every agent of this run is started by: see tests/setup/confined.sh.
fn launcher_of_all() -> Vec<OsString> {
    let launcher = std::env::var("TEST_LAUNCHER").unwrap_or_default();
    launcher.split_whitespace().map(OsString::from).collect()
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// The lines of its standard output.
    pub(crate) stdout: Vec<String>,
    /// The lines of its standard error.
    pub(crate) stderr: Vec<String>,
}

impl Finished {
    /// The exit status; fails the test if a signal ended the command.
    pub(crate) fn code(&self) -> i32 {
        let code = self.status.code();
        code.unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }
}

/// A running agent. Dropping it kills it.
pub(crate) struct Agent {
    child: Child,
    bound: SocketAddr,
    secrets: Vec<String>,
    stdout: Lines,
    stderr: Lines,
}

impl Agent {
    /// Starts [`Launch::new`] with these variables in addition, and waits until it listens.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Launch::new().vars(variables).start()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.bound.port()
    }

    /// Where to connect to: the address it is bound to, or the loopback address if it is bound to all.
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

    /// Waits for the first log event with this message that `fits`.
    pub(crate) fn event_where(&self, message: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let wanted = |event: &Event| event.message() == message && fits(event);
        self.stderr
            .find(0, PATIENCE, |line| Event::parse(line).filter(&wanted))
            .unwrap_or_else(|| panic!("no such event {message:?}:\n{}", self.output()))
    }

    /// Every log event so far with this message.
    pub(crate) fn events(&self, message: &str) -> Vec<Event> {
        let lines = self.stderr.all();
        let events = lines.iter().filter_map(|line| Event::parse(line));
        events.filter(|event| event.message() == message).collect()
    }

    /// Every log event so far that has this text in this field.
    pub(crate) fn events_with(&self, field: &str, text: &str) -> Vec<Event> {
        let lines = self.stderr.all();
        let events = lines.iter().filter_map(|line| Event::parse(line));
        events.filter(|event| event.0[field] == text).collect()
    }

    /// The lines of its standard error so far: its log.
    pub(crate) fn log(&self) -> Lines {
        self.stderr.clone()
    }

    /// The lines of its standard output so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the agent still runs");
    }

    /// Waits for its end, which must come before the deadline.
    pub(crate) fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        let ended = || child.try_wait().expect("a child of ours");
        match wait::within(deadline, ended) {
            Some(status) => status,
            None => panic!("still runs after {deadline:?}:\n{}", self.output()),
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// The most resident memory it ever had, in bytes (`VmHWM`).
    pub(crate) fn peak_rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") * 1024
    }

    /// Everything it printed, for messages of failing tests.
    fn output(&self) -> String {
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        format!("stdout: {stdout:#?}\nstderr: {stderr:#?}")
    }

    fn collect_output(&self) {
        assert!(self.stdout.ended(PATIENCE), "standard output stays open");
        assert!(self.stderr.ended(PATIENCE), "standard error stays open");
    }

    /// The first secret, or part of one, that the output shows.
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
        // It may have ended by itself; either way it must not be left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("agent {}:\n{}", self.bound, self.output());
            return;
        }
        self.collect_output();
        if let Some(part) = self.leak() {
            panic!("the agent printed {part:?} of its key:\n{}", self.output());
        }
    }
}

/// One event of the agent's log, in JSON: fields beside `timestamp`, `level`, `target` and `message`.
#[derive(Clone, Debug)]
pub(crate) struct Event(pub(crate) Value);

impl Event {
    /// `None` for a line that is not a JSON object.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        event.is_object().then_some(Self(event))
    }

    /// What happened; empty if the event does not say.
    pub(crate) fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }

    /// `INFO`, `WARN` and so on.
    pub(crate) fn level(&self) -> &str {
        self.text("level")
    }

    /// A field that must be there as a string.
    pub(crate) fn text(&self, field: &str) -> &str {
        let value = self.0[field].as_str();
        value.unwrap_or_else(|| panic!("no text {field:?} in {}", self.0))
    }

    /// A field that must be there as a whole number.
    pub(crate) fn number(&self, field: &str) -> u64 {
        let value = self.0[field].as_u64();
        value.unwrap_or_else(|| panic!("no number {field:?} in {}", self.0))
    }
}
