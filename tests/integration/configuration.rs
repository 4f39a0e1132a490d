//! Tests of the configuration: valid and invalid values of every variable, complete error lists, and no key in any output.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;

use serial_test::parallel;

use crate::support::{Finished, KEY, Launch};

/// Exit status for an invalid configuration (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: i32 = 78;

/// Valid values. The daemon starts with each of these values.
pub(crate) const GOOD: &[(&str, &[&str])] = &[
    (
        "API_KEY",
        &["8$isLong", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"],
    ),
    ("SOCKET_PORT", &["0"]),
    ("SOCKET_ADDRESS", &["127.0.0.1", "::1", "0.0.0.0", "::"]),
    ("TLS_ENABLED", &["false", "0"]),
    ("WHITELISTED_CLIENTS", &["127.0.0.1", "10.0.0.0/8,::1"]),
    ("PUBLISH_INTERVAL", &["100ms", "1s 500ms", "2m", "1h"]),
    ("HISTORY", &["0", "1m", "10m", "1h"]),
    ("SYSTEM_INTERVAL", &["100ms", "1h"]),
    ("DOCKER_INTERVAL", &["100ms", "1h"]),
    ("LOG_INTERVAL", &["100ms", "1h"]),
    ("LOG_LINES", &["0", "10000"]),
    ("TOP_PROCESSES", &["0", "1000"]),
    ("UNITS", &["0", "1000"]),
    ("PROCESS_COMMANDS", &["true", "0"]),
    ("DOCKER_ENABLED", &["false", "0"]),
    (
        "DOCKER_HOST",
        &["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:2375"],
    ),
    ("CONTAINER_STATS", &["auto", "kernel", "engine"]),
    ("CONTAINER_LABELS", &["*", "tier, com.example.*,v?"]),
    ("CONTAINER_ENV", &["*", "TIER, APP_*,V?"]),
    ("CONTAINER_SIZES_INTERVAL", &["0", "1m", "10m", "24h"]),
    ("CONTAINERS_INCLUDE", &["*", "web-*, label=tier=a*"]),
    (
        "CONTAINERS_EXCLUDE",
        &["/ci", "name=ci-?,image=*:1,label=job"],
    ),
    ("DISKS_EXCLUDE", &["/mnt/*, dm-*"]),
    ("NETWORKS_EXCLUDE", &["veth*,br-*"]),
    (
        "LOG_REDACT",
        &["AKIA[0-9A-Z]{16} (?i)token=(?P<secret>\\S+)", "é+"],
    ),
    ("HOST_ROOT", &["/", "/host/"]),
    (
        "METRICS_COLLECTORS",
        &["tcpstat", "interrupts, processes,softirqs,tcpstat"],
    ),
    ("TEXTFILE_DIR", &["/nonexistent/textfile", "/tmp/"]),
    ("MAX_CLIENTS", &["1", "100000"]),
    ("AUTH_TIMEOUT", &["500ms", "1m"]),
    ("WRITE_TIMEOUT", &["500ms", "1m"]),
    ("SHUTDOWN_TIMEOUT", &["500ms", "1m"]),
    ("LOG_FORMAT", &["json"]),
    (
        "RUST_LOG",
        &["info", "debug", "trace", "info,system_agent=debug"],
    ),
    (
        "NATS_URL",
        &[
            "nats://127.0.0.1",
            "tls://nats.example.org:4222, nats://[::1]:1",
        ],
    ),
    ("NATS_ENCODING", &["json", "zstd"]),
    ("NATS_SECTIONS", &["system", "system, logs,events"]),
    ("NATS_BUFFER", &["64KiB", "1 GiB"]),
    (
        "OTLP_ENDPOINT",
        &["http://127.0.0.1:4318", "https://otlp.example.org/otlp"],
    ),
    ("OTLP_SIGNALS", &["metrics", "logs, events"]),
    ("OTLP_INTERVAL", &["500ms", "1m"]),
    ("OTLP_NAMES", &["conventions", "receivers"]),
    (
        "OTLP_POINT_ATTRIBUTES",
        &["none", "container.name, container.id"],
    ),
    ("OTLP_TIMEOUT", &["500ms", "1m"]),
    ("OTLP_COMPRESSION", &["gzip", "zstd", "none"]),
];

/// Durations that are invalid for every variable.
const INVALID_DURATIONS: [&str; 6] = ["5", "1.5", "fast", "-5s", "5 parsecs", "0s"];

/// Invalid values. The daemon refuses to start with any of these values.
const BAD: &[(&str, &[&str])] = &[
    (
        "API_KEY",
        &[
            "7Zx!9qW",
            "two words",
            "tab\tinside",
            "schlüssel-ohne-ende",
            " kQ7zX2vLp9Rt",
        ],
    ),
    ("API_KEY_FILE", &["/nonexistent/key"]),
    ("SOCKET_PORT", &["65536", "-1", "http", "9000.5", "0x2328"]),
    (
        "SOCKET_ADDRESS",
        &["localhost", "127.0.0.256", "127.0.0.1:9000", "10.0.0.0/8"],
    ),
    ("TLS_ENABLED", &["yes", "2", "on"]),
    ("WHITELISTED_CLIENTS", &["nonsense"]),
    ("PUBLISH_INTERVAL", &["99ms", "61m"]),
    ("HISTORY", &["59s", "61m", "600"]),
    ("SYSTEM_INTERVAL", &["99ms", "61m"]),
    ("DOCKER_INTERVAL", &["99ms", "61m"]),
    ("LOG_INTERVAL", &["99ms", "61m"]),
    ("LOG_LINES", &["10001", "-1", "many", "1.5"]),
    ("TOP_PROCESSES", &["1001", "-1", "all"]),
    ("UNITS", &["1001", "-1", "all"]),
    ("PROCESS_COMMANDS", &["yes"]),
    ("CONTAINER_STATS", &["cgroup", "Auto"]),
    ("CONTAINER_LABELS", &[",", "two words", "a,,b"]),
    ("CONTAINER_ENV", &[",", "TWO WORDS", "A,,B"]),
    ("CONTAINER_SIZES_INTERVAL", &["59s", "24h 1s", "1"]),
    ("CONTAINERS_INCLUDE", &[",", "image=", "state=running"]),
    ("CONTAINERS_EXCLUDE", &[",", "two words", "a,,b"]),
    ("DISKS_EXCLUDE", &[",", "/mnt/two words"]),
    ("NETWORKS_EXCLUDE", &["a,,b"]),
    (
        "LOG_REDACT",
        &["fine [", "(?=ahead)", "x*", r"\w{9999}{9999}"],
    ),
    ("HOST_ROOT", &["host", "./", "/host/.."]),
    ("METRICS_COLLECTORS", &[",", "all", "tcpstat,cpu"]),
    ("TEXTFILE_DIR", &["textfile", "./", "/var/lib/.."]),
    ("DOCKER_ENABLED", &["no", "2"]),
    (
        "DOCKER_HOST",
        &[
            "/var/run/docker.sock",
            "ftp://127.0.0.1",
            "unix://",
            "tcp://",
        ],
    ),
    ("METRICS_PORT", &["65536", "-1", "http"]),
    ("MAX_CLIENTS", &["0", "-1", "unlimited"]),
    ("AUTH_TIMEOUT", &[]),
    ("WRITE_TIMEOUT", &[]),
    ("SHUTDOWN_TIMEOUT", &[]),
    ("LOG_FORMAT", &["xml", "JSON "]),
    ("RUST_LOG", &["loud", "system_agent=loud"]),
    (
        "NATS_URL",
        &[
            "127.0.0.1:4222",
            "http://127.0.0.1",
            "nats://",
            "nats://127.0.0.1:0",
        ],
    ),
    ("NATS_ENCODING", &["gzip", "ZSTD"]),
    ("NATS_SECTIONS", &["systems", "system,,logs"]),
    ("NATS_BUFFER", &["63KiB", "2GiB", "16", "16MB", "much"]),
    (
        "OTLP_ENDPOINT",
        &[
            "127.0.0.1:4318",
            "grpc://127.0.0.1",
            "http://",
            "http://127.0.0.1:0",
            "http://user:password@127.0.0.1",
        ],
    ),
    ("OTLP_HEADERS_FILE", &["/nonexistent/headers"]),
    ("OTLP_SIGNALS", &["traces", "metrics,,logs"]),
    ("OTLP_INTERVAL", &["99ms", "61m"]),
    ("OTLP_NAMES", &["semconv", "Receivers"]),
    ("OTLP_POINT_ATTRIBUTES", &["two words", "a,,b"]),
    ("OTLP_TIMEOUT", &["99ms", "61m"]),
    ("OTLP_COMPRESSION", &["deflate", "GZIP"]),
];

/// Returns a launcher with this value. All other settings are valid.
fn launch(variable: &str, value: &str) -> Launch {
    match variable {
        "API_KEY_FILE" => Launch::new().without("API_KEY").var(variable, value),
        "NATS_ENCODING" | "NATS_SECTIONS" | "NATS_BUFFER" => Launch::new()
            .var("NATS_URL", "nats://127.0.0.1:4222")
            .var(variable, value),
        _ if variable.starts_with("OTLP_") => Launch::new()
            .var("OTLP_ENDPOINT", "http://127.0.0.1:1")
            .var(variable, value),
        _ => Launch::new().var(variable, value),
    }
}

/// Asserts that the daemon did not start and printed one line for each of these variables, with the accepted values.
fn assert_refused(finished: &Finished, variables: &[&str]) {
    assert_eq!(finished.code(), EX_CONFIG, "{variables:?}: {finished:?}");
    assert!(finished.stdout.is_empty(), "{finished:?}");
    let lines = &finished.stderr;
    assert_eq!(lines.len(), variables.len(), "{variables:?}: {finished:?}");
    for variable in variables {
        let names = |line: &&String| line.contains(&format!("{variable}:"));
        let line = lines.iter().find(names);
        let line = line.unwrap_or_else(|| panic!("no line for {variable}: {finished:?}"));
        assert!(line.contains("accepted"), "{line}");
    }
}

#[test]
#[parallel]
fn the_daemon_starts_with_valid_values() {
    for (variable, values) in GOOD {
        for value in *values {
            launch(variable, value).start();
        }
    }
}

#[test]
#[parallel]
fn the_daemon_refuses_invalid_values_and_names_the_variable() {
    let durations =
        |variable: &str| variable.ends_with("_INTERVAL") || variable.ends_with("_TIMEOUT");
    for (variable, values) in BAD {
        let more = INVALID_DURATIONS.iter().filter(|_| durations(variable));
        for value in values.iter().chain(more) {
            let finished = launch(variable, value).run();
            let shown = finished.stderr.concat().contains(&format!("{variable}:"));
            assert!(shown, "{variable}={value:?}: {finished:?}");
            assert_refused(&finished, &[variable]);
        }
    }
}

#[test]
#[parallel]
fn every_variable_is_in_both_tables() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/agent.env");
    let example = fs::read_to_string(example).expect("cannot read config/agent.env");
    let assignments = example.lines().filter_map(|line| line.split_once('='));
    let names = assignments.map(|(name, _)| name.trim_start_matches(['#', ' ']));
    let names: Vec<&str> = names
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    for (name, _) in BAD {
        assert!(names.contains(name), "{name} is not in config/agent.env");
    }
    // Other tests cover these variables.
    let elsewhere = [
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "TLS_CLIENT_CA_FILE",
        "METRICS_BEARER_TOKEN_FILE",
        "NATS_CREDENTIALS_FILE",
        "NATS_NKEY_FILE",
        "NATS_TOKEN_FILE",
        "NATS_USER",
        "NATS_PASSWORD_FILE",
        "NATS_CA_FILE",
        "NATS_CERT_FILE",
        "NATS_KEY_FILE",
        "OTLP_CA_FILE",
        "OTLP_CERT_FILE",
        "OTLP_KEY_FILE",
    ];
    for name in names {
        let tried = BAD.iter().any(|(tried, _)| *tried == name);
        assert!(
            tried || elsewhere.contains(&name),
            "no test sets {name} to an invalid value"
        );
    }
}

