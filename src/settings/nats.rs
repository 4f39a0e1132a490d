//! The settings for publishing to NATS: servers, login, TLS, and the contents of messages.
//!
//! This module checks that the files of secrets and certificates can be used. It does not connect to a server.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_nats::ServerAddr;
use nkeys::{KeyPair, KeyPairType};
use zeroize::Zeroizing;

use super::credentials::exposed;
use super::key::read_secret;
use super::parse::Reader;
use super::raw::RawSettings;
use super::tls::{certified, load, read_certificates, read_key, trusted};
use super::{Problem, Problems, parse};
use crate::model::{Encoding, Section, Sections};

/// The accepted form of `NATS_URL`, for error messages.
const ACCEPTED: &str =
    "accepted: nats://HOST[:PORT] or tls://HOST[:PORT], several separated by commas";
/// Maximum number of servers in `NATS_URL`.
const MAX_SERVERS: usize = 64;
/// Maximum size of a file with a secret, in bytes. Real credentials are much shorter.
const MAX_SECRET_FILE: usize = 64 * 1024;
/// The default of `NATS_BUFFER`, in bytes.
const BUFFER: usize = 16 << 20;
/// The smallest and the largest `NATS_BUFFER`, in bytes.
const BUFFERS: (usize, usize) = (64 << 10, 1 << 30);
/// The default of `NATS_SECTIONS`: figures and metadata. Log lines and events have their own subjects.
const SECTIONS: [Section; 3] = [Section::System, Section::Containers, Section::DockerMeta];

/// The settings for publishing to NATS.
#[derive(Debug, Clone, PartialEq)]
pub struct NatsSettings {
    /// `NATS_URL`: the servers. The agent connects to one of these servers.
    pub servers: Vec<ServerAddr>,
    /// The login at the server. None: the agent logs in with its certificate, or connects without a login.
    pub login: Option<NatsLogin>,
    /// `NATS_CA_FILE`: the certificates by which the agent verifies servers. None: the certificates that the system trusts.
    pub ca: Option<PathBuf>,
    /// `NATS_CERT_FILE` and `NATS_KEY_FILE`: the agent's certificate, for servers that request a certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `NATS_SECTIONS`: the sections of published snapshots.
    pub sections: Sections,
    /// `NATS_ENCODING`: the encoding of published snapshots.
    pub encoding: Encoding,
    /// `NATS_BUFFER`: limit on the log lines and events that wait while no server accepts them, in bytes.
    pub buffer: usize,
}

/// The login at a server. The agent reads the login's file again for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsLogin {
    /// `NATS_CREDENTIALS_FILE`: the JWT of a user, and the seed of the user's nkey.
    Credentials(PathBuf),
    /// `NATS_NKEY_FILE`: the seed of a user's nkey.
    Nkey(PathBuf),
    /// `NATS_TOKEN_FILE`: a token.
    Token(PathBuf),
    /// `NATS_USER` and `NATS_PASSWORD_FILE`: the name of a user, and a password.
    Password(String, PathBuf),
}

/// The secret in the file of a login. The `Debug` text does not show the secret. The memory of the secret is wiped on drop.
pub enum NatsSecret {
    /// The JWT of a user, and the seed of the user's nkey.
    Credentials {
        /// The user's identity, signed by the account.
        jwt: Zeroizing<String>,
        /// The seed of the nkey that signs the server's nonces.
        seed: Zeroizing<String>,
    },
    /// The seed of a user's nkey.
    Seed(Zeroizing<String>),
    /// A token.
    Token(Zeroizing<String>),
    /// A password.
    Password(Zeroizing<String>),
}

