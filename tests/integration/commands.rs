//! Tests of the commands other than the daemon: `check`, `snapshot`, help and version.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serial_test::parallel;

use crate::support::{Agent, Authority, Finished, KEY, Launch, net, schema};

/// A function that answers a client as a fake agent. The arguments are the connection, the client's line and a snapshot.
type Answer = fn(&mut TcpStream, &str, &str);

fn run(arguments: &[&str]) -> Finished {
    Launch::new().args(arguments).run()
}

#[test]
#[parallel]
fn help_names_every_command() {
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        let finished = run(arguments);
        assert_eq!(finished.code(), 0, "{finished:?}");
        let help = finished.stdout.join("\n");
        for command in ["run", "check", "snapshot", "--help", "--version"] {
            assert!(help.contains(command), "the help has no {command}: {help}");
        }
    }
    let finished = run(&["check", "--help"]);
    assert!(finished.stdout.concat().contains("socket"), "{finished:?}");
    let finished = run(&["snapshot", "--help"]);
    assert!(
        finished.stdout.concat().contains("--pretty"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn the_version_is_that_of_the_crate() {
    let finished = run(&["--version"]);
    assert_eq!(finished.code(), 0);
    let version = concat!("system-agent ", env!("CARGO_PKG_VERSION"));
    assert_eq!(finished.stdout, [version]);
}

#[test]
#[parallel]
fn unknown_commands_and_options_are_refused() {
    let wrong: [&[&str]; 6] = [
        &["serve"],
        &["--verbose"],
        &["run", "now"],
        &["snapshot", "--ugly"],
        &["check", "everything"],
        &["check", "socket", "127.0.0.1:1", "127.0.0.1:2"],
    ];
    for arguments in wrong {
        let finished = run(arguments);
        assert_eq!(finished.code(), 2, "{arguments:?}: {finished:?}");
        assert!(finished.stdout.is_empty(), "{finished:?}");
        assert!(!finished.stderr.is_empty());
    }
}

#[test]
#[parallel]
fn the_command_run_starts_the_daemon() {
    let agent = Launch::new().args(["run"]).start();
    agent.login().snapshot();
}

#[test]
#[parallel]
fn snapshot_prints_one_line() {
    // The command opens no socket, so it needs neither a key nor valid settings of the socket.
    let launch = Launch::new().without("API_KEY").without("SOCKET_PORT");
    let finished = launch.args(["snapshot"]).run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let [line] = finished.stdout.as_slice() else {
        panic!("not exactly one line: {finished:?}");
    };
    let snapshot = schema::snapshot(line);
    assert_eq!(snapshot["status"], "ok");
    assert_eq!(snapshot["agent"]["seq"], 1);
    assert_eq!(snapshot["agent"]["clients"], 0);
    assert!(snapshot["agent"]["memory_rss"].as_u64().unwrap() > 1 << 20);
    assert!(finished.stderr.is_empty(), "{finished:?}");
}

#[test]
#[parallel]
fn snapshot_pretty_prints_an_indented_object() {
    let finished = run(&["snapshot", "--pretty"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert!(finished.stdout.len() > 30, "{finished:?}");
    schema::snapshot(&finished.stdout.join("\n"));
}

#[test]
#[parallel]
fn snapshot_without_an_engine_has_a_failing_source() {
    let launch = Launch::new()
        .var("DOCKER_ENABLED", "true")
        .var("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let finished = launch.args(["snapshot"]).run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let snapshot = schema::snapshot(&finished.stdout.concat());
    assert_eq!(snapshot["status"], "degraded");
    assert_eq!(snapshot["sources"]["system"]["status"], "ok");
    assert_eq!(snapshot["sources"]["docker"]["status"], "failing");
}

#[test]
#[parallel]
fn snapshot_refuses_an_invalid_setting() {
    let finished = Launch::new()
        .var("TOP_PROCESSES", "all")
        .args(["snapshot"])
        .run();
    assert_eq!(finished.code(), 78);
    assert!(
        finished.stderr.concat().contains("TOP_PROCESSES:"),
        "{finished:?}"
    );
}

/// The verdict of `check` on this component, and the text after the verdict.
fn verdict<'a>(finished: &'a Finished, component: &str) -> (&'a str, &'a str) {
    let about = |line: &&String| {
        let (_, text) = line.split_once(char::is_whitespace).unwrap_or_default();
        text.trim_start().starts_with(component)
    };
    let lines: Vec<&String> = finished.stdout.iter().filter(about).collect();
    let [line] = lines.as_slice() else {
        panic!("not exactly one line for {component}: {finished:#?}");
    };
    line.split_once(char::is_whitespace).unwrap()
}

/// Asserts that every line of `check` starts with a verdict.
fn assert_verdicts(finished: &Finished) {
    for line in &finished.stdout {
        let verdict = line.split_whitespace().next();
        let known = matches!(verdict, Some("PASS" | "FAIL" | "SKIP"));
        assert!(known, "no verdict: {line:?}");
    }
}

#[test]
#[parallel]
fn check_tests_every_component() {
    let finished = run(&["check"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_verdicts(&finished);
    assert_eq!(verdict(&finished, "configuration").0, "PASS");
    let (passed, text) = verdict(&finished, "system metrics");
    assert_eq!(passed, "PASS");
    // The text contains the memory and the duration.
    assert!(text.contains("MiB") && text.contains("ms"), "{text}");
    for component in ["Docker", "container stats", "container logs", "TLS files"] {
        assert_eq!(verdict(&finished, component).0, "SKIP");
    }
}

#[test]
#[parallel]
fn check_reads_the_tls_files() {
    let authority = Authority::new();
    let (agent, other) = (authority.issue("agent"), authority.issue("other"));
    let finished = agent.launch().args(["check"]).run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_eq!(verdict(&finished, "TLS files").0, "PASS");
    let wrong = agent.launch().var("TLS_KEY_FILE", &other.key);
    let finished = wrong.args(["check"]).run();
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert_verdicts(&finished);
    let (failed, text) = verdict(&finished, "TLS files");
    assert!(
        failed == "FAIL" && text.contains("does not match"),
        "{text}"
    );
    // `check` still tests the other components.
    assert_eq!(verdict(&finished, "system metrics").0, "PASS");
}

#[test]
#[parallel]
fn check_lists_every_error_of_the_configuration() {
    let launch = Launch::new()
        .var("SOCKET_PORT", "http")
        .var("AUTH_TIMEOUT", "5");
    let finished = launch.args(["check"]).run();
    assert_eq!(finished.code(), 1, "{finished:?}");
    let all = finished.stdout.join("\n");
    for expected in ["FAIL", "SOCKET_PORT:", "AUTH_TIMEOUT:"] {
        assert!(all.contains(expected), "no {expected}: {all}");
    }
    assert!(
        all.contains("PASS") && all.contains("system metrics"),
        "{all}"
    );
}

#[test]
#[parallel]
fn check_fails_without_an_engine() {
    let launch = Launch::new()
        .var("DOCKER_ENABLED", "true")
        .var("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let finished = launch.args(["check"]).run();
    assert_eq!(finished.code(), 1, "{finished:?}");
    let (failed, text) = verdict(&finished, "Docker");
    assert!(
        failed == "FAIL" && text.contains("/nonexistent/docker.sock"),
        "{text}"
    );
    assert_eq!(verdict(&finished, "system metrics").0, "PASS");
    for component in ["container stats", "container logs"] {
        assert_ne!(verdict(&finished, component).0, "PASS");
    }
}

/// Runs `check socket` against this address.
fn check_socket(launch: Launch, address: SocketAddr) -> Finished {
    let target = address.to_string();
    let launch = launch.var("PUBLISH_INTERVAL", "200ms");
    launch
        .args(["check", "socket", &target])
        .run_within(Duration::from_secs(60))
}

fn assert_passes(finished: &Finished) {
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert_verdicts(finished);
    let all = finished.stdout.concat();
    assert!(
        !all.contains("FAIL") && all.contains("PASS"),
        "{finished:#?}"
    );
}

/// Asserts that `check` fails and that the printed reason contains one of these words.
fn assert_fails(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), 1, "{finished:#?}");
    assert_verdicts(finished);
    let failed = finished
        .stdout
        .iter()
        .filter(|line| line.starts_with("FAIL"));
    let failed: Vec<String> = failed.map(|line| line.to_lowercase()).collect();
    assert!(!failed.is_empty(), "{finished:#?}");
    let found = words.iter().any(|word| failed.concat().contains(word));
    assert!(found, "none of {words:?}: {finished:#?}");
}

#[test]
#[parallel]
fn check_socket_passes_on_a_healthy_agent() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms")]);
    assert_passes(&check_socket(Launch::new(), agent.address()));
    // Without an address, `check socket` uses the configured address.
    let port = agent.port().to_string();
    let launch = Launch::new()
        .var("SOCKET_PORT", port)
        .var("PUBLISH_INTERVAL", "200ms");
    assert_passes(&launch.args(["check", "socket"]).run());
    // `check socket` sends a wrong key and then the right key.
    agent.event("client refused");
    agent.event("client connected");
}

#[test]
#[parallel]
fn check_socket_passes_over_ipv6() {
    let agent = Agent::start(&[("SOCKET_ADDRESS", "::1"), ("PUBLISH_INTERVAL", "200ms")]);
    assert_passes(&check_socket(Launch::new(), agent.address()));
}

#[test]
#[parallel]
fn check_socket_passes_over_tls() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("PUBLISH_INTERVAL", "200ms").start();
    assert_passes(&check_socket(identity.launch(), agent.address()));
    // In the first case only the agent uses TLS, and in the second case only `check socket`.
    assert_fails(
        &check_socket(Launch::new(), agent.address()),
        &["closed", "tls", "answer"],
    );
    let plain = Agent::start(&[]);
    assert_fails(&check_socket(identity.launch(), plain.address()), &["tls"]);
}

#[test]
#[parallel]
fn check_socket_fails_if_no_socket_listens() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], net::free_port()));
    assert_fails(&check_socket(Launch::new(), nobody), &["refused"]);
}

