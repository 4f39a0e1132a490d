//! Credentials: the keys of clients, the tokens of the metrics port, and the agent's certificate.
//!
//! [`CredentialSources`] has the paths of the files and reads the files, at the start and again while the agent runs.
//! This module does not decide when to read the files again.

use std::fs;
use std::iter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::parse::Reader;
use super::raw::RawSettings;
use super::{ApiKeys, KeySource, Problem, Problems, Tls, TlsFiles};

/// The keys and certificates that the agent has read from its variables and files.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// `API_KEY` or `API_KEY_FILE`: a client must send one of these keys.
    pub keys: ApiKeys,
    /// `METRICS_BEARER_TOKEN_FILE`: Prometheus must send one of these tokens to read the figures. None: no token is needed.
    pub metrics_tokens: Option<ApiKeys>,
    /// The agent's certificate, and the certificates by which the agent verifies clients. None: plain TCP.
    pub tls: Option<Tls>,
}

impl Credentials {
    /// The earliest time at which a certificate of the chain expires. None without TLS.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.tls.as_ref()?.validity().map(|valid| valid.until)
    }
}

/// The variables and files from which the credentials come.
#[derive(Debug, Clone)]
pub struct CredentialSources {
    /// `API_KEY` or `API_KEY_FILE`.
    pub keys: KeySource,
    /// `METRICS_BEARER_TOKEN_FILE`.
    pub metrics_tokens: Option<PathBuf>,
    /// `TLS_CERT_FILE`, `TLS_KEY_FILE` and `TLS_CLIENT_CA_FILE`. None if `TLS_ENABLED` is false.
    pub tls: Option<TlsFiles>,
}

/// The stamp of a file: device, inode, size and change time (ctime, in seconds and nanoseconds). The stamp changes when the file
/// is replaced or written to. None if the file cannot be found.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The stamps of all files of the credentials, to detect a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

impl Stamps {
    /// Returns the current stamps of the files. Blocks the thread until the file system answers.
    pub(crate) fn of<'p>(files: impl Iterator<Item = &'p Path>) -> Self {
        let stamp = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            Some((
                file.dev(),
                file.ino(),
                file.size(),
                file.ctime(),
                file.ctime_nsec(),
            ))
        };
        Self(files.map(stamp).collect())
    }
}

impl CredentialSources {
    /// Reads the variables, but not the files. Records the problems. Returns none if the variables of keys or of TLS are wrong.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        let keys = KeySource::read(reader, raw);
        let tls = TlsFiles::read(reader, raw).ok();
        let metrics_tokens = raw.metrics_bearer_token_file.as_ref().map(PathBuf::from);
        if metrics_tokens.is_some() && raw.metrics_port.is_none() {
            reader.problem(
                "METRICS_BEARER_TOKEN_FILE",
                "set, but METRICS_PORT is not; accepted: only together with METRICS_PORT",
            );
        }
        Some(Self {
            keys: keys?,
            metrics_tokens,
            tls: tls?,
        })
    }

    /// Reads the files. Records a problem for each file that cannot be used. Returns none if there is such a file.
    pub(super) fn load_with(&self, reader: &mut Reader) -> Option<Credentials> {
        let keys = self.keys.load(reader);
        let metrics_tokens = match &self.metrics_tokens {
            None => Some(None),
            Some(path) => ApiKeys::load(reader, "METRICS_BEARER_TOKEN_FILE", path).map(Some),
        };
        let tls = match &self.tls {
            None => Some(None),
            Some(files) => files.load(reader).map(Some),
        };
        Some(Credentials {
            keys: keys?,
            metrics_tokens: metrics_tokens?,
            tls: tls?,
        })
    }

    /// Reads the files. Blocks the thread until the file system answers.
    ///
    /// # Errors
    /// Fails if a file cannot be used. The error has all problems.
    pub fn load(&self) -> Result<Credentials, Problems> {
        let mut reader = Reader::new(iter::empty());
        let credentials = self.load_with(&mut reader);
        credentials.ok_or_else(|| reader.finish())
    }

    /// The path of each file, with the name of its variable.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let tls = self.tls.iter().flat_map(|files| {
            let client_ca = files.client_ca.as_deref();
            [
                Some(("TLS_CERT_FILE", files.cert.as_path())),
                Some(("TLS_KEY_FILE", files.key.as_path())),
                client_ca.map(|path| ("TLS_CLIENT_CA_FILE", path)),
            ]
        });
        let keys = self.keys.file().map(|path| ("API_KEY_FILE", path));
        let tokens = self.metrics_tokens.as_deref();
        let tokens = tokens.map(|path| ("METRICS_BEARER_TOKEN_FILE", path));
        tls.flatten().chain(keys).chain(tokens)
    }

    /// Returns the current stamps of the files. Blocks the thread until the file system answers.
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        Stamps::of(self.files().map(|(_, path)| path))
    }

    /// Returns a problem for each file that every user of the host can write, and for each secret that every user can read.
    #[must_use]
    pub fn exposed(&self) -> Vec<Problem> {
        exposed(self.files())
    }
}

/// Checks the permissions of files. Each path has the name of its variable. Ignores a file that cannot be found.
pub(super) fn exposed<'p>(files: impl Iterator<Item = (&'static str, &'p Path)>) -> Vec<Problem> {
    let exposed = |(variable, path): (&'static str, &Path)| {
        let mode = fs::metadata(path).ok()?.mode();
        let text = permission_problem(mode, is_secret(variable))?;
        Some(Problem {
            variable,
            text: text.to_owned(),
        })
    };
    files.filter_map(exposed).collect()
}

/// Whether the file of this variable holds a secret. A file of certificates holds no secret, so every user may read it.
fn is_secret(variable: &str) -> bool {
    matches!(
        variable,
        "TLS_KEY_FILE"
            | "API_KEY_FILE"
            | "METRICS_BEARER_TOKEN_FILE"
            | "NATS_CREDENTIALS_FILE"
            | "NATS_NKEY_FILE"
            | "NATS_TOKEN_FILE"
            | "NATS_PASSWORD_FILE"
            | "NATS_KEY_FILE"
            | "OTLP_HEADERS_FILE"
            | "OTLP_KEY_FILE"
    )
}

/// Returns what is wrong with the permissions in a file's mode. `secret` says whether the file holds a secret.
fn permission_problem(mode: u32, secret: bool) -> Option<&'static str> {
    // `fs::metadata` follows symbolic links, so `mode` is never the mode of a link. Pipes and devices are not checked, because
    // their mode does not show which users can read the secret.
    let regular = mode & 0o170_000 == 0o100_000;
    match mode & 0o006 {
        _ if !regular => None,
        0o002 | 0o006 => Some("every user of this host can write to the file: run `chmod o-w`"),
        0o004 if secret => Some("every user of this host can read the file: run `chmod o-r`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::permission_problem;

    #[test]
    fn a_file_that_every_user_can_write_or_a_secret_that_every_user_can_read_is_a_problem() {
        let told = |mode, secret| permission_problem(mode, secret).is_some();
        for (mode, of_a_secret, of_another) in [
            (0o100_600, false, false),
            (0o100_640, false, false),
            (0o100_644, true, false),
            (0o100_646, true, true),
            (0o100_602, true, true),
            // A pipe, as a shell makes it for `<(…)`.
            (0o010_644, false, false),
        ] {
            assert_eq!(told(mode, true), of_a_secret, "{mode:o}");
            assert_eq!(told(mode, false), of_another, "{mode:o}");
        }
    }
}
