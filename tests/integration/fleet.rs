//! Tests of `system-agent watch --nats` in a real terminal, with a real NATS server and hosts simulated from a real snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use serial_test::parallel;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::simulator::{Counts, Host, Template};
use crate::support::{Authority, DEADLINE, Hub, Launch, Terminal, wait};
use crate::watching::{LARGE, SMALL, shows};

/// The interval at which the simulated hosts publish.
const INTERVAL: Duration = Duration::from_millis(500);
/// A host is shown as away within this time after the newest snapshot of the host.
const AWAY_WITHIN: Duration = Duration::from_secs(40);

/// Simulated hosts that publish. Ended on drop.
struct Hosts {
    runtime: Runtime,
    server: String,
    template: Arc<Template>,
    running: HashMap<String, JoinHandle<()>>,
    client: Option<async_nats::Client>,
}

impl Hosts {
    fn new(hub: &Hub) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            server: hub.url(),
            template: Arc::new(Template::new(&with_a_container())),
            running: HashMap::new(),
            client: None,
        }
    }

    fn start(&mut self, name: &str, zstd: bool) {
        let host = Host {
            server: self.server.clone(),
            name: name.to_owned(),
            template: Arc::clone(&self.template),
            interval: INTERVAL,
            after: Duration::ZERO,
            zstd,
        };
        let task = self
            .runtime
            .spawn(host.publish(Arc::new(Counts::default())));
        self.running.insert(name.to_owned(), task);
    }

    fn stop(&mut self, name: &str) {
        self.running
            .remove(name)
            .expect("the host is not running")
            .abort();
    }

    /// Publishes a message with any subject and content.
    fn publish(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl Into<bytes::Bytes>,
    ) {
        let server = &self.server;
        self.runtime.block_on(async {
            if self.client.is_none() {
                self.client = Some(async_nats::connect(server).await.unwrap());
            }
            let client = self.client.as_ref().unwrap();
            let mut map = async_nats::HeaderMap::new();
            headers
                .iter()
                .for_each(|(name, value)| map.insert(*name, *value));
            client
                .publish_with_headers(subject.to_owned(), map, payload.into())
                .await
                .unwrap();
            client.flush().await.unwrap();
        });
    }
}

/// A real snapshot of this host with a made-up container.
fn with_a_container() -> String {
    let finished = Launch::new().args(["snapshot"]).run();
    let line = finished.stdout.concat();
    let empty = "\"containers\":[]";
    assert_eq!(line.matches(empty).count(), 1, "{line}");
    let container = json!({
        "id": "0123456789ab", "name": "/shop.web", "image": "registry/shop:1", "status": "running", "cpu_percent": 3.5,
        "memory_usage": 52_428_800, "memory_limit": 104_857_600, "memory_percent": 50.0, "network": {}, "health": "healthy",
    });
    line.replace(empty, &format!("\"containers\":[{container}]"))
}

fn watch(
    hub: &Hub,
    size: (u16, u16),
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Terminal {
    let url = hub.url();
    Terminal::watch(size, &[&["--nats", &url], arguments].concat(), environment)
}

fn at(second: u64) -> String {
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second);
    humantime::format_rfc3339_nanos(moment).to_string()
}

#[test]
#[parallel]
fn a_template_makes_snapshots_of_other_hosts() {
    let line = with_a_container();
    let made = Template::new(&line).line("web-7", 42, SystemTime::UNIX_EPOCH);
    let (mut real, made): (Value, Value) = (
        serde_json::from_str(&line).unwrap(),
        serde_json::from_str(&made).unwrap(),
    );
    let then = json!("1970-01-01T00:00:00.000Z");
    real["timestamp"] = then.clone();
    for source in real["sources"].as_object_mut().unwrap().values_mut() {
        if !source["collected_at"].is_null() {
            source["collected_at"] = then.clone();
        }
    }
    real["host"]["hostname"] = json!("web-7");
    real["agent"]["seq"] = json!(42);
    assert_eq!(made, real);
}

