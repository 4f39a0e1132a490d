//! Configuration: environment variables → validated [`Settings`].
//!
//! `envy` reads the environment as plain text. Then this module checks each value, and reports **all** problems together.
//! A problem names the variable, what is wrong with the value, and which values are accepted. A problem never shows the value,
//! because the value can be a secret that is in the wrong variable.
//! This module reads the files of keys and certificates. It does not decide when to read the files again.

mod certificate;
mod collectors;
mod container_env;
mod container_filter;
mod credentials;
mod docker_host;
mod host_root;
mod http_url;
mod key;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "otlp")]
mod otlp;
mod parse;
mod patterns;
mod raw;
mod redaction;
#[cfg(feature = "otlp")]
mod standard;
mod tls;
mod verifier;
mod whitelist;

pub use collectors::Collectors;
pub use container_env::ContainerEnv;
pub use container_filter::{ContainerFacts, ContainerFilter};
pub use credentials::{CredentialSources, Credentials, Stamps};
pub use docker_host::DockerHost;
pub use host_root::{FileVersion, HostRoot};
pub use http_url::HttpUrl;
#[cfg(feature = "web")]
pub(crate) use key::read_secret;
pub use key::{ApiKey, ApiKeys, KeySource};
#[cfg(all(feature = "nats", any(feature = "watch", feature = "web")))]
pub(crate) use nats::parse_servers;
#[cfg(feature = "nats")]
pub use nats::{NatsLogin, NatsSecret, NatsSettings, address_of};
#[cfg(feature = "otlp")]
pub use otlp::{
    HeaderList, OtlpCompression, OtlpHeaders, OtlpNames, OtlpSettings, OtlpSignals, OtlpTarget,
};
pub use patterns::Patterns;
pub use redaction::Redaction;
pub use tls::{IdentityProblem, Tls, TlsFiles, Untimely, Validity};
pub(crate) use tls::{certified, read_certificates, read_key};
pub(crate) use verifier::Signatures;
pub use verifier::Trusted;
pub use whitelist::Whitelist;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use container_filter::ContainerPattern;
use parse::Reader;
#[cfg(feature = "web")]
pub(crate) use parse::size as parse_size;
use raw::RawSettings;

/// The variables whose values are secrets. The process overwrites these values after it has read them.
#[must_use]
pub fn secret_variables() -> Vec<&'static std::ffi::CStr> {
    #[cfg(feature = "otlp")]
    let standard = standard::SECRET_VARIABLES;
    #[cfg(not(feature = "otlp"))]
    let standard = [];
    [c"API_KEY"].into_iter().chain(standard).collect()
}

/// All settings of the daemon, after the check of their values.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the agent measures, and how often.
    pub collect: CollectSettings,
    /// `PUBLISH_INTERVAL`: the time between two snapshots.
    pub publish_interval: Duration,
    /// `HISTORY`: how long the agent keeps figures for clients with the option `history`. 0 switches the history off.
    pub history: Duration,
    /// The agent's TCP ports: addresses, access, limits and timeouts.
    pub serve: ServeSettings,
    /// Publishing to NATS. None if `NATS_URL` is not set.
    #[cfg(feature = "nats")]
    pub nats: Option<NatsSettings>,
    /// Sending to a receiver of OpenTelemetry. None without an endpoint.
    #[cfg(feature = "otlp")]
    pub otlp: Option<OtlpSettings>,
    /// Keys and certificates, as they were at the start of the agent.
    pub credentials: Credentials,
    /// The sources from which the agent reads keys and certificates again when they change.
    pub credential_sources: CredentialSources,
    /// `SHUTDOWN_TIMEOUT`: when the agent stops, each session has this time to finish the JSON line that it is sending.
    pub shutdown_timeout: Duration,
    /// Format and level of the agent's own log.
    pub telemetry: TelemetrySettings,
}

