//! A running agent, seen from a client.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
};

use zeroize::Zeroizing;

use super::{Outcome, Report};
use crate::model::Snapshot;
use crate::settings::{ApiKey, Settings, Tls, read_certificates, read_key};

/// How long the agent may take beyond what its settings say.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far the second snapshot may be from its time.
const PUNCTUALITY: Duration = Duration::from_secs(1);
/// The longest line that is read: far above any real snapshot.
const LONGEST_LINE: u64 = 1 << 30;

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Tries a running agent: a wrong key is refused, the right one accepted, two snapshots arrive
/// on time and are valid. Prints one line each; returns whether none failed.
pub async fn socket(settings: Settings, target: Target, print: impl Fn(&str)) -> bool {
    let address = target.address.unwrap_or_else(|| default_address(&settings));
    let agent = Agent {
        address,
        identity: target.identity,
        settings: &settings,
    };
    let mut report = Report::new(print);

    let started = Instant::now();
    let refused = agent.wrong_key().await;
    report.line("wrong key", started, &outcome(refused));

    let started = Instant::now();
    match agent.right_key().await {
        Ok((seen, mut lines)) => {
            report.line("right key", started, &Outcome::Pass(seen));
            let started = Instant::now();
            let second = second_snapshot(&settings, &mut lines).await;
            report.line("snapshots", started, &outcome(second));
        }
        Err(why) => {
            report.line("right key", started, &Outcome::Fail(why));
            let why = Outcome::Skip("no first snapshot".to_owned());
            report.line("snapshots", Instant::now(), &why);
        }
    }
    report.passed()
}

/// The agent that is tried.
#[derive(Debug, Default)]
pub struct Target {
    /// Host and port; none: this host and `SOCKET_PORT`.
    pub address: Option<String>,
    /// The PEM files of the certificate that it is shown and of its key, where it asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

struct Agent<'s> {
    address: String,
    identity: Option<(PathBuf, PathBuf)>,
    settings: &'s Settings,
}