#[test]
#[parallel]
fn hosts_appear_and_are_shown_as_away() {
    let hub = Hub::start("");
    let mut hosts = Hosts::new(&hub);
    for size in [SMALL, LARGE] {
        let terminal = watch(&hub, size, &[], &[]);
        shows(
            &terminal,
            size,
            &["0 hosts", "NATS 127.0.0.1:", "connected"],
        );
        hosts.start("web-1", false);
        hosts.start("web-2", true);
        shows(&terminal, size, &["2 hosts", "web-1", "web-2"]);
        hosts.start("db-1", false);
        shows(&terminal, size, &["3 hosts", "db-1"]);
        // Stop the host that is first by name.
        hosts.stop("db-1");
        terminal.shows_within(AWAY_WITHIN, &["1 away", "away: no snapshot for"]);
        // The other hosts can still be opened.
        terminal.press(&["End", "Enter"]);
        shows(
            &terminal,
            size,
            &["web-2", "s old", "Containers 1", "shop.web"],
        );
        terminal.press(&["Escape"]);
        hosts.start("db-1", true);
        terminal.hides("1 away");
        terminal.press(&["q"]);
        terminal.ends(0);
        for name in ["web-1", "web-2", "db-1"] {
            hosts.stop(name);
        }
    }
}

#[test]
#[parallel]
fn a_log_is_subscribed_to_while_it_is_on_the_screen() {
    // With `trace` the server logs each subscription.
    let hub = Hub::start("trace: true\n");
    let mut hosts = Hosts::new(&hub);
    hosts.start("web-1", true);
    let subject = "agents.web-1.logs.shop%2Eweb";
    for size in [SMALL, LARGE] {
        let terminal = watch(&hub, size, &[], &[]);
        terminal.shows(&["web-1"]);
        terminal.press(&["Enter"]);
        shows(&terminal, size, &["Containers 1", "shop.web"]);
        let log_count = |what: &str| hub.log().matches(what).count();
        let (subscribed, unsubscribed) =
            (log_count("SUB agents.web-1.logs."), log_count("[UNSUB "));
        terminal.press(&["Enter"]);
        shows(
            &terminal,
            size,
            &["Log 0 lines", "registry/shop:1", "following"],
        );
        wait::until("a subscription", DEADLINE, || {
            (log_count(&format!("SUB {subject}")) > subscribed).then_some(())
        });
        hosts.publish(
            subject,
            &[],
            format!("{} line 1\n{} line 2\n", at(1), at(2)),
        );
        shows(&terminal, size, &["line 2", "Log 2 lines"]);
        let dropped = [("System-Agent-Dropped", "7")];
        hosts.publish(subject, &dropped, format!("{} line 10\n", at(10)));
        shows(&terminal, size, &["line 10", "7 dropped", "00:00:10"]);
        hosts.publish(
            "agents.web-1.logs.other",
            &[],
            format!("{} of another\n", at(11)),
        );
        let event = json!({"time": "2026-01-01T12:00:00.000Z", "action": "oom", "container": "shop.web", "id": "0123456789ab", "image": "registry/shop:1"});
        hosts.publish("agents.web-1.events", &[], event.to_string());
        terminal.press(&["Tab"]);
        shows(&terminal, size, &["Events 1", "oom"]);
        terminal.press(&["Tab"]);
        terminal.hides("of another");
        // Press the two keys separately. If another key follows immediately, the view reads Escape and that key as a third key.
        terminal.press(&["Escape"]);
        shows(&terminal, size, &["Containers 1"]);
        terminal.press(&["Escape"]);
        shows(&terminal, size, &["1 hosts"]);
        wait::until("the end of the subscription", DEADLINE, || {
            (log_count("[UNSUB ") > unsubscribed).then_some(())
        });
    }
}

#[test]
#[parallel]
fn a_log_begins_with_the_newest_stored_lines() {
    let store = tempfile::tempdir().unwrap();
    let store = store.path().display();
    let hub = Hub::start(&format!("jetstream {{ store_dir: \"{store}\" }}\n"));
    let mut hosts = Hosts::new(&hub);
    hosts.start("web-1", false);
    hosts.runtime.block_on(async {
        let client = async_nats::connect(hub.url()).await.unwrap();
        let config = async_nats::jetstream::stream::Config {
            name: "AGENTS".to_owned(),
            subjects: vec!["agents.*.events".to_owned(), "agents.*.logs.>".to_owned()],
            allow_direct: true,
            ..Default::default()
        };
        let context = async_nats::jetstream::new(client);
        context.create_stream(config).await.unwrap();
        for (first, container) in [(1, "shop%2Eweb"), (3, "shop%2Eweb"), (7, "other")] {
            let (first, second) = (
                format!("{} line {first}", at(first)),
                format!("{} line {}", at(first + 1), first + 1),
            );
            let subject = format!("agents.web-1.logs.{container}");
            let stored = context.publish(subject, format!("{first}\n{second}\n").into());
            stored.await.unwrap().await.unwrap();
        }
    });
    let terminal = watch(&hub, SMALL, &[], &[]);
    terminal.shows(&["web-1"]);
    terminal.press(&["Enter"]);
    terminal.shows(&["shop.web"]);
    terminal.press(&["Enter"]);
    // The view shows the newest stored message of this container and of no other container.
    shows(&terminal, SMALL, &["Log 2 lines", "line 3", "line 4"]);
    hosts.publish(
        "agents.web-1.logs.shop%2Eweb",
        &[],
        format!("{} line 5\n", at(5)),
    );
    shows(&terminal, SMALL, &["Log 3 lines", "line 3", "line 5"]);
}

