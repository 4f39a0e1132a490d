//! The TLS settings of a client: the certificates of agents that the client trusts, and the client's own certificate.

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

/// An error in the TLS settings of a client.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The PEM file with the trusted authorities or with the client certificate cannot be used.
    #[error("the certificate file {0}; accepted: the path of a PEM file")]
    Certificates(String),
    /// The PEM file with the private key of the client certificate cannot be used.
    #[error("the private key file {0}; accepted: the path of a PEM file")]
    Key(String),
    /// The operating system has no trusted certificate authorities.
    #[error(
        "this system trusts no certificate authorities; give a PEM file with trusted authorities"
    )]
    NoAuthorities,
    /// The certificates of the authorities cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Unusable(#[from] TlsError),
    /// The client certificate or its key cannot be used, or they do not match.
    #[error("{0}")]
    Identity(#[from] IdentityProblem),
    /// The name is neither a host name nor an IP address. No certificate can contain such a name.
    #[error(
        "the host is not a valid name for a certificate; accepted: a host name or an IP address"
    )]
    Name,
}

/// The certificates of agents that a client accepts.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Accepts a certificate that one of these authorities has issued. Also accepts a certificate that is itself in this set.
    Authorities(Trusted),
    /// Accepts only this certificate. Does not check its issuer, names and dates.
    Only(CertificateDer<'static>),
}

impl Trust {
    /// Trusts the authorities in a PEM file.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or if a certificate in it cannot be used.
    pub fn file(path: &Path) -> Result<Self, TrustError> {
        let certificates = read_certificates(path).map_err(TrustError::Certificates)?;
        Ok(Self::Authorities(Trusted::of(certificates)?))
    }

    /// Trusts the authorities that this system trusts.
    ///
    /// # Errors
    /// Fails if this system trusts no authorities.
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

/// A client certificate and its key, for agents that require a client certificate.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
}

impl Identity {
    /// Reads the certificate and the key from PEM files.
    ///
    /// # Errors
    /// Fails if one of the files cannot be used. The error names that file and the reason.
    pub fn files(certificate: &Path, key: &Path) -> Result<Self, TrustError> {
        Ok(Self {
            chain: read_certificates(certificate).map_err(TrustError::Certificates)?,
            key: read_key(key).map_err(TrustError::Key)?,
        })
    }
}

/// Returns the error of a failed handshake. If the text comes from this crate's own verifier, removes the prefix that rustls
/// adds to the text.
pub(super) fn plain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(TlsError::Other(OtherError(advice))) => {
            io::Error::new(error.kind(), advice.to_string())
        }
        _ => error,
    }
}

/// Accepts exactly one certificate.
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
