//! The agents that the commands `watch`, `web` and `logs` connect to: keys, TLS and NATS.

#[cfg(feature = "watch")]
use std::process;

use system_agent::client::{Connector, Identity, Trust, TrustError, host_name};
use system_agent::command_line::TlsArguments;
#[cfg(feature = "nats")]
use system_agent::settings::NatsLogin;
use system_agent::settings::{ApiKey, ApiKeys};
#[cfg(all(feature = "nats", feature = "watch"))]
use system_agent::watch::Fleet;
#[cfg(all(feature = "nats", not(feature = "watch")))]
use system_agent::web::Fleet;
use zeroize::Zeroizing;

#[cfg(feature = "watch")]
use super::{refuse, variables};

/// Returns a connector for the agent of each host.
pub(super) fn agents(
    hosts: &[String],
    arguments: &TlsArguments,
    keys: Option<ApiKeys>,
) -> Result<Vec<(String, Connector)>, String> {
    let keys = match keys {
        Some(keys) => keys,
        None => ask_for_key()?,
    };
    let hosts = hosts.iter();
    hosts
        .map(|host| Ok((host.clone(), connector(host, arguments, &keys)?)))
        .collect()
}

/// Returns the keys of the environment. If it has none, prompts for a key.
#[cfg(feature = "watch")]
pub(super) fn keys() -> Result<ApiKeys, String> {
    match ApiKeys::from_env(variables().into_iter()) {
        Ok(Some(keys)) => Ok(keys),
        Ok(None) => ask_for_key(),
        Err(problems) => process::exit(refuse(&problems)),
    }
}

/// Returns a connector for the agent of a host.
pub(super) fn connector(
    host: &str,
    arguments: &TlsArguments,
    keys: &ApiKeys,
) -> Result<Connector, String> {
    let key = keys.called(&host_name(host)).ok_or("no API key is set")?;
    let connector = Connector::new(host, key);
    match tls(arguments)? {
        (Some(trust), identity) => connector
            .tls(&trust, identity.as_ref(), None)
            .map_err(|error| format!("{host}: {error}")),
        (None, _) => Ok(connector),
    }
}

/// Prepares the connection to the NATS server of a fleet. Does not connect yet.
#[cfg(feature = "nats")]
pub(super) fn fleet(
    arguments: &TlsArguments,
    urls: &str,
    login: Option<NatsLogin>,
) -> Result<Fleet, String> {
    let (trust, identity) = tls(arguments)?;
    Fleet::new(urls, login, trust.as_ref(), identity.as_ref())
}

/// Reads the TLS options. Returns the trusted authorities and the client certificate. Without a TLS option, both are none.
fn tls(arguments: &TlsArguments) -> Result<(Option<Trust>, Option<Identity>), String> {
    let text = |error: TrustError| error.to_string();
    let identity = match (&arguments.cert, &arguments.key) {
        (Some(cert), Some(key)) => Some(Identity::files(cert, key).map_err(text)?),
        _ => None,
    };
    let trust = match &arguments.ca {
        Some(file) => Some(Trust::file(file).map_err(text)?),
        None if arguments.tls || identity.is_some() => Some(Trust::system().map_err(text)?),
        None => None,
    };
    Ok((trust, identity))
}

/// Prompts for the API key. The terminal does not show the typed text.
fn ask_for_key() -> Result<ApiKeys, String> {
    let text = rpassword::prompt_password("API key: ")
        .map(Zeroizing::new)
        .map_err(|error| {
            format!("no API key: neither API_KEY nor API_KEY_FILE is set, and the prompt for a key failed ({error})")
        })?;
    ApiKey::new("typed", &text)
        .map(ApiKeys::one)
        .map_err(|problem| format!("API key: {problem}"))
}
