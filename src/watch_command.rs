//! `system-agent watch`: turns the arguments and the environment into the hosts to watch, and runs the view.

use std::{env, process};

use system_agent::client::{Connector, Identity, Trust, TrustError, host_name};
use system_agent::command_line::{TlsArguments, Watch};
#[cfg(feature = "nats")]
use system_agent::settings::NatsLogin;
use system_agent::settings::{ApiKey, ApiKeys, CollectSettings};
#[cfg(feature = "nats")]
use system_agent::watch::Fleet;
use system_agent::watch::{self, Watched};
use zeroize::Zeroizing;

use super::{block_on, complain, refuse, variables};

/// The default intervals of `watch` for this host. They are shorter than the default intervals of the daemon.
const WATCH_INTERVALS: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "1s"), ("DOCKER_INTERVAL", "1s")];

/// Shows hosts in the terminal. Returns the exit status.
pub(super) fn run(arguments: &Watch) -> i32 {
    #[cfg(feature = "nats")]
    if let Some(urls) = &arguments.nats {
        return match NatsLogin::from_env(variables().into_iter()) {
            Ok(login) => match fleet(arguments, urls, login) {
                Ok(fleet) => show(Watched::Fleet(fleet)),
                Err(why) => {
                    complain(format_args!("--nats: {why}"));
                    1
                }
            },
            Err(problems) => refuse(&problems),
        };
    }
    let watched = if arguments.hosts.is_empty() {
        let mut variables = variables();
        for (name, value) in WATCH_INTERVALS {
            if !variables.iter().any(|(set, _)| set == name) {
                variables.push((name.into(), value.into()));
            }
        }
        CollectSettings::from_env(variables.into_iter())
            .map(|settings| Watched::Here(Box::new(settings)))
    } else {
        match ApiKeys::from_env(variables().into_iter()) {
            Ok(keys) => match agents(arguments, keys) {
                Ok(agents) => Ok(Watched::Agents(agents)),
                Err(why) => {
                    complain(format_args!("{why}"));
                    return 1;
                }
            },
            Err(problems) => Err(problems),
        }
    };
    match watched {
        Ok(watched) => show(watched),
        Err(problems) => refuse(&problems),
    }
}

fn show(watched: Watched) -> i32 {
    let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match block_on(watch::run(watched, colours)) {
        Ok(()) => 0,
        Err(error) => {
            complain(format_args!("{error}"));
            1
        }
    }
}

/// Returns a connector for the agent of each host.
fn agents(arguments: &Watch, keys: Option<ApiKeys>) -> Result<Vec<(String, Connector)>, String> {
    let keys = match keys {
        Some(keys) => keys,
        None => ask_for_key()?,
    };
    let hosts = arguments.hosts.iter();
    hosts
        .map(|host| Ok((host.clone(), connector(host, &arguments.tls, &keys)?)))
        .collect()
}

/// Returns the keys of the environment. If it has none, prompts for a key.
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
fn fleet(arguments: &Watch, urls: &str, login: Option<NatsLogin>) -> Result<Fleet, String> {
    let (trust, identity) = tls(&arguments.tls)?;
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