/// What the agent measures, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectSettings {
    /// `SYSTEM_INTERVAL`: the time between two rounds of the system collector.
    pub system_interval: Duration,
    /// `DOCKER_INTERVAL`: the time between two rounds of the docker collector.
    pub docker_interval: Duration,
    /// `LOG_INTERVAL`: the time between two rounds of the logs collector.
    pub log_interval: Duration,
    /// `LOG_LINES`: the number of newest log lines per container. 0 turns the logs off.
    pub log_lines: usize,
    /// `TOP_PROCESSES`: the number of processes in each list of processes.
    pub top_processes: usize,
    /// `UNITS`: the number of busiest units in `system.units`. 0 switches the list off.
    pub units: usize,
    /// `PROCESS_COMMANDS`: whether the command lines of the listed processes are published.
    pub process_commands: bool,
    /// `DOCKER_HOST`: the engine's address. None if `DOCKER_ENABLED` is false.
    pub docker: Option<DockerHost>,
    /// `CONTAINER_STATS`: where the figures and logs of containers come from.
    pub container_stats: ContainerStats,
    /// `CONTAINER_LABELS`: the container labels that the agent publishes.
    pub container_labels: Patterns,
    /// `CONTAINER_ENV`: the environment variables of containers that the agent publishes.
    pub container_env: ContainerEnv,
    /// `CONTAINER_SIZES_INTERVAL`: the time between two requests for the sizes of containers. None: the agent makes no such requests.
    pub container_sizes: Option<Duration>,
    /// `CONTAINERS_INCLUDE` and `CONTAINERS_EXCLUDE`: the containers that the agent leaves out.
    pub containers: ContainerFilter,
    /// `DISKS_EXCLUDE`: mount points and devices that the agent leaves out.
    pub disks_exclude: Patterns,
    /// `NETWORKS_EXCLUDE`: network interfaces that the agent leaves out.
    pub networks_exclude: Patterns,
    /// `METRICS_COLLECTORS`: the collectors that are on although they are off by default.
    pub collectors: Collectors,
    /// `LOG_REDACT`: the parts of log lines that the agent replaces.
    pub log_redact: Redaction,
    /// `HOST_ROOT`: the directory below which the agent finds the host's files.
    pub host_root: HostRoot,
    /// `TEXTFILE_DIR`: the directory of files with figures of other programs. None: the agent reads no such files.
    pub textfile_dir: Option<PathBuf>,
}

/// Where the figures and logs of containers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerStats {
    /// From files of the kernel and of the engine. If the agent cannot read these files, from requests to the engine.
    #[default]
    Auto,
    /// Figures only from the kernel's files. The logs come from the same sources as with `Auto`.
    Kernel,
    /// Figures and logs only from requests to the engine.
    Engine,
}

/// The agent's TCP ports: addresses, access, limits and timeouts.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// `SOCKET_ADDRESS`: the address to listen on. None: the agent listens on all IPv6 and IPv4 addresses.
    pub address: Option<IpAddr>,
    /// `SOCKET_PORT`: the port on which clients receive snapshots. 0: the kernel chooses a free port.
    pub port: u16,
    /// `WHITELISTED_CLIENTS`: the addresses that may connect.
    pub whitelist: Whitelist,
    /// `METRICS_PORT`: the port on which Prometheus reads the figures. None: the agent does not open this port. 0: the kernel
    /// chooses a free port.
    pub metrics_port: Option<u16>,
    /// `MAX_CLIENTS`: the maximum number of clients at the same time.
    pub max_clients: usize,
    /// `AUTH_TIMEOUT`: limit on the time from the start of a connection until the peer has sent the whole key. The time includes
    /// the TLS handshake.
    pub auth_timeout: Duration,
    /// `WRITE_TIMEOUT`: the agent disconnects a client that accepts no data for this time.
    pub write_timeout: Duration,
}

/// Format and level of the agent's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// `LOG_FORMAT`: the format of the log's entries.
    pub format: LogFormat,
    /// `RUST_LOG`: the level filter.
    pub filter: String,
}

/// The format of the agent's own log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for people.
    Text,
}

