//! The example clients do what they say, in every language, against a real agent.

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

use crate::support::{Agent, Authority, KEY, Launch, Lines, PATIENCE, net, wait};

/// An example: its file in `examples/`, and what to start.
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
        assert!(client.exists(), "cargo build --examples comes first");
        client
    },
};

static BUILT: OnceLock<PathBuf> = OnceLock::new();

fn source(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    folder.join(file)
}

/// `go run` would keep signals and the exit status for itself.
fn build_go() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("client-go");
    let mut go = Command::new("go");
    let status = go.arg("build").arg("-o").arg(&built);
    let status = status.arg(source("client.go")).status().expect("go");
    assert!(status.success(), "client.go does not compile");
    built
}

/// A client about to be started.
struct Start {
    example: Example,
    address: String,
    environment: BTreeMap<&'static str, String>,
}

impl Start {
    /// A client of the agent on this port, with its key.
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
        let mut command = Command::new((self.example.program)());
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

/// A running client. Dropping it ends it.
struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    /// The line of this number, from 0.
    fn line(&self, number: usize) -> String {
        let line = self.stdout.find(number, PATIENCE, |l| Some(l.to_owned()));
        line.unwrap_or_else(|| panic!("no line {number}: {:#?}", self.stderr.all()))
    }

    /// The waits that it has announced, in seconds, once there are so many.
    fn waits(&self, count: usize) -> Vec<f64> {
        let waits = || -> Vec<f64> {
            let lines = self.stderr.all();
            let waits = lines.iter().filter_map(|line| {
                let (_, wait) = line.split_once("; again in ")?;
                wait.strip_suffix(" s")?.parse().ok()
            });
            waits.collect()
        };
        let enough = || Some(waits()).filter(|waits| waits.len() >= count);
        wait::within(PATIENCE, enough)
            .unwrap_or_else(|| panic!("not {count} waits: {:#?}", self.stderr.all()))
    }

    fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).expect("it still runs");
    }

    /// Waits for its end, which leaves nothing of it behind; how it ended and what it said on standard error.
    fn finish(mut self) -> (Option<i32>, Vec<String>) {
        let status = ended(&mut self.child);
        assert!(self.stdout.ended(PATIENCE) && self.stderr.ended(PATIENCE));
        (status.code(), self.stderr.all())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The one in shell has children, which it ends itself.
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
    wait::until("the client's end", PATIENCE, || child.try_wait().unwrap())
}

fn often() -> Launch {
    Launch::new().var("PUBLISH_INTERVAL", "200ms")
}

/// `web-1  cpu 12.5 %`: of this host, without containers.
fn assert_of_this_host(line: &str) {
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
    let agent = often().start();
    let client = Start::new(example, agent.port()).start();
    for number in 0..3 {
        assert_of_this_host(&client.line(number));
    }
    // The key may be in a file.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let start = Start::new(example, agent.port()).var("API_KEY", "");
    let client = start.var("API_KEY_FILE", &file).start();
    assert_of_this_host(&client.line(0));
}

/// Longer than any buffer, with containers, in pieces; then nothing.
fn reads_lines_of_any_length_and_notices_silence(example: Example) {
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
    client.waits(1);
    let said = client.stderr.all();
    assert!(said[0].contains("no snapshot for 1"), "{said:?}");
    // It has closed the connection, and connects again.
    listener.accept().unwrap();
}

fn reconnects(example: Example) {
    let port = net::free_port();
    let agent = often().start_on(port);
    let client = Start::new(example, port).start();
    client.line(0);
    let crash = |agent: Agent| drop(agent);
    crash(agent);
    let waits = client.waits(2);
    assert!(
        waits[0] <= 1.0 && waits[1] > 1.0 && waits[1] <= 2.0,
        "{waits:?}"
    );
    let before = (client.stdout.all().len(), waits.len());
    let agent = often().start_on(port);
    assert_of_this_host(&client.line(before.0));
    // A snapshot came: the next wait is the first again.
    let before = client.waits(before.1).len();
    crash(agent);
    let waits = client.waits(before + 1);
    assert!(waits[before] <= 1.0, "{waits:?}");
}