fn default_address(settings: &Settings) -> String {
    let host = match settings.serve.address {
        Some(address) if !address.is_unspecified() => address,
        _ => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    std::net::SocketAddr::new(host, settings.serve.port).to_string()
}

fn outcome(result: Result<String, String>) -> Outcome {
    match result {
        Ok(seen) => Outcome::Pass(seen),
        Err(why) => Outcome::Fail(why),
    }
}

impl Agent<'_> {
    async fn wrong_key(&self) -> Result<String, String> {
        let mut stream = self.connect().await?;
        // As long as a key may be, and none that anybody has: it contains no visible character.
        send_key(&mut stream, &[0x01; 32]).await?;
        let mut answer = Vec::new();
        let mut limited = stream.take(4096);
        let read = limited.read_to_end(&mut answer);
        let read = within(PATIENCE, "the answer to a wrong key", read).await;
        match (read, answer.as_slice()) {
            (Ok(_), b"Unauthorized\n") => Ok("refused with `Unauthorized`".to_owned()),
            (_, []) => Err(closed_without_a_word("a wrong key")),
            (Err(why), _) => Err(format!("accepted: {why}")),
            (Ok(_), _) => Err("answered with something other than `Unauthorized`".to_owned()),
        }
    }

    async fn right_key(&self) -> Result<(String, Lines), String> {
        let mut stream = self.connect().await?;
        let key = self.settings.credentials.keys.first();
        send_key(&mut stream, key.map(ApiKey::expose).unwrap_or_default()).await?;
        let mut lines = BufReader::new(stream);
        let snapshot = read_snapshot(&mut lines, PATIENCE).await?;
        let seen = format!(
            "accepted, snapshot {} of agent {}",
            snapshot.agent.seq, snapshot.agent.version
        );
        Ok((seen, lines))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let address = &self.address;
        let stream = within(PATIENCE, "a connection", TcpStream::connect(address))
            .await
            .map_err(|why| format!("cannot connect to {address}: {why}"))?;
        let Some(tls) = &self.settings.credentials.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let connector = TlsConnector::from(self.client_config(tls)?);
        let handshake = connector.connect(name, stream);
        within(PATIENCE, "the TLS handshake", handshake)
            .await
            .map(|stream| Box::new(stream) as Box<dyn Stream>)
            .map_err(|why| format!("TLS with {address}: {why}"))
    }

    /// A client that trusts exactly the certificate in `TLS_CERT_FILE`: whoever issued it, and
    /// whatever names are in it, it is the one that the agent should be showing.
    fn client_config(&self, tls: &Tls) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let expected = tls.chain.first().cloned();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { expected, provider }));
        let asks = self.settings.credential_sources.tls.as_ref();
        let asks = asks.is_some_and(|files| files.client_ca.is_some());
        let config = match &self.identity {
            Some((certificate, key)) => {
                let chain = read_certificates(certificate)
                    .map_err(|problem| format!("the file given with --cert {problem}"))?;
                let key = read_key(key)
                    .map_err(|problem| format!("the file given with --key {problem}"))?;
                builder
                    .with_client_auth_cert(chain, key.clone_key())
                    .map_err(|error| format!("the client's certificate and key: {error}"))?
            }
            None if asks => {
                return Err(
                    "the agent asks for a certificate (TLS_CLIENT_CA_FILE): give one with --cert and --key"
                        .to_owned(),
                );
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

type Lines = BufReader<Box<dyn Stream>>;

/// The first came at once, at any point of the interval: the next tells nothing about timing,
/// so the time between the second and the third is measured as well.
async fn second_snapshot(settings: &Settings, lines: &mut Lines) -> Result<String, String> {
    let interval = settings.publish_interval;
    read_snapshot(lines, interval + PUNCTUALITY).await?;
    let second = Instant::now();
    let third = read_snapshot(lines, interval + PUNCTUALITY).await?;
    let between = second.elapsed();
    if between + PUNCTUALITY < interval {
        return Err(format!(
            "one came after {between:.1?} instead of {interval:?}: is PUBLISH_INTERVAL the \
             agent's?"
        ));
    }
    Ok(format!(
        "on time and valid, {between:.1?} apart, {} containers",
        third.containers.len()
    ))
}

async fn send_key(stream: &mut Box<dyn Stream>, key: &[u8]) -> Result<(), String> {
    let line = Zeroizing::new([key, b"\n"].concat());
    let send = async {
        stream.write_all(&line).await?;
        stream.flush().await
    };
    within(PATIENCE, "sending the key", send).await
}

async fn read_snapshot(lines: &mut Lines, patience: Duration) -> Result<Snapshot, String> {
    let mut line = Vec::new();
    let mut limited = lines.take(LONGEST_LINE);
    let read = limited.read_until(b'\n', &mut line);
    within(patience, "a snapshot", read).await?;
    if line.is_empty() {
        return Err(closed_without_a_word("the key"));
    }
    if line.as_slice() == b"Unauthorized\n" {
        return Err("the key was refused: API_KEY is not the agent's".to_owned());
    }
    if line.last() != Some(&b'\n') {
        return Err("the connection was closed in the middle of a line".to_owned());
    }
    serde_json::from_slice(&line).map_err(|error| format!("not a valid snapshot: {error}"))
}

fn closed_without_a_word(after: &str) -> String {
    format!(
        "the connection was closed without a word after {after}: is this address on the agent's \
         WHITELISTED_CLIENTS, and TLS_ENABLED the agent's? Or have too many wrong keys come from it?"
    )
}

/// Waits for one step of the conversation.
async fn within<T>(
    patience: Duration,
    what: &str,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, String> {
    match timeout(patience, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{what} did not come within {patience:.1?}")),
    }
}

#[derive(Debug)]
struct Pinned {
    expected: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.expected.as_ref() == Some(shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