impl Settings {
    /// Reads and checks the settings of the daemon.
    ///
    /// # Errors
    /// Fails if a setting is wrong. The error has all problems of the configuration.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        Self::read(Reader::new(vars))
    }

    fn read(mut reader: Reader) -> Result<Self, Problems> {
        let raw = reader.raw();
        let collect = CollectSettings::read(&mut reader, &raw);
        let credential_sources = CredentialSources::read(&mut reader, &raw);
        let credentials = credential_sources
            .as_ref()
            .and_then(|sources| sources.load_with(&mut reader));
        let serve = ServeSettings::read(&mut reader, &raw);
        #[cfg(feature = "nats")]
        let nats = NatsSettings::read(&mut reader, &raw);
        #[cfg(not(feature = "nats"))]
        if raw.nats_url.is_some() {
            reader.problem(
                "NATS_URL",
                "set, but this build cannot publish to NATS; accepted: only in a build with the feature `nats`",
            );
        }
        #[cfg(feature = "otlp")]
        let otlp = OtlpSettings::read(&mut reader, &raw);
        #[cfg(not(feature = "otlp"))]
        if raw.otlp_endpoint.is_some() {
            reader.problem(
                "OTLP_ENDPOINT",
                "set, but this build cannot send to OpenTelemetry; accepted: only in a build with the feature `otlp`",
            );
        }
        let publish_interval = reader.interval("PUBLISH_INTERVAL", &raw.publish_interval);
        let history = reader.history("HISTORY", &raw.history);
        let shutdown_timeout = reader.timeout("SHUTDOWN_TIMEOUT", &raw.shutdown_timeout, 5);
        let telemetry = TelemetrySettings::read(&mut reader, &raw);
        let problems = reader.finish();
        match (credentials, credential_sources) {
            (Some(credentials), Some(credential_sources)) if problems.0.is_empty() => Ok(Self {
                collect,
                publish_interval,
                history,
                serve,
                #[cfg(feature = "nats")]
                nats,
                #[cfg(feature = "otlp")]
                otlp,
                credentials,
                credential_sources,
                shutdown_timeout,
                telemetry,
            }),
            _ => Err(problems),
        }
    }
}

impl CollectSettings {
    /// Reads and checks only the settings of the collectors, for commands that open no socket.
    ///
    /// # Errors
    /// Fails if one of these settings is wrong. The error has all problems.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        let mut reader = Reader::new(vars);
        let raw = reader.raw();
        let settings = Self::read(&mut reader, &raw);
        let problems = reader.finish();
        if problems.0.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }

    fn read(reader: &mut Reader, raw: &RawSettings) -> Self {
        let docker_enabled = reader.switch("DOCKER_ENABLED", &raw.docker_enabled, true);
        let docker_host = reader.value(
            "DOCKER_HOST",
            &raw.docker_host,
            DockerHost::default(),
            DockerHost::parse,
        );
        let log_redact = reader.value(
            "LOG_REDACT",
            &raw.log_redact,
            Redaction::default(),
            Redaction::parse,
        );
        let env = reader.value(
            "CONTAINER_ENV",
            &raw.container_env,
            Patterns::default(),
            |text| Patterns::parse(text, "names of environment variables"),
        );
        Self {
            system_interval: reader.interval("SYSTEM_INTERVAL", &raw.system_interval),
            docker_interval: reader.interval("DOCKER_INTERVAL", &raw.docker_interval),
            log_interval: reader.interval("LOG_INTERVAL", &raw.log_interval),
            log_lines: reader.number("LOG_LINES", &raw.log_lines, 50, 0, 10_000),
            top_processes: reader.number("TOP_PROCESSES", &raw.top_processes, 10, 0, 1000),
            units: reader.number("UNITS", &raw.units, 50, 0, 1000),
            process_commands: reader.switch("PROCESS_COMMANDS", &raw.process_commands, false),
            docker: docker_enabled.then_some(docker_host),
            container_stats: reader.value(
                "CONTAINER_STATS",
                &raw.container_stats,
                ContainerStats::Auto,
                |text| match text {
                    "auto" => Ok(ContainerStats::Auto),
                    "kernel" => Ok(ContainerStats::Kernel),
                    "engine" => Ok(ContainerStats::Engine),
                    _ => Err("unknown value; accepted: auto, kernel, engine".to_owned()),
                },
            ),
            container_labels: reader.value(
                "CONTAINER_LABELS",
                &raw.container_labels,
                Patterns::default(),
                |text| Patterns::parse(text, "names of labels"),
            ),
            container_env: ContainerEnv::new(env, log_redact.clone()),
            container_sizes: reader
                .sizes_interval("CONTAINER_SIZES_INTERVAL", &raw.container_sizes_interval),
            containers: ContainerFilter::new(
                reader.optional(
                    "CONTAINERS_INCLUDE",
                    &raw.containers_include,
                    ContainerPattern::parse_list,
                ),
                reader.value(
                    "CONTAINERS_EXCLUDE",
                    &raw.containers_exclude,
                    Vec::new(),
                    ContainerPattern::parse_list,
                ),
            ),
            disks_exclude: reader.value(
                "DISKS_EXCLUDE",
                &raw.disks_exclude,
                Patterns::default(),
                |text| Patterns::parse(text, "mount points and names of devices"),
            ),
            networks_exclude: reader.value(
                "NETWORKS_EXCLUDE",
                &raw.networks_exclude,
                Patterns::default(),
                |text| Patterns::parse(text, "names of network interfaces"),
            ),
            collectors: reader.value(
                "METRICS_COLLECTORS",
                &raw.metrics_collectors,
                Collectors::default(),
                Collectors::parse,
            ),
            log_redact,
            host_root: reader.value(
                "HOST_ROOT",
                &raw.host_root,
                HostRoot::default(),
                HostRoot::parse,
            ),
            textfile_dir: reader.optional("TEXTFILE_DIR", &raw.textfile_dir, textfile_dir),
        }
    }
}

