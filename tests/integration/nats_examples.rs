//! Tests of the example configurations in `config/nats` with real NATS servers. Only ports, paths, keys and a user differ.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use nkeys::KeyPair;
use serial_test::parallel;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::simulator::Template;
use crate::support::nats::NatsClient;
use crate::support::{Authority, DEADLINE, Hub, Launch, Terminal, net, wait};

const LARGE: (u16, u16) = (200, 50);
const PASSWORD: &str = "of-site-1";
/// A user who is added to the users of the example.
const AUDITOR: &str = "{ user: auditor, password: auditor }";
/// Longer than a message needs on the loopback interface.
const A_MOMENT: Duration = Duration::from_millis(500);

/// The text of an example configuration with these replacements. Each replaced text must be in the example.
fn example(name: &str, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/nats")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from}");
        text.replace(from, to)
    })
}

/// A hub, which is the central NATS server, a leaf node, which is the NATS server of a site, and the keys of their users.
pub(crate) struct Fleet {
    runtime: Runtime,
    authority: Authority,
    pub(crate) hub: Hub,
    pub(crate) leaf: Hub,
    /// The key of the agent of `web-1` at the hub. `db` is the agent of `db-1` at the leaf node, and `viewer` the fleet view.
    web: KeyPair,
    pub(crate) db: KeyPair,
    viewer: KeyPair,
    files: TempDir,
}

impl Fleet {
    fn start() -> Self {
        Self::with_host_at_leaf("db-1")
    }

    /// Starts the servers with another name for the host at the leaf node. `host` is the token of this host in subjects.
    pub(crate) fn with_host_at_leaf(host: &str) -> Self {
        let authority = Authority::new();
        let server = authority.issue("server");
        let files = tempfile::tempdir().unwrap();
        let [web, db, viewer] = [(); 3].map(|()| KeyPair::new_user());
        let [port, leaf_port, hub_for_leaves] = [(); 3].map(|()| net::free_port());
        let listen = |port: u16| format!("127.0.0.1:{port}");
        let store = files.path().join("store");
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let hub = example(
            "hub.conf",
            &[
                ("0.0.0.0:4222", &listen(port)),
                ("0.0.0.0:7422", &listen(hub_for_leaves)),
                ("/etc/nats/server.pem", &path(&server.certificate)),
                ("/etc/nats/server.key", &path(&server.key)),
                ("/var/lib/nats", &path(&store)),
                ("users: [", &format!("users: [ {AUDITOR}")),
                (
                    "UAXPQ2M4MAOL3AYJX2UBVY5V4VYOO6JNTDDLH3GAMQTQ57NWTNH2SA37",
                    &web.public_key(),
                ),
                (
                    "UCVXOIA3PSBI7ARFNC245VJIZXRNJGKCACLHUNPFVWLF7S3PYG7TY5GU",
                    &viewer.public_key(),
                ),
            ],
        );
        let leaf = example(
            "leaf.conf",
            &[
                ("0.0.0.0:4222", &listen(leaf_port)),
                ("/etc/nats/ca.pem", &path(&authority.certificate)),
                (
                    "UDOESPPW232CQUULQGYKXCKTYVKBU7I46SGUV5WXXFX32B6V3GYJNHFV",
                    &db.public_key(),
                ),
                ("agents.db-1.", &format!("agents.{host}.")),
                ("users: [", &format!("users: [ {AUDITOR}")),
            ],
        );
        let up = format!("tls://site-1:{PASSWORD}@localhost:{hub_for_leaves}");
        Self {
            runtime: Runtime::new().unwrap(),
            hub: Hub::configured(port, &hub, &[("SITE_1_PASSWORD", PASSWORD)]),
            leaf: Hub::configured(leaf_port, &leaf, &[("HUB_URL", &up)]),
            authority,
            web,
            db,
            viewer,
            files,
        }
    }

    /// A client, and the client's events, such as errors of the server.
    fn client(&self, server: &Hub, key: &KeyPair) -> (Client, mpsc::Receiver<Event>) {
        self.client_with(server, ConnectOptions::with_nkey(key.seed().unwrap()))
    }

    fn client_with(
        &self,
        server: &Hub,
        options: ConnectOptions,
    ) -> (Client, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(64);
        let options = options
            .tls_client_config(self.tls())
            .event_callback(move |event| {
                let _ = sender.try_send(event);
                std::future::ready(())
            });
        let client = self
            .runtime
            .block_on(options.connect(server.url()))
            .unwrap();
        (client, events)
    }

