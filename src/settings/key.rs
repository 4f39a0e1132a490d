//! The keys that let clients in.

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

/// The shortest key.
const SHORTEST: usize = 8;
/// The longest key: with its line's end it fits the 4 KiB that a client may send.
pub(crate) const LONGEST: usize = 4096;
/// Keys shorter than this can be guessed with patience.
const WEAK: usize = 16;
/// The longest name of a key.
const LONGEST_NAME: usize = 64;
/// How many keys there may be: a client's line is compared with each of them.
const MOST: usize = 64;
/// The longest file of keys, in bytes: as many as there may be, as long as they may be.
const LONGEST_FILE: usize = MOST * (LONGEST + LONGEST_NAME + 3);

/// A client secret. Its `Debug` text does not show it, and its memory is wiped when it is dropped.
pub struct ApiKey {
    name: Arc<str>,
    secret: Zeroizing<Box<[u8]>>,
}

impl ApiKey {
    /// Checks and keeps a key: 8 to 4096 visible ASCII characters.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn new(name: &str, text: &str) -> Result<Self, String> {
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
        Ok(Self {
            name: name.into(),
            secret: Zeroizing::new(text.as_bytes().into()),
        })
    }

    /// What the log calls it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether a client's line is this key. Takes the same time for every candidate, whatever
    /// its length and however much of it is right.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let mut same = Choice::from(u8::from(candidate.len() == self.secret.len()));
        for (index, byte) in self.secret.iter().enumerate() {
            // How long it is, the candidate's sender knows.
            let shown = candidate.get(index).copied().unwrap_or_default();
            same &= byte.ct_eq(&shown);
        }
        same.into()
    }

    /// Whether the key is short enough to be worth a warning.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.secret.len() < WEAK
    }

    /// The key itself, to send it to another agent.
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

/// The keys of which a client must send one; there is at least one.
#[derive(Debug, Clone)]
pub struct ApiKeys(Arc<[ApiKey]>);

impl ApiKeys {
    /// Those that a client shows: of `API_KEY`, or of the file in `API_KEY_FILE`; none where neither is set.
    ///
    /// # Errors
    /// What is wrong with them.
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

    /// Those in the file that `variable` names; none where the reader took note of a problem.
    pub(super) fn load(reader: &mut Reader, variable: &'static str, path: &Path) -> Option<Self> {
        let keys = match read_secret(path, LONGEST_FILE) {
            Ok(text) => parse_file(&text),
            Err(error) => Err(format!(
                "cannot be read ({error}); accepted: a file with a key on each line"
            )),
        };
        keys.map_err(|problem| reader.problem(variable, problem))
            .ok()
    }

    /// The key of this name; the first where there is none.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&ApiKey> {
        let called = self.0.iter().find(|key| *key.name == *name);
        called.or_else(|| self.first())
    }

    /// A single one.
    #[must_use]
    pub fn one(key: ApiKey) -> Self {
        Self([key].into())
    }

    /// The key that a client's line is, if it is one. Takes the same time for every candidate: no comparison is left out.
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

    /// All of them, in the order in which they are given.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter()
    }

    /// These, of which there must be one at least.
    #[cfg(test)]
    pub(crate) fn of(keys: Vec<ApiKey>) -> Self {
        Self(keys.into())
    }

    /// One that lets in: the first.
    pub(crate) fn first(&self) -> Option<&ApiKey> {
        self.0.first()
    }
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `API_KEY`: one that stays as long as the agent runs.
    Environment(ApiKeys),
    /// `API_KEY_FILE`: as many as are in it, read anew when it changes.
    File(PathBuf),
}

impl KeySource {
    /// From `API_KEY` or `API_KEY_FILE`; none where the reader took note of a problem.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        match (&raw.api_key, &raw.api_key_file) {
            (Some(_), Some(_)) => {
                reader.problem(
                    "API_KEY",
                    "set together with API_KEY_FILE; accepted: one of the two",
                );
                None
            }
            // Not trimmed: white space around a key is an error that the client would not see.
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
                        "not set, nor is API_KEY_FILE; accepted: {SHORTEST} to {LONGEST} visible \
                         ASCII characters"
                    ),
                );
                None
            }
        }
    }

    /// The keys; none where the reader took note of a problem.
    pub(super) fn load(&self, reader: &mut Reader) -> Option<ApiKeys> {
        match self {
            Self::Environment(keys) => Some(keys.clone()),
            Self::File(path) => ApiKeys::load(reader, "API_KEY_FILE", path),
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Environment(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// A file's text, as far as it is no longer than one byte more than `longest`. It is never moved to a larger buffer, which
/// would leave a copy behind that is not wiped.
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

/// One key on each line that is not empty, with its name before it, or called by its line's number.
fn parse_file(text: &[u8]) -> Result<ApiKeys, String> {
    let accepted = format!("accepted: a key on each line, or name:key, {MOST} of them at the most");
    if text.len() > LONGEST_FILE {
        return Err(format!("over {LONGEST_FILE} bytes; {accepted}"));
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(format!("not text; {accepted}"));
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
        let key = key.map_err(|problem| format!("line {number} {problem}"))?;
        let repeats = |other: &ApiKey| other.name == key.name || other.matches(&key.secret);
        if keys.iter().any(repeats) {
            return Err(format!(
                "line {number} repeats a key or a name of another line; {accepted}"
            ));
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err(format!("contains no key; {accepted}")),
        1..=MOST => Ok(ApiKeys(keys.into())),
        more => Err(format!("contains {more} keys; {accepted}")),
    }
}

/// The name before the first colon, if it may be one, and the key after it.
fn split_name(line: &str) -> Option<(&str, &str)> {
    let (name, key) = line.split_once(':')?;
    let may_be = (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    may_be.then_some((name, key))
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, LONGEST, MOST, parse_file};

    #[test]
    fn only_the_key_itself_matches() {
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
    fn a_key_is_never_shown() {
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
    fn a_file_has_a_key_on_each_line_with_a_name_or_without() {
        let text = b"phone:0123456789abcdef\r\n\nfedcba9876543210\nold one:secret-1\n";
        let error = parse_file(text).unwrap_err();
        assert!(error.starts_with("line 4 contains white space"), "{error}");
        let keys =
            parse_file(b"phone:0123456789abcdef\r\n\nfedcba9876543210\n::with-colons").unwrap();
        let name = |line: &str| keys.find(line.as_bytes()).map(|key| key.name().to_string());
        assert_eq!(name("0123456789abcdef").as_deref(), Some("phone"));
        assert_eq!(name("fedcba9876543210").as_deref(), Some("line 3"));
        // What is before the colon is no name.
        assert_eq!(name("::with-colons").as_deref(), Some("line 4"));
        for wrong in ["phone:0123456789abcdef", "phone", "", ":with-colons"] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_has_few_keys_and_one_at_least() {
        for none in ["", "\n", "\r\n\r\n"] {
            let error = parse_file(none.as_bytes()).unwrap_err();
            assert!(error.starts_with("contains no key"), "{error}");
        }
        let keys =
            |count| -> String { (0..count).map(|number| format!("{number:016}\n")).collect() };
        for twice in ["a:0123456789\nb:0123456789", "a:0123456789\na:9876543210"] {
            let error = parse_file(twice.as_bytes()).unwrap_err();
            assert!(error.starts_with("line 2 repeats"), "{error}");
        }
        assert_eq!(
            parse_file(keys(MOST).as_bytes()).unwrap().iter().count(),
            MOST
        );
        assert!(parse_file(keys(MOST + 1).as_bytes()).is_err());
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