#[test]
#[parallel]
fn check_socket_fails_with_a_wrong_key() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms")]);
    let launch = Launch::new().var("API_KEY", "Jf5Ys1Hd8Gk3Lc6Pw0Xe");
    assert_fails(
        &check_socket(launch, agent.address()),
        &["unauthorized", "refused", "key"],
    );
}

#[test]
#[parallel]
fn check_socket_fails_if_the_whitelist_refuses_it() {
    let agent = Agent::start(&[("WHITELISTED_CLIENTS", "203.0.113.7")]);
    assert_fails(
        &check_socket(Launch::new(), agent.address()),
        &["whitelist", "closed"],
    );
}

#[test]
#[parallel]
fn check_socket_fails_if_the_second_snapshot_is_late() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h")]);
    let launch = Launch::new().var("PUBLISH_INTERVAL", "200ms");
    assert_fails(
        &check_socket(launch, agent.address()),
        &["second snapshot", "in time", "within"],
    );
}

/// Starts a server that is not an agent. The server runs until the test process ends.
fn fake(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let snapshot = run(&["snapshot"]).stdout.concat();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            // The fake ignores a client that disconnects.
            let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
            answer(&mut stream, &line, &snapshot);
        }
    });
    address
}

fn send(stream: &mut TcpStream, text: &str) {
    // The fake ignores a client that has disconnected.
    let _ = stream.write_all(text.as_bytes());
}

