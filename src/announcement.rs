//! The log events at the start of the agent: its settings without secrets, its addresses, and warnings about risky settings.

use std::net::SocketAddr;
#[cfg(any(feature = "nats", feature = "otlp"))]
use std::path::Path;

use tracing::{info, warn};

use crate::renewal;
use crate::settings::{ApiKey, Settings};
#[cfg(feature = "nats")]
use crate::settings::{NatsLogin, NatsSettings};
#[cfg(feature = "otlp")]
use crate::settings::{OtlpHeaders, OtlpSettings, OtlpTarget};

/// Logs the settings without secrets, the addresses that the agent listens on, and warnings about risky settings.
pub(crate) fn announce(
    settings: &Settings,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    files: Option<u64>,
) {
    let Settings {
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
    } = settings;
    #[cfg(feature = "nats")]
    let nats_url = nats.as_ref().map_or("none".to_owned(), NatsSettings::urls);
    #[cfg(not(feature = "nats"))]
    let nats_url = "none";
    #[cfg(feature = "otlp")]
    let otlp_endpoint = otlp.as_ref().and_then(|otlp| otlp.targets().next());
    #[cfg(feature = "otlp")]
    let otlp_endpoint = otlp_endpoint.map_or("none".to_owned(), |target| target.url.to_string());
    #[cfg(not(feature = "otlp"))]
    let otlp_endpoint = "none";
    let sources = credential_sources;
    let tls = sources.tls.as_ref();
    let keys: Vec<_> = credentials.keys.iter().map(ApiKey::name).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        api_key = "[redacted]",
        api_keys = ?keys,
        api_key_file = sources.keys.file().map(|file| file.display().to_string()),
        socket_port = serve.port,
        metrics_port = serve.metrics_port,
        metrics_bearer_token_file = sources.metrics_tokens.as_ref().map(|file| file.display().to_string()),
        socket_address = serve.address.map_or("all".to_owned(), |address| address.to_string()),
        tls_enabled = tls.is_some(),
        tls_cert_file = tls.map(|tls| tls.cert.display().to_string()),
        tls_key_file = tls.map(|tls| tls.key.display().to_string()),
        tls_client_ca_file = tls.and_then(|tls| tls.client_ca.as_ref()).map(|file| file.display().to_string()),
        whitelisted_clients = %serve.whitelist,
        publish_interval = ?publish_interval,
        history = if history.is_zero() { "off".to_owned() } else { format!("{history:?}") },
        system_interval = ?collect.system_interval,
        docker_interval = ?collect.docker_interval,
        log_interval = ?collect.log_interval,
        log_lines = collect.log_lines,
        top_processes = collect.top_processes,
        units = collect.units,
        docker_enabled = collect.docker.is_some(),
        container_stats = ?collect.container_stats,
        process_commands = collect.process_commands,
        container_labels = collect.container_labels.count(),
        container_env = collect.container_env.count(),
        container_sizes_interval = collect.container_sizes.map_or("off".to_owned(), |every| format!("{every:?}")),
        containers_include = collect.containers.counts().0,
        containers_exclude = collect.containers.counts().1,
        disks_exclude = collect.disks_exclude.count(),
        networks_exclude = collect.networks_exclude.count(),
        metrics_collectors = collect.collectors.names(),
        log_redact = collect.log_redact.count(),
        host_root = %collect.host_root.directory().display(),
        textfile_dir = collect.textfile_dir.as_ref().map(|folder| folder.display().to_string()),
        docker_host = collect.docker.as_ref().map(ToString::to_string),
        max_clients = serve.max_clients,
        max_open_files = files,
        auth_timeout = ?serve.auth_timeout,
        write_timeout = ?serve.write_timeout,
        shutdown_timeout = ?shutdown_timeout,
        log_format = ?telemetry.format,
        rust_log = telemetry.filter,
        nats_url = nats_url,
        otlp_endpoint = otlp_endpoint,
        "agent started"
    );
    #[cfg(feature = "nats")]
    if let Some(nats) = nats {
        announce_nats(nats);
    }
    #[cfg(feature = "otlp")]
    if let Some(otlp) = otlp {
        announce_otlp(otlp);
    }
    renewal::warn_of(credentials, sources);
    let is_local = address.ip().to_canonical().is_loopback();
    let requires_certificate = tls.is_some_and(|tls| tls.client_ca.is_some());
    if metrics.is_some()
        && !is_local
        && credentials.metrics_tokens.is_none()
        && !requires_certificate
        && serve.whitelist.allows_all()
    {
        warn!(
            "everybody who can connect to METRICS_PORT can read the metrics: set METRICS_BEARER_TOKEN_FILE, \
             TLS_CLIENT_CA_FILE or WHITELISTED_CLIENTS"
        );
    }
    if tls.is_none() && !is_local {
        warn!(
            "keys and snapshots cross the network unencrypted: set TLS_ENABLED with a certificate, or set SOCKET_ADDRESS to \
             127.0.0.1 and use a tunnel"
        );
    }
    info!(%address, tls = tls.is_some(), "listening");
    if let Some(address) = metrics {
        info!(%address, tls = tls.is_some(), "metrics at /metrics");
    }
}

