//! The key that a client must send.

use std::fmt;
use std::fs;

use subtle::{Choice, ConstantTimeEq};

use super::parse::Reader;
use super::raw::RawSettings;

/// The shortest key.
const SHORTEST: usize = 8;
/// The longest key: with its line's end it fits the 4 KiB that a client may send.
pub(crate) const LONGEST: usize = 4096;
/// Keys shorter than this can be guessed with patience.
const WEAK: usize = 16;

/// The client secret. Its `Debug` text does not show it.
#[derive(Clone)]
pub struct ApiKey(Box<[u8]>);

impl ApiKey {
    /// Checks and keeps a key: 8 to 4096 visible ASCII characters.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn new(text: &str) -> Result<Self, String> {
        let accepted = format!("accepted: {SHORTEST} to {LONGEST} visible ASCII characters");
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "contains white space, a control character or a character that is not ASCII; \
                 {accepted}"
            ));
        }
        if text.len() < SHORTEST {
            return Err(format!("too short; {accepted}"));
        }
        if text.len() > LONGEST {
            return Err(format!("too long; {accepted}"));
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Whether a client's line is this key. Takes the same time for every candidate, whatever
    /// its length and however much of it is right.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let mut same = Choice::from(u8::from(candidate.len() == self.0.len()));
        let padded = |bytes: &[u8]| {
            let mut buffer = [0_u8; LONGEST];
            let length = bytes.len().min(LONGEST);
            buffer[..length].copy_from_slice(&bytes[..length]);
            buffer
        };
        same &= padded(candidate).ct_eq(&padded(&self.0));
        same.into()
    }

    /// Whether the key is short enough to be worth a warning.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.0.len() < WEAK
    }

    /// The key itself, to send it to another agent.
    #[must_use]
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The key from `API_KEY` or `API_KEY_FILE`; none where the reader took note of a problem.
pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<ApiKey> {
    match (&raw.api_key, &raw.api_key_file) {
        (Some(_), Some(_)) => {
            reader.problem(
                "API_KEY",
                "set together with API_KEY_FILE; accepted: one of the two",
            );
            None
        }
        // Not trimmed: white space around a key is an error that the client would not see.
        (Some(text), None) => checked(reader, "API_KEY", text),
        (None, Some(path)) => match fs::read_to_string(path) {
            Ok(text) => checked(reader, "API_KEY_FILE", text.trim_end_matches(['\r', '\n'])),
            Err(error) => {
                reader.problem(
                    "API_KEY_FILE",
                    format!("cannot be read ({error}); accepted: a file with the key on one line"),
                );
                None
            }
        },
        (None, None) => {
            reader.problem(
                "API_KEY",
                format!(
                    "not set, nor is API_KEY_FILE; accepted: {SHORTEST} to {LONGEST} visible \
                     ASCII characters"
                ),
            );
            None
        }
    }
}

fn checked(reader: &mut Reader, variable: &'static str, text: &str) -> Option<ApiKey> {
    ApiKey::new(text)
        .map_err(|problem| reader.problem(variable, problem))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, LONGEST};

    #[test]
    fn only_the_key_itself_matches() {
        let key = ApiKey::new("correct-horse-battery").unwrap();
        assert!(key.matches(b"correct-horse-battery"));
        for wrong in [
            "",
            "correct-horse-batterx",
            "correct-horse-batter",
            "correct-horse-battery\0",
            "correct-horse-battery {}",
            "xorrect-horse-battery",
        ] {
            assert!(!key.matches(wrong.as_bytes()), "{wrong:?}");
        }
        let longest = "k".repeat(LONGEST);
        let key = ApiKey::new(&longest).unwrap();
        assert!(key.matches(longest.as_bytes()));
        assert!(!key.matches(format!("{longest}k").as_bytes()));
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = ApiKey::new("correct-horse-battery").unwrap();
        assert_eq!(format!("{key:?}"), "[redacted]");
        let error = ApiKey::new("hunter two").unwrap_err();
        assert!(!error.contains("hunter"), "{error}");
    }
}
