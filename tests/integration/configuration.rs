//! Configuration: every variable's good and bad values, all faults at once, and keys that are never shown.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;

use serial_test::parallel;

use crate::support::{Finished, KEY, Launch};

/// Exit status of a configuration that cannot be used (`EX_CONFIG`).
const UNUSABLE: i32 = 78;

/// Values with which the daemon starts.
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
    ("SYSTEM_INTERVAL", &["100ms", "1h"]),
    ("DOCKER_INTERVAL", &["100ms", "1h"]),
    ("LOG_INTERVAL", &["100ms", "1h"]),
    ("LOG_LINES", &["0", "10000"]),
    ("TOP_PROCESSES", &["0", "1000"]),
    ("DOCKER_ENABLED", &["false", "0"]),
    (
        "DOCKER_HOST",
        &["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:2375"],
    ),
    ("CONTAINER_STATS", &["auto", "kernel", "engine"]),
    ("CONTAINER_LABELS", &["*", "tier, com.example.*,v?"]),
    (
        "LOG_REDACT",
        &["AKIA[0-9A-Z]{16} (?i)token=(?P<secret>\\S+)", "é+"],
    ),
    ("HOST_ROOT", &["/", "/host/"]),
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
];

/// Durations that no variable takes.
const NO_DURATIONS: [&str; 6] = ["5", "1.5", "fast", "-5s", "5 parsecs", "0s"];

/// Values that stop the start.
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
    ("SYSTEM_INTERVAL", &["99ms", "61m"]),
    ("DOCKER_INTERVAL", &["99ms", "61m"]),
    ("LOG_INTERVAL", &["99ms", "61m"]),
    ("LOG_LINES", &["10001", "-1", "many", "1.5"]),
    ("TOP_PROCESSES", &["1001", "-1", "all"]),
    ("CONTAINER_STATS", &["cgroup", "Auto"]),
    ("CONTAINER_LABELS", &[",", "two words", "a,,b"]),
    (
        "LOG_REDACT",
        &["fine [", "(?=ahead)", "x*", r"\w{9999}{9999}"],
    ),
    ("HOST_ROOT", &["host", "./", "/host/.."]),
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
];

/// A launch in which only this variable is wrong.
fn launch(variable: &str, value: &str) -> Launch {
    match variable {
        "API_KEY_FILE" => Launch::new().without("API_KEY").var(variable, value),
        "NATS_ENCODING" | "NATS_SECTIONS" | "NATS_BUFFER" => Launch::new()
            .var("NATS_URL", "nats://127.0.0.1:4222")
            .var(variable, value),
        _ => Launch::new().var(variable, value),
    }
}

