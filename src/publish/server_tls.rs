//! TLS with the server of an output. Reads the files with certificates and keys again for each connection, because an administrator can
//! renew the files at any time.
//!
//! If a file cannot be read, the agent continues to use the content that it has read earlier.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
};

use crate::settings::{Signatures, Trusted, certified, read_certificates, read_key};

/// Returns the TLS configuration for connections to servers. `ca` is the file of authorities, none for those of the system. `identity` has
/// the files with the agent's certificate and key. Returns None if a file cannot be used.
pub(super) fn client_config(
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Option<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .ok()?;
    let verifier = Authorities::new(ca.map(Path::to_path_buf), provider)?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Some(match identity {
        Some((certificate, key)) => {
            let identity = Identity::new(certificate.to_path_buf(), key.to_path_buf())?;
            builder.with_client_cert_resolver(Arc::new(identity))
        }
        None => builder.with_no_client_auth(),
    })
}

/// The content of a file at the newest successful reading.
struct Replaceable<T: ?Sized>(Mutex<Arc<T>>);

impl<T: ?Sized> Replaceable<T> {
    fn of(first: Arc<T>) -> Self {
        Self(Mutex::new(first))
    }

    /// Stores the new content `now`, if `now` is not None. Returns the stored content.
    fn renewed(&self, now: Option<Arc<T>>) -> Arc<T> {
        // A lock is poisoned only by a panic, and a panic ends the process.
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = now {
            *newest = now;
        }
        Arc::clone(&newest)
    }
}

/// Verifies the certificates of servers with a file of authorities, or with the authorities that the system trusts.
struct Authorities {
    /// The file of authorities. None if the authorities of the system are used.
    path: Option<PathBuf>,
    signatures: Signatures,
    newest: Replaceable<dyn ServerCertVerifier>,
}

/// The agent's own certificate and key. The files of the certificate and the key are read again for each connection.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    newest: Replaceable<CertifiedKey>,
}

impl Authorities {
    fn new(path: Option<PathBuf>, provider: Arc<CryptoProvider>) -> Option<Arc<Self>> {
        let signatures = Signatures(provider);
        let newest = Replaceable::of(read_verifier(path.as_deref(), &signatures)?);
        Some(Arc::new(Self {
            path,
            signatures,
            newest,
        }))
    }
}

fn read_verifier(
    path: Option<&Path>,
    signatures: &Signatures,
) -> Option<Arc<dyn ServerCertVerifier>> {
    let trusted = match path {
        Some(path) => Trusted::of(read_certificates(path).ok()?).ok()?,
        None => Trusted::of_system(rustls_native_certs::load_native_certs().certs),
    };
    trusted.server_verifier(Arc::clone(&signatures.0)).ok()
}

impl Identity {
    fn new(certificate: PathBuf, key: PathBuf) -> Option<Self> {
        let newest = Replaceable::of(read_identity(&certificate, &key)?);
        Some(Self {
            certificate,
            key,
            newest,
        })
    }
}

fn read_identity(certificate: &Path, key: &Path) -> Option<Arc<CertifiedKey>> {
    let chain = read_certificates(certificate).ok()?;
    certified(chain, &*read_key(key).ok()?).ok().map(Arc::new)
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verifier = self
            .newest
            .renewed(read_verifier(self.path.as_deref(), &self.signatures));
        verifier.verify_server_cert(shown, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signatures.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signatures.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(
            self.newest
                .renewed(read_identity(&self.certificate, &self.key)),
        )
    }

    fn has_certs(&self) -> bool {
        true
    }
}
