//! Unit tests of the settings: defaults, and how problems are reported.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::{
    CollectSettings, Collectors, ContainerEnv, ContainerFilter, ContainerStats, DockerHost,
    HostRoot, LogFormat, Patterns, Problems, Redaction, Settings,
};

fn settings(vars: &[(&str, &str)]) -> Result<Settings, Problems> {
    Settings::from_env(environment(vars))
}

fn environment(vars: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    vars.iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect::<Vec<_>>()
        .into_iter()
}

const KEY: (&str, &str) = ("API_KEY", "0123456789abcdef");

#[test]
fn only_the_key_is_required_and_all_other_variables_have_defaults() {
    let settings = settings(&[KEY, ("HOME", "/root")]).unwrap();
    let five = Duration::from_secs(5);
    assert_eq!(
        settings.collect,
        CollectSettings {
            system_interval: five,
            docker_interval: five,
            log_interval: five,
            log_lines: 50,
            top_processes: 10,
            units: 50,
            process_commands: false,
            docker: Some(DockerHost::default()),
            container_stats: ContainerStats::Auto,
            container_labels: Patterns::default(),
            container_env: ContainerEnv::default(),
            container_sizes: None,
            containers: ContainerFilter::default(),
            disks_exclude: Patterns::default(),
            networks_exclude: Patterns::default(),
            collectors: Collectors::default(),
            host_root: HostRoot::default(),
            textfile_dir: None,
            log_redact: Redaction::default(),
        }
    );
    assert_eq!(settings.publish_interval, five);
    assert_eq!(settings.history, Duration::from_secs(600));
    assert_eq!(settings.serve.port, 9000);
    assert_eq!(settings.serve.address, None);
    assert_eq!(settings.serve.max_clients, 10_000);
    assert_eq!(settings.serve.write_timeout, Duration::from_secs(30));
    assert!(settings.credentials.tls.is_none());
    assert_eq!(settings.telemetry.format, LogFormat::Json);
}

#[test]
fn all_problems_are_reported_together() {
    let problems = settings(&[
        ("SOCKET_PORT", "70000"),
        ("PUBLISH_INTERVAL", "5"),
        ("TLS_ENABLED", "yes"),
        ("WHITELISTED_CLIENTS", "10.0.0.0/8,nonsense"),
    ])
    .unwrap_err();
    let lines: Vec<_> = problems.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5, "{problems}");
    for (variable, words) in [
        ("API_KEY: ", "not set"),
        ("SOCKET_PORT: ", "accepted: 0 to 65535"),
        ("PUBLISH_INTERVAL: ", "no unit"),
        ("TLS_ENABLED: ", "accepted: true, false, 1, 0"),
        ("WHITELISTED_CLIENTS: ", "entry 2"),
    ] {
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with(variable) && line.contains(words)),
            "{variable} {words}: {problems}"
        );
    }
}

#[test]
fn an_empty_value_counts_as_unset() {
    let settings = settings(&[KEY, ("SOCKET_PORT", ""), ("TLS_CERT_FILE", "")]).unwrap();
    assert_eq!(settings.serve.port, 9000);
}

#[test]
fn invalid_utf_8_is_a_problem_only_in_variables_of_the_agent() {
    let odd = OsString::from_vec(vec![0xff, 0xfe]);
    let vars = vec![
        (OsString::from("API_KEY"), OsString::from(KEY.1)),
        (OsString::from("OTHER"), odd.clone()),
        (OsString::from("LOG_LINES"), odd),
    ];
    let problems = Settings::from_env(vars.into_iter()).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "LOG_LINES: not UTF-8 text; accepted: text in UTF-8"
    );
}

#[test]
fn no_problem_shows_the_value() {
    let secret = "sEcReT-in-the-wrong-place!";
    for variable in super::raw::VARIABLES {
        if matches!(variable, "API_KEY" | "API_KEY_FILE") {
            continue;
        }
        // An operator can put a secret into the wrong variable. The secret must not appear in the log.
        if let Err(problems) = settings(&[KEY, ("TLS_ENABLED", "1"), (variable, secret)]) {
            assert!(!problems.to_string().contains(secret), "{problems}");
        }
    }
}

#[test]
fn every_directive_of_the_log_filter_needs_a_level() {
    for filter in [
        "info",
        "OFF",
        "system_agent=debug",
        "warn,system_agent::serve=trace",
    ] {
        assert!(settings(&[KEY, ("RUST_LOG", filter)]).is_ok(), "{filter}");
    }
    for filter in [
        "inof",
        "info,loud",
        "system_agent=loud",
        "system_agent",
        "info,",
    ] {
        let problems = settings(&[KEY, ("RUST_LOG", filter)]).unwrap_err();
        assert!(
            problems
                .to_string()
                .starts_with("RUST_LOG: not a level filter")
        );
    }
}