/// Reads `TEXTFILE_DIR`. Does not check the directory, because another program can create it later.
fn textfile_dir(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err("not an absolute path, or contains ..; accepted: a directory, such as /var/lib/system-agent/textfile".to_owned());
    }
    Ok(path.components().collect())
}

impl ServeSettings {
    fn read(reader: &mut Reader, raw: &RawSettings) -> Self {
        let address = reader.optional("SOCKET_ADDRESS", &raw.socket_address, |text| {
            text.parse::<IpAddr>()
                .map_err(|_| "not an IP address; accepted: an IPv4 or IPv6 address".to_owned())
        });
        let port = reader.number("SOCKET_PORT", &raw.socket_port, 9000, 0, 65_535);
        let whitelist = reader.value(
            "WHITELISTED_CLIENTS",
            &raw.whitelisted_clients,
            Whitelist::default(),
            Whitelist::parse,
        );
        let port = u16::try_from(port).unwrap_or_default();
        let metrics_port = reader.optional("METRICS_PORT", &raw.metrics_port, |text| {
            metrics_port(text, port)
        });
        let max_clients = reader.number("MAX_CLIENTS", &raw.max_clients, 10_000, 1, 1_000_000);
        let auth_timeout = reader.timeout("AUTH_TIMEOUT", &raw.auth_timeout, 10);
        let write_timeout = reader.timeout("WRITE_TIMEOUT", &raw.write_timeout, 30);
        Self {
            address,
            port,
            whitelist,
            metrics_port,
            max_clients,
            auth_timeout,
            write_timeout,
        }
    }
}

/// Reads `METRICS_PORT`. The two ports must be different, unless both are 0.
fn metrics_port(text: &str, socket_port: u16) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port == socket_port && port != 0 => Err(
            "the same as SOCKET_PORT; accepted: a different port, 0 to 65535 (0: the kernel chooses a free port)"
                .to_owned(),
        ),
        Ok(port) => Ok(port),
        Err(_) => Err(
            "not a port; accepted: 0 to 65535 (0: the kernel chooses a free port)".to_owned(),
        ),
    }
}

impl TelemetrySettings {
    /// Reads the settings of the log only.
    ///
    /// # Errors
    /// Fails if a value is wrong. The error has all problems.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Problems> {
        let mut reader = Reader::new(vars);
        let raw = reader.raw();
        let telemetry = Self::read(&mut reader, &raw);
        let mut problems = reader.finish();
        problems
            .0
            .retain(|problem| matches!(problem.variable, "LOG_FORMAT" | "RUST_LOG"));
        match problems.0.is_empty() {
            true => Ok(telemetry),
            false => Err(problems),
        }
    }

    fn read(reader: &mut Reader, raw: &RawSettings) -> Self {
        let format = reader.value(
            "LOG_FORMAT",
            &raw.log_format,
            LogFormat::Json,
            |text| match text {
                "json" => Ok(LogFormat::Json),
                "text" => Ok(LogFormat::Text),
                _ => Err("unknown format; accepted: json, text".to_owned()),
            },
        );
        let filter = reader.value("RUST_LOG", &raw.rust_log, "info".to_owned(), |text| {
            if is_filter(text) {
                Ok(text.to_owned())
            } else {
                Err(
                    "not a level filter; accepted: off, error, warn, info, debug, trace, or \
                     target=level pairs, separated by commas"
                        .to_owned(),
                )
            }
        });
        Self { format, filter }
    }
}

/// Whether every directive of the filter has a level. `Targets` reads a directive without a level as the name of a target. With
/// a misspelt level such as `inof`, the log would show no other target.
fn is_filter(text: &str) -> bool {
    text.split(',').all(|directive| {
        let (_, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        !level.is_empty() && level.trim().parse::<LevelFilter>().is_ok()
    }) && text.parse::<Targets>().is_ok()
}

/// One problem of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the environment variable.
    pub variable: &'static str,
    /// What is wrong with the value, and which values are accepted. The text never contains the value.
    pub text: String,
}

/// All problems of the configuration. `Display` writes one line for each problem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { variable, text }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{variable}: {text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests;