#[test]
#[parallel]
fn an_empty_value_counts_as_unset() {
    let all = BAD.iter().map(|(variable, _)| *variable);
    // The test itself needs these variables.
    let given = ["API_KEY", "SOCKET_PORT", "SOCKET_ADDRESS", "DOCKER_ENABLED"];
    let launch = all.filter(|variable| !given.contains(variable));
    let launch = launch.fold(Launch::new(), |launch, variable| launch.var(variable, ""));
    launch.start().login().snapshot();
    assert_refused(&Launch::new().var("API_KEY", "").run(), &["API_KEY"]);
}

#[test]
#[parallel]
fn without_a_key_the_daemon_does_not_start() {
    let finished = Launch::new().without("API_KEY").run();
    assert_refused(&finished, &["API_KEY"]);
    assert!(finished.stderr[0].contains("not set"), "{finished:?}");
}

#[test]
#[parallel]
fn all_errors_are_printed_together() {
    let finished = Launch::new()
        .var("SOCKET_PORT", "70000")
        .var("PUBLISH_INTERVAL", "5")
        .var("WHITELISTED_CLIENTS", "nonsense")
        .run();
    assert_refused(
        &finished,
        &["SOCKET_PORT", "PUBLISH_INTERVAL", "WHITELISTED_CLIENTS"],
    );
    // An invalid value in every variable except `API_KEY_FILE`, which cannot be set together with `API_KEY`.
    let wrong = BAD
        .iter()
        .filter(|(variable, _)| *variable != "API_KEY_FILE");
    let wrong: Vec<&str> = wrong.map(|(variable, _)| *variable).collect();
    let launch = wrong.iter().fold(Launch::new(), |launch, variable| {
        launch.var(variable, "? ?")
    });
    assert_refused(&launch.run(), &wrong);
}

