//! Whom a client trusts, and who it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, OtherError,
    SignatureScheme,
};
use zeroize::Zeroizing;

use crate::settings::{
    IdentityProblem, Signatures, Trusted, certified, read_certificates, read_key,
};

/// What is wrong with the files that TLS is done with.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of authorities or of a client's certificate.
    #[error("the certificates' file {0}; accepted: the path of a PEM file")]
    Certificates(String),
    /// A file of a client's key.
    #[error("the private key's file {0}; accepted: the path of a PEM file")]
    Key(String),
    /// The system knows no authorities.
    #[error("this system has no certificates of authorities: name a file of them")]
    NoAuthorities,
    /// Authorities that cannot be used.
    #[error("the certificates: {0}")]
    Unusable(#[from] TlsError),
    /// A client's certificate and a key that cannot be used, or do not belong together.
    #[error("{0}")]
    Identity(#[from] IdentityProblem),
    /// What is connected to is neither a host's name nor an address.
    #[error("no certificate could name this host; accepted: a host's name or an IP address")]
    Name,
}

/// Whose word counts for an agent's certificate.
#[derive(Debug, Clone)]
pub enum Trust {
    /// That of these authorities. A certificate that is one of theirs is trusted as well, by whatever agent it is shown.
    Authorities(Trusted),
    /// Nobody's: it must be this one, whoever issued it and whatever it names.
    Only(CertificateDer<'static>),
}

impl Trust {
    /// The authorities in a PEM file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn file(path: &Path) -> Result<Self, TrustError> {
        let certificates = read_certificates(path).map_err(TrustError::Certificates)?;
        Ok(Self::Authorities(Trusted::of(certificates)?))
    }

    /// Those that this system trusts.
    ///
    /// # Errors
    /// Where it knows none.
    pub fn system() -> Result<Self, TrustError> {
        let trusted = Trusted::of_system(rustls_native_certs::load_native_certs().certs);
        if trusted.is_empty() {
            return Err(TrustError::NoAuthorities);
        }
        Ok(Self::Authorities(trusted))
    }

    pub(crate) fn client_config(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let verifier = match self {
            Self::Authorities(trusted) => trusted.server_verifier(provider)?,
            Self::Only(expected) => Arc::new(Pinned {
                expected: expected.clone(),
                signatures: Signatures(provider),
            }),
        };
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            Some(Identity { chain, key }) => {
                let identity = SingleCertAndKey::from(certified(chain.clone(), key)?);
                builder.with_client_cert_resolver(Arc::new(identity))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

/// A client's certificate and its key, for agents that ask for one.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
}

impl Identity {
    /// From PEM files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn files(certificate: &Path, key: &Path) -> Result<Self, TrustError> {
        Ok(Self {
            chain: read_certificates(certificate).map_err(TrustError::Certificates)?,
            key: read_key(key).map_err(TrustError::Key)?,
        })
    }
}

/// A failed handshake's error, without rustls's introduction where it is what this crate itself says.
pub(super) fn plain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(TlsError::Other(OtherError(advice))) => {
            io::Error::new(error.kind(), advice.to_string())
        }
        _ => error,
    }
}

/// Takes one certificate for the agent's, and no other.
#[derive(Debug)]
struct Pinned {
    expected: CertificateDer<'static>,
    signatures: Signatures,
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
        if self.expected == *shown {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
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
