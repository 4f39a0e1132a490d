//! Who can read the page: the address, the login, guests, other sites and proxies.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serial_test::parallel;
use tempfile::TempDir;

use super::browser::{Answer, PageServer};
use crate::support::{DEADLINE, Launch, wait};

const PASSWORD: &str = "correct horse battery";

/// Sets a password as a person does. The result has the file of the hash.
fn set_password(password: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let (status, error) = try_set_password(&file, password);
    assert_eq!(status, Some(0), "{error}");
    (folder, file)
}

fn try_set_password(file: &Path, password: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_system-agent"))
        .args(["web", "--set-password"])
        .env_clear()
        .env("WEB_PASSWORD_FILE", file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("{password}\n").as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), error)
}

fn with_password(file: &Path) -> Launch {
    Launch::new()
        .args(["web"])
        .var("WEB_PASSWORD_FILE", file)
        .secret(PASSWORD)
}

/// The line of the head that sends a cookie back.
fn cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").expect("there is no cookie");
    format!("Cookie: {}", cookie.split(';').next().unwrap())
}

#[test]
#[parallel]
fn a_password_is_needed_for_everything_but_the_page_itself() {
    let (_folder, file) = set_password(PASSWORD);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let server = PageServer::launch(with_password(&file));
    for path in [
        "hosts",
        "hosts/local",
        "hosts/local/history?series=cpu",
        "hosts/local/series",
        "hosts/local/events",
        "hosts/local/logs",
        "hosts/local/logs/older?container=a",
        "hosts/local/logs/download?container=a",
        "stream",
        "openapi.json",
        "unknown",
    ] {
        let answer = server.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}");
    }
    let session = server.json("/api/v1/session");
    assert_eq!(
        (&session["user"], &session["login"]),
        (&serde_json::Value::Null, &true.into())
    );
    assert_ne!(server.get("/").status, 401);

    let wrong = server.log_in("wrong password");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    assert_eq!(
        server.request("POST", "/api/v1/login", &[], "{").status,
        400
    );

    let right = server.log_in(PASSWORD);
    assert_eq!((right.status, right.body.as_str()), (204, ""));
    let text = right.header("set-cookie").unwrap();
    assert!(text.contains("; HttpOnly; SameSite=Strict"), "{text}");
    assert!(!text.contains("Secure"), "there is no TLS: {text}");
    let cookie = cookie(&right);
    let with_cookie = |path: &str| server.request("GET", path, &[&cookie], "");
    assert_eq!(with_cookie("/api/v1/hosts").status, 200);
    assert_eq!(with_cookie("/api/v1/session").json()["user"], "admin");

    // The end of the session.
    assert_eq!(
        server
            .request("POST", "/api/v1/logout", &[&cookie], "")
            .status,
        204
    );
    assert_eq!(with_cookie("/api/v1/hosts").status, 401);
    server.process.event("wrong password for the page");
}

#[test]
#[parallel]
fn a_session_without_requests_expires() {
    let (_folder, file) = set_password(PASSWORD);
    let server = PageServer::launch(with_password(&file).var("WEB_SESSION_TIME", "1s"));
    let cookie = cookie(&server.log_in(PASSWORD));
    let status = || {
        server
            .request("GET", "/api/v1/hosts", &[&cookie], "")
            .status
    };
    assert_eq!(status(), 200);
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(status(), 401);
    assert_eq!(status(), 401, "an expired session does not come back");
}

#[test]
#[parallel]
fn wrong_passwords_block_an_address_even_for_the_right_password() {
    let (_folder, file) = set_password(PASSWORD);
    let server = PageServer::launch(with_password(&file));
    let start = Instant::now();
    for guess in 0..5 {
        assert_eq!(server.log_in(&format!("guess number {guess}")).status, 401);
    }
    // The first block lasts 1 s, and a guess takes far less.
    let blocked = server.log_in(PASSWORD);
    assert_eq!(
        blocked.status,
        429,
        "{blocked:?} after {:?}",
        start.elapsed()
    );
    assert_eq!(blocked.header("retry-after"), Some("1"));
    assert!(
        blocked.json()["error"]
            .as_str()
            .unwrap()
            .contains("try again in 1 s")
    );
    let right = wait::until("the end of the block", DEADLINE, || {
        let answer = server.log_in(PASSWORD);
        (answer.status == 204).then_some(answer)
    });
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(right.header("set-cookie").is_some());
}

#[test]
#[parallel]
fn a_guest_reads_without_a_login() {
    let (_folder, file) = set_password(PASSWORD);
    let server = PageServer::launch(with_password(&file).var("WEB_GUEST", "read-only"));
    let session = server.json("/api/v1/session");
    assert_eq!(
        (&session["user"], &session["login"]),
        (&"guest".into(), &true.into())
    );
    assert_eq!(server.get("/api/v1/hosts").status, 200);
    let cookie = cookie(&server.log_in(PASSWORD));
    let session = server.request("GET", "/api/v1/session", &[&cookie], "");
    assert_eq!(session.json()["user"], "admin");
}

