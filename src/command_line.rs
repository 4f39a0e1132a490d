//! The command line: the commands, their arguments and the help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "watch")]
use crate::model::MOST_RANGE_LINES;

/// Streams snapshots of this host and its Docker containers to authenticated TCP clients.
///
/// Environment variables are the only configuration. config/agent.env lists all variables. API_KEY (or API_KEY_FILE) is the only
/// required variable.
#[derive(Parser)]
#[command(name = "system-agent", version, about)]
pub struct Arguments {
    /// The command. None means [`Command::Run`].
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    Run,
    /// Try every component and print one line for each component: PASS, FAIL or SKIP
    Check {
        /// What to try [default: the components of an agent on this host]
        #[command(subcommand)]
        target: Option<CheckTarget>,
    },
    /// Print one complete snapshot. Needs no API key and opens no socket
    Snapshot {
        /// Indent the JSON, for people to read
        #[arg(long)]
        pretty: bool,
    },
    /// Show hosts in this terminal
    ///
    /// Shows each HOST, with the snapshots of the agent on that host. Without a HOST, shows this host. In that case the command
    /// needs no agent and no key.
    ///
    /// With --nats, shows all hosts whose agents publish to a NATS server. The login to that server comes from
    /// NATS_CREDENTIALS_FILE, NATS_NKEY_FILE, NATS_TOKEN_FILE, or NATS_USER and NATS_PASSWORD_FILE.
    ///
    /// The API key comes from API_KEY or API_KEY_FILE. If the file has a key with the host's name, the command uses that key,
    /// else the first key. If neither variable is set, the command prompts for a key. Press `?` for a list of the keyboard
    /// commands. Set NO_COLOR for a view without colours.
    #[cfg(feature = "watch")]
    Watch(Watch),
    /// Show hosts in a browser
    ///
    /// Serves a page at http://127.0.0.1:9180/ (WEB_ADDRESS). The page shows each HOST, with the snapshots of the agent on that host.
    /// Without a HOST, it shows this host. If API_KEY or API_KEY_FILE is set and an agent listens at 127.0.0.1 (SOCKET_PORT), the
    /// figures come from that agent. Else the command measures this host itself.
    ///
    /// With --nats, the page shows all hosts whose agents publish to a NATS server, as with `watch`.
    ///
    /// WEB_PASSWORD_FILE, WEB_GUEST, WEB_SESSION_TIME, WEB_TLS_CERT_FILE, WEB_TLS_KEY_FILE and WEB_TRUSTED_PROXY say who can read
    /// the page. WEB_HISTORY_FOLDER names the folder of the history. docs/web.md lists all settings.
    #[cfg(feature = "web")]
    Web(Web),
    /// Print the log of a container, from the agent on its host
    ///
    /// Prints all log lines that the engine still has, also those in rotated and compressed files, as `docker logs` does. The agent
    /// must be able to read the log files.
    ///
    /// The API key comes from API_KEY or API_KEY_FILE, as for `watch`.
    #[cfg(feature = "watch")]
    Logs(LogsArguments),
    /// Tell whether a newer release exists
    ///
    /// Reads the version of the newest release from the file `latest` in the folder of releases, and prints one sentence. Installs
    /// nothing, and sends nothing but its own version.
    ///
    /// Exit status: 0 if this is the newest release, 10 if a newer release exists, 1 if it is not known.
    Update(UpdateArguments),
}