fn ends_at_a_wrong_key(example: Example) {
    let agent = Launch::new().start();
    let start = Start::new(example, agent.port()).var("API_KEY", "not-the-key-of-this-agent");
    let client = start.start();
    let stdout = client.stdout.clone();
    let (code, stderr) = client.finish();
    let refused = "the key was refused: it is not one of the agent's";
    assert_eq!(stderr, [format!("{}: {refused}", example.file)]);
    assert_eq!((code, stdout.all()), (Some(2), Vec::new()));
}

fn ends_when_asked_to(example: Example) {
    let agent = often().start();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let client = Start::new(example, agent.port()).start();
        client.line(0);
        client.signal(signal);
        assert_eq!(client.finish(), (Some(0), Vec::new()), "{signal}");
    }
    // While it waits to connect again, too.
    let client = Start::new(example, net::free_port()).start();
    client.waits(1);
    client.signal(Signal::SIGTERM);
    assert_eq!(client.finish().0, Some(0));
    // Nobody reads any more.
    let mut child = Start::new(example, agent.port()).child();
    let stderr = Lines::collect(child.stderr.take().unwrap());
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    assert_eq!(ended(&mut child).code(), Some(0));
    assert!(
        stderr.ended(PATIENCE) && stderr.all().is_empty(),
        "{:?}",
        stderr.all()
    );
}

fn speaks_tls_and_shows_a_certificate(example: Example) {
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
    assert_of_this_host(&client.line(0));
    let mut named = start().var("AGENT_CERT", &identity.certificate);
    named.address = format!("localhost:{}", agent.port());
    assert_of_this_host(&named.start().line(0));
    // Without one it is not let in, and without mutual TLS it needs none.
    let client = start().start();
    client.waits(1);
    assert_eq!(client.stdout.all(), Vec::<String>::new());
    let agent = authority.issue("other").launch().start();
    let start = Start::new(example, agent.port()).var("AGENT_CA", &authority.certificate);
    assert_of_this_host(&start.start().line(0));
}

fn shows_its_key_to_nobody_else(example: Example) {
    let (authority, other) = (Authority::new(), Authority::new());
    let agent = authority.issue("agent").launch().start();
    let strange = Start::new(example, agent.port()).var("AGENT_CA", &other.certificate);
    let misnamed = Start::new(example, agent.port())
        .var("AGENT_CA", &authority.certificate)
        .var("AGENT_NAME", "web-1");
    for start in [strange, misnamed] {
        let client = start.start();
        client.waits(1);
        assert_eq!(client.stdout.all(), Vec::<String>::new());
        let said = client.stderr.all().join(" ");
        assert!(said.contains("certificate"), "{said}");
    }
    // Nobody has got as far as the key.
    wait::until("the refusals", PATIENCE, || {
        (agent.events("client refused").len() >= 2).then_some(())
    });
    assert!(agent.events("client connected").is_empty());
}

/// One test of each behaviour, by the language's name.
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

// What it reads are whole snapshots, of the library's types, and it is the kernel who tells it of silence.
every_language! {
    (
        prints_a_line_for_each_snapshot
        reconnects
        ends_at_a_wrong_key
        ends_when_asked_to
        speaks_tls_and_shows_a_certificate
        shows_its_key_to_nobody_else
    )
    rust RUST
}

every_language! {
    (
        prints_a_line_for_each_snapshot
        reads_lines_of_any_length_and_notices_silence
        reconnects
        ends_at_a_wrong_key
        ends_when_asked_to
        speaks_tls_and_shows_a_certificate
        shows_its_key_to_nobody_else
    )
    python PYTHON
    node NODE
    shell SHELL
    go GO
}
