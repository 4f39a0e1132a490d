//! Prints one line for each snapshot of an agent. Uses this crate's module `system_agent::client`.
//!
//! ```sh
//! API_KEY=… cargo run --example client -- [--tls] [HOST:PORT]
//! ```
//!
//! The default is 127.0.0.1:9000. Environment variables:
//!
//! | | |
//! |---|---|
//! | `API_KEY` or `API_KEY_FILE` | the key, or a file with keys (this client uses the first key) |
//! | `AGENT_CA` | use TLS, and trust the authorities in this PEM file (only `--tls`: the authorities of the system) |
//! | `AGENT_NAME` | the name that the agent's certificate must contain; default: HOST |
//! | `AGENT_CERT`, `AGENT_KEY` | PEM files with this client's certificate and key, for mutual TLS |
#![allow(
    clippy::print_stderr,
    reason = "a command-line program prints its errors to stderr"
)]

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use system_agent::client::{Backoff, Connector, Error, Identity, Trust};
use system_agent::model::Snapshot;
use system_agent::settings::ApiKeys;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// This client needs only two sections of a snapshot, so it does not request the other sections.
const OPTIONS: &str = r#"{"sections":["system","containers"]}"#;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("client.rs: {why}");
            match why.downcast_ref() {
                Some(Error::Unauthorized) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run() -> Result<(), Failure> {
    let connector = connector()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = follow(&connector) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Builds the connector from the arguments and the environment.
fn connector() -> Result<Connector, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (switches, addresses): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| *argument == "--tls");
    let address = match addresses[..] {
        [] => "127.0.0.1:9000",
        [address] => address,
        _ => return Err("usage: client [--tls] [HOST:PORT]".into()),
    };
    let keys = ApiKeys::from_env(env::vars_os())?;
    let key = keys.as_ref().and_then(|keys| keys.iter().next());
    let connector = Connector::new(address, key.ok_or("set API_KEY or API_KEY_FILE")?);
    let connector = connector.options(OPTIONS);
    let trust = match env::var("AGENT_CA") {
        Ok(file) => Trust::file(Path::new(&file))?,
        Err(_) if switches.is_empty() => return Ok(connector),
        Err(_) => Trust::system()?,
    };
    let identity = match (env::var("AGENT_CERT"), env::var("AGENT_KEY")) {
        (Ok(certificate), Ok(key)) => {
            Some(Identity::files(Path::new(&certificate), Path::new(&key))?)
        }
        _ => None,
    };
    let name = env::var("AGENT_NAME").ok();
    Ok(connector.tls(&trust, identity.as_ref(), name.as_deref())?)
}

/// Connects again after each lost connection. Returns if the program that reads the output has ended, or if the agent refuses the
/// key or the options.
async fn follow(connector: &Connector) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    loop {
        let why = match one_connection(connector, &mut backoff).await {
            Ok(()) => return Ok(()),
            // Another attempt would fail with the same error.
            Err(why @ (Error::Unauthorized | Error::Answered(_))) => return Err(why.into()),
            Err(why) => why,
        };
        let pause = backoff.pause();
        eprintln!("client.rs: {why}; retry in {:.1} s", pause.as_secs_f64());
        sleep(pause).await;
    }
}

async fn one_connection(connector: &Connector, backoff: &mut Backoff) -> Result<(), Error> {
    let mut snapshots = connector.connect().await?;
    loop {
        let snapshot = snapshots.next().await?;
        backoff.reset();
        // A write error means that the program that reads the output has ended.
        if writeln!(io::stdout(), "{}", summary(&snapshot)).is_err() {
            return Ok(());
        }
    }
}

fn summary(snapshot: &Snapshot) -> String {
    let mut containers: Vec<_> = snapshot.containers.iter().collect();
    containers.sort_by(|one, other| other.cpu_percent.total_cmp(&one.cpu_percent));
    let busiest = containers.iter().take(3).map(|container| {
        let name = container.name.trim_start_matches('/');
        format!("{name} {:.1} %", container.cpu_percent)
    });
    let busiest = busiest.collect::<Vec<_>>().join(", ");
    let (host, cpu) = (&snapshot.host.hostname, snapshot.system.cpu_percent[0]);
    match busiest.is_empty() {
        true => format!("{host}  cpu {cpu:.1} %"),
        false => format!("{host}  cpu {cpu:.1} %  busiest: {busiest}"),
    }
}
