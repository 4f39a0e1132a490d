//! A real nats-server (Debian: nats-server) of a test's own, and a client of it that is the library's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::{Client, ConnectOptions, Message, Subscriber};
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Lines, PATIENCE, net, wait};

/// A server on a port of the loopback interface, which stays the same when it is started again. Dropping it kills it.
pub(crate) struct NatsServer {
    port: u16,
    directory: TempDir,
    running: Option<(Child, Lines)>,
}

impl NatsServer {
    /// Starts one with this configuration, beside where it listens.
    pub(crate) fn start(configuration: &str) -> Self {
        let mut server = Self::prepare(configuration);
        server.run();
        server
    }

    /// Starts one that has JetStream, and this configuration.
    pub(crate) fn with_jetstream(configuration: &str) -> Self {
        let mut server = Self::prepare(configuration);
        let store = server.directory.path().join("store");
        let jetstream = format!("jetstream {{ store_dir: \"{}\" }}\n", store.display());
        server.configure(&format!("{jetstream}{configuration}"));
        server.run();
        server
    }

    /// One that is to be started.
    pub(crate) fn prepare(configuration: &str) -> Self {
        let server = Self {
            port: net::free_port(),
            directory: tempfile::tempdir().unwrap(),
            running: None,
        };
        server.configure(configuration);
        server
    }

    fn configure(&self, configuration: &str) {
        let listen = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: \"tests\"\n",
            self.port
        );
        fs::write(self.configuration(), format!("{listen}{configuration}")).unwrap();
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("nats.conf")
    }

    /// Starts it, as it was configured, and waits until it answers.
    pub(crate) fn run(&mut self) {
        // Daemons live in sbin, which is not on every user's PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("nats-server")
            .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin"))
            .arg("--config")
            .arg(self.configuration())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server (Debian: nats-server) starts");
        let log = Lines::collect(child.stderr.take().expect("piped"));
        self.running = Some((child, log));
        let answers = || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.starts_with("INFO ").then_some(())
        };
        if wait::within(PATIENCE, answers).is_none() {
            panic!("nats-server does not answer: {:#?}", self.log().all());
        }
    }

    /// Kills it, at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let (child, _) = self.running.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// What it has logged since it was started last.
    pub(crate) fn log(&self) -> Lines {
        self.running.as_ref().expect("it runs").1.clone()
    }

    /// Where it listens, as `NATS_URL`.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The same, by TLS.
    pub(crate) fn tls_url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// Writes a file beside its own, that nobody else may read.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        let new = path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    /// A client that shows nothing.
    pub(crate) fn client(&self) -> NatsClient {
        self.client_with(ConnectOptions::new())
    }

    /// A client with these options.
    pub(crate) fn client_with(&self, options: ConnectOptions) -> NatsClient {
        NatsClient::connect(&self.url(), options)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client, with a thread of its own.
pub(crate) struct NatsClient {
    runtime: Runtime,
    client: Client,
}

/// What a client has subscribed to.
pub(crate) struct Subscription<'c> {
    runtime: &'c Runtime,
    subscriber: Subscriber,
}

impl NatsClient {
    /// A client of the server there.
    pub(crate) fn connect(url: &str, options: ConnectOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime
            .block_on(options.connect(url))
            .expect("a server that lets in");
        Self { runtime, client }
    }

