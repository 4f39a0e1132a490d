//! Tests of keys and certificates: several keys, reloads while the agent runs, and protection from other users of the host.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serial_test::parallel;

use crate::support::{Agent, Authority, Client, DEADLINE, Identity, KEY, Launch, OpenSsl, wait};

const PHONE: &str = "phone-4f1c09be77d2a6";
const WALL: &str = "wall-90aa3be1f5c8d7";

/// An agent that reads its keys from this file.
fn with_keys(file: &Path) -> Launch {
    let launch = Launch::new().without("API_KEY").var("API_KEY_FILE", file);
    launch
        .var("PUBLISH_INTERVAL", "200ms")
        .secret(KEY)
        .secret(PHONE)
        .secret(WALL)
}

fn login(agent: &Agent, key: &str) -> Client {
    let mut client = agent.connect();
    client.send(format!("{key}\n"));
    client
}

fn is_refused(agent: &Agent, key: &str) -> bool {
    login(agent, key).line().as_deref() == Some("Unauthorized")
}

/// Replaces a file in one step.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
#[parallel]
fn each_key_in_the_file_is_accepted_and_the_log_shows_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("phone:{PHONE}\n\n{WALL}\r\n"));
    let agent = with_keys(&file).start();
    for (key, name) in [(PHONE, "phone"), (WALL, "line 3")] {
        let mut client = login(&agent, key);
        client.snapshot();
        let peer = client.local_address().to_string();
        let connected = agent.event_where("client connected", |event| event.text("peer") == peer);
        assert_eq!(connected.text("key"), name);
    }
    assert!(is_refused(&agent, "phone"));
    assert!(is_refused(&agent, &format!("phone:{PHONE}")));
}

#[test]
#[parallel]
fn keys_are_reloaded_when_their_file_changes_and_sessions_continue() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("phone:{PHONE}\n"));
    let agent = with_keys(&file).start();
    let mut session = login(&agent, PHONE);
    session.snapshot();
    assert!(is_refused(&agent, WALL));

    replace(&file, &format!("wall:{WALL}\n"));
    let renewed = agent.event("credentials reloaded");
    assert!(renewed.text("keys").contains("wall"), "{renewed:?}");
    login(&agent, WALL).snapshot();
    assert!(is_refused(&agent, PHONE));

    // An invalid file changes nothing and causes a warning.
    replace(&file, "short\n");
    let kept = agent.event("credentials not reloaded: the previous credentials stay in use");
    assert_eq!(kept.text("variable"), "API_KEY_FILE");
    assert!(
        kept.text("problem").starts_with("line 1: too short"),
        "{kept:?}"
    );
    login(&agent, WALL).snapshot();
    fs::remove_file(&file).unwrap();
    agent.event_where(
        "credentials not reloaded: the previous credentials stay in use",
        |event| event.text("problem").starts_with("the file cannot be read"),
    );
    login(&agent, WALL).snapshot();
    for _ in 0..3 {
        session.snapshot();
    }
}

#[test]
#[parallel]
fn sighup_reloads_the_credentials_immediately() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("{PHONE}\n"));
    let agent = with_keys(&file).start();
    agent.signal(Signal::SIGHUP);
    agent.event("credentials reloaded");
    login(&agent, PHONE).snapshot();
    // If no credentials are in files, the signal changes nothing.
    let agent = Launch::new().start();
    agent.signal(Signal::SIGHUP);
    agent.event("no credentials to reload: none are in files");
    agent.login().snapshot();
}

/// OpenSSL's line about the agent's certificate, which contains its common name.
fn shown(agent: &Agent) -> String {
    let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
    client.send(format!("{KEY}\n"));
    client.snapshot();
    // The number of spaces depends on the version of OpenSSL.
    client.says("Peer certificate:").replace(' ', "")
}

