//! `system-agent web`: turns the arguments and the environment into the hosts to show, and serves the page.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use system_agent::client::PORT;
use system_agent::command_line::Web;
#[cfg(feature = "nats")]
use system_agent::settings::NatsLogin;
use system_agent::settings::{ApiKeys, CollectSettings};
use system_agent::telemetry;
use system_agent::web::{self, Shown, WebSettings};
use zeroize::Zeroizing;

use super::agents::agents;
#[cfg(feature = "nats")]
use super::agents::fleet;
use super::{block_on, complain, refuse, say, variables};

/// The default intervals of `web` for this host. They are shorter than the default intervals of the daemon.
const WEB_INTERVALS: [(&str, &str); 2] = [("SYSTEM_INTERVAL", "2s"), ("DOCKER_INTERVAL", "2s")];
/// The timeout for the agent of this host.
const AGENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum size of the file of hosts, in bytes.
const MAX_HOSTS_FILE: u64 = 1024 * 1024;
/// Maximum length of a password at the standard input, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// Serves the page. Returns the exit status.
pub(super) fn run(arguments: &Web) -> i32 {
    if arguments.set_password {
        return match set_password() {
            Ok(()) => 0,
            Err(why) => failed(&why),
        };
    }
    let variables = variables();
    let settings = match WebSettings::from_env(variables.iter().cloned()) {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    #[cfg(feature = "nats")]
    if let Some(urls) = &arguments.nats {
        return match NatsLogin::from_env(variables.into_iter()) {
            Ok(login) => match fleet(&arguments.tls, urls, login) {
                Ok(fleet) => serve(settings, Shown::Fleet(fleet)),
                Err(why) => failed(&format!("--nats: {why}")),
            },
            Err(problems) => refuse(&problems),
        };
    }
    let keys = match ApiKeys::from_env(variables.iter().cloned()) {
        Ok(keys) => keys,
        Err(problems) => return refuse(&problems),
    };
    let mut hosts = arguments.hosts.clone();
    if let Some(file) = &arguments.hosts_file {
        match read_hosts(file) {
            Ok(more) => hosts.extend(more),
            Err(why) => return failed(&format!("--hosts: {why}")),
        }
    }
    if hosts.is_empty() && keys.is_some() {
        hosts.extend(agent_here(&variables));
    }
    if !hosts.is_empty() {
        return match agents(&hosts, &arguments.tls, keys) {
            Ok(agents) => serve(settings, Shown::Agents(agents)),
            Err(why) => failed(&why),
        };
    }
    let mut variables = variables;
    for (name, value) in WEB_INTERVALS {
        if !variables.iter().any(|(set, _)| set == name) {
            variables.push((name.into(), value.into()));
        }
    }
    match CollectSettings::from_env(variables.into_iter()) {
        Ok(collect) => serve(settings, Shown::Here(Box::new(collect))),
        Err(problems) => refuse(&problems),
    }
}

fn serve(settings: WebSettings, shown: Shown) -> i32 {
    let log = telemetry::start(&settings.telemetry);
    let outcome = block_on(web::run(settings, shown));
    drop(log);
    match outcome {
        Ok(()) => 0,
        Err(error) => failed(&format!("{error:#}")),
    }
}

fn failed(why: &str) -> i32 {
    complain(format_args!("{why}"));
    1
}

/// Returns the address of this host's agent, if one listens at `SOCKET_PORT`.
fn agent_here(variables: &[(std::ffi::OsString, std::ffi::OsString)]) -> Option<String> {
    let port = variables.iter().find(|(name, _)| name == "SOCKET_PORT");
    let port = port.map_or(Some(PORT), |(_, port)| port.to_str()?.trim().parse().ok())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answers = TcpStream::connect_timeout(&address, AGENT_TIMEOUT).is_ok();
    answers.then(|| address.to_string())
}

/// Reads the file of hosts: one `HOST[:PORT]` on each line. Empty lines and lines with `#` are left out.
fn read_hosts(path: &Path) -> Result<Vec<String>, String> {
    let read = || -> io::Result<String> {
        let file = fs::File::open(path)?;
        io::read_to_string(io::Read::take(file, MAX_HOSTS_FILE))
    };
    let text = read().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let lines = text.lines().map(str::trim);
    let hosts = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let hosts: Vec<_> = hosts.map(str::to_owned).collect();
    if let Some(wrong) = hosts.iter().find(|host| host.contains(char::is_whitespace)) {
        return Err(format!(
            "{wrong:?} is no host; accepted: HOST or HOST:PORT on each line"
        ));
    }
    match hosts.is_empty() {
        true => Err(format!("{} names no host", path.display())),
        false => Ok(hosts),
    }
}

/// Asks for a password, and writes its hash to `WEB_PASSWORD_FILE`. Without a terminal, reads one line.
fn set_password() -> Result<(), String> {
    let path = web::password_file(variables().into_iter()).ok_or(
        "WEB_PASSWORD_FILE: not set; accepted: the path of the file for the hash of the password",
    )?;
    let password = match io::stdin().is_terminal() {
        true => {
            let ask = |prompt: &str| {
                let typed = rpassword::prompt_password(prompt).map(Zeroizing::new);
                typed.map_err(|error| format!("the prompt for a password failed: {error}"))
            };
            let password = ask("New password: ")?;
            if *password != *ask("The same again: ")? {
                return Err("the two passwords differ".to_owned());
            }
            password
        }
        false => {
            let mut line = Zeroizing::new(String::new());
            let mut input = io::Read::take(io::stdin().lock(), MAX_PASSWORD);
            input
                .read_line(&mut line)
                .map_err(|error| format!("cannot read the password: {error}"))?;
            Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    web::write_password(&path, password.as_bytes())?;
    say(b"The password is set. Restart the server of the page to use it.");
    Ok(())
}
