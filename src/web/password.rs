//! The hash of the page's password.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Argon2, Params};
use tokio_rustls::rustls::crypto::ring;
use zeroize::Zeroizing;

use crate::settings::read_secret;

/// Maximum size of the file with the hash, in bytes.
const MAX_FILE: usize = 1024;
/// The shortest and the longest password, in bytes.
const PASSWORD_LENGTHS: (usize, usize) = (8, 1024);
/// Limit on the memory that a hash in the file may require, in KiB. One check runs at a time.
const MAX_MEMORY: u32 = 256 * 1024;
/// Limit on the passes that a hash in the file may require.
const MAX_PASSES: u32 = 64;
/// The hash of the password, as `$argon2id$…`.
#[derive(Clone)]
pub struct PasswordHash(Arc<str>);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PasswordHash {
    /// Reads a file that `--set-password` has written.
    ///
    /// # Errors
    /// Fails if the file cannot be read or has no usable hash. The error does not show the path.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        const ACCEPTED: &str =
            "accepted: the path of a file that `system-agent web --set-password` has written";
        let text = read_secret(path, MAX_FILE)
            .map_err(|error| format!("the file cannot be read ({error}); {ACCEPTED}"))?;
        let text = std::str::from_utf8(&text).unwrap_or_default().trim();
        let usable = password_hash::PasswordHash::new(text)
            .ok()
            .filter(is_usable);
        match usable {
            Some(_) => Ok(Self(text.into())),
            None => Err(format!("the file has no hash of Argon2; {ACCEPTED}")),
        }
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        password_hash::PasswordHash::new(&self.0)
            .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
    }
}

/// Whether a check of this hash needs little enough memory and time.
fn is_usable(hash: &password_hash::PasswordHash<'_>) -> bool {
    hash.algorithm.as_str().starts_with("argon2")
        && hash.hash.is_some()
        && Params::try_from(hash)
            .is_ok_and(|params| params.m_cost() <= MAX_MEMORY && params.t_cost() <= MAX_PASSES)
}

/// Returns the hash of a password, as text for the file.
///
/// # Errors
/// Fails if the password is too short or too long, or if there are no random numbers.
pub(super) fn hash(password: &[u8]) -> Result<String, String> {
    let (least, most) = PASSWORD_LENGTHS;
    if !(least..=most).contains(&password.len()) {
        return Err(format!(
            "the password has {} bytes; accepted: {least} to {most}",
            password.len()
        ));
    }
    let mut salt = [0; 16];
    random(&mut salt)?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    let hash = Argon2::default()
        .hash_password(password, &salt)
        .map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

/// Writes the hash of a password to a file that only this user can read.
///
/// # Errors
/// Fails if the password is not accepted or the file cannot be written.
pub fn write_password(path: &Path, password: &[u8]) -> Result<(), String> {
    let hash = Zeroizing::new(format!("{}\n", hash(password)?));
    let write = || -> io::Result<()> {
        // The new file replaces the old one at once, so that a starting server never reads half a hash.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(hash.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Fills `bytes` with random numbers that nobody can guess.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), String> {
    let provider = ring::default_provider();
    let filled = provider.secure_random.fill(bytes);
    filled.map_err(|_| "the system has no random numbers".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{PasswordHash, hash};

    #[test]
    fn a_hash_matches_only_its_password() {
        let text = hash(b"correct horse").unwrap();
        assert!(text.starts_with("$argon2id$"), "{text}");
        assert_ne!(text, hash(b"correct horse").unwrap(), "the salt is random");
        let hash = PasswordHash(text.into());
        assert!(hash.matches(b"correct horse"));
        assert!(!hash.matches(b"correct horsf") && !hash.matches(b""));
        assert_eq!(format!("{hash:?}"), "[redacted]");
        assert!(super::hash(b"short").unwrap_err().contains("8 to 1024"));
    }

    #[test]
    fn a_hash_that_needs_too_much_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hash");
        let right = hash(b"correct horse").unwrap();
        std::fs::write(&file, format!("{right}\n")).unwrap();
        PasswordHash::read(&file).unwrap();
        for wrong in [
            right.replace("m=19456", "m=4000000"),
            right.replace("t=2", "t=1000000"),
            "correct horse".to_owned(),
            String::new(),
        ] {
            std::fs::write(&file, &wrong).unwrap();
            let problem = PasswordHash::read(&file).unwrap_err();
            assert!(problem.contains("no hash of Argon2"), "{problem}");
        }
    }
}
