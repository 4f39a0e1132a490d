//! The example configurations of NATS servers in `config/nats`, with real servers: as they are but for ports, paths and keys.

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
use crate::support::{Authority, Hub, Launch, PATIENCE, Terminal, net, wait};

const LARGE: (u16, u16) = (200, 50);
const PASSWORD: &str = "of-site-1";
/// A user beside those that the example has.
const AUDITOR: &str = "{ user: auditor, password: auditor }";
/// Longer than a message takes on the loopback.
const A_MOMENT: Duration = Duration::from_millis(500);

/// An example, changed: each text that is replaced must be there.
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

/// A hub and a leaf node, and who may connect to them.
pub(crate) struct Fleet {
    runtime: Runtime,
    authority: Authority,
    pub(crate) hub: Hub,
    pub(crate) leaf: Hub,
    /// The agents of `web-1`, at the hub, and of `db-1`, at the leaf node; who watches.
    web: KeyPair,
    pub(crate) db: KeyPair,
    viewer: KeyPair,
    files: TempDir,
}

impl Fleet {
    fn start() -> Self {
        Self::with_host_at_leaf("db-1")
    }

    /// One where the host at the leaf node is called otherwise, as in subjects.
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

    /// A client, and what is complained of.
    fn client(&self, server: &Hub, key: &KeyPair) -> (Client, mpsc::Receiver<Event>) {
        self.client_with(server, ConnectOptions::with_nkey(key.seed().unwrap()))
    }

    fn client_with(
        &self,
        server: &Hub,
        options: ConnectOptions,
    ) -> (Client, mpsc::Receiver<Event>) {
        let (tell, told) = mpsc::channel(64);
        let options = options
            .tls_client_config(self.tls())
            .event_callback(move |event| {
                let _ = tell.try_send(event);
                std::future::ready(())
            });
        let client = self
            .runtime
            .block_on(options.connect(server.url()))
            .unwrap();
        (client, told)
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

    /// A client of the hub that may do everything: none of those that are in the example.
    pub(crate) fn auditor(&self) -> NatsClient {
        NatsClient::connect(&self.hub.url(), auditor().tls_client_config(self.tls()))
    }

    /// The view, by the hub.
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
        wait::until(name, PATIENCE, || {
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

/// Waits for a complaint of the server's.
fn refused(runtime: &Runtime, told: &mut mpsc::Receiver<Event>, what: &str) {
    let complaint = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            loop {
                match told.recv().await {
                    Some(Event::ServerError(error)) => return error.to_string(),
                    Some(_) => {}
                    None => return "none".to_owned(),
                }
            }
        })
        .await
    });
    let complaint = complaint.unwrap_or_else(|_| panic!("{what} was not refused"));
    assert!(
        complaint.to_lowercase().contains(&what.to_lowercase()),
        "{complaint}"
    );
}

