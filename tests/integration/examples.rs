//! Tests of the example clients in every language, with a real agent.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use serial_test::parallel;

use crate::support::{Agent, Authority, DEADLINE, KEY, Launch, Lines, net, wait};

/// An example: its file in `examples/` and the program to start.
#[derive(Clone, Copy)]
struct Example {
    file: &'static str,
    program: fn() -> PathBuf,
}

const PYTHON: Example = Example {
    file: "client.py",
    program: || source("client.py"),
};
const NODE: Example = Example {
    file: "client.mjs",
    program: || source("client.mjs"),
};
const SHELL: Example = Example {
    file: "client.sh",
    program: || source("client.sh"),
};
const GO: Example = Example {
    file: "client.go",
    program: || BUILT.get_or_init(build_go).clone(),
};

const RUST: Example = Example {
    file: "client.rs",
    program: || {
        let tests = std::env::current_exe().unwrap();
        let built = tests.parent().and_then(Path::parent).unwrap();
        let client = built.join("examples/client");
        assert!(client.exists(), "run cargo build --examples first");
        client
    },
};

static BUILT: OnceLock<PathBuf> = OnceLock::new();

fn source(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    folder.join(file)
}

/// Builds the client. `go run` would hide signals and the exit status.
fn build_go() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("client-go");
    let mut go = Command::new("go");
    let status = go.arg("build").arg("-o").arg(&built);
    let status = status
        .arg(source("client.go"))
        .status()
        .expect("cannot start go");
    assert!(status.success(), "client.go does not compile");
    built
}

/// A client that is not started yet.
struct Start {
    example: Example,
    address: String,
    environment: BTreeMap<&'static str, String>,
}

impl Start {
    /// A client of the agent on this port, with the agent's key.
    fn new(example: Example, port: u16) -> Self {
        Self {
            example,
            address: format!("127.0.0.1:{port}"),
            environment: BTreeMap::from([("API_KEY", KEY.to_owned())]),
        }
    }

    fn var(mut self, name: &'static str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().to_str().unwrap().to_owned();
        self.environment.insert(name, value);
        self
    }

    fn child(&self) -> Child {
        // A shell that runs the tests in the background ignores SIGINT, and a script cannot catch a signal that was ignored when
        // the script started. So `env` restores the default action.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT");
        command.arg((self.example.program)());
        command.arg(&self.address).env_remove("API_KEY_FILE");
        command
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|why| panic!("{}: {why}", self.example.file))
    }

    fn start(self) -> Running {
        let mut child = self.child();
        Running {
            stdout: Lines::collect(child.stdout.take().unwrap()),
            stderr: Lines::collect(child.stderr.take().unwrap()),
            child,
        }
    }
}

