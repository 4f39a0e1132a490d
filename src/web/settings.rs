//! The settings of `system-agent web`: environment variables → validated [`WebSettings`]. All problems are reported together.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use ipnet::IpNet;
use serde::Deserialize;

use super::history::{HistorySettings, Retention};
use super::password::PasswordHash;
use super::tls::{TlsFiles, TlsIdentity};
use crate::settings::{Problem, Problems, TelemetrySettings, parse_size};

/// The default of `WEB_ADDRESS`.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
/// The default of `WEB_SESSION_TIME`.
const DEFAULT_SESSION_TIME: Duration = Duration::from_secs(7 * 86_400);
/// The shortest and the longest `WEB_SESSION_TIME`.
const SESSION_TIMES: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(366 * 86_400));
/// The default of `WEB_HISTORY_LIMIT`, in bytes.
const DEFAULT_LIMIT: u64 = 1 << 30;
/// The least and the largest `WEB_HISTORY_LIMIT`, in bytes.
const LIMITS: (usize, usize) = (16 << 20, 1024 << 30);
/// The name of the folder in the directories for state of a user.
const FOLDER: &str = "system-agent-web";
/// The shortest time that figures are kept.
const SHORTEST_KEPT: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The variables of the page's server.
pub const VARIABLES: [&str; 13] = [
    "WEB_ADDRESS",
    "WEB_PASSWORD_FILE",
    "WEB_GUEST",
    "WEB_SESSION_TIME",
    "WEB_TLS_CERT_FILE",
    "WEB_TLS_KEY_FILE",
    "WEB_TRUSTED_PROXY",
    "WEB_HISTORY_FOLDER",
    "WEB_HISTORY_LIMIT",
    "WEB_HISTORY_FULL",
    "WEB_HISTORY_MINUTES",
    "WEB_HISTORY_TEN_MINUTES",
    "WEB_HISTORY_HOURS",
];

/// The variables as text.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    web_address: Option<String>,
    web_password_file: Option<String>,
    web_guest: Option<String>,
    web_session_time: Option<String>,
    web_tls_cert_file: Option<String>,
    web_tls_key_file: Option<String>,
    web_trusted_proxy: Option<String>,
    web_history_folder: Option<String>,
    web_history_limit: Option<String>,
    web_history_full: Option<String>,
    web_history_minutes: Option<String>,
    web_history_ten_minutes: Option<String>,
    web_history_hours: Option<String>,
}

/// The settings of the page's server, after the check of their values.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// `WEB_ADDRESS`: the address and the port.
    pub address: SocketAddr,
    /// `WEB_PASSWORD_FILE`: the hash of the password. None: no login.
    pub password: Option<PasswordHash>,
    /// `WEB_GUEST`: whether the page can be read without a login.
    pub guest: bool,
    /// `WEB_SESSION_TIME`: a session ends after this time without a request.
    pub session_time: Duration,
    /// `WEB_TLS_CERT_FILE` and `WEB_TLS_KEY_FILE`, and the certificate at the start. None: plain HTTP.
    pub tls: Option<(TlsFiles, TlsIdentity)>,
    /// `WEB_TRUSTED_PROXY`. None: no header of a proxy is trusted.
    pub proxy: Option<TrustedProxy>,
    /// `WEB_HISTORY_…`: where the history is stored, and for how long.
    pub history: HistorySettings,
    /// Whether `WEB_HISTORY_FOLDER` names the folder. Without it, a folder that cannot be used is no error.
    pub is_history_needed: bool,
    /// Format and level of the log.
    pub telemetry: TelemetrySettings,
}

/// A proxy that authenticates users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxy {
    /// The addresses of the proxy.
    pub network: IpNet,
    /// The header with the name of the user.
    pub header: HeaderName,
}

