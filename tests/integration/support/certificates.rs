//! Certificates that a test makes for itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::Launch;

/// An authority that issues certificates. On drop its files are deleted.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, for clients that verify the agent.
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

    /// Issues a certificate for `localhost`, `127.0.0.1` and `::1`. `name` is the common name of the certificate and the name of
    /// its files.
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

    /// Writes a file into the directory of the certificates.
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

/// Certificates and keys that are made with the `openssl` command, as administrators do. On drop the files are deleted.
pub(crate) struct MadeByOpenssl {
    directory: TempDir,
}

impl MadeByOpenssl {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    /// Runs `openssl` with these arguments in the directory of the files. No argument contains white space.
    pub(crate) fn run(&self, command: &str) {
        let output = Command::new("openssl")
            .args(command.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("cannot start openssl");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {command}: {message}");
    }

    /// The path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The content of a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// An agent that serves TLS with these two files.
    pub(crate) fn launch(&self, certificate: &str, key: &str) -> Launch {
        let identity = Identity {
            certificate: self.path(certificate),
            key: self.path(key),
        };
        identity.launch()
    }
}

fn write(directory: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}