/// Logs the settings of the publisher to a NATS server, without secrets, and warnings about risky settings.
#[cfg(feature = "nats")]
fn announce_nats(nats: &NatsSettings) {
    let file = |path: &Path| path.display().to_string();
    let login = nats.login.as_ref().map(NatsLogin::file);
    let login_file = |name| {
        let of_that_name = login.filter(|(variable, _)| *variable == name);
        of_that_name.map(|(_, path)| file(path))
    };
    let user = nats.login.as_ref().and_then(NatsLogin::user);
    let identity = nats.identity.as_ref();
    info!(
        nats_url = nats.urls(),
        nats_credentials_file = login_file("NATS_CREDENTIALS_FILE"),
        nats_nkey_file = login_file("NATS_NKEY_FILE"),
        nats_token_file = login_file("NATS_TOKEN_FILE"),
        nats_user = user,
        nats_password_file = login_file("NATS_PASSWORD_FILE"),
        nats_ca_file = nats.ca.as_deref().map(file),
        nats_cert_file = identity.map(|(cert, _)| file(cert)),
        nats_key_file = identity.map(|(_, key)| file(key)),
        nats_encoding = ?nats.encoding,
        nats_sections = nats.sections.names().join(","),
        nats_buffer = nats.buffer,
        "NATS: publishing"
    );
    for problem in nats.exposed() {
        warn!(variable = problem.variable, "{}", problem.text);
    }
    if nats.in_the_clear() {
        warn!(
            "messages to NATS, and the password or token for NATS, cross the network unencrypted: use tls:// in NATS_URL"
        );
    }
}

/// Logs the settings of the publisher to a receiver of OpenTelemetry, without secrets, and warnings about risky settings.
#[cfg(feature = "otlp")]
fn announce_otlp(otlp: &OtlpSettings) {
    let file = |path: &Path| path.display().to_string();
    let url = |target: &OtlpTarget| target.url.to_string();
    let any = otlp.targets().next();
    let identity = any.and_then(|target| target.identity.as_ref());
    let headers = any.and_then(|target| match &target.headers {
        OtlpHeaders::File(path) => Some(file(path)),
        OtlpHeaders::Given(_) => None,
    });
    info!(
        otlp_metrics_endpoint = otlp.metrics.as_ref().map(url),
        otlp_logs_endpoint = otlp.logs.as_ref().map(url),
        otlp_headers_file = headers,
        otlp_ca_file = any.and_then(|target| target.ca.as_deref()).map(file),
        otlp_cert_file = identity.map(|(cert, _)| file(cert)),
        otlp_key_file = identity.map(|(_, key)| file(key)),
        otlp_timeout = ?any.map(|target| target.timeout).unwrap_or_default(),
        otlp_compression = ?any.map(|target| target.compression).unwrap_or_default(),
        otlp_signals = otlp.signals.names(),
        otlp_interval = ?otlp.interval,
        otlp_names = ?otlp.names,
        otlp_point_attributes = otlp.point_attributes.join(","),
        state_directory = otlp.state.as_deref().map(file),
        "OTLP: sending"
    );
    for problem in otlp.exposed() {
        warn!(variable = problem.variable, "{}", problem.text);
    }
    if otlp.in_the_clear() {
        warn!(
            "figures, log lines and headers for OpenTelemetry cross the network unencrypted: use https:// in OTLP_ENDPOINT"
        );
    }
    if otlp.logs.is_some() && otlp.state.is_none() {
        warn!(
            "log lines and events that come while the agent does not run are not sent to OpenTelemetry: set STATE_DIRECTORY to a directory of the agent"
        );
    }
}
