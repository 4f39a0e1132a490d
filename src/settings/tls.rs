//! What TLS is served with: the certificate, its key, and whose certificates clients must show.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::key::read_secret;
use super::parse::Reader;
use super::raw::RawSettings;

/// The longest file, in bytes: some hundred certificates.
const LONGEST_FILE: usize = 1024 * 1024;

/// A certificate and key that belong together, ready to serve with.
#[derive(Clone)]
pub struct Tls {
    /// The server's side of TLS 1.2 and 1.3.
    pub server: Arc<ServerConfig>,
    /// The certificate chain, the server's own first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The PEM files of TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`: the certificate chain.
    pub cert: PathBuf,
    /// `TLS_KEY_FILE`: its private key.
    pub key: PathBuf,
    /// `TLS_CLIENT_CA_FILE`: who issues clients' certificates; none: clients need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// From `TLS_ENABLED` and the paths; none where TLS is off. An error where the reader took note of a problem.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Result<Option<Self>, ()> {
        let client_ca = raw.tls_client_ca_file.as_ref().map(PathBuf::from);
        if !reader.switch("TLS_ENABLED", &raw.tls_enabled, false) {
            // Whoever asks for clients' certificates wants nobody else to be let in.
            if client_ca.is_some() {
                reader.problem(
                    "TLS_CLIENT_CA_FILE",
                    "set, but TLS_ENABLED is not true; accepted: only with TLS",
                );
                return Err(());
            }
            return Ok(None);
        }
        let mut path = |variable, path: &Option<String>| {
            if path.is_none() {
                reader.problem(
                    variable,
                    "not set, but TLS_ENABLED is true; accepted: the path of a PEM file",
                );
            }
            path.as_ref().map(PathBuf::from)
        };
        let cert = path("TLS_CERT_FILE", &raw.tls_cert_file);
        let key = path("TLS_KEY_FILE", &raw.tls_key_file);
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Self {
                cert,
                key,
                client_ca,
            })),
            _ => Err(()),
        }
    }

    /// What the files hold; none where the reader took note of a problem.
    pub(super) fn load(&self, reader: &mut Reader) -> Option<Tls> {
        let chain = load(reader, "TLS_CERT_FILE", &self.cert, read_certificates);
        let key = load(reader, "TLS_KEY_FILE", &self.key, read_key);
        let client_ca = match &self.client_ca {
            None => Some(None),
            Some(path) => load(reader, "TLS_CLIENT_CA_FILE", path, |path| {
                read_certificates(path).and_then(root_store)
            })
            .map(Some),
        };
        let (chain, key, client_ca) = (chain?, key?, client_ca?);
        match server_config(chain.clone(), &key, client_ca) {
            Ok(server) => Some(Tls {
                server: Arc::new(server),
                chain,
            }),
            Err((variable, text)) => {
                reader.problem(variable, text);
                None
            }
        }
    }
}

pub(super) fn load<T>(
    reader: &mut Reader,
    variable: &'static str,
    path: &Path,
    load: impl FnOnce(&Path) -> Result<T, String>,
) -> Option<T> {
    load(path)
        // Not its path: somebody may have put the key itself where its path belongs.
        .map_err(|problem| {
            let text = format!("the file {problem}; accepted: the path of a PEM file");
            reader.problem(variable, text);
        })
        .ok()
}

/// A file's certificates; an error says what is wrong with the file, to follow on its name.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read_file(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_problem(&error, "certificate"))?;
    if chain.is_empty() {
        return Err("contains no certificate".to_owned());
    }
    Ok(chain)
}

/// A file's private key; an error as above.
pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
    PrivateKeyDer::from_pem_slice(&read_file(path)?)
        .map(Zeroizing::new)
        .map_err(|error| pem_problem(&error, "private key"))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    match read_secret(path, LONGEST_FILE) {
        Ok(text) if text.len() <= LONGEST_FILE => Ok(text),
        Ok(_) => Err(format!("is over {LONGEST_FILE} bytes")),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

fn pem_problem(error: &PemError, wanted: &str) -> String {
    match error {
        PemError::NoItemsFound => format!("contains no {wanted}"),
        _ => "is not valid PEM".to_owned(),
    }
}

pub(super) fn root_store(
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store
            .add(certificate)
            .map_err(|error| format!("holds a certificate that cannot be used ({error})"))?;
    }
    Ok(store)
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    client_ca: Option<RootCertStore>,
) -> Result<ServerConfig, (&'static str, String)> {
    let provider = Arc::new(ring::default_provider());
    let identity = identity(chain, key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| ("TLS_CLIENT_CA_FILE", format!("cannot be used ({error})")))?,
        ),
    };
    Ok(builder.with_cert_resolver(identity))
}

/// The chain with its key, which is only looked at: rustls would take it and not wipe it.
fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<dyn ResolvesServerCert>, (&'static str, String)> {
    let key = ring::sign::any_supported_type(key).map_err(|error| unusable(&error))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        // A key that does not tell its public half is taken at its word.
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(SingleCertAndKey::from(identity)))
        }
        Err(TlsError::InconsistentKeys(_)) => Err((
            "TLS_KEY_FILE",
            "does not match the certificate; accepted: the key that TLS_CERT_FILE was issued for"
                .to_owned(),
        )),
        Err(error) => Err((
            "TLS_CERT_FILE",
            format!("not a valid certificate ({error}); accepted: X.509 in PEM"),
        )),
    }
}

fn unusable(error: &TlsError) -> (&'static str, String) {
    (
        "TLS_KEY_FILE",
        format!("cannot be used ({error}); accepted: an RSA, ECDSA or Ed25519 key in PEM"),
    )
}