#[test]
#[parallel]
fn after_the_server_was_killed_the_view_connects_again() {
    let mut hub = Hub::start("trace: true\n");
    let mut hosts = Hosts::new(&hub);
    hosts.start("web-1", false);
    for size in [SMALL, LARGE] {
        let terminal = watch(&hub, size, &[], &[]);
        shows(&terminal, size, &["1 hosts", "connected"]);
        hub.kill();
        // The newest figures stay on the screen.
        shows(&terminal, size, &["! ", "away, retry in", "web-1"]);
        hub.run();
        shows(&terminal, size, &["1 hosts", "  connected"]);
        terminal.press(&["Enter"]);
        shows(&terminal, size, &["s old", "Containers 1"]);
        hub.kill();
        shows(
            &terminal,
            size,
            &["127.0.0.1:", "away, retry in", "Containers 1"],
        );
        hub.run();
        terminal.hides("away");
        // The open host is shown again, and the view can follow the log.
        terminal.press(&["Enter"]);
        shows(&terminal, size, &["Log 0 lines"]);
        hub.kill();
        terminal.shows(&["away, retry in"]);
        hub.run();
        terminal.hides("away");
        wait::until("a subscription", DEADLINE, || {
            hub.log()
                .contains("SUB agents.web-1.logs.shop%2Eweb")
                .then_some(())
        });
        hosts.publish(
            "agents.web-1.logs.shop%2Eweb",
            &[],
            format!("{} line 1\n", at(1)),
        );
        shows(&terminal, size, &["Log 1 lines", "line 1"]);
        terminal.press(&["C-c"]);
        terminal.ends(0);
    }
}

#[test]
#[parallel]
fn the_key_r_ends_the_back_off() {
    let mut hub = Hub::start("");
    hub.kill();
    let terminal = watch(&hub, SMALL, &[], &[]);
    terminal.shows(&["cannot connect"]);
    wait::until("a long back-off", AWAY_WITHIN, || {
        let screen = terminal.screen();
        let (_, wait) = screen.split_once("retry in ")?;
        let seconds: u64 = wait.split(' ').next()?.parse().ok()?;
        (seconds > 5).then_some(())
    });
    hub.run();
    terminal.press(&["R"]);
    wait::until("a connection", Duration::from_secs(3), || {
        terminal.screen().contains("  connected").then_some(())
    });
}

#[test]
#[parallel]
fn invalid_messages_are_counted() {
    let hub = Hub::start("");
    let mut hosts = Hosts::new(&hub);
    hosts.start("web-1", false);
    let terminal = watch(&hub, LARGE, &[], &[]);
    terminal.shows(&["1 hosts"]);
    hosts.publish("agents.odd.snapshot", &[], "{\"timestamp\":");
    hosts.publish(
        "agents.odd.snapshot",
        &[("Content-Encoding", "zstd")],
        "not zstd",
    );
    hosts.publish("agents.odd.snapshot", &[("Content-Encoding", "br")], "{}");
    let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 3).unwrap();
    hosts.publish("agents.odd.snapshot", &[("Content-Encoding", "zstd")], bomb);
    // Publish the other kind of message later, because the view shows only the newest error.
    shows(&terminal, LARGE, &["! 4 messages not understood"]);
    hosts.publish("agents.web-1.events", &[], "[]");
    shows(
        &terminal,
        LARGE,
        &[
            "! 5 messages not understood",
            "agents.web-1.events: not JSON",
        ],
    );
    // The view still works.
    terminal.press(&["Enter"]);
    terminal.shows(&["Containers 1"]);
}

