//! Unit tests of the settings for the receiver of OpenTelemetry.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::{OtlpCompression, OtlpNames, OtlpSettings};
use crate::settings::{Problems, Settings};

fn read(vars: &[(&str, &str)]) -> Result<Option<OtlpSettings>, Problems> {
    let key = [("API_KEY", "0123456789abcdef")];
    let vars: Vec<_> = key
        .iter()
        .chain(vars)
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    Settings::from_env(vars.into_iter()).map(|settings| settings.otlp)
}

fn problems(vars: &[(&str, &str)]) -> Vec<String> {
    let problems = read(vars).unwrap_err();
    problems.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn without_an_endpoint_nothing_is_sent() {
    assert_eq!(read(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "5")]).unwrap(), None);
    let [problem] = &problems(&[("OTLP_SIGNALS", "metrics")])[..] else {
        panic!("not one problem");
    };
    assert!(
        problem.starts_with("OTLP_SIGNALS: set, but OTLP_ENDPOINT is not"),
        "{problem}"
    );
}

#[test]
fn everything_but_the_endpoint_has_a_default() {
    let settings = read(&[("OTLP_ENDPOINT", "http://127.0.0.1:4318")])
        .unwrap()
        .unwrap();
    let [metrics, logs] = [settings.metrics.unwrap(), settings.logs.unwrap()];
    assert_eq!(metrics.url.to_string(), "http://127.0.0.1:4318/v1/metrics");
    assert_eq!(logs.url.to_string(), "http://127.0.0.1:4318/v1/logs");
    assert_eq!(logs.timeout, Duration::from_secs(10));
    assert_eq!(logs.compression, OtlpCompression::Gzip);
    assert_eq!(settings.signals.names(), "metrics,logs,events");
    assert_eq!(
        (settings.interval, settings.names),
        (None, OtlpNames::Conventions)
    );
    assert_eq!(settings.point_attributes, ["container.name"]);
    assert_eq!(settings.state, None);
}

#[test]
fn the_agents_variables_win_over_the_standard_variables() {
    let standard = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://b/insert"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=a%20b, team=x",
        ),
        ("OTEL_SERVICE_NAME", "edge"),
        ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
    ];
    let settings = read(&standard).unwrap().unwrap();
    let [metrics, logs] = [settings.metrics.unwrap(), settings.logs.unwrap()];
    assert_eq!(metrics.url.to_string(), "http://a:80/v1/metrics");
    assert_eq!(logs.url.to_string(), "https://b:443/insert");
    assert_eq!(metrics.timeout, Duration::from_millis(1500));
    assert_eq!(logs.timeout, Duration::from_millis(2500));
    assert_eq!(logs.compression, OtlpCompression::None);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        settings.resource,
        [
            pair("deployment.environment.name", "a b"),
            pair("team", "x")
        ]
    );
    assert_eq!(settings.service_name.as_deref(), Some("edge"));
    assert_eq!(settings.state.as_deref(), Some(Path::new("/var/lib/a")));
    let own = [
        ("OTLP_ENDPOINT", "http://c/otlp"),
        ("OTLP_TIMEOUT", "3s"),
        ("OTLP_COMPRESSION", "zstd"),
        ("OTLP_SIGNALS", "events"),
        ("OTLP_POINT_ATTRIBUTES", "none"),
    ];
    let settings = read(&[&standard[..], &own].concat()).unwrap().unwrap();
    let logs = settings.logs.unwrap();
    assert_eq!(settings.metrics, None);
    assert_eq!(logs.url.to_string(), "http://c:80/otlp/v1/logs");
    assert_eq!(logs.timeout, Duration::from_secs(3));
    assert_eq!(logs.compression, OtlpCompression::Zstd);
    assert_eq!(settings.point_attributes, Vec::<String>::new());
}

#[test]
fn only_a_signal_with_an_endpoint_is_sent() {
    let settings = read(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://a/x")])
        .unwrap()
        .unwrap();
    assert_eq!(settings.metrics.unwrap().url.to_string(), "http://a:80/x");
    assert_eq!(settings.logs, None);
}

#[test]
fn a_wrong_value_of_all_signals_is_one_problem() {
    let endpoint = ("OTLP_ENDPOINT", "http://a");
    for (variable, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent/ca"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("OTEL_RESOURCE_ATTRIBUTES", "secret"),
        ("OTLP_HEADERS_FILE", "/nonexistent/headers"),
        ("OTLP_POINT_ATTRIBUTES", "two words"),
    ] {
        let [problem] = &problems(&[endpoint, (variable, value)])[..] else {
            panic!("not one problem with {variable}");
        };
        assert!(problem.starts_with(&format!("{variable}: ")), "{problem}");
        assert!(
            problem.contains("accepted: ") && !problem.contains("secret"),
            "{problem}"
        );
    }
    let [problem] = &problems(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4317")])[..] else {
        panic!("not one problem");
    };
    assert!(
        problem.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: no scheme"),
        "{problem}"
    );
    let [problem] = &problems(&[endpoint, ("OTLP_KEY_FILE", "/k")])[..] else {
        panic!("not one problem");
    };
    assert!(problem.starts_with("OTLP_CERT_FILE: not set"), "{problem}");
}