/// A running client. Ended on drop.
struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    /// The line with this number on standard output, counted from 0.
    fn line(&self, number: usize) -> String {
        let line = self.stdout.find(number, DEADLINE, |l| Some(l.to_owned()));
        line.unwrap_or_else(|| panic!("no line {number}: {:#?}", self.stderr.all()))
    }

    /// Waits until the client has announced `count` pauses before a retry. Returns all pauses in seconds.
    fn pauses(&self, count: usize) -> Vec<f64> {
        let pauses = || -> Vec<f64> {
            let lines = self.stderr.all();
            let pauses = lines.iter().filter_map(|line| {
                let (_, wait) = line.split_once("; retry in ")?;
                wait.strip_suffix(" s")?.parse().ok()
            });
            pauses.collect()
        };
        let enough = || Some(pauses()).filter(|pauses| pauses.len() >= count);
        wait::within(DEADLINE, enough)
            .unwrap_or_else(|| panic!("fewer than {count} pauses: {:#?}", self.stderr.all()))
    }

    fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).expect("the client has ended");
    }

    /// Waits until the client and its children have ended. Returns the exit status and the lines of standard error.
    fn finish(mut self) -> (Option<i32>, Vec<String>) {
        let status = ended(&mut self.child);
        assert!(self.stdout.ended(DEADLINE) && self.stderr.ended(DEADLINE));
        (status.code(), self.stderr.all())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The shell client has child processes. On SIGTERM it ends its child processes itself.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill(pid(&self.child), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

fn ended(child: &mut Child) -> ExitStatus {
    wait::until("the client's end", DEADLINE, || child.try_wait().unwrap())
}

fn fast_agent() -> Launch {
    Launch::new().var("PUBLISH_INTERVAL", "200ms")
}

/// Asserts that a line has the form `web-1  cpu 12.5 %`, with this host's name and without containers.
fn assert_line_of_this_host(line: &str) {
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let cpu = line.strip_prefix(hostname.trim_end());
    let cpu = cpu.and_then(|rest| rest.strip_prefix("  cpu ")?.strip_suffix(" %"));
    let (whole, tenths) = cpu.and_then(|cpu| cpu.split_once('.')).expect(line);
    assert!(
        whole.parse::<u8>().is_ok_and(|whole| whole <= 100),
        "{line}"
    );
    assert!(tenths.len() == 1 && tenths.parse::<u8>().is_ok(), "{line}");
}

fn prints_a_line_for_each_snapshot(example: Example) {
    let agent = fast_agent().start();
    let client = Start::new(example, agent.port()).start();
    for number in 0..3 {
        assert_line_of_this_host(&client.line(number));
    }
    // The key can be in a file.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let start = Start::new(example, agent.port()).var("API_KEY", "");
    let client = start.var("API_KEY_FILE", &file).start();
    assert_line_of_this_host(&client.line(0));
}

/// A server sends a snapshot that is longer than any buffer, in pieces, and then nothing. The client must print the snapshot and
/// reconnect.
fn reads_long_lines_and_reconnects_after_silence(example: Example) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = Start::new(example, port).var("AGENT_TIMEOUT", "1");
    let client = start.start();
    let (mut stream, _) = listener.accept().unwrap();
    let mut hello = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    reader.read_line(&mut hello).unwrap();
    let (key, options) = hello.trim_end().split_once(' ').unwrap();
    let options: serde_json::Value = serde_json::from_str(options).unwrap();
    assert_eq!(key, KEY);
    assert_eq!(options, json!({"sections": ["system", "containers"]}));
    let container = |name, cpu| json!({"name": name, "cpu_percent": cpu});
    let snapshot = json!({
        "host": {"hostname": "web-1", "padding": "\u{2028}x".repeat(1 << 20)},
        "system": {"cpu_percent": [12.46]},
        "containers": [
            container("/db", 31.0),
            container("/idle", 0.0),
            container("/api", 140.2),
            container("/cache", 2.14),
        ],
    });
    for piece in format!("{snapshot}\n").as_bytes().chunks(1_000_003) {
        stream.write_all(piece).unwrap();
    }
    assert_eq!(
        client.line(0),
        "web-1  cpu 12.5 %  busiest: api 140.2 %, db 31.0 %, cache 2.1 %"
    );
    client.pauses(1);
    let messages = client.stderr.all();
    assert!(messages[0].contains("no snapshot for 1"), "{messages:?}");
    // The client has closed the connection and connects again.
    listener.accept().unwrap();
}

fn reconnects_with_a_growing_pause(example: Example) {
    let port = net::free_port();
    let agent = fast_agent().start_on(port);
    let client = Start::new(example, port).start();
    client.line(0);
    let crash = |agent: Agent| drop(agent);
    crash(agent);
    let pauses = client.pauses(2);
    assert!(
        pauses[0] <= 1.0 && pauses[1] > 1.0 && pauses[1] <= 2.0,
        "{pauses:?}"
    );
    let before = (client.stdout.all().len(), pauses.len());
    let agent = fast_agent().start_on(port);
    assert_line_of_this_host(&client.line(before.0));
    // After a snapshot the back-off starts again.
    let before = client.pauses(before.1).len();
    crash(agent);
    let pauses = client.pauses(before + 1);
    assert!(pauses[before] <= 1.0, "{pauses:?}");
}

fn exits_on_a_wrong_key(example: Example) {
    let agent = Launch::new().start();
    let start = Start::new(example, agent.port()).var("API_KEY", "not-the-key-of-this-agent");
    let client = start.start();
    let stdout = client.stdout.clone();
    let (code, stderr) = client.finish();
    let refused = "the agent refused the API key";
    assert_eq!(stderr, [format!("{}: {refused}", example.file)]);
    assert_eq!((code, stdout.all()), (Some(2), Vec::new()));
}

fn exits_on_a_signal_or_a_closed_output(example: Example) {
    let agent = fast_agent().start();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let client = Start::new(example, agent.port()).start();
        client.line(0);
        client.signal(signal);
        assert_eq!(client.finish(), (Some(0), Vec::new()), "{signal}");
    }
    // A signal also ends the client during a back-off.
    let client = Start::new(example, net::free_port()).start();
    client.pauses(1);
    client.signal(Signal::SIGTERM);
    assert_eq!(client.finish().0, Some(0));
    // The client also exits when no process reads its output any more.
    let mut child = Start::new(example, agent.port()).child();
    let stderr = Lines::collect(child.stderr.take().unwrap());
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    assert_eq!(ended(&mut child).code(), Some(0));
    assert!(
        stderr.ended(DEADLINE) && stderr.all().is_empty(),
        "{:?}",
        stderr.all()
    );
}

