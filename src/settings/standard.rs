//! The names of the standard variables of OpenTelemetry. Every exporter knows them.

/// The standard variables that the agent reads.
pub(super) const VARIABLES: [&str; 27] = [
    ENDPOINT.0[0],
    ENDPOINT.0[1],
    ENDPOINT.0[2],
    HEADERS.0[0],
    HEADERS.0[1],
    HEADERS.0[2],
    CERTIFICATE.0[0],
    CERTIFICATE.0[1],
    CERTIFICATE.0[2],
    CLIENT_CERTIFICATE.0[0],
    CLIENT_CERTIFICATE.0[1],
    CLIENT_CERTIFICATE.0[2],
    CLIENT_KEY.0[0],
    CLIENT_KEY.0[1],
    CLIENT_KEY.0[2],
    TIMEOUT.0[0],
    TIMEOUT.0[1],
    TIMEOUT.0[2],
    COMPRESSION.0[0],
    COMPRESSION.0[1],
    COMPRESSION.0[2],
    PROTOCOL.0[0],
    PROTOCOL.0[1],
    PROTOCOL.0[2],
    RESOURCE_ATTRIBUTES,
    SERVICE_NAME,
    STATE_DIRECTORY,
];

/// The variables whose values can be secrets.
pub(super) const SECRET_VARIABLES: [&std::ffi::CStr; 3] = [
    c"OTEL_EXPORTER_OTLP_HEADERS",
    c"OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    c"OTEL_EXPORTER_OTLP_LOGS_HEADERS",
];

/// Names of a variable: for all signals, for metrics, and for logs.
pub(super) struct Standard(pub(super) [&'static str; 3]);

pub(super) const ENDPOINT: Standard = Standard([
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
]);
pub(super) const HEADERS: Standard = Standard([
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
]);
pub(super) const CERTIFICATE: Standard = Standard([
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE",
]);
pub(super) const CLIENT_CERTIFICATE: Standard = Standard([
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
]);
pub(super) const CLIENT_KEY: Standard = Standard([
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
]);
pub(super) const TIMEOUT: Standard = Standard([
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
]);
pub(super) const COMPRESSION: Standard = Standard([
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
    "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION",
]);
pub(super) const PROTOCOL: Standard = Standard([
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
]);
pub(super) const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
pub(super) const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// systemd sets this variable for a unit with `StateDirectory=`.
pub(super) const STATE_DIRECTORY: &str = "STATE_DIRECTORY";