impl fmt::Debug for NatsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl NatsSettings {
    /// Reads the variables and checks the files. Returns none if `NATS_URL` is not set.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        if raw.nats_url.is_none() {
            for (variable, value) in only_with_url(raw) {
                if value.is_some() {
                    reader.problem(
                        variable,
                        "set, but NATS_URL is not; accepted: only together with NATS_URL",
                    );
                }
            }
            return None;
        }
        let servers = reader.optional("NATS_URL", &raw.nats_url, parse_servers);
        let sections = SECTIONS.into_iter().fold(Sections::NONE, Sections::with);
        let settings = Self {
            servers: servers.unwrap_or_default(),
            login: NatsLogin::read(reader, raw),
            ca: raw.nats_ca_file.as_ref().map(PathBuf::from),
            identity: read_identity(reader, raw),
            sections: reader.value(
                "NATS_SECTIONS",
                &raw.nats_sections,
                sections,
                parse_sections,
            ),
            encoding: reader.value(
                "NATS_ENCODING",
                &raw.nats_encoding,
                Encoding::Json,
                |text| match text {
                    "json" => Ok(Encoding::Json),
                    "zstd" => Ok(Encoding::Zstd),
                    _ => Err("unknown encoding; accepted: json, zstd".to_owned()),
                },
            ),
            buffer: reader.value("NATS_BUFFER", &raw.nats_buffer, BUFFER, |text| {
                parse::size(text, BUFFERS)
            }),
        };
        settings.try_files(reader);
        Some(settings)
    }

    /// Reads each file once, and records a problem for each file that cannot be used. Without this check the agent would start,
    /// and only its log would report the problem.
    fn try_files(&self, reader: &mut Reader) {
        if let Some(Err(problem)) = self.login.as_ref().map(NatsLogin::load) {
            reader.problem(problem.variable, problem.text);
        }
        if let Some(ca) = &self.ca {
            load(reader, "NATS_CA_FILE", ca, |path| {
                read_certificates(path).and_then(trusted)
            });
        }
        if let Some((cert, key)) = &self.identity {
            let chain = load(reader, "NATS_CERT_FILE", cert, read_certificates);
            let key = load(reader, "NATS_KEY_FILE", key, read_key);
            let (Some(chain), Some(key)) = (chain, key) else {
                return;
            };
            if let Err(problem) = certified(chain, &key) {
                let (variable, text) = problem.of("NATS_CERT_FILE", "NATS_KEY_FILE");
                reader.problem(variable, text);
            }
        }
    }

    /// Whether every connection must use TLS. A single `tls://` URL requires TLS for all servers, because a server can announce
    /// other servers, and an announced address has no scheme.
    #[must_use]
    pub fn tls_required(&self) -> bool {
        self.ca.is_some()
            || self.identity.is_some()
            || self.servers.iter().any(ServerAddr::tls_required)
    }

    /// Whether messages can cross a network without encryption. This is possible if TLS is not required and a server is not on
    /// this host.
    #[must_use]
    pub fn in_the_clear(&self) -> bool {
        let is_loopback = |server: &ServerAddr| {
            let address = server.host().parse::<IpAddr>();
            server.host() == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
        };
        !self.tls_required() && !self.servers.iter().all(is_loopback)
    }

    /// The URLs of the servers, separated by commas. The URLs contain no secret.
    #[must_use]
    pub fn urls(&self) -> String {
        let url = |server: &ServerAddr| format!("{}://{}", server.scheme(), address_of(server));
        self.servers.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// The path of each file, with the name of its variable.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let identity = self.identity.iter().flat_map(|(cert, key)| {
            [
                ("NATS_CERT_FILE", cert.as_path()),
                ("NATS_KEY_FILE", key.as_path()),
            ]
        });
        let ca = self.ca.as_deref().map(|path| ("NATS_CA_FILE", path));
        let login = self.login.as_ref().map(NatsLogin::file);
        identity.chain(ca).chain(login)
    }

    /// Returns a problem for each file that every user of the host can write, and for each secret that every user can read.
    #[must_use]
    pub fn exposed(&self) -> Vec<Problem> {
        exposed(self.files())
    }
}