impl WebSettings {
    /// Reads the settings from environment variables, and the files that they name.
    ///
    /// # Errors
    /// Fails if a value is wrong or a file cannot be used. The error has all problems.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        let vars: Vec<_> = vars.collect();
        let mut problems = Vec::new();
        let raw = raw(&vars, &mut problems);
        let mut problem = |variable, text: String| problems.push(Problem { variable, text });
        let address = read(&raw.web_address, parse_address).unwrap_or_else(|text| {
            problem("WEB_ADDRESS", text);
            None
        });
        let guest = read(&raw.web_guest, parse_guest).unwrap_or_else(|text| {
            problem("WEB_GUEST", text);
            None
        });
        let session_time = read(&raw.web_session_time, parse_session_time).unwrap_or_else(|text| {
            problem("WEB_SESSION_TIME", text);
            None
        });
        let proxy = read(&raw.web_trusted_proxy, parse_proxy).unwrap_or_else(|text| {
            problem("WEB_TRUSTED_PROXY", text);
            None
        });
        let history = history(&raw, &vars, &mut problem);
        let password = raw.web_password_file.as_ref().map(PathBuf::from);
        let password = password.and_then(|path| {
            let read = PasswordHash::read(&path);
            read.map_err(|text| problem("WEB_PASSWORD_FILE", text)).ok()
        });
        let tls = match (&raw.web_tls_cert_file, &raw.web_tls_key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let files = TlsFiles {
                    cert: cert.into(),
                    key: key.into(),
                };
                let loaded = files.load();
                loaded
                    .map_err(|(variable, text)| problem(variable, text))
                    .ok()
                    .map(|identity| (files, identity))
            }
            (Some(_), None) => {
                problem(
                    "WEB_TLS_KEY_FILE",
                    "not set, but WEB_TLS_CERT_FILE is; accepted: the path of a PEM file".into(),
                );
                None
            }
            (None, Some(_)) => {
                problem(
                    "WEB_TLS_CERT_FILE",
                    "not set, but WEB_TLS_KEY_FILE is; accepted: the path of a PEM file".into(),
                );
                None
            }
        };
        let address = address.unwrap_or(DEFAULT_ADDRESS);
        let has_login = raw.web_password_file.is_some() || raw.web_trusted_proxy.is_some();
        let is_encrypted = raw.web_tls_cert_file.is_some() || raw.web_trusted_proxy.is_some();
        let is_protected = has_login && is_encrypted;
        if !address.ip().is_loopback() && !is_protected {
            problem(
                "WEB_ADDRESS",
                "other hosts can reach this address, so it needs a password (WEB_PASSWORD_FILE) and TLS (WEB_TLS_CERT_FILE, \
                 WEB_TLS_KEY_FILE), or an authenticating proxy (WEB_TRUSTED_PROXY); accepted without them: an address of \
                 127.0.0.0/8 or [::1]"
                    .into(),
            );
        }
        if guest.is_some() && raw.web_password_file.is_none() {
            problem(
                "WEB_GUEST",
                "set, but WEB_PASSWORD_FILE is not; accepted: only together with a password".into(),
            );
        }
        let telemetry = TelemetrySettings::from_env(vars.into_iter());
        match telemetry {
            Ok(telemetry) if problems.is_empty() => Ok(Self {
                address,
                password,
                guest: guest.is_some(),
                session_time: session_time.unwrap_or(DEFAULT_SESSION_TIME),
                tls,
                proxy,
                is_history_needed: raw.web_history_folder.is_some(),
                history,
                telemetry,
            }),
            Ok(_) => Err(Problems(problems)),
            Err(more) => {
                problems.extend(more.0);
                Err(Problems(problems))
            }
        }
    }
}

/// Returns the path in `WEB_PASSWORD_FILE`.
#[must_use]
pub fn password_file(vars: impl Iterator<Item = (OsString, OsString)>) -> Option<PathBuf> {
    let mut vars = vars;
    let (_, path) = vars.find(|(name, value)| name == "WEB_PASSWORD_FILE" && !value.is_empty())?;
    Some(path.into())
}

