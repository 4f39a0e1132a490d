//! What lets clients in and shows them who the agent is: all that may be renewed while it runs.

use std::fs;
use std::iter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::parse::Reader;
use super::raw::RawSettings;
use super::{ApiKeys, KeySource, Problem, Problems, Tls, TlsFiles};

/// Keys and certificates, as they are at one time.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// `API_KEY` or `API_KEY_FILE`: of which a client must send one.
    pub keys: ApiKeys,
    /// `METRICS_BEARER_TOKEN_FILE`: of which a scraper must show one; none: it need not.
    pub metrics_tokens: Option<ApiKeys>,
    /// The certificate and who may connect with which; none: plain TCP.
    pub tls: Option<Tls>,
}

impl Credentials {
    /// When the certificate expires, where there is one.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.tls.as_ref()?.validity().map(|valid| valid.until)
    }
}

/// Where they come from.
#[derive(Debug, Clone)]
pub struct CredentialSources {
    /// `API_KEY` or `API_KEY_FILE`.
    pub keys: KeySource,
    /// `METRICS_BEARER_TOKEN_FILE`.
    pub metrics_tokens: Option<PathBuf>,
    /// `TLS_CERT_FILE`, `TLS_KEY_FILE` and `TLS_CLIENT_CA_FILE`; none where `TLS_ENABLED` is false.
    pub tls: Option<TlsFiles>,
}

/// What tells that a file is another one, or has been written to.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The state of all files that credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

impl CredentialSources {
    /// None where the reader took note of a problem.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        let keys = KeySource::read(reader, raw);
        let tls = TlsFiles::read(reader, raw).ok();
        let metrics_tokens = raw.metrics_bearer_token_file.as_ref().map(PathBuf::from);
        if metrics_tokens.is_some() && raw.metrics_port.is_none() {
            reader.problem(
                "METRICS_BEARER_TOKEN_FILE",
                "set, but METRICS_PORT is not; accepted: only with it",
            );
        }
        Some(Self {
            keys: keys?,
            metrics_tokens,
            tls: tls?,
        })
    }

    /// None where the reader took note of a problem.
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

    /// Reads them. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn load(&self) -> Result<Credentials, Problems> {
        let mut reader = Reader::new(iter::empty());
        let credentials = self.load_with(&mut reader);
        credentials.ok_or_else(|| reader.finish())
    }

    /// The files, each with its variable.
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

    /// The state of the files. Blocks for as long as the file system does.
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        let stamp = |(_, path): (_, &Path)| {
            let file = fs::metadata(path).ok()?;
            Some((
                file.dev(),
                file.ino(),
                file.size(),
                file.ctime(),
                file.ctime_nsec(),
            ))
        };
        Stamps(self.files().map(stamp).collect())
    }

    /// What is amiss with the files' permissions.
    #[must_use]
    pub fn exposed(&self) -> Vec<Problem> {
        exposed(self.files())
    }
}

/// What is amiss with the permissions of some files, each with its variable.
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

/// Certificates may be read by everybody.
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
    )
}

/// What a file's mode lets others do that they should not.
fn permission_problem(mode: u32, secret: bool) -> Option<&'static str> {
    // A symbolic link's target is meant, a device or a pipe has no mode to speak of.
    let regular = mode & 0o170_000 == 0o100_000;
    match mode & 0o006 {
        _ if !regular => None,
        0o002 | 0o006 => Some("the file may be written by every user of this host: chmod o-w it"),
        0o004 if secret => Some("the file may be read by every user of this host: chmod o-r it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::permission_problem;

    #[test]
    fn what_others_may_do_with_a_file_is_told() {
        let told = |mode, secret| permission_problem(mode, secret).is_some();
        for (mode, of_a_secret, of_another) in [
            (0o100_600, false, false),
            (0o100_640, false, false),
            (0o100_644, true, false),
            (0o100_646, true, true),
            (0o100_602, true, true),
            // A pipe, as with `<(…)`.
            (0o010_644, false, false),
        ] {
            assert_eq!(told(mode, true), of_a_secret, "{mode:o}");
            assert_eq!(told(mode, false), of_another, "{mode:o}");
        }
    }
}