#[test]
#[parallel]
fn an_open_address_is_refused_with_one_clear_error() {
    let refused = Launch::new()
        .args(["web"])
        .var("WEB_ADDRESS", "0.0.0.0:0")
        .run();
    assert_eq!(refused.code(), 78);
    let [line] = refused.stderr.as_slice() else {
        panic!("{refused:?}");
    };
    assert!(
        line.contains("WEB_ADDRESS: other hosts can reach this address"),
        "{line}"
    );
    for name in [
        "WEB_PASSWORD_FILE",
        "WEB_TLS_CERT_FILE",
        "WEB_TRUSTED_PROXY",
    ] {
        assert!(line.contains(name), "{line}");
    }
}

#[test]
#[parallel]
fn requests_by_other_sites_are_refused() {
    let server = PageServer::start(&[], &[]);
    // A name that another site has directed to 127.0.0.1.
    let rebound = server.request("GET", "/api/v1/hosts", &["Host: evil.example"], "");
    assert_eq!(rebound.status, 403);
    let local = format!("Host: localhost:{}", server.address.port());
    assert_eq!(
        server.request("GET", "/api/v1/hosts", &[&local], "").status,
        200
    );

    let (_folder, file) = set_password(PASSWORD);
    let server = PageServer::launch(with_password(&file));
    let body = format!("{{\"password\":\"{PASSWORD}\"}}");
    let post = |head: &[&str]| server.request("POST", "/api/v1/login", head, &body).status;
    assert_eq!(post(&["Origin: https://evil.example"]), 403);
    assert_eq!(post(&["Origin: null"]), 403);
    assert_eq!(post(&["Sec-Fetch-Site: cross-site"]), 403);
    let own = format!("Origin: http://{}", server.address);
    assert_eq!(post(&[&own, "Sec-Fetch-Site: same-origin"]), 204);
}

#[test]
#[parallel]
fn the_header_of_a_proxy_counts_only_from_its_address() {
    let trusted = |network: &str| {
        let proxy = format!("{network} X-Forwarded-User");
        PageServer::start(&[], &[("WEB_TRUSTED_PROXY", &proxy)])
    };
    let named = ["X-Forwarded-User: alice"];
    let server = trusted("127.0.0.1/32");
    assert_eq!(
        server.request("GET", "/api/v1/hosts", &named, "").status,
        200
    );
    assert_eq!(server.get("/api/v1/hosts").status, 401);
    assert_eq!(
        server
            .request("GET", "/api/v1/hosts", &["X-Forwarded-User:"], "")
            .status,
        401
    );
    let session = server.json("/api/v1/session");
    assert_eq!(
        (&session["user"], &session["login"]),
        (&serde_json::Value::Null, &false.into())
    );

    let server = trusted("192.0.2.0/24");
    assert_eq!(
        server.request("GET", "/api/v1/hosts", &named, "").status,
        401
    );
}

#[test]
#[parallel]
fn every_answer_has_the_security_headers() {
    let server = PageServer::start(&[], &[]);
    for path in ["/", "/api/v1/hosts", "/api/v1/unknown", "/hosts/a"] {
        let answer = server.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self';"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        assert!(answer.header("cache-control").is_some(), "{path}");
    }
}

#[test]
#[parallel]
fn a_password_that_is_too_short_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let (status, error) = try_set_password(&file, "short");
    assert_eq!(status, Some(1));
    assert!(
        error.contains("8 to 1024") && !error.contains("short"),
        "{error}"
    );
    assert!(!file.exists());
    std::fs::write(&file, "plain password").unwrap();
    let refused = with_password(&file).run();
    assert_eq!(refused.code(), 78);
    assert!(
        refused.stderr[0].contains("WEB_PASSWORD_FILE: the file has no hash"),
        "{refused:?}"
    );
}

#[test]
#[parallel]
fn the_page_of_settings_and_the_file_list_each_variable_once() {
    let names = |path: &str, begin: &str, end: char| -> Vec<String> {
        let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR")));
        let text = text.unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix(begin)?.split_once(end));
        let names = names.map(|(name, _)| name.to_owned());
        names.filter(|name| name.starts_with("WEB_")).collect()
    };
    assert_eq!(
        names("docs/web.md", "| `", '`'),
        system_agent::web::VARIABLES
    );
    let mut file = names("config/web.env", "#", '=');
    file.sort();
    let mut all = system_agent::web::VARIABLES;
    all.sort_unstable();
    assert_eq!(file, all);
}
