//! Tests of certificates made with `openssl`: which files the agent serves, and which certificates its clients trust.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serial_test::parallel;
use system_agent::client::{Connector, Identity, Trust};
use system_agent::settings::ApiKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::expiry::dated;
use crate::support::nats::{NatsServer, tls};
use crate::support::{KEY, Launch, MadeByOpenssl, OpenSsl, Terminal};
use crate::watching::SMALL;

const NAMES: &str = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1";

/// Makes self-signed certificates of each kind, and the other certificates and keys of these tests.
fn all_kinds() -> MadeByOpenssl {
    let made = MadeByOpenssl::new();
    let named = format!("-days 365 -subj /CN=localhost {NAMES}");
    made.run(&format!(
        "req -x509 -newkey rsa:2048 -nodes -keyout self.key -out self.pem {named}"
    ));
    made.run("ecparam -name prime256v1 -genkey -out ec.key");
    made.run(&format!("req -x509 -key ec.key -out ec.pem {named}"));
    made.run(&format!(
        "req -x509 -key ec.key -out leaf.pem {named} -addext basicConstraints=critical,CA:FALSE"
    ));
    made.run("req -x509 -key ec.key -out common.pem -days 365 -subj /CN=localhost");
    made.run("req -x509 -key ec.key -out stranger.pem -days 365 -subj /CN=elsewhere");
    made.run(&format!(
        "req -x509 -key ec.key -out client.pem {named} -addext extendedKeyUsage=clientAuth"
    ));
    made.run("req -new -key ec.key -subj /CN=localhost -out v1.csr");
    // Without extensions the certificate has X.509 version 1.
    made.run("x509 -req -in v1.csr -signkey ec.key -days 100 -out v1.pem");
    made.run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 365 -subj /CN=authority");
    made.run("x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 100 -out issued-v1.pem");
    made.write(
        "may-sign",
        format!(
            "basicConstraints=CA:TRUE\n{}",
            "subjectAltName=DNS:localhost\n"
        ),
    );
    made.run("x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -days 100 -extfile may-sign -out issued-ca.pem");
    made.write("no-name", "basicConstraints=CA:FALSE\n");
    made.run("x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -days 100 -extfile no-name -out issued-nameless.pem");
    made
}

/// Connects as a client that trusts this file and expects the name `host`. Returns the error if it gets no snapshot.
fn try_connect(address: SocketAddr, host: &str, trusted: &Path) -> Result<(), String> {
    let trust = Trust::file(trusted).map_err(|error| error.to_string())?;
    let connector = Connector::new(&address.to_string(), &ApiKey::new("", KEY).unwrap());
    let connector = connector.tls(&trust, None, Some(host)).unwrap();
    actix::System::new().block_on(async {
        let mut snapshots = connector
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        snapshots.next().await.map_err(|error| error.to_string())?;
        Ok(())
    })
}