/// The arguments of `update`.
#[derive(Args)]
pub struct UpdateArguments {
    /// Only tell whether a newer release exists. The command cannot do more
    #[arg(long, required = true)]
    pub check: bool,
    /// The URL of the folder of releases: `http://HOST[:PORT][/PATH]` or `https://HOST[:PORT][/PATH]` [default: UPDATE_URL]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// The arguments of `logs`.
#[cfg(feature = "watch")]
#[derive(Args)]
pub struct LogsArguments {
    /// The address of the agent: HOST, HOST:PORT or an IPv6 address [default port: 9000]
    #[arg(value_name = "HOST[:PORT]", group = "reached")]
    pub host: String,
    /// The name of the container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Print only log lines from this time on: 2026-01-02T03:04:05Z, or a time ago: 90s, 10m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Print only log lines before this time, in the same forms
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub until: Option<String>,
    /// Print only the newest N of these log lines, 1 to 10000
    #[arg(long, value_name = "N", value_parser = tail)]
    pub tail: Option<usize>,
    /// Print only log lines that match this regular expression
    #[arg(long, value_name = "REGEX")]
    pub grep: Option<String>,
    /// Continue with new log lines as they are written
    #[arg(long, short)]
    pub follow: bool,
    /// Print the timestamp before each log line
    #[arg(long, short)]
    pub timestamps: bool,
    /// How to connect with TLS.
    #[command(flatten)]
    pub tls: TlsArguments,
}

#[cfg(feature = "watch")]
fn tail(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok();
    let lines = lines.filter(|lines| (1..=MOST_RANGE_LINES).contains(lines));
    lines.ok_or_else(|| format!("accepted: 1 to {MOST_RANGE_LINES}"))
}

/// The arguments of `watch`: the hosts, and how to connect to their agents.
#[cfg(feature = "watch")]
#[derive(Args)]
pub struct Watch {
    /// The address of an agent: HOST, HOST:PORT or an IPv6 address [default port: 9000]
    #[arg(value_name = "HOST[:PORT]", group = "reached")]
    pub hosts: Vec<String>,
    /// Show all hosts whose agents publish to this NATS server: nats://HOST:PORT or tls://HOST:PORT. For a cluster, give several
    /// URLs with commas between them
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "URL[,URL]", group = "reached")]
    pub nats: Option<String>,
    /// How to connect with TLS.
    #[command(flatten)]
    pub tls: TlsArguments,
}

/// The arguments of `web`: the hosts, and how to connect to their agents.
#[cfg(feature = "web")]
#[derive(Args)]
pub struct Web {
    /// The address of an agent: HOST, HOST:PORT or an IPv6 address [default port: 9000]
    #[arg(value_name = "HOST[:PORT]", group = "reached")]
    pub hosts: Vec<String>,
    /// Show the hosts in this file: one HOST or HOST:PORT on each line. Lines that begin with # are comments
    #[arg(long = "hosts", value_name = "FILE", group = "reached")]
    pub hosts_file: Option<PathBuf>,
    /// Show all hosts whose agents publish to this NATS server: nats://HOST:PORT or tls://HOST:PORT. For a cluster, give several
    /// URLs with commas between them
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "URL[,URL]", group = "reached")]
    pub nats: Option<String>,
    /// Ask for a password for the page, write its hash to WEB_PASSWORD_FILE, and exit
    #[arg(long, conflicts_with = "reached")]
    pub set_password: bool,
    /// How to connect with TLS.
    #[command(flatten)]
    pub tls: TlsArguments,
}

/// How a command connects to an agent with TLS.
#[cfg(any(feature = "watch", feature = "web"))]
#[derive(Args)]
pub struct TlsArguments {
    /// Use TLS, and trust the certificate authorities that this system trusts
    #[arg(long, requires = "reached")]
    pub tls: bool,
    /// Use TLS, and trust only the certificate authorities in this PEM file
    #[arg(long, value_name = "FILE", requires = "reached")]
    pub ca: Option<PathBuf>,
    /// Use TLS with the client certificate in this PEM file, for agents that require a client certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The PEM file with the private key of the client certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

/// What `check` can try instead of the components on this host.
#[derive(Subcommand)]
pub enum CheckTarget {
    /// Try a running agent: keys, snapshots and their timing
    Socket {
        /// The address of the agent [default: SOCKET_ADDRESS (else 127.0.0.1) and SOCKET_PORT]
        #[arg(value_name = "HOST:PORT")]
        address: Option<String>,
        /// The PEM file with a client certificate, for an agent that requires a client certificate
        #[arg(long, value_name = "FILE", requires = "key")]
        cert: Option<PathBuf>,
        /// The PEM file with the private key of the client certificate
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
    },
}
