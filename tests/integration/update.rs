//! Tests of `system-agent update --check`, with a small HTTP server as the folder of releases.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{Authority, Finished, Launch, otlp};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Starts a server that gives each client this answer. Returns its address. An empty answer stands for a server that never answers.
fn serve(answer: String, tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            match &tls {
                None => reply(stream, &answer),
                Some(config) => {
                    let server = ServerConnection::new(Arc::clone(config)).unwrap();
                    reply(StreamOwned::new(server, stream), &answer);
                }
            }
        }
    });
    address
}

fn reply(mut stream: impl Read + Write, answer: &str) {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            // The client has given up.
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&piece[..read]),
        }
    }
    if answer.is_empty() {
        // Returns when the client closes the connection.
        let _ = stream.read(&mut piece);
        return;
    }
    let request = String::from_utf8(request).unwrap();
    let answer = match request.starts_with("GET /releases/latest HTTP/1.1\r\n") {
        true => answer,
        false => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    };
    // The client closes the connection early if the answer is too long.
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.flush();
}

fn file(content: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    )
}

fn check(url: &str) -> Finished {
    Launch::new()
        .args(["update", "--check", "--url", url])
        .run()
}

/// Runs the command with a server that has this file.
fn check_file(content: &str) -> (String, Finished) {
    let url = format!("http://{}/releases", serve(file(content), None));
    let finished = check(&url);
    (url, finished)
}

/// Fails unless the command has failed with one line on stderr that contains `reason`.
fn assert_failed(finished: &Finished, reason: &str) {
    assert_eq!(finished.code(), 1, "{reason}: {finished:?}");
    assert!(finished.stdout.is_empty(), "{finished:?}");
    let [line] = finished.stderr.as_slice() else {
        panic!("not exactly one error: {finished:?}");
    };
    assert!(
        line.starts_with("system-agent: update: ") && line.contains(reason),
        "no {reason:?} in {line}"
    );
}

#[test]
#[parallel]
fn a_newer_release_is_named_with_status_10() {
    for newer in ["999.0.0", "0.999.0-rc.1\r\n"] {
        let (url, finished) = check_file(newer);
        assert_eq!(finished.code(), 10, "{finished:?}");
        let newer = newer.trim();
        let expected = format!(
            "system-agent {newer} is available; this is {VERSION}. How to install it: {url}/install.sh"
        );
        assert_eq!(finished.stdout, [expected]);
        assert!(finished.stderr.is_empty(), "{finished:?}");
    }
}

#[test]
#[parallel]
fn the_newest_release_and_a_newer_build_are_not_updated() {
    for newest in [VERSION, &format!("{VERSION}\n"), &format!("{VERSION}-rc.1")] {
        let (_, finished) = check_file(newest);
        assert_eq!(finished.code(), 0, "{newest}: {finished:?}");
        let expected = format!("system-agent {VERSION} is the newest release.");
        assert_eq!(finished.stdout, [expected]);
        assert!(finished.stderr.is_empty(), "{finished:?}");
    }
}

#[test]
#[parallel]
fn a_file_that_is_no_version_is_refused() {
    for wrong in ["", "v1.2.3", "1.2", "1.2.3\n1.2.4", "<html></html>"] {
        let (url, finished) = check_file(wrong);
        assert_failed(&finished, &format!("{url}/latest: not a version"));
    }
    let padded = |length: usize| format!("999.0.0{}", " ".repeat(length - 7));
    assert_eq!(check_file(&padded(1024)).1.code(), 10);
    assert_failed(&check_file(&padded(1025)).1, "longer than 1024 bytes");
}

#[test]
#[parallel]
fn an_answer_with_another_status_is_refused() {
    let address = serve(file("999.0.0"), None);
    let finished = check(&format!("http://{address}/elsewhere/"));
    assert_failed(
        &finished,
        "/elsewhere/latest: the server answers 404 Not Found",
    );
}