/// Selects the server's variables from an environment. A variable with an empty value counts as unset.
fn raw(vars: &[(OsString, OsString)], problems: &mut Vec<Problem>) -> Raw {
    let mut known = Vec::new();
    for (name, value) in vars {
        let Some(&variable) = VARIABLES.iter().find(|one| name.to_str() == Some(one)) else {
            continue;
        };
        match value.to_str() {
            Some("") => {}
            Some(text) => known.push((variable.to_owned(), text.trim().to_owned())),
            None => problems.push(Problem {
                variable,
                text: "not UTF-8 text; accepted: text in UTF-8".to_owned(),
            }),
        }
    }
    // Every field is optional text, so envy never fails here.
    envy::from_iter(known).unwrap_or_default()
}

fn read<T>(
    raw: &Option<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    raw.as_deref().map(parse).transpose()
}

/// Reads the settings of the history.
fn history(
    raw: &Raw,
    vars: &[(OsString, OsString)],
    problem: &mut impl FnMut(&'static str, String),
) -> HistorySettings {
    let folder = match raw.web_history_folder.as_deref() {
        Some("off") => None,
        Some(folder) => Some(PathBuf::from(folder)),
        None => state_folder(vars),
    };
    let limit = read(&raw.web_history_limit, |text| parse_size(text, LIMITS));
    let limit = limit.unwrap_or_else(|text| {
        problem("WEB_HISTORY_LIMIT", text);
        None
    });
    let default = Retention::default();
    let mut kept = |variable, raw: &Option<String>, default, longest: Duration| {
        let time = read(raw, |text| parse_kept(text, longest));
        let time = time.unwrap_or_else(|text| {
            problem(variable, text);
            None
        });
        time.unwrap_or(default)
    };
    HistorySettings {
        folder,
        limit: limit.map_or(DEFAULT_LIMIT, |limit| limit as u64),
        retention: Retention {
            full: kept(
                "WEB_HISTORY_FULL",
                &raw.web_history_full,
                default.full,
                DAY * 7,
            ),
            minute: kept(
                "WEB_HISTORY_MINUTES",
                &raw.web_history_minutes,
                default.minute,
                DAY * 366,
            ),
            ten_minutes: kept(
                "WEB_HISTORY_TEN_MINUTES",
                &raw.web_history_ten_minutes,
                default.ten_minutes,
                DAY * 3660,
            ),
            hour: kept(
                "WEB_HISTORY_HOURS",
                &raw.web_history_hours,
                default.hour,
                DAY * 3660,
            ),
        },
    }
}

/// Returns the folder of the history without `WEB_HISTORY_FOLDER`: the state directory of the service, or that of the user.
fn state_folder(vars: &[(OsString, OsString)]) -> Option<PathBuf> {
    let value = |name: &str| {
        let found = vars
            .iter()
            .find(|(one, value)| one == name && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    };
    let service = value("STATE_DIRECTORY");
    // systemd separates several directories by colons.
    let first = |folders: PathBuf| Some(folders.to_str()?.split(':').next()?.into());
    let user = || value("XDG_STATE_HOME").filter(|folder| folder.is_absolute());
    let home = || Some(value("HOME")?.join(".local/state"));
    let of_user = || Some(user().or_else(home)?.join(FOLDER));
    service.and_then(first).or_else(of_user)
}

fn parse_kept(text: &str, longest: Duration) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| (SHORTEST_KEPT..=longest).contains(time));
    time.ok_or_else(|| {
        let days = longest.as_secs() / DAY.as_secs();
        format!("not a time from 1h to {days}d; accepted: such as 12h or 7d")
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(text.parse().ok()?, DEFAULT_ADDRESS.port())));
    address.ok_or_else(|| {
        "not an address; accepted: ADDRESS:PORT, such as 127.0.0.1:9180 or [::]:9180".to_owned()
    })
}

fn parse_guest(text: &str) -> Result<(), String> {
    match text {
        "read-only" => Ok(()),
        _ => Err("unknown; accepted: read-only".to_owned()),
    }
}