#[test]
#[parallel]
fn certificates_are_reloaded_when_certificate_and_key_match() {
    let authority = Authority::new();
    let (old, new) = (authority.issue("old"), authority.issue("new"));
    let agent = old.launch().var("PUBLISH_INTERVAL", "200ms").start();
    let mut session = OpenSsl::connect(agent.address(), &[] as &[&str]);
    session.send(format!("{KEY}\n"));
    session.snapshot();
    assert!(shown(&agent).contains("CN=old"));

    replace(
        &old.certificate,
        &fs::read_to_string(&new.certificate).unwrap(),
    );
    let kept = agent.event("credentials not reloaded: the previous credentials stay in use");
    assert!(kept.text("problem").contains("does not match"), "{kept:?}");
    assert!(shown(&agent).contains("CN=old"));
    replace(&old.key, &fs::read_to_string(&new.key).unwrap());
    agent.event("credentials reloaded");
    assert!(shown(&agent).contains("CN=new"));
    session.snapshot();
}

#[test]
#[parallel]
fn a_client_needs_a_certificate_of_the_configured_issuer() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let server = authority.issue("agent");
    let agent = server
        .launch()
        .var("TLS_CLIENT_CA_FILE", &clients.certificate)
        .start();
    let connect = |shown: Option<&Identity>, version: &str| {
        let mut options = vec![version.to_owned()];
        for (option, path) in shown
            .iter()
            .flat_map(|shown| [("-cert", &shown.certificate), ("-key", &shown.key)])
        {
            options.extend([option.to_owned(), path.to_str().unwrap().to_owned()]);
        }
        let mut client = OpenSsl::connect(agent.address(), &options);
        client.send(format!("{KEY}\n"));
        client
    };
    let (right, wrong) = (clients.issue("phone"), others.issue("stranger"));
    for version in ["-tls1_2", "-tls1_3"] {
        connect(Some(&right), version).snapshot();
        for shown in [None, Some(&wrong)] {
            let (received, _) = connect(shown, version).finish();
            assert!(received.is_empty(), "{received:?}");
        }
    }
    wait::until("the refusals", DEADLINE, || {
        (agent.events("client refused").len() >= 4).then_some(())
    });
    let refused = agent.events("client refused");
    assert!(
        refused
            .iter()
            .all(|event| event.text("reason").contains("TLS"))
    );

    // `check socket` needs a certificate too.
    let check = |options: &[&str]| {
        let address = agent.address().to_string();
        let launch = server
            .launch()
            .var("TLS_CLIENT_CA_FILE", &clients.certificate);
        launch
            .args(["check", "socket", &address])
            .args(options)
            .run()
    };
    let (certificate, key) = (
        right.certificate.to_str().unwrap(),
        right.key.to_str().unwrap(),
    );
    let passed = check(&["--cert", certificate, "--key", key]);
    assert_eq!(passed.code(), 0, "{passed:?}");
    let failed = check(&[]);
    assert!(
        failed.code() == 1 && failed.stdout[0].contains("--cert"),
        "{failed:?}"
    );
}

#[test]
#[parallel]
fn a_client_ca_file_without_tls_is_refused() {
    let authority = Authority::new();
    let launch = Launch::new().var("TLS_CLIENT_CA_FILE", &authority.certificate);
    let finished = launch.run();
    assert_eq!(finished.code(), 78);
    assert!(
        finished.stderr[0].contains("TLS_CLIENT_CA_FILE: set, but TLS_ENABLED"),
        "{finished:?}"
    );
    let empty = authority.file("empty.pem", "");
    let launch = authority.issue("agent").launch();
    let finished = launch.var("TLS_CLIENT_CA_FILE", empty).run();
    assert!(
        finished.stderr[0].contains("TLS_CLIENT_CA_FILE: the file contains no certificate"),
        "{finished:?}"
    );
}