#[test]
#[parallel]
fn tls_needs_both_of_its_files() {
    let finished = Launch::new().var("TLS_ENABLED", "1").run();
    assert_refused(&finished, &["TLS_CERT_FILE", "TLS_KEY_FILE"]);
}

#[test]
#[parallel]
fn the_key_can_be_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        Launch::new()
            .without("API_KEY")
            .secret(content.trim())
            .var("API_KEY_FILE", path)
    };
    for end in ["", "\n", "\r\n"] {
        let agent = file("good", &format!("{KEY}{end}")).start();
        agent.login().snapshot();
    }
    for content in [
        "",
        "\n",
        "7Zx!9qW\n",
        "kQ7zX2vL p9Rt4WmB\n",
        "kQ7zX2vL\np9Rt4\n",
    ] {
        let finished = file("bad", content).run();
        assert_refused(&finished, &["API_KEY_FILE"]);
    }
    let finished = Launch::new()
        .without("API_KEY")
        .var("API_KEY_FILE", directory.path())
        .run();
    assert_refused(&finished, &["API_KEY_FILE"]);
}

#[test]
#[parallel]
fn a_key_and_a_key_file_together_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, KEY).unwrap();
    let finished = Launch::new().var("API_KEY_FILE", path).run();
    assert_eq!(finished.code(), EX_CONFIG);
    let [line] = finished.stderr.as_slice() else {
        panic!("not exactly one line: {finished:?}");
    };
    assert!(
        line.contains("API_KEY") && line.contains("API_KEY_FILE"),
        "{line}"
    );
}