#[test]
#[parallel]
fn self_signed_certificates_are_trusted_as_openssl_trusts_them() {
    let made = all_kinds();
    for (certificate, key, host, trusted, refused) in [
        ("self.pem", "self.key", "localhost", "self.pem", None),
        ("self.pem", "self.key", "127.0.0.1", "self.pem", None),
        ("ec.pem", "ec.key", "localhost", "ec.pem", None),
        ("leaf.pem", "ec.key", "localhost", "leaf.pem", None),
        ("common.pem", "ec.key", "localhost", "common.pem", None),
        ("v1.pem", "ec.key", "localhost", "v1.pem", None),
        // The common name does not match an IP address or another host. If the certificate has a subjectAltName, the common name
        // does not count.
        (
            "common.pem",
            "ec.key",
            "127.0.0.1",
            "common.pem",
            Some("no subjectAltName"),
        ),
        (
            "v1.pem",
            "ec.key",
            "127.0.0.1",
            "v1.pem",
            Some("no subjectAltName"),
        ),
        (
            "stranger.pem",
            "ec.key",
            "localhost",
            "stranger.pem",
            Some("no subjectAltName"),
        ),
        (
            "self.pem",
            "self.key",
            "elsewhere",
            "self.pem",
            Some("not valid for name \"elsewhere\""),
        ),
        (
            "client.pem",
            "ec.key",
            "localhost",
            "client.pem",
            Some("InvalidPurpose"),
        ),
        // Another self-signed certificate with the same name.
        ("ec.pem", "ec.key", "localhost", "self.pem", Some("")),
        ("leaf.pem", "ec.key", "localhost", "self.pem", Some("")),
        // An authority has issued this certificate. If the file contains only the authority, the error names the problem. If the
        // file contains the certificate itself, the certificate is accepted.
        (
            "issued-v1.pem",
            "ec.key",
            "localhost",
            "ca.pem",
            Some("X.509 version 1"),
        ),
        (
            "issued-v1.pem",
            "ec.key",
            "localhost",
            "issued-v1.pem",
            None,
        ),
        (
            "issued-ca.pem",
            "ec.key",
            "localhost",
            "ca.pem",
            Some("may sign other certificates (CA:TRUE"),
        ),
        (
            "issued-ca.pem",
            "ec.key",
            "localhost",
            "issued-ca.pem",
            None,
        ),
        (
            "issued-nameless.pem",
            "ec.key",
            "localhost",
            "ca.pem",
            Some("no subjectAltName"),
        ),
        (
            "issued-nameless.pem",
            "ec.key",
            "localhost",
            "issued-nameless.pem",
            None,
        ),
    ] {
        let agent = made.launch(certificate, key).start();
        let ours = try_connect(agent.address(), host, &made.path(trusted));
        let case = format!("{certificate} of {host} by {trusted}");
        match (ours, refused) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.contains(words), "{case}: {error}"),
            (ours, _) => panic!("{case}: {ours:?}"),
        }
        if refused.is_none() {
            // OpenSSL accepts the same certificates. `-partial_chain` makes it trust a certificate that is not an authority.
            let verify = if host == "127.0.0.1" {
                "-verify_ip"
            } else {
                "-verify_hostname"
            };
            let file = made.path(trusted);
            let file = file.to_str().unwrap();
            let options = [
                "-verify_return_error",
                "-partial_chain",
                "-CAfile",
                file,
                verify,
                host,
            ];
            let mut openssl = OpenSsl::connect(agent.address(), &options);
            openssl.send(format!("{KEY}\n"));
            openssl.snapshot();
        }
    }
}

#[test]
#[parallel]
fn a_certificate_is_trusted_only_while_it_is_valid() {
    let made = MadeByOpenssl::new();
    let now = SystemTime::now();
    let days = |days: u64| Duration::from_secs(days * 86_400);
    for (name, from, until, refused) in [
        ("good", now - days(1), now + days(1), None),
        (
            "expired",
            now - days(9),
            now - days(1),
            Some("certificate expired"),
        ),
        ("early", now + days(1), now + days(9), Some("not valid yet")),
    ] {
        dated(&made, name, from, until);
        let agent = made
            .launch(&format!("{name}.pem"), &format!("{name}.key"))
            .start();
        let ours = try_connect(
            agent.address(),
            "localhost",
            &made.path(&format!("{name}.pem")),
        );
        match refused {
            None => ours.unwrap(),
            Some(words) => assert!(ours.unwrap_err().contains(words), "{name}"),
        }
    }
}

/// Starts a server with this certificate and this key, which need not match.
fn impostor(
    certificate: &Path,
    key: &Path,
    version: &'static tokio_rustls::rustls::SupportedProtocolVersion,
) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let identity = CertifiedKey::new(chain, ring::sign::any_supported_type(&key).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        actix::System::new().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                // Keep the connection open and send nothing.
                let stream = acceptor.accept(stream).await;
                std::mem::forget(stream);
            }
        });
    });
    address
}