fn uses_tls_and_a_client_certificate(example: Example) {
    let (authority, clients) = (Authority::new(), Authority::new());
    let agent = authority.issue("agent").launch();
    let agent = agent
        .var("TLS_CLIENT_CA_FILE", &clients.certificate)
        .start();
    let identity = clients.issue("phone");
    let start = || {
        Start::new(example, agent.port())
            .var("AGENT_CA", &authority.certificate)
            .var("AGENT_KEY", &identity.key)
    };
    let client = start().var("AGENT_CERT", &identity.certificate).start();
    assert_line_of_this_host(&client.line(0));
    let mut named = start().var("AGENT_CERT", &identity.certificate);
    named.address = format!("localhost:{}", agent.port());
    assert_line_of_this_host(&named.start().line(0));
    // Without a certificate this agent refuses the client. An agent without mutual TLS needs no certificate.
    let client = start().start();
    client.pauses(1);
    assert_eq!(client.stdout.all(), Vec::<String>::new());
    let agent = authority.issue("other").launch().start();
    let start = Start::new(example, agent.port()).var("AGENT_CA", &authority.certificate);
    assert_line_of_this_host(&start.start().line(0));
}

fn sends_its_key_only_to_a_verified_agent(example: Example) {
    let (authority, other) = (Authority::new(), Authority::new());
    let agent = authority.issue("agent").launch().start();
    let strange = Start::new(example, agent.port()).var("AGENT_CA", &other.certificate);
    let misnamed = Start::new(example, agent.port())
        .var("AGENT_CA", &authority.certificate)
        .var("AGENT_NAME", "web-1");
    for start in [strange, misnamed] {
        let client = start.start();
        client.pauses(1);
        assert_eq!(client.stdout.all(), Vec::<String>::new());
        let messages = client.stderr.all().join(" ");
        assert!(messages.contains("certificate"), "{messages}");
    }
    // Neither client has sent its key.
    wait::until("the refusals", DEADLINE, || {
        (agent.events("client refused").len() >= 2).then_some(())
    });
    assert!(agent.events("client connected").is_empty());
}

/// Defines a module for each language with one test for each behaviour.
macro_rules! every_language {
    ($behaviours:tt $($language:ident $example:ident)+) => {
        $(every_language!(@ $language $example $behaviours);)+
    };
    (@ $language:ident $example:ident ($($behaviour:ident)+)) => {
        mod $language {
            use super::*;
            $(
                #[test]
                #[parallel]
                fn $behaviour() {
                    super::$behaviour($example);
                }
            )+
        }
    };
}

// The Rust client has no test of long lines and silence. The client's library reads only whole snapshots, and the kernel detects
// a silent connection (TCP keepalive).
every_language! {
    (
        prints_a_line_for_each_snapshot
        reconnects_with_a_growing_pause
        exits_on_a_wrong_key
        exits_on_a_signal_or_a_closed_output
        uses_tls_and_a_client_certificate
        sends_its_key_only_to_a_verified_agent
    )
    rust RUST
}

every_language! {
    (
        prints_a_line_for_each_snapshot
        reads_long_lines_and_reconnects_after_silence
        reconnects_with_a_growing_pause
        exits_on_a_wrong_key
        exits_on_a_signal_or_a_closed_output
        uses_tls_and_a_client_certificate
        sends_its_key_only_to_a_verified_agent
    )
    python PYTHON
    node NODE
    shell SHELL
    go GO
}