#[test]
#[parallel]
fn refused_credentials_and_permissions_are_shown() {
    let hub = Hub::start("authorization { user: viewer, password: correct-horse }\n");
    let right = hub.file("right", "correct-horse\n");
    let wrong = hub.file("wrong", "battery-staple\n");
    let with = |password: &std::path::Path| {
        let password = password.to_str().unwrap().to_owned();
        watch(
            &hub,
            SMALL,
            &[],
            &[("NATS_USER", "viewer"), ("NATS_PASSWORD_FILE", &password)],
        )
    };
    let refused = "refused the credentials";
    with(&wrong).shows(&[refused, "press R to retry"]);
    watch(&hub, SMALL, &[], &[]).shows(&[refused]);
    with(&right).shows(&["  connected"]);
    // This user may connect but may not subscribe.
    let hub = Hub::start(
        "authorization { users: [{ user: viewer, password: correct-horse, permissions: { subscribe: { deny: \"agents.>\" } } }] }\n",
    );
    let password = hub
        .file("password", "correct-horse")
        .to_str()
        .unwrap()
        .to_owned();
    let terminal = watch(
        &hub,
        LARGE,
        &[],
        &[("NATS_USER", "viewer"), ("NATS_PASSWORD_FILE", &password)],
    );
    terminal.shows(&["Permissions Violation", "0 hosts"]);
}

#[test]
#[parallel]
fn tokens_and_nkey_seeds_are_accepted() {
    let hub = Hub::start("authorization { token: s3cret-token }\n");
    let file = hub
        .file("token", "s3cret-token\n")
        .to_str()
        .unwrap()
        .to_owned();
    watch(&hub, SMALL, &[], &[("NATS_TOKEN_FILE", &file)]).shows(&["  connected"]);
    let key = nkeys::KeyPair::new_user();
    let hub = Hub::start(&format!(
        "authorization {{ users: [{{ nkey: {} }}] }}\n",
        key.public_key()
    ));
    let file = hub
        .file("seed", &key.seed().unwrap())
        .to_str()
        .unwrap()
        .to_owned();
    watch(&hub, SMALL, &[], &[("NATS_NKEY_FILE", &file)]).shows(&["  connected"]);
}

#[test]
#[parallel]
fn the_servers_certificate_is_verified_and_a_client_certificate_sent() {
    let authority = Authority::new();
    let (server, client) = (authority.issue("server"), authority.issue("client"));
    let ca = authority.certificate.to_str().unwrap();
    let hub = Hub::start(&format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{ca}\", verify: true }}\n",
        server.certificate.display(),
        server.key.display()
    ));
    let (cert, key) = (
        client.certificate.to_str().unwrap(),
        client.key.to_str().unwrap(),
    );
    watch(
        &hub,
        SMALL,
        &["--ca", ca, "--cert", cert, "--key", key],
        &[],
    )
    .shows(&["  connected"]);
    // The connection fails without a client certificate, and with the certificate of another authority.
    watch(&hub, SMALL, &["--ca", ca], &[]).shows(&["away"]);
    let other = Authority::new();
    let other = other.certificate.to_str().unwrap();
    watch(
        &hub,
        SMALL,
        &["--ca", other, "--cert", cert, "--key", key],
        &[],
    )
    .shows(&["away", "invalid peer certificate"]);
    // If TLS is required, a server without TLS is refused.
    let plain = Hub::start("");
    watch(&plain, SMALL, &["--ca", ca], &[]).shows(&["away"]);
}

#[test]
#[parallel]
fn invalid_arguments_and_settings_are_reported_before_the_view_starts() {
    for (arguments, environment, code, expected) in [
        (
            vec!["--nats", "nats://viewer:hunter2@hub"],
            vec![],
            1,
            "NATS_PASSWORD_FILE",
        ),
        (
            vec!["--nats", "http://hub"],
            vec![],
            1,
            "--nats: server 1: unsupported scheme",
        ),
        (
            vec!["--nats", "nats://hub", "web-1"],
            vec![],
            2,
            "cannot be used with",
        ),
        (vec!["--ca", "ca.pem"], vec![], 2, "--nats"),
        (
            vec!["--nats", "nats://hub"],
            vec![("NATS_USER", "viewer")],
            78,
            "NATS_PASSWORD_FILE: not set",
        ),
    ] {
        let finished = Launch::new()
            .args([&["watch"], &arguments[..]].concat())
            .vars(&environment)
            .run();
        let stderr = finished.stderr.concat();
        assert_eq!(finished.code(), code, "{arguments:?}: {stderr}");
        assert!(
            stderr.contains(expected) && !stderr.contains("hunter2"),
            "{arguments:?}: {stderr}"
        );
    }
}
