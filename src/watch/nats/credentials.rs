//! Who the view is to NATS: by the same variables as the agent.

use std::ffi::OsString;
use std::path::Path;

use async_nats::ConnectOptions;
use zeroize::Zeroizing;

use crate::settings::{Problem, Problems, read_secret};

/// The longest file of credentials, in bytes.
const LONGEST: usize = 64 * 1024;
/// The variables, in the order in which they are named.
const VARIABLES: [&str; 5] = [
    "NATS_CREDENTIALS_FILE",
    "NATS_NKEY_FILE",
    "NATS_TOKEN_FILE",
    "NATS_USER",
    "NATS_PASSWORD_FILE",
];

/// What is shown to the server.
pub struct Credentials(Way);

enum Way {
    Nothing,
    /// The text of a `.creds` file: a user's JWT and its seed.
    File(Zeroizing<String>),
    /// A seed.
    Nkey(Zeroizing<String>),
    Token(Zeroizing<String>),
    User {
        name: String,
        password: Zeroizing<String>,
    },
}

impl Credentials {
    /// Of `NATS_CREDENTIALS_FILE`, `NATS_NKEY_FILE`, `NATS_TOKEN_FILE`, or `NATS_USER` with `NATS_PASSWORD_FILE`; nothing is
    /// shown where none is set.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        let mut set: [Option<String>; VARIABLES.len()] = Default::default();
        for (name, value) in vars {
            let place = VARIABLES.iter().position(|known| name == *known);
            let Some(place) = place.filter(|_| !value.is_empty()) else {
                continue;
            };
            let text = value.into_string();
            let text = text.map_err(|_| problem(VARIABLES[place], "not UTF-8 text".to_owned()))?;
            set[place] = Some(text);
        }
        match set {
            [None, None, None, None, None] => Ok(Way::Nothing),
            [Some(file), None, None, None, None] => secret(VARIABLES[0], &file).and_then(creds),
            [None, Some(file), None, None, None] => secret(VARIABLES[1], &file).and_then(nkey),
            [None, None, Some(file), None, None] => secret(VARIABLES[2], &file).map(Way::Token),
            [None, None, None, Some(name), Some(file)] => {
                secret(VARIABLES[4], &file).map(|password| Way::User { name, password })
            }
            [None, None, None, Some(_), None] => Err(problem(
                "NATS_USER",
                "set without NATS_PASSWORD_FILE; accepted: both".to_owned(),
            )),
            [None, None, None, None, Some(_)] => Err(problem(
                "NATS_PASSWORD_FILE",
                "set without NATS_USER; accepted: both".to_owned(),
            )),
            set => {
                let second = set.iter().enumerate().filter(|(_, one)| one.is_some()).nth(1);
                let variable = second.map_or(VARIABLES[0], |(place, _)| VARIABLES[place]);
                Err(problem(
                    variable,
                    "set together with other credentials; accepted: one of NATS_CREDENTIALS_FILE, NATS_NKEY_FILE, \
                     NATS_TOKEN_FILE, or NATS_USER with NATS_PASSWORD_FILE"
                        .to_owned(),
                ))
            }
        }
        .map(Self)
    }

    /// How a connection begins.
    pub(super) fn options(&self) -> Result<ConnectOptions, String> {
        let options = ConnectOptions::new();
        Ok(match &self.0 {
            Way::Nothing => options,
            // What was wrong with it is not repeated: it might be a part of a secret.
            Way::File(text) => options
                .credentials(text)
                .map_err(|_| "NATS_CREDENTIALS_FILE is no credentials file".to_owned())?,
            Way::Nkey(seed) => options.nkey(seed.to_string()),
            Way::Token(token) => options.token(token.to_string()),
            Way::User { name, password } => {
                options.user_and_password(name.clone(), password.to_string())
            }
        })
    }
}