/// The start was refused; one line for each of these variables, in any order, saying what is accepted.
fn assert_refused(finished: &Finished, variables: &[&str]) {
    assert_eq!(finished.code(), UNUSABLE, "{variables:?}: {finished:?}");
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
fn good_values_start_the_daemon() {
    for (variable, values) in GOOD {
        for value in *values {
            launch(variable, value).start();
        }
    }
}

#[test]
#[parallel]
fn bad_values_stop_the_start_with_a_line_that_names_the_variable() {
    let durations =
        |variable: &str| variable.ends_with("_INTERVAL") || variable.ends_with("_TIMEOUT");
    for (variable, values) in BAD {
        let more = NO_DURATIONS.iter().filter(|_| durations(variable));
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
    let example = fs::read_to_string(example).expect("config/agent.env");
    let assignments = example.lines().filter_map(|line| line.split_once('='));
    let names = assignments.map(|(name, _)| name.trim_start_matches(['#', ' ']));
    let names: Vec<&str> = names
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    for (name, _) in BAD {
        assert!(names.contains(name), "{name} is not in config/agent.env");
    }
    // These have tests of their own.
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
    ];
    for name in names {
        let tried = BAD.iter().any(|(tried, _)| *tried == name);
        assert!(
            tried || elsewhere.contains(&name),
            "{name} is not tried here"
        );
    }
}

#[test]
#[parallel]
fn an_empty_value_counts_as_unset() {
    let all = BAD.iter().map(|(variable, _)| *variable);
    // These are what the test itself stands on.
    let given = ["API_KEY", "SOCKET_PORT", "SOCKET_ADDRESS", "DOCKER_ENABLED"];
    let launch = all.filter(|variable| !given.contains(variable));
    let launch = launch.fold(Launch::new(), |launch, variable| launch.var(variable, ""));
    launch.start().login().snapshot();
    assert_refused(&Launch::new().var("API_KEY", "").run(), &["API_KEY"]);
}

#[test]
#[parallel]
fn without_a_key_there_is_no_start() {
    let finished = Launch::new().without("API_KEY").run();
    assert_refused(&finished, &["API_KEY"]);
    assert!(finished.stderr[0].contains("not set"), "{finished:?}");
}

#[test]
#[parallel]
fn all_faults_are_told_at_once() {
    let finished = Launch::new()
        .var("SOCKET_PORT", "70000")
        .var("PUBLISH_INTERVAL", "5")
        .var("WHITELISTED_CLIENTS", "nonsense")
        .run();
    assert_refused(
        &finished,
        &["SOCKET_PORT", "PUBLISH_INTERVAL", "WHITELISTED_CLIENTS"],
    );
    // One fault in every variable that can have one without another.
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
fn the_key_may_come_from_a_file() {
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
fn a_key_and_a_file_are_one_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, KEY).unwrap();
    let finished = Launch::new().var("API_KEY_FILE", path).run();
    assert_eq!(finished.code(), UNUSABLE);
    let [line] = finished.stderr.as_slice() else {
        panic!("not one line: {finished:?}");
    };
    assert!(
        line.contains("API_KEY") && line.contains("API_KEY_FILE"),
        "{line}"
    );
}

#[test]
#[parallel]
fn what_is_not_text_matters_only_where_it_is_read() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let agent = Launch::new().var("ELSEWHERE", odd).start();
    agent.login().snapshot();
    let finished = Launch::new().var("TOP_PROCESSES", odd).run();
    assert_eq!(finished.code(), UNUSABLE);
    assert!(
        finished.stderr.concat().contains("TOP_PROCESSES:"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn no_value_is_told_since_it_may_be_a_secret_in_the_wrong_place() {
    let misplaced = "Hx4Tq8Zw1Vn6";
    // A path is told, or nobody could find the file.
    let any_word = ["CONTAINER_LABELS", "LOG_REDACT"];
    let told_or_good = [&["API_KEY", "API_KEY_FILE"], &any_word[..]].concat();
    let variables = BAD.iter().map(|(variable, _)| variable);
    for variable in variables.filter(|variable| !told_or_good.contains(variable)) {
        let finished = Launch::new()
            .var(variable, misplaced)
            .secret(misplaced)
            .run();
        assert_refused(&finished, &[variable]);
    }
    // Any word may be a label's name, or an expression: it is not refused, and not told either.
    for variable in any_word {
        Launch::new()
            .var(variable, misplaced)
            .secret(misplaced)
            .start();
    }
    // Nor is one that is wrong, though why it is.
    let finished = Launch::new()
        .var("LOG_REDACT", format!("({misplaced}"))
        .secret(misplaced)
        .run();
    assert_refused(&finished, &["LOG_REDACT"]);
}

#[test]
#[parallel]
fn a_port_in_use_is_told_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let finished = Launch::new().var("SOCKET_PORT", &port).run();
    assert_ne!(finished.code(), 0);
    let told: Vec<&String> = finished
        .stderr
        .iter()
        .filter(|line| line.contains(&port))
        .collect();
    let [line] = told.as_slice() else {
        panic!("not one line: {finished:?}");
    };
    assert!(line.to_lowercase().contains("in use"), "{line}");
    assert!(
        !finished.stderr.concat().contains("panicked"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn an_address_of_another_host_is_told_in_one_line() {
    let finished = Launch::new().var("SOCKET_ADDRESS", "203.0.113.7").run();
    assert_ne!(finished.code(), 0);
    let told = finished
        .stderr
        .iter()
        .filter(|line| line.contains("203.0.113.7"));
    assert_eq!(told.count(), 1, "{finished:?}");
}
