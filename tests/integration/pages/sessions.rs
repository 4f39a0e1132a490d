//! Runs the shell sessions in docs/protocol.md and README.md with a real agent. Only the agent's address differs. Each session
//! must print the lines that the page shows.

use std::process::{Command, Stdio};

use serial_test::parallel;

use super::Page;
use crate::support::{Agent, Authority, KEY, Launch};

/// A command, and the lines that the page shows below it. `…` stands for any text.
struct Session {
    command: String,
    shown: Vec<String>,
}

fn sessions(page: &Page) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for block in page
        .blocks()
        .iter()
        .filter(|block| block.language == "console")
    {
        for line in block.text.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => sessions.push(Session {
                    command: command.to_owned(),
                    shown: Vec::new(),
                }),
                None => sessions.last_mut().unwrap().shown.push(line.to_owned()),
            }
        }
    }
    sessions
}

/// Whether a line matches the line in the page. A `…` in the page stands for any text.
fn is_shown(line: &str, shown: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        last = part;
    }
    // If the line in the page ends with `…` or an open brace, the real line can be longer.
    rest.is_empty() || shown.ends_with(['…', '{']) || (last == "\"}" && rest.is_empty())
}

/// Runs a session with the address of an agent. Returns the printed lines. If the session would print snapshots without end, it
/// ends after the first snapshot.
fn run(session: &Session, agent: &Agent, directory: &std::path::Path) -> Vec<String> {
    let address = agent.address().to_string();
    let command = session
        .command
        .replace("127.0.0.1/9000", &address.replace(':', "/"))
        .replace("web-1:9000", &address)
        // The name in the test's certificate.
        .replace("-verify_hostname web-1", "-verify_hostname localhost");
    let command = match session.shown.len() {
        1 if command.ends_with("&& cat <&3'") && session.shown[0].starts_with("{\"timestamp\"") => {
            command.replace("&& cat <&3'", "&& head -n 1 <&3'")
        }
        _ => command,
    };
    let done = Command::new("timeout")
        .args(["30", "bash", "-c", &command])
        .current_dir(directory)
        .env("API_KEY", KEY)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let output = String::from_utf8(done.stdout).unwrap();
    output.lines().map(str::to_owned).collect()
}

fn check(sessions: &[Session], agent: &Agent, directory: &std::path::Path) {
    assert!(!sessions.is_empty());
    for session in sessions {
        let lines = run(session, agent, directory);
        let matches = lines.len() == session.shown.len()
            && lines
                .iter()
                .zip(&session.shown)
                .all(|(line, shown)| is_shown(line, shown));
        let lines: Vec<_> = lines
            .iter()
            .map(|line| line.chars().take(100).collect::<String>())
            .collect();
        assert!(
            matches,
            "{}: {lines:?}, the page shows {:?}",
            session.command, session.shown
        );
    }
}

#[test]
#[parallel]
fn sessions_without_tls_print_the_lines_in_the_pages() {
    let agent = Launch::new().var("PUBLISH_INTERVAL", "200ms").start();
    let directory = tempfile::tempdir().unwrap();
    for page in ["README.md", "docs/protocol.md"] {
        let mut all = sessions(&Page::read(page));
        all.retain(|session| !session.command.contains("openssl"));
        check(&all, &agent, directory.path());
    }
}

#[test]
#[parallel]
fn sessions_with_tls_print_the_lines_in_the_page() {
    let authority = Authority::new();
    let agent = authority
        .issue("web-1")
        .launch()
        .var("PUBLISH_INTERVAL", "200ms")
        .start();
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(&authority.certificate, directory.path().join("tls.crt")).unwrap();
    let mut all = sessions(&Page::read("docs/protocol.md"));
    all.retain(|session| session.command.contains("openssl"));
    check(&all, &agent, directory.path());
}