/// The address of a server as `HOST:PORT`.
#[must_use]
pub fn address_of(server: &ServerAddr) -> String {
    let (host, port) = (server.host(), server.port());
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The variables that are an error without `NATS_URL`, and their values.
fn only_with_url(raw: &RawSettings) -> [(&'static str, &Option<String>); 11] {
    [
        ("NATS_CREDENTIALS_FILE", &raw.nats_credentials_file),
        ("NATS_NKEY_FILE", &raw.nats_nkey_file),
        ("NATS_TOKEN_FILE", &raw.nats_token_file),
        ("NATS_USER", &raw.nats_user),
        ("NATS_PASSWORD_FILE", &raw.nats_password_file),
        ("NATS_CA_FILE", &raw.nats_ca_file),
        ("NATS_CERT_FILE", &raw.nats_cert_file),
        ("NATS_KEY_FILE", &raw.nats_key_file),
        ("NATS_ENCODING", &raw.nats_encoding),
        ("NATS_SECTIONS", &raw.nats_sections),
        ("NATS_BUFFER", &raw.nats_buffer),
    ]
}

/// Reads the paths of the agent's certificate and private key. Records a problem if only one of the two variables is set.
fn read_identity(reader: &mut Reader, raw: &RawSettings) -> Option<(PathBuf, PathBuf)> {
    let missing = match (&raw.nats_cert_file, &raw.nats_key_file) {
        (Some(cert), Some(key)) => return Some((cert.into(), key.into())),
        (None, None) => return None,
        (None, Some(_)) => "NATS_CERT_FILE",
        (Some(_), None) => "NATS_KEY_FILE",
    };
    reader.problem(
        missing,
        "not set; accepted: NATS_CERT_FILE and NATS_KEY_FILE, both or neither (paths of PEM files)",
    );
    None
}

/// Reads the URLs of servers, separated by commas.
///
/// # Errors
/// Fails if a URL is wrong. The error has the place of the URL in the list, and the reason. The error does not show the URL,
/// because a URL can contain a secret.
pub(crate) fn parse_servers(text: &str) -> Result<Vec<ServerAddr>, String> {
    let servers: Vec<_> = text.split(',').map(str::trim).collect();
    if servers.len() > MAX_SERVERS {
        return Err(format!("more than {MAX_SERVERS} servers; {ACCEPTED}"));
    }
    let numbered = servers.iter().enumerate();
    numbered
        .map(|(index, server)| {
            parse_server(server).map_err(|problem| format!("server {}: {problem}", index + 1))
        })
        .collect()
}

fn parse_server(text: &str) -> Result<ServerAddr, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("no scheme; {ACCEPTED}"));
    };
    if !matches!(scheme, "nats" | "tls") {
        return Err(format!("unsupported scheme; {ACCEPTED}"));
    }
    if rest.contains('@') {
        return Err(format!(
            "credentials in the URL: put them into the file of NATS_CREDENTIALS_FILE, NATS_NKEY_FILE, NATS_TOKEN_FILE, or \
             NATS_PASSWORD_FILE (with NATS_USER); {ACCEPTED}"
        ));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '\\']) || rest.contains(char::is_whitespace) {
        return Err(format!("more than a host and a port; {ACCEPTED}"));
    }
    // An IPv6 address has colons too. The colon of a port stands after the closing bracket.
    let after_address = rest.rfind(']').map_or(0, |bracket| bracket + 1);
    let port = rest[after_address..].split_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(format!("not a port; {ACCEPTED}"));
    }
    let server = format!("{scheme}://{rest}").parse::<ServerAddr>();
    match server {
        Ok(server) if !server.host().is_empty() => Ok(server),
        _ => Err(format!("not a host; {ACCEPTED}")),
    }
}

fn parse_sections(text: &str) -> Result<Sections, String> {
    text.split(',').try_fold(Sections::NONE, |sections, name| {
        let known = Section::ALL.iter().find(|(known, _)| *known == name.trim());
        let (_, section) = known.ok_or_else(|| {
            let names: Vec<_> = Section::ALL.iter().map(|(name, _)| *name).collect();
            format!(
                "unknown section; accepted: any of {}, separated by commas",
                names.join(", ")
            )
        })?;
        Ok(sections.with(*section))
    })
}

