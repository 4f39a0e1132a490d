//! Verification against a file of trusted certificates: they are trusted as authorities, and as themselves.
//!
//! webpki, which rustls verifies with, takes a certificate of the file for an authority only. One that stands for itself, as
//! `openssl req -x509` makes it, is refused by it, and one of version 1, too, where OpenSSL accepts both. So a certificate that is
//! in the file, byte for byte, is accepted where it is valid today, meant for that purpose, and names the host. That its holder has
//! the key is verified in any case.

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

/// The certificates of a file, as authorities and as themselves.
#[derive(Debug, Clone)]
pub struct Trusted {
    roots: Arc<RootCertStore>,
    listed: Arc<[CertificateDer<'static>]>,
}

/// What is wrong with a certificate, and what to do about it.
#[derive(Debug)]
struct Advice(&'static str);

const MAY_SIGN: &str = "the certificate may sign others (CA:TRUE, as `openssl req -x509` makes it), so it is accepted only where \
    the file of trusted certificates holds this very one: name a copy of it there, or make one with \
    `-addext basicConstraints=critical,CA:FALSE`";
const VERSION_1: &str = "the certificate is of X.509 version 1, so it is accepted only where the file of trusted certificates holds \
    this very one: name a copy of it there, or issue one with a subjectAltName (`openssl x509 -req -extfile`)";
const NO_NAME: &str = "the certificate names no host, as it has no subjectAltName: issue one with, for example, \
    `-addext subjectAltName=DNS:web-1,IP:10.0.0.7`";

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Advice {}

impl Trusted {
    /// These certificates.
    ///
    /// # Errors
    /// Where one cannot be an authority's.
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

    /// Those of these certificates that can be an authority's: a system's may be odd.
    pub(crate) fn of_system(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self {
            roots: Arc::new(roots),
            listed: certificates.into(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Verifies servers.
    ///
    /// # Errors
    /// Where there is no authority.
    pub(crate) fn server_verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let roots = Arc::clone(&self.roots);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Ok(Arc::new(OfServers {
            inner: inner
                .build()
                .map_err(|error| TlsError::General(error.to_string()))?,
            listed: Arc::clone(&self.listed),
            signatures: Signatures(provider),
        }))
    }

    /// Verifies clients.
    ///
    /// # Errors
    /// Where there is no authority.
    pub(crate) fn client_verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let roots = Arc::clone(&self.roots);
        let inner = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Ok(Arc::new(OfClients {
            inner: inner
                .build()
                .map_err(|error| TlsError::General(error.to_string()))?,
            listed: Arc::clone(&self.listed),
            signatures: Signatures(provider),
        }))
    }
}

/// Verifies that whoever shows a certificate has its key, whatever version the certificate is of.
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
                // Of another curve, which the scheme leaves open in TLS 1.2.
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

/// The key of a certificate that rustls does not read.
fn key_of_version_1<'c>(
    certificate: &'c CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'c>> {
    let read = Certificate::read(certificate).filter(|read| read.version < 3)?;
    Some(SubjectPublicKeyInfoDer::from(read.public_key))
}

/// Verifies a certificate that is trusted as itself, but for its name.
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

/// Says what to do where that is known.
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

#[derive(Debug)]
struct OfServers {
    inner: Arc<WebPkiServerVerifier>,
    listed: Arc<[CertificateDer<'static>]>,
    signatures: Signatures,
}

impl ServerCertVerifier for OfServers {
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
        // As OpenSSL does, for want of another name. It is this very certificate that is trusted.
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

#[derive(Debug)]
struct OfClients {
    inner: Arc<dyn ClientCertVerifier>,
    listed: Arc<[CertificateDer<'static>]>,
    signatures: Signatures,
}

impl ClientCertVerifier for OfClients {
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
