//! The certificate and its key, loaded and checked at start-up.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as TlsError, InconsistentKeys, ServerConfig};

use super::parse::Reader;
use super::raw::RawSettings;

/// A certificate and key that belong together, ready to serve with.
#[derive(Clone)]
pub struct Tls {
    /// Where the certificate chain came from.
    pub cert_file: PathBuf,
    /// Where the key came from.
    pub key_file: PathBuf,
    /// The server's side of TLS 1.2 and 1.3.
    pub server: Arc<ServerConfig>,
    /// The certificate chain, the server's own first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

/// TLS from `TLS_ENABLED`, `TLS_CERT_FILE` and `TLS_KEY_FILE`; none where it is off, or where
/// the reader took note of a problem.
pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Tls> {
    if !reader.switch("TLS_ENABLED", &raw.tls_enabled, false) {
        return None;
    }
    let chain = read_file(reader, "TLS_CERT_FILE", &raw.tls_cert_file, read_chain);
    let key = read_file(reader, "TLS_KEY_FILE", &raw.tls_key_file, |path| {
        PrivateKeyDer::from_pem_file(path).map_err(|error| pem_problem(&error, "private key"))
    });
    let ((cert_file, chain), (key_file, key)) = (chain?, key?);
    match server_config(chain.clone(), key) {
        Ok(server) => Some(Tls {
            cert_file,
            key_file,
            server: Arc::new(server),
            chain,
        }),
        Err((variable, text)) => {
            reader.problem(variable, text);
            None
        }
    }
}

fn read_file<T>(
    reader: &mut Reader,
    variable: &'static str,
    path: &Option<String>,
    load: impl FnOnce(&Path) -> Result<T, String>,
) -> Option<(PathBuf, T)> {
    let Some(path) = path.as_ref().map(PathBuf::from) else {
        reader.problem(
            variable,
            "not set, but TLS_ENABLED is true; accepted: the path of a PEM file",
        );
        return None;
    };
    match load(&path) {
        Ok(loaded) => Some((path, loaded)),
        // Not its path: somebody may have put the key itself where its path belongs.
        Err(problem) => {
            let text = format!("the file {problem}; accepted: the path of a PEM file");
            reader.problem(variable, text);
            None
        }
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| pem_problem(&error, "certificate"))?;
    if chain.is_empty() {
        return Err("contains no certificate".to_owned());
    }
    Ok(chain)
}

fn pem_problem(error: &PemError, wanted: &str) -> String {
    match error {
        PemError::Io(error) => format!("cannot be read ({error})"),
        PemError::NoItemsFound => format!("contains no {wanted}"),
        _ => "is not valid PEM".to_owned(),
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, (&'static str, String)> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => (
                "TLS_KEY_FILE",
                "does not match the certificate; accepted: the key that TLS_CERT_FILE was \
                 issued for"
                    .to_owned(),
            ),
            TlsError::InvalidCertificate(error) => (
                "TLS_CERT_FILE",
                format!("not a valid certificate ({error:?}); accepted: X.509 in PEM"),
            ),
            error => (
                "TLS_KEY_FILE",
                format!("cannot be used ({error}); accepted: an RSA, ECDSA or Ed25519 key in PEM"),
            ),
        })
}
