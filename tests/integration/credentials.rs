//! Keys and certificates: several, renewed while the agent runs, and kept from others on the host.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serial_test::parallel;

use crate::support::{Agent, Authority, Client, Identity, KEY, Launch, OpenSsl, PATIENCE, wait};

const PHONE: &str = "phone-4f1c09be77d2a6";
const WALL: &str = "wall-90aa3be1f5c8d7";

/// An agent with its keys in a file.
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

/// In place of what is there, at once.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
#[parallel]
fn each_of_several_keys_lets_in_and_the_log_names_it() {
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
fn keys_are_renewed_when_their_file_changes_and_nobody_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("phone:{PHONE}\n"));
    let agent = with_keys(&file).start();
    let mut session = login(&agent, PHONE);
    session.snapshot();
    assert!(is_refused(&agent, WALL));

    replace(&file, &format!("wall:{WALL}\n"));
    let renewed = agent.event("credentials read anew");
    assert!(renewed.text("keys").contains("wall"), "{renewed:?}");
    login(&agent, WALL).snapshot();
    assert!(is_refused(&agent, PHONE));

    // What cannot be used changes nothing, and is told.
    replace(&file, "short\n");
    let kept = agent.event("credentials not read anew: the ones before stay");
    assert_eq!(kept.text("variable"), "API_KEY_FILE");
    assert!(
        kept.text("problem").starts_with("line 1 too short"),
        "{kept:?}"
    );
    login(&agent, WALL).snapshot();
    fs::remove_file(&file).unwrap();
    agent.event_where("credentials not read anew: the ones before stay", |event| {
        event.text("problem").starts_with("cannot be read")
    });
    login(&agent, WALL).snapshot();
    for _ in 0..3 {
        session.snapshot();
    }
}

#[test]
#[parallel]
fn a_hangup_renews_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("{PHONE}\n"));
    let agent = with_keys(&file).start();
    agent.signal(Signal::SIGHUP);
    agent.event("credentials read anew");
    login(&agent, PHONE).snapshot();
    // With nothing to renew it is no harm.
    let agent = Launch::new().start();
    agent.signal(Signal::SIGHUP);
    agent.event("no credentials to read anew: none are in files");
    agent.login().snapshot();
}

/// The common name of the certificate that the agent shows.
fn shown(agent: &Agent) -> String {
    let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
    client.send(format!("{KEY}\n"));
    client.snapshot();
    // Spaces are as the version of OpenSSL likes them.
    client.says("Peer certificate:").replace(' ', "")
}

#[test]
#[parallel]
fn certificates_are_renewed_when_both_files_are_there() {
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
    let kept = agent.event("credentials not read anew: the ones before stay");
    assert!(kept.text("problem").contains("does not match"), "{kept:?}");
    assert!(shown(&agent).contains("CN=old"));
    replace(&old.key, &fs::read_to_string(&new.key).unwrap());
    agent.event("credentials read anew");
    assert!(shown(&agent).contains("CN=new"));
    session.snapshot();
}

#[test]
#[parallel]
fn who_must_show_a_certificate_shows_one_of_the_right_issuer() {
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
    wait::until("the refusals", PATIENCE, || {
        (agent.events("client refused").len() >= 4).then_some(())
    });
    let refused = agent.events("client refused");
    assert!(
        refused
            .iter()
            .all(|event| event.text("reason").contains("TLS"))
    );

    // The agent's own test shows one as well.
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
fn a_client_authority_without_tls_is_a_mistake() {
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
fn what_others_may_read_or_hear_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("{PHONE}\n"));
    let told = |agent: &Agent, text: &str| {
        agent.event("listening");
        agent.login();
        let log = agent.log().all();
        log.iter()
            .any(|line| line.contains(text) && line.contains("WARN"))
    };
    assert!(!told(&with_keys(&file).start(), "chmod"));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(told(&with_keys(&file).start(), "chmod o-r"));

    let clear = "cross the network in the clear";
    assert!(!told(&Launch::new().start(), clear));
    assert!(told(
        &Launch::new().var("SOCKET_ADDRESS", "0.0.0.0").start(),
        clear
    ));
    assert!(told(
        &Launch::new().without("SOCKET_ADDRESS").start(),
        clear
    ));
    let authority = Authority::new();
    let launch = authority.issue("agent").launch();
    assert!(!told(
        &launch.var("SOCKET_ADDRESS", "0.0.0.0").start(),
        clear
    ));
}

/// How often a text stands in a process's memory, as far as the process may write to it; none where it may not be read.
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
fn a_key_is_in_memory_once_and_a_wrong_one_not_at_all() {
    const WRONG: &str = "Xq3-this-is-what-a-guesser-sends-8Zr";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    replace(&file, &format!("{KEY}\n"));
    for agent in [Launch::new().start(), with_keys(&file).start()] {
        let mut session = agent.login();
        session.snapshot();
        // As one piece, and as many.
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
        // Nor is it twice after a renewal, or there at all when it is replaced.
        agent.signal(Signal::SIGHUP);
        if agent.events("agent started")[0]
            .0
            .get("api_key_file")
            .is_some_and(|file| !file.is_null())
        {
            agent.event("credentials read anew");
            assert_eq!(in_memory(agent.pid(), KEY), Some(1));
            replace(&file, &format!("{WALL}\n"));
            agent.event_where("credentials read anew", |_| {
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
fn the_memory_is_nobodys_to_read_nor_to_dump() {
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
    // As a user of its own: another process of that user may not read it.
    let launch = Launch::new().by([
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
        let told = String::from_utf8_lossy(&read.stderr);
        assert!(told.contains("Permission denied"), "{path}: {told}");
    }
}
