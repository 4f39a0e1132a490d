//! Tests of TLS with OpenSSL's client.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serial_test::parallel;

use crate::support::{Agent, Authority, DEADLINE, KEY, Launch, OpenSsl, schema};

/// The options that make OpenSSL's client verify the agent.
fn verifying(authority: &Authority) -> [String; 3] {
    let file = authority.certificate.to_str().unwrap().to_owned();
    [
        "-verify_return_error".to_owned(),
        "-CAfile".to_owned(),
        file,
    ]
}

#[test]
#[parallel]
fn snapshots_are_streamed_with_tls_1_2_and_1_3() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let agent = identity.launch().var("PUBLISH_INTERVAL", "200ms").start();
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let options = [verifying(&authority).as_slice(), &[option.to_owned()]].concat();
        let mut client = OpenSsl::connect(agent.address(), &options);
        client.send(format!("{KEY}\n"));
        let first = client.snapshot()["agent"]["seq"].as_u64().unwrap();
        for later in 1..4 {
            assert_eq!(client.snapshot()["agent"]["seq"], first + later);
        }
        client.says(&format!("Protocol version: {version}"));
        client.says("Verification: OK");
    }
}

#[test]
#[parallel]
fn the_agent_ends_the_stream_with_close_notify() {
    let authority = Authority::new();
    let identity = authority.issue("agent");
    let mut agent = identity.launch().var("PUBLISH_INTERVAL", "100ms").start();
    let mut client = OpenSsl::connect(agent.address(), &verifying(&authority));
    client.send(format!("{KEY}\n"));
    client.snapshot();
    agent.signal(Signal::SIGTERM);
    assert!(agent.exit(DEADLINE).success());
    // Without the close_notify message of TLS, openssl reports an unexpected end.
    let (received, status) = client.finish();
    assert!(status.success(), "{status}");
    for line in &received {
        schema::snapshot(line);
    }
}

#[test]
#[parallel]
fn older_versions_of_tls_are_refused() {
    let authority = Authority::new();
    let agent = authority.issue("agent").launch().start();
    // At the default security level OpenSSL's client itself refuses these versions.
    let options = ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"];
    let mut client = OpenSsl::connect(agent.address(), &options);
    client.send(format!("{KEY}\n"));
    client.says("alert");
    let (received, status) = client.finish();
    assert!(received.is_empty() && !status.success(), "{received:?}");
}

#[test]
#[parallel]
fn a_wrong_key_is_refused_with_tls_too() {
    let authority = Authority::new();
    let agent = authority.issue("agent").launch().start();
    for line in ["wrong-key-of-some-length", "", &format!("{KEY}x")] {
        let mut client = OpenSsl::connect(agent.address(), &verifying(&authority));
        client.send(format!("{line}\n"));
        let (received, status) = client.finish();
        assert_eq!(received, ["Unauthorized"]);
        // The agent has sent close_notify, so the answer is complete.
        assert!(status.success(), "{status}");
    }
}

