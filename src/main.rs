//! The program `system-agent`: parses the command line, runs the command and returns its exit status.

#[cfg(any(feature = "watch", feature = "web"))]
mod agents;
#[cfg(feature = "watch")]
mod logs_command;
mod update_command;
#[cfg(feature = "watch")]
mod watch_command;
#[cfg(feature = "web")]
mod web_command;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process;

use clap::Parser;
use system_agent::command_line::{Arguments, CheckTarget, Command};
use system_agent::settings::{CollectSettings, Problems, Settings, secret_variables};
use system_agent::{app, check, privileges, secrets, snapshot, telemetry};

/// The exit status for a configuration with errors: `EX_CONFIG` of sysexits(3). The systemd unit does not restart the agent after
/// this status.
const BAD_CONFIGURATION: i32 = 78;

fn main() {
    telemetry::abort_on_panic();
    let command = Arguments::parse().command;
    secrets::forbid_dumps();
    let status = match command {
        None | Some(Command::Run) => run(),
        Some(Command::Check { target }) => check_components(target),
        Some(Command::Snapshot { pretty }) => print_snapshot(pretty),
        #[cfg(feature = "watch")]
        Some(Command::Watch(arguments)) => watch_command::run(&arguments),
        #[cfg(feature = "web")]
        Some(Command::Web(arguments)) => web_command::run(&arguments),
        #[cfg(feature = "watch")]
        Some(Command::Logs(arguments)) => logs_command::run(&arguments),
        Some(Command::Update(arguments)) => update_command::run(&arguments),
    };
    process::exit(status);
}

/// Runs a future until it completes. Does not drop the runtime, because dropping the runtime waits for its blocking threads, and
/// such a thread can hang in the kernel. The kernel ends all threads when the process exits.
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
        tracing::warn!(%error, "cannot give up CAP_DAC_READ_SEARCH, which the agent does not need");
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

/// Returns the environment variables, and overwrites the values of secrets in the environment of the process.
fn variables() -> Vec<(OsString, OsString)> {
    let variables = env::vars_os().collect();
    for variable in secret_variables() {
        secrets::wipe_variable(variable);
    }
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
            complain(format_args!("cannot encode the snapshot: {error}"));
            1
        }
    }
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

/// Prints a line to stdout. Ignores errors, so that a closed pipe does not cause a panic.
fn say(line: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(line);
    let _ = stdout.write_all(b"\n");
}

/// Prints a line to stderr.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "system-agent: {line}");
}
