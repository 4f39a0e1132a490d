//! TLS of the page's server: the certificate, its private key, and their renewal while the server runs.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io, thread};

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tracing::{info, warn};

use crate::settings::{Stamps, Tls, certified, read_certificates, read_key};

/// The interval at which the files are checked for changes. Changed files are read only after two checks in a row have found the
/// same state, so that no half-written file is read.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// After this time, files that could not be used are read again, even if they are unchanged.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The interval of warnings about the expiry of a certificate.
const DAY: Duration = Duration::from_secs(86_400);

/// The paths of the PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// `WEB_TLS_CERT_FILE`: the certificate chain.
    pub cert: PathBuf,
    /// `WEB_TLS_KEY_FILE`: the private key of the certificate.
    pub key: PathBuf,
}

/// A certificate with its private key.
#[derive(Clone)]
pub struct TlsIdentity(Arc<CertifiedKey>);

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Fails if a file cannot be used. The error names the variable and has no path.
    pub fn load(&self) -> Result<TlsIdentity, (&'static str, String)> {
        let (cert, key) = ("WEB_TLS_CERT_FILE", "WEB_TLS_KEY_FILE");
        let of = |variable| {
            move |problem: String| {
                let text = format!("the file {problem}; accepted: the path of a PEM file");
                (variable, text)
            }
        };
        let chain = read_certificates(&self.cert).map_err(of(cert))?;
        let secret = read_key(&self.key).map_err(of(key))?;
        let identity = certified(chain, &secret).map_err(|problem| problem.of(cert, key))?;
        Ok(TlsIdentity(Arc::new(identity)))
    }

    fn stamps(&self) -> Stamps {
        Stamps::of([self.cert.as_path(), self.key.as_path()].into_iter())
    }
}

impl TlsIdentity {
    /// Logs a warning if the certificate is not valid now, or expires soon.
    fn warn_of_end(&self) {
        let Some(validity) = Tls::validity_of(&self.0.cert) else {
            return;
        };
        if let Some(untimely) = validity.untimely(SystemTime::now()) {
            warn!(
                variable = "WEB_TLS_CERT_FILE",
                expires_at = validity.end(),
                certificate = validity.first_to_expire,
                "{untimely}"
            );
        }
    }
}

/// The newest certificate, for TLS handshakes.
#[derive(Debug)]
struct Newest(RwLock<TlsIdentity>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let newest = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&newest.0))
    }
}

/// Returns the configuration for TLS 1.2 and 1.3, and starts a thread that reads changed files again.
///
/// # Errors
/// Fails if the thread cannot be started.
pub(super) fn server_config(
    files: TlsFiles,
    identity: TlsIdentity,
) -> io::Result<Arc<ServerConfig>> {
    identity.warn_of_end();
    let newest = Arc::new(Newest(RwLock::new(identity)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&newest) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let read = files.stamps();
    // It is a separate thread, because a file system can hang.
    thread::Builder::new()
        .name("web certificate".to_owned())
        .spawn(move || follow(&files, read, &newest))?;
    Ok(Arc::new(config))
}

/// Reads the files again when they change.
fn follow(files: &TlsFiles, read: Stamps, newest: &Newest) {
    let (mut read, mut seen) = (read.clone(), read);
    let mut unusable: Option<(Stamps, Instant)> = None;
    let mut warned = SystemTime::now();
    loop {
        thread::sleep(CHECK_INTERVAL);
        let now = files.stamps();
        let may_be_usable = unusable
            .as_ref()
            .is_none_or(|(stamps, tried)| *stamps != now || tried.elapsed() >= RETRY_AFTER);
        if now != read && now == seen && may_be_usable {
            match files.load() {
                Ok(identity) => {
                    identity.warn_of_end();
                    warned = SystemTime::now();
                    *newest.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
                    info!("certificate of the page reloaded");
                    (read, unusable) = (now.clone(), None);
                }
                Err((variable, problem)) => {
                    let known = unusable.as_ref().is_some_and(|(stamps, _)| *stamps == now);
                    if !known {
                        warn!(
                            variable,
                            problem,
                            "certificate of the page not reloaded: the previous certificate stays in use"
                        );
                    }
                    unusable = Some((now.clone(), Instant::now()));
                }
            }
        }
        seen = now;
        let passed = SystemTime::now().duration_since(warned);
        if passed.unwrap_or_else(|back| back.duration()) >= DAY {
            warned = SystemTime::now();
            let identity = newest.0.read().unwrap_or_else(PoisonError::into_inner);
            identity.warn_of_end();
        }
    }
}