    /// Subscribes, and waits until the server knows.
    pub(crate) fn subscribe(&self, subject: &str) -> Subscription<'_> {
        let subject = subject.to_owned();
        let subscriber = self.runtime.block_on(async {
            let subscriber = self.client.subscribe(subject).await.unwrap();
            // An answer to something that comes after it.
            let mut echo = self.client.subscribe("tests.echo").await.unwrap();
            self.client.publish("tests.echo", "".into()).await.unwrap();
            echo.next().await.unwrap();
            subscriber
        });
        Subscription {
            runtime: &self.runtime,
            subscriber,
        }
    }

    /// The stream of this name, once it is there.
    pub(crate) fn stream(&self, name: &str) -> Stream {
        let context = self.context();
        let end = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            loop {
                match context.get_stream(name).await {
                    Ok(stream) => return stream,
                    Err(error) => assert!(Instant::now() < end, "no stream {name}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }

    /// Creates a stream.
    pub(crate) fn create_stream(&self, config: Config) {
        let context = self.context();
        self.runtime
            .block_on(context.create_stream(config))
            .unwrap();
    }

    /// Changes a stream.
    pub(crate) fn update_stream(&self, config: Config) {
        let context = self.context();
        self.runtime
            .block_on(context.update_stream(config))
            .unwrap();
    }

    fn context(&self) -> Context {
        let _inside = self.runtime.enter();
        async_nats::jetstream::new(self.client.clone())
    }

    /// Everything that the stream has, in order.
    pub(crate) fn stored(&self, name: &str) -> Vec<Stored> {
        let mut stream = self.stream(name);
        self.runtime.block_on(async {
            let state = stream.info().await.unwrap().state.clone();
            let mut stored = Vec::new();
            for sequence in state.first_sequence.max(1)..=state.last_sequence {
                let message = stream.get_raw_message(sequence).await.unwrap();
                stored.push(Stored {
                    subject: message.subject.to_string(),
                    text: String::from_utf8(message.payload.to_vec()).unwrap(),
                    id: message.headers.get("Nats-Msg-Id").map(ToString::to_string),
                    dropped: dropped(&message.headers),
                });
            }
            stored
        })
    }
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) id: Option<String>,
    /// How many lines, or events, before it are said to be lost.
    pub(crate) dropped: u64,
}

impl Subscription<'_> {
    /// The next message.
    pub(crate) fn next(&mut self) -> Message {
        self.next_within(PATIENCE).expect("a message")
    }

    /// The next message, if it comes within that time.
    pub(crate) fn next_within(&mut self, deadline: Duration) -> Option<Message> {
        let Self {
            runtime,
            subscriber,
        } = self;
        runtime.block_on(async {
            let next = tokio::time::timeout(deadline, subscriber.next()).await;
            next.ok()
                .map(|message| message.expect("the client is connected"))
        })
    }
}

/// How many lines, or events, are said to be lost.
pub(crate) fn dropped(headers: &async_nats::HeaderMap) -> u64 {
    let said = headers.get("System-Agent-Dropped");
    said.map_or(0, |said| said.as_str().parse().expect("a number"))
}

/// A name as a token of a subject, by the rule that is published: other than in the agent's own code.
pub(crate) fn token(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let written = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    match name {
        "" => "%".to_owned(),
        _ => name.bytes().map(written).collect(),
    }
}

/// This host's name, as a token.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    token(name.trim_end())
}

/// Who may connect where there are accounts: JSON web tokens, signed by keys made for one test.
pub(crate) struct Accounts {
    /// The server's part of its configuration.
    pub(crate) configuration: String,
    /// A user's file of credentials.
    pub(crate) credentials: String,
    /// The user's seed in it.
    pub(crate) seed: String,
}

impl Accounts {
    /// One operator, one account, one user.
    pub(crate) fn new() -> Self {
        use nkeys::KeyPair;
        let (operator, account, user) = (
            KeyPair::new_operator(),
            KeyPair::new_account(),
            KeyPair::new_user(),
        );
        let limits = r#""limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1,"mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1}"#;
        let token = |issuer: &KeyPair, subject: &KeyPair, nats: &str| {
            let (iss, sub) = (issuer.public_key(), subject.public_key());
            let claims = format!(
                r#"{{"jti":"test","iat":1700000000,"iss":"{iss}","sub":"{sub}","name":"test","nats":{{{nats},"version":2}}}}"#
            );
            let head = base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
            let signed = format!("{head}.{}", base64url(claims.as_bytes()));
            let signature = issuer.sign(signed.as_bytes()).unwrap();
            format!("{signed}.{}", base64url(&signature))
        };
        let of_operator = token(&operator, &operator, r#""type":"operator""#);
        let of_account = token(
            &operator,
            &account,
            &format!(r#""type":"account",{limits}"#),
        );
        let of_user = token(
            &account,
            &user,
            r#""type":"user","subs":-1,"data":-1,"payload":-1,"pub":{},"sub":{}"#,
        );
        let seed = user.seed().unwrap();
        Self {
            configuration: format!(
                "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {of_account} }}\n",
                account.public_key()
            ),
            credentials: format!(
                "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            ),
            seed,
        }
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}

/// The file of a CA, a server's certificate and key, as the server's configuration has them.
pub(crate) fn tls(ca: &Path, certificate: &Path, key: &Path, verify: bool) -> String {
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}\n",
        certificate.display(),
        key.display(),
        ca.display()
    )
}