fn parse_session_time(text: &str) -> Result<Duration, String> {
    let (least, most) = SESSION_TIMES;
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| (least..=most).contains(time));
    time.ok_or_else(|| "not a time from 1s to 366d; accepted: such as 12h or 7d".to_owned())
}

fn parse_proxy(text: &str) -> Result<TrustedProxy, String> {
    let wrong =
        || "accepted: a network and a header, such as \"10.0.0.7/32 X-Forwarded-User\"".to_owned();
    let (network, header) = text.split_once(char::is_whitespace).ok_or_else(wrong)?;
    let network = network
        .parse()
        .ok()
        .or_else(|| Some(IpNet::from(network.parse::<IpAddr>().ok()?)));
    Ok(TrustedProxy {
        network: network.ok_or_else(wrong)?,
        header: header.trim().parse().map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::WebSettings;

    fn read(vars: &[(&str, &str)]) -> Result<WebSettings, Vec<(&'static str, String)>> {
        let vars = vars
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        WebSettings::from_env(vars).map_err(|problems| {
            let problems = problems.0.into_iter();
            problems.map(|one| (one.variable, one.text)).collect()
        })
    }

    fn named(vars: &[(&str, &str)]) -> Vec<&'static str> {
        let problems = read(vars).unwrap_err();
        problems.into_iter().map(|(variable, _)| variable).collect()
    }

    #[test]
    fn the_default_is_loopback_without_a_login() {
        let settings = read(&[("WEB_GUEST", "")]).unwrap();
        assert_eq!(settings.address.to_string(), "127.0.0.1:9180");
        assert!(settings.password.is_none() && settings.tls.is_none() && !settings.guest);
        let other = read(&[("WEB_ADDRESS", "[::1]:80")]).unwrap();
        assert_eq!(other.address.to_string(), "[::1]:80");
        let no_port = read(&[("WEB_ADDRESS", "127.0.0.2")]).unwrap();
        assert_eq!(no_port.address.to_string(), "127.0.0.2:9180");
    }

    #[test]
    fn an_address_that_others_reach_needs_password_and_tls_or_a_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, crate::web::password::hash(b"correct horse").unwrap()).unwrap();
        let file = file.to_str().unwrap();
        let open = ("WEB_ADDRESS", "0.0.0.0:9180");
        assert_eq!(named(&[open]), ["WEB_ADDRESS"]);
        assert_eq!(
            named(&[open, ("WEB_PASSWORD_FILE", file)]),
            ["WEB_ADDRESS"],
            "a password in clear text"
        );
        let proxy = ("WEB_TRUSTED_PROXY", "10.0.0.7 X-Forwarded-User");
        let behind = read(&[open, proxy]).unwrap().proxy.unwrap();
        assert_eq!(behind.network.to_string(), "10.0.0.7/32");
        assert!(
            read(&[("WEB_PASSWORD_FILE", file)])
                .unwrap()
                .password
                .is_some()
        );
    }

    #[test]
    fn all_problems_are_reported_without_the_values() {
        let wrong = [
            ("WEB_ADDRESS", "secret"),
            ("WEB_GUEST", "secret"),
            ("WEB_SESSION_TIME", "secret"),
            ("WEB_TLS_CERT_FILE", "/nonexistent/secret"),
            ("WEB_TRUSTED_PROXY", "secret"),
            ("WEB_PASSWORD_FILE", "/nonexistent/secret"),
            ("LOG_FORMAT", "secret"),
        ];
        assert_eq!(
            named(&wrong),
            [
                "WEB_ADDRESS",
                "WEB_GUEST",
                "WEB_SESSION_TIME",
                "WEB_TRUSTED_PROXY",
                "WEB_PASSWORD_FILE",
                "WEB_TLS_KEY_FILE",
                "LOG_FORMAT"
            ]
        );
        for (_, text) in read(&wrong).unwrap_err() {
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(named(&[("WEB_GUEST", "read-only")]), ["WEB_GUEST"]);
    }
}
