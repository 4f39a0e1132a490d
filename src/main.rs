//! The command line of System Agent: command line → telemetry → settings → app → exit code.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process;

use clap::Parser;
use system_agent::client::{Connector, Identity, Trust, TrustError, host_name};
use system_agent::command_line::{Arguments, CheckTarget, Command, Watch};
use system_agent::settings::{ApiKey, ApiKeys, CollectSettings, NatsLogin, Problems, Settings};
use system_agent::watch::{self, Fleet, Watched};
use system_agent::{app, check, privileges, secrets, snapshot, telemetry};
use zeroize::Zeroizing;

/// How often `watch` looks at this host, unless the environment says otherwise.
const WATCH_INTERVALS: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "1s"), ("DOCKER_INTERVAL", "1s")];

/// The exit status of a bad configuration: `EX_CONFIG` of sysexits(3). The systemd unit does not
/// restart on it.
const BAD_CONFIGURATION: i32 = 78;

fn main() {
    telemetry::abort_on_panic();
    let command = Arguments::parse().command;
    secrets::forbid_dumps();
    let status = match command {
        None | Some(Command::Run) => run(),
        Some(Command::Check { target }) => check_components(target),
        Some(Command::Snapshot { pretty }) => print_snapshot(pretty),
        Some(Command::Watch(arguments)) => watch(&arguments),
    };
    process::exit(status);
}

/// Runs a future to its end. The runtime is left to the process's own end: taking it down would
/// wait for its blocking threads, one of which may hang in the kernel.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let system = actix::System::new();
    let outcome = system.block_on(future);
    std::mem::forget(system);
    outcome
}

fn run() -> i32 {
    let settings = match read_settings() {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    let kept = privileges::keep_only_what_is_used(&settings.collect);
    let log = telemetry::start(&settings.telemetry);
    if let Err(error) = kept {
        tracing::warn!(%error, "CAP_DAC_READ_SEARCH is not needed, but cannot be given up");
    }
    let outcome = block_on(app::run(settings));
    drop(log);
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            complain(format_args!("{error:#}"));
            1
        }
    }
}

fn read_settings() -> Result<Settings, Problems> {
    Settings::from_env(variables().into_iter())
}

/// The environment, which keeps no secret from then on.
fn variables() -> Vec<(OsString, OsString)> {
    let variables = env::vars_os().collect();
    secrets::wipe_variable(c"API_KEY");
    variables
}

fn check_components(target: Option<CheckTarget>) -> i32 {
    let report = |line: &str| say(line.as_bytes());
    let passed = match target {
        None => block_on(check::components(variables().into_iter(), report)),
        Some(CheckTarget::Socket { address, cert, key }) => match read_settings() {
            Ok(settings) => {
                let identity = cert.zip(key);
                let target = check::Target { address, identity };
                block_on(check::socket(settings, target, report))
            }
            Err(problems) => return refuse(&problems),
        },
    };
    i32::from(!passed)
}

fn print_snapshot(pretty: bool) -> i32 {
    let settings = match CollectSettings::from_env(variables().into_iter()) {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    let taken = block_on(snapshot::take(&settings));
    let line = if pretty {
        serde_json::to_vec_pretty(&taken)
    } else {
        serde_json::to_vec(&taken)
    };
    match line {
        Ok(line) => {
            say(&line);
            0
        }
        Err(error) => {
            complain(format_args!("the snapshot cannot be encoded: {error}"));
            1
        }
    }
}

fn watch(arguments: &Watch) -> i32 {
    let watched = if let Some(urls) = &arguments.nats {
        match NatsLogin::from_env(variables().into_iter()) {
            Ok(login) => match fleet(arguments, urls, login) {
                Ok(fleet) => Ok(Watched::Fleet(fleet)),
                Err(why) => {
                    complain(format_args!("--nats: {why}"));
                    return 1;
                }
            },
            Err(problems) => Err(problems),
        }
    } else if arguments.hosts.is_empty() {
        let mut variables = variables();
        for (name, value) in WATCH_INTERVALS {
            if !variables.iter().any(|(set, _)| set == name) {
                variables.push((name.into(), value.into()));
            }
        }
        CollectSettings::from_env(variables.into_iter()).map(Watched::Here)
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
    let watched = match watched {
        Ok(watched) => watched,
        Err(problems) => return refuse(&problems),
    };
    let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match block_on(watch::run(watched, colours)) {
        Ok(()) => 0,
        Err(error) => {
            complain(format_args!("{error}"));
            1
        }
    }
}

/// How each host's agent is reached.
fn agents(arguments: &Watch, keys: Option<ApiKeys>) -> Result<Vec<(String, Connector)>, String> {
    let keys = match keys {
        Some(keys) => keys,
        None => ask_for_key()?,
    };
    let (trust, identity) = tls(arguments)?;
    let connector = |host: &String| {
        let key = keys.called(&host_name(host)).ok_or("there is no key")?;
        let connector = Connector::new(host, key);
        let connector = match &trust {
            Some(trust) => connector
                .tls(trust, identity.as_ref(), None)
                .map_err(|error| format!("{host}: {error}"))?,
            None => connector,
        };
        Ok((host.clone(), connector))
    };
    arguments.hosts.iter().map(connector).collect()
}

/// How a fleet is reached.
fn fleet(arguments: &Watch, urls: &str, login: Option<NatsLogin>) -> Result<Fleet, String> {
    let (trust, identity) = tls(arguments)?;
    Fleet::new(urls, login, trust.as_ref(), identity.as_ref())
}

/// Whom to trust, where TLS is asked for, and who to be where that is asked for.
fn tls(arguments: &Watch) -> Result<(Option<Trust>, Option<Identity>), String> {
    let said = |error: TrustError| error.to_string();
    let identity = match (&arguments.cert, &arguments.key) {
        (Some(cert), Some(key)) => Some(Identity::files(cert, key).map_err(said)?),
        _ => None,
    };
    let trust = match &arguments.ca {
        Some(file) => Some(Trust::file(file).map_err(said)?),
        None if arguments.tls || identity.is_some() => Some(Trust::system().map_err(said)?),
        None => None,
    };
    Ok((trust, identity))
}

/// Without showing it.
fn ask_for_key() -> Result<ApiKeys, String> {
    let text = rpassword::prompt_password("API key: ")
        .map(Zeroizing::new)
        .map_err(|error| {
            format!("no API key: neither API_KEY nor API_KEY_FILE is set, and none can be asked for ({error})")
        })?;
    ApiKey::new("typed", &text)
        .map(ApiKeys::one)
        .map_err(|problem| format!("the API key: {problem}"))
}

fn refuse(problems: &Problems) -> i32 {
    for problem in &problems.0 {
        complain(format_args!(
            "configuration: {}: {}",
            problem.variable, problem.text
        ));
    }
    BAD_CONFIGURATION
}

/// A line on stdout. A reader that has gone away wants no more lines, and no panic either.
fn say(line: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(line);
    let _ = stdout.write_all(b"\n");
}

/// A line on stderr.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "system-agent: {line}");
}
