//! A running agent, seen from a client.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Outcome, Report};
use crate::client::{Connector, Error, Identity, Snapshots, Trust};
use crate::model::Snapshot;
use crate::settings::{ApiKey, Settings};

/// How long the agent may take beyond what its settings say.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far the second snapshot may be from its time.
const PUNCTUALITY: Duration = Duration::from_secs(1);
/// As long as a key may be, and none that anybody has: it contains no visible character.
const WRONG_KEY: [u8; 32] = [0x01; 32];

/// The agent that is tried.
#[derive(Debug, Default)]
pub struct Target {
    /// Host and port; none: this host and `SOCKET_PORT`.
    pub address: Option<String>,
    /// The PEM files of the certificate that it is shown and of its key, where it asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Tries a running agent: a wrong key is refused, the right one accepted, two snapshots arrive
/// on time and are valid. Prints one line each; returns whether none failed.
pub async fn socket(settings: Settings, target: Target, print: impl Fn(&str)) -> bool {
    let mut report = Report::new(print);
    let started = Instant::now();
    let connector = match connector(&settings, target) {
        Ok(connector) => connector,
        Err(why) => {
            report.line("right key", started, &Outcome::Fail(why));
            return false;
        }
    };
    report.line("wrong key", started, &outcome(wrong_key(&connector).await));

    let started = Instant::now();
    match right_key(&connector).await {
        Ok((seen, mut snapshots)) => {
            report.line("right key", started, &Outcome::Pass(seen));
            let started = Instant::now();
            let second = second_snapshot(&settings, &mut snapshots).await;
            report.line("snapshots", started, &outcome(second));
        }
        Err(why) => {
            report.line("right key", started, &Outcome::Fail(why));
            let why = Outcome::Skip("no first snapshot".to_owned());
            report.line("snapshots", Instant::now(), &why);
        }
    }
    report.passed()
}

/// With TLS it trusts exactly the certificate in `TLS_CERT_FILE`: whoever issued it, and whatever names are in it, it is the
/// one that the agent should be showing.
fn connector(settings: &Settings, target: Target) -> Result<Connector, String> {
    let address = target.address.unwrap_or_else(|| default_address(settings));
    let key: &ApiKey = settings.credentials.keys.first().ok_or("there is no key")?;
    let connector = Connector::new(&address, key);
    let Some(tls) = &settings.credentials.tls else {
        return Ok(connector);
    };
    let identity = match target.identity {
        Some((certificate, key)) => Some(
            Identity::files(&certificate, &key)
                .map_err(|error| format!("--cert and --key: {error}"))?,
        ),
        None => None,
    };
    let files = settings.credential_sources.tls.as_ref();
    if identity.is_none() && files.is_some_and(|files| files.client_ca.is_some()) {
        return Err(
            "the agent asks for a certificate (TLS_CLIENT_CA_FILE): give one with --cert and --key"
                .to_owned(),
        );
    }
    let shown = tls.chain.first().ok_or("TLS_CERT_FILE is empty")?;
    connector
        .tls(&Trust::Only(shown.clone()), identity.as_ref(), None)
        .map_err(|error| error.to_string())
}

fn default_address(settings: &Settings) -> String {
    let host = match settings.serve.address {
        Some(address) if !address.is_unspecified() => address,
        _ => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    std::net::SocketAddr::new(host, settings.serve.port).to_string()
}

fn outcome(result: Result<String, String>) -> Outcome {
    match result {
        Ok(seen) => Outcome::Pass(seen),
        Err(why) => Outcome::Fail(why),
    }
}

async fn wrong_key(connector: &Connector) -> Result<String, String> {
    let mut stream = connector.open().await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(&[&WRONG_KEY[..], b"\n"].concat()).await?;
        stream.flush().await?;
        stream.take(4096).read_to_end(&mut answer).await
    };
    let read = timeout(PATIENCE, exchange).await;
    match (read, answer.as_slice()) {
        (Ok(Ok(_)), b"Unauthorized\n") => Ok("refused with `Unauthorized`".to_owned()),
        (Err(_), []) => Err(late("the answer to a wrong key", PATIENCE)),
        (_, []) => Err(Error::Refused.to_string()),
        (Ok(Ok(_)), _) => Err("answered with something other than `Unauthorized`".to_owned()),
        (Ok(Err(why)), _) => Err(format!("accepted: {why}")),
        (Err(_), _) => Err("accepted: a wrong key is answered, and not with the end".to_owned()),
    }
}

async fn right_key(connector: &Connector) -> Result<(String, Snapshots), String> {
    let mut snapshots = connector
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let snapshot = next(&mut snapshots, PATIENCE).await?;
    let seen = format!(
        "accepted, snapshot {} of agent {}",
        snapshot.agent.seq, snapshot.agent.version
    );
    Ok((seen, snapshots))
}

/// The first came at once, at any point of the interval: the next tells nothing about timing,
/// so the time between the second and the third is measured as well.
async fn second_snapshot(settings: &Settings, snapshots: &mut Snapshots) -> Result<String, String> {
    let interval = settings.publish_interval;
    next(snapshots, interval + PUNCTUALITY).await?;
    let second = Instant::now();
    let third = next(snapshots, interval + PUNCTUALITY).await?;
    let between = second.elapsed();
    if between + PUNCTUALITY < interval {
        return Err(format!(
            "one came after {between:.1?} instead of {interval:?}: is PUBLISH_INTERVAL the \
             agent's?"
        ));
    }
    Ok(format!(
        "on time and valid, {between:.1?} apart, {} containers",
        third.containers.len()
    ))
}

async fn next(snapshots: &mut Snapshots, patience: Duration) -> Result<Snapshot, String> {
    match timeout(patience, snapshots.next()).await {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(Error::Unauthorized)) => {
            Err("the key was refused: API_KEY is not the agent's".to_owned())
        }
        Ok(Err(Error::Broken(why))) if why.kind() == io::ErrorKind::UnexpectedEof => {
            Err("the connection was closed in the middle of a line".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(late("a snapshot", patience)),
    }
}

fn late(what: &str, patience: Duration) -> String {
    format!("{what} did not come within {patience:.1?}")
}
