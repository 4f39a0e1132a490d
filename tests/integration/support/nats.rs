//! A real NATS server (Debian's `nats-server`) for one test, and a client of it (library `async-nats`).

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

use super::{DEADLINE, Lines, net, wait};

/// A server on the loopback interface. After a restart the server has the same port. Killed on drop.
pub(crate) struct NatsServer {
    port: u16,
    directory: TempDir,
    running: Option<(Child, Lines)>,
}

impl NatsServer {
    /// Starts a server with these additional lines of configuration.
    pub(crate) fn start(configuration: &str) -> Self {
        let mut server = Self::prepare(configuration);
        server.run();
        server
    }

    /// Starts a server with JetStream and these additional lines of configuration.
    pub(crate) fn with_jetstream(configuration: &str) -> Self {
        let mut server = Self::prepare(configuration);
        let store = server.directory.path().join("store");
        let jetstream = format!("jetstream {{ store_dir: \"{}\" }}\n", store.display());
        server.configure(&format!("{jetstream}{configuration}"));
        server.run();
        server
    }

    /// A server that is configured but not started.
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

    /// Starts the server and waits until it answers.
    pub(crate) fn run(&mut self) {
        // nats-server is in sbin, which is not in every user's PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("nats-server")
            .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin"))
            .arg("--config")
            .arg(self.configuration())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot start nats-server (Debian package nats-server)");
        let log = Lines::collect(child.stderr.take().expect("the output is not piped"));
        self.running = Some((child, log));
        let answers = || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.starts_with("INFO ").then_some(())
        };
        if wait::within(DEADLINE, answers).is_none() {
            panic!("nats-server does not answer: {:#?}", self.log().all());
        }
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        let (child, _) = self.running.as_ref().expect("the server is not running");
        let pid = i32::try_from(child.id()).expect("the process id is too large");
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// The server's log since its newest start.
    pub(crate) fn log(&self) -> Lines {
        self.running
            .as_ref()
            .expect("the server is not running")
            .1
            .clone()
    }

    /// The server's address, in the form of `NATS_URL`.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The server's address with the scheme for TLS.
    pub(crate) fn tls_url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// Writes a file into the server's directory. Only the owner may read the file. Replaces an older file in one step.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        let new = path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    /// A client without credentials.
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

/// A client that runs in its own thread.
pub(crate) struct NatsClient {
    runtime: Runtime,
    client: Client,
}

/// A subscription of a client.
pub(crate) struct Subscription<'c> {
    runtime: &'c Runtime,
    subscriber: Subscriber,
}

impl NatsClient {
    /// Connects to the server at this URL.
    pub(crate) fn connect(url: &str, options: ConnectOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime
            .block_on(options.connect(url))
            .expect("cannot connect to the NATS server");
        Self { runtime, client }
    }

    /// Subscribes and waits until the server has processed the subscription.
    pub(crate) fn subscribe(&self, subject: &str) -> Subscription<'_> {
        let subject = subject.to_owned();
        let subscriber = self.runtime.block_on(async {
            let subscriber = self.client.subscribe(subject).await.unwrap();
            // The server processes requests in order. So the answer to this later message shows that the subscription is active.
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

    /// Waits until the stream of this name exists, and returns it.
    pub(crate) fn stream(&self, name: &str) -> Stream {
        let context = self.context();
        let end = Instant::now() + DEADLINE;
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

    /// All messages of the stream, in order.
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
    /// The number of dropped log lines or events before this message, according to its header.
    pub(crate) dropped: u64,
}

impl Subscription<'_> {
    /// The next message.
    pub(crate) fn next(&mut self) -> Message {
        self.next_within(DEADLINE).expect("no message arrived")
    }

    /// The next message, or `None` if no message arrives before the deadline.
    pub(crate) fn next_within(&mut self, deadline: Duration) -> Option<Message> {
        let Self {
            runtime,
            subscriber,
        } = self;
        runtime.block_on(async {
            let next = tokio::time::timeout(deadline, subscriber.next()).await;
            next.ok()
                .map(|message| message.expect("the client is not connected"))
        })
    }
}

/// The number of dropped log lines or events, according to the header `System-Agent-Dropped`.
pub(crate) fn dropped(headers: &async_nats::HeaderMap) -> u64 {
    let header = headers.get("System-Agent-Dropped");
    header.map_or(0, |header| {
        header.as_str().parse().expect("the header is not a number")
    })
}

/// Encodes a name as a token of a subject by the published rule. The agent has its own code for it.
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

/// The name of this host as a token of a subject.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    token(name.trim_end())
}

/// The accounts of a NATS server: JSON web tokens, signed by keys that are made for one test.
pub(crate) struct Accounts {
    /// The server's lines of configuration for these accounts.
    pub(crate) configuration: String,
    /// The content of a user's credentials file.
    pub(crate) credentials: String,
    /// The user's seed in that file.
    pub(crate) seed: String,
}

impl Accounts {
    /// Makes one operator, one account and one user.
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

/// The lines of configuration for TLS. With `verify`, a client must show a certificate.
pub(crate) fn tls(ca: &Path, certificate: &Path, key: &Path, verify: bool) -> String {
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}\n",
        certificate.display(),
        key.display(),
        ca.display()
    )
}
