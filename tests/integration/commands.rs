//! The commands beside the daemon.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serial_test::parallel;

use crate::support::{Agent, Authority, Finished, KEY, Launch, net, schema};

/// What a fake agent answers to a client, given the line that the client sent.
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
            assert!(help.contains(command), "no {command} in {help}");
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
fn what_it_does_not_know_is_refused() {
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
fn run_is_what_it_does_without_a_command() {
    let agent = Launch::new().args(["run"]).start();
    agent.login().snapshot();
}

#[test]
#[parallel]
fn snapshot_prints_one_line() {
    // It opens no socket, so it needs no key, and what is wrong with the socket does not matter.
    let launch = Launch::new().without("API_KEY").without("SOCKET_PORT");
    let finished = launch.args(["snapshot"]).run();
    assert_eq!(finished.code(), 0, "{finished:?}");
    let [line] = finished.stdout.as_slice() else {
        panic!("not one line: {finished:?}");
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
fn snapshot_pretty_is_for_people() {
    let finished = run(&["snapshot", "--pretty"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert!(finished.stdout.len() > 30, "{finished:?}");
    schema::snapshot(&finished.stdout.join("\n"));
}

#[test]
#[parallel]
fn snapshot_without_an_engine_says_so() {
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
fn snapshot_refuses_what_it_would_have_to_ignore() {
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

/// The one line of `check` about this component, and its verdict.
fn verdict<'a>(finished: &'a Finished, component: &str) -> (&'a str, &'a str) {
    let about = |line: &&String| {
        let (_, text) = line.split_once(char::is_whitespace).unwrap_or_default();
        text.trim_start().starts_with(component)
    };
    let lines: Vec<&String> = finished.stdout.iter().filter(about).collect();
    let [line] = lines.as_slice() else {
        panic!("not one line for {component}: {finished:#?}");
    };
    line.split_once(char::is_whitespace).unwrap()
}

/// Every line of `check` is a verdict.
fn assert_verdicts(finished: &Finished) {
    for line in &finished.stdout {
        let verdict = line.split_whitespace().next();
        let known = matches!(verdict, Some("PASS" | "FAIL" | "SKIP"));
        assert!(known, "no verdict: {line:?}");
    }
}

#[test]
#[parallel]
fn check_tries_every_component() {
    let finished = run(&["check"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_verdicts(&finished);
    assert_eq!(verdict(&finished, "configuration").0, "PASS");
    let (passed, text) = verdict(&finished, "system metrics");
    assert_eq!(passed, "PASS");
    // It says what it saw and how long it took.
    assert!(text.contains("MiB") && text.contains("ms"), "{text}");
    for component in ["Docker", "container stats", "container logs", "TLS files"] {
        assert_eq!(verdict(&finished, component).0, "SKIP");
    }
}

#[test]
#[parallel]
fn check_looks_at_the_files_of_tls() {
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
    // What can be tried all the same is tried.
    assert_eq!(verdict(&finished, "system metrics").0, "PASS");
}

#[test]
#[parallel]
fn check_tells_every_fault_of_the_configuration() {
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
fn check_says_that_there_is_no_engine() {
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

/// It fails with one of these words in its reason.
fn assert_fails(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), 1, "{finished:#?}");
    assert_verdicts(finished);
    let failed = finished
        .stdout
        .iter()
        .filter(|line| line.starts_with("FAIL"));
    let failed: Vec<String> = failed.map(|line| line.to_lowercase()).collect();
    assert!(!failed.is_empty(), "{finished:#?}");
    let told = words.iter().any(|word| failed.concat().contains(word));
    assert!(told, "none of {words:?}: {finished:#?}");
}

#[test]
#[parallel]
fn check_socket_passes_on_a_healthy_agent() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms")]);
    assert_passes(&check_socket(Launch::new(), agent.address()));
    // Without an address it is the one that the configuration names.
    let port = agent.port().to_string();
    let launch = Launch::new()
        .var("SOCKET_PORT", port)
        .var("PUBLISH_INTERVAL", "200ms");
    assert_passes(&launch.args(["check", "socket"]).run());
    // The agent saw a wrong key and a right one.
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
    // One of the two speaks TLS and the other does not.
    assert_fails(
        &check_socket(Launch::new(), agent.address()),
        &["closed", "tls", "answer"],
    );
    let plain = Agent::start(&[]);
    assert_fails(&check_socket(identity.launch(), plain.address()), &["tls"]);
}

#[test]
#[parallel]
fn check_socket_fails_where_nobody_listens() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], net::free_port()));
    assert_fails(&check_socket(Launch::new(), nobody), &["refused"]);
}

#[test]
#[parallel]
fn check_socket_fails_with_another_key() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "200ms")]);
    let launch = Launch::new().var("API_KEY", "Jf5Ys1Hd8Gk3Lc6Pw0Xe");
    assert_fails(
        &check_socket(launch, agent.address()),
        &["unauthorized", "refused", "key"],
    );
}

#[test]
#[parallel]
fn check_socket_fails_where_it_is_not_welcome() {
    let agent = Agent::start(&[("WHITELISTED_CLIENTS", "203.0.113.7")]);
    assert_fails(
        &check_socket(Launch::new(), agent.address()),
        &["whitelist", "closed"],
    );
}

#[test]
#[parallel]
fn check_socket_fails_on_a_snapshot_that_is_late() {
    let agent = Agent::start(&[("PUBLISH_INTERVAL", "1h")]);
    let launch = Launch::new().var("PUBLISH_INTERVAL", "200ms");
    assert_fails(
        &check_socket(launch, agent.address()),
        &["second snapshot", "in time", "within"],
    );
}

/// A server that is not the agent; it serves until the test process ends.
fn fake(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let snapshot = run(&["snapshot"]).stdout.concat();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            // A client that leaves is no concern of a fake.
            let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
            answer(&mut stream, &line, &snapshot);
        }
    });
    address
}

fn send(stream: &mut TcpStream, text: &str) {
    // A client that left is no concern of a fake.
    let _ = stream.write_all(text.as_bytes());
}

/// Refuses other keys as an agent does.
fn refuses(stream: &mut TcpStream, line: &str) -> bool {
    let refused = line.trim_end() != KEY;
    if refused {
        send(stream, "Unauthorized\n");
    }
    refused
}

#[test]
#[parallel]
fn check_socket_fails_on_a_server_that_is_no_agent() {
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
fn check_socket_fails_on_a_single_snapshot() {
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
fn check_socket_fails_where_any_key_is_accepted() {
    let open: Answer = |stream, _, snapshot| {
        send(stream, &format!("{snapshot}\n{snapshot}\n"));
    };
    assert_fails(&check_socket(Launch::new(), fake(open)), &["wrong key"]);
}

#[test]
#[parallel]
fn check_socket_fails_on_silence() {
    // It accepts, by way of the kernel, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    assert_fails(
        &check_socket(Launch::new(), address),
        &["answer", "time", "within"],
    );
}
