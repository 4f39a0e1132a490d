//! What TLS is served with: the certificate, its key, and whose certificates clients must show.

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

/// From when on, and until when, all certificates of a chain are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when on.
    pub from: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// The place in the chain, from 1, of the one that expires first.
    pub first_to_expire: usize,
}

/// What is amiss with a certificate's dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// It is not valid yet.
    #[error(
        "the certificate is not valid yet: clients refuse it until then, unless this host's clock is wrong"
    )]
    NotYet,
    /// It is valid no more.
    #[error("the certificate has expired: clients that verify it refuse it, renew it")]
    Expired,
    /// It soon will be: within so many whole days.
    #[error("the certificate expires in {days} {unit}: renew it", days = .0, unit = if *.0 == 1 { "day" } else { "days" })]
    Soon(u64),
}

impl Validity {
    /// How long before its end a certificate is warned of.
    const SOON: Duration = Duration::from_secs(14 * Self::DAY);
    const DAY: u64 = 86_400;

    /// What is amiss at this time.
    #[must_use]
    pub fn untimely(&self, now: SystemTime) -> Option<Untimely> {
        match self.until.duration_since(now) {
            // It is valid up to and including that second.
            Err(past) if past.duration() >= Duration::from_secs(1) => Some(Untimely::Expired),
            _ if now < self.from => Some(Untimely::NotYet),
            Err(_) => Some(Untimely::Soon(0)),
            Ok(left) => (left < Self::SOON).then_some(Untimely::Soon(left.as_secs() / Self::DAY)),
        }
    }

    /// Its end, as logs and snapshots show it.
    #[must_use]
    pub fn end(&self) -> String {
        // Years of five digits do not come of certificates.
        humantime::format_rfc3339_seconds(self.until).to_string()
    }
}

impl Tls {
    /// From when on, and until when, the whole chain is valid; none where no certificate of it tells.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        let all = (1..).zip(&self.chain);
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
        .map_err(|error| pem_problem(&error, "certificate", &text))?;
    if chain.is_empty() {
        return Err(pem_problem(&PemError::NoItemsFound, "certificate", &text));
    }
    Ok(chain)
}

/// A file's private key; an error as above.
pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
    let text = read_file(path)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map(Zeroizing::new)
        .map_err(|error| match is_encrypted(&text) {
            true => "is encrypted, and nobody is there to type its passphrase in: decrypt it with `openssl pkey -in KEY -out NEW`"
                .to_owned(),
            false => pem_problem(&error, "private key", &text),
        })
}

/// Whether a key needs a passphrase, as both of OpenSSL's forms say in words.
fn is_encrypted(text: &[u8]) -> bool {
    let says = |words: &[u8]| memchr::memmem::find(text, words).is_some();
    says(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || says(b"Proc-Type: 4,ENCRYPTED")
}

/// A file without the mark that some editors put before its text.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    match read_secret(path, LONGEST_FILE) {
        Ok(text) if text.len() <= LONGEST_FILE => match text.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) => Ok(Zeroizing::new(rest.to_vec())),
            None => Ok(text),
        },
        Ok(_) => Err(format!("is over {LONGEST_FILE} bytes")),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

fn pem_problem(error: &PemError, wanted: &str, text: &[u8]) -> String {
    match error {
        // A DER sequence of over 255 bytes.
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

/// What a PEM file says that it contains first.
fn first_label(text: &[u8]) -> Option<&str> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const LONGEST: usize = 40;
    let from = memchr::memmem::find(text, BEGIN)? + BEGIN.len();
    let label = &text[from..];
    let end = label.iter().take(LONGEST).position(|byte| *byte == b'-')?;
    let label = std::str::from_utf8(&label[..end]).ok()?;
    let is_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    label.bytes().all(is_label).then_some(label)
}

/// Certificates that are trusted; an error says what is wrong with their file.
pub(super) fn trusted(certificates: Vec<CertificateDer<'static>>) -> Result<Trusted, String> {
    Trusted::of(certificates)
        .map_err(|error| format!("holds a certificate that cannot be used ({error})"))
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
        .map_err(|error| ("TLS_KEY_FILE", format!("cannot be used ({error})")))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(trusted) => builder.with_client_cert_verifier(
            trusted
                .client_verifier(provider)
                .map_err(|error| ("TLS_CLIENT_CA_FILE", format!("cannot be used ({error})")))?,
        ),
    };
    Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

/// What is wrong with a certificate and its key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityProblem {
    /// The key's kind is not supported.
    #[error(
        "the key cannot be used ({0}); accepted: an RSA (2048 to 4096 bits), ECDSA (P-256 or P-384) or Ed25519 key in PEM"
    )]
    Key(String),
    /// The file holds something else.
    #[error("the certificate is none; accepted: X.509 in PEM")]
    Certificate,
    /// The key is another certificate's.
    #[error("the key does not match the certificate")]
    Mismatch,
}

impl IdentityProblem {
    /// The variable whose file is wrong, and what is wrong with that.
    pub(super) fn of(self, certificate: &'static str, key: &'static str) -> (&'static str, String) {
        match self {
            Self::Key(_) => (key, self.to_string()),
            Self::Certificate => (
                certificate,
                "not a valid certificate; accepted: X.509 in PEM".to_owned(),
            ),
            Self::Mismatch => (
                key,
                format!(
                    "does not match the certificate; accepted: the key that {certificate} was issued for"
                ),
            ),
        }
    }
}

/// The chain with its key, which is only looked at: rustls would take it and not wipe it. rustls would look at certificates of
/// version 3 only.
///
/// # Errors
/// Where they cannot be used, or do not belong together.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, IdentityProblem> {
    let key = ring::sign::any_supported_type(key)
        .map_err(|error| IdentityProblem::Key(error.to_string()))?;
    let own = chain.first().and_then(Certificate::read);
    let own = own.ok_or(IdentityProblem::Certificate)?;
    // A key that does not tell its public half is taken at its word.
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
    fn a_certificate_is_warned_of_before_it_begins_and_from_two_weeks_before_its_end() {
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
    fn what_a_file_holds_instead_is_said_and_no_more_of_it() {
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