#[test]
#[parallel]
fn a_server_must_have_the_key_of_its_certificate() {
    let made = all_kinds();
    made.run("ecparam -name prime256v1 -genkey -noout -out other.key");
    for version in [&TLS12, &TLS13] {
        for certificate in ["v1.pem", "ec.pem", "common.pem"] {
            let connect = |key: &str| {
                let address = impostor(&made.path(certificate), &made.path(key), version);
                let trust = Trust::file(&made.path(certificate)).unwrap();
                let connector =
                    Connector::new(&address.to_string(), &ApiKey::new("", KEY).unwrap());
                let connector = connector.tls(&trust, None, Some("localhost")).unwrap();
                actix::System::new().block_on(async { connector.connect().await.map(drop) })
            };
            let case = format!("{certificate} {version:?}");
            connect("ec.key").unwrap_or_else(|error| panic!("{case}: {error}"));
            let error = connect("other.key").expect_err(&case).to_string();
            assert!(error.contains("BadSignature"), "{case}: {error}");
        }
    }
}

#[test]
#[parallel]
fn a_client_certificate_is_accepted_if_the_file_contains_it() {
    let made = all_kinds();
    for (shown, listed, is_accepted) in [
        ("ec.pem", "ec.pem", true),
        ("v1.pem", "v1.pem", true),
        ("client.pem", "client.pem", true),
        ("issued-v1.pem", "issued-v1.pem", true),
        ("ec.pem", "self.pem", false),
        ("issued-v1.pem", "ca.pem", false),
    ] {
        let launch = made.launch("self.pem", "self.key");
        let agent = launch.var("TLS_CLIENT_CA_FILE", made.path(listed)).start();
        let trust = Trust::file(&made.path("self.pem")).unwrap();
        let identity = Identity::files(&made.path(shown), &made.path("ec.key")).unwrap();
        let connector =
            Connector::new(&agent.address().to_string(), &ApiKey::new("", KEY).unwrap());
        let connector = connector.tls(&trust, Some(&identity), None).unwrap();
        let result = actix::System::new().block_on(async {
            let mut snapshots = connector.connect().await?;
            snapshots.next().await
        });
        assert_eq!(
            result.is_ok(),
            is_accepted,
            "{shown} by {listed}: {:?}",
            result.err()
        );
    }
}

#[test]
#[parallel]
fn check_socket_trusts_the_agents_own_certificate_file() {
    let made = all_kinds();
    for certificate in ["v1.pem", "ec.pem", "issued-v1.pem"] {
        let launch = made.launch(certificate, "ec.key");
        let launch = launch.var("PUBLISH_INTERVAL", "200ms");
        let agent = launch.clone().start();
        let port = agent.port().to_string();
        let checked = launch
            .var("SOCKET_PORT", port)
            .args(["check", "socket"])
            .run();
        assert_eq!(checked.code(), 0, "{certificate}: {checked:?}");
    }
}

#[test]
#[parallel]
fn watch_and_nats_trust_self_signed_certificates() {
    let made = all_kinds();
    let agent = made.launch("self.pem", "self.key").start();
    let address = agent.address().to_string();
    let file = |name: &str| made.path(name).to_str().unwrap().to_owned();
    let with_key = [("API_KEY", KEY)];
    let terminal = Terminal::watch(SMALL, &[&address, "--ca", &file("self.pem")], &with_key);
    terminal.shows(&["s old"]);
    let terminal = Terminal::watch(SMALL, &[&address, "--ca", &file("ec.pem")], &with_key);
    terminal.shows(&["away"]);
    // No file is needed if the system trusts the certificate.
    let of_system = [with_key[0], ("SSL_CERT_FILE", &file("self.pem"))];
    let terminal = Terminal::watch(SMALL, &[&address, "--tls"], &of_system);
    terminal.shows(&["s old"]);

    let server = NatsServer::start(&tls(
        &made.path("self.pem"),
        &made.path("self.pem"),
        &made.path("self.key"),
        false,
    ));
    let launch = |ca: &str| {
        let launch = Launch::new().var("NATS_URL", server.tls_url());
        launch.var("NATS_CA_FILE", made.path(ca))
    };
    launch("self.pem").start().event("NATS: connected");
    let of_system = launch("self.pem").without("NATS_CA_FILE");
    let of_system = of_system.var("SSL_CERT_FILE", made.path("self.pem"));
    of_system.start().event("NATS: connected");
    let agent = launch("ec.pem").start();
    let reason = agent.event("NATS: not connected");
    assert!(
        reason
            .text("reason")
            .starts_with("invalid peer certificate")
            || reason.text("reason").contains("may sign"),
        "{reason:?}"
    );
    // The agent reads the replaced file before its next attempt.
    made.write("ec.pem", made.read("self.pem"));
    agent.event("NATS: connected");
}

