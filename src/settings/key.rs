//! Reads API keys from `API_KEY` or from a file, and compares the text that a client sends with the keys.
//!
//! The bearer tokens of the metrics port have the same form as keys. This module only says whether a key is correct. The socket
//! and the HTTP server then decide about access.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::Problems;
use super::parse::Reader;
use super::raw::RawSettings;

/// Minimum length of a key, in bytes.
const MIN_LENGTH: usize = 8;
/// Maximum length of a key, in bytes.
pub(crate) const LONGEST: usize = 4096;
/// Length in bytes below which the agent warns of a key. An attacker can guess a shorter key.
const WEAK_BELOW: usize = 16;
/// Maximum length of the name of a key, in bytes.
const MAX_NAME: usize = 64;
/// Maximum number of keys. The agent compares a client's key with every key.
const MAX_KEYS: usize = 64;
/// Maximum size of a file of keys, in bytes. The longest line has a name, a colon, a key and `\r\n`.
const MAX_FILE: usize = MAX_KEYS * (LONGEST + MAX_NAME + 3);

/// A key with its name. The `Debug` text does not show the key. The memory of the key is wiped on drop.
pub struct ApiKey {
    name: Arc<str>,
    secret: Zeroizing<Box<[u8]>>,
}

impl ApiKey {
    /// Checks a key, which must have 8 to 4096 visible ASCII characters, and stores it.
    ///
    /// # Errors
    /// Fails if the key is too short or too long, or contains other characters. The error does not show the key.
    pub fn new(name: &str, text: &str) -> Result<Self, String> {
        let accepted = format!("accepted: {MIN_LENGTH} to {LONGEST} visible ASCII characters");
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "contains white space, a control character or a non-ASCII character; \
                 {accepted}"
            ));
        }
        if text.len() < MIN_LENGTH {
            return Err(format!("too short; {accepted}"));
        }
        if text.len() > LONGEST {
            return Err(format!("too long; {accepted}"));
        }
        Ok(Self {
            name: name.into(),
            secret: Zeroizing::new(text.as_bytes().into()),
        })
    }

    /// The name that the log shows instead of the key.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether `candidate`, the text that a peer sent, is this key. The time of the comparison does not depend on the number of
    /// correct bytes. So a peer cannot guess the key byte by byte.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let mut same = Choice::from(u8::from(candidate.len() == self.secret.len()));
        for (index, byte) in self.secret.iter().enumerate() {
            // The time of `get` depends only on the candidate's length, which the peer knows.
            let shown = candidate.get(index).copied().unwrap_or_default();
            same &= byte.ct_eq(&shown);
        }
        same.into()
    }

    /// Whether the key is so short that the agent must warn the operator.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.secret.len() < WEAK_BELOW
    }

    /// Returns the bytes of the key, for a client that sends the key to an agent.
    #[must_use]
    pub(crate) fn expose(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [redacted]", self.name)
    }
}

/// The keys of an agent, at least one. A client must send one of these keys.
#[derive(Debug, Clone)]
pub struct ApiKeys(Arc<[ApiKey]>);

impl ApiKeys {
    /// Reads the keys that a client sends, from `API_KEY` or from the file in `API_KEY_FILE`. Returns none if neither variable
    /// is set.
    ///
    /// # Errors
    /// Fails if both variables are set, or if a key or the file is wrong. The error has all problems.
    pub fn from_env(
        vars: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Option<Self>, Problems> {
        let mut reader = Reader::new(vars);
        let raw = reader.raw();
        if raw.api_key.is_none() && raw.api_key_file.is_none() {
            return Ok(None);
        }
        let keys = KeySource::read(&mut reader, &raw).and_then(|source| source.load(&mut reader));
        let problems = reader.finish();
        if problems.0.is_empty() {
            Ok(keys)
        } else {
            Err(problems)
        }
    }

    /// Reads the keys in the file `path`, which is the value of `variable`. Records a problem and returns none if the file cannot
    /// be used.
    pub(super) fn load(reader: &mut Reader, variable: &'static str, path: &Path) -> Option<Self> {
        let keys = match read_secret(path, MAX_FILE) {
            Ok(text) => parse_file(&text),
            Err(error) => Err(format!(
                "the file cannot be read ({error}); accepted: a file with a key on each line"
            )),
        };
        keys.map_err(|problem| reader.problem(variable, problem))
            .ok()
    }

    /// Returns the key with this name, or the first key if no key has this name.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&ApiKey> {
        let called = self.0.iter().find(|key| *key.name == *name);
        called.or_else(|| self.first())
    }

