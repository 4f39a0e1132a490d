//! Certificates made for one test.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::Launch;

/// An authority that issues certificates; its files live as long as it does.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, for clients that verify.
    pub(crate) certificate: PathBuf,
    directory: TempDir,
}

/// A server's certificate and key.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new authority.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            certificate: write(&directory, "authority.pem", &pem),
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    /// Issues a certificate for `localhost`, `127.0.0.1` and `::1`. The name tells its files apart.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: self.file(&format!("{name}.pem"), &certificate.pem()),
            key: self.file(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    /// Writes a file beside the certificates.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        write(&self.directory, name, content)
    }
}

impl Identity {
    /// An agent that serves TLS with this identity.
    pub(crate) fn launch(&self) -> Launch {
        Launch::new()
            .var("TLS_ENABLED", "true")
            .var("TLS_CERT_FILE", &self.certificate)
            .var("TLS_KEY_FILE", &self.key)
    }
}

fn write(directory: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}
