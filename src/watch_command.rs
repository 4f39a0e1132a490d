//! `system-agent watch`: turns the arguments and the environment into the hosts to watch, and runs the view.

use std::env;

use system_agent::command_line::Watch;
#[cfg(feature = "nats")]
use system_agent::settings::NatsLogin;
use system_agent::settings::{ApiKeys, CollectSettings};
use system_agent::watch::{self, Watched};

use super::agents::agents;
#[cfg(feature = "nats")]
use super::agents::fleet;
use super::{block_on, complain, refuse, variables};

/// The default intervals of `watch` for this host. They are shorter than the default intervals of the daemon.
const WATCH_INTERVALS: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "1s"), ("DOCKER_INTERVAL", "1s")];

/// Shows hosts in the terminal. Returns the exit status.
pub(super) fn run(arguments: &Watch) -> i32 {
    #[cfg(feature = "nats")]
    if let Some(urls) = &arguments.nats {
        return match NatsLogin::from_env(variables().into_iter()) {
            Ok(login) => match fleet(&arguments.tls, urls, login) {
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
            Ok(keys) => match agents(&arguments.hosts, &arguments.tls, keys) {
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