#[test]
#[parallel]
fn a_value_that_is_not_utf_8_is_an_error_only_in_the_agents_variables() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let agent = Launch::new().var("ELSEWHERE", odd).start();
    agent.login().snapshot();
    let finished = Launch::new().var("TOP_PROCESSES", odd).run();
    assert_eq!(finished.code(), EX_CONFIG);
    assert!(
        finished.stderr.concat().contains("TOP_PROCESSES:"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn invalid_values_are_not_printed_because_they_can_be_secrets() {
    let secret = "Hx4Tq8Zw1Vn6";
    // Error messages contain paths, because the administrator has to find the file.
    let any_word = [
        "CONTAINER_LABELS",
        "CONTAINER_ENV",
        "CONTAINERS_INCLUDE",
        "CONTAINERS_EXCLUDE",
        "DISKS_EXCLUDE",
        "NETWORKS_EXCLUDE",
        "LOG_REDACT",
    ];
    let printed_or_valid = [&["API_KEY", "API_KEY_FILE"], &any_word[..]].concat();
    let variables = BAD.iter().map(|(variable, _)| variable);
    for variable in variables.filter(|variable| !printed_or_valid.contains(variable)) {
        let finished = Launch::new().var(variable, secret).secret(secret).run();
        assert_refused(&finished, &[variable]);
    }
    // Any word is a valid name or regular expression. The agent accepts the value and does not print it.
    for variable in any_word {
        Launch::new().var(variable, secret).secret(secret).start();
    }
    // An invalid expression is not printed either. The message contains only the reason.
    let finished = Launch::new()
        .var("LOG_REDACT", format!("({secret}"))
        .secret(secret)
        .run();
    assert_refused(&finished, &["LOG_REDACT"]);
}

#[test]
#[parallel]
fn a_port_in_use_is_reported_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let finished = Launch::new().var("SOCKET_PORT", &port).run();
    assert_ne!(finished.code(), 0);
    let lines: Vec<&String> = finished
        .stderr
        .iter()
        .filter(|line| line.contains(&port))
        .collect();
    let [line] = lines.as_slice() else {
        panic!("not exactly one line: {finished:?}");
    };
    assert!(line.to_lowercase().contains("in use"), "{line}");
    assert!(
        !finished.stderr.concat().contains("panicked"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn an_address_of_another_host_is_reported_in_one_line() {
    let finished = Launch::new().var("SOCKET_ADDRESS", "203.0.113.7").run();
    assert_ne!(finished.code(), 0);
    let lines = finished
        .stderr
        .iter()
        .filter(|line| line.contains("203.0.113.7"));
    assert_eq!(lines.count(), 1, "{finished:?}");
}