/// Refuses a wrong key as an agent does. Returns whether the key was refused.
fn refuses(stream: &mut TcpStream, line: &str) -> bool {
    let refused = line.trim_end() != KEY;
    if refused {
        send(stream, "Unauthorized\n");
    }
    refused
}

#[test]
#[parallel]
fn check_socket_fails_if_the_server_is_not_an_agent() {
    let garbage: Answer = |stream, line, _| {
        if !refuses(stream, line) {
            send(stream, "220 mail.example.com ESMTP\r\n");
        }
    };
    assert_fails(
        &check_socket(Launch::new(), fake(garbage)),
        &["snapshot", "json"],
    );
    let other_json: Answer = |stream, line, _| {
        if !refuses(stream, line) {
            send(stream, "{\"status\":\"ok\"}\n{\"status\":\"ok\"}\n");
        }
    };
    assert_fails(
        &check_socket(Launch::new(), fake(other_json)),
        &["snapshot", "missing"],
    );
}

#[test]
#[parallel]
fn check_socket_fails_if_the_stream_ends_after_one_snapshot() {
    let single: Answer = |stream, line, snapshot| {
        if !refuses(stream, line) {
            send(stream, &format!("{snapshot}\n"));
        }
    };
    assert_fails(
        &check_socket(Launch::new(), fake(single)),
        &["closed", "second", "end"],
    );
    let cut: Answer = |stream, line, snapshot| {
        if !refuses(stream, line) {
            send(stream, &format!("{snapshot}\n{}", &snapshot[..100]));
        }
    };
    assert_fails(
        &check_socket(Launch::new(), fake(cut)),
        &["closed", "second", "end", "cut"],
    );
}

#[test]
#[parallel]
fn check_socket_fails_if_the_agent_accepts_any_key() {
    let open: Answer = |stream, _, snapshot| {
        send(stream, &format!("{snapshot}\n{snapshot}\n"));
    };
    assert_fails(&check_socket(Launch::new(), fake(open)), &["wrong key"]);
}

#[test]
#[parallel]
fn check_socket_fails_if_the_server_is_silent() {
    // The kernel accepts the connection, but no program answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    assert_fails(
        &check_socket(Launch::new(), address),
        &["answer", "time", "within"],
    );
}
