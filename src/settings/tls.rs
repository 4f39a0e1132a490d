//! The agent's TLS: reads and checks the certificate, its private key, and the authorities of clients' certificates.
//!
//! This module also reads PEM files for the clients in this crate and for NATS. It does not perform TLS handshakes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::key::read_secret;
use super::parse::Reader;
use super::raw::RawSettings;
use super::verifier::Trusted;

/// Maximum size of a file, in bytes. A file of this size has space for several hundred certificates.
const MAX_FILE: usize = 1024 * 1024;

/// The agent's certificate and its private key, ready for TLS handshakes.
#[derive(Clone)]
pub struct Tls {
    /// The configuration of the agent as a server of TLS 1.2 and 1.3.
    pub server: Arc<ServerConfig>,
    /// The certificate chain. The agent's own certificate is the first certificate of the chain.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The time during which all certificates of a chain are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment at which all certificates are valid.
    pub from: SystemTime,
    /// The final moment at which all certificates are valid.
    pub until: SystemTime,
    /// The place of the certificate that expires first. The first certificate of the chain has the place 1.
    pub first_to_expire: usize,
}

/// A problem with the dates of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// The certificate is not valid yet.
    #[error(
        "the certificate is not valid yet, or this host's clock is wrong: clients that verify the certificate refuse the connection"
    )]
    NotYet,
    /// The certificate has expired.
    #[error(
        "the certificate has expired, and clients that verify it refuse the connection: renew it"
    )]
    Expired,
    /// The certificate expires soon, after this number of whole days.
    #[error("the certificate expires in {days} {unit}: renew it", days = .0, unit = if *.0 == 1 { "day" } else { "days" })]
    Soon(u64),
}

impl Validity {
    /// The agent warns of a certificate that expires within this time.
    const SOON: Duration = Duration::from_secs(14 * Self::DAY);
    const DAY: u64 = 86_400;

    /// Returns the problem with the dates at the time `now`. Returns none if there is no problem.
    #[must_use]
    pub fn untimely(&self, now: SystemTime) -> Option<Untimely> {
        match self.until.duration_since(now) {
            // `until` is a whole second, and the certificate is valid up to the end of this second.
            Err(past) if past.duration() >= Duration::from_secs(1) => Some(Untimely::Expired),
            _ if now < self.from => Some(Untimely::NotYet),
            Err(_) => Some(Untimely::Soon(0)),
            Ok(left) => (left < Self::SOON).then_some(Untimely::Soon(left.as_secs() / Self::DAY)),
        }
    }

    /// The end of the validity, in the format of logs and snapshots (RFC 3339).
    #[must_use]
    pub fn end(&self) -> String {
        // `humantime` panics for a year after 9999. A year in a certificate has at most four digits.
        humantime::format_rfc3339_seconds(self.until).to_string()
    }
}

