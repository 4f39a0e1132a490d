//! The command line: what can be said there.

use std::path::PathBuf;

#[cfg(feature = "watch")]
use clap::Args;
use clap::{Parser, Subcommand};

/// Streams snapshots of this host and its Docker containers to authenticated TCP clients.
///
/// Configured by environment variables only; all are listed in config/agent.env. API_KEY (or
/// API_KEY_FILE) is the only one that has no default.
#[derive(Parser)]
#[command(name = "system-agent", version, about)]
pub struct Arguments {
    /// What to do; nothing said means [`Command::Run`].
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    Run,
    /// Try every component for real and print one line each: PASS, FAIL or SKIP
    Check {
        /// What; the components of an agent that is to run here where nothing is said
        #[command(subcommand)]
        target: Option<CheckTarget>,
    },
    /// Print one complete snapshot; needs no API key and opens no socket
    Snapshot {
        /// Indent it for reading
        #[arg(long)]
        pretty: bool,
    },
    /// Watch hosts in this terminal, by their agents; this host, without any socket, where none is named
    ///
    /// With --nats all hosts whose agents publish there, as they come and go. What is shown to the server is in
    /// NATS_CREDENTIALS_FILE, NATS_NKEY_FILE, NATS_TOKEN_FILE, or NATS_USER and NATS_PASSWORD_FILE.
    ///
    /// The key is that in API_KEY, or in API_KEY_FILE the one that has the host's name, else the first; it is asked for where
    /// neither is set. `?` lists the keys of the view; NO_COLOR takes its colours away.
    #[cfg(feature = "watch")]
    Watch(Watch),
}

/// What is to be watched, and how it is reached.
#[cfg(feature = "watch")]
#[derive(Args)]
pub struct Watch {
    /// An agent: HOST, HOST:PORT or an IPv6 address [default port: 9000]
    #[arg(value_name = "HOST[:PORT]", group = "reached")]
    pub hosts: Vec<String>,
    /// All hosts whose agents publish to this NATS server: nats://HOST:PORT or tls://HOST:PORT, or several of a cluster's
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "URL[,URL]", group = "reached")]
    pub nats: Option<String>,
    /// Use TLS, and trust the authorities that this system trusts
    #[arg(long, requires = "reached")]
    pub tls: bool,
    /// Use TLS, and trust the authorities in this PEM file only
    #[arg(long, value_name = "FILE", requires = "reached")]
    pub ca: Option<PathBuf>,
    /// A certificate in PEM, for agents that ask for one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

/// What is tried.
#[derive(Subcommand)]
pub enum CheckTarget {
    /// Try a running agent: keys, snapshots and their timing
    Socket {
        /// Where it listens [default: 127.0.0.1 and SOCKET_PORT]
        #[arg(value_name = "HOST:PORT")]
        address: Option<String>,
        /// A client's certificate in PEM, where the agent asks for one
        #[arg(long, value_name = "FILE", requires = "key")]
        cert: Option<PathBuf>,
        /// Its private key
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
    },
}
