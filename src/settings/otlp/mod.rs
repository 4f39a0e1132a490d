//! The settings for the receiver of OpenTelemetry: endpoints, headers, TLS, and what is sent.
//!
//! The agent's own variables begin with `OTLP_`. The standard variables of OpenTelemetry fill in what they leave open. This module
//! checks that the files of secrets and certificates can be used. It does not connect to a receiver.

mod headers;
mod standard;

pub use headers::{HeaderList, OtlpHeaders};

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Problem;
use super::credentials::exposed;
use super::http_url::{ACCEPTED, HttpUrl};
use super::parse::Reader;
use super::raw::RawSettings;
use super::standard::{CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY, ENDPOINT, Standard};
use super::tls::{certified, load, read_certificates, read_key, trusted};
use standard::Signal;

/// The default of `OTLP_TIMEOUT`, in seconds.
const TIMEOUT: u64 = 10;
/// Maximum number of names in `OTLP_POINT_ATTRIBUTES`.
const MAX_POINT_ATTRIBUTES: usize = 32;

/// The settings for the receiver of OpenTelemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    /// The receiver of metrics. None if the agent sends no metrics.
    pub metrics: Option<OtlpTarget>,
    /// The receiver of log lines and events. None if the agent sends neither of them.
    pub logs: Option<OtlpTarget>,
    /// `OTLP_SIGNALS`: what the agent sends.
    pub signals: OtlpSignals,
    /// `OTLP_INTERVAL`: the time between two exports of metrics. None: each snapshot is exported.
    pub interval: Option<Duration>,
    /// `OTLP_NAMES`: the names of metrics.
    pub names: OtlpNames,
    /// `OTLP_POINT_ATTRIBUTES`: the attributes of a container's resource that each of its data points has too.
    pub point_attributes: Vec<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`: attributes that every resource has.
    pub resource: Vec<(String, String)>,
    /// `OTEL_SERVICE_NAME`: the name of the agent as a service. None: `system-agent`.
    pub service_name: Option<String>,
    /// `STATE_DIRECTORY`: the directory of the file with the position in the logs. None: a start begins with the newest log lines.
    pub state: Option<PathBuf>,
}

/// What the agent sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtlpSignals {
    /// Whether the agent sends metrics.
    pub metrics: bool,
    /// Whether the agent sends log lines.
    pub logs: bool,
    /// Whether the agent sends events of containers.
    pub events: bool,
}

/// The names of metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OtlpNames {
    /// The names of the semantic conventions.
    #[default]
    Conventions,
    /// The names of the collector's receivers `hostmetrics` and `docker_stats`.
    Receivers,
}

/// The compression of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OtlpCompression {
    /// gzip.
    #[default]
    Gzip,
    /// zstd. Not every receiver accepts it.
    Zstd,
    /// No compression.
    None,
}

/// A receiver of one kind of signals.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpTarget {
    /// The URL of requests.
    pub url: HttpUrl,
    /// The headers of requests.
    pub headers: OtlpHeaders,
    /// `OTLP_CA_FILE`: the certificates by which the agent verifies the receiver. None: the certificates that the system trusts.
    pub ca: Option<PathBuf>,
    /// `OTLP_CERT_FILE` and `OTLP_KEY_FILE`: the agent's certificate, for receivers that request a certificate.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `OTLP_TIMEOUT`: limit on the time of a request.
    pub timeout: Duration,
    /// `OTLP_COMPRESSION`: the compression of requests.
    pub compression: OtlpCompression,
}

impl OtlpSettings {
    /// Reads the variables and checks the files. Returns none if no variable names an endpoint.
    pub(super) fn read(reader: &mut Reader, raw: &RawSettings) -> Option<Self> {
        let is_set = raw.otlp_endpoint.is_some() || ENDPOINT.is_set(reader);
        if !is_set {
            for (variable, value) in only_with_endpoint(raw) {
                if value.is_some() {
                    reader.problem(
                        variable,
                        "set, but OTLP_ENDPOINT is not; accepted: only together with OTLP_ENDPOINT",
                    );
                }
            }
            return None;
        }
        let all = OtlpSignals {
            metrics: true,
            logs: true,
            events: true,
        };
        let signals = reader.value("OTLP_SIGNALS", &raw.otlp_signals, all, OtlpSignals::parse);
        let mut target = |signal, wanted: bool| {
            wanted
                .then(|| OtlpTarget::read(reader, raw, signal))
                .flatten()
        };
        Some(Self {
            metrics: target(Signal::Metrics, signals.metrics),
            logs: target(Signal::Logs, signals.logs || signals.events),
            signals,
            interval: reader.optional_interval("OTLP_INTERVAL", &raw.otlp_interval),
            names: reader.value(
                "OTLP_NAMES",
                &raw.otlp_names,
                OtlpNames::default(),
                |text| match text {
                    "conventions" => Ok(OtlpNames::Conventions),
                    "receivers" => Ok(OtlpNames::Receivers),
                    _ => Err("unknown names; accepted: conventions, receivers".to_owned()),
                },
            ),
            point_attributes: reader.value(
                "OTLP_POINT_ATTRIBUTES",
                &raw.otlp_point_attributes,
                vec!["container.name".to_owned()],
                parse_point_attributes,
            ),
            resource: standard::resource_attributes(reader),
            service_name: standard::service_name(reader),
            state: standard::state_directory(reader),
        })
    }

    /// The receivers. If both kinds of signals have the same receiver, it occurs twice.
    pub fn targets(&self) -> impl Iterator<Item = &OtlpTarget> {
        self.metrics.iter().chain(&self.logs)
    }

    /// Returns a problem for each file that every user of the host can write, and for each secret that every user can read.
    #[must_use]
    pub fn exposed(&self) -> Vec<Problem> {
        let mut problems = exposed(self.targets().flat_map(OtlpTarget::files));
        problems.dedup();
        problems
    }

    /// Whether figures, log lines or headers can cross a network without encryption.
    #[must_use]
    pub fn in_the_clear(&self) -> bool {
        self.targets()
            .any(|target| !target.url.tls && !target.url.is_on_this_host())
    }
}

/// The variables that are an error without an endpoint, and their values.
fn only_with_endpoint(raw: &RawSettings) -> [(&'static str, &Option<String>); 10] {
    [
        ("OTLP_HEADERS_FILE", &raw.otlp_headers_file),
        ("OTLP_CA_FILE", &raw.otlp_ca_file),
        ("OTLP_CERT_FILE", &raw.otlp_cert_file),
        ("OTLP_KEY_FILE", &raw.otlp_key_file),
        ("OTLP_TIMEOUT", &raw.otlp_timeout),
        ("OTLP_COMPRESSION", &raw.otlp_compression),
        ("OTLP_SIGNALS", &raw.otlp_signals),
        ("OTLP_INTERVAL", &raw.otlp_interval),
        ("OTLP_NAMES", &raw.otlp_names),
        ("OTLP_POINT_ATTRIBUTES", &raw.otlp_point_attributes),
    ]
}

impl OtlpSignals {
    fn parse(text: &str) -> Result<Self, String> {
        let mut signals = Self {
            metrics: false,
            logs: false,
            events: false,
        };
        for name in text.split(',') {
            match name.trim() {
                "metrics" => signals.metrics = true,
                "logs" => signals.logs = true,
                "events" => signals.events = true,
                _ => {
                    return Err(
                        "unknown signal; accepted: any of metrics, logs, events, separated by commas"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(signals)
    }

    /// Returns the names of the signals, separated by commas.
    #[must_use]
    pub fn names(self) -> String {
        let all = [
            ("metrics", self.metrics),
            ("logs", self.logs),
            ("events", self.events),
        ];
        let names = all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name);
        names.collect::<Vec<_>>().join(",")
    }
}

impl OtlpCompression {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            _ => Err("unknown compression; accepted: gzip, zstd, none".to_owned()),
        }
    }

    /// Returns the name for the header `Content-Encoding`. None without compression.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::None => None,
        }
    }
}

/// Refuses a URL with credentials, and tells where they belong.
fn without_credentials(text: &str) -> Result<(), String> {
    match text.contains('@') {
        true => Err(format!(
            "credentials in the URL: put them into the file of OTLP_HEADERS_FILE; {ACCEPTED}"
        )),
        false => Ok(()),
    }
}

impl OtlpTarget {
    /// Reads the variables of a signal. Returns none if no variable names an endpoint for this signal, and if a variable is wrong.
    fn read(reader: &mut Reader, raw: &RawSettings, signal: Signal) -> Option<Self> {
        standard::check_protocol(reader, signal);
        let url = match &raw.otlp_endpoint {
            Some(_) => reader.optional("OTLP_ENDPOINT", &raw.otlp_endpoint, |text| {
                without_credentials(text)?;
                HttpUrl::parse_base(text, signal.path())
            }),
            None => standard::endpoint(reader, signal),
        };
        let headers = match &raw.otlp_headers_file {
            Some(file) => OtlpHeaders::File(PathBuf::from(file)),
            None => OtlpHeaders::Given(standard::headers(reader, signal)),
        };
        if let Err(problem) = headers.load() {
            reader.problem("OTLP_HEADERS_FILE", problem);
        }
        let file = |reader: &mut Reader, ours: &Option<String>, variable, standard: &Standard| {
            let own = ours.clone().map(|path| (variable, path));
            own.or_else(|| standard.of(reader, signal))
                .map(|(variable, path)| (variable, PathBuf::from(path)))
        };
        let ca = file(reader, &raw.otlp_ca_file, "OTLP_CA_FILE", &CERTIFICATE);
        let cert = file(
            reader,
            &raw.otlp_cert_file,
            "OTLP_CERT_FILE",
            &CLIENT_CERTIFICATE,
        );
        let key = file(reader, &raw.otlp_key_file, "OTLP_KEY_FILE", &CLIENT_KEY);
        if let Some((variable, path)) = &ca {
            load(reader, variable, path, |path| {
                read_certificates(path).and_then(trusted)
            });
        }
        let identity = read_identity(reader, cert, key);
        let timeout = match &raw.otlp_timeout {
            Some(_) => Some(reader.timeout("OTLP_TIMEOUT", &raw.otlp_timeout, TIMEOUT)),
            None => standard::timeout(reader, signal),
        };
        let compression = match &raw.otlp_compression {
            Some(_) => reader.value(
                "OTLP_COMPRESSION",
                &raw.otlp_compression,
                OtlpCompression::default(),
                OtlpCompression::parse,
            ),
            None => standard::compression(reader, signal),
        };
        Some(Self {
            url: url?,
            headers,
            ca: ca.map(|(_, path)| path),
            identity,
            timeout: timeout.unwrap_or(Duration::from_secs(TIMEOUT)),
            compression,
        })
    }

    /// The path of each file, with the name of its variable.
    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let identity = self.identity.iter().flat_map(|(cert, key)| {
            [
                ("OTLP_CERT_FILE", cert.as_path()),
                ("OTLP_KEY_FILE", key.as_path()),
            ]
        });
        let ca = self.ca.as_deref().map(|path| ("OTLP_CA_FILE", path));
        let headers = match &self.headers {
            OtlpHeaders::File(path) => Some(("OTLP_HEADERS_FILE", path.as_path())),
            OtlpHeaders::Given(_) => None,
        };
        identity.chain(ca).chain(headers)
    }
}

/// A variable, and the file that it names.
type NamedFile = (&'static str, PathBuf);

/// Checks the agent's certificate and private key. Records a problem if only one of them is set, or if they cannot be used.
fn read_identity(
    reader: &mut Reader,
    cert: Option<NamedFile>,
    key: Option<NamedFile>,
) -> Option<(PathBuf, PathBuf)> {
    let ((cert_variable, cert), (key_variable, key)) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return None,
        (cert, _) => {
            let missing = match cert {
                None => "OTLP_CERT_FILE",
                Some(_) => "OTLP_KEY_FILE",
            };
            reader.problem(
                missing,
                "not set; accepted: OTLP_CERT_FILE and OTLP_KEY_FILE, both or neither (paths of PEM files)",
            );
            return None;
        }
    };
    let chain = load(reader, cert_variable, &cert, read_certificates);
    let secret = load(reader, key_variable, &key, read_key);
    if let (Some(chain), Some(secret)) = (chain, secret)
        && let Err(problem) = certified(chain, &secret)
    {
        let (variable, text) = problem.of(cert_variable, key_variable);
        reader.problem(variable, text);
    }
    Some((cert, key))
}

/// Reads the names of attributes, separated by commas. The word `none` means no attributes.
fn parse_point_attributes(text: &str) -> Result<Vec<String>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let names: Vec<_> = text.split(',').map(str::trim).collect();
    let is_name = |name: &&str| {
        let allowed = |one: char| one.is_ascii_alphanumeric() || "._-/".contains(one);
        !name.is_empty() && name.chars().all(allowed)
    };
    if names.len() > MAX_POINT_ATTRIBUTES || !names.iter().all(is_name) {
        return Err(format!(
            "not a list of attributes; accepted: none, or up to {MAX_POINT_ATTRIBUTES} names of resource attributes such as \
             container.name, separated by commas"
        ));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