#[test]
#[parallel]
fn certificate_and_key_files_of_every_form_are_read() {
    let made = all_kinds();
    made.run("pkcs8 -topk8 -nocrypt -in ec.key -out ec8.key");
    made.run("rsa -in self.key -traditional -out rsa1.key");
    made.run("ec -in ec.key -out ec1.key");
    made.run("genpkey -algorithm ed25519 -out ed.key");
    made.run("req -x509 -key ed.key -out ed.pem -days 9 -subj /CN=localhost");
    made.run("ecparam -name secp384r1 -genkey -noout -out p384.key");
    made.run("req -x509 -key p384.key -out p384.pem -days 9 -subj /CN=localhost");
    made.run("x509 -in ec.pem -text -out text.pem");
    let ec8 = made.read("ec8.key");
    let with = |before: &str| [before.as_bytes(), &ec8].concat();
    made.write("bom.key", with("\u{feff}"));
    made.write(
        "bag.key",
        with("Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n"),
    );
    let lines = String::from_utf8(made.read("ec.key")).unwrap();
    made.write("crlf.key", lines.replace('\n', "\r\n"));
    made.write("both.pem", [made.read("ec.pem"), ec8.clone()].concat());
    made.write("spaces.key", lines.replace('\n', "  \n"));
    made.write("unended.key", lines.trim_end());
    for (certificate, key) in [
        ("self.pem", "self.key"),
        ("self.pem", "rsa1.key"),
        ("ec.pem", "ec.key"),
        ("ec.pem", "ec1.key"),
        ("ec.pem", "ec8.key"),
        ("ed.pem", "ed.key"),
        ("p384.pem", "p384.key"),
        ("ec.pem", "crlf.key"),
        ("ec.pem", "bom.key"),
        ("ec.pem", "bag.key"),
        ("ec.pem", "spaces.key"),
        ("ec.pem", "unended.key"),
        ("text.pem", "ec.key"),
        ("both.pem", "both.pem"),
        ("v1.pem", "ec.key"),
        ("issued-v1.pem", "ec8.key"),
    ] {
        let agent = made.launch(certificate, key).start();
        let mut client = OpenSsl::connect(agent.address(), &[] as &[&str]);
        client.send(format!("{KEY}\n"));
        client.snapshot();
    }
    made.run("pkcs8 -topk8 -in ec.key -passout pass:secret -out encrypted8.key");
    made.run("ec -in ec.key -aes128 -passout pass:secret -out encrypted1.key");
    made.run("x509 -in ec.pem -outform der -out ec.der");
    made.run("ec -in ec.key -outform der -out ec.key.der");
    made.run("x509 -in ec.pem -trustout -out trusted.pem");
    made.run("ecparam -name secp521r1 -genkey -noout -out p521.key");
    made.run("req -x509 -key p521.key -out p521.pem -days 9 -subj /CN=localhost");
    for (certificate, key, words) in [
        (
            "ec.pem",
            "encrypted8.key",
            "TLS_KEY_FILE: the file is encrypted",
        ),
        (
            "ec.pem",
            "encrypted1.key",
            "TLS_KEY_FILE: the file is encrypted",
        ),
        ("ec.der", "ec.key", "TLS_CERT_FILE: the file is binary"),
        (
            "trusted.pem",
            "ec.key",
            "contains no certificate, but a TRUSTED CERTIFICATE",
        ),
        (
            "ec.pem",
            "ec.pem",
            "contains no private key, but a CERTIFICATE",
        ),
        ("p521.pem", "p521.key", "P-256 or P-384"),
        ("self.pem", "ec.key", "does not match the certificate"),
        ("v1.pem", "self.key", "does not match the certificate"),
    ] {
        let finished = made.launch(certificate, key).run();
        assert_eq!(finished.code(), 78, "{certificate} {key}: {finished:?}");
        let [line] = finished.stderr.as_slice() else {
            panic!("{certificate} {key}: {finished:?}");
        };
        assert!(line.contains(words), "{certificate} {key}: {line}");
    }
}