#[test]
#[parallel]
fn plaintext_on_a_tls_port_is_refused() {
    let authority = Authority::new();
    let agent = authority.issue("agent").launch().start();
    let started = Instant::now();
    for plaintext in [format!("{KEY}\n"), "GET / HTTP/1.1\r\n\r\n".to_owned()] {
        let mut client = agent.connect();
        let peer = client.local_address().to_string();
        client.send(plaintext);
        let (answer, _) = client.rest();
        // The answer is empty or a TLS alert: seven bytes that start with 0x15.
        let alert = answer.len() == 7 && answer[0] == 0x15;
        assert!(answer.is_empty() || alert, "{}", answer.escape_ascii());
        let event = agent.event_where("client refused", |event| event.text("peer") == peer);
        assert!(
            event.text("reason").to_lowercase().contains("tls"),
            "{event:?}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
#[parallel]
fn the_authentication_timeout_includes_the_handshake() {
    let authority = Authority::new();
    let launch = authority.issue("agent").launch();
    let agent = launch.var("AUTH_TIMEOUT", "500ms").start();
    let started = Instant::now();
    let (answer, _) = agent.connect().rest();
    assert_eq!(answer, b"");
    assert!(started.elapsed() >= Duration::from_millis(490));
    // A handshake does not extend the time for the key.
    let mut client = OpenSsl::connect(agent.address(), &verifying(&authority));
    client.says("CONNECTION ESTABLISHED");
    assert_eq!(client.line().as_deref(), Some("Unauthorized"));
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
#[parallel]
fn a_client_that_verifies_refuses_an_unknown_authority() {
    let agent = Authority::new().issue("agent");
    let (authority, other) = (Authority::new(), Authority::new());
    assert!(
        !agent.certificate.exists(),
        "dropping an authority must delete its files"
    );
    let agent = authority.issue("agent").launch().start();
    let mut client = OpenSsl::connect(agent.address(), &verifying(&other));
    client.send(format!("{KEY}\n"));
    client.says("verify error");
    let (received, status) = client.finish();
    assert!(received.is_empty() && !status.success(), "{received:?}");
    // The agent logs the refusal and serves the next client.
    agent.event("client refused");
    let mut client = OpenSsl::connect(agent.address(), &verifying(&authority));
    client.send(format!("{KEY}\n"));
    client.snapshot();
}

/// Asserts that the daemon exits with status 78 and prints one line with the variable and these words.
fn assert_fails(launch: Launch, variable: &str, words: &str) {
    let finished = launch.run();
    assert_eq!(finished.code(), 78, "{finished:?}");
    let [line] = finished.stderr.as_slice() else {
        panic!("not exactly one line: {finished:?}");
    };
    assert!(
        line.contains(variable),
        "the line does not contain {variable}: {line}"
    );
    assert!(
        line.contains(words),
        "the line does not contain {words:?}: {line}"
    );
}

#[test]
#[parallel]
fn a_missing_file_is_an_error_at_the_start() {
    let authority = Authority::new();
    let launch = || authority.issue("agent").launch();
    for variable in ["TLS_CERT_FILE", "TLS_KEY_FILE"] {
        assert_fails(launch().without(variable), variable, "not set");
        let missing = launch().var(variable, "/nonexistent/file.pem");
        assert_fails(missing, variable, "No such file");
        let directory = launch().var(variable, std::env::temp_dir());
        assert_fails(directory, variable, "directory");
    }
}

#[test]
#[parallel]
fn a_key_of_another_certificate_is_an_error_at_the_start() {
    let authority = Authority::new();
    let (agent, other) = (authority.issue("agent"), authority.issue("other"));
    let launch = agent.launch().var("TLS_KEY_FILE", &other.key);
    assert_fails(launch, "TLS_KEY_FILE", "does not match");
}

#[test]
#[parallel]
fn files_that_are_not_pem_are_errors_at_the_start() {
    let authority = Authority::new();
    let agent = authority.issue("agent");
    let pem = fs::read_to_string(&agent.certificate).unwrap();
    let garbage = [
        ("empty", String::new()),
        ("garbage", "garbage\n".to_owned()),
        ("cut", pem[..pem.len() / 2].to_owned()),
        (
            "hollow",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        ),
    ];
    for (name, content) in garbage {
        let file = authority.file(name, &content);
        let certificate = agent.launch().var("TLS_CERT_FILE", &file);
        assert_fails(certificate, "TLS_CERT_FILE", "accepted");
        let key = agent.launch().var("TLS_KEY_FILE", &file);
        assert_fails(key, "TLS_KEY_FILE", "accepted");
    }
    // Certificate and key are swapped.
    let swapped = agent.launch().var("TLS_CERT_FILE", &agent.key);
    assert_fails(swapped, "TLS_CERT_FILE", "contains no certificate");
    let swapped = agent.launch().var("TLS_KEY_FILE", &agent.certificate);
    assert_fails(swapped, "TLS_KEY_FILE", "contains no private key");
}

#[test]
#[parallel]
fn without_tls_the_files_are_ignored() {
    let agent = Agent::start(&[("TLS_CERT_FILE", "/nonexistent/file.pem")]);
    agent.login().snapshot();
}