impl NatsLogin {
    /// Reads the login of a program that subscribes, such as `watch`, from `NATS_CREDENTIALS_FILE`, `NATS_NKEY_FILE`,
    /// `NATS_TOKEN_FILE`, or `NATS_USER` with `NATS_PASSWORD_FILE`. Checks the file. Returns none if no variable is set.
    ///
    /// # Errors
    /// Fails if a variable is wrong or the file cannot be used. The error has all problems.
    pub fn from_env(
        vars: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Option<Self>, Problems> {
        let mut reader = Reader::new(vars);
        let raw = reader.raw();
        let login = Self::read(&mut reader, &raw);
        if let Some(Err(problem)) = login.as_ref().map(Self::load) {
            reader.problem(problem.variable, problem.text);
        }
        let problems = reader.finish();
        match problems.0.is_empty() {
            true => Ok(login),
            false => Err(problems),
        }
    }

    /// Reads the variables of the login. Returns none if no login is set. Records a problem and returns none if the variables do
    /// not fit together.
    fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        let password = match (&raw.nats_user, &raw.nats_password_file) {
            (Some(user), Some(file)) => Some(Self::Password(user.trim().to_owned(), file.into())),
            (None, None) => None,
            (user, _) => {
                let missing = match user {
                    None => "NATS_USER",
                    Some(_) => "NATS_PASSWORD_FILE",
                };
                reader.problem(
                    missing,
                    "not set; accepted: NATS_USER and NATS_PASSWORD_FILE, both or neither",
                );
                None
            }
        };
        let path = |path: &Option<String>, way: fn(PathBuf) -> Self| {
            path.as_ref().map(|path| way(path.into()))
        };
        let ways = [
            path(&raw.nats_credentials_file, Self::Credentials),
            path(&raw.nats_nkey_file, Self::Nkey),
            path(&raw.nats_token_file, Self::Token),
            password,
        ];
        let mut ways = ways.into_iter().flatten();
        let (first, second) = (ways.next(), ways.next());
        if let Some(second) = second {
            reader.problem(
                second.file().0,
                "set together with another login; accepted: only one of NATS_CREDENTIALS_FILE, NATS_NKEY_FILE, \
                 NATS_TOKEN_FILE, and NATS_USER with NATS_PASSWORD_FILE",
            );
            return None;
        }
        first
    }

    /// The path of the file with the secret, and the name of its variable.
    #[must_use]
    pub fn file(&self) -> (&'static str, &Path) {
        match self {
            Self::Credentials(path) => ("NATS_CREDENTIALS_FILE", path),
            Self::Nkey(path) => ("NATS_NKEY_FILE", path),
            Self::Token(path) => ("NATS_TOKEN_FILE", path),
            Self::Password(_, path) => ("NATS_PASSWORD_FILE", path),
        }
    }

    /// The user's name in `NATS_USER`. None for every other kind of login.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password(user, _) => Some(user),
            _ => None,
        }
    }

    /// Reads the secret. Blocks the thread until the file system answers.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or does not contain a secret of the expected form.
    pub fn load(&self) -> Result<NatsSecret, Problem> {
        let (variable, path) = self.file();
        let secret = match self {
            Self::Credentials(_) => read_text(path).and_then(|text| parse_credentials(&text)),
            Self::Nkey(_) => read_line(path).and_then(|seed| {
                check_seed(&seed)?;
                Ok(NatsSecret::Seed(seed))
            }),
            Self::Token(_) => read_line(path).map(NatsSecret::Token),
            Self::Password(..) => read_line(path).map(NatsSecret::Password),
        };
        secret.map_err(|problem| {
            let accepted = match self {
                Self::Credentials(_) => "a credentials file that nsc made (.creds)",
                Self::Nkey(_) => "a file with the seed of a user's nkey (SU…)",
                Self::Token(_) => "a file with a single line, the token",
                Self::Password(..) => "a file with a single line, the password",
            };
            Problem {
                variable,
                text: format!("the file {problem}; accepted: {accepted}"),
            }
        })
    }
}

