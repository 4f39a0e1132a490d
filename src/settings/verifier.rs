//! Verifies certificates against a list of trusted certificates, from a file or from the system.
//!
//! A peer's certificate is accepted in two cases. In the first case, a certificate in the list issued the peer's certificate. In
//! the second case, a copy of the peer's certificate is in the list.
//! webpki, the verifier of rustls, knows only the first case. So webpki refuses a self-signed certificate of
//! `openssl req -x509`, and every certificate of X.509 version 1. OpenSSL accepts such a certificate if a copy is in its list.
//!
//! This module adds the second case. The copy in the list must be equal byte for byte. The certificate must be valid now and
//! allow the purpose. A server's certificate must also name the host. In both cases the peer must prove that it has the private
//! key.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    RootCertStore, SignatureScheme,
};
use webpki::RawPublicKeyEntity;

use super::certificate::{Certificate, Purpose};

/// A list of trusted certificates, for both cases.
#[derive(Debug, Clone)]
pub struct Trusted {
    roots: Arc<RootCertStore>,
    listed: Arc<[CertificateDer<'static>]>,
}

/// An error that says what is wrong with a certificate and what the operator can do.
#[derive(Debug)]
struct Advice(&'static str);

const MAY_SIGN: &str = "the certificate may sign other certificates (CA:TRUE, the default of `openssl req -x509`), so it is accepted \
    only if the file of trusted certificates contains a copy of it: add a copy to that file, or make a new certificate with \
    `-addext basicConstraints=critical,CA:FALSE`";
const VERSION_1: &str = "the certificate has X.509 version 1, so it is accepted only if the file of trusted certificates contains \
    a copy of it: add a copy to that file, or issue a new certificate with a subjectAltName (`openssl x509 -req -extfile`)";
const NO_NAME: &str = "the certificate has no subjectAltName, so it names no host: issue a new certificate with, for example, \
    `-addext subjectAltName=DNS:web-1,IP:10.0.0.7`";

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Advice {}

impl Trusted {
    /// Trusts these certificates.
    ///
    /// # Errors
    /// Fails if one of the certificates cannot be used as an authority.
    pub fn of(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone())?;
        }
        Ok(Self {
            roots: Arc::new(roots),
            listed: certificates.into(),
        })
    }

    /// Trusts the certificates of the operating system. If a certificate cannot be used as an authority, a peer with the same
    /// certificate is still accepted.
    pub(crate) fn of_system(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self {
            roots: Arc::new(roots),
            listed: certificates.into(),
        }
    }

    /// Whether none of the certificates can be used as an authority.
    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Returns a verifier of servers' certificates.
    ///
    /// # Errors
    /// Fails if none of the certificates can be used as an authority.
    pub(crate) fn server_verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let roots = Arc::clone(&self.roots);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Ok(Arc::new(ServerVerifier {
            inner: inner
                .build()
                .map_err(|error| TlsError::General(error.to_string()))?,
            listed: Arc::clone(&self.listed),
            signatures: Signatures(provider),
        }))
    }

    /// Returns a verifier of clients' certificates.
    ///
    /// # Errors
    /// Fails if none of the certificates can be used as an authority.
    pub(crate) fn client_verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let roots = Arc::clone(&self.roots);
        let inner = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Ok(Arc::new(ClientVerifier {
            inner: inner
                .build()
                .map_err(|error| TlsError::General(error.to_string()))?,
            listed: Arc::clone(&self.listed),
            signatures: Signatures(provider),
        }))
    }
}

/// Verifies the signature by which a peer proves that it has the private key of its certificate. Works with certificates of
/// every X.509 version.
#[derive(Debug)]
pub(crate) struct Signatures(pub(crate) Arc<CryptoProvider>);

impl Signatures {
    pub(crate) fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        let Some(key) = key_of_version_1(certificate) else {
            return verify_tls12_signature(message, certificate, signed, algorithms);
        };
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let mapping = algorithms.mapping.iter();
        let possible = mapping.filter(|(scheme, _)| *scheme == signed.scheme);
        for algorithm in possible.flat_map(|(_, algorithms)| *algorithms) {
            match key.verify_signature(*algorithm, message, signed.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                // In TLS 1.2 the scheme does not say which curve the key has. Try the algorithm for the next curve.
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => break,
            }
        }
        Err(CertificateError::BadSignature.into())
    }

    pub(crate) fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        match key_of_version_1(certificate) {
            None => verify_tls13_signature(message, certificate, signed, algorithms),
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signed, algorithms),
        }
    }

    pub(crate) fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The public key of a certificate of version 1 or 2, because rustls cannot read such a certificate. None for version 3.
fn key_of_version_1<'c>(
    certificate: &'c CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'c>> {
    let read = Certificate::read(certificate).filter(|read| read.version < 3)?;
    Some(SubjectPublicKeyInfoDer::from(read.public_key))
}

/// Checks the dates and the purpose of a certificate that is in the list. Does not check the names in the certificate. Returns
/// the certificate's fields.
fn verify_listed<'c>(
    shown: &'c CertificateDer<'_>,
    purpose: Purpose,
    now: UnixTime,
) -> Result<Certificate<'c>, TlsError> {
    let read = Certificate::read(shown).ok_or(CertificateError::BadEncoding)?;
    let unix = |moment: SystemTime| {
        UnixTime::since_unix_epoch(moment.duration_since(UNIX_EPOCH).unwrap_or_default())
    };
    let (time, not_before, not_after) = (now, unix(read.not_before), unix(read.not_after));
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if !read.is_for(purpose) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(read)
}

/// Replaces an error with a text that says what the operator can do. Returns an error without such a text unchanged.
fn advised(shown: &CertificateDer<'_>, error: TlsError) -> TlsError {
    let advice = match &error {
        TlsError::InvalidCertificate(CertificateError::Other(OtherError(cause)))
            if cause.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            MAY_SIGN
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) if Certificate::read(shown).is_some_and(|read| !read.has_alternative_names()) => NO_NAME,
        _ if key_of_version_1(shown).is_some() => VERSION_1,
        _ => return error,
    };
    OtherError(Arc::new(Advice(advice))).into()
}

/// Verifies servers' certificates.
#[derive(Debug)]
struct ServerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    listed: Arc<[CertificateDer<'static>]>,
    signatures: Signatures,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if !self.listed.contains(shown) {
            let verified = self
                .inner
                .verify_server_cert(shown, intermediates, name, ocsp, now);
            return verified.map_err(|error| advised(shown, error));
        }
        let read = verify_listed(shown, Purpose::Server, now)?;
        // If the certificate has no subjectAltName, its common name can name the host, as in OpenSSL. This is safe, because a
        // copy of this certificate is in the list.
        if !read.has_alternative_names()
            && let ServerName::DnsName(host) = name
            && read.is_commonly_named(host.as_ref())
        {
            return Ok(ServerCertVerified::assertion());
        }
        if read.version < 3 {
            return Err(OtherError(Arc::new(Advice(NO_NAME))).into());
        }
        ParsedCertificate::try_from(shown)
            .and_then(|parsed| verify_server_name(&parsed, name))
            .map_err(|error| advised(shown, error))?;
        Ok(ServerCertVerified::assertion())
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

/// Verifies clients' certificates.
#[derive(Debug)]
struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    listed: Arc<[CertificateDer<'static>]>,
    signatures: Signatures,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        if !self.listed.contains(shown) {
            let verified = self.inner.verify_client_cert(shown, intermediates, now);
            return verified.map_err(|error| advised(shown, error));
        }
        verify_listed(shown, Purpose::Client, now)?;
        Ok(ClientCertVerified::assertion())
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