    fn tls(&self) -> tokio_rustls::rustls::ClientConfig {
        use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.authority.certificate).unwrap())
            .unwrap();
        tokio_rustls::rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A client of the hub with all permissions. The example has no such user.
    pub(crate) fn auditor(&self) -> NatsClient {
        NatsClient::connect(&self.hub.url(), auditor().tls_client_config(self.tls()))
    }

    /// Starts the fleet view, connected to the hub.
    fn watch(&self) -> Terminal {
        let seed = self.secret("viewer", &self.viewer);
        let ca = self.authority.certificate.to_str().unwrap();
        let url = self.hub.url();
        let variables = [("NATS_NKEY_FILE", seed.to_str().unwrap())];
        Terminal::watch(LARGE, &["--nats", &url, "--ca", ca], &variables)
    }

    pub(crate) fn secret(&self, name: &str, key: &KeyPair) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, key.seed().unwrap()).unwrap();
        path
    }

    fn publish(&self, client: &Client, subject: &str, text: String) {
        self.runtime.block_on(async {
            client
                .publish(subject.to_owned(), text.into())
                .await
                .unwrap();
            client.flush().await.unwrap();
        });
    }

    /// Publishes a host's snapshots until the view shows it.
    fn appears(&self, terminal: &Terminal, client: &Client, name: &str) {
        let template = template();
        let mut numbers = 1..;
        wait::until(name, DEADLINE, || {
            let line = template.line(name, numbers.next()?, SystemTime::now());
            self.publish(client, &format!("agents.{name}.snapshot"), line);
            std::thread::sleep(Duration::from_millis(200));
            terminal.screen().contains(name).then_some(())
        });
    }
}

fn auditor() -> ConnectOptions {
    ConnectOptions::with_user_and_password("auditor".into(), "auditor".into())
}

fn template() -> Template {
    let finished = Launch::new().args(["snapshot"]).run();
    Template::new(&finished.stdout.concat())
}

/// Waits for an error of the server that contains `what`.
fn refused(runtime: &Runtime, events: &mut mpsc::Receiver<Event>, what: &str) {
    let complaint = runtime.block_on(async {
        tokio::time::timeout(DEADLINE, async {
            loop {
                match events.recv().await {
                    Some(Event::ServerError(error)) => return error.to_string(),
                    Some(_) => {}
                    None => return "none".to_owned(),
                }
            }
        })
        .await
    });
    let complaint = complaint.unwrap_or_else(|_| panic!("the server sent no error {what:?}"));
    assert!(
        complaint.to_lowercase().contains(&what.to_lowercase()),
        "{complaint}"
    );
}

#[test]
#[parallel]
fn a_hub_gets_the_messages_of_its_own_hosts_and_of_a_site() {
    let mut fleet = Fleet::start();
    let terminal = fleet.watch();
    terminal.shows(&["0 hosts", "  connected"]);
    let (web, _) = fleet.client(&fleet.hub, &fleet.web);
    let (db, _) = fleet.client(&fleet.leaf, &fleet.db);
    fleet.appears(&terminal, &web, "web-1");
    fleet.appears(&terminal, &db, "db-1");
    terminal.shows(&["2 hosts"]);
    // After a restart the hub gets messages of both hosts again.
    fleet.hub.kill();
    terminal.shows(&["away, retry in"]);
    fleet.hub.run();
    terminal.shows(&["  connected"]);
    terminal.press(&["q"]);
    terminal.ends(0);
    let terminal = fleet.watch();
    terminal.shows(&["0 hosts", "  connected"]);
    fleet.appears(&terminal, &db, "db-1");
    fleet.appears(&terminal, &web, "web-1");
}

