//! Whom a client trusts, and who it is.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use zeroize::Zeroizing;

use crate::settings::{read_certificates, read_key};

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
    /// Authorities that cannot be used, or a certificate and a key that do not belong together.
    #[error("the certificates: {0}")]
    Unusable(#[from] TlsError),
    /// What is connected to is neither a host's name nor an address.
    #[error("no certificate could name this host; accepted: a host's name or an IP address")]
    Name,
}

/// Whose word counts for an agent's certificate.
#[derive(Debug, Clone)]
pub enum Trust {
    /// That of these authorities.
    Authorities(Arc<RootCertStore>),
    /// Nobody's: it must be this one, whoever issued it and whatever it names.
    Only(CertificateDer<'static>),
}

impl Trust {
    /// The authorities in a PEM file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn file(path: &Path) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(path).map_err(TrustError::Certificates)? {
            roots.add(certificate)?;
        }
        Ok(Self::Authorities(Arc::new(roots)))
    }

    /// Those that this system trusts.
    ///
    /// # Errors
    /// Where it knows none.
    pub fn system() -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        // Some of a system's certificates may be odd; the rest count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TrustError::NoAuthorities);
        }
        Ok(Self::Authorities(Arc::new(roots)))
    }

    pub(crate) fn client_config(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match self {
            Self::Authorities(roots) => builder.with_root_certificates(Arc::clone(roots)),
            Self::Only(expected) => {
                let expected = expected.clone();
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Pinned { expected, provider }))
            }
        };
        let config = match identity {
            Some(Identity { chain, key }) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key())?
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

/// Takes one certificate for the agent's, and no other.
#[derive(Debug)]
struct Pinned {
    expected: CertificateDer<'static>,
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
        if self.expected == *shown {
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