    /// Makes a list that has only this key.
    #[must_use]
    pub fn one(key: ApiKey) -> Self {
        Self([key].into())
    }

    /// Returns the key that is equal to `candidate`. Returns none if no key is equal. Compares with all keys, even after a match,
    /// so that the time does not show which key matched.
    #[must_use]
    pub fn find(&self, candidate: &[u8]) -> Option<&ApiKey> {
        let mut found = None;
        for key in self.0.iter() {
            if key.matches(candidate) {
                found = Some(key);
            }
        }
        found
    }

    /// All keys, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter()
    }

    /// Makes a list of `keys`, which must not be empty.
    #[cfg(test)]
    pub(crate) fn of(keys: Vec<ApiKey>) -> Self {
        Self(keys.into())
    }

    /// The first key.
    pub(crate) fn first(&self) -> Option<&ApiKey> {
        self.0.first()
    }
}

/// The source of the keys.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `API_KEY`: a single key, which stays the same while the agent runs.
    Environment(ApiKeys),
    /// `API_KEY_FILE`: all keys of the file. The agent reads the file again when it changes.
    File(PathBuf),
}

impl KeySource {
    /// Reads `API_KEY` and `API_KEY_FILE`, but not the file. Records a problem and returns none if the variables are wrong.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        match (&raw.api_key, &raw.api_key_file) {
            (Some(_), Some(_)) => {
                reader.problem(
                    "API_KEY",
                    "set together with API_KEY_FILE; accepted: only one of the two variables",
                );
                None
            }
            // White space around the key is not removed. It is a mistake, and the operator must see an error.
            (Some(text), None) => match ApiKey::new("API_KEY", text) {
                Ok(key) => Some(Self::Environment(ApiKeys([key].into()))),
                Err(problem) => {
                    reader.problem("API_KEY", problem);
                    None
                }
            },
            (None, Some(path)) => Some(Self::File(path.into())),
            (None, None) => {
                reader.problem(
                    "API_KEY",
                    format!(
                        "not set, and API_KEY_FILE is not set either; accepted: {MIN_LENGTH} to {LONGEST} visible \
                         ASCII characters"
                    ),
                );
                None
            }
        }
    }

    /// Returns the key of `API_KEY`, or reads the keys in the file. Records a problem and returns none if the file cannot be
    /// used.
    pub(super) fn load(&self, reader: &mut Reader) -> Option<ApiKeys> {
        match self {
            Self::Environment(keys) => Some(keys.clone()),
            Self::File(path) => ApiKeys::load(reader, "API_KEY_FILE", path),
        }
    }

    /// The path in `API_KEY_FILE`. None if the key comes from `API_KEY`.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Environment(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Reads a file into a buffer that is wiped on drop. Reads at most `longest + 1` bytes: if the result is longer than `longest`,
/// the file is too long. The buffer never grows, because a buffer that grows leaves a copy of the secret that is not wiped.
pub(crate) fn read_secret(path: &Path, longest: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(vec![0; longest + 1]);
    let mut file = File::open(path)?;
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(length);
    Ok(text)
}

/// Reads the text of a file of keys. Each line has a key or `NAME:KEY`. Empty lines are ignored. A key without a name gets the
/// number of its line as its name, such as `line 3`.
fn parse_file(text: &[u8]) -> Result<ApiKeys, String> {
    let accepted = format!("accepted: 1 to {MAX_KEYS} lines, each with a key or NAME:KEY");
    if text.len() > MAX_FILE {
        return Err(format!(
            "the file is longer than {MAX_FILE} bytes; {accepted}"
        ));
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(format!("the file is not UTF-8 text; {accepted}"));
    };
    let mut keys = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let number = index + 1;
        let key = match split_name(line) {
            Some((name, key)) => ApiKey::new(name, key),
            None => ApiKey::new(&format!("line {number}"), line),
        };
        let key = key.map_err(|problem| format!("line {number}: {problem}"))?;
        let repeats = |other: &ApiKey| other.name == key.name || other.matches(&key.secret);
        if keys.iter().any(repeats) {
            return Err(format!(
                "line {number}: repeats the key or the name of an earlier line; {accepted}"
            ));
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err(format!("the file contains no key; {accepted}")),
        1..=MAX_KEYS => Ok(ApiKeys(keys.into())),
        more => Err(format!("the file contains {more} keys; {accepted}")),
    }
}