impl Tls {
    /// Returns the time during which all certificates of the chain are valid. Ignores a certificate that cannot be read. None
    /// if no certificate can be read.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        Self::validity_of(&self.chain)
    }

    /// Returns the time during which all certificates of `chain` are valid, as [`Self::validity`] does.
    pub(crate) fn validity_of(chain: &[CertificateDer<'_>]) -> Option<Validity> {
        let all = (1..).zip(chain);
        let read = all.filter_map(|(place, der)| Some((place, Certificate::read(der)?)));
        let of = |(place, certificate): (usize, Certificate<'_>)| Validity {
            from: certificate.not_before,
            until: certificate.not_after,
            first_to_expire: place,
        };
        read.map(of).reduce(|one, other| {
            let first = if other.until < one.until { other } else { one };
            Validity {
                from: one.from.max(other.from),
                ..first
            }
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The paths of the PEM files for TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`: the certificate chain.
    pub cert: PathBuf,
    /// `TLS_KEY_FILE`: the private key of the certificate.
    pub key: PathBuf,
    /// `TLS_CLIENT_CA_FILE`: the certificates by which the agent verifies clients. None: a client needs no certificate.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads `TLS_ENABLED` and the paths, but not the files. Returns none if TLS is off.
    ///
    /// If TLS is on and `TLS_CERT_FILE` or `TLS_KEY_FILE` is not set, records a problem and returns an error. If TLS is off and
    /// `TLS_CLIENT_CA_FILE` is set, does the same. If TLS is off, ignores the other two paths.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Result<Option<Self>, ()> {
        let client_ca = raw.tls_client_ca_file.as_ref().map(PathBuf::from);
        if !reader.switch("TLS_ENABLED", &raw.tls_enabled, false) {
            // This variable means that every client needs a certificate. Without TLS, the agent cannot check certificates.
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

    /// Reads the files and creates the configuration. If a file cannot be used, records a problem and returns none.
    pub(super) fn load(&self, reader: &mut Reader) -> Option<Tls> {
        let chain = load(reader, "TLS_CERT_FILE", &self.cert, read_certificates);
        let key = load(reader, "TLS_KEY_FILE", &self.key, read_key);
        let client_ca = match &self.client_ca {
            None => Some(None),
            Some(path) => load(reader, "TLS_CLIENT_CA_FILE", path, |path| {
                read_certificates(path).and_then(trusted)
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

/// Reads a file with `load`. Records a problem and returns none if `load` fails.
pub(super) fn load<T>(
    reader: &mut Reader,
    variable: &'static str,
    path: &Path,
    load: impl FnOnce(&Path) -> Result<T, String>,
) -> Option<T> {
    load(path)
        // The text does not show the path, because by mistake the variable can hold the private key itself.
        .map_err(|problem| {
            let text = format!("the file {problem}; accepted: the path of a PEM file");
            reader.problem(variable, text);
        })
        .ok()
}

/// Reads the certificates of a PEM file. The text of the error continues the words `the file`, for example `is not valid PEM`.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read_file(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_problem(&error, "certificate", &text))?;
    if chain.is_empty() {
        return Err(pem_problem(&PemError::NoItemsFound, "certificate", &text));
    }
    Ok(chain)
}

/// Reads the first private key of a PEM file. The text of the error continues the words `the file`.
pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
    let text = read_file(path)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map(Zeroizing::new)
        .map_err(|error| match is_encrypted(&text) {
            true => "is encrypted, and the agent cannot ask for a passphrase: decrypt the file with `openssl pkey -in KEY -out NEW`"
                .to_owned(),
            false => pem_problem(&error, "private key", &text),
        })
}

/// Whether a PEM file contains an encrypted private key. OpenSSL writes one of these two texts into such a file.
fn is_encrypted(text: &[u8]) -> bool {
    let says = |words: &[u8]| memchr::memmem::find(text, words).is_some();
    says(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || says(b"Proc-Type: 4,ENCRYPTED")
}

/// Reads a file. Removes the byte order mark that some editors write at the start of a file.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    match read_secret(path, MAX_FILE) {
        Ok(text) if text.len() <= MAX_FILE => match text.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) => Ok(Zeroizing::new(rest.to_vec())),
            None => Ok(text),
        },
        Ok(_) => Err(format!("is longer than {MAX_FILE} bytes")),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

/// Returns the reason why a PEM file cannot be used. `wanted` is `certificate` or `private key`.
fn pem_problem(error: &PemError, wanted: &str, text: &[u8]) -> String {
    match error {
        // A DER sequence that is longer than 255 bytes begins with these two bytes.
        _ if text.starts_with(&[0x30, 0x82]) => {
            "is binary (DER or PKCS #12): convert it to PEM with `openssl x509`, `openssl pkey` or `openssl pkcs12`".to_owned()
        }
        PemError::NoItemsFound => match first_label(text) {
            Some(label) => format!("contains no {wanted}, but a {label}"),
            None => format!("contains no {wanted}"),
        },
        _ => "is not valid PEM".to_owned(),
    }
}

/// Returns the label of the first item in a PEM file, such as `CERTIFICATE`. None if the text does not look like a label. Such
/// a text can be a secret, so it must not be shown.
fn first_label(text: &[u8]) -> Option<&str> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const MAX_LABEL: usize = 40;
    let from = memchr::memmem::find(text, BEGIN)? + BEGIN.len();
    let label = &text[from..];
    let end = label
        .iter()
        .take(MAX_LABEL)
        .position(|byte| *byte == b'-')?;
    let label = std::str::from_utf8(&label[..end]).ok()?;
    let is_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    label.bytes().all(is_label).then_some(label)
}

/// Makes a list of trusted certificates. The text of the error continues the words `the file`.
pub(super) fn trusted(certificates: Vec<CertificateDer<'static>>) -> Result<Trusted, String> {
    Trusted::of(certificates)
        .map_err(|error| format!("contains a certificate that cannot be used ({error})"))
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    client_ca: Option<Trusted>,
) -> Result<ServerConfig, (&'static str, String)> {
    let provider = Arc::new(ring::default_provider());
    let identity =
        certified(chain, key).map_err(|problem| problem.of("TLS_CERT_FILE", "TLS_KEY_FILE"))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ("TLS_KEY_FILE", format!("TLS cannot be set up ({error})")))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(trusted) => builder.with_client_cert_verifier(
            trusted.client_verifier(provider).map_err(|error| {
                (
                    "TLS_CLIENT_CA_FILE",
                    format!("the file cannot be used ({error}); accepted: the path of a PEM file"),
                )
            })?,
        ),
    };
    Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

/// Why a certificate and a private key cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum IdentityProblem {
    /// The key is of a kind that rustls does not support.
    #[error(
        "the key cannot be used ({0}); accepted: an RSA (2048 to 4096 bits), ECDSA (P-256 or P-384) or Ed25519 key in PEM"
    )]
    Key(String),
    /// The first certificate of the file is not an X.509 certificate.
    #[error("the certificate cannot be read; accepted: X.509 in PEM")]
    Certificate,
    /// The key belongs to another certificate.
    #[error("the key does not match the certificate")]
    Mismatch,
}

impl IdentityProblem {
    /// Returns the variable whose file is wrong, and the text of the problem. `certificate` and `key` are the names of the two
    /// variables.
    pub(crate) fn of(self, certificate: &'static str, key: &'static str) -> (&'static str, String) {
        match self {
            Self::Key(_) => (key, self.to_string()),
            Self::Certificate => (
                certificate,
                "the certificate cannot be read; accepted: X.509 in PEM".to_owned(),
            ),
            Self::Mismatch => (
                key,
                format!(
                    "does not match the certificate; accepted: the private key of the certificate in {certificate}"
                ),
            ),
        }
    }
}

/// Combines a chain with its private key for rustls.
///
/// This function only borrows the key. A similar function in rustls takes ownership of the key, and does not wipe the key's
/// memory. It also refuses X.509 certificates of version 1 and 2.
///
/// # Errors
/// Fails if the chain or the key cannot be used, or if they do not belong together.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, IdentityProblem> {
    let key = ring::sign::any_supported_type(key)
        .map_err(|error| IdentityProblem::Key(error.to_string()))?;
    let own = chain.first().and_then(Certificate::read);
    let own = own.ok_or(IdentityProblem::Certificate)?;
    // For some private keys, rustls cannot return the public key. Such a private key is accepted without this check.
    let is_another = |public: &[u8]| public != own.public_key;
    if key
        .public_key()
        .is_some_and(|public| is_another(public.as_ref()))
    {
        return Err(IdentityProblem::Mismatch);
    }
    Ok(CertifiedKey::new(chain, key))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Untimely, Validity, first_label};

    #[test]
    fn the_agent_warns_of_a_certificate_that_is_not_valid_yet_and_from_two_weeks_before_its_end() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let days = |days: u64| days * 86_400;
        let validity = Validity {
            from: at(days(100)),
            until: at(days(200)),
            first_to_expire: 1,
        };
        for (now, untimely) in [
            (days(100) - 1, Some(Untimely::NotYet)),
            (days(100), None),
            (days(186), None),
            (days(186) + 1, Some(Untimely::Soon(13))),
            (days(200) - 3600, Some(Untimely::Soon(0))),
            (days(200), Some(Untimely::Soon(0))),
            (days(200) + 1, Some(Untimely::Expired)),
            (days(9000), Some(Untimely::Expired)),
        ] {
            assert_eq!(validity.untimely(at(now)), untimely, "{now}");
        }
        assert_eq!(validity.end(), "1970-07-20T00:00:00Z");
    }

    #[test]
    fn an_error_shows_the_label_of_a_pem_file_only_if_it_looks_like_a_label() {
        for (text, label) in [
            (
                "x\n-----BEGIN TRUSTED CERTIFICATE-----\nAA",
                Some("TRUSTED CERTIFICATE"),
            ),
            ("-----BEGIN PKCS7-----", Some("PKCS7")),
            ("-----BEGIN secret-----", None),
            (
                "-----BEGIN AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-----",
                None,
            ),
            ("-----BEGIN ", None),
            ("", None),
        ] {
            assert_eq!(first_label(text.as_bytes()), label);
        }
    }
}
