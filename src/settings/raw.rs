//! The environment as text, by `envy`.

use serde::Deserialize;
use zeroize::Zeroizing;

/// Every variable that the agent knows, unchecked. `envy` maps `API_KEY` to `api_key`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawSettings {
    pub(super) api_key: Option<Zeroizing<String>>,
    pub(super) api_key_file: Option<String>,
    pub(super) socket_port: Option<String>,
    pub(super) socket_address: Option<String>,
    pub(super) tls_enabled: Option<String>,
    pub(super) tls_cert_file: Option<String>,
    pub(super) tls_key_file: Option<String>,
    pub(super) tls_client_ca_file: Option<String>,
    pub(super) whitelisted_clients: Option<String>,
    pub(super) publish_interval: Option<String>,
    pub(super) system_interval: Option<String>,
    pub(super) docker_interval: Option<String>,
    pub(super) log_interval: Option<String>,
    pub(super) log_lines: Option<String>,
    pub(super) top_processes: Option<String>,
    pub(super) docker_enabled: Option<String>,
    pub(super) docker_host: Option<String>,
    pub(super) container_stats: Option<String>,
    pub(super) container_labels: Option<String>,
    pub(super) log_redact: Option<String>,
    pub(super) host_root: Option<String>,
    pub(super) metrics_port: Option<String>,
    pub(super) metrics_bearer_token_file: Option<String>,
    pub(super) max_clients: Option<String>,
    pub(super) auth_timeout: Option<String>,
    pub(super) write_timeout: Option<String>,
    pub(super) shutdown_timeout: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) rust_log: Option<String>,
}

/// The names of all variables that the agent reads.
pub(super) const VARIABLES: [&str; 29] = [
    "API_KEY",
    "API_KEY_FILE",
    "SOCKET_PORT",
    "SOCKET_ADDRESS",
    "TLS_ENABLED",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "WHITELISTED_CLIENTS",
    "PUBLISH_INTERVAL",
    "SYSTEM_INTERVAL",
    "DOCKER_INTERVAL",
    "LOG_INTERVAL",
    "LOG_LINES",
    "TOP_PROCESSES",
    "DOCKER_ENABLED",
    "DOCKER_HOST",
    "CONTAINER_STATS",
    "CONTAINER_LABELS",
    "LOG_REDACT",
    "HOST_ROOT",
    "METRICS_PORT",
    "METRICS_BEARER_TOKEN_FILE",
    "MAX_CLIENTS",
    "AUTH_TIMEOUT",
    "WRITE_TIMEOUT",
    "SHUTDOWN_TIMEOUT",
    "LOG_FORMAT",
    "RUST_LOG",
];