/// The answer of a server that redirects to another address.
fn moved(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
#[parallel]
fn redirections_are_followed_five_times() {
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let mut address = serve(file("999.0.0"), None);
        for _ in 0..5 {
            let location = format!("http://{address}/releases/latest");
            address = serve(moved(status, &location), None);
        }
        let url = format!("http://{address}/releases");
        let finished = check(&url);
        assert_eq!(finished.code(), 10, "{status}: {finished:?}");
        // The answer names the URL that the user has given.
        assert!(finished.stdout[0].ends_with(&format!("{url}/install.sh")));
        let one_more = serve(moved(status, &format!("{url}/latest")), None);
        let finished = check(&format!("http://{one_more}/releases"));
        assert_failed(&finished, "more than 5 redirections");
    }
    let redirected = |location: &str| {
        let address = serve(moved("302 Found", location), None);
        check(&format!("http://{address}/releases"))
    };
    // The server answers 404 for every other path.
    assert_failed(
        &redirected("/elsewhere"),
        "/elsewhere: the server answers 404",
    );
    let secret = redirected("/elsewhere?signature=hidden");
    assert!(!secret.stderr.concat().contains("hidden"), "{secret:?}");
    assert_failed(
        &redirected("ftp://example.org/"),
        "redirects to another address: unsupported scheme",
    );
    assert_failed(&redirected("/releases/latest"), "more than 5 redirections");
    let none = serve(
        "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        None,
    );
    let finished = check(&format!("http://{none}/releases"));
    assert_failed(&finished, "no usable header Location");
}

#[test]
#[parallel]
fn a_server_that_does_not_answer_is_given_up_after_10_seconds() {
    let began = Instant::now();
    let url = format!("http://{}/releases", serve(String::new(), None));
    assert_failed(&check(&url), "no answer within 10 s");
    assert!(began.elapsed() >= Duration::from_secs(10));
    // No program listens at the port of a listener that is closed.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let finished = check(&format!("http://{}", closed.unwrap()));
    assert_failed(&finished, "Connection refused");
}

#[test]
#[parallel]
fn the_url_comes_from_the_option_or_from_the_variable() {
    let run = |arguments: &[&str], variable: &str| {
        let launch = Launch::new().var("UPDATE_URL", variable);
        let arguments = ["update", "--check"].iter().chain(arguments);
        launch.args(arguments).run()
    };
    let newer = format!("http://{}/releases", serve(file("999.0.0"), None));
    let same = format!("http://{}/releases/", serve(file(VERSION), None));
    assert_eq!(run(&[], &newer).code(), 10);
    assert_eq!(run(&["--url", &same], &newer).code(), 0);
    assert_failed(&run(&[], ""), "no URL of releases");
    assert_failed(&run(&[], "releases.example.org"), "UPDATE_URL: no scheme");
    let secret = run(&[], "https://user:hidden@releases.example.org");
    assert_failed(&secret, "UPDATE_URL: credentials in the URL");
    assert!(!secret.stderr.concat().contains("hidden"), "{secret:?}");
    let ftp = ["--url", "ftp://releases.example.org"];
    assert_failed(&run(&ftp, &newer), "--url: unsupported scheme");
    // Without the option, the command does not say what it would do.
    let finished = Launch::new().args(["update", "--url", &newer]).run();
    assert_eq!(finished.code(), 2, "{finished:?}");
}

#[test]
#[parallel]
fn the_certificate_of_the_server_must_come_from_an_authority_of_the_system() {
    let authority = Authority::new();
    let identity = authority.issue("releases");
    let tls = otlp::tls(&identity.certificate, &identity.key);
    let address = serve(file("999.0.0"), Some(tls));
    let url = format!("https://localhost:{}/releases", address.port());
    let run = |trusted: &Authority| {
        let launch = Launch::new().var("SSL_CERT_FILE", &trusted.certificate);
        launch.args(["update", "--check", "--url", &url]).run()
    };
    assert_eq!(run(&authority).code(), 10);
    assert_failed(&run(&Authority::new()), "invalid peer certificate");
}