#[test]
#[parallel]
fn events_of_a_site_are_stored_once_at_the_hub() {
    let fleet = Fleet::start();
    let (db, _) = fleet.client(&fleet.leaf, &fleet.db);
    let (web, _) = fleet.client(&fleet.hub, &fleet.web);
    let context = |client: &Client| {
        let _inside = fleet.runtime.enter();
        jetstream::new(client.clone())
    };
    let (at_leaf, at_hub) = (context(&db), context(&web));
    let (site, _) = fleet.client_with(&fleet.leaf, auditor());
    let site = context(&site);
    let config = example("stream.json", &[]);
    let config: stream::Config = serde_json::from_str(&config).unwrap();
    fleet.runtime.block_on(async {
        // Each agent may create the stream. The first agent creates it.
        let created = async || at_leaf.create_stream(config.clone()).await;
        let end = tokio::time::Instant::now() + DEADLINE;
        while let Err(error) = created().await {
            // At first the leaf node can be without a connection to the hub.
            assert!(
                tokio::time::Instant::now() < end,
                "{error}:\n{}\n{}",
                fleet.hub.log(),
                fleet.leaf.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for (client, host) in [(&at_leaf, "db-1"), (&at_hub, "web-1"), (&at_leaf, "db-1")] {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("{host}-1"));
            let subject = format!("agents.{host}.events");
            let stored = client
                .publish_with_headers(subject, headers, "{}".into())
                .await
                .unwrap();
            stored.await.unwrap();
        }
        let stream = at_hub.get_stream("AGENTS").await.unwrap();
        assert_eq!(stream.cached_info().state.messages, 2);
        // An agent may read its own stored messages, also through the leaf node.
        for (context, host) in [(&at_leaf, "db-1"), (&at_hub, "web-1")] {
            let stream = context.get_stream("AGENTS").await.unwrap();
            let subject = format!("agents.{host}.events");
            let last = stream.direct_get_last_for_subject(subject).await.unwrap();
            assert_eq!(&last.payload[..], b"{}");
        }
        // Even a user with all permissions at the site may do no more at the hub than the site's agents.
        let stream = site.get_stream("AGENTS").await.unwrap();
        assert!(stream.get_raw_message(1).await.is_err());
        assert!(site.delete_stream("AGENTS").await.is_err());
        at_hub.get_stream("AGENTS").await.unwrap();
    });
}

/// Permissions cannot stop a host from making JetStream send a reply to another host's subject. The view detects such a reply.
#[test]
#[parallel]
fn a_reply_of_jetstream_is_not_taken_for_a_snapshot() {
    let fleet = Fleet::start();
    let (web, _) = fleet.client(&fleet.hub, &fleet.web);
    let (viewer, _) = fleet.client(&fleet.hub, &fleet.viewer);
    let terminal = fleet.watch();
    fleet.appears(&terminal, &web, "web-1");
    let forged = template().line("db-1", 1, SystemTime::now());
    let message = fleet.runtime.block_on(async {
        let mut messages = viewer.subscribe("agents.db-1.snapshot").await.unwrap();
        viewer.flush().await.unwrap();
        let context = jetstream::new(web.clone());
        let config = stream::Config {
            name: "AGENTS".to_owned(),
            subjects: vec!["agents.*.events".to_owned(), "agents.*.logs.>".to_owned()],
            allow_direct: true,
            ..stream::Config::default()
        };
        context.create_stream(config).await.unwrap();
        let stored = context
            .publish("agents.web-1.logs.x", forged.into())
            .await
            .unwrap();
        stored.await.unwrap();
        let asked = "$JS.API.DIRECT.GET.AGENTS.agents.web-1.logs.x";
        web.publish_with_reply(asked, "agents.db-1.snapshot", "".into())
            .await
            .unwrap();
        web.flush().await.unwrap();
        tokio::time::timeout(DEADLINE, messages.next()).await
    });
    let headers = message
        .unwrap()
        .unwrap()
        .headers
        .expect("the message has no headers");
    assert_eq!(headers.get("Nats-Stream").unwrap().as_str(), "AGENTS");
    terminal.shows(&[
        "1 hosts",
        "! 1 messages not understood",
        "agents.db-1.snapshot: from a stream, not from the host",
    ]);
}

#[test]
#[parallel]
fn an_agent_publishes_only_for_its_own_host_and_reads_no_other() {
    let fleet = Fleet::start();
    let listener = fleet.client(&fleet.hub, &fleet.viewer).0;
    let mut messages = fleet.runtime.block_on(async {
        let messages = listener.subscribe("agents.*.snapshot").await.unwrap();
        listener.flush().await.unwrap();
        messages
    });
    for (server, key, own, other) in [
        (&fleet.hub, &fleet.web, "web-1", "db-1"),
        (&fleet.leaf, &fleet.db, "db-1", "web-1"),
    ] {
        let (client, mut events) = fleet.client(server, key);
        fleet.publish(
            &client,
            &format!("agents.{other}.snapshot"),
            "forged".to_owned(),
        );
        refused(
            &fleet.runtime,
            &mut events,
            "permissions violation for publish",
        );
        fleet.publish(&client, &format!("agents.{own}.snapshot"), "own".to_owned());
        let message = fleet
            .runtime
            .block_on(async { tokio::time::timeout(DEADLINE, messages.next()).await });
        let message = message
            .unwrap_or_else(|_| panic!("no message of {own}"))
            .unwrap();
        assert_eq!(
            (message.subject.as_str(), &message.payload[..]),
            (&*format!("agents.{own}.snapshot"), &b"own"[..])
        );
        // The agent may not read stored messages of another host.
        for asked in [
            "STREAM.MSG.GET.AGENTS".to_owned(),
            format!("DIRECT.GET.AGENTS.agents.{other}.logs.app"),
            "DIRECT.GET.AGENTS".to_owned(),
        ] {
            fleet.publish(&client, &format!("$JS.API.{asked}"), "{}".to_owned());
            let refusal = format!(".API.{asked}\"");
            refused(&fleet.runtime, &mut events, &refusal);
        }
        for subject in ["agents.>", "$JS.>", ">"] {
            let _subscriber = fleet.runtime.block_on(client.subscribe(subject)).unwrap();
            refused(
                &fleet.runtime,
                &mut events,
                "permissions violation for subscription",
            );
        }
    }
    // The viewer may not publish.
    let (viewer, mut events) = fleet.client(&fleet.hub, &fleet.viewer);
    fleet.publish(&viewer, "agents.web-1.snapshot", "forged".to_owned());
    refused(
        &fleet.runtime,
        &mut events,
        "permissions violation for publish",
    );
    let more = fleet
        .runtime
        .block_on(async { tokio::time::timeout(A_MOMENT, messages.next()).await });
    assert!(more.is_err(), "{more:?}");
    // An unknown key is refused.
    let stranger = ConnectOptions::with_nkey(KeyPair::new_user().seed().unwrap())
        .tls_client_config(fleet.tls());
    let error = fleet
        .runtime
        .block_on(stranger.connect(fleet.hub.url()))
        .unwrap_err();
    assert_eq!(
        error.kind(),
        async_nats::ConnectErrorKind::AuthorizationViolation
    );
}

#[test]
#[parallel]
fn two_regions_are_one_fleet() {
    let [west, east, west_gateway, east_gateway] = [(); 4].map(|()| net::free_port());
    let of = |port: u16, gateway: u16, other: u16| {
        let [port, gateway, other] = [port, gateway, other].map(|port| format!("127.0.0.1:{port}"));
        example(
            "west.conf",
            &[
                ("0.0.0.0:4222", &port),
                ("0.0.0.0:7222", &gateway),
                ("east.example.org:7222", &other),
            ],
        )
    };
    let west = Hub::configured(west, &of(west, west_gateway, east_gateway), &[]);
    let names = |text: String| {
        text.replace("east", "\0")
            .replace("west", "east")
            .replace('\0', "west")
    };
    let east = Hub::configured(east, &names(of(east, east_gateway, west_gateway)), &[]);
    let runtime = Runtime::new().unwrap();
    let (template, mut numbers) = (template(), 1..);
    let clients = [(&west, "web-1"), (&east, "web-2")].map(|(hub, name)| {
        (
            runtime.block_on(async_nats::connect(hub.url())).unwrap(),
            name,
        )
    });
    for hub in [&west, &east] {
        let terminal = Terminal::watch(LARGE, &["--nats", &hub.url()], &[]);
        terminal.shows(&["  connected"]);
        wait::until("the hosts of both regions", DEADLINE, || {
            for (client, name) in &clients {
                let line = template.line(name, numbers.next()?, SystemTime::now());
                runtime.block_on(async {
                    client
                        .publish(format!("agents.{name}.snapshot"), line.into())
                        .await
                        .unwrap();
                    client.flush().await.unwrap();
                });
            }
            std::thread::sleep(Duration::from_millis(200));
            let screen = terminal.screen();
            (screen.contains("web-1") && screen.contains("web-2")).then_some(())
        });
    }
}