/// Reads a file of text. The error is the end of a sentence that begins with `the file`, such as `is empty`.
fn read_text(path: &Path) -> Result<Zeroizing<String>, String> {
    let text =
        read_secret(path, MAX_SECRET_FILE).map_err(|error| format!("cannot be read ({error})"))?;
    if text.len() > MAX_SECRET_FILE {
        return Err(format!("is longer than {MAX_SECRET_FILE} bytes"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a file that has a single line. The error is the end of a sentence that begins with `the file`.
fn read_line(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = read_text(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("is empty".to_owned());
    }
    if line.contains(char::is_control) {
        return Err("has more than one line, or a control character".to_owned());
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Reads a credentials file. The JWT is the line after `-----BEGIN NATS USER JWT-----`. The seed is the line after
/// `-----BEGIN USER NKEY SEED-----`.
fn parse_credentials(text: &str) -> Result<NatsSecret, String> {
    let block = |name: &str| {
        let begin = format!("BEGIN {name}-");
        let mut lines = text
            .lines()
            .skip_while(|line| !line.contains(&begin))
            .skip(1);
        let line = lines.next().map(str::trim);
        line.filter(|line| !line.is_empty() && !line.starts_with('-'))
            .map(|line| Zeroizing::new(line.to_owned()))
            .ok_or_else(|| format!("has no {name}"))
    };
    let (jwt, seed) = (block("NATS USER JWT")?, block("USER NKEY SEED")?);
    check_seed(&seed)?;
    Ok(NatsSecret::Credentials { jwt, seed })
}

/// Checks that the text is the seed of a user's nkey.
fn check_seed(seed: &str) -> Result<(), String> {
    match KeyPair::from_seed(seed) {
        Ok(pair) if matches!(pair.key_pair_type(), KeyPairType::User) => Ok(()),
        Ok(_) => Err("has a seed that is not a user's".to_owned()),
        Err(_) => Err("has an invalid seed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{NatsSecret, parse_credentials, parse_sections, parse_server, parse_servers};
    use crate::model::{Section, Sections};

    /// The seed of an invented user.
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

    #[test]
    fn urls_of_hosts_with_and_without_ports_are_accepted() {
        for (text, shown) in [
            ("nats://web", "nats://web:4222"),
            ("tls://web:1/", "tls://web:1"),
            ("nats://127.0.0.1", "nats://127.0.0.1:4222"),
            ("tls://[::1]:99", "tls://[::1]:99"),
            ("nats://[2001:db8::1]", "nats://[2001:db8::1]:4222"),
        ] {
            let server = parse_server(text).unwrap();
            assert_eq!(
                format!("{}://{}", server.scheme(), super::address_of(&server)),
                shown
            );
        }
        assert_eq!(parse_servers("nats://a, nats://b:1").unwrap().len(), 2);
    }

    #[test]
    fn wrong_urls_are_refused_and_the_error_shows_no_secret() {
        for (text, problem) in [
            ("web:4222", "no scheme"),
            ("http://web", "unsupported scheme"),
            ("ws://web", "unsupported scheme"),
            ("nats://", "not a host"),
            ("nats://:1", "not a host"),
            ("nats://web:0", "not a port"),
            ("nats://web:", "not a port"),
            ("nats://web:70000", "not a port"),
            ("nats://web/path", "more than a host"),
            ("nats://user:secret@web", "NATS_PASSWORD_FILE"),
            ("nats://secret@web", "NATS_TOKEN_FILE"),
            ("nats://a,,nats://b", "server 2: no scheme"),
        ] {
            let error = parse_servers(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("accepted: nats://HOST[:PORT]"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn known_sections_are_accepted_and_unknown_sections_are_refused() {
        let sections = Sections::NONE.with(Section::System).with(Section::Logs);
        assert_eq!(parse_sections("system, logs"), Ok(sections));
        for text in ["", "system,", "systems", "system logs"] {
            assert!(parse_sections(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_credentials_file_needs_a_jwt_and_a_valid_seed() {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.sig\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\r\n{SEED}\r\n------END USER NKEY SEED------\n"
        );
        let Ok(NatsSecret::Credentials { jwt, seed }) = parse_credentials(&text) else {
            panic!("refused");
        };
        assert_eq!((jwt.as_str(), seed.as_str()), ("eyJ0.eyJq.sig", SEED));
        let shown = format!("{:?}", parse_credentials(&text));
        assert!(!shown.contains("eyJ0") && !shown.contains(SEED), "{shown}");
        for (text, problem) in [
            ("", "no NATS USER JWT"),
            (&text.replace(SEED, ""), "no USER NKEY SEED"),
            (&text.replace(SEED, "SUACSSL3"), "an invalid seed"),
            (&text.replace("eyJ0.eyJq.sig\n", ""), "no NATS USER JWT"),
        ] {
            let error = parse_credentials(text).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn fuzz_nats_credentials() {
        let seed = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n-----BEGIN USER NKEY SEED-----\n{SEED}\n"
        );
        crate::fuzzing::run("nats-credentials", &[seed.as_bytes()], |bytes| {
            let _ = parse_credentials(&String::from_utf8_lossy(bytes));
        });
    }

    #[test]
    fn fuzz_nats_urls() {
        let seeds: [&[u8]; 2] = [b"nats://web:4222,tls://[::1]:1", b"tls://user:secret@web/"];
        crate::fuzzing::run("nats-urls", &seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for server in parse_servers(&text).into_iter().flatten() {
                assert!(
                    !server.host().is_empty() && !server.has_user_pass(),
                    "{text}"
                );
            }
        });
    }
}