#[test]
#[parallel]
fn the_start_warns_of_readable_key_files_and_unencrypted_connections() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("{PHONE}\n"));
    let printed = |agent: &Agent, text: &str| {
        agent.event("listening");
        agent.login();
        let log = agent.log().all();
        log.iter()
            .any(|line| line.contains(text) && line.contains("WARN"))
    };
    assert!(!printed(&with_keys(&file).start(), "chmod"));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(printed(&with_keys(&file).start(), "chmod o-r"));

    let clear = "cross the network unencrypted";
    assert!(!printed(&Launch::new().start(), clear));
    assert!(printed(
        &Launch::new().var("SOCKET_ADDRESS", "0.0.0.0").start(),
        clear
    ));
    assert!(printed(
        &Launch::new().without("SOCKET_ADDRESS").start(),
        clear
    ));
    let authority = Authority::new();
    let launch = authority.issue("agent").launch();
    assert!(!printed(
        &launch.var("SOCKET_ADDRESS", "0.0.0.0").start(),
        clear
    ));
}

/// Counts how often a text is in the writable memory of a process. `None` if this test may not read that memory.
fn in_memory(pid: u32, text: &str) -> Option<usize> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let finder = memchr::memmem::Finder::new(text.as_bytes());
    let mut found = 0;
    for map in maps.lines() {
        let mut fields = map.split_whitespace();
        let (range, mode) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let mut content = vec![0; usize::try_from(address(to) - address(from)).unwrap()];
        if mode.starts_with("rw") && memory.read_exact_at(&mut content, address(from)).is_ok() {
            found += finder.find_iter(&content).count();
        }
    }
    Some(found)
}

#[test]
#[parallel]
fn a_key_is_in_memory_once_and_a_wrong_key_is_not() {
    const WRONG: &str = "Xq3-this-is-what-a-guesser-sends-8Zr";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("{KEY}\n"));
    for agent in [Launch::new().start(), with_keys(&file).start()] {
        let mut session = agent.login();
        session.snapshot();
        // Send the wrong key in one piece and byte by byte.
        assert!(is_refused(&agent, WRONG));
        let mut slow = agent.connect();
        for byte in format!("{WRONG}{}\n", "x".repeat(1000)).as_bytes() {
            slow.send([*byte]);
        }
        assert_eq!(slow.line().as_deref(), Some("Unauthorized"));
        if !Uid::effective().is_root() {
            assert_eq!(in_memory(agent.pid(), KEY), None);
            continue;
        }
        assert_eq!(in_memory(agent.pid(), KEY), Some(1));
        assert_eq!(in_memory(agent.pid(), WRONG), Some(0));
        // After a reload of the same file, the key is still in memory once. After the file has another key, the previous key is
        // not in memory.
        agent.signal(Signal::SIGHUP);
        if agent.events("agent started")[0]
            .0
            .get("api_key_file")
            .is_some_and(|file| !file.is_null())
        {
            agent.event("credentials reloaded");
            assert_eq!(in_memory(agent.pid(), KEY), Some(1));
            replace(&file, &format!("{WALL}\n"));
            agent.event_where("credentials reloaded", |_| {
                in_memory(agent.pid(), WALL) == Some(1)
            });
            assert_eq!(in_memory(agent.pid(), KEY), Some(0));
        }
        let environment = fs::read(format!("/proc/{}/environ", agent.pid())).unwrap();
        assert!(memchr::memmem::find(&environment, KEY.as_bytes()).is_none());
        assert!(memchr::memmem::find(&environment, b"SOCKET_PORT").is_some());
    }
}

#[test]
#[parallel]
fn other_processes_cannot_read_or_dump_the_memory() {
    let agent = Launch::new().start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"]);
    if !Uid::effective().is_root() {
        assert_eq!(in_memory(agent.pid(), KEY), None);
        return;
    }
    // The agent runs as another user. Other processes of the same user cannot read its memory.
    let launch = Launch::new().launched_by([
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    let agent = launch.start();
    agent.login().snapshot();
    for file in ["mem", "environ", "maps"] {
        let path = format!("/proc/{}/{file}", agent.pid());
        let read = std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "head",
                "-c1",
                &path,
            ])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&read.stderr);
        assert!(printed.contains("Permission denied"), "{path}: {printed}");
    }
}
