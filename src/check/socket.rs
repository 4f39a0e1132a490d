//! `system-agent check socket`: tries a running agent as a client does.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Outcome, Report};
use crate::client::{Connector, Error, Identity, Snapshots, Trust};
use crate::model::Snapshot;
use crate::settings::{ApiKey, Settings};

/// The timeout for the agent's answer to a key.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A snapshot is on time if it comes at most this much earlier or later than the publish interval says.
const TOLERANCE: Duration = Duration::from_secs(1);
/// A key of valid length that no agent can have, because keys consist of visible characters.
const WRONG_KEY: [u8; 32] = [0x01; 32];

/// The agent to try.
#[derive(Debug, Default)]
pub struct Target {
    /// Host and port. None means `SOCKET_ADDRESS` (else 127.0.0.1) and `SOCKET_PORT`.
    pub address: Option<String>,
    /// The PEM files of a client certificate and its key, for an agent that requires a client certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Checks that a running agent refuses a wrong key, accepts the right key, and sends valid snapshots on time. Prints one line
/// for each check. Returns true if no check failed.
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
            let why = Outcome::Skip("no first snapshot came".to_owned());
            report.line("snapshots", Instant::now(), &why);
        }
    }
    report.passed()
}

/// Prepares the client. With TLS, the client accepts only the certificate in `TLS_CERT_FILE`, because the agent must use that
/// certificate. The issuer and the names of the certificate do not matter.
fn connector(settings: &Settings, target: Target) -> Result<Connector, String> {
    let address = target.address.unwrap_or_else(|| default_address(settings));
    let key: &ApiKey = settings
        .credentials
        .keys
        .first()
        .ok_or("no API key is set")?;
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
            "the agent requires a client certificate (TLS_CLIENT_CA_FILE): give one with --cert and --key"
                .to_owned(),
        );
    }
    let shown = tls
        .chain
        .first()
        .ok_or("TLS_CERT_FILE contains no certificate")?;
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
    let read = timeout(ANSWER_TIMEOUT, exchange).await;
    match (read, answer.as_slice()) {
        (Ok(Ok(_)), b"Unauthorized\n") => Ok("refused with `Unauthorized`".to_owned()),
        (Err(_), []) => Err(late("an answer to the wrong key", ANSWER_TIMEOUT)),
        (_, []) => Err(Error::Refused.to_string()),
        (Ok(Ok(_)), _) => Err("the answer is not `Unauthorized`".to_owned()),
        (Ok(Err(why)), _) => Err(format!("the connection broke after an answer: {why}")),
        (Err(_), _) => Err("the agent answered and did not close the connection".to_owned()),
    }
}

async fn right_key(connector: &Connector) -> Result<(String, Snapshots), String> {
    let mut snapshots = connector
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let snapshot = next(&mut snapshots, ANSWER_TIMEOUT).await?;
    let seen = format!(
        "accepted, snapshot {} of agent {}",
        snapshot.agent.seq, snapshot.agent.version
    );
    Ok((seen, snapshots))
}

/// Measures the time between the second and the third snapshot. The agent sends the first snapshot immediately after the key, at
/// any point of the interval. So the time before the second snapshot can be shorter than the interval.
async fn second_snapshot(settings: &Settings, snapshots: &mut Snapshots) -> Result<String, String> {
    let interval = settings.publish_interval;
    next(snapshots, interval + TOLERANCE).await?;
    let second = Instant::now();
    let third = next(snapshots, interval + TOLERANCE).await?;
    let between = second.elapsed();
    if between + TOLERANCE < interval {
        return Err(format!(
            "a snapshot came after {between:.1?} and not after {interval:?}: check that PUBLISH_INTERVAL here is the same as \
             the agent's"
        ));
    }
    Ok(format!(
        "on time and valid, {between:.1?} apart, {} containers",
        third.containers.len()
    ))
}

async fn next(snapshots: &mut Snapshots, limit: Duration) -> Result<Snapshot, String> {
    match timeout(limit, snapshots.next()).await {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(Error::Unauthorized)) => {
            Err("the agent refused the key: API_KEY is not a key of this agent".to_owned())
        }
        Ok(Err(Error::Broken(why))) if why.kind() == io::ErrorKind::UnexpectedEof => {
            Err("the connection was closed in the middle of a snapshot".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(late("a snapshot", limit)),
    }
}

fn late(what: &str, limit: Duration) -> String {
    format!("{what} did not come within {limit:.1?}")
}