/// A file's text, without the end of its last line.
fn secret(variable: &'static str, file: &str) -> Result<Zeroizing<String>, Problems> {
    let text = read_secret(Path::new(file), LONGEST).map_err(|error| {
        problem(
            variable,
            format!("cannot be read ({error}); accepted: the path of a file"),
        )
    })?;
    let wrong = |what: &str| problem(variable, what.to_owned());
    if text.len() > LONGEST {
        return Err(wrong("its file is over 64 KiB"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| wrong("its file is not text"))?;
    match text.trim_end() {
        "" => Err(wrong("its file is empty")),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

fn creds(text: Zeroizing<String>) -> Result<Way, Problems> {
    match ConnectOptions::with_credentials(&text) {
        Ok(_) => Ok(Way::File(text)),
        Err(_) => Err(problem(
            "NATS_CREDENTIALS_FILE",
            "its file holds no credentials; accepted: a .creds file, with a user's JWT and seed"
                .to_owned(),
        )),
    }
}

fn nkey(seed: Zeroizing<String>) -> Result<Way, Problems> {
    match nkeys::KeyPair::from_seed(&seed) {
        Ok(_) => Ok(Way::Nkey(seed)),
        Err(_) => Err(problem(
            "NATS_NKEY_FILE",
            "its file holds no seed; accepted: a user's seed, which begins with SU".to_owned(),
        )),
    }
}

fn problem(variable: &'static str, text: String) -> Problems {
    Problems(vec![Problem { variable, text }])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::{Credentials, Way};

    fn file(text: &str) -> (NamedTempFile, String) {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    fn read(variables: &[(&str, &str)]) -> Result<Way, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let read = Credentials::from_env(variables);
        read.map(|read| read.0)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn each_way_is_read() {
        let (_seed, seed) = file("SUACH75SWCM5D2JMJM6EKLR2WDARVGZT4QC6LX3AGHSWOMVAKERABBBRWM\n");
        let (_token, token) = file("s3cret\r\n");
        assert!(matches!(read(&[("HOME", "/")]), Ok(Way::Nothing)));
        assert!(matches!(
            read(&[("NATS_NKEY_FILE", &seed)]),
            Ok(Way::Nkey(_))
        ));
        assert!(
            matches!(read(&[("NATS_TOKEN_FILE", &token)]), Ok(Way::Token(text)) if **text == *"s3cret")
        );
        let both = [("NATS_USER", "viewer"), ("NATS_PASSWORD_FILE", &token)];
        assert!(
            matches!(read(&both), Ok(Way::User { name, password }) if name == "viewer" && **password == *"s3cret")
        );
    }

    #[test]
    fn what_is_wrong_is_said_and_no_secret_shown() {
        let (_file, path) = file("s3cret");
        let (_empty, empty) = file("\n");
        for (variables, said) in [
            (
                vec![("NATS_CREDENTIALS_FILE", path.as_str())],
                "NATS_CREDENTIALS_FILE: its file holds no credentials",
            ),
            (
                vec![("NATS_NKEY_FILE", path.as_str())],
                "NATS_NKEY_FILE: its file holds no seed",
            ),
            (
                vec![("NATS_TOKEN_FILE", empty.as_str())],
                "NATS_TOKEN_FILE: its file is empty",
            ),
            (
                vec![("NATS_TOKEN_FILE", "/nowhere")],
                "NATS_TOKEN_FILE: cannot be read (No such file",
            ),
            (
                vec![("NATS_USER", "viewer")],
                "NATS_USER: set without NATS_PASSWORD_FILE",
            ),
            (
                vec![("NATS_PASSWORD_FILE", path.as_str())],
                "NATS_PASSWORD_FILE: set without NATS_USER",
            ),
            (
                vec![("NATS_TOKEN_FILE", path.as_str()), ("NATS_USER", "viewer")],
                "NATS_USER: set together with other credentials",
            ),
        ] {
            let Err(problem) = read(&variables) else {
                panic!("{said}")
            };
            assert!(problem.starts_with(said), "{problem}");
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}