#[test]
#[parallel]
fn a_hub_hears_of_its_own_hosts_and_of_a_sites() {
    let mut fleet = Fleet::start();
    let terminal = fleet.watch();
    terminal.shows(&["0 hosts", "  connected"]);
    let (web, _) = fleet.client(&fleet.hub, &fleet.web);
    let (db, _) = fleet.client(&fleet.leaf, &fleet.db);
    fleet.appears(&terminal, &web, "web-1");
    fleet.appears(&terminal, &db, "db-1");
    terminal.shows(&["2 hosts"]);
    // A hub that was away hears of both again, without anybody's doing.
    fleet.hub.kill();
    terminal.shows(&["away, again in"]);
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
fn events_of_a_site_are_stored_at_the_hub_once() {
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
    let config = stream::Config {
        name: "AGENTS".to_owned(),
        subjects: vec!["agents.*.events".to_owned(), "agents.*.logs.>".to_owned()],
        allow_direct: true,
        ..stream::Config::default()
    };
    fleet.runtime.block_on(async {
        // Each agent may create the stream; whoever is first does.
        let created = async || at_leaf.create_stream(config.clone()).await;
        let end = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = created().await {
            // The leaf node may not be connected yet.
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
        // What it has stored an agent may ask for, through the leaf node, too.
        for (context, host) in [(&at_leaf, "db-1"), (&at_hub, "web-1")] {
            let stream = context.get_stream("AGENTS").await.unwrap();
            let subject = format!("agents.{host}.events");
            let last = stream.direct_get_last_for_subject(subject).await.unwrap();
            assert_eq!(&last.payload[..], b"{}");
        }
        // A site that lets somebody do everything has its leaf node ask for no more than its agents do.
        let stream = site.get_stream("AGENTS").await.unwrap();
        assert!(stream.get_raw_message(1).await.is_err());
        assert!(site.delete_stream("AGENTS").await.is_err());
        at_hub.get_stream("AGENTS").await.unwrap();
    });
}

/// No permission keeps one host from having JetStream say something in another's name: whoever listens can tell.
#[test]
#[parallel]
fn an_answer_of_jetstream_goes_where_the_question_says() {
    let fleet = Fleet::start();
    let (web, _) = fleet.client(&fleet.hub, &fleet.web);
    let (viewer, _) = fleet.client(&fleet.hub, &fleet.viewer);
    let terminal = fleet.watch();
    fleet.appears(&terminal, &web, "web-1");
    let forged = template().line("db-1", 1, SystemTime::now());
    let message = fleet.runtime.block_on(async {
        let mut heard = viewer.subscribe("agents.db-1.snapshot").await.unwrap();
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
        tokio::time::timeout(PATIENCE, heard.next()).await
    });
    let headers = message.unwrap().unwrap().headers.expect("headers");
    assert_eq!(headers.get("Nats-Stream").unwrap().as_str(), "AGENTS");
    terminal.shows(&[
        "1 hosts",
        "! 1 messages not understood",
        "agents.db-1.snapshot: from a stream, not from its host",
    ]);
}

#[test]
#[parallel]
fn an_agent_speaks_for_its_own_host_and_hears_of_none() {
    let fleet = Fleet::start();
    let listener = fleet.client(&fleet.hub, &fleet.viewer).0;
    let mut heard = fleet.runtime.block_on(async {
        let heard = listener.subscribe("agents.*.snapshot").await.unwrap();
        listener.flush().await.unwrap();
        heard
    });
    for (server, key, own, other) in [
        (&fleet.hub, &fleet.web, "web-1", "db-1"),
        (&fleet.leaf, &fleet.db, "db-1", "web-1"),
    ] {
        let (client, mut told) = fleet.client(server, key);
        fleet.publish(
            &client,
            &format!("agents.{other}.snapshot"),
            "forged".to_owned(),
        );
        refused(
            &fleet.runtime,
            &mut told,
            "permissions violation for publish",
        );
        fleet.publish(&client, &format!("agents.{own}.snapshot"), "own".to_owned());
        let message = fleet
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, heard.next()).await });
        let message = message
            .unwrap_or_else(|_| panic!("nothing of {own}"))
            .unwrap();
        assert_eq!(
            (message.subject.as_str(), &message.payload[..]),
            (&*format!("agents.{own}.snapshot"), &b"own"[..])
        );
        // Nor does it read what another has said.
        for asked in [
            "STREAM.MSG.GET.AGENTS".to_owned(),
            format!("DIRECT.GET.AGENTS.agents.{other}.logs.app"),
            "DIRECT.GET.AGENTS".to_owned(),
        ] {
            fleet.publish(&client, &format!("$JS.API.{asked}"), "{}".to_owned());
            let refusal = format!(".API.{asked}\"");
            refused(&fleet.runtime, &mut told, &refusal);
        }
        for subject in ["agents.>", "$JS.>", ">"] {
            let _subscriber = fleet.runtime.block_on(client.subscribe(subject)).unwrap();
            refused(
                &fleet.runtime,
                &mut told,
                "permissions violation for subscription",
            );
        }
    }
    // Who watches says nothing.
    let (viewer, mut told) = fleet.client(&fleet.hub, &fleet.viewer);
    fleet.publish(&viewer, "agents.web-1.snapshot", "forged".to_owned());
    refused(
        &fleet.runtime,
        &mut told,
        "permissions violation for publish",
    );
    let more = fleet
        .runtime
        .block_on(async { tokio::time::timeout(A_MOMENT, heard.next()).await });
    assert!(more.is_err(), "{more:?}");
    // A key that is not listed does not get in.
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
        wait::until("the hosts of both", PATIENCE, || {
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