/// Splits a line at the first colon into name and key. Returns none if the text in front of the colon cannot be a name. The
/// whole line is then a key.
fn split_name(line: &str) -> Option<(&str, &str)> {
    let (name, key) = line.split_once(':')?;
    let is_name = (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    is_name.then_some((name, key))
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, LONGEST, MAX_KEYS, parse_file};

    #[test]
    fn a_key_matches_only_itself() {
        let key = ApiKey::new("", "correct-horse-battery").unwrap();
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
        let key = ApiKey::new("", &longest).unwrap();
        assert!(key.matches(longest.as_bytes()));
        assert!(!key.matches(format!("{longest}k").as_bytes()));
    }

    #[test]
    fn debug_text_and_errors_do_not_show_the_key() {
        let key = ApiKey::new("API_KEY", "correct-horse-battery").unwrap();
        assert_eq!(format!("{key:?}"), "API_KEY: [redacted]");
        let error = ApiKey::new("API_KEY", "hunter two").unwrap_err();
        assert!(!error.contains("hunter"), "{error}");
        for file in [
            "phone:hunter two",
            "hunter22\nhunter2",
            "hunter22\nphone:\n",
        ] {
            let error = parse_file(file.as_bytes()).unwrap_err();
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn each_line_of_a_file_is_a_key_with_or_without_a_name() {
        let text = b"phone:0123456789abcdef\r\n\nfedcba9876543210\nold one:secret-1\n";
        let error = parse_file(text).unwrap_err();
        assert!(error.starts_with("line 4: contains white space"), "{error}");
        let keys =
            parse_file(b"phone:0123456789abcdef\r\n\nfedcba9876543210\n::with-colons").unwrap();
        let name = |line: &str| keys.find(line.as_bytes()).map(|key| key.name().to_string());
        assert_eq!(name("0123456789abcdef").as_deref(), Some("phone"));
        assert_eq!(name("fedcba9876543210").as_deref(), Some("line 3"));
        // The text in front of the first colon is empty, and an empty text is not a name.
        assert_eq!(name("::with-colons").as_deref(), Some("line 4"));
        for wrong in ["phone:0123456789abcdef", "phone", "", ":with-colons"] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_must_have_1_to_64_keys_without_repetition() {
        for none in ["", "\n", "\r\n\r\n"] {
            let error = parse_file(none.as_bytes()).unwrap_err();
            assert!(error.starts_with("the file contains no key"), "{error}");
        }
        let keys =
            |count| -> String { (0..count).map(|number| format!("{number:016}\n")).collect() };
        for twice in ["a:0123456789\nb:0123456789", "a:0123456789\na:9876543210"] {
            let error = parse_file(twice.as_bytes()).unwrap_err();
            assert!(error.starts_with("line 2: repeats"), "{error}");
        }
        assert_eq!(
            parse_file(keys(MAX_KEYS).as_bytes())
                .unwrap()
                .iter()
                .count(),
            MAX_KEYS
        );
        assert!(parse_file(keys(MAX_KEYS + 1).as_bytes()).is_err());
        assert!(parse_file(&vec![b'k'; 10 << 20]).is_err());
        assert!(parse_file(b"\xff\xfe0123456789").is_err());
    }

    #[test]
    fn fuzz_keys() {
        let seeds: [&[u8]; 2] = [
            b"phone:0123456789abcdef\r\n\nfedcba9876543210\n",
            b"0123456789abcdef",
        ];
        crate::fuzzing::run("keys", &seeds, |bytes| {
            if let Ok(keys) = parse_file(bytes) {
                assert!(keys.first().is_some() && keys.find(b"").is_none());
            }
        });
    }
}
